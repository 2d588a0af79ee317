//! Brokers that events come from: what a broker has to do, and what is done with its messages.
//!
//! A [`Source`] delivers messages in batches and takes acknowledgements; further brokers implement it
//! (`super::nats` is the first). `super::runner` does the rest, the same for all of them, and promises:
//!
//! * A message is acknowledged after its events are in the log and applied, or after it is in the
//!   dead-letter file; never before. A broker that delivers what was not acknowledged again therefore
//!   loses nothing, and what it delivers twice is recognised by its event ids.
//! * Nothing is dropped because something is down. While the broker, the log or the store is
//!   unavailable it tries again, with growing pauses; the server goes on serving.
//! * A message that can never be applied (no JSON, no event, refused) does not hold up the others.

use std::future::Future;
use std::pin::Pin;

use prost::bytes::Bytes;

/// One message of a broker.
#[derive(Clone, Debug)]
pub struct Message {
    pub payload: Bytes,
    pub headers: Vec<(String, String)>,
    /// Where it comes from, for the dead-letter file: stream or topic,
    pub stream: String,
    /// subject or key,
    pub subject: String,
    /// and its number there.
    pub sequence: u64,
    /// When the broker took it, microseconds since the Unix epoch.
    pub taken_at_us: Option<i64>,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// What the source needs to acknowledge it; means nothing to others.
    pub receipt: String,
}

/// Why a source cannot go on, for the log: what was tried, what happened, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// What the operations of a source return.
pub type SourceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// A broker's stream of messages, delivered at least once.
///
/// After an error of any call the connection counts as lost: [`Source::connect`] is called again,
/// after a pause, and then what is not acknowledged is expected to be delivered again.
pub trait Source: Send + Sync {
    /// Connects, letting go of an earlier connection.
    fn connect(&mut self) -> SourceFuture<'_, ()>;

    /// The next messages, at most some 1,000 and some 16 MiB of them; empty when none came within
    /// about half a second. May be called before the last ones are acknowledged.
    fn fetch(&self) -> SourceFuture<'_, Vec<Message>>;

    /// Tells the broker that it need not deliver these messages again.
    fn acknowledge<'a>(&'a self, messages: &'a [Message]) -> SourceFuture<'a, ()>;

    /// How many messages are not acknowledged yet, whether they were delivered or not.
    fn lag(&self) -> SourceFuture<'_, u64>;
}
