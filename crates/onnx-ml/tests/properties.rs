//! What holds for any rows: the batch a row is in does not change its bits, and nothing a column can
//! hold makes a run fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use common::*;
use onnx_ml::Model;
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
    let charges = prop_oneof![
        4 => -200.0f32..200.0,
        1 => prop_oneof![
            Just(f32::NAN),
            Just(f32::INFINITY),
            Just(f32::NEG_INFINITY),
            Just(-0.0),
            Just(f32::MIN_POSITIVE / 4.0),
            Just(f32::MAX),
        ],
    ];
    (category.clone(), category, any::<i64>(), charges)
}

fn run(model: &Model, rows: &[Row]) -> (Vec<u32>, Vec<u32>) {
    let rows: Vec<(&str, &str, i64, f32)> = rows
        .iter()
        .map(|row| (row.0.as_str(), row.1.as_str(), row.2, row.3))
        .collect();
    let outputs = model.run(sample_inputs(&rows)).unwrap();
    (bits_of(&outputs[0]), bits_of(&outputs[1]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_gives_the_same_bits_alone_and_in_any_batch(
        rows in proptest::collection::vec(row(), 1..40),
    ) {
        let model = load(&sample());
        let (log_odds, probabilities) = run(&model, &rows);
        for (place, row) in rows.iter().enumerate() {
            let (alone, alone_probabilities) = run(&model, std::slice::from_ref(row));
            prop_assert_eq!(alone[0], log_odds[place]);
            prop_assert_eq!(&alone_probabilities[..], &probabilities[place * 2..place * 2 + 2]);
        }
    }

    #[test]
    fn probabilities_of_known_rows_add_up_to_one(tenure in 0i64..100, charges in 0.0f32..200.0) {
        let model = load(&sample());
        let rows = [("Yes".to_string(), "One year".to_string(), tenure, charges)];
        let (_, probabilities) = run(&model, &rows);
        let sum = f32::from_bits(probabilities[0]) + f32::from_bits(probabilities[1]);
        prop_assert!((sum - 1.0).abs() <= f32::EPSILON);
    }
}
