//! Writing a batch: read the entities, fold, write each that changed in one step, do again those that
//! another server wrote meanwhile.
//!
//! The version that is compared says that nothing of the entity has changed since it was read, its
//! events included, because they are only ever written together. So what was computed here is what
//! would have been computed there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind};

use super::layout::{Layout, Mark, Marks, encode};
use super::{RedisStore, decode};
use crate::features::change::{EventIdentity, REMEMBERED_US};
use crate::features::view::View;
use crate::store::entity::{Action, Applied, Entity};
use crate::store::{Batch, StoreError, Work};

/// The most entities in one round trip.
const ENTITIES_PER_ROUND_TRIP: usize = 1000;

/// How often an entity that others write as well is tried. Of those who try at the same time one
/// succeeds each time.
const MAX_ATTEMPTS: u32 = 64;

/// The longest pause before another attempt.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// For how many seconds an event is remembered, and the marks of a removed entity are kept.
const REMEMBERED_SECONDS: i64 = REMEMBERED_US / 1_000_000;

/// Keys: the entity, then its new events. Arguments: the version it was read with (empty: it was not
/// there), its new value, for how many seconds (0: for ever), what to write for each event, for how many
/// seconds. Returns 1, or 0 when it has another version by now; then nothing is written.
const SCRIPT: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, 8) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[4], 'EX', ARGV[5])
end
return 1
";

/// What a batch does to one entity.
struct Part<'a> {
    view: &'a Arc<View>,
    /// Index of the view in the batch.
    view_index: usize,
    redis_key: String,
    /// In order, each with its index among the work of the view.
    work: Vec<(usize, &'a Work<'a>)>,
}

/// What became of one entity's part, computed.
struct Folded {
    outcomes: Vec<Applied>,
    /// Nothing when nothing of the entity changes.
    write: Option<Write>,
}

struct Write {
    version: Vec<u8>,
    value: Vec<u8>,
    is_removal: bool,
    events: HashSet<EventIdentity>,
}

impl RedisStore {
    pub(super) async fn apply_batch(
        &self,
        batch: &Batch<'_>,
    ) -> Result<Vec<Vec<Applied>>, StoreError> {
        let mut outcomes: Vec<Vec<Applied>> = Vec::with_capacity(batch.views.len());
        for part in &batch.views {
            outcomes.push(vec![Applied::Done; part.work.len()]);
        }
        let parts = self.by_entity(batch);
        for chunk in parts.chunks(ENTITIES_PER_ROUND_TRIP) {
            self.apply_chunk(chunk, batch, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    fn by_entity<'a>(&self, batch: &'a Batch<'a>) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        let mut known: HashMap<(usize, &str), usize> = HashMap::new();
        for (view_index, of_view) in batch.views.iter().enumerate() {
            for (index, work) in of_view.work.iter().enumerate() {
                let part = *known.entry((view_index, &work.key)).or_insert_with(|| {
                    parts.push(Part {
                        view: &of_view.view,
                        view_index,
                        redis_key: self.layout.entity_key(&of_view.view, &work.key),
                        work: Vec::new(),
                    });
                    parts.len() - 1
                });
                parts[part].work.push((index, work));
            }
        }
        parts
    }

    async fn apply_chunk(
        &self,
        chunk: &[Part<'_>],
        batch: &Batch<'_>,
        outcomes: &mut [Vec<Applied>],
    ) -> Result<(), StoreError> {
        let mut open: Vec<&Part<'_>> = chunk.iter().collect();
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                self.counters.conflicts.increment(open.len() as u64);
                let limit = Duration::from_millis(1 << attempt.min(5)).min(LONGEST_PAUSE);
                tokio::time::sleep(limit.mul_f64(fastrand::f64())).await;
            }
            let stored = self.read_parts(&open).await?;
            let mut folded = Vec::with_capacity(open.len());
            for (part, stored) in open.iter().zip(stored) {
                folded.push(self.fold(part, &stored, batch));
            }
            let written = self.write(&open, &folded, batch.known_at_us).await?;
            let mut again = Vec::new();
            for ((part, folded), written) in open.into_iter().zip(folded).zip(written) {
                if !written {
                    again.push(part);
                    continue;
                }
                for ((index, _), outcome) in part.work.iter().zip(folded.outcomes) {
                    outcomes[part.view_index][*index] = outcome;
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            open = again;
        }
        Err(StoreError::Unavailable(format!(
            "{} entities were written by other servers {MAX_ATTEMPTS} times in a row",
            open.len()
        )))
    }

    /// The value of each entity, and then when each of its events was counted before.
    async fn read_parts(
        &self,
        parts: &[&Part<'_>],
    ) -> Result<Vec<Vec<Option<Vec<u8>>>>, StoreError> {
        let mut commands = Pipeline::with_capacity(parts.len());
        for part in parts {
            let mut command = Cmd::with_capacity(2, 128);
            command.arg("MGET").arg(&part.redis_key);
            for identity in part.work.iter().filter_map(|(_, work)| identity(work)) {
                command.arg(Layout::event_key(&part.redis_key, identity));
            }
            commands.add_command(command);
        }
        self.links.read_to_write(&commands).await
    }

    fn fold(&self, part: &Part<'_>, stored: &[Option<Vec<u8>>], batch: &Batch<'_>) -> Folded {
        let value = stored.first().and_then(Option::as_deref);
        let (version, mut marks, mut entity) = match value.map(|bytes| decode(part.view, bytes)) {
            None => (Vec::new(), Marks::default(), None),
            Some(Ok((record, entity))) => (record.version.to_vec(), record.marks, entity),
            Some(Err(damaged)) => {
                // One entity that cannot be read must not keep all others from being written.
                tracing::error!(view = part.view.name, %damaged, "changes of an entity are refused");
                let refused = Applied::Refused(damaged.to_string());
                return Folded {
                    outcomes: vec![refused; part.work.len()],
                    write: None,
                };
            }
        };
        let mut remembered = stored.iter().skip(1);
        let mut events: HashSet<EventIdentity> = HashSet::new();
        let mut outcomes = Vec::with_capacity(part.work.len());
        let mut last = None;
        for (_, work) in &part.work {
            let mark = self.mark(batch, work);
            let event = identity(work);
            // One answer for each event, in order.
            let before = event.and_then(|_| remembered.next()?.as_deref());
            let is_duplicate = before.is_some_and(|at| is_recent(at, batch.known_at_us))
                || event.is_some_and(|event| events.contains(&event));
            let outcome = if marks.cover(mark) {
                Applied::Done
            } else if is_duplicate {
                Applied::Duplicate
            } else if matches!(work.action, Action::Remove) {
                entity.take().map_or(Applied::Absent, |_| Applied::Done)
            } else {
                let mut changed = entity.take();
                let is_new = changed.is_none();
                let target = changed.get_or_insert_with(Entity::default);
                let known_at_us = batch.known_at_us;
                let applied = target.fold(part.view, &work.action, mark.sequence, known_at_us);
                // What is refused leaves the entity as it was: also not there.
                entity = changed.filter(|_| applied == Applied::Done || !is_new);
                applied
            };
            if outcome == Applied::Done && !marks.cover(mark) {
                events.extend(event);
                last = Some(mark);
            }
            outcomes.push(outcome);
        }
        let write = last.map(|mark| {
            marks.put(mark);
            let bytes = entity.as_ref().map(|entity| entity.encode(part.view));
            Write {
                version,
                value: encode(new_version(), &marks, bytes.as_deref()),
                is_removal: entity.is_none(),
                events,
            }
        });
        Folded { outcomes, write }
    }

    /// Writes what changed, each entity in one step; says of each part whether that is done.
    async fn write(
        &self,
        parts: &[&Part<'_>],
        folded: &[Folded],
        known_at_us: i64,
    ) -> Result<Vec<bool>, StoreError> {
        let mut done = vec![true; parts.len()];
        let mut writes = Vec::with_capacity(parts.len());
        for (index, (part, folded)) in parts.iter().zip(folded).enumerate() {
            if let Some(write) = &folded.write {
                writes.push((index, invocation(&self.script, part, write, known_at_us)));
            }
        }
        if writes.is_empty() {
            return Ok(done);
        }
        let mut commands = Pipeline::with_capacity(writes.len());
        let indexes: Vec<usize> = writes.iter().map(|(index, _)| *index).collect();
        for (_, command) in writes {
            commands.add_command(command);
        }
        let answers: Vec<RedisResult<i64>> = self.links.write_many(&commands).await?;
        let mut is_unknown = false;
        for (index, answer) in indexes.into_iter().zip(answers) {
            match answer {
                Ok(written) => done[index] = written == 1,
                Err(error) if is_unknown_script(&error) => {
                    is_unknown = true;
                    done[index] = false;
                }
                Err(error) => return Err(self.links.refused(&error)),
            }
        }
        if is_unknown {
            // A server that was started anew, or was a replica before.
            self.links.load(&self.script).await?;
        }
        Ok(done)
    }

    fn mark(&self, batch: &Batch<'_>, work: &Work<'_>) -> Mark {
        Mark {
            replica: self.position.replica,
            sequence: batch.sequence + work.change as u64,
            known_at_us: batch.known_at_us,
        }
    }
}

fn identity(work: &Work<'_>) -> Option<EventIdentity> {
    match work.action {
        Action::Event { identity, .. } => Some(identity),
        Action::Update(_) | Action::Remove => None,
    }
}

/// Whether an event that was learned at the time that `text` says is a duplicate now.
fn is_recent(text: &[u8], now_us: i64) -> bool {
    let known_at_us = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    let age_us = now_us.saturating_sub(known_at_us.unwrap_or(now_us));
    age_us < REMEMBERED_US
}

/// No two writes have the same, whichever server makes them.
fn new_version() -> u64 {
    crate::clock::new_id().as_u64_pair().1
}

/// The script that changes an entity.
pub(super) fn script() -> Script {
    Script::new(SCRIPT)
}

fn invocation(script: &Script, part: &Part<'_>, write: &Write, known_at_us: i64) -> Cmd {
    let mut command = Cmd::with_capacity(8 + write.events.len(), 256 + write.value.len());
    command
        .arg("EVALSHA")
        .arg(script.get_hash())
        .arg(1 + write.events.len())
        .arg(&part.redis_key);
    for identity in &write.events {
        command.arg(Layout::event_key(&part.redis_key, *identity));
    }
    command
        .arg(&write.version)
        .arg(&write.value)
        .arg(if write.is_removal {
            REMEMBERED_SECONDS
        } else {
            0
        })
        .arg(known_at_us)
        .arg(REMEMBERED_SECONDS);
    command
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
