//! Point-in-time training sets: observations with the features of their entities as they were known at
//! the time of the observation.
//!
//! The plan: the changes of the view sorted by entity and by when they were known, the observations by
//! entity and time, both spilling to disk; merged, folding the changes as the online store does
//! ([`super::as_of`]); the same again for each relation, with the related entities as observations;
//! back in the order of the observations; assembled by the code that assembles for a score. So a value
//! is what a model would have been given then, defaults included: only changes that were known at that
//! time count, and events that were late are missing where they were missing.
//!
//! A column of the observations with the name of a request feature is what came with the request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_physical_plan::ExecutionPlan;

use super::as_of::{self, Columns, History, Taken};
use super::error::HistoryError;
use super::log::{ChangeLog, Order};
use super::observations::{self, Observations};
use super::observed::Observed;
use super::output::TableFile;
use super::plan::{Bounds, run, sorted, spilled_bytes};
use super::recompute::{closed, recompute};
use crate::features::view::{View, suggestion};
use crate::score::related::is_wanted;

/// What to make a training set of.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    pub log: ChangeLog,
    pub view: Arc<View>,
    /// A file of observations: `.csv`, `.parquet` or `.arrow`.
    pub observations: PathBuf,
    /// What messages call it.
    pub called: String,
    /// The name of its column with the time of the observation.
    pub time_column: String,
    /// The most observations that are taken.
    pub max_rows: u64,
    /// The features wanted, in this order; all of the view when `None`.
    pub features: Option<Vec<String>>,
    pub bounds: Bounds,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TrainingSetReport {
    pub rows: u64,
    /// Rows of an entity of which nothing was known at the time: their features are defaults.
    pub unknown_rows: u64,
    pub features: usize,
    /// What did not fit into memory and was put aside on disk meanwhile.
    pub spilled_bytes: u64,
    pub seconds: f64,
}

/// A plan, and the sorts in it.
struct Plan {
    root: Arc<dyn ExecutionPlan>,
    sorts: Vec<Arc<dyn ExecutionPlan>>,
}

impl TrainingSet {
    /// Makes the training set and writes it to `output`, whose extension says how. Blocks until it is
    /// done; the file appears when it is complete.
    ///
    /// # Errors
    /// What is wrong with the observations, the log, the bounds or the output.
    pub fn write(&self, output: &Path) -> Result<TrainingSetReport, HistoryError> {
        let started = Instant::now();
        let observations = Observations::open(
            &self.observations,
            &self.called,
            &self.view,
            &self.time_column,
        )?;
        let carried = &observations.schema;
        let chosen = self.chosen_columns(carried)?;
        let schema = self.output_schema(carried, &chosen);
        let mut file = TableFile::create(output, &schema)?;

        let mut wanted = vec![false; self.view.features().len()];
        for &column in &chosen {
            wanted[column] = true;
        }
        let needed = closed(&self.view, &wanted);
        let observed = Observed::new(&self.view, carried, &self.called);
        let plan = self.plan(&observations, &observed, &needed)?;
        let (mut rows, mut unknown_rows) = (0, 0);
        run(&plan.root, &self.bounds, |batch| {
            let seen = observed.rows(&batch)?;
            let related = observed.related(&batch)?;
            rows += seen.len() as u64;
            unknown_rows += seen.iter().filter(|row| row.seen.is_none()).count() as u64;
            let assembled = recompute(&self.view, &seen, &related, &wanted)?;
            let mut columns: Vec<ArrayRef> = batch.columns()[..carried.fields().len()].to_vec();
            columns.extend(
                chosen
                    .iter()
                    .map(|&index| Arc::clone(assembled.column(index))),
            );
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
            file.write(&batch.map_err(|error| HistoryError::Plan(error.to_string()))?)
        })?;
        file.finish()?;
        Ok(TrainingSetReport {
            rows,
            unknown_rows,
            features: chosen.len(),
            spilled_bytes: spilled_bytes(&plan.sorts) as u64,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Observations in their order, with what was seen behind them.
    fn plan(
        &self,
        observations: &Observations,
        observed: &Observed,
        needed: &[bool],
    ) -> Result<Plan, HistoryError> {
        let mut plan = Plan {
            root: observations.table(self.max_rows)?,
            sorts: Vec::new(),
        };
        self.join(&mut plan, &self.view, observations::KEY, as_of::SEEN)?;
        for (index, relation) in self.view.relations().iter().enumerate() {
            let Some(target) = &relation.target else {
                continue;
            };
            if is_wanted(&self.view, index, needed) {
                plan.root = observed.with_related_keys(plan.root, index)?;
                let (key, seen) = (Observed::key_name(index), Observed::seen_name(index));
                self.join(&mut plan, target, &key, &seen)?;
            }
        }
        plan.root = sorted(plan.root, &[observations::ROW])?;
        plan.sorts.push(Arc::clone(&plan.root));
        Ok(plan)
    }

    /// Adds to `plan` what was seen, at the time of the observation, of the entity of `view` in column
    /// `key`.
    fn join(
        &self,
        plan: &mut Plan,
        view: &Arc<View>,
        key: &str,
        snapshot: &str,
    ) -> Result<(), HistoryError> {
        let columns = Columns {
            key,
            until: observations::AT,
            at: observations::AT,
            snapshot,
        };
        let history = History {
            log: &self.log,
            order: Order::Known,
            taken: Taken::Snapshot,
        };
        let joined = as_of::join(history, view, Arc::clone(&plan.root), columns)?;
        plan.root = joined.plan;
        plan.sorts.extend(joined.sorts);
        Ok(())
    }

    /// The columns of the view that are wanted and that the observations do not carry.
    fn chosen_columns(&self, carried: &Schema) -> Result<Vec<usize>, HistoryError> {
        let all = self.view.features();
        let mut chosen: Vec<usize> = match &self.features {
            None => (0..all.len()).collect(),
            Some(names) => {
                let find = |name: &String| {
                    self.view.index_of(name).ok_or_else(|| {
                        let names = all.iter().map(|feature| feature.name.as_str());
                        HistoryError::Problem(format!(
                            "features: no feature {name:?} in view {}{}",
                            self.view.name,
                            suggestion(name, names)
                        ))
                    })
                };
                names.iter().map(find).collect::<Result<_, _>>()?
            }
        };
        let request = self.view.request_columns();
        chosen.retain(|column| {
            !(request.contains(column) && carried.index_of(&all[*column].name).is_ok())
        });
        for (place, &column) in chosen.iter().enumerate() {
            let name = &all[column].name;
            if chosen[..place].contains(&column) {
                return Err(HistoryError::Problem(format!(
                    "features: {name:?} is named twice"
                )));
            }
            if carried.index_of(name).is_ok() {
                return Err(HistoryError::Problem(format!(
                    "{}: column {name:?} is also a feature of view {}; rename it, or name the \
                     features wanted without it",
                    self.called, self.view.name
                )));
            }
        }
        Ok(chosen)
    }

    fn output_schema(&self, carried: &Schema, chosen: &[usize]) -> SchemaRef {
        let mut fields = carried.fields().to_vec();
        for &column in chosen {
            let field: &Field = self.view.schema().field(column);
            fields.push(Arc::new(field.clone()));
        }
        Arc::new(Schema::new(fields))
    }
}
