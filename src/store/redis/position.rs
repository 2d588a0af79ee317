//! What a server remembers of the shared store in its own data directory: who it is, and how far its
//! log went in.
//!
//! `replica` holds the server's number, by which its writes are known in Redis. It also holds the
//! number of its own inode, so that a copy of the directory (a second server made from the first, a
//! restored backup) is another server. `<store>.json` holds the watermark; a server that is pointed
//! to another Redis begins with an empty one there, and so sends what its log has.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::store::{StoreError, Watermark};

/// The files.
pub struct Position {
    /// This server's number.
    pub replica: u64,
    dir: PathBuf,
    watermark_file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Replica {
    number: u64,
    inode: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    /// For people: which store this is about.
    store: String,
    sequence: u64,
    segment: u64,
}

impl Position {
    /// Opens or makes the files in `dir` about the store called `scope`.
    ///
    /// # Errors
    /// The file that cannot be read or written, and why.
    pub fn open(dir: &Path, scope: &str) -> Result<(Position, Watermark), StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
        let replica = read_or_make_replica(dir)?;
        let watermark_file = dir.join(format!("{:016x}.json", xxh3_64(scope.as_bytes())));
        let watermark = match read::<Saved>(&watermark_file)? {
            Some(saved) => Watermark {
                sequence: saved.sequence,
                segment: saved.segment,
            },
            None => Watermark::default(),
        };
        let position = Position {
            replica,
            dir: dir.to_owned(),
            watermark_file,
        };
        if watermark == Watermark::default() {
            // Written now, so that a directory that cannot be written is found at the start.
            position.write(scope, watermark)?;
        }
        Ok((position, watermark))
    }

    /// Writes the watermark and waits until it is on disk.
    ///
    /// # Errors
    /// When it could not be written; the one from before is as it was.
    pub fn save(&self, watermark: Watermark) -> Result<(), StoreError> {
        let saved = read::<Saved>(&self.watermark_file)?;
        let store = saved.map(|saved| saved.store).unwrap_or_default();
        self.write(&store, watermark)
    }

    fn write(&self, store: &str, watermark: Watermark) -> Result<(), StoreError> {
        let saved = Saved {
            store: store.to_owned(),
            sequence: watermark.sequence,
            segment: watermark.segment,
        };
        replace(&self.dir, &self.watermark_file, |_| Ok(saved))
    }
}

/// A copy has an inode of its own, and so is not taken for the original.
fn read_or_make_replica(dir: &Path) -> Result<u64, StoreError> {
    let file = dir.join("replica");
    if let Some(replica) = read::<Replica>(&file)? {
        let inode = std::fs::metadata(&file)
            .map_err(|error| failed(&file, &error))?
            .ino();
        if inode == replica.inode {
            return Ok(replica.number);
        }
        tracing::info!(
            "the data directory is a copy; this server is a new one to the shared store"
        );
    }
    let number = crate::clock::new_id().as_u64_pair().1;
    replace(dir, &file, |opened| {
        let inode = opened.metadata()?.ino();
        Ok(Replica { number, inode })
    })?;
    Ok(number)
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<Option<T>, StoreError> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(file, &error)),
    };
    let value = serde_json::from_slice(&text).map_err(|error| {
        StoreError::Io(format!(
            "{}: damaged ({error}); restore it, or remove it: without `replica` the server is a new one \
             to the shared store, without the other it sends all of its log again",
            file.display()
        ))
    })?;
    Ok(Some(value))
}

/// Replaces a file as a whole or not at all; `content` may look at the new one.
fn replace<T: Serialize>(
    dir: &Path,
    file: &Path,
    content: impl FnOnce(&File) -> std::io::Result<T>,
) -> Result<(), StoreError> {
    let write = || {
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        let mut text = serde_json::to_vec(&content(new.as_file())?)?;
        text.push(b'\n');
        new.write_all(&text)?;
        new.as_file().sync_all()?;
        new.persist(file).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error: std::io::Error| failed(file, &error))
}

fn failed(file: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_watermark_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let (first, empty) = Position::open(dir.path(), "redis://a:6379/0 bw:").unwrap();
        assert_eq!(empty, Watermark::default());
        let watermark = Watermark {
            sequence: 12,
            segment: 3,
        };
        first.save(watermark).unwrap();
        let (second, found) = Position::open(dir.path(), "redis://a:6379/0 bw:").unwrap();
        assert_eq!(found, watermark);
        assert_eq!(second.replica, first.replica);
        // Another Redis has seen nothing of the log yet.
        let (third, found) = Position::open(dir.path(), "redis://b:6379/0 bw:").unwrap();
        assert_eq!(found, Watermark::default());
        assert_eq!(third.replica, first.replica);
    }

    #[test]
    fn a_copied_directory_is_another_server() {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let (original, _) = Position::open(dir.path(), "a").unwrap();
        std::fs::copy(dir.path().join("replica"), copy.path().join("replica")).unwrap();
        let (copied, _) = Position::open(copy.path(), "a").unwrap();
        assert_ne!(copied.replica, original.replica);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("replica"), "x").unwrap();
        let problem = Position::open(dir.path(), "a").err().unwrap().to_string();
        assert!(problem.contains("replica: damaged"), "{problem}");
    }
}
