//! Turns raw columns into the design matrix of a linear model, and remembers how.
//!
//! Numeric columns: missing values become the training median, then the column is standardised
//! (mean 0, population standard deviation 1 on the training rows). Text columns: one 0/1 column
//! per category seen in training; an unknown category gives zeros everywhere. Nothing here looks
//! at the target, and nothing is learned from rows that are not passed to [`Encoder::fit`].
//!
//! The exported graph repeats exactly these steps in float32 (see [`crate::graph`]).

use std::ops::Range;

use ndarray::Array2;

use crate::error::TrainError;
use crate::fit::LinearModel;
use crate::table::{Table, Values};

/// How one numeric column is encoded, in its own units.
#[derive(Debug, Clone, PartialEq)]
pub struct NumericEncoding {
    pub median: f64,
    pub mean: f64,
    pub deviation: f64,
    /// The raw values are whole numbers.
    pub integer: bool,
    /// Some training row had no value here.
    pub may_be_missing: bool,
}

/// How one column is encoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Encoding {
    Numeric(NumericEncoding),
    /// Sorted categories of the training rows, and which of them is the most frequent.
    Categories {
        categories: Vec<String>,
        most_frequent: String,
    },
}

impl Encoding {
    /// How many columns of the design matrix this column takes.
    fn width(&self) -> usize {
        match self {
            Encoding::Numeric(_) => 1,
            Encoding::Categories { categories, .. } => categories.len(),
        }
    }
}

/// The fitted encoding of a table's columns, in the table's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoder {
    pub columns: Vec<(String, Encoding)>,
}

impl Encoder {
    /// Learns medians, means, deviations and categories from all rows of `training`.
    ///
    /// # Errors
    /// [`TrainError::Column`] for a flag column (a target is not a feature) or a numeric column
    /// without a single value.
    pub fn fit(training: &Table) -> Result<Encoder, TrainError> {
        Encoder::fit_frequent(training, usize::MAX)
    }

    /// As [`Encoder::fit`], keeping only the `most_categories` most frequent categories of each
    /// text column; the others are then unknown.
    ///
    /// # Errors
    /// As [`Encoder::fit`].
    pub fn fit_frequent(training: &Table, most_categories: usize) -> Result<Encoder, TrainError> {
        let mut columns = Vec::new();
        for column in &training.columns {
            let numbers = numbers_of(&column.values);
            let encoding = match (&column.values, numbers) {
                (Values::Text(texts), _) => fit_categories(texts, most_categories),
                (values, Some(numbers)) => {
                    let integer = matches!(values, Values::Integer(_));
                    fit_numeric(&numbers, integer).ok_or_else(|| TrainError::Column {
                        column: column.name.clone(),
                        expected: "at least one number in the training rows",
                        found: "none",
                    })?
                }
                (_, None) => {
                    return Err(TrainError::Column {
                        column: column.name.clone(),
                        expected: "a feature (text, integers or numbers)",
                        found: "yes/no flags",
                    });
                }
            };
            columns.push((column.name.clone(), encoding));
        }
        Ok(Encoder { columns })
    }

    /// Number of columns of the design matrix.
    pub fn width(&self) -> usize {
        self.columns
            .iter()
            .map(|(_, encoding)| encoding.width())
            .sum()
    }

    /// The columns of the design matrix that the raw column `name` takes; empty if there is none.
    pub fn range_of(&self, name: &str) -> Range<usize> {
        let mut start = 0;
        for (column_name, encoding) in &self.columns {
            let end = start + encoding.width();
            if column_name == name {
                return start..end;
            }
            start = end;
        }
        start..start
    }

    /// The design matrix of `table`: one row per row, [`Encoder::width`] columns.
    ///
    /// # Errors
    /// [`TrainError::Column`] if a column is missing or of another type than in training.
    pub fn design_matrix(&self, table: &Table) -> Result<Array2<f64>, TrainError> {
        let mut matrix = Array2::zeros((table.rows, self.width()));
        let mut start = 0;
        for (name, encoding) in &self.columns {
            match encoding {
                Encoding::Categories { categories, .. } => {
                    for (row, text) in table.texts(name)?.iter().enumerate() {
                        if let Ok(category) = categories.binary_search(text) {
                            matrix[[row, start + category]] = 1.0;
                        }
                    }
                }
                Encoding::Numeric(numeric) => {
                    let numbers = numbers_of(table.column(name)?);
                    let numbers = numbers.ok_or_else(|| TrainError::Column {
                        column: name.clone(),
                        expected: "numbers",
                        found: "text or flags",
                    })?;
                    for (row, number) in numbers.iter().enumerate() {
                        let number = number.unwrap_or(numeric.median);
                        matrix[[row, start]] = (number - numeric.mean) / numeric.deviation;
                    }
                }
            }
            start += encoding.width();
        }
        Ok(matrix)
    }

    /// How far the log-odds of `model` may be from the exact ones when they are computed in
    /// float32, for every row of `table`: the rounding of every number, mean and product, which
    /// counts when a value or a mean is large against the deviation.
    ///
    /// # Errors
    /// [`TrainError::Column`] if a column is missing.
    pub fn float32_error(
        &self,
        table: &Table,
        model: &LinearModel,
    ) -> Result<Vec<f64>, TrainError> {
        /// A value is rounded when it is read, shifted, scaled, weighted and summed.
        const ROUNDINGS: f64 = 8.0;
        let mut errors = vec![0.0; table.rows];
        for (name, encoding) in &self.columns {
            let weights = &model.weights[self.range_of(name)];
            let Encoding::Numeric(numeric) = encoding else {
                let largest = weights.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
                for error in &mut errors {
                    *error += largest * ROUNDINGS * HALF_STEP;
                }
                continue;
            };
            let slope = weights.iter().map(|weight| weight.abs()).sum::<f64>() / numeric.deviation;
            let numbers = numbers_of(table.column(name)?).unwrap_or_default();
            for (error, number) in errors.iter_mut().zip(numbers) {
                let size = number.unwrap_or(numeric.median).abs() + numeric.mean.abs();
                *error += slope * size * ROUNDINGS * HALF_STEP;
            }
        }
        Ok(errors)
    }
}

/// Half of the distance between 1 and the next float32.
const HALF_STEP: f64 = f32::EPSILON as f64 / 2.0;

/// The values as numbers, `None` inside for a missing one; nothing for text and flags.
fn numbers_of(values: &Values) -> Option<Vec<Option<f64>>> {
    match values {
        Values::Integer(integers) => Some(integers.iter().map(|i| Some(*i as f64)).collect()),
        Values::Number(numbers) => Some(numbers.clone()),
        Values::Text(_) | Values::Flag(_) => None,
    }
}

fn fit_numeric(numbers: &[Option<f64>], integer: bool) -> Option<Encoding> {
    let mut observed: Vec<f64> = numbers.iter().flatten().copied().collect();
    observed.sort_by(f64::total_cmp);
    let upper = *observed.get(observed.len() / 2)?;
    let lower = observed[(observed.len() - 1) / 2];
    let median = (lower + upper) / 2.0;

    let count = numbers.len() as f64;
    let mut sum = 0.0;
    for number in numbers {
        sum += number.unwrap_or(median);
    }
    let mean = sum / count;
    let mut squares = 0.0;
    for number in numbers {
        squares += (number.unwrap_or(median) - mean).powi(2);
    }
    let deviation = (squares / count).sqrt();
    Some(Encoding::Numeric(NumericEncoding {
        median,
        mean,
        // A constant column carries nothing; dividing by 1 keeps it at 0.
        deviation: if deviation > 0.0 { deviation } else { 1.0 },
        integer,
        may_be_missing: observed.len() < numbers.len(),
    }))
}

fn fit_categories(texts: &[String], most_categories: usize) -> Encoding {
    let mut categories = texts.to_vec();
    categories.sort();
    categories.dedup();
    let mut counts = vec![0_usize; categories.len()];
    for text in texts {
        if let Ok(category) = categories.binary_search(text) {
            counts[category] += 1;
        }
    }
    // Stable: of equally frequent categories the first one comes first.
    let mut by_frequency: Vec<usize> = (0..categories.len()).collect();
    by_frequency.sort_by_key(|category| std::cmp::Reverse(counts[*category]));
    let most_frequent = by_frequency.first().map(|first| categories[*first].clone());
    let most_frequent = most_frequent.unwrap_or_default();
    by_frequency.truncate(most_categories);
    let mut kept = vec![false; categories.len()];
    for category in by_frequency {
        kept[category] = true;
    }
    let mut kept = kept.into_iter();
    categories.retain(|_| kept.next().unwrap_or(false));
    Encoding::Categories {
        categories,
        most_frequent,
    }
}
