//! Sections `[[source]]`: the brokers that events come from.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::ingest::message::Format;

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
