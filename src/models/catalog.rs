//! What is loaded at one moment, and finding a version in it.
//!
//! A catalog is never changed: [`super::repository`] replaces it by another one. Whoever holds it
//! sees one state of the whole repository for as long as they like.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::comparison::canary::CanaryWatch;
use super::comparison::watched;
use super::rollout::{Canary, Role, Roles};
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
    /// The models of `champions`, in the same order.
    answering: Vec<Arc<Model>>,
}

/// The versions of one model, and what each is for. Who answers is looked up when the catalog is made
/// and not per request.
#[derive(Debug)]
pub struct Model {
    name: String,
    versions: BTreeMap<u64, Entry>,
    /// What was said of them; `None` when nothing was.
    roles: Option<Arc<Roles>>,
    champion: Option<Arc<ModelVersion>>,
    /// The version that is to answer some of the customers, when it is ready.
    canary: Option<(Canary, Arc<ModelVersion>)>,
    /// Counts the requests to the canary and to the champion while there are both.
    watch: Option<Arc<CanaryWatch>>,
    /// Those of them that are ready; `None` when there are none, so that who asks pays nothing.
    shadows: Option<Arc<[Arc<ModelVersion>]>>,
}

/// The versions that have to do with one customer's score.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Who answers.
    pub version: Arc<ModelVersion>,
    /// The champion, when `version` is the canary: it answers if the canary cannot.
    pub fallback: Option<Arc<ModelVersion>>,
    /// Those that are scored beside the champion; none when the canary answers.
    pub shadows: Option<Arc<[Arc<ModelVersion>]>>,
    /// Counts what comes of it, when the model has a canary, whoever answers.
    pub watch: Option<Arc<CanaryWatch>>,
}

/// One version folder: ready, or unavailable with its reason.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub version: String,
    pub state: State,
    /// Why the files that are there now are not the ones that are served.
    pub not_reloaded: Option<String>,
    /// It was not refused: nobody asked for it to be loaded, and `state` says which setting leaves it
    /// out.
    pub left_out: bool,
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
        let model = self.known(name)?;
        match version {
            None => model
                .champion
                .as_ref()
                .ok_or_else(|| model.without_champion()),
            Some(version) => {
                let entry = model.entry(version);
                let entry = entry.ok_or_else(|| model.unknown_version(version))?;
                if model.is_retired(version) {
                    return Err(FindError::NotReady {
                        reason: format!(
                            "version {version} is retired; to have it loaded again: `bellwether \
                             model candidate {name} {version}`"
                        ),
                    });
                }
                entry.state.as_ref().map_err(|_| FindError::NotReady {
                    reason: entry.describe(),
                })
            }
        }
    }

    /// A model, whether any of its versions is ready or not.
    ///
    /// # Errors
    /// No such model, and which there are.
    pub fn known(&self, name: &str) -> Result<&Arc<Model>, FindError> {
        self.models
            .get(name)
            .ok_or_else(|| self.unknown_model(name))
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

    /// Every version folder with its role, by name and number.
    pub fn with_roles(&self) -> impl Iterator<Item = (Role, &Entry)> {
        let models = self.names().into_iter();
        models
            .filter_map(|name| self.models.get(name))
            .flat_map(|model| {
                let numbered = model.numbered();
                numbered.map(|(number, entry)| (model.role(number), entry))
            })
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

    /// Every model that has a champion, by name.
    pub fn answering(&self) -> &[Arc<Model>] {
        &self.answering
    }

    /// The versions of a model that have to do with the score of the customer of that key.
    ///
    /// # Errors
    /// No such model, or none of its versions answers, with the reason.
    pub fn for_customer(&self, name: &str, key: &str) -> Result<Chosen, FindError> {
        let model = self.known(name)?;
        let chosen = model.for_customer(key);
        chosen.ok_or_else(|| model.without_champion())
    }

    fn new(models: HashMap<String, Arc<Model>>) -> Catalog {
        let answering = models.values().filter(|model| model.champion.is_some());
        let mut answering: Vec<Arc<Model>> = answering.cloned().collect();
        answering.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        let champions = answering.iter();
        let champions = champions
            .filter_map(|model| model.champion.clone())
            .collect();
        Catalog {
            models,
            champions,
            answering,
        }
    }

    fn unknown_model(&self, name: &str) -> FindError {
        FindError::UnknownModel {
            name: shorten(name, 64),
            known: listed(self.names().into_iter()),
        }
    }
}

impl FromIterator<Model> for Catalog {
    fn from_iter<I: IntoIterator<Item = Model>>(models: I) -> Catalog {
        let models = models.into_iter();
        Catalog::new(
            models
                .map(|model| (model.name.clone(), Arc::new(model)))
                .collect(),
        )
    }
}

impl Model {
    /// The model of that name, with the roles that were said. A version that is not ready does not
    /// take its role: in place of the champion the last one before it answers that is ready; the
    /// champion answers a canary's customers. Without roles the champion is the highest version that
    /// is ready and no candidate.
    pub fn new(name: &str, versions: BTreeMap<u64, Entry>, roles: Option<Arc<Roles>>) -> Model {
        let ready = |number: u64| ready_version(&versions, number);
        let (champion, canary, shadows) = match &roles {
            None => {
                let mut newest_first = versions.values().rev();
                let champion = newest_first.find(|entry| entry.answers_unnamed());
                let champion = champion.and_then(|entry| entry.state.as_ref().ok().cloned());
                (champion, None, Vec::new())
            }
            Some(roles) => {
                let canary = roles.canary.as_ref();
                let canary =
                    canary.and_then(|canary| Some((canary.clone(), ready(canary.version)?)));
                let shadows = roles.shadows.iter();
                let shadows = shadows.filter_map(|shadow| ready(shadow.version));
                (roles.in_order().find_map(ready), canary, shadows.collect())
            }
        };
        let statistics = versions.iter();
        let statistics = statistics.map(|(number, entry)| (*number, &*entry.statistics));
        let champion_version = champion.as_ref().map(|champion| champion.version.as_str());
        let watch = watched::begin(statistics, roles.as_deref(), champion_version);
        Model {
            name: name.to_owned(),
            watch: watch.filter(|_| canary.is_some()),
            shadows: (!shadows.is_empty()).then(|| Arc::from(shadows)),
            versions,
            roles,
            champion,
            canary,
        }
    }

    /// The same versions in other roles.
    pub fn with_roles(&self, roles: Option<Arc<Roles>>) -> Model {
        Model::new(&self.name, self.versions.clone(), roles)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that answers when none is named.
    pub fn champion(&self) -> Option<&Arc<ModelVersion>> {
        self.champion.as_ref()
    }

    /// The versions that have to do with the score of the customer of that key; `None` without a
    /// champion.
    pub fn for_customer(&self, key: &str) -> Option<Chosen> {
        let champion = self.champion.as_ref()?;
        if let Some((canary, version)) = &self.canary
            && canary.share.takes(&self.name, key)
        {
            return Some(Chosen {
                version: Arc::clone(version),
                fallback: Some(Arc::clone(champion)),
                shadows: None,
                watch: self.watch.clone(),
            });
        }
        Some(Chosen {
            version: Arc::clone(champion),
            fallback: None,
            shadows: self.shadows.clone(),
            watch: self.watch.clone(),
        })
    }

    /// What is known of the canary and the champion beside each other.
    pub fn watch(&self) -> Option<&Arc<CanaryWatch>> {
        self.watch.as_ref()
    }

    /// The canary, when it is ready.
    pub fn canary(&self) -> Option<(&Canary, &Arc<ModelVersion>)> {
        let canary = self.canary.as_ref();
        canary.map(|(canary, version)| (canary, version))
    }

    /// The shadows that are ready.
    pub fn shadows(&self) -> &[Arc<ModelVersion>] {
        self.shadows.as_deref().unwrap_or_default()
    }

    /// What was said of its versions; `None` when nothing was.
    pub fn roles(&self) -> Option<&Arc<Roles>> {
        self.roles.as_ref()
    }

    /// What was said of its versions, and what follows from their numbers when nothing was; `None`
    /// when that is nothing: no version answers.
    pub fn roles_or_unsaid(&self) -> Option<Roles> {
        if let Some(roles) = &self.roles {
            return Some(Roles::clone(roles));
        }
        let newest_first = self.versions.iter().rev();
        let mut answering = newest_first
            .filter(|(_, entry)| entry.answers_unnamed())
            .map(|(number, _)| *number);
        let champion = answering.next()?;
        Some(Roles::unsaid(champion, answering.collect()))
    }

    /// The role of the version of that number, whether it is ready or not. Who answers in place of a
    /// champion that is not ready has the role, and the champion is a candidate until it is.
    pub fn role(&self, number: u64) -> Role {
        let answers = self.champion.as_ref();
        let answers = answers.and_then(|version| version_number(&version.version));
        if answers == Some(number) {
            return Role::Champion;
        }
        let said = self.roles.as_ref().map(|roles| roles.role(number));
        match said {
            Some(Role::Champion) | None => Role::Candidate,
            Some(role) => role,
        }
    }

    /// Why another version answers than the champion that was said, when that is so.
    pub fn stand_in(&self) -> Option<String> {
        let said = self.roles.as_ref()?.champion;
        if ready_version(&self.versions, said).is_some() {
            return None;
        }
        let problem = match self.versions.get(&said) {
            Some(entry) => entry.describe(),
            None => format!("version {said} has no folder"),
        };
        let answers = match &self.champion {
            Some(version) => format!(
                "version {}, the champion before it, answers",
                version.version
            ),
            None => "no champion before it is ready, so none answers".to_owned(),
        };
        Some(format!("the champion cannot answer: {problem}; {answers}"))
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

    /// Its memory may not be free yet, but it answers nobody any more.
    fn is_retired(&self, version: &str) -> bool {
        let Some(roles) = &self.roles else {
            return false;
        };
        version_number(version).is_some_and(|version| roles.role(version) == Role::Retired)
    }

    fn entry(&self, version: &str) -> Option<&Entry> {
        self.versions.get(&version_number(version)?)
    }

    fn without_champion(&self) -> FindError {
        let name = &self.name;
        let entries = self.entries().take(MAX_LISTED);
        let reasons: Vec<String> = match &self.roles {
            None => entries.map(Entry::describe).collect(),
            Some(roles) => {
                let champion = format!(
                    "its champion, version {}, cannot answer, nor can one before it; promote one \
                     with `bellwether model promote {name} VERSION`",
                    roles.champion
                );
                std::iter::once(champion)
                    .chain(entries.map(Entry::describe))
                    .collect()
            }
        };
        FindError::NotReady {
            reason: format!(
                "model {name} has no version that is ready: {}",
                shorten(&reasons.join("; "), MAX_REASONS)
            ),
        }
    }

    /// That it has no version of that name, and which it has.
    pub fn unknown_version(&self, version: &str) -> FindError {
        FindError::UnknownVersion {
            name: self.name.clone(),
            version: shorten(version, 64),
            known: listed(self.versions.values().map(|entry| entry.version.as_str())),
        }
    }
}

impl Entry {
    /// Whether it is ready and its manifest does not call it a candidate: where no roles were said,
    /// the highest of these is the champion.
    pub fn answers_unnamed(&self) -> bool {
        let version = self.state.as_ref();
        version.is_ok_and(|version| !version.is_candidate())
    }

    fn describe(&self) -> String {
        match &self.state {
            Ok(version) if version.is_candidate() => format!(
                "version {} is a candidate, which answers only when it is named; to make it the \
                 champion: `bellwether model promote {} {}`",
                self.version, self.name, self.version
            ),
            Ok(_) => format!("version {} is ready", self.version),
            Err(reason) => format!("version {} is unavailable: {reason}", self.version),
        }
    }
}

fn ready_version(versions: &BTreeMap<u64, Entry>, number: u64) -> Option<Arc<ModelVersion>> {
    versions.get(&number)?.state.as_ref().ok().cloned()
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
