//! Answers on their way to a client that takes them at its own pace.
//!
//! What waits is bounded in bytes: whoever makes answers stands still until some are taken, and with it
//! stands still what it reads. A client that takes nothing for too long gets no more, and what waited for
//! it is let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::Notify;

/// The most bytes that are taken at once: the thread of a connection has others to serve.
const PART_BYTES: usize = 64 * 1024;

/// Why nobody gets an answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    #[error("the client has gone")]
    Gone,
    #[error("the client took no answers for too long; read them while you send rows")]
    Stalled,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Bytes>,
    bytes: usize,
    /// How it ended: true when everything was said.
    ended: Option<bool>,
    is_gone: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Some was taken, or the client has gone.
    taken: Notify,
    /// There is more, or the end.
    added: Notify,
}

impl Shared {
    /// Every change is whole, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, is_whole: bool) {
        self.lock().ended.get_or_insert(is_whole);
        self.added.notify_one();
    }
}

/// Where answers are put. When it is dropped before [`Sender::finish`], the client sees the answer break
/// off.
pub struct Sender {
    shared: Arc<Shared>,
    most_bytes: usize,
    patience: Duration,
}

/// Where they are taken from.
pub struct Receiver(Arc<Shared>);

/// A way for answers, of which `most_bytes` may wait, but always one; a client may take nothing for
/// `patience`.
pub fn way(most_bytes: usize, patience: Duration) -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    let sender = Sender {
        shared: Arc::clone(&shared),
        most_bytes,
        patience,
    };
    (sender, Receiver(shared))
}

impl Sender {
    /// Puts an answer on its way, as soon as there is room for it.
    ///
    /// # Errors
    /// When nobody takes answers any more.
    pub async fn send(&self, part: Bytes) -> Result<(), Untaken> {
        if part.is_empty() {
            return Ok(());
        }
        loop {
            let waiting = {
                let mut state = self.shared.lock();
                if state.is_gone {
                    return Err(Untaken::Gone);
                }
                if state.bytes == 0 || state.bytes + part.len() <= self.most_bytes {
                    state.bytes += part.len();
                    state.parts.push_back(part);
                    self.shared.added.notify_one();
                    return Ok(());
                }
                state.bytes
            };
            let taken = tokio::time::timeout(self.patience, self.shared.taken.notified()).await;
            let mut state = self.shared.lock();
            if taken.is_err() && state.bytes == waiting && !state.is_gone {
                state.parts.clear();
                state.bytes = 0;
                drop(state);
                self.shared.end(false);
                return Err(Untaken::Stalled);
            }
        }
    }

    /// Puts the last answer, a short one, on its way at once.
    pub fn last(&self, part: Bytes) {
        let mut state = self.shared.lock();
        if !state.is_gone {
            state.bytes += part.len();
            state.parts.push_back(part);
        }
        drop(state);
        self.shared.added.notify_one();
    }

    /// That everything was said.
    pub fn finish(self) {
        self.shared.end(true);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.end(false);
    }
}

impl Receiver {
    /// The next answer; none at the end.
    ///
    /// # Errors
    /// When the answers break off.
    pub async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        loop {
            {
                let mut state = self.0.lock();
                let part = match state.parts.front_mut() {
                    Some(first) if first.len() > PART_BYTES => Some(first.split_to(PART_BYTES)),
                    _ => state.parts.pop_front(),
                };
                if let Some(part) = part {
                    state.bytes -= part.len();
                    drop(state);
                    self.0.taken.notify_one();
                    return Some(Ok(part));
                }
                match state.ended {
                    Some(true) => return None,
                    Some(false) => {
                        // Said once; whoever asks again gets the end.
                        state.ended = Some(true);
                        return Some(Err(std::io::Error::other("the answer broke off")));
                    }
                    None => {}
                }
            }
            self.0.added.notified().await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_gone = true;
        state.parts.clear();
        drop(state);
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn answers_come_in_order_and_no_more_wait_than_may() {
        let (sender, mut receiver) = way(10, LONG);
        sender.send(Bytes::from_static(b"12345")).await.unwrap();
        sender.send(Bytes::from_static(b"67890")).await.unwrap();
        let mut third = Box::pin(sender.send(Bytes::from_static(b"x")));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert_eq!(receiver.next().await.unwrap().unwrap(), "12345");
        third.await.unwrap();
        sender.finish();
        assert_eq!(receiver.next().await.unwrap().unwrap(), "67890");
        assert_eq!(receiver.next().await.unwrap().unwrap(), "x");
        assert!(receiver.next().await.is_none());
    }

    #[tokio::test]
    async fn one_answer_is_let_in_however_large_it_is() {
        let (sender, mut receiver) = way(1, LONG);
        sender.send(Bytes::from_static(b"12345")).await.unwrap();
        drop(sender);
        assert_eq!(receiver.next().await.unwrap().unwrap(), "12345");
        assert!(receiver.next().await.unwrap().is_err());
        assert!(receiver.next().await.is_none());
        // It is taken in parts.
        let (sender, mut receiver) = way(1, LONG);
        sender.send(vec![7; PART_BYTES + 1].into()).await.unwrap();
        assert_eq!(receiver.next().await.unwrap().unwrap().len(), PART_BYTES);
        assert_eq!(receiver.next().await.unwrap().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn who_takes_nothing_or_has_gone_gets_no_more() {
        let (sender, mut receiver) = way(1, Duration::from_millis(1));
        sender.send(Bytes::from_static(b"12345")).await.unwrap();
        let untaken = sender.send(Bytes::from_static(b"6")).await;
        assert_eq!(untaken, Err(Untaken::Stalled));
        // What waited is let go.
        assert!(receiver.next().await.unwrap().is_err());
        let (sender, receiver) = way(1, LONG);
        drop(receiver);
        assert_eq!(
            sender.send(Bytes::from_static(b"1")).await,
            Err(Untaken::Gone)
        );
    }
}
