//! The few file operations that the writer depends on, in one place so that tests can make them
//! fail.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Failures to inject; each counter is how many of the next operations fail.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct Faults {
    /// Writes that fail after half of the bytes.
    pub writes: std::sync::atomic::AtomicU32,
    /// Syncs that fail.
    pub syncs: std::sync::atomic::AtomicU32,
}

#[cfg(test)]
impl Faults {
    fn take(counter: &std::sync::atomic::AtomicU32) -> bool {
        use std::sync::atomic::Ordering;
        counter
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

/// A segment file that is written by one thread and synced by another.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    #[cfg(test)]
    faults: std::sync::Arc<Faults>,
}

impl DiskFile {
    /// Takes a file that is open for writing.
    pub fn new(file: File, options: &super::LedgerOptions) -> DiskFile {
        #[cfg(not(test))]
        let _ = options;
        DiskFile {
            file,
            #[cfg(test)]
            faults: options.faults.clone(),
        }
    }

    /// Writes all bytes at `offset`. After an error any part of them may be there; writing them
    /// again at the same offset repairs that, so the file needs no truncation.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        #[cfg(test)]
        if Faults::take(&self.faults.writes) {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        file.write_all(bytes)
    }

    /// Makes everything written so far durable (`fdatasync`).
    pub fn sync(&self) -> std::io::Result<()> {
        #[cfg(test)]
        if Faults::take(&self.faults.syncs) {
            return Err(std::io::Error::other("injected sync failure"));
        }
        self.file.sync_data()
    }
}

/// Makes creations and renames in `directory` durable. Where a directory cannot be opened as a file
/// (Windows) the file system keeps them durable by itself.
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}
