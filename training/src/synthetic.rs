//! Invented rows for golden files: seeded combinations of the encoder's categories and numbers.
//!
//! They exercise every input without repeating a row of the training data: a missing value, a
//! category never seen in training and values outside the training range are always among them.
//! They are not meant to look like real customers: see the simulator for those.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::encode::{Encoder, Encoding, NumericEncoding};
use crate::table::{Column, Table, Values};

/// A category that no data set has.
const UNKNOWN_CATEGORY: &str = "Something new";

/// Row without any missing or odd value: the reference row itself.
const REFERENCE_ROW: usize = 0;
/// Row in which every number that may be missing is missing.
const MISSING_ROW: usize = 1;
/// Row in which every text is an unknown category.
const ALL_UNKNOWN_ROW: usize = 2;
/// Row in which only the last text is an unknown category.
const ONE_UNKNOWN_ROW: usize = 3;
/// Rows with all numbers at zero and far above the training range.
const ZERO_ROW: usize = 4;
const FAR_ROW: usize = 5;

/// The row that contributions are measured against: median and most frequent value.
pub fn reference_row(encoder: &Encoder) -> Table {
    let mut columns = Vec::new();
    for (name, encoding) in &encoder.columns {
        let values = match encoding {
            Encoding::Categories { most_frequent, .. } => Values::Text(vec![most_frequent.clone()]),
            Encoding::Numeric(numeric) => numbers(numeric, &[Some(numeric.median)]),
        };
        columns.push(Column {
            name: name.clone(),
            values,
        });
    }
    Table { columns, rows: 1 }
}

/// `rows` invented rows (at least 6), the same ones each time for the same encoder.
pub fn rows(encoder: &Encoder, rows: usize) -> Table {
    let mut random = ChaCha8Rng::seed_from_u64(20_260_101);
    let last_text = encoder
        .columns
        .iter()
        .rposition(|(_, encoding)| matches!(encoding, Encoding::Categories { .. }));
    let mut columns = Vec::new();
    for (position, (name, encoding)) in encoder.columns.iter().enumerate() {
        let is_last_text = Some(position) == last_text;
        let values = match encoding {
            Encoding::Categories {
                categories,
                most_frequent,
            } => {
                let mut texts = Vec::new();
                for row in 0..rows {
                    let drawn = &categories[random.random_range(0..categories.len())];
                    let unknown =
                        row == ALL_UNKNOWN_ROW || (row == ONE_UNKNOWN_ROW && is_last_text);
                    texts.push(match row {
                        _ if unknown => UNKNOWN_CATEGORY.to_owned(),
                        REFERENCE_ROW => most_frequent.clone(),
                        _ => drawn.clone(),
                    });
                }
                Values::Text(texts)
            }
            Encoding::Numeric(numeric) => {
                let mut drawn_numbers = Vec::new();
                for row in 0..rows {
                    let share: f64 = random.random_range(0.0..1.0);
                    drawn_numbers.push(match row {
                        REFERENCE_ROW => Some(numeric.median),
                        MISSING_ROW if numeric.may_be_missing => None,
                        ZERO_ROW => Some(0.0),
                        FAR_ROW => Some(numeric.mean + 5.0 * numeric.deviation),
                        // Twice the mean as the upper end covers skewed columns well enough.
                        _ => Some(share * 2.0 * numeric.mean),
                    });
                }
                numbers(numeric, &drawn_numbers)
            }
        };
        columns.push(Column {
            name: name.clone(),
            values,
        });
    }
    Table { columns, rows }
}

/// Numbers as the column holds them: whole, or rounded to two places so that files stay readable.
fn numbers(numeric: &NumericEncoding, drawn: &[Option<f64>]) -> Values {
    if numeric.integer {
        let whole = drawn.iter().map(|number| {
            let number = number.unwrap_or(numeric.median);
            number.round() as i64
        });
        return Values::Integer(whole.collect());
    }
    let rounded = drawn
        .iter()
        .map(|number| number.map(|number| (number * 100.0).round() / 100.0));
    Values::Number(rounded.collect())
}
