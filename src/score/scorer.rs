//! What every score needs, and what holds it together while views and versions are replaced: a request
//! takes views, and versions that are bound to just these, and keeps both to its end.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::choose::choose_models;
use super::shadow::Shadows;
use super::{CUSTOMER, ScoreError};
use crate::config::OnFailure;
use crate::features::view::View;
use crate::features::views::Views;
use crate::ledger::Ledger;
use crate::models::catalog::Chosen;
use crate::models::repository::Repository;
use crate::store::{OnlineStore, StoreError};
use crate::telemetry::scores::{FeatureCounters, StageTimers};

/// How often a request looks again, a millisecond apart, while views are replaced.
pub(super) const REPLACING_TRIES: usize = 100;

/// Everything a score needs.
pub struct Scorer {
    pub(super) in_force: ArcSwap<InForce>,
    pub repository: Arc<Repository>,
    pub store: Arc<dyn OnlineStore>,
    pub ledger: Arc<Ledger>,
    /// What to answer while the store is lost.
    pub on_store_failure: OnFailure,
    /// The versions in shadow are run there.
    pub shadows: Shadows,
    /// How long the stages of its scores took.
    pub timers: StageTimers,
}

/// The views that are in force, and what is counted by their columns.
pub(super) struct InForce {
    pub(super) views: Arc<Views>,
    pub(super) counters: FeatureCounters,
}

impl InForce {
    fn new(views: Arc<Views>) -> InForce {
        InForce {
            counters: FeatureCounters::new(&views, CUSTOMER),
            views,
        }
    }
}

impl Scorer {
    pub fn new(
        views: Views,
        repository: Arc<Repository>,
        store: Arc<dyn OnlineStore>,
        ledger: Arc<Ledger>,
    ) -> Scorer {
        let timers = StageTimers::default();
        let in_force = InForce::new(Arc::new(views));
        Scorer {
            in_force: ArcSwap::from_pointee(in_force),
            repository,
            store,
            ledger,
            on_store_failure: OnFailure::default(),
            shadows: Shadows::default(),
            timers,
        }
    }

    /// The view of customers.
    ///
    /// # Errors
    /// When no view has the entity `customer_id`.
    pub fn customer_view(&self) -> Result<Arc<View>, ScoreError> {
        let views = self.views();
        views.of_entity(CUSTOMER).cloned().ok_or(ScoreError::NoView)
    }

    /// The views that are in force.
    pub fn views(&self) -> Arc<Views> {
        Arc::clone(&self.in_force.load().views)
    }

    /// Puts other views in force: those that the repository's versions are bound to from now on.
    pub fn replace_views(&self, views: Arc<Views>) {
        self.in_force.store(Arc::new(InForce::new(views)));
    }

    /// The views in force, the customers' among them, and the versions to run, which are bound to it.
    pub(super) async fn choose(
        &self,
        models: Option<&[String]>,
        key: &str,
    ) -> Result<(Arc<InForce>, Arc<View>, Vec<Chosen>), ScoreError> {
        for _ in 0..REPLACING_TRIES {
            let in_force = self.in_force.load_full();
            let view = in_force.views.of_entity(CUSTOMER);
            let view = Arc::clone(view.ok_or(ScoreError::NoView)?);
            match choose_models(&self.repository.catalog(), models, key, &view) {
                // Versions are bound to other views than those looked at: a moment later they are not.
                Err(ScoreError::Replacing) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                chosen => return Ok((in_force, view, chosen?)),
            }
        }
        Err(ScoreError::Replacing)
    }

    /// What the store found; `None` when it is out of reach and defaults are to be used then.
    pub(super) fn unless_lost<T>(
        &self,
        found: Result<T, ScoreError>,
    ) -> Result<Option<T>, ScoreError> {
        let may_do_without = self.on_store_failure == OnFailure::Defaults;
        match found {
            Err(ScoreError::Store(StoreError::Unavailable(_))) if may_do_without => Ok(None),
            found => found.map(Some),
        }
    }
}
