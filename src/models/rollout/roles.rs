//! The roles of a model's versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::share::Share;

/// How many former champions are remembered, one rollback after the other.
pub const MAX_BEFORE: usize = 16;

/// How many versions may be in shadow at a time: each is scored for every answer.
pub const MAX_SHADOWS: usize = 4;

/// How many candidates are kept loaded because somebody asked for them, whatever the policy.
pub const MAX_CANDIDATES: usize = 8;

/// How many retired versions are remembered: their folders are there and they are not loaded.
pub const MAX_RETIRED: usize = 4096;

/// How many canaries that the server took back are remembered with why, of each model.
pub const MAX_TAKEN_BACK: usize = 16;

/// The roles of every model for which something was said, by the model's name. What is not in it goes
/// by its numbers: the highest version that is ready and no candidate is the champion.
pub type AllRoles = BTreeMap<String, Arc<Roles>>;

/// What a version is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It answers whoever names no version.
    Champion,
    /// It answers some of the customers in the champion's place.
    Canary,
    /// It is scored beside the champion, and its scores are recorded and answer nobody.
    Shadow,
    /// It is ready and answers only when it is named.
    Candidate,
    /// It is not loaded; its files stay.
    Retired,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Champion,
        Role::Canary,
        Role::Shadow,
        Role::Candidate,
        Role::Retired,
    ];

    /// The word for it in answers, metrics and audit rows.
    pub fn word(self) -> &'static str {
        match self {
            Role::Champion => "champion",
            Role::Canary => "canary",
            Role::Shadow => "shadow",
            Role::Candidate => "candidate",
            Role::Retired => "retired",
        }
    }
}

/// The roles of one model's versions, as they were said; versions that are not in it are candidates,
/// loaded as the policy says.
/// No version has two roles, but a former champion may be tried as shadow or canary again.
///
/// This is what audit rows and the state file hold: a field that is renamed is not read any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// The version that answers whoever names none.
    pub champion: u64,
    /// The champions before it, newest first: what a rollback returns to.
    #[serde(default)]
    pub before: Vec<u64>,
    #[serde(default)]
    pub canary: Option<Canary>,
    /// In the order of their numbers, as are `retired` and `candidates`.
    #[serde(default)]
    pub shadows: Vec<Shadow>,
    #[serde(default)]
    pub retired: Vec<u64>,
    /// Candidates that are loaded whatever the policy, because somebody asked for them.
    #[serde(default)]
    pub candidates: Vec<u64>,
    /// Canaries that the server has taken back by itself, oldest first, until they get another role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_back: Vec<TakenBack>,
    /// Counts the transitions of this model.
    pub revision: u64,
}

/// A version that answers some of the customers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    pub version: u64,
    /// How many of the customers, in percent where it is written.
    #[serde(rename = "percent")]
    pub share: Share,
    /// When it became the canary, microseconds since 1970-01-01T00:00:00Z.
    pub since_us: i64,
    /// Where it is to be judged otherwise than the configuration says.
    #[serde(default)]
    pub guardrails: Guardrails,
}

/// A version that is scored beside the champion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    pub version: u64,
    /// When it became one, microseconds since 1970-01-01T00:00:00Z.
    pub since_us: i64,
}

/// A canary that broke a limit, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenBack {
    pub version: u64,
    /// When it was taken back, microseconds since 1970-01-01T00:00:00Z.
    pub at_us: i64,
    pub reason: String,
}

/// Bounds over which a canary is taken back, each where it differs from the configuration's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guardrails {
    /// By how much its share of failed requests may exceed the champion's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_error_rate: Option<f64>,
    /// How many times the champion's p95 its own may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_latency_ratio: Option<f64>,
    /// The largest population stability index of its scores against the champion's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_score_drift: Option<f64>,
}

impl Roles {
    /// The roles that a model has as long as nothing was said: a champion, and those that would be it
    /// without the ones above, newest first, to return to.
    pub fn unsaid(champion: u64, before: Vec<u64>) -> Roles {
        let mut before = before;
        before.truncate(MAX_BEFORE);
        Roles {
            champion,
            before,
            canary: None,
            shadows: Vec::new(),
            retired: Vec::new(),
            candidates: Vec::new(),
            taken_back: Vec::new(),
            revision: 0,
        }
    }

    /// The role of a version that is ready.
    pub fn role(&self, version: u64) -> Role {
        if self.champion == version {
            Role::Champion
        } else if self.is_canary(version) {
            Role::Canary
        } else if self.is_shadow(version) {
            Role::Shadow
        } else if self.retired.binary_search(&version).is_ok() {
            Role::Retired
        } else {
            Role::Candidate
        }
    }

    pub fn is_canary(&self, version: u64) -> bool {
        let canary = self.canary.as_ref();
        canary.is_some_and(|canary| canary.version == version)
    }

    pub fn is_shadow(&self, version: u64) -> bool {
        self.shadows.iter().any(|shadow| shadow.version == version)
    }

    /// Why the server took a version back when it was the canary, if it has had no other role since.
    pub fn taken_back(&self, version: u64) -> Option<&TakenBack> {
        let mut taken_back = self.taken_back.iter();
        taken_back.find(|canary| canary.version == version)
    }

    /// The champion and those before it, in the order in which they are to answer.
    pub fn in_order(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.champion).chain(self.before.iter().copied())
    }

    /// The versions that are to be loaded, whatever the policy: those with a role, the one that a
    /// rollback would return to, and candidates that somebody asked for.
    pub fn held(&self) -> Vec<u64> {
        let canary = self.canary.as_ref().map(|canary| canary.version);
        let shadows = self.shadows.iter().map(|shadow| shadow.version);
        let mut held = vec![self.champion];
        held.extend(self.before.first());
        held.extend(canary);
        held.extend(shadows);
        held.extend(&self.candidates);
        held.sort_unstable();
        held.dedup();
        held
    }
}
