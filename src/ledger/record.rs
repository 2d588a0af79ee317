//! The records of the ledger: what one prediction, one inference and one outcome are on disk.
//!
//! They are Protocol Buffers messages written with `prost`'s derive, so the field numbers below
//! *are* the on-disk format. The rule of evolution: a number is never given a new meaning; a new
//! field takes a new number and must mean "as before" when it is absent. A reader ignores numbers
//! that it does not know.
//!
//! This file holds data only; how records are framed is in [`super::frame`].

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

/// One answered score request: who, which feature values were served and how old they were, and
/// what every model said. Written once, never changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Prediction {
    /// UUIDv7, 16 bytes, big endian as in RFC 9562. Any other length is refused by the ledger.
    #[prost(bytes = "bytes", tag = "1")]
    pub prediction_id: Bytes,
    /// Key of the scored entity, as the caller sent it.
    #[prost(string, tag = "2")]
    pub customer_id: String,
    /// When the request was scored, microseconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "3")]
    pub at_us: i64,
    /// Name of the feature view.
    #[prost(string, tag = "4")]
    pub view: String,
    /// Digest of the view's definition (SHA-256, 32 bytes). `Bytes` so that one copy is shared by
    /// all rows.
    #[prost(bytes = "bytes", tag = "5")]
    pub view_digest: Bytes,
    /// The feature values as served, in the order of the view.
    #[prost(message, repeated, tag = "6")]
    pub features: Vec<Feature>,
    /// One entry per model version that answered.
    #[prost(message, repeated, tag = "7")]
    pub scores: Vec<Score>,
    /// The number of the last change that went into the entity whose values were served; absent when
    /// there was none, and in rows of versions that did not number changes.
    #[prost(uint64, optional, tag = "8")]
    pub applied: Option<u64>,
}

/// One feature value as it was served.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Feature {
    /// Name of the feature in its view.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value; `None` is null, which is a value like any other.
    #[prost(oneof = "FeatureValue", tags = "2, 3, 4, 5")]
    pub value: Option<FeatureValue>,
    /// When the value was written to the online store, microseconds since 1970-01-01T00:00:00Z;
    /// absent for values that were not stored (overrides, defaults, derived).
    #[prost(int64, optional, tag = "6")]
    pub as_of_us: Option<i64>,
    /// Where the value came from.
    #[prost(enumeration = "FeatureSource", tag = "7")]
    pub source: i32,
}

/// A feature value that is not null.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum FeatureValue {
    /// A boolean.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A 64-bit signed integer.
    #[prost(int64, tag = "3")]
    Int64(i64),
    /// A 64-bit float; NaN and infinities are kept bit for bit.
    #[prost(double, tag = "4")]
    Float64(f64),
    /// A string.
    #[prost(string, tag = "5")]
    String(String),
}

/// Where a served feature value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum FeatureSource {
    /// Read from the online store.
    Stored = 0,
    /// Sent with the request.
    Override = 1,
    /// Not stored; the view's declared default was used.
    Default = 2,
    /// Computed from other features by the view's expression.
    Derived = 3,
    /// Not stored and without a default: null was passed on.
    Missing = 4,
    /// Computed from the events of a window of time.
    Window = 5,
    /// Read from a related entity.
    Related = 6,
    /// The request's context, or its time.
    Request = 7,
}

impl FeatureSource {
    /// The lower-case word used in exports.
    pub fn as_word(self) -> &'static str {
        match self {
            FeatureSource::Stored => "stored",
            FeatureSource::Override => "override",
            FeatureSource::Default => "default",
            FeatureSource::Derived => "derived",
            FeatureSource::Missing => "missing",
            FeatureSource::Window => "window",
            FeatureSource::Related => "related",
            FeatureSource::Request => "request",
        }
    }
}

/// What one model version said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Score {
    /// Name of the model.
    #[prost(string, tag = "1")]
    pub model: String,
    /// Its version, the name of the version's folder.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Digest of the model file (SHA-256, 32 bytes).
    #[prost(bytes = "bytes", tag = "3")]
    pub digest: Bytes,
    /// The score as answered, float64.
    #[prost(double, tag = "4")]
    pub score: f64,
    /// The label as answered, when the model gives one.
    #[prost(string, optional, tag = "5")]
    pub label: Option<String>,
    /// The raw score that the reasons add up to (log-odds for a classifier), when it was computed.
    #[prost(double, optional, tag = "6")]
    pub log_odds: Option<f64>,
    /// The reasons as answered, when they were asked for.
    #[prost(message, optional, tag = "7")]
    pub reasons: Option<Reasons>,
}

/// Why a score is what it is: `base` + all `contributions` + `other` = the raw score.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reasons {
    /// The raw score of the baseline.
    #[prost(double, tag = "1")]
    pub base: f64,
    /// The contributions that were answered, in the order of the answer.
    #[prost(message, repeated, tag = "2")]
    pub contributions: Vec<Contribution>,
    /// The sum of all contributions that were not listed.
    #[prost(double, tag = "3")]
    pub other: f64,
}

/// What one feature added to the raw score.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Contribution {
    /// Name of the feature.
    #[prost(string, tag = "1")]
    pub feature: String,
    /// Its addition to the raw score, in the raw score's unit.
    #[prost(double, tag = "2")]
    pub contribution: f64,
}

/// One answered inference request: which model version was run on which tensors and what it gave.
/// Written once, never changed. The hot path writes these bytes without this struct, see
/// [`super::InferenceRow`]; it is what readers decode.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inference {
    /// UUIDv7, 16 bytes, big endian as in RFC 9562. An outcome may name it like a prediction's.
    #[prost(bytes = "bytes", tag = "1")]
    pub prediction_id: Bytes,
    /// When the request was answered, microseconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// Name of the model.
    #[prost(string, tag = "3")]
    pub model: String,
    /// Its version, the name of the version's folder.
    #[prost(string, tag = "4")]
    pub version: String,
    /// Digest of the model file (SHA-256, 32 bytes).
    #[prost(bytes = "bytes", tag = "5")]
    pub digest: Bytes,
    /// The caller's own id of the request, when it sent one; at most [`MAX_REQUEST_ID_BYTES`] bytes,
    /// a longer one is cut there.
    #[prost(string, optional, tag = "6")]
    pub request_id: Option<String>,
    /// How many rows were scored.
    #[prost(uint64, tag = "7")]
    pub rows: u64,
    /// The tensors that went into the graph.
    #[prost(message, repeated, tag = "8")]
    pub inputs: Vec<InferenceTensor>,
    /// The tensors that came out and were answered.
    #[prost(message, repeated, tag = "9")]
    pub outputs: Vec<InferenceTensor>,
}

/// The longest caller's id that is kept whole, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 256;

/// One tensor of an inference.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InferenceTensor {
    /// Name in the graph.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Type of the elements, the number that ONNX gives it (`TensorProto.DataType`).
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Its dimensions.
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
    /// The elements in row-major order as the protocol's binary form has them: little-endian numbers,
    /// `BOOL` as one byte, texts behind their length in four bytes. Absent when the request held too
    /// much to be logged whole; then it is absent in all its tensors.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub data: Option<Bytes>,
}

/// What happened to a customer, joined later to the predictions by id or by customer and time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// The sender's id of this outcome, 1 to [`MAX_OUTCOME_ID_BYTES`] bytes; an id is counted once.
    #[prost(string, tag = "1")]
    pub outcome_id: String,
    /// The prediction that this is the outcome of: 16 bytes, when the sender knows it.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub prediction_id: Option<Bytes>,
    /// The customer that it happened to, when the sender said so.
    #[prost(string, optional, tag = "3")]
    pub customer_id: Option<String>,
    /// What happened, for example `churned`.
    #[prost(string, tag = "4")]
    pub outcome: String,
    /// A number that goes with it, for example revenue.
    #[prost(double, optional, tag = "5")]
    pub value: Option<f64>,
    /// When it happened, microseconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "6")]
    pub occurred_at_us: i64,
    /// When we learned of it, microseconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "7")]
    pub received_at_us: i64,
    /// Digest of what the sender sent, from [`outcome_content_hash`]: a second outcome with the
    /// same id and the same digest is a duplicate, with another digest a conflict. When it is left
    /// empty the ledger fills it in from the fields of the record (`received_at_us` excluded).
    #[prost(bytes = "bytes", tag = "8")]
    pub content_hash: Bytes,
}

/// The longest outcome id that is accepted, in bytes. It is a key of the index, so it must be
/// short.
pub const MAX_OUTCOME_ID_BYTES: usize = 256;

/// Digest of what a sender says about one outcome: the first 16 bytes of a SHA-256.
///
/// Pass the fields *as they were sent*: when `occurred_at` was left out and the server filled in
/// its own clock, pass `None`, else an honest retry a second later would look like a conflict.
pub fn outcome_content_hash(
    prediction_id: Option<&[u8]>,
    customer_id: Option<&str>,
    outcome: &str,
    value: Option<f64>,
    occurred_at_us: Option<i64>,
) -> Bytes {
    let mut hasher = Sha256::new();
    hash_field(&mut hasher, prediction_id);
    hash_field(&mut hasher, customer_id.map(str::as_bytes));
    hash_field(&mut hasher, Some(outcome.as_bytes()));
    hash_field(
        &mut hasher,
        value
            .map(|number| number.to_bits().to_le_bytes())
            .as_ref()
            .map(<[u8; 8]>::as_slice),
    );
    hash_field(
        &mut hasher,
        occurred_at_us
            .map(i64::to_le_bytes)
            .as_ref()
            .map(<[u8; 8]>::as_slice),
    );
    let digest = hasher.finalize();
    Bytes::copy_from_slice(&digest[..16])
}

/// Every field goes in with its presence and length, so that no two different outcomes hash the
/// same bytes.
fn hash_field(hasher: &mut Sha256, field: Option<&[u8]>) {
    match field {
        None => hasher.update([0]),
        Some(bytes) => {
            hasher.update([1]);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
}
