//! Sending new values of features to a running server.

use std::collections::HashSet;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::patience::patiently;
use super::push::{ColumnMap, RejectedRow};
use crate::clock;
use crate::features::change::{Change, KEY_SEPARATOR, What};
use crate::features::value::shorten;
use crate::features::view::View;
use crate::remote::Remote;
use crate::store::entity::from_scalar;

/// How long one answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What became of some updates.
#[derive(Debug, Default, PartialEq)]
pub struct Sent {
    pub written: u64,
    /// Index of the update, and why it was refused, of the first that were.
    pub refused: Vec<(usize, String)>,
    /// How many more were refused.
    pub more_refused: u64,
}

/// The answer of `POST /v1/features/{view}`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    written: u64,
    #[serde(default)]
    refused: Vec<RefusedRow>,
    #[serde(default)]
    refused_total: u64,
}

#[derive(Deserialize)]
struct RefusedRow {
    index: usize,
    error: String,
}

/// Sends updates of entities of `view`; those that are not refused are on the server's disk when it has
/// answered, and the next score reads them. What may pass is waited for: to send the same again changes nothing.
///
/// # Errors
/// Why they could not be sent, or were refused as a whole.
pub fn send(server: &Remote, view: &View, updates: &[Change]) -> Result<Sent, String> {
    let body: String = updates.iter().map(|update| row_of(update, view)).collect();
    let path = format!("/v1/features/{}", view.name);
    let reply = patiently(|| {
        let reply = server.post(&path, "application/x-ndjson", body.as_bytes())?;
        Ok(match reply.status.as_u16() {
            200 | 422 => Ok(reply),
            _ => Err(reply),
        })
    })?;
    let answer: Answer = serde_json::from_str(&reply.text).map_err(|error| {
        let found = shorten(&reply.text, 200);
        format!("{path}: answered no reply to features: {error}: {found}")
    })?;
    if answer.written == 0 && answer.refused_total == 0 {
        return Err(reply.refusal());
    }
    let listed = answer.refused.len() as u64;
    let refused = answer.refused.into_iter();
    Ok(Sent {
        written: answer.written,
        refused: refused.map(|row| (row.index, row.error)).collect(),
        more_refused: answer.refused_total.saturating_sub(listed),
    })
}

/// Sends the rows of `batch`; returns how many were written, and how many more than those put into `rejected`
/// were not.
///
/// # Errors
/// When a column cannot be read, or the server takes none; earlier batches stay written.
pub fn push_batch(
    server: &Remote,
    view: &View,
    map: &ColumnMap,
    batch: &RecordBatch,
    first_row: u64,
    rejected: &mut Vec<RejectedRow>,
) -> Result<(u64, u64), String> {
    let before = rejected.len();
    let updates = map.updates(batch, view, clock::now_us(), first_row, rejected)?;
    if updates.is_empty() {
        return Ok((0, 0));
    }
    let bad: HashSet<u64> = rejected[before..].iter().map(|row| row.row).collect();
    let rows = (first_row..).take(batch.num_rows());
    let rows: Vec<u64> = rows.filter(|row| !bad.contains(row)).collect();
    let sent = send(server, view, &updates)?;
    for (index, reason) in sent.refused {
        let row = rows.get(index).copied().unwrap_or(first_row);
        rejected.push(RejectedRow { row, reason });
    }
    Ok((sent.written, sent.more_refused))
}

/// An update as a line of JSON.
fn row_of(update: &Change, view: &View) -> String {
    let Some(What::Update(update)) = &update.what else {
        return String::new();
    };
    let mut row = Map::new();
    let parts = update.key.split(KEY_SEPARATOR);
    for (column, part) in view.key_columns().iter().zip(parts) {
        row.insert(column.clone(), part.into());
    }
    let occurred_at = clock::to_rfc3339(update.occurred_at_us);
    row.insert("occurred_at".to_owned(), occurred_at.into());
    for feature in &update.features {
        let value = from_scalar(feature.value.as_ref()).to_json();
        row.insert(feature.name.clone(), value);
    }
    format!("{}\n", Json::Object(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::change::ProfileUpdate;
    use crate::features::value::Value;
    use crate::store::entity::named_value;

    #[test]
    fn a_row_has_the_parts_of_the_key_and_all_digits() {
        let view = "[view]\nname = \"cell\"\nentity = [\"site_id\", \"cell_id\"]\n\
                    [[feature]]\nname = \"load\"\ntype = \"float64\"\n\
                    [[feature]]\nname = \"name\"\ntype = \"string\"\n";
        let view = View::parse(view).unwrap();
        let features = vec![
            named_value("load", &Value::Float64(0.1 + 0.2)),
            named_value("name", &Value::Null),
        ];
        let update = ProfileUpdate {
            view: "cell".into(),
            key: "a\"b\u{1f}3".into(),
            occurred_at_us: 1_769_860_800_000_001,
            features,
        };
        let change = Change {
            known_at_us: None,
            what: Some(What::Update(update)),
        };
        let row: Json = serde_json::from_str(&row_of(&change, &view)).unwrap();
        assert_eq!(row["site_id"], "a\"b");
        assert_eq!(row["cell_id"], "3");
        assert_eq!(row["load"].as_f64(), Some(0.1 + 0.2));
        assert!(row["name"].is_null());
        assert_eq!(row["occurred_at"], "2026-01-31T12:00:00.000001Z");
    }
}
