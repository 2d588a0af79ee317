//! The entities of the online store as an input.
//!
//! Each entity of the models' view is a row, with the values that `/v1/score` would read at the time of the
//! job. Entities come in the order of their keys, and a checkpoint remembers the last key, so that a job
//! goes on behind it. What is in the store when a job goes on decides about the rest: the store has no
//! digest. A shared store on Redis gives its entities in no order that holds: those that come twice are told
//! apart by their keys, for which this keeps some 40 bytes each, and a job that was interrupted begins
//! again.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::bind::{Binding, Column};
use super::definition::Definition;
use super::folder::{JobFolder, Part};
use super::plan::Plan;
use super::store_access::{Known, StoreAccess};
use super::table::Table;
use super::{Job, News};
use crate::clock;
use crate::features::view::Role;
use crate::score::given::Given;
use crate::score::given_page::{MOST_ENTITIES, key_columns};

/// Some entities on their way to whoever scores them.
#[derive(Debug)]
pub struct Rows {
    access: Arc<StoreAccess>,
    known: Known,
}

/// The store that is being read.
pub struct StoreReader<'p> {
    plan: &'p Plan,
    access: Arc<StoreAccess>,
    binding: Arc<Binding>,
    /// Where the next page begins; `None` at the beginning.
    after: Option<String>,
    is_at_end: bool,
    /// Where checkpoints say which key was the last.
    places: PathBuf,
    in_order: bool,
    /// Of a store that gives them in no order, the digests of the keys that came.
    seen: HashSet<u128>,
}

/// The last key before a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    /// Rows before it.
    rows: u64,
    /// What the store said of where it goes on.
    after: String,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entities", self.len())
    }
}

impl Known {
    fn len(&self) -> usize {
        match self {
            Known::Snapshots(entities) => entities.len(),
            Known::Values(keys, _) => keys.len(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        match self {
            Known::Snapshots(entities) => entities.iter().map(|(key, _)| key.as_str()).collect(),
            Known::Values(keys, _) => keys.iter().map(String::as_str).collect(),
        }
    }

    /// Keeps the entities that are marked.
    fn retain(&mut self, is_kept: &[bool]) -> Result<(), String> {
        let mut marks = is_kept.iter();
        match self {
            Known::Snapshots(entities) => entities.retain(|_| marks.next() == Some(&true)),
            Known::Values(keys, given) => {
                keys.retain(|_| marks.next() == Some(&true));
                let mask: arrow::array::BooleanArray =
                    is_kept.iter().map(|kept| Some(*kept)).collect();
                for column in given.columns.iter_mut().flatten() {
                    let kept = arrow::compute::filter(column, &mask);
                    *column = kept.map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(())
    }
}

impl<'p> StoreReader<'p> {
    /// Begins at the first entity, or behind a checkpoint after `rows` rows.
    ///
    /// # Errors
    /// When it is not known where that is.
    pub fn new(
        plan: &'p Plan,
        access: &Arc<StoreAccess>,
        folder: &JobFolder,
        rows: u64,
    ) -> Result<StoreReader<'p>, String> {
        let places = folder.store_places();
        let after = match rows {
            0 => None,
            rows => Some(place_after(&places, rows)?),
        };
        Ok(StoreReader {
            plan,
            access: Arc::clone(access),
            binding: Arc::new(bind_all(plan)),
            after,
            is_at_end: false,
            places,
            in_order: true,
            seen: HashSet::new(),
        })
    }

    /// The next entities, and how they are bound; `None` at the end.
    ///
    /// # Errors
    /// Why the store cannot be read.
    pub fn next_rows(&mut self) -> Result<Option<(Rows, usize, Arc<Binding>)>, String> {
        while !self.is_at_end {
            let limit = self.plan.chunk_rows.min(MOST_ENTITIES);
            let page = self
                .access
                .entities(self.plan, self.after.as_deref(), limit)?;
            self.in_order = page.in_order;
            self.is_at_end = page.next.is_none();
            self.after = page.next;
            let mut known = page.content;
            if !self.in_order {
                let is_new = known.keys().into_iter();
                let is_new: Vec<bool> = is_new
                    .map(|key| self.seen.insert(xxh3_128(key.as_bytes())))
                    .collect();
                if is_new.contains(&false) {
                    known.retain(&is_new)?;
                }
            }
            let rows = known.len();
            if rows > 0 {
                let access = Arc::clone(&self.access);
                let binding = Arc::clone(&self.binding);
                return Ok(Some((Rows { access, known }, rows, binding)));
            }
        }
        Ok(None)
    }

    /// Remembers where the store goes on behind `rows` rows, before that becomes a checkpoint.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn checkpoint(&mut self, rows: u64) -> Result<(), String> {
        let (true, Some(after)) = (self.in_order, &self.after) else {
            return Ok(());
        };
        let write = || -> std::io::Result<()> {
            let after = after.clone();
            // Before it a line may be that was not written to its end.
            let line = serde_json::to_string(&Checkpoint { rows, after })?;
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(&self.places)?;
            file.write_all(format!("\n{line}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(|error| format!("{}: {error}", self.places.display()))
    }
}

/// The parts that a job goes on with: none when its store cannot say where it goes on, and some of it is still
/// to be read.
///
/// # Errors
/// When the folder cannot be written, or the store not be read.
pub fn go_on_with(
    job: &Job,
    plan: &Plan,
    folder: &JobFolder,
    definition: &mut Definition,
    parts: Vec<Part>,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Vec<Part>, String> {
    let (Some(store), Some(last)) = (job.source_store(), parts.last()) else {
        return Ok(parts);
    };
    let is_all = last.end.file > 0;
    if is_all || store.entities(plan, None, 1)?.in_order {
        return Ok(parts);
    }
    tell(News::Remark(
        "--resume: a store on Redis gives its entities in no order, so that the job begins again",
    ));
    definition.at_us = clock::now_us();
    folder.begin(definition)?;
    Ok(Vec::new())
}

/// Where the store goes on behind `rows` rows. A job that went on may have come to the same number by
/// another way: its line is the last.
fn place_after(places: &PathBuf, rows: u64) -> Result<String, String> {
    let begin_again = "run without --resume to begin again";
    let text = std::fs::read_to_string(places)
        .map_err(|error| format!("{}: {error}; {begin_again}", places.display()))?;
    let lines = text.lines().rev();
    let mut checkpoints = lines.filter_map(|line| serde_json::from_str::<Checkpoint>(line).ok());
    let found = checkpoints.find(|checkpoint| checkpoint.rows == rows);
    found.map(|checkpoint| checkpoint.after).ok_or_else(|| {
        format!(
            "{}: it does not say where the store goes on after {rows} rows; {begin_again}",
            places.display()
        )
    })
}

/// Every feature that is needed and that the store has, as a column of its name.
fn bind_all(plan: &Plan) -> Binding {
    let column = |index: usize, name: &str| Column {
        index,
        name: name.to_owned(),
    };
    let view = &plan.view;
    let keys = view.key_columns().iter().enumerate();
    let derived = view.derived_columns().start;
    let features = view.features()[..derived].iter().enumerate();
    let features =
        features.filter(|(index, feature)| plan.needed[*index] && feature.role != Role::Request);
    let first = view.key_columns().len();
    Binding {
        keys: keys.map(|(index, name)| column(index, name)).collect(),
        features: features
            .map(|(index, feature)| (index, column(first + index, &feature.name)))
            .collect(),
        unread: Vec::new(),
    }
}

impl Rows {
    /// The rows as a table whose first row is number `first`, and their values by column of the view.
    ///
    /// # Errors
    /// When a related entity cannot be read, or a server has left a column out.
    pub fn read(
        self,
        plan: &Plan,
        binding: &Binding,
        first: u64,
    ) -> Result<(Table, Given), String> {
        let (keys, mut given) = self.access.values(plan, self.known)?;
        let mut columns = key_columns(&plan.view, &keys);
        for (feature, column) in &binding.features {
            let found = given.columns.get(*feature).and_then(Option::as_ref);
            let found = found.ok_or_else(|| format!("no column {}", column.name))?;
            columns.push(Arc::clone(found));
        }
        // What a server gives beyond what is needed is not looked at.
        for (column, needed) in plan.needed.iter().enumerate() {
            if !needed && let Some(unneeded) = given.columns.get_mut(column) {
                *unneeded = None;
            }
        }
        let mut table = Table::new(columns, keys.len(), first);
        table.is_typed = true;
        Ok((table, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_ways_to_a_checkpoint_the_last_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("places");
        let lines = "{\"rows\":10,\"after\":\"x\"}\n{\"rows\":20,\"after\":\"y\"}\n\
                     {\"rows\":10,\"after\":\"z\"}\n{\"rows\":20,\"aft";
        std::fs::write(&file, lines).unwrap();
        assert_eq!(place_after(&file, 10).unwrap(), "z");
        assert_eq!(place_after(&file, 20).unwrap(), "y");
        let problem = place_after(&file, 30).unwrap_err();
        assert!(problem.contains("--resume"), "{problem}");
    }
}
