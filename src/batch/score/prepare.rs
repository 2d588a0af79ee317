//! Everything a job needs, found before it begins: what cannot be done is said before a row is scored.
//!
//! It reads the inputs once, for their digests, and writes nothing.

use std::path::{Path, PathBuf};

use super::inputs::InputFile;
use super::plan::{CHUNK_ROWS, Plan, scoring_of};
use super::source::look_at;
use super::to_store::ToStore;
use super::watch::Watch;
use super::write::OutputFormat;
use super::{Job, News, arrow_size, diff, html, inputs};
use crate::clock;
use crate::models::repository::Repository;

/// What a job takes that does not depend on its chunks: the program, its models, a row group that is
/// being written.
const FIXED_BYTES: u64 = 192 * 1024 * 1024;
/// What a row takes while it is scored: for each column and each input of a model, and what lies between
/// the operators of a model.
const BYTES_PER_COLUMN: u64 = 64;
const BYTES_PER_MODEL: u64 = 8 * 1024;
const FEWEST_CHUNK_ROWS: usize = 64;

/// What was found.
pub struct Prepared<'j> {
    pub plan: Plan,
    pub format: OutputFormat,
    /// The input files; the store stands for one.
    pub files: Vec<InputFile>,
    pub watch: Watch,
    /// Of all files, where all of them say how many they have.
    pub rows: Option<u64>,
    /// Columns of the first file that nothing is read of.
    pub unread: Vec<String>,
    /// What the scores are compared with.
    pub diff: Option<&'j Path>,
    /// Where they are written back.
    pub to_store: Option<ToStore>,
}

impl<'j> Prepared<'j> {
    /// Finds models, inputs, and what else was asked for.
    ///
    /// # Errors
    /// What is not there, does not fit, or would write over something, by the option that names it.
    pub fn of(
        repository: &Repository,
        job: &'j Job,
        tell: &(dyn Fn(News<'_>) + Sync),
    ) -> Result<Prepared<'j>, String> {
        let format = OutputFormat::of(&job.output)?;
        let mut plan = Plan::new(repository, &job.asked, clock::now_us())?;
        let to_store = ToStore::of(job, &plan)?;
        let (files, watch) = inputs_of(job, &plan)?;
        if let Some(store) = &job.store {
            store.check_view(&plan.view)?;
        }
        refuse_to_read_the_output(job, &files)?;
        if let Some(page) = &job.html {
            html::check_path(page, job, &files)?;
        }
        let kept_bytes = arrow_size::kept_bytes(&files, job.memory)?;
        plan.chunk_rows = chunk_rows(&plan, job.threads, job.memory, kept_bytes)?;
        let diff = diff::wanted(job, &plan, tell)?;
        let (rows, unread) = match job.from_store {
            true => (None, Vec::new()),
            false => look_at_all(&files, &plan)?,
        };
        Ok(Prepared {
            plan,
            format,
            files,
            watch,
            rows,
            unread,
            diff,
            to_store,
        })
    }
}

/// The inputs with their digests. They are watched from before those are taken: what changes behind them
/// is noticed.
fn inputs_of(job: &Job, plan: &Plan) -> Result<(Vec<InputFile>, Watch), String> {
    if let Some(store) = job.source_store() {
        return Ok((vec![store.as_input(&plan.view)], Watch::begin(&[])?));
    }
    let paths = inputs::find(&job.inputs)?;
    let watch = Watch::begin(&paths)?;
    Ok((inputs::describe(paths)?, watch))
}

/// Whether every file has the columns that are read; their rows, and what is not read of the first.
fn look_at_all(files: &[InputFile], plan: &Plan) -> Result<(Option<u64>, Vec<String>), String> {
    let mut all_rows = Some(0);
    let mut unread = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let (binding, rows) = look_at(&file.path, plan)?;
        all_rows = all_rows.zip(rows).map(|(all, rows)| all + rows);
        if index == 0 {
            unread.clone_from(&binding.unread);
        }
    }
    Ok((all_rows, unread))
}

/// Rows in a chunk, so that those of all threads fit into the memory beside what else is kept in it.
///
/// # Errors
/// When the memory is too small for any.
pub fn chunk_rows(
    plan: &Plan,
    threads: usize,
    memory: u64,
    kept_bytes: u64,
) -> Result<usize, String> {
    let fixed = FIXED_BYTES.saturating_add(kept_bytes);
    let columns = plan.needed.iter().filter(|needed| **needed).count() as u64;
    let mut row_bytes = 4 * BYTES_PER_COLUMN * columns;
    for version in &plan.models {
        let inputs = scoring_of(version)?.input_features.len() as u64;
        row_bytes += BYTES_PER_MODEL + BYTES_PER_COLUMN * inputs;
    }
    let threads = threads as u64;
    let rows = memory.saturating_sub(fixed) / (threads * row_bytes);
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    if rows < FEWEST_CHUNK_ROWS {
        let least = fixed + threads * row_bytes * FEWEST_CHUNK_ROWS as u64;
        return Err(format!(
            "--memory: {memory} bytes are too few for {threads} threads; {least} are needed"
        ));
    }
    Ok(rows.min(CHUNK_ROWS))
}

/// An output among the inputs would be scored itself the next time.
fn refuse_to_read_the_output(job: &Job, files: &[InputFile]) -> Result<(), String> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = parent(&job.output).canonicalize();
    let folder = folder
        .map_err(|error| format!("--output {}: its folder: {error}", job.output.display()))?;
    let name = job.output.file_name().unwrap_or_default();
    let is_output = |file: &InputFile| file.path.canonicalize().ok() == Some(folder.join(name));
    let is_inside = |input: &PathBuf| {
        let input = input.canonicalize().ok().filter(|input| input.is_dir());
        input.is_some_and(|input| folder.starts_with(input))
    };
    if files.iter().any(is_output) || job.inputs.iter().any(is_inside) {
        return Err(format!(
            "--output {}: it is among the inputs; write it to another folder",
            job.output.display()
        ));
    }
    let Some(rejects) = &job.rejects else {
        return Ok(());
    };
    let rejects_folder = parent(rejects).canonicalize();
    let rejects_folder = rejects_folder
        .map_err(|error| format!("--rejects {}: its folder: {error}", rejects.display()))?;
    let rejects_file = rejects_folder.join(rejects.file_name().unwrap_or_default());
    let written = folder.join(name);
    let manifest = folder.join(format!("{}.manifest.json", name.to_string_lossy()));
    let is_rejects =
        |file: &InputFile| file.path.canonicalize().ok().as_ref() == Some(&rejects_file);
    if rejects_file == written || rejects_file == manifest || files.iter().any(is_rejects) {
        return Err(format!(
            "--rejects {}: it is an input or the output; write them to a file of their own",
            rejects.display()
        ));
    }
    Ok(())
}
