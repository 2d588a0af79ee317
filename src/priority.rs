//! The priority of a thread whose work can wait.

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// Of 99; nice 10 on Linux. Not the lowest: whoever has work that cannot wait goes
/// before it, and on a machine that is busy for good it still gets on.
const LOW: u8 = 22;

/// Gives the calling thread a low priority. Where that is not allowed it keeps the one it has.
pub fn lower() {
    let lowered = ThreadPriorityValue::try_from(LOW)
        .map(ThreadPriority::Crossplatform)
        .map(set_current_thread_priority);
    if !matches!(lowered, Ok(Ok(()))) {
        tracing::debug!("a thread in the background has the usual priority");
    }
}
