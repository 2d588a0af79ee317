//! `bellwether serve`: the server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::runtime;
use crate::config::{Config, ConfigArgs};
use crate::serve::Server;
use crate::telemetry;

/// Serve predictions over HTTP and gRPC
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
    /// Address of the gRPC server; port 0 takes a free one [default: no gRPC]
    #[arg(long, value_name = "HOST:PORT", env = "BELLWETHER_GRPC_LISTEN")]
    grpc_listen: Option<String>,
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
    /// The file of API keys [default: keys.toml in the data directory]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_KEYS_FILE")]
    keys_file: Option<PathBuf>,
    /// Certificate (PEM) of the server, followed by the intermediate ones; HTTP and gRPC speak TLS then
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_CERT_FILE")]
    tls_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_KEY_FILE")]
    tls_key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities whose clients are let in; every client has to show one
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_CLIENT_CA_FILE")]
    tls_client_ca_file: Option<PathBuf>,
    /// How many large or slow requests run at once [default: one per core]
    #[arg(long, value_name = "N", env = "BELLWETHER_MAX_CONCURRENCY")]
    max_concurrency: Option<usize>,
    /// How many requests may wait for that; further ones get 429 [default: 64]
    #[arg(long, value_name = "N", env = "BELLWETHER_MAX_QUEUE")]
    max_queue: Option<usize>,
    /// How long after its arrival a request may be begun [default: 5s]
    #[arg(long, value_name = "TIME", env = "BELLWETHER_REQUEST_DEADLINE", value_parser = humantime::parse_duration)]
    request_deadline: Option<Duration>,
    /// How long everything is still served after SIGTERM, not ready any more [default: 0s]
    #[arg(long, value_name = "TIME", env = "BELLWETHER_SHUTDOWN_DELAY", value_parser = humantime::parse_duration)]
    shutdown_delay: Option<Duration>,
    /// How long requests in flight may take after that [default: 8s]
    #[arg(long, value_name = "TIME", env = "BELLWETHER_SHUTDOWN_TIMEOUT", value_parser = humantime::parse_duration)]
    shutdown_timeout: Option<Duration>,
}

impl ServeArgs {
    fn into_config(self) -> Result<Config, String> {
        let mut config = Config::load(&self.config)?;
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if self.grpc_listen.is_some() {
            config.grpc_listen = self.grpc_listen;
        }
        config.strict |= self.strict;
        config.allow_remote_without_keys |= self.allow_remote_without_keys;
        set(&mut config.security.keys_file, self.keys_file);
        set(&mut config.tls.cert_file, self.tls_cert_file);
        set(&mut config.tls.key_file, self.tls_key_file);
        set(&mut config.tls.client_ca_file, self.tls_client_ca_file);
        config.max_concurrency = self.max_concurrency.or(config.max_concurrency);
        config.max_queue = self.max_queue.unwrap_or(config.max_queue);
        config.request_deadline = self.request_deadline.unwrap_or(config.request_deadline);
        config.shutdown_delay = self.shutdown_delay.unwrap_or(config.shutdown_delay);
        config.shutdown_timeout = self.shutdown_timeout.unwrap_or(config.shutdown_timeout);
        if !self.require_models.is_empty() {
            config.require_models = self.require_models;
        }
        Ok(config)
    }
}

/// Replaces a setting where a flag is given.
fn set(setting: &mut Option<PathBuf>, flag: Option<PathBuf>) {
    if flag.is_some() {
        *setting = flag;
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
    config.grpc_listen_address()?;
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
