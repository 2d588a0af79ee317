//! Whether the inputs stay what they are while they are read.
//!
//! A file that is written while it is scored gives scores of neither what it was nor what it becomes. Its
//! length, its time of change and, where the system has that, its number are taken before its digest, and
//! looked at again before a part counts and before the output gets its name. What changes and is put back
//! with its time is not noticed here; the digest is there for what is changed on purpose.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock;

/// What a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Another file of the same name has another one; 0 where the system does not tell.
    number: u64,
}

/// The files, as they were when the job began.
#[derive(Debug)]
pub struct Watch {
    files: Vec<(PathBuf, Stamp)>,
}

impl Watch {
    /// Looks at the files, before they are read.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub fn begin(files: &[PathBuf]) -> Result<Watch, String> {
        let mut seen = Vec::with_capacity(files.len());
        for path in files {
            let stamp = Stamp::of(path).map_err(|error| format!("{}: {error}", path.display()))?;
            seen.push((path.clone(), stamp));
        }
        Ok(Watch { files: seen })
    }

    /// Looks again at all files.
    ///
    /// # Errors
    /// The file that is another one now.
    pub fn check(&self) -> Result<(), String> {
        self.check_from(0, self.files.len())
    }

    /// Looks again at the files from number `first` to number `last`.
    ///
    /// # Errors
    /// The file that is another one now.
    pub fn check_from(&self, first: usize, last: usize) -> Result<(), String> {
        let files = self.files.iter().take(last.saturating_add(1)).skip(first);
        for (path, then) in files {
            let now = match Stamp::of(path) {
                Ok(now) if now == *then => continue,
                Ok(now) => now.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(format!(
                "{}: it changed while it was read: {then} when the job began, now {now}; nothing was \
                 published. Run it again when nobody writes the file",
                path.display()
            ));
        }
        Ok(())
    }
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Stamp> {
        let metadata = std::fs::metadata(path)?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let number = 0;
        Ok(Stamp {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            number,
        })
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        let since_epoch = self
            .modified
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        if let Some(since_epoch) = since_epoch {
            let time_us = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
            write!(f, " of {}", clock::to_rfc3339(time_us))?;
        }
        match self.number {
            0 => Ok(()),
            number => write!(f, " (file {number})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grows_is_replaced_or_goes_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| dir.path().join(name));
        let begin = || {
            for file in &files {
                std::fs::write(file, "rows").unwrap();
            }
            Watch::begin(&files).unwrap()
        };
        let watch = begin();
        assert_eq!(watch.check(), Ok(()));
        std::fs::write(&files[1], "more rows").unwrap();
        let problem = watch.check().unwrap_err();
        assert!(
            problem.starts_with(&files[1].display().to_string()),
            "{problem}"
        );
        assert!(
            problem.contains("4 bytes") && problem.contains("9 bytes"),
            "{problem}"
        );
        assert_eq!(watch.check_from(0, 0), Ok(()), "the other one is as it was");
        assert!(watch.check_from(1, 1).is_err());

        let watch = begin();
        // One of the same length in its place; while both are there, they are different files.
        let other = dir.path().join("other");
        std::fs::write(&other, "swor").unwrap();
        std::fs::rename(&other, &files[0]).unwrap();
        assert!(watch.check_from(0, 0).is_err());

        let watch = begin();
        std::fs::remove_file(&files[0]).unwrap();
        assert!(watch.check().is_err());
        assert!(Watch::begin(&files).is_err());
    }
}
