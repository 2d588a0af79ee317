//! The Bank Marketing table: which columns it has and how its rows are split.
//!
//! 41,188 telephone contacts of a Portuguese bank in date order (Moro, Cortez and Rita, 2014).
//! The column `duration` is never read: the length of a call is known only after the answer.

use std::path::Path;

use crate::error::TrainError;
use crate::table::{ColumnSpec, Kind, Table};

/// What the data set is called in model and report files.
pub const DATA_NAME: &str = "Bank Marketing (Moro, Cortez and Rita)";

/// The column that says whether the offer was accepted.
pub const ACCEPTED: &str = "accepted";

/// How the rows are split, as written into the reports.
pub const SPLIT: &str = "hold-out: the last 20 % of the rows, which are in date order; \
                         training: all rows before them";

const fn spec(header: &'static str, name: &'static str, kind: Kind) -> ColumnSpec {
    ColumnSpec { header, name, kind }
}

const COLUMNS: [ColumnSpec; 20] = [
    spec("age", "age", Kind::Integer),
    spec("job", "job", Kind::Text),
    spec("marital", "marital", Kind::Text),
    spec("education", "education", Kind::Text),
    spec("default", "credit_in_default", Kind::Text),
    spec("housing", "housing_loan", Kind::Text),
    spec("loan", "personal_loan", Kind::Text),
    spec("contact", "contact", Kind::Text),
    spec("month", "month", Kind::Text),
    spec("day_of_week", "day_of_week", Kind::Text),
    spec("campaign", "campaign", Kind::Integer),
    spec("pdays", "pdays", Kind::Integer),
    spec("previous", "previous", Kind::Integer),
    spec("poutcome", "poutcome", Kind::Text),
    spec("emp.var.rate", "emp_var_rate", Kind::Number),
    spec("cons.price.idx", "cons_price_idx", Kind::Number),
    spec("cons.conf.idx", "cons_conf_idx", Kind::Number),
    spec("euribor3m", "euribor3m", Kind::Number),
    spec("nr.employed", "nr_employed", Kind::Number),
    spec("y", ACCEPTED, Kind::YesNo),
];

/// Reads `bank-additional-full.csv`, plain or compressed as `.csv.gz`.
///
/// # Errors
/// See [`Table::read`].
pub fn read(path: &Path) -> Result<Table, TrainError> {
    Table::read(path, b';', &COLUMNS)
}

/// Row numbers of the training part and of the hold-out part.
pub fn split(rows: usize) -> (Vec<usize>, Vec<usize>) {
    let first_held_out = rows * 8 / 10;
    (
        (0..first_held_out).collect(),
        (first_held_out..rows).collect(),
    )
}
