//! The server's configuration: `bellwether.toml`, then `BELLWETHER_*` variables, then flags.
//!
//! Each later source replaces single settings of the earlier ones. Every setting has a default,
//! so that a server starts without any file. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

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
            shutdown_delay: Duration::ZERO,
            shutdown_timeout: Duration::from_secs(8),
            ledger_queue_rows: 65_536,
            max_logged_tensor_bytes: 16 * 1024,
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
        Ok(config)
    }

    fn read(file: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        toml::from_str(&text)
            .map_err(|e| format!("{}: {}", file.display(), e.to_string().trim_end()))
    }

    /// The address to listen on, refused when other machines could reach it without keys.
    ///
    /// # Errors
    /// What is wrong with `listen` and what to do.
    pub fn listen_address(&self) -> Result<SocketAddr, String> {
        self.checked_address("listen", &self.listen, 8080)
    }

    /// The address of the gRPC server, if there is to be one, refused as that of HTTP is.
    ///
    /// # Errors
    /// What is wrong with `grpc_listen` and what to do.
    pub fn grpc_listen_address(&self) -> Result<Option<SocketAddr>, String> {
        let listen = self.grpc_listen.as_deref();
        listen
            .map(|listen| self.checked_address("grpc_listen", listen, 8081))
            .transpose()
    }

    fn checked_address(
        &self,
        setting: &str,
        listen: &str,
        usual_port: u16,
    ) -> Result<SocketAddr, String> {
        let address: SocketAddr = listen.parse().map_err(|_| {
            format!("{setting}: expected an address like 127.0.0.1:{usual_port}, found {listen:?}")
        })?;
        if !address.ip().is_loopback() && !self.allow_remote_without_keys {
            return Err(format!(
                "{setting}: {address} can be reached from other machines, and everyone who reaches \
                 it may read and write; listen on 127.0.0.1, or say --allow-remote-without-keys"
            ));
        }
        Ok(address)
    }
}
