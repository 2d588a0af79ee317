//! The priority of a thread whose work can wait.

use std::path::Path;

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// Of 99; nice 10 on Linux. Not the lowest: whoever has work that cannot wait goes
/// before it, and on a machine that is busy for good it still gets on.
const LOW: u8 = 22;

/// Nice 19 on Linux.
const LOWEST: u8 = 0;

/// Where Linux says, and is told, what a session is worth beside others.
const SESSION: &str = "/proc/self/autogroup";

/// Gives the calling thread a low priority. Where that is not allowed it keeps the one it has.
pub fn lower() {
    set(LOW);
}

/// Gives the calling thread the lowest priority, for work that takes all of a core for long: a thread of
/// usual priority that wakes does not wait for it. (With nice 10 the slowest in a hundred waited for half a
/// millisecond on a machine where all cores were busy that way.) Where that is not allowed it keeps the one
/// it has.
pub fn lowest() {
    set(LOWEST);
}

fn set(priority: u8) {
    let lowered = ThreadPriorityValue::try_from(priority)
        .map(ThreadPriority::Crossplatform)
        .map(set_current_thread_priority);
    if !matches!(lowered, Ok(Ok(()))) {
        tracing::debug!("a thread in the background has the usual priority");
    }
}

/// Lets other sessions go before this one, if it is this process's own.
///
/// Linux shares a core among sessions first and among the threads of each then, so that beside a server
/// that was started elsewhere a thread's own priority says nothing. A session that others share, such as
/// that of a terminal, is left as it is.
pub fn lower_session() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if !is_session_leader(&stat) || !Path::new(SESSION).exists() {
        return;
    }
    if let Err(error) = std::fs::write(SESSION, "19") {
        tracing::debug!(%error, "the session has the usual priority");
    }
}

/// Whether the process with that line of `/proc/PID/stat` is the first of its session.
fn is_session_leader(stat: &str) -> bool {
    // The name, in parentheses, may hold anything.
    let (Some((pid, _)), Some((_, behind))) = (stat.split_once(' '), stat.rsplit_once(") ")) else {
        return false;
    };
    // State, parent and process group come before the session.
    behind.split(' ').nth(3) == Some(pid)
}

#[cfg(test)]
mod tests {
    use super::is_session_leader;

    #[test]
    fn a_session_is_a_processs_own_when_it_is_its_first() {
        assert!(is_session_leader("71 (a) b) S 1 71 71 0 -1"));
        assert!(!is_session_leader("72 (bellwether) S 71 72 71 0 -1"));
        assert!(!is_session_leader(""));
    }
}
