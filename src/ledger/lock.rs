//! The lock of a ledger directory: one process at a time, released by the operating system even on
//! `kill -9`.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::error::LedgerError;

/// Held as long as the ledger is open; dropping it releases the lock.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Takes the lock of `ledger_dir`, which must exist, or says that another process has it.
pub fn lock_directory(ledger_dir: &Path) -> Result<DirectoryLock, LedgerError> {
    let path = ledger_dir.join("LOCK");
    // Opened for reading where it exists, so that a copy on read-only media can be verified.
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(LedgerError::io(&path, "creating the lock file"))?,
        Err(error) => return Err(LedgerError::io(&path, "opening the lock file")(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path }),
        Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, "locking")(error)),
    }
}
