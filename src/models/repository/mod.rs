//! The model repository: the folder `models/<name>/<version>/`, and what is loaded of it.
//!
//! Every version is loaded or refused on its own: a refused one is listed with its reason and
//! never stops the others. A version's folder is named by a number; with no rollout recorded the
//! champion of a model is the numerically highest version that is ready and does not call itself a
//! candidate.
//!
//! Models are loaded, reloaded and unloaded while requests run. Requests read a [`Catalog`] that
//! never changes; a change makes another one and swaps it in, whole. So no request waits for a
//! load, none sees half of one, and a request in flight keeps the version it has found until it is
//! answered: the memory is freed by the last to let go. Changes are made one after the other.
//!
//! A load that fails leaves what is served as it is, and says why.

mod folders;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use onnx_ml::{Pool, ScopedThreads};
use tokio::sync::Semaphore;

use self::folders::{VersionFolder, folders_of, subfolders};
use super::catalog::{Catalog, Entry, FindError, MAX_REASONS, Model, State};
use super::statistics::Statistics;
use super::version::{Files, ModelVersion};
use crate::features::value::shorten;
use crate::features::views::Views;
use crate::telemetry::model_is_ready;

/// The repository and what of it is loaded now.
pub struct Repository {
    dir: PathBuf,
    /// What versions bind to.
    views: ArcSwap<Views>,
    loaded: ArcSwap<Catalog>,
    /// Held by whoever makes the next catalog.
    changing: Mutex<()>,
    /// One place: changes that wait do so without holding a thread.
    turns: Arc<Semaphore>,
    /// Why the folder as a whole could not be read.
    unreadable: Option<String>,
}

/// Why a model was not loaded, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error(
        "no model {name:?} to load: the model folder holds no folder of that name with a version, a \
         folder named by a number, in it"
    )]
    UnknownModel { name: String },
    #[error("model {name}: {problem}")]
    NotLoaded { name: String, problem: String },
}

/// The reason of a version that was taken out of service.
const UNLOADED: &str = "unloaded";

/// How many versions are loaded at a time at most: each needs memory for its file and its graph.
const MAX_LOADING_THREADS: usize = 8;

impl Repository {
    /// Loads every version under `dir`, several at a time.
    pub fn open(dir: &Path, views: &Views) -> Repository {
        let (catalog, unreadable) = match load_all(dir, views) {
            Ok(catalog) => (catalog, None),
            Err(error) => {
                let dir = dir.display();
                let problem = format!("cannot read the model folder {dir}: {error}");
                (Catalog::default(), Some(problem))
            }
        };
        Repository {
            dir: dir.to_owned(),
            views: ArcSwap::from_pointee(views.clone()),
            loaded: ArcSwap::from_pointee(catalog),
            changing: Mutex::new(()),
            turns: Arc::new(Semaphore::new(1)),
            unreadable,
        }
    }

    /// Why the folder could not be read at all when the server started; it is not ready then.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// What is loaded now. To find one version, [`Repository::find`] is quicker.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.loaded.load_full()
    }

    /// A version by name and number; the champion when no version is named.
    ///
    /// # Errors
    /// What is there instead: no such model, no such version, or not ready with the reason.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<ModelVersion>, FindError> {
        self.loaded.load().find(name, version).map(Arc::clone)
    }

    /// Reads a model's folder again: loads versions that are new, changed or not served, keeps the
    /// others, and drops those whose folder is gone. Takes as long as loading takes; requests go
    /// on meanwhile.
    ///
    /// # Errors
    /// No such model; or which versions were not loaded and why. What could be loaded is served
    /// then all the same, and a version that was served before goes on as it was. The model is
    /// never left with nothing that answers because its folders are gone.
    pub fn load(&self, name: &str) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = self.catalog();
        let before = catalog.model(name);
        let not_loaded = |problem: String| ChangeError::NotLoaded {
            name: shorten(name, 64),
            problem,
        };
        let folders = folders_of(&self.dir, name)
            .map_err(|error| not_loaded(format!("its folder cannot be read: {error}")))?;
        let mut problems = Vec::new();
        let mut versions = BTreeMap::new();
        for folder in folders {
            let earlier = before.and_then(|model| model.numbered_as(folder.number));
            let entry = self.load_version(&folder, earlier);
            let version = &entry.version;
            if let Err(problem) = &entry.state {
                problems.push(format!("version {version} is not loaded: {problem}"));
            } else if let Some(problem) = &entry.not_reloaded {
                problems.push(format!(
                    "version {version} is served as it was before: {problem}"
                ));
            }
            versions.insert(folder.number, entry);
        }
        if !versions.values().any(Entry::answers_unnamed) {
            for (number, mut entry) in gone_but_serving(before, &versions) {
                let problem =
                    "its folder is gone; it is served on because no other version answers";
                problems.push(format!("version {}: {problem}", entry.version));
                entry.not_reloaded = Some(problem.to_owned());
                versions.insert(number, entry);
            }
        }
        for entry in versions.values() {
            announce(entry);
        }
        for (number, entry) in before.into_iter().flat_map(|model| model.numbered()) {
            if !versions.contains_key(&number) {
                model_is_ready(&entry.name, &entry.version, false);
                tracing::info!(model = name, version = entry.version, "model removed");
            }
        }
        let model = (!versions.is_empty()).then(|| Model::new(versions));
        let is_known = model.is_some();
        self.loaded.store(Arc::new(catalog.with(name, model)));
        match problems.is_empty() {
            true if is_known => Ok(()),
            true => Err(ChangeError::UnknownModel {
                name: shorten(name, 64),
            }),
            false => Err(not_loaded(shorten(&problems.join("; "), MAX_REASONS))),
        }
    }

    /// Binds every version to other views, and calls `swapped` when they have taken the place of those
    /// before: what else goes by views is to be swapped there, at once.
    ///
    /// # Errors
    /// Which versions that are served do not fit the new views; nothing has changed then.
    pub fn rebind(&self, views: &Arc<Views>, swapped: impl FnOnce()) -> Result<(), Vec<String>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = self.catalog();
        let mut models: BTreeMap<String, BTreeMap<u64, Entry>> = BTreeMap::new();
        let mut problems = Vec::new();
        for name in catalog.names() {
            let numbered = catalog
                .model(name)
                .into_iter()
                .flat_map(|model| model.numbered());
            for (number, entry) in numbered {
                let mut entry = entry.clone();
                if let Ok(version) = &entry.state {
                    match version.rebound(views) {
                        Ok(version) => entry.state = Ok(Arc::new(version)),
                        Err(problem) => {
                            problems
                                .push(format!("model {name} version {}: {problem}", entry.version));
                        }
                    }
                }
                models
                    .entry(name.to_owned())
                    .or_default()
                    .insert(number, entry);
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let models = models.into_iter();
        let catalog: Catalog = models
            .map(|(name, versions)| (name, Model::new(versions)))
            .collect();
        self.views.store(Arc::clone(views));
        self.loaded.store(Arc::new(catalog));
        swapped();
        Ok(())
    }

    /// Takes a model out of service: it stays listed, as unavailable, and can be loaded again.
    /// Requests in flight are answered. Nothing happens when there is no such model.
    pub fn unload(&self, name: &str) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = self.catalog();
        let Some(model) = catalog.model(name) else {
            return;
        };
        let mut versions = BTreeMap::new();
        for (number, entry) in model.numbered() {
            let mut entry = entry.clone();
            entry.state = Err(UNLOADED.to_owned());
            entry.not_reloaded = None;
            model_is_ready(&entry.name, &entry.version, false);
            tracing::info!(model = name, version = entry.version, "model unloaded");
            versions.insert(number, entry);
        }
        let catalog = catalog.with(name, Some(Model::new(versions)));
        self.loaded.store(Arc::new(catalog));
    }

    /// [`Repository::load`] on a thread of its own kind, so that the caller's serves on.
    ///
    /// # Errors
    /// As [`Repository::load`].
    pub async fn load_aside(self: &Arc<Self>, name: String) -> Result<(), ChangeError> {
        self.aside(name, Repository::load).await
    }

    /// [`Repository::unload`], in turn with the loads.
    ///
    /// # Errors
    /// Only when the server is shutting down.
    pub async fn unload_aside(self: &Arc<Self>, name: String) -> Result<(), ChangeError> {
        let unload = |repository: &Repository, name: &str| {
            repository.unload(name);
            Ok(())
        };
        self.aside(name, unload).await
    }

    async fn aside(
        self: &Arc<Self>,
        name: String,
        change: fn(&Repository, &str) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        // However many ask for changes, they take one thread of those that large requests need.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let repository = Arc::clone(self);
        let changed_name = name.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let changed = change(&repository, &changed_name);
            // Given back by this thread: a caller who goes away does not end the change.
            drop(turn);
            changed
        });
        changed.await.unwrap_or_else(|error| {
            Err(ChangeError::NotLoaded {
                name: shorten(&name, 64),
                problem: format!("the change was not finished: {error}"),
            })
        })
    }

    fn load_version(&self, folder: &VersionFolder, earlier: Option<&Entry>) -> Entry {
        let served = earlier.and_then(|entry| entry.state.as_ref().ok());
        let statistics = earlier.map(|entry| Arc::clone(&entry.statistics));
        let statistics = statistics.unwrap_or_default();
        let (state, not_reloaded) = match (self.build(folder, served, &statistics), served) {
            (Err(problem), Some(served)) => (Ok(Arc::clone(served)), Some(problem)),
            (state, _) => (state, None),
        };
        Entry {
            name: folder.name.clone(),
            version: folder.version.clone(),
            state,
            not_reloaded,
            statistics,
        }
    }

    /// The version as its files are now; what is `served` already when they are the same.
    fn build(
        &self,
        folder: &VersionFolder,
        served: Option<&Arc<ModelVersion>>,
        statistics: &Arc<Statistics>,
    ) -> State {
        let files = Files::read(&folder.path(&self.dir))?;
        if let Some(served) = served
            && served.files_digest == files.digest
        {
            return Ok(Arc::clone(served));
        }
        let VersionFolder { name, version, .. } = folder;
        let statistics = Arc::clone(statistics);
        let views = self.views.load();
        ModelVersion::build(files, name, version, &views, statistics).map(Arc::new)
    }
}

/// Refuses a parameter of a load request that would replace what is on disk.
///
/// # Errors
/// What it would replace, and what to do instead.
pub fn refuse_override(parameter: &str) -> Result<(), String> {
    if parameter == "config" || parameter.starts_with("file:") {
        return Err(format!(
            "parameters.{}: a request cannot bring its own configuration or files; put the version's \
             files into its folder in the repository and load the model without parameters",
            shorten(parameter, 64)
        ));
    }
    Ok(())
}

/// Versions that answered unnamed and have no folder any more.
fn gone_but_serving(
    before: Option<&Arc<Model>>,
    found: &BTreeMap<u64, Entry>,
) -> Vec<(u64, Entry)> {
    let before = before.into_iter().flat_map(|model| model.numbered());
    before
        .filter(|(number, entry)| entry.answers_unnamed() && !found.contains_key(number))
        .map(|(number, entry)| (number, entry.clone()))
        .collect()
}

/// Says what became of a version, in the log and in the metrics.
fn announce(entry: &Entry) {
    let Entry { name, version, .. } = entry;
    model_is_ready(name, version, entry.state.is_ok());
    match (&entry.state, &entry.not_reloaded) {
        (Ok(_), Some(reason)) => tracing::error!(
            model = name,
            version,
            reason,
            "model not reloaded: it is served as it was"
        ),
        (Ok(loaded), None) => {
            let binds = loaded.scoring.is_ok();
            tracing::info!(model = name, version, binds, "model ready");
        }
        (Err(reason), _) => {
            tracing::error!(model = name, version, reason, "model unavailable");
        }
    }
}

fn load_all(dir: &Path, views: &Views) -> std::io::Result<Catalog> {
    let mut folders = Vec::new();
    for name in subfolders(dir)? {
        folders.extend(folders_of(dir, &name).unwrap_or_default());
    }
    let entries: Vec<OnceLock<Entry>> = folders.iter().map(|_| OnceLock::new()).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    ScopedThreads(threads.min(MAX_LOADING_THREADS)).run(folders.len(), &|index| {
        let folder = &folders[index];
        let VersionFolder { name, version, .. } = folder;
        let statistics = Arc::<Statistics>::default();
        let counted = Arc::clone(&statistics);
        let state = Files::read(&folder.path(dir))
            .and_then(|files| ModelVersion::build(files, name, version, views, counted));
        // Each place is written once, by whoever loads its folder.
        let _ = entries[index].set(Entry {
            name: name.clone(),
            version: version.clone(),
            state: state.map(Arc::new),
            not_reloaded: None,
            statistics,
        });
    });
    let mut models: BTreeMap<String, BTreeMap<u64, Entry>> = BTreeMap::new();
    for (folder, entry) in folders.into_iter().zip(entries) {
        if let Some(entry) = entry.into_inner() {
            let versions = models.entry(folder.name).or_default();
            versions.insert(folder.number, entry);
        }
    }
    let models = models.into_iter();
    Ok(models
        .map(|(name, versions)| (name, Model::new(versions)))
        .collect())
}
