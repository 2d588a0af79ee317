//! Looks after versions on trial: every second a canary is held to its limits and rolled back when it
//! breaks one; a shadow version with a fault is reported, and left as it is.
//!
//! A rollback is a transition like any other, made by `server`: durable in the ledger with its reason
//! before it takes effect. Where it cannot be made (the disk takes nothing) it is tried again a second
//! later; meanwhile the champion answers what the canary fails on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::App;
use crate::features::value::shorten;
use crate::models::catalog::{Catalog, Model};
use crate::models::comparison::guardrails::Breach;
use crate::models::metrics;
use crate::models::rollout::transition::Refusal;
use crate::models::rollout::{Change, RolloutError, Transition};

/// How often canaries are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Every how many looks shadow versions are: nothing follows from what is seen.
const SHADOWS_EVERY: u32 = 5;

/// How much of a reason is kept with the roles, in characters; the audit row has all of it.
const MAX_REASON_CHARS: usize = 500;

/// The faults of shadow versions that are in the log, by model and version.
type Told = BTreeMap<(String, String), BTreeSet<String>>;

/// Watches until it is dropped.
pub async fn watch(app: &Arc<App>) {
    let mut told = Told::new();
    let mut looks = 0_u32;
    loop {
        tokio::time::sleep(EVERY).await;
        looks = looks.wrapping_add(1);
        let catalog = app.scorer.repository.catalog();
        // So that what was scored counts for the role that the version has now.
        metrics::attribute(&catalog);
        for name in catalog.names() {
            if let Some(model) = catalog.model(name) {
                look_after(app, model).await;
            }
        }
        if looks.is_multiple_of(SHADOWS_EVERY) {
            tell_of_shadows(app, &catalog, &mut told);
        }
    }
}

/// Holds a model's canary, if it has one, to its limits.
async fn look_after(app: &Arc<App>, model: &Model) {
    let (Some((canary, version)), Some(watch)) = (model.canary(), model.watch()) else {
        return;
    };
    let usual = app.config.rollout.guardrails();
    // Limits that cannot be meant were refused when they were said.
    watch.hold_to(usual.with(&canary.guardrails).unwrap_or(usual));
    if let Some(breach) = watch.breach() {
        roll_back(app, &version.name, canary.version, breach).await;
    }
}

async fn roll_back(app: &Arc<App>, model: &str, version: u64, breach: Breach) {
    let change = Change {
        transition: Transition::EndCanary {
            version,
            reason: shorten(&breach.words, MAX_REASON_CHARS),
        },
        actor: "server".to_owned(),
        reason: format!("canary {model}/{version}: {}", breach.words),
    };
    let reason = change.reason.clone();
    match app.rollouts.change_aside(model.to_owned(), change).await {
        Ok(_) => {
            metrics::rolled_back(model, breach.limit.name());
            let version = version.to_string();
            tracing::warn!(model, version, reason, "canary rolled back");
        }
        // Somebody was quicker.
        Err(RolloutError::Refused {
            refusal: Refusal::NotCanary,
            ..
        }) => {}
        Err(error) => {
            let version = version.to_string();
            tracing::error!(model, version, reason, error = %error, "canary not rolled back");
        }
    }
}

/// Says in the log what is wrong with shadow versions, each fault once while it lasts.
fn tell_of_shadows(app: &App, catalog: &Catalog, told: &mut Told) {
    let limits = app.config.rollout.guardrails();
    let mut now = Told::new();
    for entry in catalog.entries() {
        let Some(comparison) = entry.statistics.watched.shadow() else {
            continue;
        };
        let of_version = (entry.name.clone(), entry.version.clone());
        let before = told.get(&of_version);
        let mut faults = BTreeSet::new();
        for fault in comparison.report(&limits).faults {
            // What is before the colon says which; what is behind it changes from look to look.
            let kind = fault.split(':').next().unwrap_or_default().to_owned();
            if before.is_none_or(|before| !before.contains(&kind)) {
                tracing::warn!(
                    model = entry.name,
                    version = entry.version,
                    fault,
                    "shadow version has a fault"
                );
            }
            faults.insert(kind);
        }
        now.insert(of_version, faults);
    }
    *told = now;
}
