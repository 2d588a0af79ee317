//! What there is to see of roles as metrics.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use metrics::gauge;

use super::roles::Role;
use crate::models::catalog::Catalog;

/// Hands the roles to the metrics, and remembers which it has handed over: what is gone has no role,
/// rather than the last one it had.
#[derive(Default)]
pub struct Published {
    versions: Mutex<BTreeSet<(String, String)>>,
}

impl Published {
    /// Sets the metrics to what the catalog says; done when they are asked for.
    pub fn publish(&self, catalog: &Catalog) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *versions);
        for name in catalog.names() {
            let Some(model) = catalog.model(name) else {
                continue;
            };
            for (number, entry) in model.numbered() {
                publish_role(name, &entry.version, Some(model.role(number)));
                versions.insert((name.to_owned(), entry.version.clone()));
            }
            let canary = model.canary();
            let share = canary.map_or(0.0, |(canary, _)| canary.share.percent() / 100.0);
            gauge!("bellwether_canary_share", "model" => name.to_owned()).set(share);
            let stands_in = if model.stand_in().is_some() { 1.0 } else { 0.0 };
            gauge!("bellwether_model_stand_in", "model" => name.to_owned()).set(stands_in);
        }
        for (name, version) in before.difference(&versions) {
            publish_role(name, version, None);
            if catalog.model(name).is_none() {
                gauge!("bellwether_canary_share", "model" => name.clone()).set(0.0);
                gauge!("bellwether_model_stand_in", "model" => name.clone()).set(0.0);
            }
        }
    }
}

fn publish_role(name: &str, version: &str, role: Option<Role>) {
    for other in Role::ALL {
        gauge!(
            "bellwether_model_role",
            "model" => name.to_owned(), "version" => version.to_owned(), "role" => other.word()
        )
        .set(if role == Some(other) { 1.0 } else { 0.0 });
    }
}
