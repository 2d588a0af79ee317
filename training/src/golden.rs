//! Writes `golden.json`: invented rows with the outputs that a correct runtime gives for them.
//!
//! Format: `{"tolerance": 1e-5, "rows": [{"inputs": {name: value}, "outputs": {name: [...]}}]}`.
//! A missing number is `null`; outputs are float32 results widened to float64.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::graph::{LOG_ODDS, PROBABILITIES};
use crate::scores::Scores;
use crate::table::{Table, Values};

/// How far another runtime's outputs may be from the recorded ones.
const TOLERANCE: f64 = 1e-5;

/// The text of `golden.json` for the rows of `table` and their scores.
///
/// One line per row: short enough to read, and a changed row is one changed line.
///
/// # Errors
/// None that data could cause: texts, numbers and nulls always have a JSON form.
pub fn to_json(table: &Table, scores: &Scores) -> Result<String, serde_json::Error> {
    let mut lines = Vec::new();
    for row in 0..table.rows {
        let golden = GoldenRow {
            inputs: Inputs { table, row },
            outputs: Outputs { scores, row },
        };
        lines.push(format!("    {}", serde_json::to_string(&golden)?));
    }
    let rows = lines.join(",\n");
    Ok(format!(
        "{{\n  \"tolerance\": {TOLERANCE:e},\n  \"rows\": [\n{rows}\n  ]\n}}\n"
    ))
}

#[derive(Serialize)]
struct GoldenRow<'a> {
    inputs: Inputs<'a>,
    outputs: Outputs<'a>,
}

/// One row of raw values by name, in the table's order.
struct Inputs<'a> {
    table: &'a Table,
    row: usize,
}

impl Serialize for Inputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let columns = self.table.columns.iter();
        serializer.collect_map(columns.map(|column| (&column.name, cell(&column.values, self.row))))
    }
}

/// One row of scores by output name, in the graph's order.
struct Outputs<'a> {
    scores: &'a Scores,
    row: usize,
}

impl Serialize for Outputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([
            (LOG_ODDS, &self.scores.log_odds[self.row]),
            (PROBABILITIES, &self.scores.probabilities[self.row]),
        ])
    }
}

fn cell(values: &Values, row: usize) -> Value {
    match values {
        Values::Text(texts) => json!(texts[row]),
        Values::Integer(integers) => json!(integers[row]),
        Values::Number(numbers) => json!(numbers[row]),
        Values::Flag(flags) => json!(flags[row]),
    }
}
