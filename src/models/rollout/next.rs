//! What a transition leads to with the versions that there are: which are ready, and fit.

use std::sync::Arc;

use super::roles::Roles;
use super::rollouts::RolloutError;
use super::transition::{Transition, apply, in_force, without_unready};
use crate::features::value::shorten;
use crate::models::catalog::{Catalog, FindError, Model};

/// The model of that name.
///
/// # Errors
/// There is none.
pub fn known<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Model>, RolloutError> {
    catalog.known(name).map_err(RolloutError::Unknown)
}

/// That there is no such version, or what else is the matter with it.
pub fn unknown_version(catalog: &Catalog, name: &str, version: u64) -> FindError {
    let found = catalog.find(name, Some(&version.to_string()));
    found.err().unwrap_or(FindError::NotReady {
        reason: format!("version {version} was not there a moment ago; try again"),
    })
}

pub fn is_ready(model: &Model, version: u64) -> bool {
    let entry = model.numbered_as(version);
    entry.is_some_and(|entry| entry.state.is_ok())
}

/// The version that a transition is about, and the roles after it.
///
/// # Errors
/// Why it is not possible.
pub fn next_roles(
    model: &Model,
    transition: &Transition,
    now_us: i64,
) -> Result<(u64, Roles), RolloutError> {
    let name = model.name();
    let unfit = |problem: String| RolloutError::Unfit {
        transition: transition.word(),
        model: name.to_owned(),
        problem,
    };
    if let Some(version) = transition.named() {
        check_known(model, version)?;
    }
    if let Some(version) = transition.needs() {
        check_fit(
            model,
            version,
            !matches!(transition, Transition::Candidate { .. }),
        )
        .map_err(unfit)?;
    }
    let ready = |version| is_ready(model, version);
    let Some(roles) = model.roles_or_unsaid() else {
        return match transition {
            Transition::Promote { version } => {
                let mut roles = Roles::unsaid(*version, Vec::new());
                roles.revision = 1;
                Ok((*version, roles))
            }
            _ => Err(unfit(
                "it has no champion; promote a version first".to_owned(),
            )),
        };
    };
    // While the champion cannot answer, the last one before it that can stands in. To promote the
    // stand-in, or to take the champion back, makes it what it is already; other transitions leave
    // that open.
    let standing_in = in_force(&roles, ready);
    if standing_in.champion != roles.champion {
        let settled = match transition {
            Transition::Promote { version } => *version == standing_in.champion,
            Transition::Rollback { from } => {
                roles.canary.is_none() && from.is_none_or(|from| from == roles.champion)
            }
            _ => false,
        };
        if settled {
            let version = transition.subject(&roles);
            let revision = roles.revision + 1;
            let roles = Roles {
                revision,
                ..standing_in
            };
            return Ok((version, roles));
        }
    }
    let mut roles = match transition {
        Transition::Promote { .. } => standing_in,
        _ => roles,
    };
    if matches!(transition, Transition::Rollback { .. }) && roles.canary.is_none() {
        let before = shorten(&format!("{:?}", roles.before), 100);
        let had_some = !roles.before.is_empty();
        without_unready(&mut roles, ready);
        if had_some && roles.before.is_empty() {
            return Err(unfit(format!(
                "none of the champions before version {} is ready, of {before}; promote another \
                 version",
                roles.champion
            )));
        }
    }
    forget_gone(&mut roles, model);
    let version = transition.subject(&roles);
    match apply(&roles, transition, now_us) {
        Ok(next) => Ok((version, next)),
        Err(refusal) => Err(RolloutError::Refused {
            transition: transition.word(),
            model: name.to_owned(),
            version,
            refusal,
        }),
    }
}

/// Forgets retired versions, candidates and former canaries that are not there any more.
pub fn forget_gone(roles: &mut Roles, model: &Model) {
    let is_there = |version: &u64| model.numbered_as(*version).is_some();
    roles.retired.retain(is_there);
    roles.candidates.retain(is_there);
    roles.taken_back.retain(|canary| is_there(&canary.version));
}

fn check_known(model: &Model, version: u64) -> Result<(), RolloutError> {
    match model.numbered_as(version) {
        Some(_) => Ok(()),
        None => {
            let version = version.to_string();
            let problem = model.unknown_version(&version);
            Err(RolloutError::Unknown(problem))
        }
    }
}

/// Whether a version can answer: it is ready and, if it `is_to_answer` customers of a champion that
/// reads a view, reads the same one.
fn check_fit(model: &Model, version: u64, is_to_answer: bool) -> Result<(), String> {
    let entry = model.numbered_as(version);
    let ready = match entry.map(|entry| &entry.state) {
        Some(Ok(ready)) => ready,
        Some(Err(reason)) => return Err(format!("version {version} is not ready: {reason}")),
        None => return Err(format!("version {version} has no folder")),
    };
    let champion = model
        .champion()
        .and_then(|champion| champion.scoring.as_ref().ok());
    let Some(champion) = champion.filter(|_| is_to_answer) else {
        return Ok(());
    };
    match &ready.scoring {
        Ok(scoring) if scoring.view.name == champion.view.name => Ok(()),
        Ok(scoring) => Err(format!(
            "version {version} reads view {}, and the champion reads {}",
            scoring.view.name, champion.view.name
        )),
        Err(problems) => Err(format!(
            "version {version} scores no customers, as the champion does: {}",
            problems.join("; ")
        )),
    }
}
