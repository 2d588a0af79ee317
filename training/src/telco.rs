//! The IBM Telco Customer Churn table: which columns it has and how its rows are split.
//!
//! 7,043 customers of a telephone and internet provider, 19 attributes, one snapshot: the set has
//! no time axis, so neither "before" nor "after" can be told apart in it.

use std::path::Path;

use crate::error::TrainError;
use crate::table::{ColumnSpec, Kind, Table};

/// What the data set is called in model and report files.
pub const DATA_NAME: &str = "IBM Telco Customer Churn";

/// The column that says whether the customer left.
pub const CHURN: &str = "churn";

/// The six add-ons that need an internet connection, in the order of the upsell model's outputs.
pub const ADD_ONS: [&str; 6] = [
    "online_security",
    "online_backup",
    "device_protection",
    "tech_support",
    "streaming_tv",
    "streaming_movies",
];

/// How the rows are split, as written into the reports.
pub const SPLIT: &str = "hold-out: every row whose 0-based index mod 5 is 4; training: all others";

const fn spec(header: &'static str, name: &'static str, kind: Kind) -> ColumnSpec {
    ColumnSpec { header, name, kind }
}

/// The 19 attributes in file order, then the churn flag. The customer id is not read.
const COLUMNS: [ColumnSpec; 20] = [
    spec("gender", "gender", Kind::Text),
    spec("SeniorCitizen", "senior_citizen", Kind::Integer),
    spec("Partner", "partner", Kind::Text),
    spec("Dependents", "dependents", Kind::Text),
    spec("tenure", "tenure", Kind::Integer),
    spec("PhoneService", "phone_service", Kind::Text),
    spec("MultipleLines", "multiple_lines", Kind::Text),
    spec("InternetService", "internet_service", Kind::Text),
    spec("OnlineSecurity", "online_security", Kind::Text),
    spec("OnlineBackup", "online_backup", Kind::Text),
    spec("DeviceProtection", "device_protection", Kind::Text),
    spec("TechSupport", "tech_support", Kind::Text),
    spec("StreamingTV", "streaming_tv", Kind::Text),
    spec("StreamingMovies", "streaming_movies", Kind::Text),
    spec("Contract", "contract", Kind::Text),
    spec("PaperlessBilling", "paperless_billing", Kind::Text),
    spec("PaymentMethod", "payment_method", Kind::Text),
    spec("MonthlyCharges", "monthly_charges", Kind::Number),
    // Blank for customers in their first month, who have not been billed yet.
    spec("TotalCharges", "total_charges", Kind::NumberOrBlank),
    spec("Churn", CHURN, Kind::YesNo),
];

/// Reads the file as IBM publishes it.
///
/// # Errors
/// See [`Table::read`].
pub fn read(path: &Path) -> Result<Table, TrainError> {
    Table::read(path, b',', &COLUMNS)
}

/// Row numbers of the training part and of the hold-out part.
pub fn split(rows: usize) -> (Vec<usize>, Vec<usize>) {
    let mut training = Vec::new();
    let mut holdout = Vec::new();
    for row in 0..rows {
        if row % 5 == 4 {
            holdout.push(row);
        } else {
            training.push(row);
        }
    }
    (training, holdout)
}
