//! Writes `model.toml`: what the graph cannot say about itself.
//!
//! The keys are a contract with the server that loads the model. The file is generated text with
//! a fixed order and comments, so that a person can read it and a version control system can
//! compare it.

use std::fmt::Write;

use crate::graph::{LOG_ODDS, PROBABILITIES, Task};
use crate::table::{Table, Values};

/// One column of `probabilities` of an affinity model.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What is proposed when this column is the best.
    pub label: &'static str,
    /// SQL over the view: true for a customer who is not offered this.
    pub unless: String,
}

/// Everything `model.toml` holds.
#[derive(Debug)]
pub struct Description<'a> {
    pub name: &'static str,
    pub task: Task,
    /// One honest sentence.
    pub sentence: &'static str,
    pub choices: Vec<Choice>,
    /// Name of the outcome that the score predicts.
    pub outcome: &'static str,
    /// A single row: the customer that contributions are measured against.
    pub baseline: &'a Table,
    pub data: &'static str,
    pub training_rows: usize,
    pub holdout_rows: usize,
}

impl Description<'_> {
    /// The text of `model.toml`.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let name = self.name;
        writeln!(
            text,
            "# Written by `bellwether train {name}`; see report.md for the evaluation."
        )?;
        writeln!(text, "[model]")?;
        let task = match self.task {
            Task::Binary => "binary",
            Task::Affinity => "affinity",
        };
        writeln!(text, "task = {}", quoted(task))?;
        writeln!(text, "view = \"customer\"")?;
        writeln!(text, "description = {}", quoted(self.sentence))?;
        writeln!(text, "owner = \"bellwether samples\"")?;

        writeln!(text, "\n[output]")?;
        writeln!(text, "probabilities = {}", quoted(PROBABILITIES))?;
        writeln!(text, "log_odds = {}", quoted(LOG_ODDS))?;
        if self.task == Task::Binary {
            writeln!(text, "positive = 1")?;
        }

        if !self.choices.is_empty() {
            writeln!(
                text,
                "\n# One choice per column of `probabilities`, in order."
            )?;
        }
        for (position, choice) in self.choices.iter().enumerate() {
            if position > 0 {
                writeln!(text)?;
            }
            writeln!(text, "[[choice]]")?;
            writeln!(text, "label = {}", quoted(choice.label))?;
            writeln!(text, "unless = {}", quoted(&choice.unless))?;
        }

        writeln!(text, "\n[label]")?;
        writeln!(text, "outcome = {}", quoted(self.outcome))?;
        writeln!(text, "window = \"30d\"")?;
        writeln!(text, "maturity = \"30d\"")?;

        writeln!(text, "\n[reasons]")?;
        writeln!(
            text,
            "# The reference customer: median and most frequent value of the training rows."
        )?;
        writeln!(text, "[reasons.baseline]")?;
        for column in &self.baseline.columns {
            if let Some(value) = first_value(&column.values) {
                writeln!(text, "{} = {value}", column.name)?;
            }
        }

        writeln!(text, "\n[training]")?;
        writeln!(text, "data = {}", quoted(self.data))?;
        writeln!(text, "rows = {}", self.training_rows)?;
        writeln!(text, "holdout_rows = {}", self.holdout_rows)?;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(
            text,
            "trained_by = {}",
            quoted(&format!("bellwether-training {version}"))
        )
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The TOML form of a one-row column; nothing for a missing value.
fn first_value(values: &Values) -> Option<String> {
    match values {
        Values::Text(texts) => texts.first().map(|text| quoted(text)),
        Values::Integer(integers) => integers.first().map(i64::to_string),
        Values::Number(numbers) => {
            let number = numbers.first().copied().flatten();
            // Debug keeps the decimal point: 70.0 must not become an integer in TOML.
            number.map(|number| format!("{number:?}"))
        }
        Values::Flag(flags) => flags.first().map(bool::to_string),
    }
}
