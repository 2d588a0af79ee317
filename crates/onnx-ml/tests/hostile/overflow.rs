//! Sizes that overflow where there is nothing to count.

use crate::common::*;
use crate::outcome::*;
use crate::{graph, named, row};
use onnx_ml::{DataType, Tensor};
use prost::Message;

#[test]
fn empty_tensors_of_enormous_shapes_do_no_harm() {
    let long = 1 << 62;
    let shapes: [&[i64]; 7] = [
        &[0, long, long],
        &[0, 2, long, long],
        &[0, 3, 1 << 40, 1 << 40],
        &[long, 0],
        &[0, long, long, long],
        &[0, 0, long],
        &[2, 0, long, long],
    ];
    for shape in shapes {
        let rank = shape.len();
        let labels = &"abcd"[..rank];
        let empty = || float_constant("a", shape, &[]);
        let ends = int_constant("ends", &[2], &[0, (rank - 1) as i64]);
        let one_axis = int_constant("axis", &[], &[1]);
        let zeros = int_constant("zeros", &[2], &[0, 0]);
        let pads = int_constant("pads", &[2 * rank as i64], &vec![1; 2 * rank]);
        let pads_back = int_constant("back", &[2 * rank as i64], &vec![i64::MIN; 2 * rank]);
        let fours = int_constant("four", &[1], &[4]);
        let einsum = |equation: String| {
            node(
                "Einsum",
                &["a"],
                &["c"],
                vec![string("equation", &equation)],
            )
        };
        let order: Vec<i64> = (0..rank as i64).rev().collect();
        let cases = vec![
            einsum(format!("{labels}->{}", &labels[1..2])),
            einsum(format!("{labels}->")),
            einsum("bbbb"[..rank].to_string()),
            node("ReduceSum", &["a", "ends"], &["c"], vec![]),
            node("ReduceMean", &["a"], &["c"], vec![]),
            node("ReduceMax", &["a"], &["c"], vec![]),
            node("ArgMax", &["a"], &["c"], vec![int("axis", -1)]),
            node("CumSum", &["a", "axis"], &["c"], vec![]),
            node("Transpose", &["a"], &["c"], vec![ints("perm", &order)]),
            node("Softmax", &["a"], &["c"], vec![]),
            node("Flatten", &["a"], &["c"], vec![]),
            node("Concat", &["a", "a"], &["c"], vec![int("axis", 1)]),
            node("Split", &["a"], &["c", "d"], vec![int("axis", 1)]),
            node("Pad", &["a", "pads"], &["c"], vec![]),
            node("Pad", &["a", "back"], &["c"], vec![]),
            node("Gather", &["a", "zeros"], &["c"], vec![int("axis", 1)]),
            node("GatherND", &["a", "zeros"], &["c"], vec![]),
            node("Slice", &["a", "zeros", "ends"], &["c"], vec![]),
            node("TopK", &["a", "four"], &["c", "d"], vec![]),
            node("Unique", &["a"], &["c"], vec![int("axis", 1)]),
            node("Unique", &["a"], &["c"], vec![int("axis", 0)]),
            node("NonZero", &["a"], &["c"], vec![]),
            node("MatMul", &["a", "a"], &["c"], vec![]),
            node("Tile", &["a", "ends"], &["c"], vec![]),
            node("Reshape", &["a", "four"], &["c"], vec![]),
            node("Add", &["a", "x"], &["c"], vec![]),
            node("Shape", &["a"], &["c"], vec![]),
            node("Trilu", &["a"], &["c"], vec![]),
            node("EyeLike", &["a"], &["c"], vec![]),
            node("Compress", &["a", "zeros"], &["c"], vec![int("axis", 1)]),
            node("LayerNormalization", &["a", "x"], &["c"], vec![]),
            node(
                "BatchNormalization",
                &["a", "x", "x", "x", "x"],
                &["c"],
                vec![],
            ),
            node("Normalizer", &["a"], &["c"], vec![]),
            node(
                "Scaler",
                &["a"],
                &["c"],
                vec![floats("offset", &[1.0]), floats("scale", &[1.0])],
            ),
            node(
                "FeatureVectorizer",
                &["a"],
                &["c"],
                vec![ints("inputdimensions", &[4])],
            ),
            node(
                "OneHotEncoder",
                &["a"],
                &["c"],
                vec![ints("cats_int64s", &[1, 2])],
            ),
        ];
        for one in cases {
            let constants = vec![
                ends.clone(),
                one_axis.clone(),
                zeros.clone(),
                pads.clone(),
                pads_back.clone(),
                fours.clone(),
            ];
            let mut model = graph(vec![one.clone()], constants);
            let inner = model.graph.as_mut().unwrap();
            inner.output = vec![named("c")];
            inner.initializer.push(empty());
            try_bytes(&model.encode_to_vec(), &small(), row());
            // And from the input.
            let inner = model.graph.as_mut().unwrap();
            inner.initializer.pop();
            let dims: Vec<Dim> = shape.iter().map(|_| Dim::Unnamed).collect();
            inner.input.push(value("a", DataType::F32, &dims));
            let mut inputs = row();
            inputs.push(Tensor::from_proto(&empty()).unwrap());
            try_bytes(&model.encode_to_vec(), &small(), inputs);
        }
    }
}

#[test]
fn pads_that_overflow_are_refused() {
    for pads in [
        [i64::MAX, -(i64::MAX - 5)],
        [i64::MIN, i64::MAX],
        [i64::MAX, i64::MAX],
        [-(i64::MAX - 5), i64::MAX],
    ] {
        for mode in ["constant", "edge", "reflect", "wrap"] {
            let mut model = graph(
                vec![node("Pad", &["a", "b"], &["y"], vec![string("mode", mode)])],
                vec![
                    float_constant("a", &[10], &[1.0; 10]),
                    int_constant("b", &[2], &pads),
                ],
            );
            model.opset_import[0].version = 19;
            stopped(&model, row(), "pad");
        }
    }
}

#[test]
fn inputs_of_enormous_fixed_sizes_are_not_tried_out() {
    // Each is within bounds, all together are not.
    let names: Vec<String> = (0..1000).map(|number| format!("x{number}")).collect();
    let size = Dim::Fixed(1 << 20);
    let inputs = names
        .iter()
        .map(|name| value(name, DataType::U8, &[Dim::Named("N"), size]));
    let shapes = node("Shape", &["x0"], &["y"], vec![]);
    let model = file(vec![shapes], vec![], inputs.collect(), vec![named("y")]);
    try_bytes(&model.encode_to_vec(), &small(), Vec::new());
    let value = value(
        "x",
        DataType::U8,
        &[Dim::Fixed(1 << 40), Dim::Fixed(1 << 40)],
    );
    let identity = node("Identity", &["x"], &["y"], vec![]);
    let model = file(vec![identity], vec![], vec![value], vec![named("y")]);
    refused(
        &model,
        "graph input `x`: its fixed dimensions are too large",
    );
}
