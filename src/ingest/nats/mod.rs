//! NATS JetStream as a source of events: a durable pull consumer with explicit acknowledgement.
//!
//! The stream has to exist; the consumer is created when it does not. Several servers with the same
//! consumer share its messages. A message that is not acknowledged within `ack_wait` (after a crash,
//! say) is delivered again.
//!
//! Acknowledgements are sent and not confirmed one by one: one that is lost costs a second delivery.

mod delivery;

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::{self, ErrorCode, context::GetStreamErrorKind};
use async_nats::{Client, ConnectOptions, ServerAddr, StatusCode};
use futures_util::StreamExt;

use self::delivery::Delivery;
use super::message::percent_decode;
use super::source::{Message, Source, SourceError, SourceFuture};
use crate::config::NatsConfig;

/// Messages in one batch.
const BATCH_MESSAGES: usize = 1000;

/// Bytes in one batch; a single message may have more.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How long an empty stream is waited at before `fetch` returns.
const WAIT: Duration = Duration::from_millis(500);

/// How long the server may take to answer anything.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A stream on a NATS server.
pub struct NatsSource {
    config: NatsConfig,
    servers: Vec<ServerAddr>,
    connection: Option<Connection>,
}

struct Connection {
    client: Client,
    consumer: Consumer<pull::Config>,
    batch_bytes: usize,
}

impl NatsSource {
    /// Checks the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn new(config: NatsConfig) -> Result<NatsSource, String> {
        let mut servers = Vec::new();
        for url in config.url.split(',') {
            // The URL may hold a password and is not repeated.
            let server = url.trim().parse::<ServerAddr>().map_err(|error| {
                format!("url: expected one like nats://127.0.0.1:4222, or several with commas between: {error}")
            })?;
            servers.push(server);
        }
        check_name("stream", &config.stream)?;
        check_name("consumer", &config.consumer)?;
        if let Some(subject) = &config.subject
            && (subject.is_empty() || subject.contains(char::is_whitespace))
        {
            return Err(format!(
                "subject: expected one like events.> without spaces, found {subject:?}"
            ));
        }
        if config.max_ack_pending == 0 {
            return Err("max_ack_pending: expected at least 1, found 0".to_owned());
        }
        if config.ack_wait < Duration::from_secs(1) {
            return Err(format!(
                "ack_wait: expected at least 1s, found {}",
                humantime::format_duration(config.ack_wait)
            ));
        }
        Ok(NatsSource {
            config,
            servers,
            connection: None,
        })
    }

    async fn open(&self) -> Result<Connection, SourceError> {
        let client = self.connect_client().await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_WITHIN);
        let (stream, name) = (&self.config.stream, &self.config.consumer);
        let found = context.get_stream(stream).await;
        let found = found.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                SourceError(format!(
                    "stream {stream:?} does not exist on the NATS server; create it, or correct `stream`"
                ))
            }
            _ => failed(&format!("asking for stream {stream:?}"), &error),
        })?;
        let wanted = self.consumer_config();
        let consumer: Consumer<pull::Config> = found
            .get_or_create_consumer(name, wanted.clone())
            .await
            .map_err(|error| failed(&format!("opening consumer {name:?}"), &error))?;
        self.check_consumer(&consumer, &wanted)?;
        let largest = client.server_info().max_payload;
        Ok(Connection {
            client,
            consumer,
            // Headers and subject count, too.
            batch_bytes: BATCH_BYTES.max(largest.saturating_add(64 * 1024)),
        })
    }

    async fn connect_client(&self) -> Result<Client, SourceError> {
        let mut options = ConnectOptions::new()
            .name("bellwether")
            .connection_timeout(ANSWER_WITHIN)
            .request_timeout(Some(ANSWER_WITHIN))
            .subscription_capacity(BATCH_MESSAGES + 16)
            // Whoever runs this source connects again, with its pauses.
            .max_reconnects(1);
        // The client itself takes no notice of who a URL says that we are.
        let user = self.servers.iter().find_map(|server| {
            let user = server.username().filter(|user| !user.is_empty())?;
            Some((percent_decode(user), server.password().map(percent_decode)))
        });
        options = match user {
            None => options,
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
        };
        if let Some(file) = &self.config.credentials_file {
            options = options.credentials_file(file).await.map_err(|error| {
                SourceError(format!("credentials_file {}: {error}", file.display()))
            })?;
        }
        if let Some(file) = &self.config.tls_ca_file {
            options = options
                .add_root_certificates(file.clone())
                .require_tls(true);
        }
        let connecting = options.connect(self.servers.clone());
        // The names of the servers, without the passwords that a URL may hold.
        let hosts: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("{}:{}", server.host(), server.port()))
            .collect();
        let what = format!("connecting to NATS at {}", hosts.join(", "));
        match tokio::time::timeout(ANSWER_WITHIN * 2, connecting).await {
            Ok(connected) => connected.map_err(|error| failed(&what, &error)),
            Err(_) => Err(SourceError(format!("{what}: no answer"))),
        }
    }

    fn consumer_config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.config.consumer.clone()),
            name: Some(self.config.consumer.clone()),
            description: Some("Events for Bellwether".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.config.ack_wait,
            max_ack_pending: i64::from(self.config.max_ack_pending),
            filter_subject: self.config.subject.clone().unwrap_or_default(),
            ..pull::Config::default()
        }
    }

    /// A consumer that was there may have been made for something else.
    fn check_consumer(
        &self,
        consumer: &Consumer<pull::Config>,
        wanted: &pull::Config,
    ) -> Result<(), SourceError> {
        let found = &consumer.cached_info().config;
        let name = &self.config.consumer;
        let advice = "delete it, or name another `consumer`";
        if found.ack_policy != AckPolicy::Explicit {
            return Err(SourceError(format!(
                "consumer {name:?} exists with acknowledgement {:?}, expected explicit; {advice}",
                found.ack_policy
            )));
        }
        if found.filter_subject != wanted.filter_subject {
            return Err(SourceError(format!(
                "consumer {name:?} exists for subject {:?}, expected {:?}; {advice}",
                found.filter_subject, wanted.filter_subject
            )));
        }
        if found.max_deliver > 0 {
            return Err(SourceError(format!(
                "consumer {name:?} gives up on a message after {} deliveries, which would lose events \
                 while the store is down; {advice}",
                found.max_deliver
            )));
        }
        Ok(())
    }

    fn connection(&self) -> Result<&Connection, SourceError> {
        let connection = self.connection.as_ref();
        connection.ok_or_else(|| SourceError("not connected to NATS".to_owned()))
    }
}

impl Source for NatsSource {
    fn connect(&mut self) -> SourceFuture<'_, ()> {
        Box::pin(async {
            self.connection = None;
            self.connection = Some(self.open().await?);
            Ok(())
        })
    }

    fn fetch(&self) -> SourceFuture<'_, Vec<Message>> {
        Box::pin(async {
            let connection = self.connection()?;
            // What is there, at once; if nothing is, the next one that comes.
            let there = connection.pull(BATCH_MESSAGES, None).await?;
            if there.is_empty() {
                connection.pull(1, Some(WAIT)).await
            } else {
                Ok(there)
            }
        })
    }

    fn acknowledge<'a>(&'a self, messages: &'a [Message]) -> SourceFuture<'a, ()> {
        Box::pin(async move {
            let client = &self.connection()?.client;
            for message in messages {
                let receipt = message.receipt.clone();
                let sent = client.publish(receipt, "+ACK".into()).await;
                sent.map_err(|error| failed("acknowledging", &error))?;
            }
            let flushed = client.flush().await;
            flushed.map_err(|error| failed("acknowledging", &error))?;
            self.connection()?.check_state()
        })
    }

    fn lag(&self) -> SourceFuture<'_, u64> {
        Box::pin(async {
            let connection = self.connection()?;
            let info = connection.consumer.get_info().await;
            let info = info.map_err(|error| failed("asking for the consumer's state", &error))?;
            Ok(info.num_pending + info.num_ack_pending as u64)
        })
    }
}

impl Connection {
    /// Asks for messages: without `wait` for those that are there, with it until the first has come or
    /// the time is over.
    async fn pull(
        &self,
        messages: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Message>, SourceError> {
        self.check_state()?;
        let inbox = self.client.new_inbox();
        let asking = |error: &dyn std::error::Error| failed("asking for messages", error);
        let mut replies = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| asking(&error))?;
        let request = pull::BatchConfig {
            batch: messages,
            expires: wait,
            no_wait: wait.is_none(),
            max_bytes: self.batch_bytes,
            ..pull::BatchConfig::default()
        };
        let asked = self.consumer.request_batch(request, inbox.into()).await;
        asked.map_err(|error| asking(&error))?;

        let patience = wait.unwrap_or_default() + ANSWER_WITHIN;
        let mut batch = Vec::new();
        while batch.len() < messages {
            let reply = match tokio::time::timeout(patience, replies.next()).await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Err(SourceError("the connection to NATS was lost".to_owned())),
                // What comes later is delivered again.
                Err(_) if !batch.is_empty() => break,
                Err(_) => {
                    self.check_state()?;
                    return Err(SourceError("the NATS server does not answer".to_owned()));
                }
            };
            let description = reply.description.as_deref().unwrap_or_default();
            match reply.status.unwrap_or(StatusCode::OK) {
                StatusCode::OK => batch.push(read(reply)?),
                StatusCode::IDLE_HEARTBEAT => {}
                // There are no more.
                StatusCode::NOT_FOUND | StatusCode::TIMEOUT => break,
                // The next one would be too much for this batch.
                _ if description.contains("Exceeds MaxBytes") && !batch.is_empty() => break,
                // Too many wait for their acknowledgement, maybe of a server that crashed.
                _ if description.contains("MaxAckPending") => {
                    if batch.is_empty() {
                        tokio::time::sleep(WAIT).await;
                    }
                    break;
                }
                status => {
                    return Err(SourceError(format!(
                        "the NATS server delivers nothing: {status} {description}"
                    )));
                }
            }
        }
        Ok(batch)
    }

    fn check_state(&self) -> Result<(), SourceError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            state => Err(SourceError(format!("the connection to NATS is {state}"))),
        }
    }
}

fn read(message: async_nats::Message) -> Result<Message, SourceError> {
    let receipt = message.reply.as_ref().map(ToString::to_string);
    let receipt = receipt.unwrap_or_default();
    let delivery = Delivery::read(&receipt).ok_or_else(|| {
        SourceError("a message came without the reply subject of JetStream".to_owned())
    })?;
    let mut headers = Vec::new();
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        for value in values {
            headers.push((name.to_string(), value.to_string()));
        }
    }
    Ok(Message {
        payload: message.payload,
        headers,
        stream: delivery.stream.to_owned(),
        subject: message.subject.to_string(),
        sequence: delivery.sequence,
        taken_at_us: Some(delivery.taken_at_us),
        redelivered: delivery.count > 1,
        receipt,
    })
}

/// The names of streams and consumers are tokens of subjects.
fn check_name(setting: &str, name: &str) -> Result<(), String> {
    let allowed = |letter: char| !letter.is_whitespace() && !".*>/\\".contains(letter);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!(
            "{setting}: expected a name without spaces, dots, slashes, * and >, found {name:?}"
        ));
    }
    Ok(())
}

/// An error with all that led to it.
fn failed(doing: &str, error: &dyn std::error::Error) -> SourceError {
    let mut text = format!("{doing}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    SourceError(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        let config = |change: fn(&mut NatsConfig)| {
            let mut config: NatsConfig = toml::from_str(
                "url = 'nats://127.0.0.1:4222'\nstream = 'events'\nconsumer = 'bellwether'",
            )
            .unwrap();
            change(&mut config);
            NatsSource::new(config).map(|_| ())
        };
        assert_eq!(config(|_| {}), Ok(()));
        type Change = fn(&mut NatsConfig);
        let cases: [(Change, &str); 5] = [
            (|config| config.url = "nats://:secret@".to_owned(), "url"),
            (|config| config.stream = "a.b".to_owned(), "stream"),
            (|config| config.consumer = String::new(), "consumer"),
            (|config| config.subject = Some("a b".to_owned()), "subject"),
            (|config| config.max_ack_pending = 0, "max_ack_pending"),
        ];
        for (change, setting) in cases {
            let problem = config(change).unwrap_err();
            assert!(problem.starts_with(setting), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
