//! The sources of a running server: started when it is open, stopped before it closes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Ingest;
use super::dead_letters::{DeadLetters, Limits};
use super::nats::NatsSource;
use super::runner::Runner;
use super::source::Source;
use super::take::Origin;
use crate::config::{Config, SourceConfig};

/// How long sources may take to finish what was delivered.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// Sources that were checked and not started yet.
#[derive(Default)]
pub struct Sources {
    sources: Vec<(SourceConfig, Box<dyn Source>)>,
}

/// Sources that run.
pub struct RunningSources {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Sources {
    /// Checks what is configured; connects to nothing yet.
    ///
    /// # Errors
    /// The source and the setting that is wrong.
    pub fn new(configs: &[SourceConfig]) -> Result<Sources, String> {
        let mut sources: Vec<(SourceConfig, Box<dyn Source>)> = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            let name = config.name();
            let place = format!("source {} ({name:?})", index + 1);
            let source = match config {
                SourceConfig::Nats(nats) => NatsSource::new(nats.clone()),
            };
            let source = source.map_err(|problem| format!("{place}: {problem}"))?;
            let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
                return Err(format!(
                    "{place}: name: expected 1 to 64 letters, digits, - and _, because it names the dead-letter \
                     file; set `name`"
                ));
            }
            if sources.iter().any(|(other, _)| other.name() == name) {
                return Err(format!(
                    "{place}: another source has this name; give each its own with `name`"
                ));
            }
            sources.push((config.clone(), Box::new(source)));
        }
        Ok(Sources { sources })
    }

    /// Starts each source of a server in its own task.
    pub fn start(self, ingest: &Arc<Ingest>, server: &Config) -> RunningSources {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (config, source) in self.sources {
            let name = config.name().to_owned();
            let dead_letters = DeadLetters::new(&server.data_dir, &name, Limits::default());
            let runner = Runner {
                source,
                format: config.format(),
                origin: match config {
                    SourceConfig::Nats(_) => Origin::Nats,
                },
                events: server.events.clone(),
                ingest: Arc::clone(ingest),
                dead_letters: Arc::new(dead_letters),
                stop: stopped.clone(),
                name,
            };
            tasks.spawn(runner.run());
        }
        RunningSources { stop, tasks }
    }
}

impl RunningSources {
    /// Fetches no more, finishes and acknowledges what was delivered. What a broker in trouble keeps
    /// from being acknowledged in time is delivered again.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let finish = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, finish).await.is_err() {
            tracing::warn!(
                "sources did not stop in time; what they were at will be delivered again"
            );
        }
    }
}
