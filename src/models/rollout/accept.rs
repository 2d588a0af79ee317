//! What is recorded of a version that was sent, before it is there.
//!
//! Its row, with who sent it, why, and the digests of its files; and the roles in which it is served
//! from its first moment on. All of it is durable before the version is published: when the process
//! ends in between, the rows tell of a version that never came, and its number is not given again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::journal::{action, subject};
use super::next::forget_gone;
use super::roles::Roles;
use super::rollouts::{Change, RolloutError, Rollouts};
use super::transition::{Transition, apply};
use crate::clock;
use crate::ledger::Audit;
use crate::models::repository::deploy::Accepted;
use crate::models::version::hexadecimal;

/// Who sent a version of which model, and why.
#[derive(Debug, Clone)]
pub struct Sender {
    pub model: String,
    /// `key:<id>`, `anonymous`.
    pub actor: String,
    pub reason: String,
    /// Whether it is to be promoted when it is there; for the row.
    pub promote: bool,
}

impl Rollouts {
    /// Records a version that is about to be published, and gives it the role that it is to begin with.
    /// Blocks until that is durable.
    ///
    /// The first version of a model that may answer is its champion. Where nothing was said of a model
    /// so far, its champion by the numbers stays the champion. A version that the policy would take out
    /// of memory is kept there as a candidate.
    ///
    /// # Errors
    /// It cannot be recorded, or not be kept loaded; nothing has changed then.
    pub fn accept(&self, sender: &Sender, accepted: &Accepted<'_>) -> Result<(), RolloutError> {
        let mut state = self.lock();
        let now_us = clock::now_us();
        let name = &sender.model;
        let number = accepted.number;
        let mut rows = Vec::new();
        let said = self.repository.roles(name);
        let mut roles = said.as_deref().cloned();
        if said.is_none()
            && let Some(by_number) = self.champion_by_number(name)
        {
            let version = by_number.champion;
            let change = Change {
                transition: Transition::Promote { version },
                actor: sender.actor.clone(),
                reason: "it was the champion by its number when another version was deployed"
                    .to_owned(),
            };
            rows.push(change.row(name, version, &by_number, now_us));
            roles = Some(by_number);
        }
        rows.push(sender.row(accepted, now_us));
        if let Some((transition, next)) = self.first_role(roles.as_ref(), name, accepted, now_us)? {
            let change = Change {
                transition,
                actor: sender.actor.clone(),
                reason: sender.reason.clone(),
            };
            rows.push(change.row(name, number, &next, now_us));
            roles = Some(next);
        }
        state.segment = self.submit(&rows)?;
        if let Some(roles) = roles {
            state.roles.insert(name.clone(), Arc::new(roles.clone()));
            // Also when nothing of that name is there yet: it is served in these roles when it is.
            self.repository.set_roles(name, roles);
        }
        state.note(name, number);
        self.write(&state);
        Ok(())
    }

    /// The role that a version begins with, and the roles of all then; `None` for a candidate that is
    /// loaded as the policy says.
    fn first_role(
        &self,
        roles: Option<&Roles>,
        name: &str,
        accepted: &Accepted<'_>,
        now_us: i64,
    ) -> Result<Option<(Transition, Roles)>, RolloutError> {
        let version = accepted.number;
        let left_out = |setting: &str, problem: String| RolloutError::LeftOut {
            version,
            setting: setting.to_owned(),
            problem,
        };
        match (roles, &accepted.left_out_by) {
            (None, _) if !accepted.version.is_candidate() => {
                let mut roles = Roles::unsaid(version, Vec::new());
                roles.revision = 1;
                Ok(Some((Transition::Promote { version }, roles)))
            }
            (_, None) => Ok(None),
            (None, Some(setting)) => {
                let problem = "its model has no champion yet; send one that is no candidate first";
                Err(left_out(setting, problem.to_owned()))
            }
            (Some(roles), Some(setting)) => {
                let mut roles = roles.clone();
                if let Some(model) = self.repository.catalog().model(name) {
                    forget_gone(&mut roles, model);
                }
                let transition = Transition::Candidate { version };
                let next = apply(&roles, &transition, now_us);
                let next = next.map_err(|refusal| left_out(setting, refusal.to_string()))?;
                Ok(Some((transition, next)))
            }
        }
    }

    /// The roles that follow from the numbers, as those that are said from now on; `None` when none
    /// of the versions answers.
    fn champion_by_number(&self, model: &str) -> Option<Roles> {
        let catalog = self.repository.catalog();
        let mut roles = catalog.model(model)?.roles_or_unsaid()?;
        roles.revision = 1;
        Some(roles)
    }
}

impl Sender {
    fn row(&self, accepted: &Accepted<'_>, now_us: i64) -> Audit {
        let files = accepted.version.files.iter();
        let files: BTreeMap<_, _> = files.map(|file| (file.name, &file.sha256)).collect();
        let details = serde_json::json!({
            "digest": hexadecimal(&accepted.version.digest),
            "files": files,
            "promote": self.promote,
        });
        Audit {
            audit_id: clock::new_id_at(now_us).into_bytes().to_vec().into(),
            at_us: now_us,
            actor: self.actor.clone(),
            action: action("deploy"),
            subject: subject(&self.model, accepted.number),
            reason: self.reason.clone(),
            outcome: "done".to_owned(),
            details: details.to_string(),
        }
    }
}
