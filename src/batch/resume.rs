//! How far a file was loaded, so that loading it again goes on there.
//!
//! One small file for each loaded file in `<data-dir>/loads/`. A position is kept only after the rows
//! before it are in the log, so it is never ahead; after a crash it may be behind, and the rows between
//! are recognised by their event ids. A file that has changed since (size or time), or that is loaded
//! with other options, begins at its first row.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// How often the position is written while a file is loaded.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is known of a file that is being loaded, or was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The file, as an absolute path.
    file: PathBuf,
    bytes: u64,
    modified_us: u64,
    /// How it was read.
    options: String,
    /// Rows or lines that are loaded.
    pub rows: u64,
    /// Whether that is all.
    pub is_done: bool,
}

/// Remembers the position in one file.
#[derive(Debug)]
pub struct Resume {
    path: PathBuf,
    progress: Progress,
    written: Instant,
}

impl Resume {
    /// Finds out how far `file`, read with `options`, was loaded into the data directory.
    ///
    /// # Errors
    /// When the file or the data directory cannot be read.
    pub fn new(data_dir: &Path, file: &Path, options: &str) -> Result<Resume, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        let absolute = file.canonicalize().map_err(failed)?;
        let metadata = absolute.metadata().map_err(failed)?;
        let modified = metadata.modified().map_err(failed)?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!(
            "{:032x}.json",
            xxh3_128(absolute.as_os_str().as_encoded_bytes())
        );
        let path = data_dir.join("loads").join(name);
        let fresh = Progress {
            file: absolute,
            bytes: metadata.len(),
            modified_us: u64::try_from(modified.as_micros()).unwrap_or(u64::MAX),
            options: options.to_owned(),
            rows: 0,
            is_done: false,
        };
        let found = match std::fs::read(&path) {
            // What cannot be understood is as good as nothing: ids make a second load safe.
            Ok(bytes) => serde_json::from_slice::<Progress>(&bytes).ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let is_same = |found: &Progress| {
            let fresh = &fresh;
            (&found.file, found.bytes, found.modified_us, &found.options)
                == (&fresh.file, fresh.bytes, fresh.modified_us, &fresh.options)
        };
        Ok(Resume {
            path,
            progress: found.filter(is_same).unwrap_or(fresh),
            written: Instant::now(),
        })
    }

    /// How far it was loaded.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Begins at the first row.
    pub fn start_over(&mut self) {
        self.progress.rows = 0;
        self.progress.is_done = false;
    }

    /// Notes that `rows` rows are in the log, and from time to time writes it down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn advance(&mut self, rows: u64) -> Result<(), String> {
        self.progress.rows = rows;
        if self.written.elapsed() < INTERVAL {
            return Ok(());
        }
        self.write()
    }

    /// Notes that the whole file is in the log.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&mut self) -> Result<(), String> {
        self.progress.is_done = true;
        self.write()
    }

    /// Writes the position down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self) -> Result<(), String> {
        self.written = Instant::now();
        let written = self.try_write();
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn try_write(&self) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let unfinished = self.path.with_extension("new");
        let mut file = File::create(&unfinished)?;
        serde_json::to_writer(&mut file, &self.progress)?;
        file.flush()?;
        std::fs::rename(unfinished, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_again_unless_the_file_or_the_options_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("events.ndjson");
        std::fs::write(&file, "{}\n{}\n").unwrap();
        let open = |options| Resume::new(dir.path(), &file, options).unwrap();
        let mut first = open("a");
        assert_eq!(
            (first.progress().rows, first.progress().is_done),
            (0, false)
        );
        first.progress.rows = 1;
        first.write().unwrap();
        assert_eq!(open("a").progress().rows, 1);
        assert_eq!(open("b").progress().rows, 0);
        let mut again = open("a");
        again.finish().unwrap();
        assert!(open("a").progress().is_done);
        std::fs::write(&file, "{}\n{}\n{}\n").unwrap();
        assert_eq!(
            (open("a").progress().rows, open("a").progress().is_done),
            (0, false)
        );
    }

    #[test]
    fn what_is_no_position_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("events.ndjson");
        std::fs::write(&file, "{}\n").unwrap();
        let mut resume = Resume::new(dir.path(), &file, "").unwrap();
        resume.finish().unwrap();
        std::fs::write(&resume.path, "{\"rows\": 5").unwrap();
        let resume = Resume::new(dir.path(), &file, "").unwrap();
        assert_eq!(resume.progress().rows, 0);
    }
}
