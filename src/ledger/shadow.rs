//! Scores of shadow versions: what a version that nobody was answered from said beside the one that
//! answered.

use prost::Message;
use prost::bytes::Bytes;

use super::error::AppendError;
use super::frame::{FrameKind, MAX_PAYLOAD_BYTES, begin_frame, set_length};
use super::handle::Ledger;

/// One score of a shadow version. Field numbers are the format on disk: never reuse one.
#[derive(Clone, PartialEq, Message)]
pub struct ShadowScore {
    /// Of the prediction that was answered, UUIDv7, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub prediction_id: Bytes,
    /// When the shadow version was run, microseconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// Key of the scored entity.
    #[prost(string, tag = "3")]
    pub customer_id: String,
    #[prost(string, tag = "4")]
    pub model: String,
    /// The shadow version.
    #[prost(string, tag = "5")]
    pub version: String,
    /// Digest of its file (SHA-256, 32 bytes).
    #[prost(bytes = "bytes", tag = "6")]
    pub digest: Bytes,
    /// What it said; absent when it failed.
    #[prost(double, optional, tag = "7")]
    pub score: Option<f64>,
    #[prost(string, optional, tag = "8")]
    pub label: Option<String>,
    /// Why it failed.
    #[prost(string, optional, tag = "9")]
    pub problem: Option<String>,
    /// How long it took, microseconds.
    #[prost(uint64, tag = "10")]
    pub micros: u64,
    /// The version that answered.
    #[prost(string, tag = "11")]
    pub served_version: String,
    /// What was answered.
    #[prost(double, tag = "12")]
    pub served_score: f64,
}

impl Ledger {
    /// Takes the score of a shadow version for writing, as predictions are taken: never waits, and is in
    /// the file within 50 ms.
    ///
    /// # Errors
    /// When the ledger takes no rows now.
    pub fn append_shadow_score(&self, row: &ShadowScore) -> Result<(), AppendError> {
        let mut frame = begin_frame(FrameKind::Shadow, row.encoded_len());
        let encoded = row.encode(&mut frame);
        debug_assert!(encoded.is_ok());
        set_length(&mut frame).map_err(|bytes| AppendError::TooLarge {
            bytes,
            limit: MAX_PAYLOAD_BYTES,
        })?;
        self.append_frame(&frame)
    }
}
