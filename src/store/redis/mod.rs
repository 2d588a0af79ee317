//! The shared online store: a Redis or Valkey server that several servers of ours use together.
//!
//! An entity is one value, read with one command; what a batch does to it is computed here and
//! written back by a script that changes the entity and remembers its events in one step, or does
//! nothing when another server was faster. So an event is counted exactly once, whoever takes it,
//! however often it is sent, and wherever a process dies.
//!
//! What it promises: everything asked of it ends within the configured times. A store that does not
//! answer is [`StoreError::Unavailable`], at once while it is known to be lost; it is used again as
//! soon as it is back. Passwords are in no message.
//!
//! What it does not do: it keeps no copy. How durable and how available the data is, is up to the
//! Redis server (see the guide for operations).
//!
//! * [`address`] – from the configuration to something that connects.
//! * [`links`] – one connection for each thread, kept open.
//! * [`layout`] – keys, and the bytes of a value.
//! * [`apply`] – writing a batch.
//! * [`scan`] – reading every entity.
//! * [`position`] – what a server remembers of the shared store in its own directory.

mod address;
mod apply;
mod layout;
mod links;
mod position;
mod scan;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{Cmd, Pipeline, Script};

use self::address::Address;
use self::layout::{Layout, Record};
use self::links::{Links, Times};
use self::position::Position;
use super::entity::{Applied, Entity};
use super::scan::Page;
use super::{Batch, OnlineStore, Snapshot, StoreError, StoreFuture, Watermark};
use crate::config::StoreConfig;
use crate::features::view::View;

/// A batch of writes may take this many times as long as a read.
const WRITE_FACTOR: u32 = 10;

/// How often the watermark is written, so that a start after a crash has little to send again.
const WATERMARK_EVERY: Duration = Duration::from_secs(10);

/// The store on a Redis or Valkey server.
pub struct RedisStore {
    links: Links,
    layout: Layout,
    script: Script,
    position: Position,
    progress: Mutex<Progress>,
    counters: Counters,
}

struct Progress {
    watermark: Watermark,
    /// When the watermark was written last.
    written: Instant,
}

struct Counters {
    reads_failed: metrics::Counter,
    writes_failed: metrics::Counter,
    conflicts: metrics::Counter,
}

impl RedisStore {
    /// Whether the settings can be right; nothing is connected to.
    ///
    /// # Errors
    /// The setting that is wrong, and what was expected.
    pub fn check(config: &StoreConfig) -> Result<(), String> {
        Layout::new(&config.key_prefix)?;
        Address::new(config).map(drop)
    }

    /// Prepares the store that `config` describes. It connects when it is first used, so that a
    /// server starts while Redis is away. What this server has to remember is kept in `data_dir`.
    ///
    /// # Errors
    /// A setting that is wrong, or a data directory that cannot be read or written.
    pub fn open(config: &StoreConfig, data_dir: &Path) -> Result<RedisStore, StoreError> {
        let layout = Layout::new(&config.key_prefix).map_err(StoreError::Settings)?;
        let address = Address::new(config).map_err(StoreError::Settings)?;
        let scope = format!("{} {}", address.name(), config.key_prefix);
        let (position, watermark) = Position::open(&data_dir.join("redis"), &scope)?;
        let times = Times {
            connect: config.connect_timeout,
            read: config.timeout,
            write: config.timeout * WRITE_FACTOR,
        };
        let failed = |operation: &'static str| metrics::counter!("bellwether_store_unavailable_total", "operation" => operation);
        Ok(RedisStore {
            links: Links::new(address, times),
            layout,
            script: apply::script(),
            position,
            progress: Mutex::new(Progress {
                watermark,
                written: Instant::now(),
            }),
            counters: Counters {
                reads_failed: failed("read"),
                writes_failed: failed("apply"),
                conflicts: metrics::counter!("bellwether_store_conflicts_total"),
            },
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) -> Result<(), StoreError> {
        let watermark = self.watermark();
        self.position.save(watermark)?;
        self.progress().written = Instant::now();
        Ok(())
    }

    /// Everything before `watermark` is in Redis.
    fn advance(&self, watermark: Watermark) {
        let mut progress = self.progress();
        progress.watermark = watermark;
        let is_time = progress.written.elapsed() >= WATERMARK_EVERY;
        drop(progress);
        if is_time && let Err(error) = self.save() {
            // The next start sends more again than it needs to.
            tracing::warn!(%error, "the position in the shared store is not kept");
        }
    }

    async fn read_all(
        &self,
        wanted: &[(&Arc<View>, &str)],
        at_us: i64,
    ) -> Result<Vec<Option<Snapshot>>, StoreError> {
        let get = |view: &View, key: &str| {
            let mut command = Cmd::with_capacity(2, 128);
            command.arg("GET").arg(self.layout.entity_key(view, key));
            command
        };
        let values: Vec<Option<Vec<u8>>> = match wanted {
            [] => return Ok(Vec::new()),
            [(view, key)] => vec![self.links.read_one(&get(view, key)).await?],
            wanted => {
                let mut commands = Pipeline::with_capacity(wanted.len());
                for (view, key) in wanted {
                    commands.add_command(get(view, key));
                }
                self.links.read_many(&commands).await?
            }
        };
        let mut snapshots = Vec::with_capacity(wanted.len());
        for ((view, _), value) in wanted.iter().zip(&values) {
            let entity = match value {
                Some(bytes) => decode(view, bytes)?.1,
                None => None,
            };
            snapshots.push(entity.map(|entity| entity.snapshot(view, at_us)));
        }
        Ok(snapshots)
    }
}

/// A stored value with its entity, which is not there after a removal.
fn decode<'a>(view: &View, bytes: &'a [u8]) -> Result<(Record<'a>, Option<Entity>), StoreError> {
    let record = Record::decode(bytes).map_err(|problem| StoreError::Damaged {
        view: view.name.clone(),
        problem,
    })?;
    let entity = match record.entity {
        Some(bytes) => Some(Entity::decode(view, bytes)?),
        None => None,
    };
    Ok((record, entity))
}

impl OnlineStore for RedisStore {
    fn read<'a>(
        &'a self,
        wanted: &'a [(&'a Arc<View>, &'a str)],
        at_us: i64,
    ) -> StoreFuture<'a, Vec<Option<Snapshot>>> {
        Box::pin(async move {
            let found = self.read_all(wanted, at_us).await;
            if found.is_err() {
                self.counters.reads_failed.increment(1);
            }
            found
        })
    }

    fn scan<'a>(
        &'a self,
        view: &'a Arc<View>,
        after: Option<&'a str>,
        limit: usize,
        at_us: i64,
    ) -> StoreFuture<'a, Page> {
        Box::pin(async move {
            let page = self.scan_page(view, after, limit, at_us).await;
            if matches!(page, Err(StoreError::Unavailable(_))) {
                self.counters.reads_failed.increment(1);
            }
            page
        })
    }

    fn scans_in_order(&self) -> bool {
        false
    }

    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> StoreFuture<'a, Vec<Vec<Applied>>> {
        Box::pin(async move {
            let applied = self.apply_batch(batch).await;
            if applied.is_err() {
                self.counters.writes_failed.increment(1);
                return applied;
            }
            self.advance(Watermark {
                sequence: batch.sequence + batch.changes as u64,
                segment: batch.segment,
            });
            applied
        })
    }

    fn watermark(&self) -> Watermark {
        self.progress().watermark
    }

    fn checkpoint(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(self.save()))
    }
}
