//! The files in the folder of recent events: their names, which of them are still needed, and reading
//! them in pieces.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::run::Run;
use super::run::RunWriter;
use super::tail;
use crate::store::StoreError;

/// Opens the files in `dir` with the events that were applied before the change `sequence`, and makes one
/// of what the tails have. Returns them by their first change, and the number of the next file.
pub fn open_all(dir: &Path, sequence: u64) -> Result<(Vec<Run>, u64), StoreError> {
    let failed = |error| failed(dir, &error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let files = Files::list(dir).map_err(failed)?;
    let mut next_file = files.last_number + 1;
    let mut runs = Vec::new();
    for path in &files.runs {
        let run = open_run(path)?;
        if run.extent.first_sequence < sequence {
            runs.push(run);
        } else {
            // The replay brings all of it again. Kept, it could be merged with earlier files, and the
            // file of what lies between, which is replayed, too, would look contained in that.
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    let records = tail::read_all(&files.tails, sequence).map_err(failed)?;
    if let (Some(first), Some(last)) = (
        records.iter().map(|record| record.sequence).min(),
        records.iter().map(|record| record.sequence).max(),
    ) {
        let path = run_path(dir, first, last, next_file);
        next_file += 1;
        let mut writer = RunWriter::create(path, first, last).map_err(failed)?;
        for record in records {
            writer.add(record).map_err(failed)?;
        }
        runs.push(writer.finish().map_err(failed)?);
    }
    for tail in &files.tails {
        std::fs::remove_file(tail).map_err(failed)?;
    }
    runs.sort_by_key(|run| run.extent.first_sequence);
    Ok((remove_contained(runs).map_err(failed)?, next_file))
}

/// The error that says which folder it is about.
pub fn failed(dir: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io(format!("the recent events in {}: {error}", dir.display()))
}

/// The files of a folder.
struct Files {
    runs: BTreeSet<PathBuf>,
    tails: BTreeSet<PathBuf>,
    last_number: u64,
}

impl Files {
    /// Lists them, and removes what was not completed.
    fn list(dir: &Path) -> std::io::Result<Files> {
        let mut files = Files {
            runs: BTreeSet::new(),
            tails: BTreeSet::new(),
            last_number: 0,
        };
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str());
            let number = number.and_then(|stem| stem.rsplit('-').next()?.parse().ok());
            files.last_number = files.last_number.max(number.unwrap_or(0));
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("run") => drop(files.runs.insert(path)),
                Some("tail") => drop(files.tails.insert(path)),
                Some("partial") => std::fs::remove_file(path)?,
                _ => {}
            }
        }
        Ok(files)
    }
}

pub fn run_path(dir: &Path, first_sequence: u64, last_sequence: u64, number: u64) -> PathBuf {
    dir.join(format!(
        "{first_sequence:020}-{last_sequence:020}-{number:08}.run"
    ))
}

pub fn tail_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.tail"))
}

fn open_run(path: &Path) -> Result<Run, StoreError> {
    Run::open(path).map_err(|error| {
        StoreError::Io(format!(
            "{}: {error}; without this file the server starts, but events of its time that are sent \
             again are counted twice",
            path.display()
        ))
    })
}

/// Removes files whose events are all in another: they were merged, or sealed again after a replay.
fn remove_contained(runs: Vec<Run>) -> std::io::Result<Vec<Run>> {
    let mut kept: Vec<Run> = Vec::new();
    for run in runs {
        if kept.iter().any(|other| other.extent.contains(&run.extent)) {
            std::fs::remove_file(&run.path)?;
            continue;
        }
        for other in kept.extract_if(.., |other| run.extent.contains(&other.extent)) {
            std::fs::remove_file(&other.path)?;
        }
        kept.push(run);
    }
    Ok(kept)
}

/// Makes creations and renames in `directory` durable, where a directory can be opened as a file.
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Fills `buffer` from `offset` on.
#[cfg(unix)]
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset` on.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}
