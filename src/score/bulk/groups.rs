//! The rows of one call, by what answers them.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::assemble::{Assembled, RowInput};
use super::super::choose::choose_models;
use super::super::record::{Served, record};
use super::super::{ScoreAnswer, ScoreError};
use super::{Answered, Asked, Moment, Row};
use crate::ledger;
use crate::models::catalog::Chosen;
use crate::store::Snapshot;

/// What is known of the customer of a row.
pub struct Known {
    pub snapshot: Snapshot,
    /// The store is out of reach, and the configuration says to do without it.
    pub is_lost: bool,
}

/// Rows that the same versions answer.
pub struct Group {
    pub chosen: Vec<Chosen>,
    pub is_lost: bool,
    pub rows: Vec<usize>,
}

/// Everything about the rows of one call.
pub struct Call<'a> {
    pub moment: &'a Moment,
    pub asked: &'a Asked,
    pub rows: &'a [Row],
    pub known: &'a [Option<Known>],
    pub at_us: i64,
}

impl Call<'_> {
    /// The rows that are known, by the versions that answer them; the others get their error.
    pub fn groups(&self, answers: &mut [Option<Result<Answered, ScoreError>>]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<(bool, Vec<[usize; 2]>), usize> = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            let Some(known) = &self.known[index] else {
                continue;
            };
            let Moment { catalog, view, .. } = self.moment;
            let models = self.asked.models.as_deref();
            let chosen = match choose_models(catalog, models, &row.customer_id, view) {
                Ok(chosen) => chosen,
                Err(error) => {
                    answers[index] = Some(Err(error));
                    continue;
                }
            };
            let versions = chosen.iter().map(|chosen| {
                let fallback = chosen.fallback.as_ref().map(Arc::as_ptr);
                [
                    Arc::as_ptr(&chosen.version) as usize,
                    fallback.map_or(0, |fallback| fallback as usize),
                ]
            });
            let place = places.entry((known.is_lost, versions.collect()));
            let place = *place.or_insert_with(|| {
                groups.push(Group {
                    chosen,
                    is_lost: known.is_lost,
                    rows: Vec::new(),
                });
                groups.len() - 1
            });
            groups[place].rows.push(index);
        }
        groups
    }

    /// What is known of a row.
    pub fn input(&self, row: usize) -> Option<RowInput<'_>> {
        let (row, known) = (&self.rows[row], self.known[row].as_ref()?);
        Some(RowInput {
            key: &row.customer_id,
            profile: Some(&known.snapshot.profile),
            overrides: &row.overrides,
            context: &row.context,
            windows: &known.snapshot.windows,
        })
    }

    /// What the ledger takes of `row`, which is number `index` of those that were assembled.
    pub fn record(
        &self,
        row: usize,
        index: usize,
        assembled: &Assembled,
        needed: &[bool],
        answer: &ScoreAnswer,
    ) -> ledger::Prediction {
        let applied = self.known[row].as_ref().map(|known| known.snapshot.applied);
        let served = Served {
            customer_id: &self.rows[row].customer_id,
            assembled,
            row: index,
            needed,
            applied: applied.unwrap_or_default(),
        };
        record(&self.moment.view, &served, answer, self.at_us)
    }
}
