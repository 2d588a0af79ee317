//! Asking a running server again when it has no time, or cannot be reached.

use std::time::Duration;

use crate::remote::Reply;

/// How often something is asked in all.
const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Asks until there is an answer: what was asked for, or a refusal that will not pass. Only for what may be
/// done twice.
///
/// # Errors
/// The refusal, or the problem of the last try.
pub fn patiently<T>(ask: impl Fn() -> Result<Result<T, Reply>, String>) -> Result<T, String> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let problem = match ask() {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reply)) => match reply.status.as_u16() {
                // It has no time, or a disk or store is not to be had, and says that it may pass.
                408 | 429 | 502..=504 => reply.refusal(),
                _ => return Err(reply.refusal()),
            },
            Err(problem) => problem,
        };
        if attempt >= TRIES {
            return Err(format!("{problem}; gave up after {TRIES} tries"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err("nothing was asked".to_owned())
}
