//! What the fuzz targets and the golden tests share.
//!
//! * [`mutate`] – generated edits of valid bytes.
//! * [`json_edit`] – generated edits of valid JSON, which keep it JSON.
//! * [`in_process`] – the whole request stack without a socket.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of it, and helpers of tests fail loudly"
)]

pub mod in_process;
pub mod json_edit;
pub mod mutate;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one target may run as part of `cargo test`. The first to be reached ends it: this time
/// or the number of iterations.
pub const TARGET_TIME: Duration = Duration::from_secs(8);

/// A path in the repository.
pub fn repository_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The bytes of a committed file.
pub fn committed(relative: &str) -> Vec<u8> {
    let path = repository_path(relative);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a committed file.
pub fn committed_text(relative: &str) -> String {
    String::from_utf8(committed(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}
