//! The files of a version that is not there yet.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use crate::models::version::FILE_NAMES;

/// How the names of folders begin that hold what is being received.
pub const PREFIX: &str = ".incoming-";

/// A hidden folder that files are written into. It is removed when it is dropped without having been
/// published.
#[derive(Debug)]
pub struct Incoming {
    folder: PathBuf,
    pub(super) name: String,
    /// It has become a version, and there is nothing to remove.
    published: bool,
}

impl Incoming {
    /// Makes the folder inside `model_folder`, which is made too when it is not there.
    pub(super) fn create(model_folder: &Path, name: &str) -> Result<Incoming> {
        let folder = model_folder.join(format!("{PREFIX}{}", crate::clock::new_id()));
        // Again: whoever gave up beside this may have removed the model's folder, empty as it was.
        std::fs::create_dir_all(&folder).or_else(|_| std::fs::create_dir_all(&folder))?;
        Ok(Incoming {
            folder,
            name: name.to_owned(),
            published: false,
        })
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new file of one of the names that a version has.
    ///
    /// # Errors
    /// When it has another name or is there already, or nothing can be written.
    pub fn create_file(&self, name: &str) -> Result<File> {
        if !FILE_NAMES.contains(&name) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "not a file of a version",
            ));
        }
        let path = self.folder.join(name);
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Has everything on disk, under the hidden name.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sync(&self) -> Result<()> {
        for name in FILE_NAMES {
            match File::open(self.folder.join(name)) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Makes the folder the one at `target`, in one step.
    pub(super) fn rename_to(&mut self, target: &Path) -> Result<()> {
        std::fs::rename(&self.folder, target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            let folder = self.folder.display().to_string();
            tracing::warn!(folder, error = %error, "what was received is not removed");
        }
        // The folder of a model that has come to nothing; it stays when there is anything in it.
        if let Some(model_folder) = self.folder.parent() {
            let _ = std::fs::remove_dir(model_folder);
        }
    }
}
