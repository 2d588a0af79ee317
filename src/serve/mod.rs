//! The server: opens what it serves, listens, and stops without losing anything.
//!
//! [`Server::open`] loads views, models, store and ledger, off the request path. [`Server::run`]
//! serves until the shutdown future resolves, and then: readiness turns to 503, no new
//! connections are taken, requests in flight are finished (bounded by `shutdown_timeout`), the
//! ledger is drained and synced, and the store is closed.
//!
//! * [`listener`] – connections, their limits and their end.
//! * [`http`] – the routes.

pub mod http;
pub mod listener;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::features::views::Views;
use crate::ledger::{Ledger, LedgerOptions};
use crate::models::repository::Repository;
use crate::score::Scorer;
use crate::store::OnlineStore;
use crate::store::embedded::EmbeddedStore;
use crate::telemetry;

/// What the handlers share.
pub struct App {
    pub scorer: Scorer,
    pub config: Config,
    pub metrics: PrometheusHandle,
    /// Set when shutdown has begun: not ready any more, but still answering.
    pub stopping: AtomicBool,
}

impl App {
    /// Why the server is not ready to score; empty when it is.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the server is stopping".to_owned());
        }
        if let Some(reason) = self.scorer.repository.unreadable() {
            reasons.push(reason.to_owned());
        }
        for name in &self.config.require_models {
            if let Err(problem) = self.scorer.repository.find(name, None) {
                reasons.push(format!("required: {problem}"));
            }
        }
        if !self.scorer.ledger.healthy() {
            reasons.push("the ledger cannot write to its disk".to_owned());
        }
        reasons
    }
}

/// A server that has loaded everything and not yet answered anything.
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// Loads views and models and opens store and ledger in the data directory.
    ///
    /// # Errors
    /// What keeps the server from starting: a wrong view file, a data directory in use or
    /// damaged, and with `strict` any refused model version.
    pub fn open(config: Config) -> Result<Server, String> {
        let metrics = telemetry::start_metrics()?;
        let (views, repository) = load_definitions(&config)?;
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|error| {
            format!(
                "data directory {}: cannot be created: {error}",
                data_dir.display()
            )
        })?;
        let options = LedgerOptions {
            queue_rows: config.ledger_queue_rows,
            ..LedgerOptions::default()
        };
        let ledger = Ledger::open(data_dir, options).map_err(|error| error.to_string())?;
        let store: Arc<dyn OnlineStore> = Arc::new(open_store(data_dir)?);
        let scorer = Scorer::new(views, repository, store, ledger);
        let stopping = AtomicBool::new(false);
        Ok(Server {
            app: Arc::new(App {
                scorer,
                config,
                metrics,
                stopping,
            }),
        })
    }

    /// What the handlers share; for loading data before serving.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Serves on `listener` until `shutdown` resolves, then finishes what is in flight.
    ///
    /// # Errors
    /// When records accepted by the ledger could not be written to the end.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        tracing::info!(address = %address, "listening");
        let router = http::router(Arc::clone(&self.app));
        let upkeep = async {
            // Histograms keep samples until they are folded in; do so even when nobody scrapes.
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                self.app.metrics.run_upkeep();
            }
        };
        let stop = async {
            tokio::select! {
                () = shutdown => {}
                () = upkeep => {}
            }
            tracing::info!("stopping: no new connections, finishing requests in flight");
            self.app.stopping.store(true, Ordering::Relaxed);
        };
        let limits = listener::Limits {
            max_connections: self.app.config.max_connections,
            idle_timeout: listener::IDLE_TIMEOUT,
            shutdown_timeout: self.app.config.shutdown_timeout,
        };
        let unfinished = listener::serve(listener, router, limits, stop).await;
        if unfinished > 0 {
            tracing::warn!(
                connections = unfinished,
                "closed before their requests were finished"
            );
        }
        let app = Arc::clone(&self.app);
        let closed = tokio::task::spawn_blocking(move || app.scorer.ledger.close()).await;
        closed
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Loads views and models; a refused version is logged and counted, and an error when strict.
///
/// # Errors
/// Every problem, one line each.
pub fn load_definitions(config: &Config) -> Result<(Views, Repository), String> {
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let repository = Repository::load(&config.models, &views);
    let mut problems = Vec::new();
    if let Some(reason) = repository.unreadable() {
        tracing::error!(reason, "not ready: no models");
        problems.push(reason.to_owned());
    }
    for entry in repository.entries() {
        let ready = metrics::gauge!(
            "bellwether_model_ready", "model" => entry.name.clone(), "version" => entry.version.clone()
        );
        let folder = config.models.join(&entry.name).join(&entry.version);
        match &entry.state {
            Ok(version) => {
                ready.set(1.0);
                let binds = version.scoring.is_ok();
                tracing::info!(
                    model = entry.name,
                    version = entry.version,
                    binds,
                    "model ready"
                );
            }
            Err(reason) => {
                ready.set(0.0);
                tracing::error!(
                    model = entry.name,
                    version = entry.version,
                    reason,
                    "model unavailable"
                );
                problems.push(format!("{}: {reason}", folder.display()));
            }
        }
    }
    for name in &config.require_models {
        if let Err(problem) = repository.find(name, None) {
            problems.push(format!("require_models: {problem}"));
        }
    }
    if config.strict && !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    Ok((views, repository))
}

/// Opens the embedded store of a data directory.
///
/// # Errors
/// When it is in use by another process or cannot be opened.
pub fn open_store(data_dir: &Path) -> Result<EmbeddedStore, String> {
    EmbeddedStore::open(&data_dir.join("store")).map_err(|error| error.to_string())
}
