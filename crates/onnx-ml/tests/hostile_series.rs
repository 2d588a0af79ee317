//! Files and calls made to do harm with the operators that tract lends: what they would take is known
//! before tract sees them, so each is refused with its reason, in bounded time and memory.
#![cfg(feature = "tract")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/bounds.rs"]
mod bounds;
mod common;
#[path = "common/outcome.rs"]
mod outcome;

use bounds::{Counting, Measurement};
use common::*;
use onnx_ml::proto::*;
use onnx_ml::{DataType, Limits, Model, Tensor};
use outcome::*;
use prost::Message;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Attribute lists and the reason for which each is refused.
type Wrong<'a> = (Vec<AttributeProto>, &'a str);

fn few_steps() -> Limits {
    Limits {
        nodes: 400,
        steps: 400,
        tensor_bytes: 64 << 20,
        run_bytes: 64 << 20,
        ..Limits::default()
    }
}

fn series(name: &str, rank: usize) -> ValueInfoProto {
    value(name, DataType::F32, &[Dim::Unnamed; 6][..rank])
}

/// A graph of one node from `x` of `rank` dimensions to `y`.
fn layer(
    operator: &str,
    inputs: &[&str],
    attributes: Vec<AttributeProto>,
    constants: Vec<TensorProto>,
    rank: usize,
) -> ModelProto {
    let node = node(operator, inputs, &["y"], attributes);
    let (x, y) = (vec![series("x", rank)], vec![series("y", rank)]);
    file(vec![node], constants, x, y)
}

fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let elements = usize::try_from(dims.iter().product::<i64>()).unwrap();
    float_constant(name, dims, &vec![0.5; elements])
}

fn convolution(attributes: Vec<AttributeProto>, dims: &[i64]) -> ModelProto {
    let constants = vec![weights("w", dims)];
    layer("Conv", &["x", "w"], attributes, constants, dims.len())
}

fn transposed(attributes: Vec<AttributeProto>, dims: &[i64]) -> ModelProto {
    let constants = vec![weights("w", dims)];
    layer(
        "ConvTranspose",
        &["x", "w"],
        attributes,
        constants,
        dims.len(),
    )
}

fn pool(operator: &str, attributes: Vec<AttributeProto>, rank: usize) -> ModelProto {
    layer(operator, &["x"], attributes, vec![], rank)
}

fn recurrent(operator: &str, hidden: i64, attributes: Vec<AttributeProto>) -> ModelProto {
    let rows = match operator {
        "LSTM" => 4 * hidden,
        "GRU" => 3 * hidden,
        _ => hidden,
    };
    let both = attributes
        .iter()
        .any(|attribute| attribute.s == b"bidirectional");
    let directions = if both { 2 } else { 1 };
    let constants = vec![
        weights("w", &[directions, rows, 2]),
        weights("r", &[directions, rows, hidden]),
    ];
    let node = node(operator, &["x", "w", "r"], &["y"], attributes);
    let (x, y) = (vec![series("x", 3)], vec![series("y", 4)]);
    file(vec![node], constants, x, y)
}

fn ones(shape: &[usize]) -> Vec<Tensor> {
    let elements = shape.iter().product();
    vec![Tensor::new(shape, vec![1.0f32; elements]).unwrap()]
}

/// The file is refused, or its run on ones of this shape is.
#[track_caller]
fn stopped_on(model: &ModelProto, shape: &[usize], reason: &str) {
    let outcome = try_bytes(&model.encode_to_vec(), &few_steps(), ones(shape));
    assert!(outcome.reason.contains(reason), "{:?}", outcome.reason);
}

/// A hundred nodes with the same attributes and inputs.
fn hundred(operator: &str, inputs: &[&str], constants: Vec<TensorProto>) -> ModelProto {
    let names: Vec<String> = (0..100).map(|number| format!("y{number}")).collect();
    let nodes = names
        .iter()
        .map(|name| node(operator, inputs, &[name], vec![]));
    let outputs = names.iter().map(|name| series(name, 3)).collect();
    file(nodes.collect(), constants, vec![series("x", 3)], outputs)
}

// ---- Attributes and shapes.

#[test]
fn attributes_that_make_no_sense_are_refused_when_the_file_is_loaded() {
    let huge = i64::MAX;
    let wrong: Vec<Wrong<'_>> = vec![
        (vec![ints("strides", &[0])], "`strides` has the value 0"),
        (vec![ints("strides", &[-1])], "`strides` has the value -1"),
        (vec![ints("strides", &[huge])], "expected 1 to 2147483647"),
        (vec![ints("dilations", &[0])], "`dilations` has the value 0"),
        (vec![ints("dilations", &[huge])], "expected 1 to 2147483647"),
        (vec![ints("pads", &[-1, 0])], "`pads` has the value -1"),
        (vec![ints("pads", &[0, huge])], "expected 0 to 2147483647"),
        (vec![ints("pads", &[0; 7])], "`pads` has 7 values"),
        (vec![ints("strides", &[1; 1000])], "`strides` has 1000"),
        (vec![string("auto_pad", "SAME")], "auto_pad is `SAME`"),
        (
            vec![string("auto_pad", "SAME_UPPER"), ints("pads", &[1, 1])],
            "given together",
        ),
        (vec![int("speed", 11)], "attribute `speed` is not known"),
    ];
    for (attributes, reason) in wrong {
        refused(&convolution(attributes.clone(), &[1, 1, 3]), reason);
        refused(&transposed(attributes.clone(), &[1, 1, 3]), reason);
        let mut attributes = attributes;
        attributes.push(ints("kernel_shape", &[3]));
        refused(&pool("MaxPool", attributes.clone(), 3), reason);
        refused(&pool("AveragePool", attributes, 3), reason);
    }
    refused(&pool("MaxPool", vec![], 3), "`kernel_shape` is missing");
    let kernel = |size| vec![ints("kernel_shape", &[size])];
    refused(&pool("MaxPool", kernel(0), 3), "the value 0");
    refused(&pool("MaxPool", kernel(huge), 3), "expected 1 to");
    for groups in [0, -1, huge] {
        let group = || vec![int("group", groups)];
        refused(&convolution(group(), &[1, 1, 3]), "group is");
        refused(&transposed(group(), &[1, 1, 3]), "group is");
    }
    let same = vec![
        string("auto_pad", "SAME_UPPER"),
        ints("output_shape", &[10]),
    ];
    refused(&transposed(same, &[1, 1, 3]), "output_shape");
}

#[test]
fn what_tract_would_ignore_is_refused_when_the_file_is_loaded() {
    let wrong: Vec<Wrong<'_>> = vec![
        (
            vec![string("direction", "reverse")],
            "direction `reverse` is not supported",
        ),
        (
            vec![strings("activations", &["Relu", "Relu", "Relu"])],
            "activations [\"Relu\", \"Relu\", \"Relu\"] are not supported",
        ),
        (vec![float("clip", 1.0)], "`clip`"),
        (
            vec![int("layout", 1), string("direction", "bidirectional")],
            "layout 1",
        ),
        (vec![int("hidden_size", -1)], "hidden_size is -1"),
    ];
    for (attributes, reason) in wrong {
        for operator in ["LSTM", "GRU", "RNN"] {
            refused(&recurrent(operator, 3, attributes.clone()), reason);
        }
    }
    let forget = vec![int("input_forget", 1)];
    refused(&recurrent("LSTM", 3, forget), "`input_forget`");
}

#[test]
fn shapes_that_do_not_fit_are_told_apart() {
    let conv = |attributes, dims: &[i64], shape: &[usize], reason: &str| {
        stopped_on(&convolution(attributes, dims), shape, reason);
    };
    let too_long = "the window of dimension 0 is 9 long, and the input with its padding only 8";
    conv(vec![], &[1, 1, 9], &[1, 1, 8], too_long);
    let wide = vec![ints("dilations", &[i64::from(i32::MAX)])];
    conv(wide, &[1, 1, 9], &[1, 1, 8], "is 17179869177 long");
    conv(vec![], &[1, 2, 3], &[1, 1, 8], "input 0 has 1 channels");
    let groups = vec![int("group", 2)];
    conv(groups, &[3, 1, 3], &[1, 2, 8], "2 groups of input 1");
    let other = vec![ints("kernel_shape", &[4])];
    conv(other, &[1, 1, 3], &[1, 1, 8], "kernel_shape is [4]");
    let many = vec![ints("strides", &[1, 1])];
    conv(many, &[1, 1, 3], &[1, 1, 8], "`strides` has 2 values");
    conv(vec![], &[1, 1, 1, 1, 1, 1], &[1; 6], "3 to 5 dimensions");
    conv(vec![], &[0, 1, 3], &[1, 1, 8], "does not fit input 1");

    let padded = vec![ints("kernel_shape", &[3]), ints("pads", &[3, 0])];
    let model = pool("MaxPool", padded, 3);
    stopped_on(&model, &[1, 1, 8], "less than the window of 3");
    let two = vec![ints("kernel_shape", &[3, 3])];
    let model = pool("AveragePool", two, 3);
    stopped_on(&model, &[1, 1, 8], "`kernel_shape` has 2 values");
    stopped_on(&pool("GlobalMaxPool", vec![], 2), &[1, 1], "[N, C, …]");

    let more = vec![ints("output_padding", &[5]), ints("strides", &[2])];
    let model = transposed(more, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "output_padding of dimension 0 is 5");
    let cut = vec![ints("pads", &[100, 100])];
    let model = transposed(cut, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "has only 10 elements");
    let shape = vec![ints("output_shape", &[1000])];
    let model = transposed(shape, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "output_shape of dimension 0 is 1000");

    let hidden = vec![int("hidden_size", 4)];
    let model = recurrent("LSTM", 3, hidden);
    stopped_on(&model, &[2, 1, 2], "expected [1, 16, 2]");
    let model = recurrent("GRU", 3, vec![]);
    stopped_on(&model, &[2, 1, 5], "expected [1, 9, 5]");
}

// ---- Much of something.

#[test]
fn convolutions_that_share_a_large_constant_do_not_copy_it_each() {
    // A hundred times four million bytes of weights, in a file of four.
    let model = hundred("Conv", &["x", "w"], vec![weights("w", &[1, 1, 1 << 20])]);
    let bytes = model.encode_to_vec();
    let limits = Limits {
        tensor_bytes: 16 << 20,
        run_bytes: 64 << 20,
        ..Limits::default()
    };
    // The series is shorter than the window.
    let measurement = Measurement::start();
    let loaded = Model::from_bytes_with(&bytes, &limits).unwrap();
    let short = loaded.run(ones(&[1, 1, 4])).unwrap_err().to_string();
    assert!(short.contains("is 1048576 long"), "{short}");
    let peak = measurement.peak();
    assert!(peak < 64 << 20, "it took {peak} bytes");
    drop((measurement, loaded));
    // It is as long as the window.
    let outcome = try_bytes(&bytes, &limits, ones(&[1, 1, 1 << 20]));
    assert!(outcome.reason.contains("bytes"), "{}", outcome.reason);
    let limits = Limits {
        run_bytes: 4 << 30,
        ..few_steps()
    };
    let outcome = try_bytes(&bytes, &limits, ones(&[1, 1, 1 << 20]));
    assert!(outcome.reason.contains("steps"), "{}", outcome.reason);
}

#[test]
fn a_hundred_layers_of_every_kind_that_share_a_large_constant_are_stopped() {
    let shared = |operator: &str, constants: Vec<TensorProto>, shape: &[usize]| {
        let mut inputs = vec!["x"];
        let names: Vec<String> = constants.iter().map(|c| c.name.clone()).collect();
        inputs.extend(names.iter().map(String::as_str));
        stopped_on(&hundred(operator, &inputs, constants), shape, "steps");
    };
    shared("Conv", vec![weights("w", &[512, 512, 2])], &[1, 512, 4]);
    let transposed = vec![weights("w", &[512, 512, 2])];
    shared("ConvTranspose", transposed, &[1, 512, 4]);
    for (operator, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let rows = gates * 256;
        let constants = vec![weights("w", &[1, rows, 1]), weights("r", &[1, rows, 256])];
        shared(operator, constants, &[4, 1, 1]);
    }
}

#[test]
fn thousands_of_small_layers_are_analysed_within_the_steps() {
    let names: Vec<String> = (0..1999).map(|number| format!("v{number}")).collect();
    let mut nodes = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let last = if number == 0 { "x" } else { &names[number - 1] };
        nodes.push(node("Conv", &[last, "w"], &[name], vec![]));
    }
    let (x, y) = (vec![series("x", 3)], vec![series("v1998", 3)]);
    let model = file(nodes, vec![weights("w", &[1, 1, 1])], x, y);
    let limits = Limits {
        nodes: 2000,
        ..few_steps()
    };
    let outcome = try_bytes(&model.encode_to_vec(), &limits, ones(&[1, 1, 4]));
    assert!(outcome.reason.contains("steps"), "{}", outcome.reason);
}

#[test]
fn windows_of_any_size_are_counted_before_they_are_made() {
    let long = |operator: &str, attributes: Vec<AttributeProto>, shape: &[usize], reason: &str| {
        let model = pool(operator, attributes, shape.len());
        stopped_on(&model, shape, reason);
    };
    for operator in ["MaxPool", "AveragePool"] {
        let kernel = |size: i64| vec![ints("kernel_shape", &[size])];
        let longest = i64::from(i32::MAX);
        long(operator, kernel(longest), &[1, 1, 100], "2147483647 long");
        // A window over half of the series, everywhere.
        long(operator, kernel(500_000), &[1, 1, 1_000_000], "steps");
        // Padding as large as the window, so that each window has a table of its own.
        let padded = |size: i64| {
            let (window, pad) = (vec![size; 2], vec![size - 1; 4]);
            vec![ints("kernel_shape", &window), ints("pads", &pad)]
        };
        long(operator, padded(longest), &[1, 1, 10, 10], "steps");
        long(operator, padded(1000), &[1, 1, 10, 10], "steps");
        // Steps and holes larger than any series.
        let strides = vec![ints("kernel_shape", &[2]), ints("strides", &[longest])];
        let model = pool(operator, strides, 3);
        let outcome = try_bytes(&model.encode_to_vec(), &few_steps(), ones(&[1, 1, 100]));
        assert_eq!(outcome.reason, "");
        let holes = vec![ints("kernel_shape", &[2]), ints("dilations", &[longest])];
        long(operator, holes, &[1, 1, 100], "2147483648 long");
        let padded_holes = vec![
            ints("kernel_shape", &[2]),
            ints("dilations", &[longest]),
            ints("pads", &[longest, longest]),
        ];
        long(operator, padded_holes, &[1, 1, 100], "steps");
    }
    let padded = vec![ints("pads", &[i64::from(i32::MAX), 0])];
    let model = convolution(padded, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "steps");
    let padded = vec![ints("pads", &[2_000_000, 2_000_000])];
    let model = convolution(padded, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "bytes");
}

#[test]
fn outputs_of_any_size_are_counted_before_they_are_made() {
    let longest = i64::from(i32::MAX);
    let strides = vec![ints("strides", &[longest])];
    let model = transposed(strides, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "steps");
    let strides = vec![ints("strides", &[3_000_000])];
    let model = transposed(strides, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 8], "bytes");
    let both = vec![ints("strides", &[longest; 3])];
    let model = transposed(both, &[1, 1, 3, 3, 3]);
    stopped_on(&model, &[1, 1, 8, 8, 8], "steps");
    let padding = vec![
        ints("strides", &[longest]),
        ints("output_padding", &[longest - 1]),
    ];
    let model = transposed(padding, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 1], "steps");
    let dilated = vec![ints("dilations", &[longest])];
    let model = transposed(dilated, &[1, 1, 1000]);
    stopped_on(&model, &[1, 1, 1], "steps");
    let shape = vec![
        ints("strides", &[1_000_000_000]),
        ints("output_shape", &[1_000_000_003]),
    ];
    let model = transposed(shape, &[1, 1, 3]);
    stopped_on(&model, &[1, 1, 2], "steps");
}

#[test]
fn recurrent_layers_of_any_size_are_counted_before_they_run() {
    for operator in ["LSTM", "GRU", "RNN"] {
        // A long series.
        let model = recurrent(operator, 3, vec![]);
        stopped_on(&model, &[100_000, 1, 2], "steps");
        let both = vec![string("direction", "bidirectional")];
        let model = recurrent(operator, 3, both);
        stopped_on(&model, &[100_000, 1, 2], "steps");
        // Much memory in the layer.
        let model = recurrent(operator, 1000, vec![]);
        let outcome = try_bytes(&model.encode_to_vec(), &few_steps(), ones(&[9, 100, 2]));
        assert!(outcome.reason.contains("steps"), "{}", outcome.reason);
        // A size that only the attribute has.
        let sized = vec![int("hidden_size", i64::MAX)];
        let model = recurrent(operator, 3, sized);
        stopped_on(&model, &[4, 1, 2], "input 1 has shape");
    }
    // Many directions.
    let constants = vec![weights("w", &[100, 4, 2]), weights("r", &[100, 4, 1])];
    let node = node("LSTM", &["x", "w", "r"], &["y"], vec![]);
    let (x, y) = (vec![series("x", 3)], vec![series("y", 4)]);
    let model = file(vec![node], constants, x, y);
    stopped_on(&model, &[4, 1, 2], "expected [1, 4, 2]");
}

#[test]
fn plans_for_many_shapes_do_not_fill_the_memory() {
    let model = hundred("Conv", &["x", "w"], vec![weights("w", &[1, 1, 2])]);
    let limits = Limits {
        tensor_bytes: 8 << 20,
        ..Limits::default()
    };
    let measurement = Measurement::start();
    let loaded = Model::from_bytes_with(&model.encode_to_vec(), &limits).unwrap();
    for length in 2..12 {
        assert!(loaded.run(ones(&[1, 1, length])).is_ok());
    }
    let kept = measurement.kept();
    assert!(kept < 8 << 20, "it keeps {kept} bytes");
}
