//! From the parts of a job to what it leaves behind: the output, and the rows that were rejected.
//!
//! Each file gets its name when it is complete and on disk.

use std::path::{Path, PathBuf};

use super::folder::{JobFolder, Part, publish, with_suffix};
use super::plan::Plan;
use super::sink::Sink;
use super::write::{OutputFormat, assemble, join_bytes};
use super::{Job, inputs};

/// Where a file is or would be, whatever the way it is named.
///
/// # Errors
/// When its folder is not there.
pub fn place_of(path: &Path) -> std::io::Result<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(folder
        .canonicalize()?
        .join(path.file_name().unwrap_or_default()))
}

/// Where the rows go that are not scored.
pub fn rejects_path(job: &Job) -> PathBuf {
    let beside = || with_suffix(&job.output, ".rejects.ndjson");
    job.rejects.clone().unwrap_or_else(beside)
}

/// Says why the job stops; the rows that were rejected so far are put where they would go.
pub fn too_many_rejects(job: &Job, folder: &JobFolder, sink: &Sink<'_>) -> String {
    let mut files = rejects_of(folder, &sink.parts);
    let current = folder.unfinished("rejects");
    if current.exists() {
        files.push(current);
    }
    let target = rejects_path(job);
    let joined = join_bytes(&files, &target);
    let place = match joined {
        Ok(()) => format!("; all of them are in {}", target.display()),
        Err(problem) => format!(
            "; they could not be written to {}: {problem}",
            target.display()
        ),
    };
    let example = match &sink.first_reject {
        Some(reject) => format!(
            "; for example {} row {}: {}",
            reject.file, reject.row, reject.reason
        ),
        None => String::new(),
    };
    let (rejected, rows) = (sink.rejected, sink.rows);
    let limit = match rejected == rows {
        true => "and nothing is left to score".to_owned(),
        false => format!("more than {} (--max-rejects)", job.limit),
    };
    format!(
        "{rejected} of {rows} rows were rejected, {limit}{example}{place}. No output was written"
    )
}

fn rejects_of(folder: &JobFolder, parts: &[Part]) -> Vec<PathBuf> {
    let with_rejects = parts
        .iter()
        .enumerate()
        .filter(|(_, part)| part.rejected > 0);
    with_rejects
        .map(|(index, _)| folder.rejects_file(index))
        .collect()
}

/// Puts the rejects of all parts where they go; without any, those of an earlier job are taken away.
pub fn publish_rejects(
    job: &Job,
    folder: &JobFolder,
    parts: &[Part],
) -> Result<Option<PathBuf>, String> {
    let target = rejects_path(job);
    let failed = |problem: String| format!("{}: {problem}", target.display());
    let files = rejects_of(folder, parts);
    if files.is_empty() {
        return match std::fs::remove_file(&target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(error.to_string()))
            }
            _ => Ok(None),
        };
    }
    let unfinished = with_suffix(&target, ".new");
    join_bytes(&files, &unfinished).map_err(failed)?;
    publish(&unfinished, &target).map_err(|error| failed(error.to_string()))?;
    Ok(Some(target))
}

/// Makes the output of the parts; it gets its name when it is complete. Gives its length and digest.
pub fn publish_output(
    job: &Job,
    folder: &JobFolder,
    plan: &Plan,
    format: OutputFormat,
    parts: &[Part],
) -> Result<(u64, String), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", job.output.display());
    let files: Vec<PathBuf> = (0..parts.len())
        .map(|index| folder.part_file(index))
        .collect();
    let unfinished = folder.unfinished("output");
    assemble(&files, &unfinished, format, &plan.schema)?;
    let digest = inputs::digest(&unfinished).map_err(failed)?;
    publish(&unfinished, &job.output).map_err(failed)?;
    Ok(digest)
}
