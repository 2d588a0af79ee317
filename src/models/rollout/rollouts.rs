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

use super::journal::{Details, State, action, subject};
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
    pub(super) repository: Arc<Repository>,
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
    /// A version that is sent would be taken out of memory a moment later.
    #[error("{setting} leaves version {version} out, and {problem}")]
    LeftOut {
        version: u64,
        setting: String,
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

impl Change {
    /// The audit row of the transition, to these roles.
    pub(super) fn row(&self, model: &str, version: u64, next: &Roles, now_us: i64) -> Audit {
        let details = Details {
            model: model.to_owned(),
            roles: next.clone(),
        };
        Audit {
            audit_id: clock::new_id_at(now_us).into_bytes().to_vec().into(),
            at_us: now_us,
            actor: self.actor.clone(),
            action: action(self.transition.word()),
            subject: subject(model, version),
            reason: self.reason.clone(),
            outcome: "done".to_owned(),
            details: serde_json::to_string(&details).unwrap_or_default(),
        }
    }
}

impl Rollouts {
    /// Goes on from the state that is kept in `data_dir`, whose ledger is open: nobody else makes
    /// transitions any more. Those that somebody has made since the repository was opened, a server that
    /// was still stopping, are brought into force.
    ///
    /// # Errors
    /// The state cannot be read, and what to do.
    pub fn open(
        repository: Arc<Repository>,
        ledger: Arc<Ledger>,
        data_dir: PathBuf,
    ) -> Result<Rollouts, String> {
        let state = State::read(&data_dir)?;
        repository.remember_numbers(&state.numbers);
        repository.catch_up(&state.roles);
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
        Ok(rollouts)
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

    /// Notes from which segment of the ledger on there may be rows that the state file does not know,
    /// so that a start reads little. To be called every now and then.
    pub fn checkpoint(&self) {
        let mut state = self.lock();
        let versions_are_new = self.take_versions(&mut state);
        let newest = match newest_segment(&self.data_dir) {
            Ok(newest) => newest.unwrap_or(state.segment),
            Err(error) => {
                tracing::warn!(error = %error, "the ledger's folder cannot be listed");
                state.segment
            }
        };
        if newest == state.segment && !versions_are_new {
            return;
        }
        // Every transition so far is in the state, and later ones are in this segment or a later one.
        state.segment = newest;
        self.write(&state);
    }

    /// Keeps what follows from folders that have come and gone by hand since the last time: the highest
    /// numbers, and who answers where nothing was said. To be called when the folder was looked at.
    pub fn keep_up(&self) {
        let mut state = self.lock();
        if self.take_versions(&mut state) {
            self.write(&state);
        }
    }

    /// Whether there was anything that is not kept yet.
    fn take_versions(&self, state: &mut State) -> bool {
        let champions_are_new = self.take_champions(state);
        let before = state.numbers.clone();
        for (model, number) in self.repository.numbers() {
            state.note(&model, number);
        }
        champions_are_new || state.numbers != before
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
        let row = change.row(model, version, next, now_us);
        state.segment = self.submit(std::slice::from_ref(&row))?;
        state.roles.insert(model.to_owned(), Arc::new(next.clone()));
        state.note(model, version);
        self.write(state);
        Ok(())
    }

    /// Has rows written, in their order; returns the segment of the first when all are durable.
    pub(super) fn submit(&self, rows: &[Audit]) -> Result<u64, RolloutError> {
        let submitted = rows.iter().map(|row| self.ledger.submit_audit(row));
        let submitted: Result<Vec<_>, AppendError> = submitted.collect();
        let begun = Instant::now();
        let mut first = None;
        for mut durable in submitted? {
            let segment = loop {
                match durable.try_recv() {
                    Ok(segment) => break segment,
                    Err(TryRecvError::Empty) if begun.elapsed() < RECORD_DEADLINE => {
                        std::thread::sleep(RECORD_POLL);
                    }
                    Err(_) => return Err(RolloutError::Unconfirmed),
                }
            };
            first.get_or_insert(segment);
        }
        first.ok_or(RolloutError::Unconfirmed)
    }

    /// The audit rows say the same, so a file that cannot be written is no reason to refuse.
    pub(super) fn write(&self, state: &State) {
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
