//! The server's configuration: `bellwether.toml`, then `BELLWETHER_*` variables, then flags.
//!
//! Each later source replaces single settings of the earlier ones. Every setting has a default,
//! so that a server starts without any file. Unknown keys are refused.

mod events;
mod history;
mod repository;
mod rollout;
mod score_batch;
mod security;
mod source;
mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

pub use self::events::{EventsConfig, FutureEvents};
pub use self::history::HistoryConfig;
pub use self::repository::{RepositoryConfig, VersionPolicy};
pub use self::rollout::RolloutConfig;
pub use self::score_batch::ScoreBatchConfig;
pub use self::security::{SecurityConfig, TlsConfig};
pub use self::source::{NatsConfig, SourceConfig};
use self::store::without_passwords;
pub use self::store::{OnFailure, SecretUrl, StoreConfig, StoreKind};

/// The configuration file read when no other is named and it exists.
pub const DEFAULT_FILE: &str = "bellwether.toml";

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTP server; port 0 takes a free one and says which in the log.
    pub listen: String,
    /// Address of the gRPC server, which is off without one; port 0 takes a free one.
    pub grpc_listen: Option<String>,
    /// Where the online store and the ledger are kept.
    pub data_dir: PathBuf,
    /// The model repository, `<models>/<name>/<version>/model.onnx`.
    pub models: PathBuf,
    /// The feature views, `<features>/<view>.toml`.
    pub features: PathBuf,
    /// Models without which the server is not ready.
    pub require_models: Vec<String>,
    /// Refuse to start when anything in the configuration or a model version is wrong.
    pub strict: bool,
    /// Listen on an address other machines can reach, although there are no API keys.
    pub allow_remote_without_keys: bool,
    /// The largest request body, in bytes; over it the answer is 413.
    pub max_body_bytes: usize,
    /// The largest body of an inference request that carries tensors as bytes, in bytes; over it the
    /// answer is 413.
    pub max_tensor_body_bytes: usize,
    /// The most rows in one inference request; over it the answer is 413.
    pub max_rows: usize,
    /// How many connections are served at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// How many large or slow requests run at once; as many as there are cores when left out.
    pub max_concurrency: Option<usize>,
    /// How many requests may wait for that; over it the answer is 429.
    pub max_queue: usize,
    /// How long a request may wait before its work is begun; over it the answer is 504. A caller can
    /// ask for less.
    #[serde(with = "humantime_serde")]
    pub request_deadline: Duration,
    /// How long a client may take to send a request.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a client may take to agree on keys for TLS, and to begin HTTP/2; its connection is closed
    /// then.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long a connection may be without a complete request head, and an HTTP/2 client may leave a
    /// ping without an answer; it is closed then.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer; its connection is closed then.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// How long requests are still taken after readiness has turned to 503 at SIGTERM, so that load
    /// balancers notice first.
    #[serde(with = "humantime_serde")]
    pub shutdown_delay: Duration,
    /// How long requests in flight may take after that.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    /// How many rows may wait for the ledger; over it scoring answers 503.
    pub ledger_queue_rows: usize,
    /// How many bytes of tensors, inputs and outputs together, the ledger keeps of one inference
    /// request. Of a larger one it keeps names, types and shapes: requests of one customer are logged
    /// whole, those of a batch job by shape, because the job has the data and a disk filled with a
    /// second copy of it would stop the server.
    pub max_logged_tensor_bytes: usize,
    /// The online store.
    pub store: StoreConfig,
    /// The brokers that events come from, each a `[[source]]`.
    pub source: Vec<SourceConfig>,
    /// How events are taken.
    pub events: EventsConfig,
    /// How the server reads its own history.
    pub history: HistoryConfig,
    /// Which versions of the models are loaded, and how new ones come.
    pub repository: RepositoryConfig,
    /// How versions in shadow and in canary are watched.
    pub rollout: RolloutConfig,
    /// Many customers in one request.
    pub score_batch: ScoreBatchConfig,
    /// Who may use the server.
    pub security: SecurityConfig,
    /// TLS for HTTP and gRPC.
    pub tls: TlsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:8080".to_owned(),
            grpc_listen: None,
            data_dir: "data".into(),
            models: "models".into(),
            features: "features".into(),
            require_models: Vec::new(),
            strict: false,
            allow_remote_without_keys: false,
            max_body_bytes: 4 * 1024 * 1024,
            max_tensor_body_bytes: 32 * 1024 * 1024,
            max_rows: 100_000,
            max_connections: 4096,
            max_concurrency: None,
            max_queue: 64,
            request_deadline: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            shutdown_delay: Duration::ZERO,
            shutdown_timeout: Duration::from_secs(8),
            ledger_queue_rows: 65_536,
            max_logged_tensor_bytes: 16 * 1024,
            store: StoreConfig::default(),
            source: Vec::new(),
            events: EventsConfig::default(),
            history: HistoryConfig::default(),
            repository: RepositoryConfig::default(),
            rollout: RolloutConfig::default(),
            score_batch: ScoreBatchConfig::default(),
            security: SecurityConfig::default(),
            tls: TlsConfig::default(),
        }
    }
}

/// The settings that flags and variables can set, shared by the commands.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: bellwether.toml when it exists]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of the online store and the ledger [default: data]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Model repository [default: models]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_MODELS")]
    pub models: Option<PathBuf>,
    /// Folder of feature views [default: features]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_FEATURES")]
    pub features: Option<PathBuf>,
    /// Redis or Valkey server to keep current values on, redis://[user:password@]host[:port][/db]
    /// [default: the embedded store in the data directory]
    #[arg(
        long,
        value_name = "URL",
        env = "BELLWETHER_STORE_URL",
        hide_env_values = true
    )]
    pub store_url: Option<String>,
}

impl Config {
    /// Reads the file and applies the arguments, which already hold flags and variables.
    ///
    /// # Errors
    /// The file, line and key that is wrong.
    pub fn load(args: &ConfigArgs) -> Result<Config, String> {
        let mut config = match &args.config {
            Some(file) => Config::read(file)?,
            None if Path::new(DEFAULT_FILE).exists() => Config::read(Path::new(DEFAULT_FILE))?,
            None => Config::default(),
        };
        let set = |target: &mut PathBuf, value: &Option<PathBuf>| {
            if let Some(value) = value {
                target.clone_from(value);
            }
        };
        set(&mut config.data_dir, &args.data_dir);
        set(&mut config.models, &args.models);
        set(&mut config.features, &args.features);
        if let Some(url) = &args.store_url {
            config.store.url = Some(url.as_str().into());
        }
        Ok(config)
    }

    fn read(file: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        toml::from_str(&text)
            // The message shows the line that is wrong.
            .map_err(|e| {
                let problem = without_passwords(&e.to_string());
                format!("{}: {}", file.display(), problem.trim_end())
            })
    }

    /// The address to listen on.
    ///
    /// # Errors
    /// What is wrong with `listen`.
    pub fn listen_address(&self) -> Result<SocketAddr, String> {
        parse_address("listen", &self.listen, 8080)
    }

    /// The address of the gRPC server, if there is to be one.
    ///
    /// # Errors
    /// What is wrong with `grpc_listen`.
    pub fn grpc_listen_address(&self) -> Result<Option<SocketAddr>, String> {
        let listen = self.grpc_listen.as_deref();
        listen
            .map(|listen| parse_address("grpc_listen", listen, 8081))
            .transpose()
    }
}

fn parse_address(setting: &str, listen: &str, usual_port: u16) -> Result<SocketAddr, String> {
    // The one name that means the same everywhere; any other might be resolved to where it is not meant.
    let address = match listen.rsplit_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => listen.to_owned(),
    };
    address.parse().map_err(|_| {
        format!("{setting}: expected an address like 127.0.0.1:{usual_port}, found {listen:?}")
    })
}
