//! Why rows were rejected, counted.
//!
//! A reason repeats what was found in the row. What is counted is the reason without that, so that a
//! thousand rows with a thousand wrong values are one line, and the summary repeats no cell.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Different reasons that are told apart; what comes later is counted as [`OTHERS`].
const MOST_REASONS: usize = 1000;
/// Reasons that are told.
const TOLD: usize = 20;
const MOST_CHARACTERS: usize = 160;
/// The most bytes of a line that are looked at: its content comes last and does not count.
const MOST_LINE_BYTES: u64 = 16 * 1024 * 1024;
const OTHERS: &str = "other reasons";

/// A reason, and how many rows were rejected for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonCount {
    pub column: String,
    pub reason: String,
    pub rows: u64,
}

#[derive(Deserialize)]
struct Line {
    column: String,
    reason: String,
}

/// Counts the reasons of a rejects file, the most frequent first.
///
/// # Errors
/// When the file cannot be read.
pub fn reasons(file: &Path) -> Result<Vec<ReasonCount>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut lines = BufReader::new(File::open(file).map_err(failed)?);
    let mut counts: HashMap<(String, String), u64> = HashMap::new();
    let mut others = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut lines).take(MOST_LINE_BYTES);
        if limited.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let Ok(read) = serde_json::from_slice::<Line>(&line) else {
            others += 1;
            continue;
        };
        let key = (read.column, without_value(&read.reason));
        if counts.len() < MOST_REASONS || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        } else {
            others += 1;
        }
    }
    let each = counts.into_iter();
    let mut told: Vec<ReasonCount> = each
        .map(|((column, reason), rows)| ReasonCount {
            column,
            reason,
            rows,
        })
        .collect();
    told.sort_by(|left, right| {
        let by_name = (&left.column, &left.reason).cmp(&(&right.column, &right.reason));
        right.rows.cmp(&left.rows).then(by_name)
    });
    others += told
        .iter()
        .skip(TOLD)
        .map(|reason| reason.rows)
        .sum::<u64>();
    told.truncate(TOLD);
    if others > 0 {
        told.push(ReasonCount {
            column: String::new(),
            reason: OTHERS.to_owned(),
            rows: others,
        });
    }
    Ok(told)
}

/// A reason without the value that it was found in.
fn without_value(reason: &str) -> String {
    let reason = reason
        .split_once(", found ")
        .map_or(reason, |(before, _)| before);
    for middle in [" is out of range, expected ", ", expected one of "] {
        let begin = reason.find(": ").map(|at| at + 2);
        let parts = begin.and_then(|at| Some((&reason[..at], reason[at..].split_once(middle)?)));
        if let Some((name, (_, expected))) = parts {
            let what = match middle.starts_with(',') {
                true => "an unknown value",
                false => "a value",
            };
            let text = format!("{name}{what}{middle}{expected}");
            return text.chars().take(MOST_CHARACTERS).collect();
        }
    }
    reason.chars().take(MOST_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_without_what_was_found_and_the_most_frequent_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rejects.ndjson");
        let line = |column: &str, reason: &str| {
            serde_json::json!({"file": "a", "row": 1, "column": column, "reason": reason, "content": {}})
                .to_string()
        };
        let lines = [
            line("tenure", "tenure: -1 is out of range, expected at least 0"),
            line("tenure", "tenure: expected int64, found \"soon\""),
            line("tenure", "tenure: -7 is out of range, expected at least 0"),
            line(
                "plan",
                "plan: unknown value \"x, y\", expected one of \"a\", \"b\"",
            ),
            line("tenure", "tenure: -9 is out of range, expected at least 0"),
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        let told = reasons(&file).unwrap();
        let told: Vec<(&str, u64)> = told
            .iter()
            .map(|it| (it.reason.as_str(), it.rows))
            .collect();
        assert_eq!(
            told,
            [
                ("tenure: a value is out of range, expected at least 0", 3),
                ("plan: an unknown value, expected one of \"a\", \"b\"", 1),
                ("tenure: expected int64", 1),
            ]
        );
    }

    #[test]
    fn however_many_reasons_there_are_a_few_are_told_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rejects.ndjson");
        let line = |n: usize| format!("{{\"column\":\"c{n}\",\"reason\":\"r{n}\"}}\n");
        let text: String = (0..3000).map(line).collect();
        std::fs::write(&file, text + "nonsense\n").unwrap();
        let told = reasons(&file).unwrap();
        assert_eq!(told.len(), TOLD + 1);
        assert_eq!(told.iter().map(|reason| reason.rows).sum::<u64>(), 3001);
        assert_eq!(told[TOLD].reason, OTHERS);
    }
}
