//! What a call says of itself in its metadata: until when its answer is wanted, and whether somebody
//! waits for it.

use std::time::Instant;

use axum::http::HeaderMap;
use tonic::Status;

use crate::admission::Priority;
use crate::admission::deadline::{self, GRPC_TIMEOUT_HEADER, PRIORITY_HEADER};

/// Said once per call; of a stream it goes for all its requests.
#[derive(Clone, Copy)]
pub struct Asked {
    pub deadline: Option<Instant>,
    pub priority: Priority,
}

/// Reads `grpc-timeout` and `bellwether-priority` of a call that has just arrived.
///
/// # Errors
/// INVALID_ARGUMENT: which of them is wrong, what was found and what was expected.
pub fn asked(headers: &HeaderMap) -> Result<Asked, Status> {
    let deadline = match headers.get(GRPC_TIMEOUT_HEADER) {
        Some(value) => {
            let timeout =
                deadline::from_grpc(value.as_bytes()).map_err(Status::invalid_argument)?;
            Instant::now().checked_add(timeout)
        }
        None => None,
    };
    let priority = match headers.get(PRIORITY_HEADER) {
        Some(value) => {
            let word = String::from_utf8_lossy(value.as_bytes());
            Priority::parse(Some(&word)).map_err(|problem| {
                Status::invalid_argument(format!("metadata {PRIORITY_HEADER}: {problem}"))
            })?
        }
        None => Priority::Online,
    };
    Ok(Asked { deadline, priority })
}
