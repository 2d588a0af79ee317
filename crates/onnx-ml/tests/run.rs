//! What a caller of `Model::run` can rely on.

mod common;

use common::*;
use onnx_ml::{DatumType, RunError, Tensor};
use tract_onnx::pb::tensor_proto::DataType;

const ROWS: &[SampleRow] = &[
    ("Yes", "One year", 12, 29.85),
    ("No", "Month-to-month", 0, f32::NAN),
    ("Yes", "Two year", 72, 118.75),
    ("unheard of", "", -3, f32::INFINITY),
];

#[test]
fn the_sample_graph_describes_itself() {
    let model = load(&sample());
    let names: Vec<&str> = model
        .inputs()
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    assert_eq!(names, ["partner", "contract", "tenure", "charges"]);
    assert_eq!(model.inputs()[0].datum_type, DatumType::String);
    assert_eq!(model.inputs()[2].datum_type, DatumType::I64);
    assert_eq!(model.inputs()[0].shape, [None, Some(1)]);
    assert_eq!(model.outputs()[0].name, "log_odds");
    assert_eq!(model.outputs()[1].shape, [None, Some(2)]);
}

#[test]
fn a_row_alone_gives_the_bits_it_gives_in_a_batch() {
    let model = load(&sample());
    let together = model.run(sample_inputs(ROWS)).unwrap();
    assert_eq!(together[1].shape(), [ROWS.len(), 2]);
    for (place, row) in ROWS.iter().enumerate() {
        let alone = model.run(sample_inputs(&[*row])).unwrap();
        assert_eq!(bits_of(&alone[0]), [bits_of(&together[0])[place]]);
        assert_eq!(
            bits_of(&alone[1]),
            bits_of(&together[1])[place * 2..place * 2 + 2]
        );
    }
}

#[test]
fn no_rows_in_give_no_rows_out() {
    let model = load(&sample());
    let outputs = model.run(sample_inputs(&[])).unwrap();
    assert_eq!(outputs[0].shape(), [0, 1]);
    assert_eq!(outputs[1].shape(), [0, 2]);
    assert_eq!(outputs[1].datum_type(), DatumType::F32);
}

#[test]
fn a_wrong_call_is_refused_with_the_name_of_the_input() {
    let model = load(&sample());
    let three = sample_inputs(ROWS).into_iter().take(3).collect();
    assert!(matches!(
        model.run(three),
        Err(RunError::InputCount {
            expected: 4,
            found: 3
        })
    ));

    let mut wrong_type = sample_inputs(ROWS);
    wrong_type[2] = Tensor::zero::<f32>(&[ROWS.len(), 1]).unwrap();
    let error = model.run(wrong_type).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input `tenure`: element type is F32, expected I64"
    );

    let mut wrong_width = sample_inputs(ROWS);
    wrong_width[3] = Tensor::zero::<f32>(&[ROWS.len(), 2]).unwrap();
    let error = model.run(wrong_width).unwrap_err();
    assert!(error.to_string().contains("`charges`"), "{error}");

    let mut wrong_rank = sample_inputs(ROWS);
    wrong_rank[3] = Tensor::zero::<f32>(&[ROWS.len()]).unwrap();
    assert!(matches!(
        model.run(wrong_rank),
        Err(RunError::InputShape { .. })
    ));

    let mut fewer_rows = sample_inputs(ROWS);
    fewer_rows[1] = string_tensor(&[1, 1], ["One year"].into_iter());
    let error = model.run(fewer_rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input `contract`: shape is [1, 1], expected [4 as in the inputs before it, 1]"
    );
}

#[test]
fn a_model_is_shared_between_threads() {
    let model = load(&sample());
    let expected = bits_of(&model.run(sample_inputs(ROWS)).unwrap()[0]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let outputs = model.run(sample_inputs(ROWS)).unwrap();
                    assert_eq!(bits_of(&outputs[0]), expected);
                }
            });
        }
    });
}

#[test]
fn fixed_and_unnamed_numbers_of_rows_load() {
    let scale = || vec![floats("offset", &[1.0]), floats("scale", &[2.0])];
    let fixed = value("x", DataType::Float, &[Dim::Fixed(2), Dim::Fixed(1)]);
    let model = load(&one_node("Scaler", scale(), fixed));
    assert_eq!(model.inputs()[0].shape, [Some(2), Some(1)]);
    let outputs = model
        .run(vec![Tensor::from_shape(&[2, 1], &[1.0f32, 4.0]).unwrap()])
        .unwrap();
    assert_eq!(floats_of(&outputs[0]), [0.0, 6.0]);
    assert!(
        model
            .run(vec![Tensor::from_shape(&[1, 1], &[1.0f32]).unwrap()])
            .is_err()
    );

    let unnamed = value("x", DataType::Float, &[Dim::Unnamed, Dim::Unnamed]);
    let model = load(&one_node("Scaler", scale(), unnamed));
    assert_eq!(model.outputs()[0].shape, [None, None]);
    let outputs = model
        .run(vec![Tensor::from_shape(&[1, 2], &[1.0f32, 4.0]).unwrap()])
        .unwrap();
    assert_eq!(outputs[0].shape(), [1, 2]);
}
