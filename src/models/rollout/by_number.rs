//! Champions of models of which nothing was said: they follow from the numbers of the versions, and
//! change when a folder comes or goes. That is no transition, which would have to be recorded before it
//! is in force; but whoever asks the ledger later finds a row of it, by `server`.

use std::collections::BTreeMap;

use super::journal::{State, action, subject};
use super::rollouts::Rollouts;
use crate::clock;
use crate::ledger::Audit;
use crate::models::catalog::{Catalog, version_number};

impl Rollouts {
    /// Has a row for each model whose champion by number is not the one that it was when this was last
    /// called. Whether `state` has changed.
    pub(super) fn take_champions(&self, state: &mut State) -> bool {
        let catalog = self.repository.catalog();
        let now = champions(&catalog, &state.by_number);
        if now == state.by_number {
            return false;
        }
        let mut rows = Vec::new();
        for (model, champion) in &now {
            let before = state
                .by_number
                .get(model)
                .filter(|before| *before != champion);
            rows.extend(before.map(|before| row(model, *champion, *before)));
        }
        if !rows.is_empty()
            && let Err(error) = self.submit(&rows)
        {
            tracing::error!(error = %error, "champions by number are not recorded; tried again later");
            return false;
        }
        state.by_number = now;
        true
    }
}

/// The champions that follow from numbers now. Of a model that nobody answers for at the moment it is
/// the one before.
fn champions(catalog: &Catalog, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut champions = BTreeMap::new();
    for name in catalog.names() {
        let Some(model) = catalog.model(name).filter(|model| model.roles().is_none()) else {
            continue;
        };
        let champion = model.champion();
        let champion = champion.and_then(|champion| version_number(&champion.version));
        if let Some(champion) = champion.or_else(|| before.get(name).copied()) {
            champions.insert(name.to_owned(), champion);
        }
    }
    champions
}

fn row(model: &str, champion: u64, before: u64) -> Audit {
    // Not the details of a transition: nothing is said of the versions by this.
    let details = serde_json::json!({"by_number": {"champion": champion, "before": before}});
    let at_us = clock::now_us();
    Audit {
        audit_id: clock::new_id_at(at_us).into_bytes().to_vec().into(),
        at_us,
        actor: "server".to_owned(),
        action: action("promote"),
        subject: subject(model, champion),
        reason: format!(
            "it has the highest number of those that are ready, version {before} had before, and \
             nothing was said of the model's versions"
        ),
        outcome: "done".to_owned(),
        details: details.to_string(),
    }
}
