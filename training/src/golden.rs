//! Writes `golden.json`: invented rows with the outputs that a correct runtime gives for them.
//!
//! Format: `{"tolerance": 1e-5, "rows": [{"inputs": {name: value}, "outputs": {name: [...]}}]}`.
//! A missing number is `null`; outputs are float32 results widened to float64.

use serde_json::{Map, Value, json};

use crate::graph::{LOG_ODDS, PROBABILITIES};
use crate::scores::Scores;
use crate::table::{Table, Values};

/// How far another runtime's outputs may be from the recorded ones.
const TOLERANCE: f64 = 1e-5;

/// The text of `golden.json` for the rows of `table` and their scores.
pub fn to_json(table: &Table, scores: &Scores) -> String {
    let mut rows = Vec::new();
    for row in 0..table.rows {
        let mut inputs = Map::new();
        for column in &table.columns {
            let value = match &column.values {
                Values::Text(texts) => json!(texts[row]),
                Values::Integer(integers) => json!(integers[row]),
                Values::Number(numbers) => json!(numbers[row]),
                Values::Flag(flags) => json!(flags[row]),
            };
            inputs.insert(column.name.to_owned(), value);
        }
        let outputs = json!({
            LOG_ODDS: scores.log_odds[row],
            PROBABILITIES: scores.probabilities[row],
        });
        rows.push(json!({ "inputs": inputs, "outputs": outputs }));
    }
    let mut text = String::from("{\n");
    text.push_str(&format!("  \"tolerance\": {TOLERANCE:e},\n  \"rows\": [\n"));
    // One line per row: short enough to read, and a changed row is one changed line.
    let lines: Vec<String> = rows
        .iter()
        .map(|row: &Value| format!("    {row}"))
        .collect();
    text.push_str(&lines.join(",\n"));
    text.push_str("\n  ]\n}\n");
    text
}
