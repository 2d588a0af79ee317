//! Models of series, whose operators tract lends, give what ONNX Runtime gives.
#![cfg(feature = "tract")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::*;
use onnx_ml::{DataType, Model, Tensor, proto};
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

/// A layer with constants, from `x` to the outputs with these names.
fn layer(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<proto::AttributeProto>,
    constants: Vec<proto::TensorProto>,
) -> Model {
    let named = outputs.iter().filter(|name| !name.is_empty());
    let named = named
        .map(|name| value(name, DataType::F32, &[Dim::Unnamed; 3]))
        .collect();
    let x = value("x", DataType::F32, &[Dim::Unnamed; 3]);
    let node = node(operator, inputs, outputs, attributes);
    load(&file(vec![node], constants, vec![x], named))
}

fn ramp(shape: &[usize]) -> Tensor {
    let elements = 0..shape.iter().product::<usize>();
    let values = elements.map(|i| (i % 7) as f32 * 0.25 - 0.5);
    Tensor::new(shape, values.collect()).unwrap()
}

fn weights(name: &str, dims: &[i64]) -> proto::TensorProto {
    let sizes: Vec<usize> = dims.iter().map(|size| *size as usize).collect();
    float_constant(name, dims, ramp(&sizes).as_slice::<f32>().unwrap())
}

#[test]
fn the_last_step_alone_is_that_of_all_steps() {
    for (operator, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let made = |outputs: &[&str]| {
            let constants = vec![
                weights("w", &[1, 2 * gates, 3]),
                weights("r", &[1, 2 * gates, 2]),
            ];
            layer(operator, &["x", "w", "r"], outputs, vec![], constants)
        };
        let series = || vec![ramp(&[5, 4, 3])];
        let every = made(&["y"]).run(series()).unwrap();
        let last = made(&["", "last"]).run(series()).unwrap();
        assert_eq!(every[0].shape(), [5, 1, 4, 2], "{operator}");
        assert_eq!(last[0].shape(), [1, 4, 2], "{operator}");
        let last_step = rows(&every[0], 4, 1).reshaped(&[1, 4, 2]).unwrap();
        let wrong = difference(&last[0], &last_step, Tolerance::Other);
        assert_eq!(wrong, None, "{operator}");
    }
}

#[test]
fn an_input_left_out_at_the_end_is_no_input() {
    let inputs = ["x", "w", ""];
    let model = layer(
        "Conv",
        &inputs,
        &["y"],
        vec![],
        vec![weights("w", &[1, 1, 2])],
    );
    let outputs = model.run(vec![ramp(&[1, 1, 3])]).unwrap();
    // Weights −0.5 and −0.25 on −0.5, −0.25 and 0.
    assert_eq!(outputs[0].as_slice::<f32>().unwrap(), [0.3125, 0.125]);
}

#[test]
fn no_rows_give_none_of_each_output_in_its_type() {
    let model = layer(
        "MaxPool",
        &["x"],
        &["y", "places"],
        vec![ints("kernel_shape", &[2])],
        vec![],
    );
    let outputs = model.run(vec![ramp(&[0, 3, 8])]).unwrap();
    assert_eq!(outputs[0].shape(), [0, 3, 7]);
    assert_eq!(outputs[1].shape(), [0, 3, 7]);
    assert_eq!(outputs[1].data_type(), DataType::I64);
}

/// The shapes that are computed ahead are those that tract gives, else the run is refused.
#[test]
fn windows_of_many_kinds_have_the_shapes_that_were_expected() {
    let run = |operator: &str, attributes: Vec<proto::AttributeProto>, length: usize| {
        let (inputs, constants): (&[&str], _) = match operator {
            "MaxPool" | "AveragePool" => (&["x"], vec![]),
            _ => (&["x", "w"], vec![weights("w", &[2, 2, 3])]),
        };
        let model = layer(operator, inputs, &["y"], attributes.clone(), constants);
        let outputs = model.run(vec![ramp(&[2, 2, length])]);
        let outputs =
            outputs.unwrap_or_else(|error| panic!("{operator} {length} {attributes:?}: {error}"));
        outputs[0].shape()[2]
    };
    for length in [5, 8, 11] {
        for stride in 1..5 {
            for dilation in 1..3 {
                let common = || {
                    vec![
                        ints("strides", &[stride]),
                        ints("dilations", &[dilation]),
                        ints("kernel_shape", &[3]),
                    ]
                };
                let with = |more: Vec<proto::AttributeProto>| [common(), more].concat();
                let pads = || ints("pads", &[2, 1]);
                let same = |side: &str| with(vec![string("auto_pad", side)]);
                for operator in ["Conv", "MaxPool", "AveragePool"] {
                    run(operator, common(), length);
                    run(operator, with(vec![pads()]), length);
                    let least = length.div_ceil(stride as usize);
                    assert_eq!(run(operator, same("SAME_UPPER"), length), least);
                    assert_eq!(run(operator, same("SAME_LOWER"), length), least);
                }
                for operator in ["MaxPool", "AveragePool"] {
                    run(operator, with(vec![int("ceil_mode", 1)]), length);
                    run(operator, with(vec![int("ceil_mode", 1), pads()]), length);
                }
                run("ConvTranspose", common(), length);
                run("ConvTranspose", with(vec![pads()]), length);
                let more = ints("output_padding", &[stride.max(dilation) - 1]);
                run("ConvTranspose", with(vec![more]), length);
            }
        }
    }
}
