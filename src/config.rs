//! The server's configuration: `bellwether.toml`, then `BELLWETHER_*` variables, then flags.
//!
//! Each later source replaces single settings of the earlier ones. Every setting has a default,
//! so that a server starts without any file. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::ingest::message::Format;

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
    /// The online store.
    pub store: StoreConfig,
    /// The brokers that events come from, each a `[[source]]`.
    pub source: Vec<SourceConfig>,
    /// How events are taken.
    pub events: EventsConfig,
    /// How the server reads its own history.
    pub history: HistoryConfig,
}

/// A broker that events come from, by its `kind`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SourceConfig {
    Nats(NatsConfig),
}

/// A stream on a NATS server with JetStream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// What the source is called in the log, in metrics and in its dead-letter file; the name of the
    /// stream when left out.
    pub name: Option<String>,
    /// `nats://host:port`, or `tls://host:port`; several servers of a cluster with commas between.
    pub url: String,
    /// The stream, which has to exist.
    pub stream: String,
    /// Only messages with this subject, which may have wildcards.
    pub subject: Option<String>,
    /// The durable consumer, which is created when it does not exist. Servers that name the same one
    /// share the messages.
    pub consumer: String,
    /// A credentials file (`.creds`) with a user's token and key.
    pub credentials_file: Option<PathBuf>,
    /// Certificates (PEM) that the server's is checked against, instead of the system's; asks for TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// How the messages are written.
    #[serde(default)]
    pub format: Format,
    /// After which time without an acknowledgement a message is delivered again. For a consumer that
    /// is created.
    #[serde(default = "default_ack_wait", with = "humantime_serde")]
    pub ack_wait: Duration,
    /// How many messages may be delivered and not acknowledged. For a consumer that is created.
    #[serde(default = "default_max_ack_pending")]
    pub max_ack_pending: u32,
}

fn default_ack_wait() -> Duration {
    Duration::from_secs(30)
}

fn default_max_ack_pending() -> u32 {
    10_000
}

impl SourceConfig {
    /// What the source is called.
    pub fn name(&self) -> &str {
        match self {
            SourceConfig::Nats(nats) => nats.name.as_deref().unwrap_or(&nats.stream),
        }
    }

    /// How its messages are written.
    pub fn format(&self) -> Format {
        match self {
            SourceConfig::Nats(nats) => nats.format,
        }
    }
}

/// How events are taken, `[events]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// The most events, or rows of features, in one request; over it the answer is 413.
    pub max_batch_events: usize,
    /// The largest body of such a request, in bytes; over it the answer is 413.
    pub max_body_bytes: usize,
    /// What becomes of an event that lies in the future by more than `max_clock_skew`.
    pub future: FutureEvents,
    /// How far ahead an event may lie because the clocks of sender and server differ. It counts from
    /// its time on.
    #[serde(with = "humantime_serde")]
    pub max_clock_skew: Duration,
    /// How far ahead an event may lie that is parked.
    #[serde(with = "humantime_serde")]
    pub max_ahead: Duration,
    /// The key column that the `subject` of a CloudEvent is, when its data does not have that column;
    /// empty when it is none.
    pub cloudevents_subject: String,
}

/// What becomes of an event that lies in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FutureEvents {
    /// It is refused.
    Refuse,
    /// It is kept and counts from its time on.
    Park,
}

impl Default for EventsConfig {
    fn default() -> Self {
        EventsConfig {
            max_batch_events: 10_000,
            max_body_bytes: 16 * 1024 * 1024,
            future: FutureEvents::Refuse,
            max_clock_skew: Duration::from_secs(5),
            max_ahead: Duration::from_secs(24 * 3600),
            cloudevents_subject: "customer_id".to_owned(),
        }
    }
}

/// Section `[store]`: where current values are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `embedded` or `redis`; when left out, `redis` if there is a `url`.
    pub kind: Option<StoreKind>,
    /// The Redis or Valkey server: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS,
    /// `redis+cluster://` or `rediss+cluster://` for a cluster.
    pub url: Option<SecretUrl>,
    /// PEM file with the authorities that the Redis server's certificate is checked against, instead of
    /// those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub key_prefix: String,
    /// How long opening a connection may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a read may take; a batch of writes may take ten times that.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// What a score is answered with while the shared store is lost.
    pub on_failure: OnFailure,
    /// The Redis server is a node of a cluster.
    pub cluster: bool,
    /// Memory for the entities that the embedded store keeps at hand.
    pub cache_bytes: u64,
}

/// The kinds of online store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Embedded,
    Redis,
}

/// What a score is answered with while the shared store is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// 503 with Retry-After.
    #[default]
    Unavailable,
    /// A prediction from the declared defaults, which says so.
    Defaults,
}

/// A URL that may hold a password: it is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The text, for connecting only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> SecretUrl {
        SecretUrl(url.to_owned())
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            kind: None,
            url: None,
            tls_ca_file: None,
            key_prefix: "bw:".to_owned(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_millis(250),
            on_failure: OnFailure::default(),
            cluster: false,
            cache_bytes: 512 * 1024 * 1024,
        }
    }
}

impl StoreConfig {
    /// The kind that is meant.
    ///
    /// # Errors
    /// When kind and URL contradict each other, or a time is nothing.
    pub fn checked_kind(&self) -> Result<StoreKind, String> {
        for (name, time) in [
            ("connect_timeout", self.connect_timeout),
            ("timeout", self.timeout),
        ] {
            if time.is_zero() {
                return Err(format!("store.{name}: expected a time greater than zero"));
            }
        }
        match (self.kind, &self.url) {
            (Some(StoreKind::Embedded), Some(_)) => Err(
                "store.kind is embedded, but there is a store.url; leave one of them out"
                    .to_owned(),
            ),
            (Some(StoreKind::Redis), None) => Err(
                "store.kind is redis, but there is no store.url; write for example \
                 redis://localhost:6379"
                    .to_owned(),
            ),
            (Some(StoreKind::Redis) | None, Some(_)) => Ok(StoreKind::Redis),
            (Some(StoreKind::Embedded) | None, None) => Ok(StoreKind::Embedded),
        }
    }
}

/// `text` without the user and password of any URL in it.
fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let authority_ends = after.find(['/', '\n', '"', '\'']).unwrap_or(after.len());
        let user_ends = after[..authority_ends].rfind('@');
        clean.push_str(before);
        clean.push_str("://");
        rest = match user_ends {
            Some(end) => {
                clean.push_str("***");
                &after[end..]
            }
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}

/// How the server reads its own history, `[history]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// The most observations in one request for a training set; over it the answer is 422.
    pub max_rows: u64,
    /// The largest body of such a request, in bytes; over it the answer is 413.
    pub max_body_bytes: usize,
    /// Memory for sorting, in bytes; what does not fit is put aside in the data directory.
    pub memory_bytes: usize,
    /// What may be put aside there, in bytes; a request that needs more is refused.
    pub temp_bytes: u64,
    /// How often a sample of the predictions made since the last time is recomputed and compared; zero
    /// for never.
    #[serde(with = "humantime_serde")]
    pub consistency_interval: Duration,
    /// How many predictions at most.
    pub consistency_sample: usize,
    /// A ledger larger than this, in bytes, is not read for that: `bellwether ledger consistency` is
    /// for large ones, on a machine that has the time.
    pub consistency_max_log_bytes: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig {
            max_rows: 1_000_000,
            max_body_bytes: 64 * 1024 * 1024,
            memory_bytes: 256 * 1024 * 1024,
            temp_bytes: 8 * 1024 * 1024 * 1024,
            consistency_interval: Duration::from_secs(600),
            consistency_sample: 200,
            consistency_max_log_bytes: 4 * 1024 * 1024 * 1024,
        }
    }
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
            store: StoreConfig::default(),
            source: Vec::new(),
            events: EventsConfig::default(),
            history: HistoryConfig::default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_line_does_not_repeat_its_password() {
        for (text, clean) in [
            (
                "url = redis://u:p@ss@host/1 x",
                "url = redis://***@host/1 x",
            ),
            ("url = 'redis://host' # a@b", "url = 'redis://host' # a@b"),
            ("a://b@c d://e@f", "a://***@c d://***@f"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_passwords(text), clean);
        }
        let config = StoreConfig {
            url: Some("redis://u:hunter2@host".into()),
            ..StoreConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_url_is_enough_to_choose_redis_and_contradictions_are_refused() {
        let with = |kind, url: Option<&str>| {
            let url = url.map(SecretUrl::from);
            StoreConfig {
                kind,
                url,
                ..StoreConfig::default()
            }
            .checked_kind()
        };
        assert_eq!(with(None, None), Ok(StoreKind::Embedded));
        assert_eq!(with(None, Some("redis://a")), Ok(StoreKind::Redis));
        assert!(with(Some(StoreKind::Embedded), Some("redis://a")).is_err());
        assert!(with(Some(StoreKind::Redis), None).is_err());
    }
}
