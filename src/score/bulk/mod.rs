//! Scoring many customers at once: what [`Scorer::score`] says of each, to the bit.
//!
//! The store is asked for some hundred customers at a time, and rows that the same versions answer go
//! through the models together. Each row has an answer or an error of its own: what goes wrong for all
//! rows of a part is looked for by halving it.
//!
//! Two things are left to requests for one customer: rows are not run by versions in shadow, whose time is
//! little, and they do not count for the guardrails of a canary, which judge how it does under traffic. A
//! canary answers its customers here, too, and the champion where it cannot.
//!
//! * [`groups`] – the rows of one call, by what answers them.
//!
//! Recording is the caller's: it gets a record with each answer, and gives an answer away only when the
//! ledger has taken its record.

mod groups;

use std::sync::Arc;
use std::time::Duration;

use self::groups::{Call, Group, Known};
use super::assemble::{RowInput, assemble};
use super::choose::{choose_models, failed, need, predict_rows};
use super::quality::judge;
use super::related::{Related, Wanted};
use super::scorer::{InForce, REPLACING_TRIES};
use super::{CUSTOMER, Prediction, ScoreAnswer, ScoreError, Scorer};
use crate::clock;
use crate::features::value::{Value, shorten};
use crate::features::view::View;
use crate::ledger;
use crate::models::catalog::Catalog;
use crate::store::{Snapshot, StoreError};

/// Entities in one round trip to the store.
const READ_ENTITIES: usize = 256;

/// What is asked of every row.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// As [`super::ScoreRequest::models`].
    pub models: Option<Vec<String>>,
    /// As [`super::ScoreRequest::explain`].
    pub explain: Option<usize>,
    /// Whether answers come with a record.
    pub is_recorded: bool,
}

/// One customer.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub customer_id: String,
    /// Checked values to use instead of stored ones, by column of the view.
    pub overrides: Vec<(usize, Value)>,
    /// Checked values of request features, by column.
    pub context: Vec<(usize, Value)>,
}

/// The answer for one row.
#[derive(Debug)]
pub struct Answered {
    pub answer: ScoreAnswer,
    /// What the ledger has to take before this is an answer; none when nothing is recorded.
    pub record: Option<ledger::Prediction>,
}

/// What is served at one time: views and versions that belong together.
pub struct Moment {
    in_force: Arc<InForce>,
    catalog: Arc<Catalog>,
    /// The view of customers.
    pub view: Arc<View>,
    /// The models that answer, in the order of the predictions.
    pub models: Vec<String>,
}

impl Scorer {
    /// What is served now.
    ///
    /// # Errors
    /// A model that is unknown, not ready or does not bind to the customers' view.
    pub async fn moment(&self, models: Option<&[String]>) -> Result<Moment, ScoreError> {
        for _ in 0..REPLACING_TRIES {
            let in_force = self.in_force.load_full();
            let view = in_force.views.of_entity(CUSTOMER);
            let view = Arc::clone(view.ok_or(ScoreError::NoView)?);
            let catalog = self.repository.catalog();
            // Which models answer does not depend on the customer.
            match choose_models(&catalog, models, "", &view) {
                Err(ScoreError::Replacing) => tokio::time::sleep(Duration::from_millis(1)).await,
                chosen => {
                    let models = chosen?
                        .into_iter()
                        .map(|chosen| chosen.version.name.clone());
                    return Ok(Moment {
                        models: models.collect(),
                        in_force,
                        catalog,
                        view,
                    });
                }
            }
        }
        Err(ScoreError::Replacing)
    }

    /// Scores `rows`, whose columns are those of the moment's view, in their order. To be called on a
    /// thread whose work can wait.
    pub async fn score_rows(
        &self,
        moment: &Moment,
        asked: &Asked,
        mut rows: Vec<Row>,
    ) -> Vec<Result<Answered, ScoreError>> {
        let at_us = clock::now_us();
        for row in &mut rows {
            // Behind those that the caller sent: the first of a column is taken.
            row.context.extend(moment.view.request_time(at_us));
        }
        let mut answers: Vec<Option<Result<Answered, ScoreError>>> = Vec::new();
        answers.resize_with(rows.len(), || None);
        let mut known = Vec::with_capacity(rows.len());
        for (index, found) in self
            .read_rows(moment, &rows, at_us)
            .await
            .into_iter()
            .enumerate()
        {
            known.push(match found {
                Ok(found) => Some(found),
                Err(error) => {
                    answers[index] = Some(Err(error));
                    None
                }
            });
        }
        let call = Call {
            moment,
            asked,
            rows: &rows,
            known: &known,
            at_us,
        };
        for group in call.groups(&mut answers) {
            let mut parts = vec![group.rows.as_slice()];
            while let Some(part) = parts.pop() {
                match self.score_part(&call, &group, part).await {
                    Ok(scored) => {
                        for (row, scored) in part.iter().zip(scored) {
                            answers[*row] = Some(scored);
                        }
                    }
                    // To ask again for half of it would only wait once more.
                    Err(ScoreError::Store(error)) if error.may_pass() => {
                        for row in part {
                            answers[*row] = Some(Err(ScoreError::Store(error.clone())));
                        }
                    }
                    Err(error) => match part {
                        [] => {}
                        [row] => answers[*row] = Some(Err(error)),
                        rows => {
                            let (first, second) = rows.split_at(rows.len() / 2);
                            parts.extend([second, first]);
                        }
                    },
                }
            }
        }
        // Every row is of a group, or has its error.
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or(Err(ScoreError::Replacing)))
            .collect()
    }

    /// What is known of the customers.
    async fn read_rows(
        &self,
        moment: &Moment,
        rows: &[Row],
        at_us: i64,
    ) -> Vec<Result<Known, ScoreError>> {
        let mut found = Vec::with_capacity(rows.len());
        for rows in rows.chunks(READ_ENTITIES) {
            let wanted = rows
                .iter()
                .map(|row| (&moment.view, row.customer_id.as_str()));
            let wanted: Vec<(&Arc<View>, &str)> = wanted.collect();
            match self.store.read(&wanted, at_us).await {
                Ok(snapshots) => found.extend(snapshots.into_iter().map(Ok)),
                Err(error) if error.may_pass() => {
                    found.extend(rows.iter().map(|_| Err(error.clone())));
                }
                // One of them, perhaps: the others are not to suffer from it.
                Err(_) => {
                    for wanted in &wanted {
                        let one = self.store.read(std::slice::from_ref(wanted), at_us).await;
                        found.push(one.map(|mut one| one.pop().flatten()));
                    }
                }
            }
        }
        let each = rows.iter().zip(found);
        each.map(|(row, found)| self.known(moment, row, found))
            .collect()
    }

    fn known(
        &self,
        moment: &Moment,
        row: &Row,
        found: Result<Option<Snapshot>, StoreError>,
    ) -> Result<Known, ScoreError> {
        match self.unless_lost(found.map_err(ScoreError::from))? {
            None => Ok(Known {
                snapshot: Snapshot::without_values(&moment.view),
                is_lost: true,
            }),
            Some(None) => Err(ScoreError::UnknownCustomer {
                customer_id: shorten(&row.customer_id, 128),
            }),
            Some(Some(snapshot)) => Ok(Known {
                snapshot,
                is_lost: false,
            }),
        }
    }

    /// Scores some rows of a group.
    ///
    /// # Errors
    /// When that is impossible for all of them together.
    async fn score_part(
        &self,
        call: &Call<'_>,
        group: &Group,
        part: &[usize],
    ) -> Result<Vec<Result<Answered, ScoreError>>, ScoreError> {
        let (view, counters) = (&call.moment.view, &call.moment.in_force.counters);
        let mut needed = vec![false; view.features().len()];
        for chosen in &group.chosen {
            need(&mut needed, &chosen.version, view)?;
        }
        view.close_over_inputs(&mut needed);
        // What a champion needs to answer in a canary's place is at hand too.
        let mut at_hand = needed.clone();
        for champion in group
            .chosen
            .iter()
            .filter_map(|chosen| chosen.fallback.as_ref())
        {
            need(&mut at_hand, champion, view)?;
            view.close_over_inputs(&mut at_hand);
        }
        let inputs: Vec<RowInput<'_>> = part.iter().filter_map(|row| call.input(*row)).collect();
        let mut is_lost = group.is_lost;
        let related = match is_lost {
            true => Related::default(),
            false => {
                let read = self
                    .read_related_rows(view, &inputs, &at_hand, call.at_us)
                    .await;
                let read = self.unless_lost(read)?;
                is_lost = read.is_none();
                read.unwrap_or_default()
            }
        };
        let assembled = assemble(view, &inputs, &related, &at_hand)?;
        let mut predictions: Vec<Vec<Prediction>> = Vec::new();
        predictions.resize_with(part.len(), || Vec::with_capacity(group.chosen.len()));
        let mut problems: Vec<Option<ScoreError>> = Vec::new();
        problems.resize_with(part.len(), || None);
        let mut fell_back = vec![false; part.len()];
        for chosen in &group.chosen {
            let told = predict_rows(&chosen.version, view, &assembled.batch, call.asked.explain);
            for (row, told) in told.into_iter().enumerate() {
                let told = match (told, &chosen.fallback) {
                    (Err(_), Some(champion)) => {
                        fell_back[row] = true;
                        let one = assembled.batch.slice(row, 1);
                        let told = predict_rows(champion, view, &one, call.asked.explain).pop();
                        told.unwrap_or_else(|| Err("gave no score".to_owned()))
                            .map_err(|problem| failed(champion, problem))
                    }
                    (told, _) => told.map_err(|problem| failed(&chosen.version, problem)),
                };
                match told {
                    Ok(prediction) => predictions[row].push(prediction),
                    Err(problem) => {
                        problems[row].get_or_insert(problem);
                    }
                }
            }
        }
        let mut answers = Vec::with_capacity(part.len());
        for (index, (predictions, problem)) in predictions.into_iter().zip(problems).enumerate() {
            if is_lost {
                counters.store_lost();
            }
            let needed = if fell_back[index] { &at_hand } else { &needed };
            let mut quality = judge(view, &assembled, index, needed, call.at_us, counters);
            quality.store_lost = is_lost;
            if let Some(problem) = problem {
                answers.push(Err(problem));
                continue;
            }
            let answer = ScoreAnswer {
                prediction_id: clock::new_id_at(call.at_us),
                predictions,
                quality,
            };
            let record = call
                .asked
                .is_recorded
                .then(|| call.record(part[index], index, &assembled, needed, &answer));
            answers.push(Ok(Answered { answer, record }));
        }
        Ok(answers)
    }

    /// What is known of the entities that the rows point to.
    async fn read_related_rows(
        &self,
        view: &View,
        rows: &[RowInput<'_>],
        needed: &[bool],
        at_us: i64,
    ) -> Result<Related, ScoreError> {
        let wanted = Wanted::of(view, rows, needed);
        if wanted.is_empty() {
            return Ok(Related::default());
        }
        let mut snapshots = Vec::new();
        for entities in wanted.entities().chunks(READ_ENTITIES) {
            snapshots.extend(self.store.read(entities, at_us).await?);
        }
        Ok(wanted.assemble(view, &snapshots, at_us)?)
    }
}
