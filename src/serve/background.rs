//! What the server does every now and then beside serving, until it stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Server;
use crate::clock;
use crate::config::StoreKind;
use crate::features::views::Views;
use crate::history;

impl Server {
    /// Recomputes served values every now and then, on a thread that nobody waits for: it only reads.
    pub(super) async fn check_consistency(&self) {
        let config = &self.app.config.history;
        // On a shared store an entity's number of changes is that of whichever server wrote last, whose
        // log is not here.
        let is_shared = self.app.config.store.checked_kind() == Ok(StoreKind::Redis);
        if config.consistency_interval.is_zero() || is_shared {
            return std::future::pending().await;
        }
        let running = Arc::new(Semaphore::new(1));
        let mut since_us = clock::now_us();
        loop {
            tokio::time::sleep(config.consistency_interval).await;
            let Ok(place) = Arc::clone(&running).try_acquire_owned() else {
                continue;
            };
            let (from_us, config) = (since_us, config.clone());
            since_us = clock::now_us();
            let views = Views::clone(&self.app.scorer.views());
            let data_dir = self.app.config.data_dir.clone();
            let thread = std::thread::Builder::new().name("consistency".to_owned());
            let started = thread.spawn(move || {
                let _place = place;
                history::watch::check_once(views, data_dir, &config, from_us);
            });
            if let Err(error) = started {
                tracing::warn!(error = %error, "no thread to recompute served values");
            }
        }
    }

    /// Looks for new and changed versions of models every now and then.
    pub(super) async fn watch_models(&self) {
        let interval = self.app.config.repository.watch;
        if interval.is_zero() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(interval).await;
            if let Err(problem) = self.app.scorer.repository.watch_aside().await {
                tracing::error!(error = %problem, "the model folder is not watched");
            }
            let rollouts = Arc::clone(&self.app.rollouts);
            let kept = tokio::task::spawn_blocking(move || rollouts.keep_up()).await;
            if let Err(error) = kept {
                tracing::warn!(error = %error, "what follows from new versions was not kept");
            }
        }
    }

    /// Keeps the state of rollouts close to the end of the ledger, so that a start reads little of it.
    pub(super) async fn note_rollouts(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let rollouts = Arc::clone(&self.app.rollouts);
            let noted = tokio::task::spawn_blocking(move || rollouts.checkpoint()).await;
            if let Err(error) = noted {
                tracing::warn!(error = %error, "the state of rollouts was not noted");
            }
        }
    }

    /// Folds the samples of histograms in, which are kept until then, also when nobody scrapes.
    pub(super) async fn upkeep(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.app.metrics.run_upkeep();
        }
    }
}
