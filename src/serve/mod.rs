//! The server: opens what it serves, listens, and stops without losing anything.
//!
//! [`Server::open`] loads views, models, store and ledger, off the request path. [`Server::run`]
//! serves until the shutdown future resolves, and then: readiness turns to 503 and everything is
//! served on for `shutdown_delay`, no new connections are taken, requests in flight are finished
//! (bounded by `shutdown_timeout`), the ledger is drained and synced, and the store is closed.
//!
//! * [`listener`] – connections, their limits and their end.
//! * [`http`] – the routes.
//! * [`grpc`] – the calls.

pub mod grpc;
pub mod http;
pub mod listener;

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use self::listener::Protocol;

use crate::admission::{self, Admission};
use crate::config::Config;
use crate::features::views::Views;
use crate::infer::Inference;
use crate::ledger::{Ledger, LedgerOptions};
use crate::models::repository::Repository;
use crate::score::Scorer;
use crate::store::OnlineStore;
use crate::store::embedded::EmbeddedStore;
use crate::telemetry;

/// What the handlers share.
pub struct App {
    pub scorer: Scorer,
    pub inference: Arc<Inference>,
    /// Who may run now; shared with `inference`.
    pub admission: Admission,
    pub config: Config,
    pub metrics: PrometheusHandle,
    /// Set when shutdown has begun: not ready any more, but still answering.
    pub stopping: AtomicBool,
}

impl App {
    /// Requests that run or wait for a place.
    pub fn in_flight(&self) -> usize {
        self.admission.in_flight() + self.admission.waiting()
    }

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
        let repository = Arc::new(repository);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let admission = Admission::new(admission::Limits {
            concurrency: config.max_concurrency.unwrap_or(cores),
            queue: config.max_queue,
        });
        let ledger = Arc::new(ledger);
        let inference = Arc::new(Inference::new(
            Arc::clone(&repository),
            admission.clone(),
            Arc::clone(&ledger),
            &config,
        ));
        let scorer = Scorer::new(views, repository, store, ledger);
        let stopping = AtomicBool::new(false);
        Ok(Server {
            app: Arc::new(App {
                scorer,
                inference,
                admission,
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

    /// Serves on `listener`, and gRPC on the address that the configuration may have for it, until
    /// `shutdown` resolves; then finishes what is in flight.
    ///
    /// # Errors
    /// When gRPC's address cannot be listened on, or records accepted by the ledger could not be
    /// written to the end.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let limits = listener::Limits {
            max_connections: self.app.config.max_connections,
            idle_timeout: listener::IDLE_TIMEOUT,
            shutdown_timeout: self.app.config.shutdown_timeout,
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = listener::Threads::start(cores, limits)
            .map_err(|error| format!("cannot start the threads that serve: {error}"))?;
        let grpc_listener = self.listen_for_grpc().await?;
        let grpc_address = grpc_listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        tracing::info!(
            address = %address,
            grpc = grpc_address.map(tracing::field::display),
            "listening"
        );
        self.accept(&threads, &listener, grpc_listener.as_ref(), shutdown)
            .await;
        tracing::info!(
            connections = threads.open(),
            in_flight = self.app.in_flight(),
            "draining"
        );
        drop((listener, grpc_listener));
        let unfinished = self.drain(threads).await?;
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

    /// Takes connections until `shutdown` resolves and the delay after it has passed.
    async fn accept(
        &self,
        threads: &listener::Threads,
        http_listener: &TcpListener,
        grpc_listener: Option<&TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let accepting = async {
            let stack = http::stack::Stack::new(Arc::clone(&self.app));
            let accept_http = threads.accept(http_listener, Protocol::Http(stack));
            match grpc_listener {
                Some(grpc_listener) => {
                    let calls = grpc::router(Arc::clone(&self.app));
                    let accept_grpc = threads.accept(grpc_listener, Protocol::Grpc(calls));
                    tokio::join!(accept_http, accept_grpc);
                }
                None => accept_http.await,
            }
        };
        let mut accepting = std::pin::pin!(accepting);
        tokio::select! {
            () = shutdown => {}
            () = &mut accepting => {}
            () = self.upkeep() => {}
        }
        // Not ready any more, and still serving: whoever spreads requests over servers needs time to
        // notice.
        self.app.stopping.store(true, Ordering::Relaxed);
        let delay = self.app.config.shutdown_delay;
        if !delay.is_zero() {
            tracing::info!(
                delay_s = delay.as_secs_f64(),
                "stopping: not ready any more"
            );
        }
        // Also without a delay: those who are connected already are served.
        let _ = tokio::time::timeout(delay, accepting).await;
    }

    /// Lets the threads finish, and says each second how far they are. Returns how many connections
    /// had to be cut off.
    async fn drain(&self, threads: listener::Threads) -> Result<usize, String> {
        let progress = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                tracing::info!(in_flight = self.app.in_flight(), "draining");
            }
        };
        tokio::select! {
            unfinished = tokio::task::spawn_blocking(move || threads.finish()) => {
                unfinished.map_err(|error| error.to_string())
            }
            () = progress => Ok(0),
        }
    }

    async fn listen_for_grpc(&self) -> Result<Option<TcpListener>, String> {
        let Some(address) = self.app.config.grpc_listen_address()? else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address).await;
        listener
            .map(Some)
            .map_err(|error| format!("grpc_listen: cannot bind {address}: {error}"))
    }

    /// Folds the samples of histograms in, which are kept until then, also when nobody scrapes.
    async fn upkeep(&self) {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            self.app.metrics.run_upkeep();
        }
    }
}

/// Loads views and models; a refused version is logged and counted, and an error when strict.
///
/// # Errors
/// Every problem, one line each.
pub fn load_definitions(config: &Config) -> Result<(Views, Repository), String> {
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let repository = Repository::open(&config.models, &views);
    let mut problems = Vec::new();
    if let Some(reason) = repository.unreadable() {
        tracing::error!(reason, "not ready: no models");
        problems.push(reason.to_owned());
    }
    for entry in repository.catalog().entries() {
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
