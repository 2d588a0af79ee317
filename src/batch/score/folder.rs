//! The folder of a job that is not finished, `<output>.job/`, from which it can be gone on with.
//!
//! * `job.json` – what the job is: inputs, models and view by their digests, options.
//! * `part-000000.<ext>` – rows of the output; `part-000000.rejects.ndjson` – rows that were not scored.
//! * `part-000000.json` – what the part holds and where the next one begins. It is written last: a part
//!   without it does not count.
//! * `last.json`, `last-000.bucket`, `now-000.bucket` – with `--diff`: rows of the last run and of this one
//!   by their keys.
//! * `store-places.ndjson` – of a job that reads the online store, the last key before each checkpoint.
//! * `LOCK` – held by the process that works on the job.
//!
//! Each file is written under another name, synced, and renamed. Parts are completed in order, so that
//! those that count are all rows up to a checkpoint.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::source::Position;
use super::statistics::Statistics;

/// A part that is complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Rows that were read.
    pub rows: u64,
    /// Rows of the output.
    pub scored: u64,
    pub rejected: u64,
    /// Where the next part begins.
    pub end: Position,
    pub statistics: Statistics,
}

/// The folder, locked.
#[derive(Debug)]
pub struct JobFolder {
    path: PathBuf,
    extension: String,
    _lock: File,
}

/// The folder of the job that writes `output`.
pub fn path_for(output: &Path) -> PathBuf {
    with_suffix(output, ".job")
}

/// `output` with something behind its name.
pub fn with_suffix(output: &Path, suffix: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl JobFolder {
    /// Takes the folder of `output`, which is made when it is not there.
    ///
    /// # Errors
    /// When another process works on it, or it cannot be made.
    pub fn open(output: &Path) -> Result<JobFolder, String> {
        let path = path_for(output);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        std::fs::create_dir_all(&path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("LOCK"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let output = output.display();
                return Err(format!("--output {output}: another process is writing it"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let extension = output.extension().unwrap_or_default();
        Ok(JobFolder {
            extension: extension.to_string_lossy().into_owned(),
            path,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The job that the folder is of; `None` when it is empty.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn definition(&self) -> Result<Option<Definition>, String> {
        self.read("job.json")
    }

    /// Empties the folder and begins a job.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, definition: &Definition) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        self.forget()?;
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != "LOCK" {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        self.write("job.json", definition)
    }

    /// The parts that are complete, from the first on.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn parts(&self) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        while let Some(part) = self.read(&format!("part-{:06}.json", parts.len()))? {
            let part: Part = part;
            let has_rejects = part.rejected == 0 || self.rejects_file(parts.len()).exists();
            if !self.part_file(parts.len()).exists() || !has_rejects {
                break;
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// The file of a part.
    pub fn part_file(&self, index: usize) -> PathBuf {
        self.path
            .join(format!("part-{index:06}.{}", self.extension))
    }

    /// The rejects of a part; there may be none.
    pub fn rejects_file(&self, index: usize) -> PathBuf {
        self.path.join(format!("part-{index:06}.rejects.ndjson"))
    }

    /// The last key before each checkpoint, where the input is the online store.
    pub fn store_places(&self) -> PathBuf {
        self.path.join("store-places.ndjson")
    }

    /// Where a file is written before it gets its name.
    pub fn unfinished(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.new"))
    }

    /// Gives a part that was written to `file`, and its rejects, their names, and makes it count.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn publish(
        &self,
        index: usize,
        file: &Path,
        rejects: Option<&Path>,
        part: &Part,
    ) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        std::fs::rename(file, self.part_file(index)).map_err(failed)?;
        if let Some(rejects) = rejects {
            std::fs::rename(rejects, self.rejects_file(index)).map_err(failed)?;
        }
        self.write(&format!("part-{index:06}.json"), part)
    }

    /// Removes the folder with everything in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<(), String> {
        self.forget()?;
        let removed = std::fs::remove_dir_all(&self.path);
        removed.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Makes it the folder of no job, before its parts are removed one after the other.
    fn forget(&self) -> Result<(), String> {
        let file = self.path.join("job.json");
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// Reads a file of the folder; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                format!(
                    "{}: {error}; run without --resume to begin again",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Writes a file of the folder; it is there when it is complete.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<(), String> {
        write_json(&self.unfinished(name), &self.path.join(name), value)
    }
}

/// Writes JSON to `unfinished`, syncs it and renames it to `file`.
///
/// # Errors
/// When the disk does not take it.
pub fn write_json(unfinished: &Path, file: &Path, value: &impl Serialize) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut target = File::create(unfinished)?;
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        target.write_all(&text)?;
        target.sync_all()?;
        publish(unfinished, file)
    };
    write().map_err(|error| format!("{}: {error}", file.display()))
}

/// Renames a file that is on disk, and makes the name last, too.
///
/// # Errors
/// When the disk does not take it.
pub fn publish(unfinished: &Path, file: &Path) -> std::io::Result<()> {
    std::fs::rename(unfinished, file)?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Windows has no handle for a folder, and renames last there.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_when_its_record_is_there_and_one_process_has_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("scores.csv");
        let folder = JobFolder::open(&output).unwrap();
        assert!(
            JobFolder::open(&output)
                .unwrap_err()
                .contains("another process")
        );
        assert_eq!(folder.definition().unwrap(), None);
        let definition = Definition {
            view: "customer".into(),
            ..Definition::default()
        };
        folder.begin(&definition).unwrap();
        assert_eq!(folder.definition().unwrap(), Some(definition.clone()));
        let part = Part {
            rows: 3,
            scored: 2,
            rejected: 1,
            end: Position::default(),
            statistics: Statistics::default(),
        };
        let written = folder.unfinished("part");
        std::fs::write(&written, "x").unwrap();
        folder.publish(0, &written, None, &part).unwrap();
        std::fs::write(folder.part_file(1), "x").unwrap();
        assert!(folder.parts().unwrap().is_empty());
        std::fs::write(folder.rejects_file(0), "{}").unwrap();
        assert_eq!(folder.parts().unwrap(), [part]);
        folder.begin(&definition).unwrap();
        assert!(folder.parts().unwrap().is_empty());
        folder.remove().unwrap();
        assert!(!path_for(&output).exists());
    }
}
