//! Makes transitions: checked, recorded, kept, and then in force.
//!
//! In this order: a version that is to get a role is loaded; the transition is worked out from the
//! roles in force; its audit row is durable; the state file is replaced; the catalog has the new roles,
//! from which moment on they answer; the caller is told. Transitions of all models are made one after
//! the other. None of them waits for a load but that of its own version, which happens before its turn.
//!
//! What is refused leaves nothing behind. What was recorded and not told (the process was killed, or
//! the disk took too long) may count after a restart: whoever was not told asks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::error::TryRecvError;

use super::journal::{Details, State, action};
use super::next::{is_ready, known, next_roles, unknown_version};
use super::roles::Roles;
use super::transition::{Refusal, Transition};
use crate::clock;
use crate::ledger::{AppendError, Audit, Ledger, newest_segment};
use crate::models::catalog::{Catalog, FindError};
use crate::models::repository::Repository;

/// How long a transition waits for its audit row to be durable.
const RECORD_DEADLINE: Duration = Duration::from_secs(10);

/// How often it looks whether it is.
const RECORD_POLL: Duration = Duration::from_micros(500);

/// How often a version is loaded that is taken out before it has got its role.
const LOAD_TRIES: usize = 3;

/// Makes the transitions of one server.
pub struct Rollouts {
    repository: Arc<Repository>,
    ledger: Arc<Ledger>,
    data_dir: PathBuf,
    /// What is kept. Held for the length of a transition.
    state: Mutex<State>,
}

/// A transition, who wants it and why.
#[derive(Debug, Clone)]
pub struct Change {
    pub transition: Transition,
    /// `key:<id>`, `anonymous`, `server`.
    pub actor: String,
    pub reason: String,
}

/// Why a transition was not made.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// No such model or version.
    #[error("{0}")]
    Unknown(FindError),
    #[error("{transition} {model}/{version}: {refusal}")]
    Refused {
        transition: &'static str,
        model: String,
        version: u64,
        refusal: Refusal,
    },
    /// A version cannot take the role.
    #[error("{transition} {model}: {problem}")]
    Unfit {
        transition: &'static str,
        model: String,
        problem: String,
    },
    #[error("the transition cannot be recorded now: {0}; nothing has changed, try again")]
    Ledger(#[from] AppendError),
    #[error(
        "the transition was not on the disk within {} s; nothing has changed, but it may count after \
         a restart: look at the state before trying again",
        RECORD_DEADLINE.as_secs()
    )]
    Unconfirmed,
}

impl Rollouts {
    /// Goes on from the state that was read when the repository was opened, with the ledger open.
    pub fn open(
        repository: Arc<Repository>,
        ledger: Arc<Ledger>,
        data_dir: PathBuf,
        state: State,
    ) -> Rollouts {
        let rollouts = Rollouts {
            repository,
            ledger,
            data_dir,
            state: Mutex::new(state),
        };
        rollouts.checkpoint();
        for name in rollouts.repository.catalog().names() {
            rollouts.warn_of_stand_in(name);
        }
        rollouts
    }

    /// Makes a transition. Blocks until it is durable and in force, and before that while a version
    /// that has to be loaded loads. Returns the roles that it led to.
    ///
    /// # Errors
    /// See [`RolloutError`]; nothing has changed then.
    pub fn change(&self, model: &str, change: &Change) -> Result<Roles, RolloutError> {
        let (mut state, catalog) = self.turn(model, &change.transition)?;
        let found = known(&catalog, model)?;
        let now_us = clock::now_us();
        let (version, next) = next_roles(found, &change.transition, now_us)?;
        self.record(&mut state, model, version, change, &next, now_us)?;
        self.repository.set_roles(model, next.clone());
        drop(state);
        // From now on it stays loaded; it may have been taken out in the moment before.
        // A rollback needs none: those that it may need next are loaded by `release`.
        let in_force = match change.transition.needs() {
            Some(_) => self.make_ready(model, &change.transition),
            None => Ok(()),
        };
        if let Err(problem) = in_force {
            tracing::error!(model, version, problem = %problem, "it has its role and is not loaded");
        }
        // What has lost its role may go; what has got one is loaded already.
        self.repository.release(model);
        tracing::info!(
            model,
            version,
            transition = change.transition.word(),
            actor = change.actor,
            reason = change.reason,
            champion = next.champion,
            "rollout"
        );
        Ok(next)
    }

    /// [`Rollouts::change`] on a thread of its own kind, which finishes also when the caller goes away.
    ///
    /// # Errors
    /// As [`Rollouts::change`].
    pub async fn change_aside(
        self: &Arc<Self>,
        model: String,
        change: Change,
    ) -> Result<Roles, RolloutError> {
        let rollouts = Arc::clone(self);
        let changed = tokio::task::spawn_blocking(move || rollouts.change(&model, &change)).await;
        // It ended without an answer: the server is shutting down.
        changed.unwrap_or(Err(RolloutError::Unconfirmed))
    }

    /// Has a model for which nothing was said keep the champion that follows from its numbers: a
    /// version that comes later is a candidate then, and answers when somebody says so. For whoever
    /// adds one; nothing happens where roles were said or nobody answers.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn pin(&self, model: &str, actor: &str) -> Result<(), RolloutError> {
        let mut state = self.lock();
        let catalog = self.repository.catalog();
        let Some(found) = catalog.model(model).filter(|model| model.roles().is_none()) else {
            return Ok(());
        };
        let Some(mut roles) = found.roles_or_unsaid() else {
            return Ok(());
        };
        roles.revision = 1;
        let change = Change {
            transition: Transition::Promote {
                version: roles.champion,
            },
            actor: actor.to_owned(),
            reason: "it was the champion by its number when another version was deployed"
                .to_owned(),
        };
        let version = roles.champion;
        self.record(&mut state, model, version, &change, &roles, clock::now_us())?;
        self.repository.set_roles(model, roles);
        Ok(())
    }

    /// Notes from which segment of the ledger on there may be rows that the state file does not know,
    /// so that a start reads little. To be called every now and then.
    pub fn checkpoint(&self) {
        let mut state = self.lock();
        let newest = match newest_segment(&self.data_dir) {
            Ok(Some(newest)) if newest != state.segment => newest,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(error = %error, "the ledger's folder cannot be listed");
                return;
            }
        };
        // Every transition so far is in the state, and later ones are in this segment or a later one.
        state.segment = newest;
        self.write(&state);
    }

    /// Waits for the turn of a transition, and has the version loaded that it needs. The catalog is what
    /// it is worked out from.
    fn turn(
        &self,
        model: &str,
        transition: &Transition,
    ) -> Result<(MutexGuard<'_, State>, Arc<Catalog>), RolloutError> {
        let mut tries = 0;
        loop {
            self.make_ready(model, transition)?;
            let state = self.lock();
            let catalog = self.repository.catalog();
            let found = known(&catalog, model)?;
            tries += 1;
            // Without a role it may be taken out again at any time.
            match transition.needs() {
                Some(version) if !is_ready(found, version) && tries < LOAD_TRIES => {}
                _ => return Ok((state, catalog)),
            }
        }
    }

    /// Loads the version that a transition needs, if it is known and not loaded.
    fn make_ready(&self, model: &str, transition: &Transition) -> Result<(), RolloutError> {
        let catalog = self.repository.catalog();
        let found = known(&catalog, model)?;
        let wanted = match transition {
            Transition::Rollback { .. } => {
                let roles = found.roles_or_unsaid();
                let roles = roles.filter(|roles| roles.canary.is_none());
                roles.and_then(|roles| roles.before.first().copied())
            }
            _ => transition.needs(),
        };
        let Some(version) = wanted.filter(|version| !is_ready(found, *version)) else {
            return Ok(());
        };
        let loaded = self.repository.ensure_loaded(model, version);
        match transition {
            // One before that may be ready.
            Transition::Rollback { .. } => Ok(()),
            _ if found.numbered_as(version).is_none() => Err(RolloutError::Unknown(
                unknown_version(&catalog, model, version),
            )),
            _ => loaded.map_err(|error| RolloutError::Unfit {
                transition: transition.word(),
                model: model.to_owned(),
                problem: error.to_string(),
            }),
        }
    }

    /// Writes the audit row, and when that is durable the state file.
    fn record(
        &self,
        state: &mut State,
        model: &str,
        version: u64,
        change: &Change,
        next: &Roles,
        now_us: i64,
    ) -> Result<(), RolloutError> {
        let details = Details {
            model: model.to_owned(),
            roles: next.clone(),
        };
        let audit = Audit {
            audit_id: clock::new_id_at(now_us).into_bytes().to_vec().into(),
            at_us: now_us,
            actor: change.actor.clone(),
            action: action(change.transition.word()),
            subject: format!("{model}/{version}"),
            reason: change.reason.clone(),
            outcome: "done".to_owned(),
            details: serde_json::to_string(&details).unwrap_or_default(),
        };
        state.segment = self.submit(&audit)?;
        state.roles.insert(model.to_owned(), Arc::new(next.clone()));
        self.write(state);
        Ok(())
    }

    /// Has the row written; returns its segment when it is durable.
    fn submit(&self, audit: &Audit) -> Result<u64, RolloutError> {
        let mut durable = self.ledger.submit_audit(audit)?;
        let begun = Instant::now();
        loop {
            match durable.try_recv() {
                Ok(segment) => return Ok(segment),
                Err(TryRecvError::Empty) if begun.elapsed() < RECORD_DEADLINE => {
                    std::thread::sleep(RECORD_POLL);
                }
                Err(_) => return Err(RolloutError::Unconfirmed),
            }
        }
    }

    /// The audit rows say the same, so a file that cannot be written is no reason to refuse.
    fn write(&self, state: &State) {
        if let Err(error) = state.write(&self.data_dir) {
            tracing::error!(
                error = %error,
                "rollout.json cannot be written; the audit rows in the ledger are read instead at \
                 the next start"
            );
        }
    }

    fn warn_of_stand_in(&self, name: &str) {
        let catalog = self.repository.catalog();
        if let Some(problem) = catalog.model(name).and_then(|model| model.stand_in()) {
            tracing::error!(model = name, problem, "not the champion that was said");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
