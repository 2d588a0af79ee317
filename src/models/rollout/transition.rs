//! The transitions from one set of roles to the next: a function, without a clock, files or locks.

use super::roles::{
    Canary, Guardrails, MAX_BEFORE, MAX_CANDIDATES, MAX_RETIRED, MAX_SHADOWS, MAX_TAKEN_BACK, Role,
    Roles, Shadow, TakenBack,
};
use super::share::Share;

/// What somebody wants done to the roles of a model's versions.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// Score it beside the champion.
    Shadow { version: u64 },
    /// Have it answer a share of the customers; of the canary, change its share or its guardrails.
    Canary {
        version: u64,
        share: Share,
        /// `None` leaves a canary's as they are.
        guardrails: Option<Guardrails>,
    },
    /// Have it answer everyone who names no version.
    Promote { version: u64 },
    /// End the canary; without one, go back to the champion before this one. `from` is what is
    /// expected to be taken back, if that was said.
    Rollback { from: Option<u64> },
    /// End the canary if it still is that version: what the server does by itself, which must not
    /// take back what somebody has promoted meanwhile.
    EndCanary { version: u64, reason: String },
    /// Take it out of memory.
    Retire { version: u64 },
    /// End its shadow, its canary or its retirement, and keep it loaded whatever the policy.
    Candidate { version: u64 },
}

/// Why a transition is not possible now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is the champion; promote another version first")]
    IsChampion,
    #[error("it is the champion already")]
    IsChampionAlready,
    #[error("it is {what} already")]
    Already { what: &'static str },
    #[error(
        "version {canary} is the canary; promote it or end it (rollback) before another becomes one"
    )]
    AnotherCanary { canary: u64 },
    #[error("it is not the canary any more")]
    NotCanary,
    #[error("version {taken_back} is what a rollback would take back now")]
    AnotherTakenBack { taken_back: u64 },
    #[error("{MAX_SHADOWS} versions are in shadow, which is the most; end one of them first")]
    TooManyShadows,
    #[error(
        "{MAX_CANDIDATES} candidates are kept loaded because somebody asked for them, which is the \
         most: {}; give one of them a role or retire it first", list(.candidates)
    )]
    TooManyCandidates { candidates: Vec<u64> },
    #[error("{MAX_RETIRED} versions are retired, which is the most; delete folders of some first")]
    TooManyRetired,
    #[error("there is no champion before version {champion} to go back to, and no canary to end")]
    NothingBefore { champion: u64 },
}

impl Transition {
    /// The word for it in commands, requests and audit rows.
    pub fn word(&self) -> &'static str {
        match self {
            Transition::Shadow { .. } => "shadow",
            Transition::Canary { .. } => "canary",
            Transition::Promote { .. } => "promote",
            Transition::Rollback { .. } | Transition::EndCanary { .. } => "rollback",
            Transition::Retire { .. } => "retire",
            Transition::Candidate { .. } => "candidate",
        }
    }

    /// The version that is named; of a rollback, the one that it takes back.
    pub fn subject(&self, roles: &Roles) -> u64 {
        match self {
            Transition::Shadow { version }
            | Transition::Canary { version, .. }
            | Transition::Promote { version }
            | Transition::EndCanary { version, .. }
            | Transition::Retire { version }
            | Transition::Candidate { version } => *version,
            Transition::Rollback { .. } => {
                let canary = roles.canary.as_ref();
                canary.map_or(roles.champion, |canary| canary.version)
            }
        }
    }

    /// The version that is named, if one is.
    pub fn named(&self) -> Option<u64> {
        match self {
            Transition::Retire { version } | Transition::EndCanary { version, .. } => {
                Some(*version)
            }
            _ => self.needs(),
        }
    }

    /// The version that is to be ready afterwards, for which it may have to be loaded first.
    pub fn needs(&self) -> Option<u64> {
        match self {
            Transition::Shadow { version }
            | Transition::Canary { version, .. }
            | Transition::Promote { version }
            | Transition::Candidate { version } => Some(*version),
            Transition::Rollback { .. }
            | Transition::EndCanary { .. }
            | Transition::Retire { .. } => None,
        }
    }
}

/// The roles after a transition at `now_us`.
///
/// # Errors
/// Why it is not possible with these roles.
pub fn apply(roles: &Roles, transition: &Transition, now_us: i64) -> Result<Roles, Refusal> {
    let mut next = roles.clone();
    match transition {
        Transition::Shadow { version } => shadow(&mut next, *version, now_us)?,
        Transition::Canary {
            version,
            share,
            guardrails,
        } => canary(&mut next, *version, *share, *guardrails, now_us)?,
        Transition::Promote { version } => promote(&mut next, *version)?,
        Transition::Rollback { from } => {
            let taken_back = transition.subject(roles);
            if from.is_some_and(|from| from != taken_back) {
                return Err(Refusal::AnotherTakenBack { taken_back });
            }
            roll_back(&mut next)?;
        }
        Transition::EndCanary { version, reason } => {
            end_canary(&mut next, *version, reason, now_us)?;
        }
        Transition::Retire { version } => retire(&mut next, *version)?,
        Transition::Candidate { version } => keep_as_candidate(&mut next, *version)?,
    }
    next.revision += 1;
    Ok(next)
}

/// The roles with a champion that is ready, if there is one: the last of those before it, when it is
/// not.
pub fn in_force(roles: &Roles, ready: impl Fn(u64) -> bool) -> Roles {
    let mut roles = roles.clone();
    let answers = roles.in_order().position(ready);
    if let Some(position @ 1..) = answers {
        let champion = roles.before[position - 1];
        roles.before.drain(..position);
        relieve(&mut roles, champion);
        roles.champion = champion;
    }
    roles
}

/// Forgets former champions that are not ready, up to the first that is: a rollback goes there.
pub fn without_unready(roles: &mut Roles, ready: impl Fn(u64) -> bool) {
    let position = roles.before.iter().position(|version| ready(*version));
    let unready = position.unwrap_or(roles.before.len());
    roles.before.drain(..unready);
}

fn shadow(roles: &mut Roles, version: u64, now_us: i64) -> Result<(), Refusal> {
    match roles.role(version) {
        Role::Champion => return Err(Refusal::IsChampion),
        Role::Shadow => return Err(already(Role::Shadow)),
        Role::Canary | Role::Candidate | Role::Retired => relieve(roles, version),
    }
    if roles.shadows.len() >= MAX_SHADOWS {
        return Err(Refusal::TooManyShadows);
    }
    roles.shadows.push(Shadow {
        version,
        since_us: now_us,
    });
    roles.shadows.sort_unstable_by_key(|shadow| shadow.version);
    Ok(())
}

fn canary(
    roles: &mut Roles,
    version: u64,
    share: Share,
    guardrails: Option<Guardrails>,
    now_us: i64,
) -> Result<(), Refusal> {
    if roles.champion == version {
        return Err(Refusal::IsChampion);
    }
    if let Some(canary) = &mut roles.canary {
        if canary.version != version {
            return Err(Refusal::AnotherCanary {
                canary: canary.version,
            });
        }
        let guardrails = guardrails.unwrap_or(canary.guardrails);
        if canary.share == share && canary.guardrails == guardrails {
            return Err(already(Role::Canary));
        }
        canary.share = share;
        canary.guardrails = guardrails;
        return Ok(());
    }
    relieve(roles, version);
    roles.canary = Some(Canary {
        version,
        share,
        since_us: now_us,
        guardrails: guardrails.unwrap_or_default(),
    });
    Ok(())
}

fn promote(roles: &mut Roles, version: u64) -> Result<(), Refusal> {
    if roles.champion == version {
        return Err(Refusal::IsChampionAlready);
    }
    relieve(roles, version);
    roles.before.retain(|before| *before != version);
    roles.before.insert(0, roles.champion);
    roles.before.truncate(MAX_BEFORE);
    roles.champion = version;
    Ok(())
}

fn roll_back(roles: &mut Roles) -> Result<(), Refusal> {
    if roles.canary.take().is_some() {
        return Ok(());
    }
    if roles.before.is_empty() {
        return Err(Refusal::NothingBefore {
            champion: roles.champion,
        });
    }
    let version = roles.before.remove(0);
    // It may have been tried as shadow again.
    relieve(roles, version);
    roles.champion = version;
    Ok(())
}

fn end_canary(roles: &mut Roles, version: u64, reason: &str, now_us: i64) -> Result<(), Refusal> {
    if !roles.is_canary(version) {
        return Err(Refusal::NotCanary);
    }
    relieve(roles, version);
    if roles.taken_back.len() >= MAX_TAKEN_BACK {
        roles.taken_back.remove(0);
    }
    roles.taken_back.push(TakenBack {
        version,
        at_us: now_us,
        reason: reason.to_owned(),
    });
    Ok(())
}

fn retire(roles: &mut Roles, version: u64) -> Result<(), Refusal> {
    match roles.role(version) {
        Role::Champion => return Err(Refusal::IsChampion),
        Role::Retired => return Err(already(Role::Retired)),
        Role::Canary | Role::Shadow | Role::Candidate => relieve(roles, version),
    }
    if roles.retired.len() >= MAX_RETIRED {
        return Err(Refusal::TooManyRetired);
    }
    roles.before.retain(|before| *before != version);
    roles.retired.push(version);
    roles.retired.sort_unstable();
    Ok(())
}

fn keep_as_candidate(roles: &mut Roles, version: u64) -> Result<(), Refusal> {
    if roles.champion == version {
        return Err(Refusal::IsChampion);
    }
    if roles.candidates.contains(&version) {
        return Err(already(Role::Candidate));
    }
    if roles.candidates.len() >= MAX_CANDIDATES {
        return Err(Refusal::TooManyCandidates {
            candidates: roles.candidates.clone(),
        });
    }
    relieve(roles, version);
    roles.candidates.push(version);
    roles.candidates.sort_unstable();
    Ok(())
}

/// Takes a version's role away, if it is canary, shadow, retired or a candidate that is kept, and forgets
/// that it was taken back.
fn relieve(roles: &mut Roles, version: u64) {
    if roles.is_canary(version) {
        roles.canary = None;
    }
    roles.shadows.retain(|shadow| shadow.version != version);
    roles.retired.retain(|retired| *retired != version);
    roles.candidates.retain(|candidate| *candidate != version);
    roles.taken_back.retain(|canary| canary.version != version);
}

fn list(versions: &[u64]) -> String {
    let versions: Vec<String> = versions.iter().map(u64::to_string).collect();
    versions.join(", ")
}

fn already(role: Role) -> Refusal {
    Refusal::Already {
        what: match role {
            Role::Champion => "the champion",
            Role::Canary => "the canary, with that share and those guardrails,",
            Role::Shadow => "in shadow",
            Role::Candidate => "a candidate that is kept loaded",
            Role::Retired => "retired",
        },
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
