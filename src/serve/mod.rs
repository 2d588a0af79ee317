//! The server: opens what it serves, listens, and stops without losing anything.
//!
//! [`Server::open`] loads views, models, store and ledger, off the request path. [`Server::run`]
//! serves until the shutdown future resolves, and then: readiness turns to 503 and everything is
//! served on for `shutdown_delay`, no new connections are taken, requests in flight are finished
//! (bounded by `shutdown_timeout`) and so is what sources have fetched, the ledger is drained and
//! synced, and the store is closed.
//!
//! * [`listener`] – connections, their limits and their end.
//! * [`patience`], [`window`] – clients that do nothing, on a connection and of an answer.
//! * [`definitions`] – what the configuration names: views, models, keys, the store.
//! * [`http`] – the routes.
//! * [`grpc`] – the calls.
//! * [`guardrails`] – what the server does by itself when a canary fails.
//! * [`auth`] – who may do what: keys, scopes, rates, the record of administrative calls.
//! * [`tls`] – certificates.
//! * [`score_pool`] – threads for requests with many customers.
//! * [`finishing`] – administrative work that outlives its caller.

pub mod auth;
mod background;
pub mod definitions;
pub mod finishing;
pub mod grpc;
pub mod guardrails;
pub mod http;
pub mod listener;
mod patience;
pub mod score_pool;
pub mod tls;
mod window;

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::auth::Auth;
use self::auth::key_file::KeyFile;
use self::auth::watch::Watch;
use self::definitions::{load_definitions, open_store};
use self::finishing::Finishing;
use self::listener::Protocol;
use self::score_pool::ScorePool;
use self::tls::Tls;

use crate::admission::{self, Admission};
use crate::config::Config;
use crate::features::view::View;
use crate::features::views::Views;
use crate::history;
use crate::infer::Inference;
use crate::ingest::sources::Sources;
use crate::ingest::{CurrentViews, Ingest};
use crate::ledger::{Ledger, LedgerOptions};
use crate::models::rollout::Rollouts;
use crate::score::Scorer;
use crate::score::shadow::Shadows;
use crate::telemetry;

/// What the handlers share.
pub struct App {
    pub scorer: Scorer,
    /// The views that changes are applied under; see [`App::reload_views`].
    pub current_views: CurrentViews,
    pub ingest: Arc<Ingest>,
    pub inference: Arc<Inference>,
    /// Who may ask for what.
    pub auth: Arc<Auth>,
    /// Who answers whom, and changes of it.
    pub rollouts: Arc<Rollouts>,
    /// Who may run now; shared with `inference`.
    pub admission: Admission,
    pub config: Config,
    pub metrics: PrometheusHandle,
    /// Held by whoever makes a training set: one at a time.
    pub history: Arc<Semaphore>,
    /// Where requests with many customers run.
    pub score_pool: ScorePool,
    /// Administrative work under way.
    pub finishing: Finishing,
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
    /// The keys it was opened with.
    keys: KeyFile,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Loads views and models and opens store and ledger in the data directory.
    ///
    /// # Errors
    /// What keeps the server from starting: a wrong view file, a data directory in use or
    /// damaged, and with `strict` any refused model version.
    pub fn open(config: Config) -> Result<Server, String> {
        let (auth, keys) = Auth::open(&config)?;
        listener::Limits::of(&config)?;
        let tls = Tls::open(&config.tls)?.map(Arc::new);
        http::check_routes()?;
        let metrics = telemetry::start_metrics()?;
        config.rollout.check()?;
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
        repository.bundles().sweep();
        let repository = Arc::new(repository);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let admission = Admission::new(admission::Limits {
            concurrency: config.max_concurrency.unwrap_or(cores),
            queue: config.max_queue,
        });
        let ledger = Arc::new(ledger);
        let rollouts = Arc::new(Rollouts::open(
            Arc::clone(&repository),
            Arc::clone(&ledger),
            data_dir.clone(),
        )?);
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
        scorer.shadows = Shadows::new(config.rollout.shadow_queue);
        let score_pool = ScorePool::start(&config.score_batch)
            .map_err(|error| format!("cannot start the threads that score batches: {error}"))?;
        let stopping = AtomicBool::new(false);
        Ok(Server {
            app: Arc::new(App {
                scorer,
                current_views,
                ingest: Arc::new(ingest),
                inference,
                auth: Arc::new(auth),
                rollouts,
                admission,
                config,
                metrics,
                history: Arc::new(Semaphore::new(1)),
                score_pool,
                finishing: Finishing::default(),
                stopping,
            }),
            sources,
            keys,
            tls,
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
        let limits = listener::Limits::of(&self.app.config)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = listener::Threads::start(cores, limits)
            .map_err(|error| format!("cannot start the threads that serve: {error}"))?;
        let grpc_listener = self.listen_for_grpc().await?;
        let grpc_address = grpc_listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        self.app.auth.announce(&self.app.config, self.tls.is_some());
        let watch = Watch::start(
            Arc::clone(&self.app.auth),
            std::mem::take(&mut self.keys),
            self.tls.clone(),
            Arc::clone(&self.app.scorer.ledger),
            self.app.config.data_dir.clone(),
        )
        .map_err(|error| format!("cannot start the thread that watches keys: {error}"))?;
        tracing::info!(
            address = %address,
            grpc = grpc_address.map(tracing::field::display),
            tls = self.tls.is_some(),
            "listening"
        );
        self.app.finishing.run_on(tokio::runtime::Handle::current());
        let scorer = &self.app.scorer;
        let shadows = scorer.shadows.start(
            Arc::clone(&scorer.store),
            Arc::clone(&scorer.ledger),
            tokio::runtime::Handle::current(),
            &self.app.config,
        );
        let shadows = shadows
            .map_err(|error| format!("cannot start the thread of shadow versions: {error}"))?;
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
        let until = Instant::now() + self.app.config.shutdown_timeout;
        self.app
            .score_pool
            .end_within(self.app.config.shutdown_timeout);
        let ((), unfinished) = tokio::join!(sources.stop(), self.drain(threads));
        let unfinished = unfinished?;
        if unfinished > 0 {
            tracing::warn!(
                connections = unfinished,
                "closed before their requests were finished"
            );
        }
        let given_up = self.app.finishing.wait(until).await;
        if given_up > 0 {
            tracing::warn!(calls = given_up, "administrative calls were given up");
        }
        let app = Arc::clone(&self.app);
        let closed = tokio::task::spawn_blocking(move || {
            // It has rows for the ledger, maybe.
            drop(watch);
            if let Some(shadows) = shadows {
                shadows.stop();
            }
            app.rollouts.checkpoint();
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
            let accept_http =
                threads.accept(http_listener, Protocol::Http(stack), self.tls.as_ref());
            match grpc_listener {
                Some(grpc_listener) => {
                    let calls = grpc::router(Arc::clone(&self.app));
                    let accept_grpc =
                        threads.accept(grpc_listener, Protocol::Grpc(calls), self.tls.as_ref());
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
            () = self.watch_models() => {}
            () = self.note_rollouts() => {}
            () = guardrails::watch(&self.app) => {}
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
}
