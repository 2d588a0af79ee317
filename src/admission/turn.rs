//! A short request's turn on its thread.
//!
//! A request that is done on the thread of its connection never waits in a queue of ours; when there
//! are more of them than the thread can do, they wait in their sockets, where nobody sees them. So on
//! a thread with many connections a request lets the others that have arrived be read first: then
//! they are all in flight, can be counted, and those over the bound are turned away before anything
//! is done for them.
//!
//! A thread with few connections cannot have that many requests at once, and its requests go on at
//! once: reading them all first would cost each of them its place in the processor's caches.

use std::cell::Cell;

thread_local! {
    /// Requests that the connections of this thread may have under way together.
    static POSSIBLE: Cell<usize> = const { Cell::new(0) };
}

/// A connection that may have `requests` under way at once is served by this thread from now on.
pub fn opened(requests: usize) {
    POSSIBLE.set(POSSIBLE.get().saturating_add(requests));
}

/// It is not any more.
pub fn closed(requests: usize) {
    POSSIBLE.set(POSSIBLE.get().saturating_sub(requests));
}

/// Lets the requests be read that have arrived on this thread meanwhile, if more than `few` are
/// possible.
pub async fn wait(few: usize) {
    if POSSIBLE.get() > few {
        tokio::task::yield_now().await;
    }
}
