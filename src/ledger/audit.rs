//! Audit rows: who did what to the server, and why.
//!
//! Every administrative call leaves one, and so does every transition of a version's rollout, also
//! those that the server makes by itself. An audit row is durable before the call it belongs to is
//! answered.

use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::oneshot;

use super::error::AppendError;
use super::frame::{FrameKind, MAX_PAYLOAD_BYTES, begin_frame, set_length};
use super::handle::Ledger;
use super::queue::QueuedFrame;

/// One administrative act. Field numbers are the format on disk: never reuse one.
#[derive(Clone, PartialEq, Message)]
pub struct Audit {
    /// UUIDv7, 16 bytes, big endian.
    #[prost(bytes = "bytes", tag = "1")]
    pub audit_id: Bytes,
    /// When, microseconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// Who: `key:<id>`, `anonymous` on a server without keys, `server` when it acted by itself.
    #[prost(string, tag = "3")]
    pub actor: String,
    /// What, for example `model.promote`, or the method and route of a call.
    #[prost(string, tag = "4")]
    pub action: String,
    /// To what, for example `churn/3`.
    #[prost(string, tag = "5")]
    pub subject: String,
    /// Why, in the words of whoever did it.
    #[prost(string, tag = "6")]
    pub reason: String,
    /// `done`, or what was wrong.
    #[prost(string, tag = "7")]
    pub outcome: String,
    /// More, as a JSON object; empty for nothing.
    #[prost(string, tag = "8")]
    pub details: String,
}

impl Ledger {
    /// Takes an audit row for writing. Never waits for the disk: the receiver resolves when the row is
    /// durable, with the segment it is in, and ends without a value only if the ledger is closed before
    /// that.
    ///
    /// # Errors
    /// When the ledger takes no rows now; nothing is logged then.
    pub fn submit_audit(&self, audit: &Audit) -> Result<oneshot::Receiver<u64>, AppendError> {
        let mut frame = begin_frame(FrameKind::Audit, audit.encoded_len());
        // A Vec grows, so there is always room.
        let encoded = audit.encode(&mut frame);
        debug_assert!(encoded.is_ok());
        set_length(&mut frame).map_err(|bytes| AppendError::TooLarge {
            bytes,
            limit: MAX_PAYLOAD_BYTES,
        })?;
        let (reply, durable) = oneshot::channel();
        self.queue().push_awaited(QueuedFrame { frame, reply })?;
        Ok(durable)
    }
}
