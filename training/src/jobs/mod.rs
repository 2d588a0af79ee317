//! One file per model that can be trained.

mod bank;
mod churn;
mod upsell;

pub use bank::train_bank;
pub use churn::train_churn;
pub use upsell::train_upsell;

use std::path::Path;

use crate::error::TrainError;
use crate::table::Table;

/// Fewer rows than this cannot be split and measured sensibly.
const FEWEST_ROWS: usize = 100;

/// A table split into the rows that are learned from and the rows that are held out.
struct Parts {
    training: Table,
    holdout: Table,
}

/// Splits `table` by a rule that gives the two lists of row numbers for a number of rows.
fn split(
    data: &Path,
    table: &Table,
    rule: fn(usize) -> (Vec<usize>, Vec<usize>),
) -> Result<Parts, TrainError> {
    if table.rows < FEWEST_ROWS {
        return Err(TrainError::TooFewRows {
            file: data.to_owned(),
            expected: FEWEST_ROWS,
            found: table.rows,
        });
    }
    let (training, holdout) = rule(table.rows);
    Ok(Parts {
        training: table.select(&training),
        holdout: table.select(&holdout),
    })
}
