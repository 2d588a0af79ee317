//! What changed since the last run: who moved from which band of scores to which.
//!
//! The output of the last run is read before anything is scored, for it may be replaced by this one: its
//! keys and scores go into files of the job's folder, by a hash of the key ([`buckets`]). When the new
//! output is complete its rows go the same way, and the two are joined bucket by bucket ([`join`]). A job
//! that is killed meanwhile does the second half again.
//!
//! Memory is bounded whatever the number of rows: buffers of 32 MiB while rows are put into buckets, and
//! 512 Ki rows or 64 MiB of records, with an index of them, while two buckets are joined.
//!
//! * [`table`] – keys and scores of an output file; [`told`] – the result in words.
//!
//! It compares scores only, not labels or reasons.

pub mod buckets;
pub mod join;
pub mod table;
pub mod told;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use self::buckets::{Buckets, Size};
use self::table::ScoreTable;
use super::bands::Bands;
use super::folder::{JobFolder, path_for};
use super::plan::Plan;
use super::publish::place_of;
use super::statistics::Distribution;
use super::watch::Watch;
use super::{Job, News, inputs};
use crate::features::change::KEY_SEPARATOR;

/// Where the job's folder says that the last run is in its buckets.
const LAST_FILE: &str = "last.json";

/// The last run, as it lies in the buckets of the job's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    pub path: PathBuf,
    pub bytes: u64,
    /// XXH3-128 of its bytes, in hexadecimal. Keys are hashed with it as the seed.
    pub xxh3: String,
    pub rows: u64,
    /// Of the models of the job, those whose scores the last run has.
    models: Vec<LastModel>,
    sizes: Vec<Size>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LastModel {
    /// The place of the model in the plan.
    index: usize,
    /// The version that answered then, where the file says so.
    version: Option<String>,
    bands: Bands,
}

/// What changed since the last run.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// The output of the last run.
    pub last: PathBuf,
    pub last_bytes: u64,
    /// XXH3-128 of its bytes, in hexadecimal.
    pub last_xxh3: String,
    /// Keys of both runs, of this one only, of the last one only.
    pub both: u64,
    pub new: u64,
    pub gone: u64,
    /// Rows whose key comes again further down, where the last one counts.
    pub duplicates: u64,
    pub last_duplicates: u64,
    pub models: Vec<ModelDiff>,
    /// Models whose scores the last run does not have.
    pub not_compared: Vec<String>,
}

/// What changed of the scores of one model.
#[derive(Debug, Serialize)]
pub struct ModelDiff {
    pub model: String,
    pub version: String,
    pub last_version: Option<String>,
    /// The bands in words, from the lowest on.
    pub bands: Vec<String>,
    /// Keys of both runs: by the band then, by the band now.
    pub migration: Vec<Vec<u64>>,
    /// Keys that are new, by the band now.
    pub new: Vec<u64>,
    /// Keys that are gone, by the band then.
    pub gone: Vec<u64>,
    /// Keys of both runs that are in a higher band now, in a lower one, in the same.
    pub rose: u64,
    pub fell: u64,
    pub stayed: u64,
    /// Of the keys of both runs; none without any.
    pub mean_change: Option<f64>,
    /// Those who moved most, the furthest first.
    pub up: Vec<Mover>,
    pub down: Vec<Mover>,
}

/// Somebody whose score moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mover {
    /// The key columns.
    pub key: Map<String, Json>,
    pub then: f64,
    pub now: f64,
    pub change: f64,
}

/// The file of the last run, when it is to be compared with and there is one; it is checked that it can
/// be. A job that has read it already does without.
///
/// # Errors
/// What the file lacks.
pub fn wanted<'j>(
    job: &'j Job,
    plan: &Plan,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Option<&'j Path>, String> {
    let Some(last) = &job.diff else {
        return Ok(None);
    };
    if job.resume && path_for(&job.output).join(LAST_FILE).exists() {
        return Ok(Some(last));
    }
    // A nightly job that replaces its output finds none in its first night.
    if !last.exists() && place_of(last).ok() == place_of(&job.output).ok() {
        tell(News::Remark(
            "--diff: there is no earlier run to compare with, for the output is not there yet",
        ));
        return Ok(None);
    }
    look_at(last, plan)?;
    Ok(Some(last))
}

/// The models of the plan whose scores `last` has, and a view on its columns.
fn look_at(last: &Path, plan: &Plan) -> Result<(ScoreTable, Vec<usize>), String> {
    let in_file = |problem: String| format!("--diff {}: {problem}", last.display());
    let table = ScoreTable::open(last).map_err(in_file)?;
    for key in plan.view.key_columns() {
        if !table.has(key) {
            let columns = table.names().join(", ");
            return Err(in_file(format!(
                "it has no key column {key}, only {columns}; name an output of an earlier run over the \
                 view {}",
                plan.view.name
            )));
        }
    }
    let models = plan.models.iter().enumerate();
    let models: Vec<usize> = models
        .filter(|(_, version)| table.has(&score_column(&version.name)))
        .map(|(index, _)| index)
        .collect();
    if models.is_empty() {
        let wanted: Vec<String> = plan.models.iter().map(|m| score_column(&m.name)).collect();
        return Err(in_file(format!(
            "it has no scores of these models, expected a column {}; name an output of an earlier run \
             of one of them",
            wanted.join(" or ")
        )));
    }
    Ok((table, models))
}

fn score_column(model: &str) -> String {
    format!("{model}_score")
}

/// Reads the last run into buckets of the folder, unless that was done before; then what was read then
/// counts, whatever became of the file. A job that has begun without one (`has_begun`) ends without:
/// what is there now may be its own output.
///
/// # Errors
/// When it cannot be read, changes meanwhile, or the folder takes no more.
pub fn read_last(
    folder: &JobFolder,
    plan: &Plan,
    path: &Path,
    has_begun: bool,
) -> Result<Option<Last>, String> {
    let known = folder.read::<Last>(LAST_FILE)?;
    if known.is_some() || has_begun {
        return Ok(known);
    }
    let (table, indexes) = look_at(path, plan)?;
    let in_file = |problem: String| format!("--diff {}: {problem}", path.display());
    let watch = Watch::begin(&[path.to_owned()])?;
    let (bytes, xxh3) = inputs::digest(path).map_err(|error| in_file(error.to_string()))?;
    let scores: Vec<String> = indexes
        .iter()
        .map(|index| score_column(&plan.models[*index].name))
        .collect();
    let count = buckets::count_for(table.estimated_bytes().max(bytes));
    let mut buckets = Buckets::create(folder.path(), "last", count, seed_of(&xxh3))?;
    let mut distributions = vec![Distribution::default(); scores.len()];
    let mut rows = 0;
    for batch in table
        .rows(plan.view.key_columns(), &scores)
        .map_err(in_file)?
    {
        let batch = batch.map_err(in_file)?;
        rows += batch.rows as u64;
        for (distribution, scores) in distributions.iter_mut().zip(&batch.scores) {
            distribution.add(scores.values().iter().copied());
        }
        buckets.add_batch(&batch)?;
    }
    let sizes = buckets.finish()?;
    buckets::sync(folder.path(), "last", &sizes)?;
    watch
        .check()
        .map_err(|problem| format!("--diff {problem}"))?;
    let mut models = Vec::new();
    for (index, distribution) in indexes.into_iter().zip(&distributions) {
        let version = format!("{}_version", plan.models[index].name);
        let bands = plan.bands.get(index).cloned().flatten();
        models.push(LastModel {
            index,
            version: table.first_text(&version).map_err(in_file)?,
            bands: bands.unwrap_or_else(|| Bands::quintiles(distribution)),
        });
    }
    let last = Last {
        path: path.to_owned(),
        bytes,
        xxh3,
        rows,
        models,
        sizes,
    };
    folder.write(LAST_FILE, &last)?;
    Ok(Some(last))
}

fn seed_of(xxh3: &str) -> u64 {
    let digits = xxh3.get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

impl Last {
    /// Counts in the bands of the last run where the plan has none of its own.
    pub fn give_bands(&self, plan: &mut Plan) {
        for model in &self.models {
            if let Some(bands) = plan.bands.get_mut(model.index) {
                bands.get_or_insert_with(|| model.bands.clone());
            }
        }
    }

    /// Compares the output of a job, which is complete, with the last run.
    ///
    /// # Errors
    /// When a file cannot be read, or the folder takes no more; then the job is to be gone on with.
    pub fn compare(&self, folder: &JobFolder, plan: &Plan, job: &Job) -> Result<Diff, String> {
        let compared = self.try_compare(folder, plan, &job.output, job.movers);
        compared.map_err(|problem| {
            format!(
                "{} is complete, but was not compared with {}: {problem}; {}",
                job.output.display(),
                self.path.display(),
                job.how_to_do_the_rest()
            )
        })
    }

    fn try_compare(
        &self,
        folder: &JobFolder,
        plan: &Plan,
        output: &Path,
        movers: usize,
    ) -> Result<Diff, String> {
        let in_file = |problem: String| format!("{}: {problem}", output.display());
        let keys = plan.view.key_columns();
        let scores: Vec<String> = self
            .models
            .iter()
            .map(|model| score_column(&plan.models[model.index].name))
            .collect();
        let seed = seed_of(&self.xxh3);
        let mut buckets = Buckets::create(folder.path(), "now", self.sizes.len(), seed)?;
        let table = ScoreTable::open(output).map_err(in_file)?;
        for batch in table.rows(keys, &scores).map_err(in_file)? {
            buckets.add_batch(&batch.map_err(in_file)?)?;
        }
        let sizes = buckets.finish()?;
        let bands: Vec<Bands> = self
            .models
            .iter()
            .map(|model| model.bands.clone())
            .collect();
        let joined = join::join(folder.path(), &self.sizes, &sizes, &bands, seed, movers)?;
        let models = self.models.iter().zip(joined.models);
        let models = models.map(|(model, joined)| {
            let version = &plan.models[model.index];
            let mover = |moved: join::Moved| Mover {
                key: named(keys, &moved.key),
                then: moved.then,
                now: moved.now,
                change: moved.now - moved.then,
            };
            ModelDiff {
                model: version.name.clone(),
                version: version.version.clone(),
                last_version: model.version.clone(),
                bands: model.bands.labels(),
                rose: joined.rose(),
                fell: joined.fell(),
                stayed: joined.stayed(),
                migration: joined.migration,
                new: joined.new,
                gone: joined.gone,
                mean_change: (joined.compared > 0)
                    .then(|| joined.sum_of_changes / joined.compared as f64),
                up: joined.up.into_iter().map(mover).collect(),
                down: joined.down.into_iter().map(mover).collect(),
            }
        });
        let models: Vec<ModelDiff> = models.collect();
        let is_compared = |name: &str| models.iter().any(|model| model.model == name);
        let others = plan.models.iter().map(|version| version.name.clone());
        let not_compared = others.filter(|name| !is_compared(name)).collect();
        Ok(Diff {
            last: self.path.clone(),
            last_bytes: self.bytes,
            last_xxh3: self.xxh3.clone(),
            both: joined.both,
            new: joined.new,
            gone: joined.gone,
            duplicates: joined.duplicates,
            last_duplicates: joined.last_duplicates,
            models,
            not_compared,
        })
    }
}

/// The parts of a key with the names of their columns.
fn named(columns: &[String], key: &str) -> Map<String, Json> {
    let parts = key.split(KEY_SEPARATOR).map(Json::from);
    columns.iter().cloned().zip(parts).collect()
}
