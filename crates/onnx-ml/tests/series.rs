//! Models of series, whose operators tract lends, give what ONNX Runtime gives.
#![cfg(feature = "tract")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{Tolerance, difference, read_tensor, rows};
use onnx_ml::{Model, Tensor};
use serde_json::Value;

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("zoo/series")
        .join(name);
    let model = Model::from_bytes(&std::fs::read(folder.join("model.onnx")).unwrap()).unwrap();
    let expectations = std::fs::read(folder.join("io.json")).unwrap();
    let expectations: Value = serde_json::from_slice(&expectations).unwrap();
    let series = read_tensor(&expectations["inputs"][0]);
    let scores = read_tensor(&expectations["outputs"][0]);
    let count = series.shape()[0];
    let compare = |first: usize, size: usize| {
        let outputs = model.run(vec![rows(&series, first, size)]).unwrap();
        let wrong = difference(&outputs[0], &rows(&scores, first, size), Tolerance::Other);
        assert_eq!(wrong, None, "{name}, {size} rows from {first}");
    };
    compare(0, count);
    for row in 0..count {
        compare(row, 1);
    }
    // Another number of steps is another shape of a recurrent layer's input, and no rows are none.
    let none = model.run(vec![rows(&series, 0, 0)]);
    assert_eq!(
        none.map(|outputs| outputs[0].shape()[0]).ok(),
        Some(0),
        "{name}, no rows"
    );
    let narrow = Tensor::new(&[1, 1, 1], vec![0.0f32]).unwrap();
    assert!(
        model.run(vec![narrow]).is_err(),
        "{name}, a shape that does not fit"
    );
}

#[test]
fn convolutions_and_pooling() {
    check("convolution");
}

#[test]
fn long_short_term_memory() {
    check("lstm");
}

#[test]
fn gated_recurrent_units() {
    check("gru");
}
