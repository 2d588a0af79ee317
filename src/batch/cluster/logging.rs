//! What Ballista logs, in this program's log.
//!
//! Ballista tells every task and every poll; here its warnings and errors are passed on, and the rest where
//! `BELLWETHER_LOG` asks for `debug`. What is said again and again, as while the scheduler is away, is said
//! once in a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The same message is not repeated for so long.
const QUIET: Duration = Duration::from_secs(10);

struct Passed {
    last: Mutex<Option<(String, Instant)>>,
}

static PASSED: Passed = Passed {
    last: Mutex::new(None),
};

/// Passes on what is logged from now on.
pub fn start() {
    // A second start leaves the first in place.
    if log::set_logger(&PASSED).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for Passed {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info && metadata.target().starts_with("ballista")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let said = record.args().to_string();
        match record.level() {
            Level::Error | Level::Warn => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                let is_repeated = last
                    .as_ref()
                    .is_some_and(|(text, at)| *text == said && at.elapsed() < QUIET);
                if is_repeated {
                    return;
                }
                *last = Some((said.clone(), Instant::now()));
                if record.level() == Level::Error {
                    tracing::error!(ballista = record.target(), "{said}");
                } else {
                    tracing::warn!(ballista = record.target(), "{said}");
                }
            }
            _ => tracing::debug!(ballista = record.target(), "{said}"),
        }
    }

    fn flush(&self) {}
}
