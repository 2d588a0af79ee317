//! `bellwether serve`: the server.

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::runtime;
use crate::config::{Config, ConfigArgs};
use crate::serve::Server;
use crate::telemetry;

/// Serve predictions over HTTP
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether serve --listen 127.0.0.1:8080 --data-dir data --models models --features features"
)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address of the HTTP server; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT", env = "BELLWETHER_LISTEN")]
    listen: Option<String>,
    /// Refuse to start when a model version is refused
    #[arg(long, env = "BELLWETHER_STRICT")]
    strict: bool,
    /// Not ready without this model; may be repeated
    #[arg(
        long = "require-model",
        value_name = "NAME",
        env = "BELLWETHER_REQUIRE_MODELS",
        value_delimiter = ','
    )]
    require_models: Vec<String>,
    /// Listen on an address other machines can reach, although there are no API keys
    #[arg(long, env = "BELLWETHER_ALLOW_REMOTE_WITHOUT_KEYS")]
    allow_remote_without_keys: bool,
}

impl ServeArgs {
    fn into_config(self) -> Result<Config, String> {
        let mut config = Config::load(&self.config)?;
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        config.strict |= self.strict;
        config.allow_remote_without_keys |= self.allow_remote_without_keys;
        if !self.require_models.is_empty() {
            config.require_models = self.require_models;
        }
        Ok(config)
    }
}

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting or from stopping cleanly.
pub fn run(args: ServeArgs) -> Result<(), String> {
    telemetry::start_logging();
    let config = args.into_config()?;
    let address = config.listen_address()?;
    runtime()?.block_on(async {
        let server = Server::open(config)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("listen: cannot bind {address}: {error}"))?;
        server.run(listener, shutdown_signal()?).await
    })
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be watched.
pub fn shutdown_signal() -> Result<impl Future<Output = ()>, String> {
    let watch = |kind| signal(kind).map_err(|error| format!("cannot watch signals: {error}"));
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
