//! Records and helpers that the ledger's tests share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use bellwether::ledger::{
    Contribution, Feature, FeatureSource, FeatureValue, InferenceRow, InferenceTemplate, Ledger,
    LedgerOptions, Outcome, Prediction, Reasons, Score,
};
use onnx_ml::Tensor;
use uuid::Uuid;

/// A prediction as a telecom customer's score request makes it: `features` features and one model.
pub fn prediction(number: u64, features: usize) -> Prediction {
    let mut served = Vec::new();
    for position in 0..features {
        let value = match position % 4 {
            0 => Some(FeatureValue::String("Month-to-month".to_string())),
            1 => Some(FeatureValue::Int64(number as i64)),
            2 => Some(FeatureValue::Float64(29.85)),
            _ => None,
        };
        served.push(Feature {
            name: format!("feature_{position}"),
            value,
            as_of_us: Some(1_700_000_000_000_000),
            source: FeatureSource::Stored as i32,
        });
    }
    Prediction {
        prediction_id: Uuid::now_v7().as_bytes().to_vec().into(),
        customer_id: format!("customer-{number}"),
        at_us: 1_700_000_000_000_000 + number as i64,
        view: "customer".to_string(),
        view_digest: vec![7u8; 32].into(),
        features: served,
        scores: vec![Score {
            model: "churn".to_string(),
            version: "1".to_string(),
            digest: vec![9u8; 32].into(),
            score: 0.25,
            label: Some("stays".to_string()),
            log_odds: Some(-1.0986),
            reasons: Some(Reasons {
                base: -1.0,
                contributions: vec![Contribution {
                    feature: "feature_0".to_string(),
                    contribution: 0.5,
                }],
                other: -0.5986,
            }),
        }],
        applied: Some(number),
    }
}

/// The row of a usual inference: thirty floats in, a label and two probabilities out.
pub fn inference(template: &InferenceTemplate, id: Uuid) -> InferenceRow {
    let input = Tensor::new(&[1, 30], vec![0.25_f32; 30]).unwrap();
    let label = Tensor::vector(vec![1_i64]);
    let probabilities = Tensor::new(&[1, 2], vec![0.25_f32, 0.75]).unwrap();
    let at_us = 1_700_000_000_000_000;
    let mut row = InferenceRow::begin(template, id, at_us, Some("r-17"), 1, 16 * 1024);
    row.input("input", &input);
    row.output("label", &label);
    row.output("probabilities", &probabilities);
    row.finish().unwrap()
}

/// An outcome with this id and this word for what happened.
pub fn outcome(id: &str, what: &str) -> Outcome {
    Outcome {
        outcome_id: id.to_string(),
        prediction_id: None,
        customer_id: Some("customer-1".to_string()),
        outcome: what.to_string(),
        value: Some(1.5),
        occurred_at_us: 1_700_000_000_000_000,
        received_at_us: 1_700_000_000_500_000,
        content_hash: Vec::new().into(),
    }
}

/// The ledger with its default options.
pub fn open(data_dir: &Path) -> Ledger {
    Ledger::open(data_dir, LedgerOptions::default()).unwrap()
}

/// The path of a segment file.
pub fn segment_path(data_dir: &Path, sequence: u64) -> PathBuf {
    data_dir.join("ledger").join(format!("{sequence:020}.log"))
}

/// Puts `bytes` as the only segment into a data directory of its own, without an index.
pub fn write_segment(data_dir: &Path, bytes: &[u8]) {
    let ledger_dir = data_dir.join("ledger");
    let _ = std::fs::remove_dir_all(&ledger_dir);
    std::fs::create_dir_all(&ledger_dir).unwrap();
    std::fs::write(segment_path(data_dir, 1), bytes).unwrap();
}

/// The length of the frame at `offset`: 21 bytes and the payload, whose length is at byte 4.
pub fn frame_length(segment: &[u8], offset: usize) -> usize {
    21 + u32::from_le_bytes(segment[offset + 4..offset + 8].try_into().unwrap()) as usize
}

/// The offsets at which the frames of a sound segment start; the first is behind the header of 48
/// bytes.
pub fn frame_offsets(segment: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut offset = 48;
    while offset < segment.len() {
        offsets.push(offset);
        offset += frame_length(segment, offset);
    }
    offsets
}
