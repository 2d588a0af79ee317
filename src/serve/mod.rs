//! The server: opens what it serves, listens, and stops without losing anything.
//!
//! [`Server::open`] loads views, models, store and ledger, off the request path. [`Server::run`]
//! serves until the shutdown future resolves, and then: readiness turns to 503 and everything is
//! served on for `shutdown_delay`, no new connections are taken, requests in flight are finished
//! (bounded by `shutdown_timeout`) and so is what sources have fetched, the ledger is drained and
//! synced, and the store is closed.
//!
//! * [`listener`] – connections, their limits and their end.
//! * [`http`] – the routes.
//! * [`grpc`] – the calls.

pub mod grpc;
pub mod http;
pub mod listener;

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::listener::Protocol;

use crate::admission::{self, Admission};
use crate::clock;
use crate::config::{Config, StoreKind};
use crate::features::view::View;
use crate::features::views::Views;
use crate::history;
use crate::infer::Inference;
use crate::ingest::sources::Sources;
use crate::ingest::{CurrentViews, Ingest};
use crate::ledger::{Ledger, LedgerOptions};
use crate::models::repository::Repository;
use crate::score::Scorer;
use crate::store::OnlineStore;
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::RedisStore;
use crate::telemetry;

/// What the handlers share.
pub struct App {
    pub scorer: Scorer,
    /// The views that changes are applied under; see [`App::reload_views`].
    pub current_views: CurrentViews,
    pub ingest: Arc<Ingest>,
    pub inference: Arc<Inference>,
    /// Who may run now; shared with `inference`.
    pub admission: Admission,
    pub config: Config,
    pub metrics: PrometheusHandle,
    /// Held by whoever makes a training set: one at a time.
    pub history: Arc<Semaphore>,
    /// Set when shutdown has begun: not ready any more, but still answering.
    pub stopping: AtomicBool,
}

impl App {
    /// Requests that run or wait for a place.
    pub fn in_flight(&self) -> usize {
        self.admission.in_flight() + self.admission.waiting()
    }

    /// Reads the view files again and puts them in force, for models, changes and scores at once, while
    /// requests run. Blocks. Returns the names of the views that are new or other than before.
    ///
    /// # Errors
    /// What is wrong with a view file, or which models that are served do not fit; nothing has changed
    /// then.
    pub fn reload_views(&self) -> Result<Vec<String>, Vec<String>> {
        let loaded = Views::load(&self.config.features);
        let loaded = loaded.map_err(|errors| vec![errors.to_string()])?;
        let before = self.scorer.views();
        let is_new = |view: &Arc<View>| {
            let same = before.get(&view.name);
            same.is_none_or(|same| same.digest != view.digest)
        };
        let changed = loaded.all().iter().filter(|view| is_new(view));
        let changed: Vec<String> = changed.map(|view| view.name.clone()).collect();
        let views = Arc::new(loaded);
        self.scorer.repository.rebind(&views, || {
            self.current_views.store(Arc::clone(&views));
            self.scorer.replace_views(Arc::clone(&views));
        })?;
        tracing::info!(changed = changed.join(", "), "feature views reloaded");
        Ok(changed)
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
        if !self.ingest.healthy() {
            reasons.push(
                "changes are not applied to the online store any more; see the log".to_owned(),
            );
        }
        reasons
    }
}

/// A server that has loaded everything and not yet answered anything.
pub struct Server {
    app: Arc<App>,
    /// Started when it serves.
    sources: Sources,
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
        let sources = Sources::new(&config.source)?;
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|error| {
            format!(
                "data directory {}: cannot be created: {error}",
                data_dir.display()
            )
        })?;
        history::plan::sweep(&data_dir.join("tmp"));
        let options = LedgerOptions {
            queue_rows: config.ledger_queue_rows,
            ..LedgerOptions::default()
        };
        let ledger = Ledger::open(data_dir, options).map_err(|error| error.to_string())?;
        let store = open_store(&config)?;
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
        let current_views = Arc::new(ArcSwap::from_pointee(views.clone()));
        let ingest = Ingest::start(
            Arc::clone(&current_views),
            Arc::clone(&ledger),
            Arc::clone(&store),
            data_dir.clone(),
        )
        .map_err(|error| error.to_string())?;
        let mut scorer = Scorer::new(views, repository, store, ledger);
        scorer.on_store_failure = config.store.on_failure;
        let stopping = AtomicBool::new(false);
        Ok(Server {
            app: Arc::new(App {
                scorer,
                current_views,
                ingest: Arc::new(ingest),
                inference,
                admission,
                config,
                metrics,
                history: Arc::new(Semaphore::new(1)),
                stopping,
            }),
            sources,
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
        mut self,
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
        let sources = std::mem::take(&mut self.sources);
        let sources = sources.start(&self.app.ingest, &self.app.config);
        self.accept(&threads, &listener, grpc_listener.as_ref(), shutdown)
            .await;
        tracing::info!(
            connections = threads.open(),
            in_flight = self.app.in_flight(),
            "draining"
        );
        drop((listener, grpc_listener));
        let ((), unfinished) = tokio::join!(sources.stop(), self.drain(threads));
        let unfinished = unfinished?;
        if unfinished > 0 {
            tracing::warn!(
                connections = unfinished,
                "closed before their requests were finished"
            );
        }
        let app = Arc::clone(&self.app);
        let closed = tokio::task::spawn_blocking(move || {
            app.ingest.close();
            app.scorer.ledger.close()
        })
        .await;
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
            () = self.check_consistency() => {}
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

    /// Recomputes served values every now and then, on a thread that nobody waits for: it only reads.
    async fn check_consistency(&self) {
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

/// Whether the store's settings can be right, without opening it.
///
/// # Errors
/// The setting that is wrong, and what was expected.
pub fn check_store(config: &Config) -> Result<(), String> {
    match config.store.checked_kind()? {
        StoreKind::Embedded => Ok(()),
        StoreKind::Redis => RedisStore::check(&config.store),
    }
}

/// Opens the store that the configuration names: the embedded one in the data directory, or a shared
/// one.
///
/// # Errors
/// When it is in use by another process or cannot be opened, or a setting is wrong. That a shared
/// store cannot be reached now is no error.
pub fn open_store(config: &Config) -> Result<Arc<dyn OnlineStore>, String> {
    let data_dir = &config.data_dir;
    match config.store.checked_kind()? {
        StoreKind::Embedded => {
            let options = embedded::Options {
                cache_bytes: usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX),
                ..embedded::Options::default()
            };
            EmbeddedStore::open_with(&data_dir.join("store"), options)
                .map(|store| Arc::new(store) as Arc<dyn OnlineStore>)
        }
        StoreKind::Redis => RedisStore::open(&config.store, data_dir)
            .map(|store| Arc::new(store) as Arc<dyn OnlineStore>),
    }
    .map_err(|error| error.to_string())
}
