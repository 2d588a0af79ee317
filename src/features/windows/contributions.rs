//! What events say to the tracks of a plan.

use super::accumulators::cut;
use super::evaluate::{Column, Input};
use super::events::Row;
use super::plan::{Plan, TrackPlan};

/// What a batch of events says to the windows of a view: conditions, values and groups evaluated,
/// column by column.
#[derive(Debug, Default)]
pub struct Contributions {
    pub(super) rows: Vec<Row>,
    /// The results of every reader's expressions.
    pub(super) results: Vec<Vec<Column>>,
}

impl Contributions {
    /// When the event in `row` was, and the hash of its id.
    pub(super) fn time_and_id(&self, row: usize) -> Option<(i64, u64)> {
        self.rows.get(row).map(|row| (row.time_us, row.id_hash))
    }

    /// What the event in `row` gives to a track: its value and group; none when it does not count.
    pub(super) fn of(
        &self,
        plan: &Plan,
        row: usize,
        track: &TrackPlan,
    ) -> Option<(Input<'_>, Option<&str>)> {
        let stream = plan.streams.get(track.stream)?;
        let (reader, row) = self.rows.get(row)?.read?;
        if reader != stream.reader {
            return None;
        }
        let results = self.results.get(reader)?;
        let at = |expression: usize| results.get(expression)?.at(row);
        if let Some(filter) = stream.filter
            && at(filter) != Some(Input::Flag(true))
        {
            return None;
        }
        let value = match stream.value {
            None => Input::Nothing,
            Some(value) => at(value)?,
        };
        let group = match stream.group.map(at) {
            None => None,
            Some(Some(Input::Text(group))) => Some(group),
            Some(_) => return None,
        };
        if let Some(only) = &track.only_group
            && group.map(cut) != Some(only)
        {
            return None;
        }
        Some((value, group))
    }
}
