//! Which versions of a model are loaded, and bringing what is loaded up to that.
//!
//! Loaded are the versions with a role, those that the policy chooses, and, so that a model is not left
//! without an answer, the first of the others that can answer when none of these can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{ChangeError, Known, Repository, UNLOADED, announce, unreadable};
use crate::models::bundles::BundleId;
use crate::models::catalog::{Entry, Model, State};
use crate::models::rollout::{Role, Roles};
use crate::models::statistics::Statistics;
use crate::models::trial;
use crate::models::version::ModelVersion;

/// What to do with the files of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Read them again.
    Read,
    /// Go by what is known of them.
    Keep,
    /// As if the version were not there, if it is not known yet.
    Pass,
}

/// The versions that are to be loaded whoever can answer.
pub struct Wanted {
    held: Vec<u64>,
    chosen: BTreeSet<u64>,
}

impl Wanted {
    pub fn has(&self, number: u64) -> bool {
        self.held.contains(&number) || self.chosen.contains(&number)
    }
}

impl Repository {
    /// Those of `found`, oldest first, that are to be loaded.
    pub(super) fn wanted(&self, name: &str, found: &[BundleId], roles: Option<&Roles>) -> Wanted {
        let mut chosen = BTreeSet::new();
        for (newer, bundle) in found.iter().rev().enumerate() {
            let is_retired = roles.is_some_and(|roles| roles.role(bundle.number) == Role::Retired);
            if !is_retired && self.policy.loads(name, bundle.number, newer) {
                chosen.insert(bundle.number);
            }
        }
        Wanted {
            held: roles.map(Roles::held).unwrap_or_default(),
            chosen,
        }
    }

    /// Brings what is loaded of a model up to its files, as far as `look` says, and to its roles. Returns
    /// which versions are not served as their files are now, and why.
    ///
    /// # Errors
    /// When the folder cannot be read; nothing has changed then.
    pub(super) fn refresh(
        &self,
        known: &mut Known,
        name: &str,
        look: impl Fn(u64, Option<&Entry>) -> Look,
    ) -> Result<Vec<String>, ChangeError> {
        let found = self.bundles.versions(name);
        let found = found.map_err(|error| unreadable(name, &error))?;
        let roles = self.roles(name);
        let wanted = self.wanted(name, &found, roles.as_deref());
        let catalog = self.catalog();
        let before = catalog.model(name);
        let mut touched = BTreeSet::new();
        let mut versions = BTreeMap::new();
        for bundle in &found {
            let number = bundle.number;
            let earlier = before.and_then(|model| model.numbered_as(number));
            let is_loaded = earlier.is_some_and(|entry| entry.state.is_ok());
            let look = look(number, earlier);
            let entry = match earlier {
                None if look == Look::Pass => continue,
                _ if !wanted.has(number) && !is_loaded => {
                    self.left_out(known, bundle, earlier, roles.as_deref())
                }
                Some(entry) if look != Look::Read && !(is_out(entry) && wanted.has(number)) => {
                    entry.clone()
                }
                _ => {
                    touched.insert(number);
                    self.load_version(known, bundle, earlier)
                }
            };
            versions.insert(number, entry);
        }
        for number in self.complete(known, name, &mut versions, roles.as_deref()) {
            touched.insert(number);
        }
        self.leave_out(known, name, &mut versions, &wanted, roles.as_deref());
        for (number, mut entry) in gone_but_serving(before, &versions, roles.as_deref()) {
            let problem = match roles {
                Some(_) => "its folder is gone; it is served on because it is the champion",
                None => "its folder is gone; it is served on because no other version answers",
            };
            entry.not_reloaded = Some(problem.to_owned());
            touched.insert(number);
            versions.insert(number, entry);
        }
        for (number, entry) in &versions {
            if touched.contains(number) {
                announce(entry);
            }
        }
        known
            .read
            .retain(|bundle, _| bundle.name != name || found.binary_search(bundle).is_ok());
        for (number, entry) in before.into_iter().flat_map(|model| model.numbered()) {
            if !versions.contains_key(&number) {
                tracing::info!(model = name, version = entry.version, "model removed");
            }
        }
        let problems = versions.values().filter_map(problem_of).collect();
        if versions.is_empty() {
            self.swap_out(name);
        } else {
            self.swap_in(name, versions);
        }
        Ok(problems)
    }

    /// When no version answers, loads those that were left out until one does; returns which were tried.
    pub(super) fn complete(
        &self,
        known: &mut Known,
        name: &str,
        versions: &mut BTreeMap<u64, Entry>,
        roles: Option<&Roles>,
    ) -> Vec<u64> {
        let in_order: Vec<u64> = match roles {
            Some(roles) => roles.in_order().collect(),
            None => versions.keys().rev().copied().collect(),
        };
        let answers = |entry: &Entry| match roles {
            Some(_) => entry.state.is_ok(),
            None => entry.answers_unnamed(),
        };
        let mut tried = Vec::new();
        let listed = || in_order.iter().copied();
        if listed().any(|number| versions.get(&number).is_some_and(answers)) {
            return tried;
        }
        for number in listed() {
            let Some(entry) = versions.get(&number).filter(|entry| entry.left_out) else {
                continue;
            };
            let bundle = BundleId {
                name: name.to_owned(),
                number,
            };
            let entry = self.load_version(known, &bundle, Some(entry));
            let does = answers(&entry);
            versions.insert(number, entry);
            tried.push(number);
            if does {
                break;
            }
        }
        tried
    }

    /// Takes out what is loaded, not wanted, and not the one that answers.
    fn leave_out(
        &self,
        known: &mut Known,
        name: &str,
        versions: &mut BTreeMap<u64, Entry>,
        wanted: &Wanted,
        roles: Option<&Roles>,
    ) {
        let answering = match roles {
            Some(roles) => {
                let is_ready = |number: &u64| versions.get(number).is_some_and(|e| e.state.is_ok());
                roles.in_order().find(is_ready)
            }
            None => {
                let newest_first = versions.iter().rev();
                let mut answering = newest_first.filter(|(_, entry)| entry.answers_unnamed());
                answering.next().map(|(number, _)| *number)
            }
        };
        for (&number, entry) in versions.iter_mut() {
            if entry.state.is_err() || wanted.has(number) || Some(number) == answering {
                continue;
            }
            let bundle = BundleId {
                name: name.to_owned(),
                number,
            };
            // What is known of its files stays as it was when they were read.
            let read = known.read.get(&bundle).copied();
            *entry = self.left_out(known, &bundle, Some(&*entry), roles);
            if let Some(read) = read {
                known.read.insert(bundle, read);
            }
            announce(entry);
        }
    }

    /// The entry of a version that nobody asked for.
    pub(super) fn left_out(
        &self,
        known: &mut Known,
        bundle: &BundleId,
        earlier: Option<&Entry>,
        roles: Option<&Roles>,
    ) -> Entry {
        known
            .read
            .insert(bundle.clone(), self.bundles.fingerprint(bundle));
        let BundleId { name, number } = bundle;
        let is_retired = roles.is_some_and(|roles| roles.role(*number) == Role::Retired);
        let reason = match is_retired {
            true => format!(
                "retired; to have it loaded again: `bellwether model candidate {name} {number}`"
            ),
            false => format!(
                "not loaded: {} leaves it out; it is loaded when it gets a role, or by `bellwether \
                 model candidate {name} {number}`",
                self.policy.setting(name)
            ),
        };
        let statistics = earlier.map(|entry| Arc::clone(&entry.statistics));
        Entry {
            name: name.clone(),
            version: bundle.version(),
            state: Err(reason),
            not_reloaded: None,
            left_out: true,
            statistics: statistics.unwrap_or_default(),
        }
    }

    /// The version as its files are now; when they are refused and it is served, as it is served.
    pub(super) fn load_version(
        &self,
        known: &mut Known,
        bundle: &BundleId,
        earlier: Option<&Entry>,
    ) -> Entry {
        // Before they are read: what changes meanwhile is seen as changed.
        known
            .read
            .insert(bundle.clone(), self.bundles.fingerprint(bundle));
        let served = earlier.and_then(|entry| entry.state.as_ref().ok());
        let statistics = earlier.map(|entry| Arc::clone(&entry.statistics));
        let statistics = statistics.unwrap_or_default();
        let (state, not_reloaded) = match (self.build(bundle, served, &statistics), served) {
            (Err(problem), Some(served)) => (Ok(Arc::clone(served)), Some(problem)),
            (Ok(new), Some(served)) if served.scoring.is_ok() && new.scoring.is_err() => {
                let problems = new
                    .scoring
                    .as_ref()
                    .err()
                    .map(|problems| problems.join("; "));
                let problem = format!(
                    "its files score no customers, as those before do: {}",
                    problems.unwrap_or_default()
                );
                (Ok(Arc::clone(served)), Some(problem))
            }
            (state, _) => (state, None),
        };
        Entry {
            name: bundle.name.clone(),
            version: bundle.version(),
            state,
            not_reloaded,
            left_out: false,
            statistics,
        }
    }

    /// The version as its files are now; what is `served` already when they are the same.
    pub(super) fn build(
        &self,
        bundle: &BundleId,
        served: Option<&Arc<ModelVersion>>,
        statistics: &Arc<Statistics>,
    ) -> State {
        let started = Instant::now();
        let files = self.bundles.read(bundle)?;
        if let Some(served) = served
            && served.files_digest == files.digest
        {
            return Ok(Arc::clone(served));
        }
        let statistics = Arc::clone(statistics);
        let views = self.views.load();
        let built = ModelVersion::build(files, &bundle.name, &bundle.version(), &views, statistics);
        note_load(started, built.is_ok());
        let version = built?;
        trial::warm(&version);
        Ok(Arc::new(version))
    }
}

/// Whether a version was left out, or taken out of service with its model.
fn is_out(entry: &Entry) -> bool {
    entry.left_out || entry.state.as_ref().is_err_and(|reason| reason == UNLOADED)
}

/// Counts a load and the time it took.
pub fn note_load(started: Instant, loaded: bool) {
    metrics::histogram!("bellwether_model_load_seconds").record(started.elapsed());
    if !loaded {
        metrics::counter!("bellwether_model_load_failures_total").increment(1);
    }
}

/// Why a version is not served as its files are now.
fn problem_of(entry: &Entry) -> Option<String> {
    let version = &entry.version;
    match (&entry.state, &entry.not_reloaded) {
        (Err(_), _) if entry.left_out => None,
        (Err(problem), _) => Some(format!("version {version} is not loaded: {problem}")),
        (Ok(_), Some(problem)) => Some(format!(
            "version {version} is served as it was before: {problem}"
        )),
        (Ok(_), None) => None,
    }
}

/// Versions that answer those who name none, the champion where one was said, and have no folder any
/// more; none when another answers in their place.
fn gone_but_serving(
    before: Option<&Arc<Model>>,
    found: &BTreeMap<u64, Entry>,
    roles: Option<&Roles>,
) -> Vec<(u64, Entry)> {
    let answers = match roles {
        Some(roles) => found.contains_key(&roles.champion),
        None => found.values().any(Entry::answers_unnamed),
    };
    if answers {
        return Vec::new();
    }
    let before = before.into_iter().flat_map(|model| model.numbered());
    let served = |number: u64, entry: &Entry| match roles {
        Some(roles) => number == roles.champion && entry.state.is_ok(),
        None => entry.answers_unnamed(),
    };
    before
        .filter(|(number, entry)| served(*number, entry) && !found.contains_key(number))
        .map(|(number, entry)| (number, entry.clone()))
        .collect()
}
