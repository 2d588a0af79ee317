//! What a caller of `Model::run` can rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use onnx_ml::{CompactString, DataType, Limits, Model, RunError, Tensor};
use prost::Message;

const ROWS: &[SampleRow<'_>] = &[
    ("Yes", "One year", 12, 29.85),
    ("No", "Month-to-month", 0, f32::NAN),
    ("Yes", "Two year", 72, 118.75),
    ("unheard of", "", -3, f32::INFINITY),
];

#[test]
fn a_model_describes_itself() {
    let model = load(&sample());
    let names: Vec<&str> = model.inputs().iter().map(|input| &*input.name).collect();
    assert_eq!(names, ["partner", "contract", "tenure", "charges"]);
    assert_eq!(model.inputs()[0].data_type, DataType::String);
    assert_eq!(model.inputs()[2].data_type, DataType::I64);
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
        for (alone, together) in alone.iter().zip(&together) {
            assert_eq!(bits(alone), bits(&rows(together, place, 1)));
        }
    }
}

#[test]
fn no_rows_in_give_no_rows_out() {
    let outputs = load(&sample()).run(sample_inputs(&[])).unwrap();
    assert_eq!(outputs[0].shape(), [0, 1]);
    assert_eq!(outputs[1].shape(), [0, 2]);
    assert_eq!(outputs[1].data_type(), DataType::F32);
}

#[test]
fn a_wrong_call_is_refused_with_the_name_of_the_input() {
    let model = load(&sample());
    let refused = |inputs: Vec<Tensor>| model.run(inputs).unwrap_err();
    let with = |place: usize, tensor: Tensor| {
        let mut inputs = sample_inputs(ROWS);
        inputs[place] = tensor;
        refused(inputs).to_string()
    };
    let three = refused(sample_inputs(ROWS).into_iter().take(3).collect());
    let counts = matches!(
        three,
        RunError::InputCount {
            expected: 4,
            found: 3
        }
    );
    assert!(counts, "{three}");
    assert!(matches!(refused(Vec::new()), RunError::InputCount { .. }));
    let five = sample_inputs(ROWS)
        .into_iter()
        .chain([Tensor::scalar(1i64)])
        .collect();
    assert!(matches!(refused(five), RunError::InputCount { .. }));

    let zeros = |data_type, shape: &[usize]| Tensor::zeros(data_type, shape).unwrap();
    assert_eq!(
        with(2, zeros(DataType::F32, &[4, 1])),
        "input `tenure`: element type is float, expected int64"
    );
    let every_other_type = DataType::ALL.into_iter().filter(|t| *t != DataType::F32);
    for data_type in every_other_type {
        let error = with(3, zeros(data_type, &[4, 1]));
        assert!(error.contains("`charges`: element type is"), "{error}");
    }
    let shapes: [&[usize]; 7] = [&[4, 2], &[4], &[], &[4, 1, 1], &[4, 0], &[5, 1], &[0, 1]];
    for shape in shapes {
        let error = with(3, zeros(DataType::F32, shape));
        assert!(error.contains("`charges`: shape is"), "{error}");
    }
    let one = Tensor::new(&[1, 1], vec![CompactString::from("One year")]).unwrap();
    assert_eq!(
        with(1, one),
        "input `contract`: shape is [1, 1], expected [4, 1]"
    );
    // The model stays usable.
    assert!(model.run(sample_inputs(ROWS)).is_ok());
}

#[test]
fn a_call_that_takes_too_much_is_refused_and_a_smaller_one_is_not() {
    let limits = Limits {
        run_bytes: 50_000,
        ..Limits::default()
    };
    let model = Model::from_bytes_with(&sample().encode_to_vec(), &limits).unwrap();
    let error = model.run(sample_inputs(&ROWS.repeat(1000))).unwrap_err();
    assert!(matches!(error, RunError::TooLarge { .. }), "{error}");
    model.run(sample_inputs(ROWS)).unwrap();
}

#[test]
fn a_value_that_an_operator_refuses_names_the_node() {
    let mut one_hot = node(
        "OneHotEncoder",
        &["x"],
        &["y"],
        vec![ints("cats_int64s", &[1, 2]), int("zeros", 0)],
    );
    one_hot.name = "the categories".to_string();
    let y = value("y", DataType::F32, &[Dim::Unnamed; 3]);
    let inputs = vec![column("x", DataType::I64)];
    let model = load(&file(vec![one_hot], vec![], inputs, vec![y]));
    let run = |value: i64| model.run(vec![Tensor::new(&[1, 1], vec![value]).unwrap()]);
    assert!(run(1).is_ok());
    let error = run(3).unwrap_err().to_string();
    let beginning = "node `the categories` (OneHotEncoder): unknown category 3";
    assert!(error.starts_with(beginning), "{error}");
}

#[test]
fn a_model_is_shared_between_threads() {
    let model = load(&sample());
    let expected = bits(&model.run(sample_inputs(ROWS)).unwrap()[0]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let outputs = model.run(sample_inputs(ROWS)).unwrap();
                    assert_eq!(bits(&outputs[0]), expected);
                }
            });
        }
    });
}

#[test]
fn fixed_and_unnamed_numbers_of_rows_load() {
    let scaled = |input| {
        let attributes = vec![floats("offset", &[1.0]), floats("scale", &[2.0])];
        let scaler = node("Scaler", &["x"], &["y"], attributes);
        let y = value("y", DataType::F32, &[Dim::Unnamed, Dim::Unnamed]);
        load(&file(vec![scaler], vec![], vec![input], vec![y]))
    };
    let numbers = |shape: &[usize]| Tensor::new(shape, vec![1.0f32, 4.0]).unwrap();
    let fixed = scaled(value("x", DataType::F32, &[Dim::Fixed(2), Dim::Fixed(1)]));
    assert_eq!(fixed.inputs()[0].shape, [Some(2), Some(1)]);
    let outputs = fixed.run(vec![numbers(&[2, 1])]).unwrap();
    assert_eq!(outputs[0].as_slice::<f32>().unwrap(), [0.0, 6.0]);
    assert!(fixed.run(vec![numbers(&[1, 2])]).is_err());

    let unnamed = scaled(value("x", DataType::F32, &[Dim::Unnamed, Dim::Unnamed]));
    assert_eq!(unnamed.outputs()[0].shape, [None, None]);
    let outputs = unnamed.run(vec![numbers(&[1, 2])]).unwrap();
    assert_eq!(outputs[0].shape(), [1, 2]);
}
