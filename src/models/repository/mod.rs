//! The model repository: the bundles of a place, and what is loaded of them.
//!
//! Every version is loaded or refused on its own: a refused one is listed with its reason and
//! never stops the others. A version is named by a number; with no rollout recorded the champion of a
//! model is the numerically highest version that is ready and does not call itself a candidate.
//!
//! Models are loaded, reloaded and unloaded while requests run. Requests read a [`Catalog`] that
//! never changes; a change makes another one and swaps it in, whole. So no request waits for a
//! load, none sees half of one, and a request in flight keeps the version it has found until it is
//! answered; then its memory is freed. Changes are made one after the other.
//!
//! A load that fails leaves what is served as it is, and says why.
//!
//! * [`refresh`] – which versions are loaded, and bringing what is loaded up to that.
//! * [`start`] – everything at once, when the server starts.
//! * [`watch`] – new and changed files, seen by looking.
//! * [`deploy`] – a version that somebody sends.
//! * [`numbers`] – the highest number that each model has had.
//! * [`loader`] – the thread on which that happens.

pub mod deploy;
mod loader;
pub mod numbers;
mod refresh;
mod start;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use self::loader::Loader;
use self::numbers::Numbers;
use self::refresh::Look;
use super::bundles::{BundleId, Bundles, Fingerprint, LocalDirectory};
use super::catalog::{Catalog, Entry, FindError, MAX_REASONS, Model};
use super::rollout::{AllRoles, Roles};
use super::version::ModelVersion;
use crate::config::RepositoryConfig;
use crate::features::value::shorten;
use crate::features::views::Views;

/// The repository and what of it is loaded now.
pub struct Repository {
    bundles: Box<dyn Bundles>,
    /// Which versions are loaded without having a role.
    policy: RepositoryConfig,
    /// What versions bind to.
    views: ArcSwap<Views>,
    loaded: ArcSwap<Catalog>,
    /// Held by whoever loads or unloads, for as long as that takes.
    changing: Mutex<Known>,
    /// What was said of the versions' roles. Held by whoever puts the next catalog in the place of the
    /// one before, for that moment only: a rollback does not wait for a load.
    roles: Mutex<AllRoles>,
    /// The highest number that each model's versions have had.
    numbers: Mutex<Numbers>,
    loader: Loader,
    /// Why the folder as a whole could not be read.
    unreadable: Option<String>,
}

/// What is known of the files.
#[derive(Default)]
struct Known {
    /// What a version's files looked like before they were read the last time, whatever came of it.
    read: HashMap<BundleId, Fingerprint>,
    /// What they looked like when they were looked at the last time.
    seen: HashMap<BundleId, Fingerprint>,
    /// The models that were taken out of service: new files do not bring them back.
    unloaded: HashSet<String>,
    /// Graphs that belong to no version, as [`Bundles::strays`] says.
    strays: Vec<String>,
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

impl Repository {
    /// Loads every version under `dir`, several at a time, with nothing said of their roles.
    pub fn open(dir: &Path, views: &Views) -> Repository {
        Repository::open_with(dir, views, AllRoles::new(), RepositoryConfig::everything())
    }

    /// Loads the versions under `dir` that have a role or that the policy chooses, several at a time.
    pub fn open_with(
        dir: &Path,
        views: &Views,
        roles: AllRoles,
        policy: RepositoryConfig,
    ) -> Repository {
        let mut repository = Repository {
            bundles: Box::new(LocalDirectory::new(dir)),
            policy,
            views: ArcSwap::from_pointee(views.clone()),
            loaded: ArcSwap::default(),
            changing: Mutex::default(),
            roles: Mutex::new(roles),
            numbers: Mutex::default(),
            loader: Loader::default(),
            unreadable: None,
        };
        if let Err(error) = repository.load_all() {
            let place = repository.bundles.place();
            let problem = format!("cannot read the model folder {place}: {error}");
            repository.unreadable = Some(problem);
        }
        repository
    }

    /// Why the folder could not be read at all when the server started; it is not ready then.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// Graphs that lie among the models and belong to no version: where, and what was expected.
    pub fn strays(&self) -> Vec<String> {
        self.changing().strays.clone()
    }

    /// Looks for graphs that belong to no version, and says in the log which have come.
    fn note_strays(&self, known: &mut Known) {
        let strays = self.bundles.strays();
        for stray in strays.iter().filter(|stray| !known.strays.contains(stray)) {
            tracing::warn!(reason = stray, "a graph that is no version");
        }
        known.strays = strays;
    }

    /// Where the files are. What is received there becomes a version by [`Repository::deploy`].
    pub fn bundles(&self) -> &dyn Bundles {
        &*self.bundles
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

    /// What was said of the roles of a model's versions.
    pub fn roles(&self, name: &str) -> Option<Arc<Roles>> {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.get(name).cloned()
    }

    /// Gives a model's versions other roles, at once. Waits for no load. Requests in flight are
    /// answered by the versions that they have found.
    pub fn set_roles(&self, name: &str, roles: Roles) {
        let roles = Arc::new(roles);
        let mut all = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), Arc::clone(&roles));
        let catalog = self.catalog();
        if let Some(model) = catalog.model(name) {
            let model = model.with_roles(Some(roles));
            self.loaded.store(Arc::new(catalog.with(name, Some(model))));
        }
    }

    /// Puts a model's versions in the place of those before, in the roles that they have by now. Only
    /// for whoever holds `changing`: nobody else changes versions meanwhile.
    fn swap_in(&self, name: &str, mut versions: BTreeMap<u64, Entry>) {
        if let Some((highest, _)) = versions.last_key_value() {
            self.note_number(name, *highest);
        }
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let said = roles.get(name).cloned();
        let before = self.catalog();
        // A version that has got its role since it was left out stays.
        let held = said.iter().flat_map(|said| said.held());
        for number in held {
            let earlier = before.model(name).and_then(|m| m.numbered_as(number));
            let is_left_out = versions.get(&number).is_some_and(|entry| entry.left_out);
            if let Some(earlier) = earlier.filter(|earlier| is_left_out && earlier.state.is_ok()) {
                announce(earlier);
                versions.insert(number, earlier.clone());
            }
        }
        let model = Model::new(name, versions, said);
        let catalog = before.with(name, Some(model));
        self.loaded.store(Arc::new(catalog));
        drop(roles);
        self.free_replaced(name, &before);
    }

    /// Has the versions freed that were served before and are not any more.
    fn free_replaced(&self, name: &str, before: &Catalog) {
        let now = self.catalog();
        let now = now.model(name);
        for (number, entry) in before.model(name).into_iter().flat_map(|m| m.numbered()) {
            let Ok(version) = &entry.state else { continue };
            let same = now.and_then(|model| model.numbered_as(number));
            let same = same.and_then(|entry| entry.state.as_ref().ok());
            if !same.is_some_and(|same| Arc::ptr_eq(same, version)) {
                self.loader.leaves(Arc::clone(version));
            }
        }
    }

    /// Takes a model out. Only for whoever holds `changing`.
    fn swap_out(&self, name: &str) {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.catalog();
        self.loaded.store(Arc::new(before.with(name, None)));
        drop(roles);
        self.free_replaced(name, &before);
    }

    /// Reads a model's folder again: loads versions that are new, changed or not served, of those that
    /// have a role or that the policy chooses, keeps the others, and drops those whose folder is gone.
    /// Takes as long as loading takes; requests go on meanwhile.
    ///
    /// # Errors
    /// No such model; or which versions were not loaded and why. What could be loaded is served
    /// then all the same, and a version that was served before goes on as it was. The model is
    /// never left with nothing that answers because its folders are gone.
    pub fn load(&self, name: &str) -> Result<(), ChangeError> {
        let mut known = self.changing();
        known.unloaded.remove(name);
        let problems = self.refresh(&mut known, name, |_, _| Look::Read)?;
        let is_known = self.catalog().model(name).is_some();
        match problems.is_empty() {
            true if is_known => Ok(()),
            true => Err(ChangeError::UnknownModel {
                name: shorten(name, 64),
            }),
            false => Err(not_loaded(name, shorten(&problems.join("; "), MAX_REASONS))),
        }
    }

    /// Loads one version, if it is not loaded, whatever it was before.
    fn load_one(&self, name: &str, number: u64) -> Result<(), ChangeError> {
        let mut known = self.changing();
        let catalog = self.catalog();
        let before = catalog.model(name);
        let earlier = before.and_then(|model| model.numbered_as(number));
        if earlier.is_some_and(|entry| entry.state.is_ok()) {
            return Ok(());
        }
        let found = self.bundles.versions(name);
        let found = found.map_err(|error| unreadable(name, &error))?;
        let bundle = found.into_iter().find(|bundle| bundle.number == number);
        let bundle =
            bundle.ok_or_else(|| not_loaded(name, format!("version {number} has no folder")))?;
        let entry = self.load_version(&mut known, &bundle, earlier);
        if let Err(problem) = &entry.state {
            let problem = format!("version {number} cannot be loaded: {problem}");
            return Err(not_loaded(name, problem));
        }
        announce(&entry);
        // It was taken out of service, and is called back into it.
        known.unloaded.remove(name);
        let mut versions = before.map(versions_of).unwrap_or_default();
        versions.insert(number, entry);
        self.swap_in(name, versions);
        Ok(())
    }

    /// Brings roles into force that were said since the repository was opened, and has loaded what they
    /// ask for; before anything is served.
    pub fn catch_up(&self, said: &AllRoles) {
        for (name, roles) in said {
            if self.roles(name).as_ref() != Some(roles) {
                self.set_roles(name, Roles::clone(roles));
                self.settle(name);
            }
        }
    }

    /// Loads what has got a role and is not loaded, and frees what has none any more and is not chosen
    /// by the policy.
    fn settle(&self, name: &str) {
        let mut known = self.changing();
        if known.unloaded.contains(name) {
            return;
        }
        let look = |_, entry: Option<&Entry>| match entry {
            Some(_) => Look::Keep,
            None => Look::Pass,
        };
        if let Err(problem) = self.refresh(&mut known, name, look) {
            tracing::error!(model = name, error = %problem, "models are loaded as they were");
        }
    }

    /// Binds every version to other views, and calls `swapped` when they have taken the place of those
    /// before: what else goes by views is to be swapped there, at once.
    ///
    /// # Errors
    /// Which versions that are served do not fit the new views; nothing has changed then.
    pub fn rebind(&self, views: &Arc<Views>, swapped: impl FnOnce()) -> Result<(), Vec<String>> {
        let _changing = self.changing();
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
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        self.views.store(Arc::clone(views));
        self.loaded.store(Arc::new(catalog_of(models, &roles)));
        swapped();
        Ok(())
    }

    /// Takes a model out of service: it stays listed, as unavailable, and can be loaded again.
    /// Requests in flight are answered. Nothing happens when there is no such model.
    pub fn unload(&self, name: &str) {
        let mut known = self.changing();
        let catalog = self.catalog();
        let Some(model) = catalog.model(name) else {
            return;
        };
        known.unloaded.insert(name.to_owned());
        let mut versions = BTreeMap::new();
        for (number, entry) in model.numbered() {
            let mut entry = entry.clone();
            entry.state = Err(UNLOADED.to_owned());
            entry.not_reloaded = None;
            entry.left_out = false;
            tracing::info!(model = name, version = entry.version, "model unloaded");
            versions.insert(number, entry);
        }
        self.swap_in(name, versions);
    }

    /// [`Repository::load`] on the thread that loads, so that the caller's serves on.
    ///
    /// # Errors
    /// As [`Repository::load`].
    pub async fn load_aside(self: &Arc<Self>, name: String) -> Result<(), ChangeError> {
        let changed = name.clone();
        self.aside(&name, move |repository| repository.load(&changed))
            .await?
    }

    /// Loads one version of a model if it is not served, whatever it was before, on the thread that
    /// loads. Blocks for as long as that takes.
    ///
    /// # Errors
    /// There is no such folder, or it cannot be loaded; nothing has changed then.
    pub fn ensure_loaded(self: &Arc<Self>, name: &str, number: u64) -> Result<(), ChangeError> {
        let repository = Arc::clone(self);
        let changed = name.to_owned();
        let work = move || repository.load_one(&changed, number);
        let done = self.loader.run_blocking(work);
        done.unwrap_or_else(|problem| Err(not_loaded(name, problem)))
    }

    /// Has the versions of a model loaded that have got a role, and those freed that have none any more
    /// and that the policy does not choose. Does not wait until that is done. Requests in flight are
    /// answered.
    pub fn release(self: &Arc<Self>, name: &str) {
        let repository = Arc::clone(self);
        let changed = name.to_owned();
        if let Err(problem) = self.loader.post(move || repository.settle(&changed)) {
            tracing::error!(model = name, problem, "models stay loaded as they are");
        }
    }

    /// [`Repository::unload`], in turn with the loads.
    ///
    /// # Errors
    /// Only when there is no thread to do it.
    pub async fn unload_aside(self: &Arc<Self>, name: String) -> Result<(), ChangeError> {
        let changed = name.clone();
        self.aside(&name, move |repository| repository.unload(&changed))
            .await
    }

    /// Looks for new and changed files, on the thread that loads.
    ///
    /// # Errors
    /// Only when there is no such thread.
    pub async fn watch_aside(self: &Arc<Self>) -> Result<(), ChangeError> {
        self.aside("", Repository::watch_once).await
    }

    /// Does `work` on the thread that loads.
    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Repository) -> T + Send + 'static,
    ) -> Result<T, ChangeError> {
        let repository = Arc::clone(self);
        let done = self.loader.run(move || work(&repository)).await;
        done.map_err(|problem| not_loaded(name, problem))
    }

    fn changing(&self) -> MutexGuard<'_, Known> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_loaded(name: &str, problem: String) -> ChangeError {
    ChangeError::NotLoaded {
        name: shorten(name, 64),
        problem,
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> ChangeError {
    not_loaded(name, format!("its folder cannot be read: {error}"))
}

fn versions_of(model: &Arc<Model>) -> BTreeMap<u64, Entry> {
    let numbered = model.numbered();
    numbered
        .map(|(number, entry)| (number, entry.clone()))
        .collect()
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

/// Says what became of a version, in the log.
fn announce(entry: &Entry) {
    let Entry { name, version, .. } = entry;
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
        (Err(reason), _) if entry.left_out => {
            tracing::info!(model = name, version, reason, "model not loaded");
        }
        (Err(reason), _) => {
            tracing::error!(model = name, version, reason, "model unavailable");
        }
    }
}

fn catalog_of(models: BTreeMap<String, BTreeMap<u64, Entry>>, roles: &AllRoles) -> Catalog {
    let models = models.into_iter();
    models
        .map(|(name, versions)| Model::new(&name, versions, roles.get(&name).cloned()))
        .collect()
}
