//! What was seen of an entity, as bytes that can pass through a sort.
//!
//! These bytes live as long as one plan; they are no format.

use prost::Message;

use super::error::HistoryError;
use crate::features::change::Scalar;
use crate::store::entity::{from_scalar, to_scalar};
use crate::store::{Snapshot, StoredValue};

#[derive(Clone, PartialEq, Message)]
struct SnapshotRow {
    #[prost(message, repeated, tag = "1")]
    features: Vec<ValueRow>,
    #[prost(message, repeated, tag = "2")]
    windows: Vec<ValueRow>,
    #[prost(uint64, tag = "3")]
    applied: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(sint64, tag = "2")]
    as_of_us: i64,
    /// Null when absent.
    #[prost(oneof = "Scalar", tags = "3, 4, 5, 6")]
    value: Option<Scalar>,
}

/// The bytes of `snapshot`.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let features = snapshot.profile.iter();
    let row = SnapshotRow {
        features: features
            .map(|(name, stored)| ValueRow {
                name: name.to_owned(),
                as_of_us: stored.as_of_us,
                value: to_scalar(&stored.value),
            })
            .collect(),
        windows: snapshot
            .windows
            .iter()
            .map(|value| ValueRow {
                value: to_scalar(value),
                ..ValueRow::default()
            })
            .collect(),
        applied: snapshot.applied,
    };
    row.encode_to_vec()
}

/// The snapshot that was encoded.
///
/// # Errors
/// When the bytes are none.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, HistoryError> {
    let row = SnapshotRow::decode(bytes).map_err(|error| HistoryError::Plan(error.to_string()))?;
    let features = row.features.into_iter().map(|row| {
        let value = StoredValue {
            value: from_scalar(row.value.as_ref()),
            as_of_us: row.as_of_us,
        };
        (row.name, value)
    });
    Ok(Snapshot {
        profile: features.collect(),
        windows: row
            .windows
            .iter()
            .map(|row| from_scalar(row.value.as_ref()))
            .collect(),
        applied: row.applied,
    })
}
