//! What is loaded at one moment, and finding a version in it.
//!
//! A catalog is never changed: [`super::repository`] replaces it by another one. Whoever holds it
//! sees one state of the whole repository for as long as they like.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::statistics::Statistics;
use super::version::ModelVersion;
use crate::features::value::shorten;

/// How many names an error lists: enough to find a misspelling, bounded in a large repository.
const MAX_LISTED: usize = 30;

/// How many characters the reasons of several versions take at most.
pub const MAX_REASONS: usize = 1500;

/// Every model of the repository, as it was when the catalog was made.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    models: HashMap<String, Arc<Model>>,
    /// The champion of every model that has one, by name.
    champions: Vec<Arc<ModelVersion>>,
}

/// The versions of one model.
#[derive(Debug)]
pub struct Model {
    versions: BTreeMap<u64, Entry>,
    /// The highest version that is ready and no candidate, looked up when the catalog is made and
    /// not per request.
    champion: Option<Arc<ModelVersion>>,
}

/// One version folder: ready, or unavailable with its reason.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub version: String,
    pub state: State,
    /// Why the files that are there now are not the ones that are served.
    pub not_reloaded: Option<String>,
    /// Counted on through every reload of this version.
    pub statistics: Arc<Statistics>,
}

/// The version, or why it is not served.
pub type State = Result<Arc<ModelVersion>, String>;

/// Why a version that was asked for cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    #[error("no model {name:?}; the models are: {known}")]
    UnknownModel { name: String, known: String },
    #[error("model {name} has no version {version:?}; it has {known}")]
    UnknownVersion {
        name: String,
        version: String,
        known: String,
    },
    /// It is in the repository, and refused or unloaded.
    #[error("{reason}")]
    NotReady { reason: String },
}

impl Catalog {
    /// A version by name and number; the champion when no version is named. Nothing is allocated
    /// unless it fails.
    ///
    /// # Errors
    /// What is there instead: no such model, no such version, or not ready with the reason.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<ModelVersion>, FindError> {
        let model = self.models.get(name);
        let model = model.ok_or_else(|| self.unknown_model(name))?;
        match version {
            None => model
                .champion
                .as_ref()
                .ok_or_else(|| model.without_champion(name)),
            Some(version) => {
                let entry = model.entry(version);
                let entry = entry.ok_or_else(|| model.unknown_version(name, version))?;
                entry.state.as_ref().map_err(|_| FindError::NotReady {
                    reason: entry.describe(),
                })
            }
        }
    }

    /// A model, whether any of its versions is ready or not.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    /// The names of all models, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.models.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Every version folder, by name and number.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let models = self.names().into_iter();
        models
            .filter_map(|name| self.models.get(name))
            .flat_map(|model| model.entries())
    }

    /// The champion of every model that has one, by name.
    pub fn champions(&self) -> &[Arc<ModelVersion>] {
        &self.champions
    }

    /// The same catalog with one model replaced, added or, for `None`, left out.
    pub fn with(&self, name: &str, model: Option<Model>) -> Catalog {
        let mut models = self.models.clone();
        match model {
            Some(model) => models.insert(name.to_owned(), Arc::new(model)),
            None => models.remove(name),
        };
        Catalog::new(models)
    }

    fn new(models: HashMap<String, Arc<Model>>) -> Catalog {
        let champions = models.values().filter_map(|model| model.champion.clone());
        let mut champions: Vec<Arc<ModelVersion>> = champions.collect();
        champions.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Catalog { models, champions }
    }

    fn unknown_model(&self, name: &str) -> FindError {
        FindError::UnknownModel {
            name: shorten(name, 64),
            known: listed(self.names().into_iter()),
        }
    }
}

impl FromIterator<(String, Model)> for Catalog {
    fn from_iter<I: IntoIterator<Item = (String, Model)>>(models: I) -> Catalog {
        let models = models.into_iter();
        Catalog::new(
            models
                .map(|(name, model)| (name, Arc::new(model)))
                .collect(),
        )
    }
}

impl Model {
    pub fn new(versions: BTreeMap<u64, Entry>) -> Model {
        let mut newest_first = versions.values().rev();
        let champion = newest_first.find(|entry| entry.answers_unnamed());
        let champion = champion.and_then(|entry| entry.state.as_ref().ok().cloned());
        Model { versions, champion }
    }

    /// The version that answers when none is named: the highest that is ready and no candidate.
    pub fn champion(&self) -> Option<&Arc<ModelVersion>> {
        self.champion.as_ref()
    }

    /// All versions, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.versions.values()
    }

    /// All versions with their numbers, oldest first.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.versions.iter().map(|(number, entry)| (*number, entry))
    }

    /// The version of that number.
    pub fn numbered_as(&self, number: u64) -> Option<&Entry> {
        self.versions.get(&number)
    }

    fn entry(&self, version: &str) -> Option<&Entry> {
        self.versions.get(&version_number(version)?)
    }

    fn without_champion(&self, name: &str) -> FindError {
        let reasons: Vec<String> = self
            .entries()
            .take(MAX_LISTED)
            .map(Entry::describe)
            .collect();
        FindError::NotReady {
            reason: format!(
                "model {name} has no version that is ready: {}",
                shorten(&reasons.join("; "), MAX_REASONS)
            ),
        }
    }

    fn unknown_version(&self, name: &str, version: &str) -> FindError {
        FindError::UnknownVersion {
            name: name.to_owned(),
            version: shorten(version, 64),
            known: listed(self.versions.values().map(|entry| entry.version.as_str())),
        }
    }
}

impl Entry {
    /// Whether it is ready and no candidate.
    pub fn answers_unnamed(&self) -> bool {
        let version = self.state.as_ref();
        version.is_ok_and(|version| !version.is_candidate())
    }

    fn describe(&self) -> String {
        match &self.state {
            Ok(version) if version.is_candidate() => format!(
                "version {} is a candidate, which answers only when it is named; to make it the \
                 champion, take `state` out of its model.toml",
                self.version
            ),
            Ok(_) => format!("version {} is ready", self.version),
            Err(reason) => format!("version {} is unavailable: {reason}", self.version),
        }
    }
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let left_out = names.len().saturating_sub(MAX_LISTED);
    let shown: Vec<String> = names
        .take(MAX_LISTED)
        .map(|name| shorten(name, 64))
        .collect();
    match left_out {
        0 => shown.join(", "),
        _ => format!("{} and {left_out} more", shown.join(", ")),
    }
}

/// A version folder's number: decimal digits, no leading zero except for "0" itself.
pub fn version_number(text: &str) -> Option<u64> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits_only && canonical {
        text.parse().ok()
    } else {
        None
    }
}
