//! What holds for any rows: the batch a row is in does not change its bits, and nothing a column can
//! hold makes a run fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use onnx_ml::{Model, ScopedThreads, Tensor};
use proptest::prelude::*;

type Row = (String, String, i64, f32);

fn row() -> impl Strategy<Value = Row> {
    let category = prop_oneof![
        Just("Yes".to_string()),
        Just("No".to_string()),
        Just("Two year".to_string()),
        Just(String::new()),
        ".{0,6}",
    ];
    (category.clone(), category, any::<i64>(), number())
}

fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -200.0f32..200.0,
        1 => prop_oneof![
            Just(f32::NAN),
            Just(f32::INFINITY),
            Just(f32::NEG_INFINITY),
            Just(-0.0),
            Just(0.5),
            Just(f32::MIN_POSITIVE / 4.0),
            Just(f32::MAX),
        ],
    ]
}

fn run(model: &Model, rows: &[Row]) -> Vec<Tensor> {
    let rows: Vec<SampleRow<'_>> = rows
        .iter()
        .map(|row| (row.0.as_str(), row.1.as_str(), row.2, row.3))
        .collect();
    model.run(sample_inputs(&rows)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_gives_the_same_bits_alone_and_in_any_batch(
        all in proptest::collection::vec(row(), 1..40),
    ) {
        let model = load(&sample());
        let together = run(&model, &all);
        for (place, row) in all.iter().enumerate() {
            let alone = run(&model, std::slice::from_ref(row));
            for (alone, together) in alone.iter().zip(&together) {
                prop_assert_eq!(bits(alone), bits(&rows(together, place, 1)));
            }
        }
    }

    #[test]
    fn probabilities_of_known_rows_add_up_to_one(tenure in 0i64..100, charges in 0.0f32..200.0) {
        let model = load(&sample());
        let row = ("Yes".to_string(), "One year".to_string(), tenure, charges);
        let outputs = run(&model, &[row]);
        let sum: f32 = outputs[1].as_slice::<f32>().unwrap().iter().sum();
        prop_assert!((sum - 1.0).abs() <= f32::EPSILON);
    }

    #[test]
    fn trees_give_the_same_bits_alone_in_any_batch_and_on_any_threads(
        column in proptest::collection::vec(number(), 1..600),
        threads in 1usize..4,
    ) {
        let model = load(&tree(&[1, 0, 0], &[2, 0, 0]));
        let input = Tensor::new(&[column.len(), 1], column.clone()).unwrap();
        let together = model.run(vec![input.clone()]).unwrap();
        let on_threads = model.run_on(vec![input], &ScopedThreads(threads)).unwrap();
        prop_assert_eq!(bits(&together[0]), bits(&on_threads[0]));
        for (place, value) in column.iter().enumerate() {
            let expected = if *value <= 0.5 { 1.0 } else { 2.0 };
            let found = together[0].as_slice::<f32>().unwrap()[place];
            prop_assert_eq!(found, expected);
            if place % 37 == 0 {
                let alone = Tensor::new(&[1, 1], vec![*value]).unwrap();
                let alone = model.run(vec![alone]).unwrap();
                prop_assert_eq!(bits(&alone[0]), bits(&rows(&together[0], place, 1)));
            }
        }
    }
}
