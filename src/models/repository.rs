//! The model repository: the folder `models/<name>/<version>/`.
//!
//! Every version is loaded or refused on its own: a refused one is listed with its reason and
//! never stops the others. A version's folder is named by a number; with no rollout recorded the
//! champion of a model is the numerically highest version that is ready.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use onnx_ml::{Pool, ScopedThreads};

use super::version::ModelVersion;
use crate::features::views::Views;

/// The loaded repository.
#[derive(Debug, Default)]
pub struct Repository {
    models: BTreeMap<String, BTreeMap<u64, Entry>>,
    /// Why the folder as a whole could not be read.
    unreadable: Option<String>,
}

/// One version folder: ready, or unavailable with its reason.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub version: String,
    pub state: State,
}

/// The version, or why it is refused.
type State = Result<Arc<ModelVersion>, String>;

/// How many versions are loaded at a time at most: each needs memory for its file and its graph.
const MAX_LOADING_THREADS: usize = 8;

impl Repository {
    /// Loads every version under `dir`, several at a time.
    pub fn load(dir: &Path, views: &Views) -> Repository {
        let mut repository = Repository::default();
        let folders = match version_folders(dir) {
            Ok(folders) => folders,
            Err(error) => {
                let dir = dir.display();
                repository.unreadable =
                    Some(format!("cannot read the model folder {dir}: {error}"));
                return repository;
            }
        };
        let states: Vec<OnceLock<State>> = folders.iter().map(|_| OnceLock::new()).collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        ScopedThreads(threads.min(MAX_LOADING_THREADS)).run(folders.len(), &|index| {
            let VersionFolder { name, version, .. } = &folders[index];
            let folder = dir.join(name).join(version);
            let loaded = ModelVersion::load(&folder, name, version, views);
            // Each place is written once, by whoever loads its folder.
            let _ = states[index].set(loaded.map(Arc::new));
        });
        for (folder, state) in folders.into_iter().zip(states) {
            let state = state.into_inner();
            let entry = Entry {
                name: folder.name.clone(),
                version: folder.version,
                state: state.unwrap_or_else(|| Err("it was not loaded".to_owned())),
            };
            let versions = repository.models.entry(folder.name).or_default();
            versions.insert(folder.number, entry);
        }
        repository
    }

    /// Why the folder could not be read at all; the server is not ready then.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// Every version folder, by name and number.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.models.values().flat_map(|versions| versions.values())
    }

    /// All versions of a model, oldest first; `None` when there is no such model.
    pub fn versions(&self, name: &str) -> Option<impl Iterator<Item = &Entry>> {
        self.models.get(name).map(|versions| versions.values())
    }

    /// The names of all models.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// The version that answers when none is named: the highest that is ready.
    pub fn champion(&self, name: &str) -> Option<&Arc<ModelVersion>> {
        let versions = self.models.get(name)?;
        versions
            .values()
            .rev()
            .find_map(|entry| entry.state.as_ref().ok())
    }

    /// The champion of every model that has one.
    pub fn champions(&self) -> impl Iterator<Item = &Arc<ModelVersion>> {
        self.models.keys().filter_map(|name| self.champion(name))
    }

    /// A version by name and number; the champion when no version is named.
    ///
    /// # Errors
    /// What is there instead: no such model, no such version, or unavailable with the reason.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<ModelVersion>, String> {
        let versions = self.models.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            let name = crate::features::value::shorten(name, 64);
            format!("no model {name:?}; the models are: {}", names.join(", "))
        })?;
        let Some(version) = version else {
            return self.champion(name).ok_or_else(|| {
                let reasons: Vec<String> = versions.values().map(Entry::describe).collect();
                format!(
                    "model {name} has no version that is ready: {}",
                    reasons.join("; ")
                )
            });
        };
        let entry = version_number(version).and_then(|number| versions.get(&number));
        match entry {
            Some(entry) => entry.state.as_ref().map_err(|_| entry.describe()),
            None => {
                let known: Vec<&str> = versions
                    .values()
                    .map(|entry| entry.version.as_str())
                    .collect();
                let version = crate::features::value::shorten(version, 64);
                Err(format!(
                    "model {name} has no version {version:?}; it has {}",
                    known.join(", ")
                ))
            }
        }
    }
}

impl Entry {
    fn describe(&self) -> String {
        match &self.state {
            Ok(_) => format!("version {} is ready", self.version),
            Err(reason) => format!("version {} is unavailable: {reason}", self.version),
        }
    }
}

/// A folder that holds a version.
struct VersionFolder {
    name: String,
    version: String,
    number: u64,
}

/// Every version folder under `dir`.
fn version_folders(dir: &Path) -> std::io::Result<Vec<VersionFolder>> {
    let mut folders = Vec::new();
    for name in subfolders(dir)? {
        for version in subfolders(&dir.join(&name)).unwrap_or_default() {
            // Folders not named by a number hold what belongs to the model but is no version.
            let Some(number) = version_number(&version) else {
                tracing::warn!(
                    model = name,
                    folder = version,
                    "not a version: its name is no number"
                );
                continue;
            };
            folders.push(VersionFolder {
                name: name.clone(),
                version,
                number,
            });
        }
    }
    Ok(folders)
}

/// A version folder's number: decimal digits, no leading zero except for "0" itself.
fn version_number(text: &str) -> Option<u64> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits_only && canonical {
        text.parse().ok()
    } else {
        None
    }
}

fn subfolders(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // Follows links, so that a version may be mounted from elsewhere.
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
