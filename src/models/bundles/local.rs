//! Bundles in a directory: `<dir>/<name>/<version>/`.
//!
//! A new version is written into a hidden folder beside the others, synced, and renamed: the rename is
//! the moment at which it is there.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use super::folders::{is_folder_name, strays_in, subfolders, versions_of};
use super::incoming::PREFIX;
use super::{BundleId, Bundles, Fingerprint, Incoming};
use crate::models::version::{FILE_NAMES, Files};

/// How many numbers are tried for a new version: those that are taken are stray files, or were taken
/// since the folder was listed.
const MAX_TRIES: u64 = 1000;

/// A directory of bundles.
pub struct LocalDirectory {
    dir: PathBuf,
}

impl LocalDirectory {
    pub fn new(dir: &Path) -> LocalDirectory {
        LocalDirectory {
            dir: dir.to_owned(),
        }
    }

    fn folder(&self, bundle: &BundleId) -> PathBuf {
        self.dir.join(&bundle.name).join(bundle.version())
    }
}

impl Bundles for LocalDirectory {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn models(&self) -> Result<Vec<String>> {
        subfolders(&self.dir)
    }

    fn versions(&self, name: &str) -> Result<Vec<BundleId>> {
        versions_of(&self.dir, name)
    }

    fn strays(&self) -> Vec<String> {
        strays_in(&self.dir)
    }

    fn read(&self, bundle: &BundleId) -> std::result::Result<Files, String> {
        Files::read(&self.folder(bundle))
    }

    fn fingerprint(&self, bundle: &BundleId) -> Fingerprint {
        let folder = self.folder(bundle);
        Fingerprint {
            files: FILE_NAMES.map(|name| {
                let metadata = std::fs::metadata(folder.join(name)).ok()?;
                Some((metadata.len(), metadata.modified().ok()?))
            }),
        }
    }

    fn receive(&self, name: &str) -> Result<Incoming> {
        if !is_folder_name(name) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "not the name of a model",
            ));
        }
        Incoming::create(&self.dir.join(name), name)
    }

    fn free_number(&self, name: &str, number: u64) -> Result<u64> {
        let model_folder = self.dir.join(name);
        // A rename takes the place of an empty folder, which is one that somebody is about to fill.
        let is_free = |number: &u64| !is_there(&model_folder.join(number.to_string()));
        let mut numbers = number..=number.saturating_add(MAX_TRIES);
        numbers.find(is_free).ok_or_else(|| {
            let problem = format!("no number from {number} on is free");
            Error::new(ErrorKind::AlreadyExists, problem)
        })
    }

    fn publish(&self, mut incoming: Incoming, number: u64) -> Result<()> {
        incoming.sync()?;
        let model_folder = self.dir.join(&incoming.name);
        let target = model_folder.join(number.to_string());
        let taken = || {
            let problem = format!("somebody else has taken number {number} meanwhile; try again");
            Error::new(ErrorKind::AlreadyExists, problem)
        };
        if is_there(&target) {
            return Err(taken());
        }
        if let Err(error) = incoming.rename_to(&target) {
            // Somebody else was quicker.
            return Err(if is_there(&target) { taken() } else { error });
        }
        // The model's folder may be new as well.
        let synced = sync_folder(&model_folder).and_then(|()| sync_folder(&self.dir));
        let name = incoming.name.clone();
        // Without that nobody can say that it would still be there tomorrow.
        synced.or_else(|error| self.withdraw(&BundleId { name, number }).and(Err(error)))
    }

    fn withdraw(&self, bundle: &BundleId) -> Result<()> {
        let model_folder = self.dir.join(&bundle.name);
        let hidden = model_folder.join(format!("{PREFIX}{}", crate::clock::new_id()));
        // In one step again: nobody is to find half of it.
        std::fs::rename(self.folder(bundle), &hidden)?;
        std::fs::remove_dir_all(&hidden)?;
        sync_folder(&model_folder)
    }

    fn sweep(&self) {
        for name in self.models().unwrap_or_default() {
            let Ok(entries) = std::fs::read_dir(self.dir.join(&name)) else {
                continue;
            };
            for entry in entries.flatten() {
                let is_left = entry.file_name().to_string_lossy().starts_with(PREFIX);
                if is_left && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    let folder = entry.path().display().to_string();
                    tracing::warn!(folder, error = %error, "what was received is not removed");
                }
            }
        }
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn received(bundles: &LocalDirectory, text: &str) -> Incoming {
        let incoming = bundles.receive("m").unwrap();
        let mut file = incoming.create_file("model.onnx").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        incoming
    }

    fn visible(bundles: &LocalDirectory) -> Vec<u64> {
        let versions = bundles.versions("m").unwrap();
        versions.iter().map(|bundle| bundle.number).collect()
    }

    #[test]
    fn a_version_is_there_wholly_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = LocalDirectory::new(dir.path());
        let incoming = received(&bundles, "graph");
        assert!(visible(&bundles).is_empty());

        bundles.publish(incoming, 1).unwrap();

        assert_eq!(visible(&bundles), [1]);
        let file = dir.path().join("m/1/model.onnx");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "graph");
    }

    #[test]
    fn what_is_not_published_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = LocalDirectory::new(dir.path());
        drop(received(&bundles, "graph"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        bundles.publish(received(&bundles, "one"), 1).unwrap();
        drop(received(&bundles, "graph"));
        // As a process that was killed leaves it
        std::mem::forget(received(&bundles, "graph"));
        assert_eq!(std::fs::read_dir(dir.path().join("m")).unwrap().count(), 2);
        bundles.sweep();
        assert_eq!(std::fs::read_dir(dir.path().join("m")).unwrap().count(), 1);
        assert_eq!(visible(&bundles), [1]);
    }

    #[test]
    fn a_number_that_is_taken_is_left_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = LocalDirectory::new(dir.path());
        std::fs::create_dir_all(dir.path().join("m/1")).unwrap();
        std::fs::write(dir.path().join("m/2"), "a file").unwrap();
        assert_eq!(bundles.free_number("m", 1).unwrap(), 3);
        for number in [1, 2] {
            let taken = bundles.publish(received(&bundles, "x"), number);
            assert_eq!(taken.unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        bundles.publish(received(&bundles, "x"), 3).unwrap();
        assert_eq!(visible(&bundles), [1, 3]);
        bundles
            .withdraw(&BundleId {
                name: "m".to_owned(),
                number: 3,
            })
            .unwrap();
        assert_eq!(visible(&bundles), [1]);
    }

    #[test]
    fn several_at_once_get_different_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = LocalDirectory::new(dir.path());
        let published = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let number = bundles.free_number("m", 1).unwrap();
                        let done = bundles.publish(received(&bundles, "x"), number);
                        published.fetch_add(usize::from(done.is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        // Whoever was told that it is published has a number of its own.
        assert_eq!(visible(&bundles).len(), published.into_inner());
    }

    #[test]
    fn a_change_of_any_file_changes_the_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = LocalDirectory::new(dir.path());
        bundles.publish(received(&bundles, "graph"), 1).unwrap();
        let id = BundleId {
            name: "m".to_owned(),
            number: 1,
        };
        let before = bundles.fingerprint(&id);
        assert_eq!(before, bundles.fingerprint(&id));
        std::fs::write(dir.path().join("m/1/report.md"), "no file of a version").unwrap();
        assert_eq!(before, bundles.fingerprint(&id));
        std::fs::write(dir.path().join("m/1/model.toml"), "").unwrap();
        assert_ne!(before, bundles.fingerprint(&id));
    }
}
