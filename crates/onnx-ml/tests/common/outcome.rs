//! What becomes of a file made to do harm, within bounds of time and memory.
#![allow(dead_code, clippy::panic)]

use std::time::Duration;

use onnx_ml::proto::ModelProto;
use onnx_ml::{Limits, LoadError, Model, RunError, Tensor};
use prost::Message;

use crate::bounds::Measurement;

pub const MIB: usize = 1 << 20;

/// Small, so that what should be stopped is stopped soon even without optimization.
pub fn small() -> Limits {
    Limits {
        tensor_bytes: 4 << 20,
        run_bytes: 8 << 20,
        nodes: 2000,
        steps: 2000,
        ..Limits::default()
    }
}

/// What became of a file: the reason why it was refused or its run stopped.
pub struct Outcome {
    pub loads: bool,
    /// Empty if there was a result.
    pub reason: String,
}

/// Loads a file and runs it if it loads, within bounds of time and memory.
#[track_caller]
pub fn try_bytes(bytes: &[u8], limits: &Limits, inputs: Vec<Tensor>) -> Outcome {
    let measurement = Measurement::start();
    let model = Model::from_bytes_with(bytes, limits);
    let outcome = match &model {
        Err(LoadError::Defect { reason }) => panic!("a panic while loading: {reason}"),
        Err(error) => Outcome {
            loads: false,
            reason: error.to_string(),
        },
        Ok(model) => match model.run(inputs) {
            Err(RunError::Defect { reason }) => panic!("a panic while running: {reason}"),
            Err(error) => Outcome {
                loads: true,
                reason: error.to_string(),
            },
            Ok(_) => Outcome {
                loads: true,
                reason: String::new(),
            },
        },
    };
    let (time, peak) = (measurement.time(), measurement.peak());
    assert!(time < Duration::from_secs(5), "it took {time:?}");
    // Decoding makes up to 24 times the file, and each of the other bounds is kept by itself.
    // The default limits are far above what any of these files may take.
    let limited = 4 * (limits.tensor_bytes + limits.run_bytes) as usize;
    let allowed = 64 * bytes.len() + limited.min(400 * MIB);
    assert!(peak < allowed, "it took {peak} of {allowed} bytes");
    outcome
}

/// With small limits: the file is refused, or its run is.
#[track_caller]
pub fn stopped(model: &ModelProto, inputs: Vec<Tensor>, reason: &str) {
    let outcome = try_bytes(&model.encode_to_vec(), &small(), inputs);
    assert!(outcome.reason.contains(reason), "{:?}", outcome.reason);
}

/// With default limits: the file is refused.
#[track_caller]
pub fn refused(model: &ModelProto, reason: &str) {
    let outcome = try_bytes(&model.encode_to_vec(), &Limits::default(), Vec::new());
    assert!(!outcome.loads, "it loads");
    assert!(outcome.reason.contains(reason), "{:?}", outcome.reason);
}

/// With default limits: the file loads and runs on one row.
#[track_caller]
pub fn accepted(model: &ModelProto, inputs: Vec<Tensor>) {
    let outcome = try_bytes(&model.encode_to_vec(), &Limits::default(), inputs);
    assert_eq!(outcome.reason, "");
}
