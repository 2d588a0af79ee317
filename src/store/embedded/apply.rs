//! Applying a batch: what is a duplicate, then entity by entity in the order of the log, shard by shard.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::Inner;
use super::cache::read_row;
use super::recent::Record;
use super::rows::{Mark, Writer, row_key};
use crate::features::view::View;
use crate::store::entity::{Action, Applied, Entity};
use crate::store::{Batch, StoreError, Watermark, Work};

/// How long changes wait for rows to make room.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// An event that is in a batch twice, for one entity: where in the view's work.
struct Repeated {
    view: usize,
    first: usize,
    again: usize,
}

/// How an event is remembered.
fn record_of(work: &Work<'_>, batch: &Batch<'_>) -> Option<Record> {
    match &work.action {
        Action::Event { identity, .. } => Some(Record {
            identity: identity.0,
            sequence: batch.sequence + work.change as u64,
            known_at_us: batch.known_at_us,
        }),
        _ => None,
    }
}

/// A piece of work of a batch, in the shard of its entity.
struct Piece {
    view: usize,
    work: usize,
    row_key: Vec<u8>,
}

impl Inner {
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn apply(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Applied>>, StoreError> {
        self.rows.wait_for_room(Writer::Changes, LONGEST_WAIT);
        let _changing = self.changing();
        let works = batch.views.iter().map(|part| part.work.len());
        let mut outcome: Vec<_> = works.map(|work| vec![Applied::Done; work]).collect();
        let repeated = self.recognise(batch, &mut outcome)?;
        let mut pieces: Vec<Vec<Piece>> = Vec::new();
        pieces.resize_with(self.cache.shards(), Vec::new);
        for (view, part) in batch.views.iter().enumerate() {
            for (index, work) in part.work.iter().enumerate() {
                if outcome[view][index] == Applied::Duplicate {
                    continue;
                }
                let row_key = row_key(&part.view.name, &work.key);
                pieces[self.cache.shard_of(&row_key)].push(Piece {
                    view,
                    work: index,
                    row_key,
                });
            }
        }
        for (shard, pieces) in pieces.iter().enumerate() {
            if !pieces.is_empty() {
                self.apply_to_shard(shard, pieces, batch, &mut outcome)?;
            }
        }
        self.remember(batch, &outcome)?;
        for Repeated { view, first, again } in repeated {
            // What became of the first became of it: a duplicate only of one that was applied.
            if outcome[view][first] != Applied::Done {
                outcome[view][again] = outcome[view][first].clone();
            }
        }
        let mut progress = self.progress();
        progress.applied = Mark {
            watermark: Watermark {
                sequence: batch.sequence + batch.changes as u64,
                segment: batch.segment,
            },
            known_at_us: progress.applied.known_at_us.max(batch.known_at_us),
        };
        let since = progress.applied.watermark.sequence - progress.checkpointed.watermark.sequence;
        drop(progress);
        self.schedule.changes_waiting(since);
        Ok(outcome)
    }

    /// Marks the events that were applied in the last 24 hours or come a second time in the batch, and
    /// returns the latter.
    fn recognise(
        &self,
        batch: &Batch<'_>,
        outcome: &mut [Vec<Applied>],
    ) -> Result<Vec<Repeated>, StoreError> {
        let mut session = self.recent.session(batch.known_at_us)?;
        let mut repeated = Vec::new();
        for (view, (part, outcome)) in batch.views.iter().zip(outcome).enumerate() {
            let mut seen: HashMap<u128, usize> = HashMap::with_capacity(part.work.len());
            for (index, work) in part.work.iter().enumerate() {
                let Some(record) = record_of(work, batch) else {
                    continue;
                };
                let first = *seen.entry(record.identity).or_insert(index);
                let is_repeated = first != index;
                if is_repeated {
                    repeated.push(Repeated {
                        view,
                        first,
                        again: index,
                    });
                }
                if is_repeated || session.is_duplicate(&record)? {
                    self.meters.duplicates.increment(1);
                    outcome[index] = Applied::Duplicate;
                }
            }
        }
        Ok(repeated)
    }

    /// Remembers the events that were applied. One that was refused may come again.
    fn remember(&self, batch: &Batch<'_>, outcome: &[Vec<Applied>]) -> Result<(), StoreError> {
        let mut session = self.recent.session(batch.known_at_us)?;
        for (part, outcome) in batch.views.iter().zip(outcome) {
            for (work, outcome) in part.work.iter().zip(outcome) {
                if *outcome == Applied::Done
                    && let Some(record) = record_of(work, batch)
                {
                    session.remember(record)?;
                }
            }
        }
        Ok(())
    }

    fn apply_to_shard(
        &self,
        shard: usize,
        pieces: &[Piece],
        batch: &Batch<'_>,
        outcome: &mut [Vec<Applied>],
    ) -> Result<(), StoreError> {
        // Rows are read while others use the shard. Nobody else changes entities, so a row that is
        // not in memory now stays as it is.
        let missing: Vec<&Piece> = {
            let shard = self.cache.lock(shard);
            pieces
                .iter()
                .filter(|piece| !shard.holds(&piece.row_key))
                .collect()
        };
        let mut loaded = Vec::with_capacity(missing.len());
        let mut damaged: HashMap<&[u8], String> = HashMap::new();
        for piece in &missing {
            let view = &batch.views[piece.view].view;
            match read_row(&self.rows, &piece.row_key, view) {
                Ok(entity) => loaded.push((*piece, entity)),
                // This entity's changes are refused; all others go on.
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(view = view.name, %error, "changes of an entity are refused");
                    damaged.insert(&piece.row_key, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.meters.misses.increment(missing.len() as u64);
        self.meters
            .hits
            .increment((pieces.len() - missing.len()) as u64);
        let mut shard = self.cache.lock(shard);
        for (piece, entity) in loaded {
            shard.keep_loaded(&piece.row_key, &batch.views[piece.view].view, entity);
        }
        for piece in pieces {
            let part = &batch.views[piece.view];
            let work = &part.work[piece.work];
            let sequence = batch.sequence + work.change as u64;
            if let Some(problem) = damaged.get(piece.row_key.as_slice()) {
                if !matches!(work.action, Action::Remove) {
                    outcome[piece.view][piece.work] = Applied::Refused(problem.clone());
                    continue;
                }
                // To be removed it need not be read, and then it begins anew.
                damaged.remove(piece.row_key.as_slice());
                shard.keep_loaded(&piece.row_key, &part.view, Some(Entity::default()));
            }
            let applied = shard.change(&self.rows, &piece.row_key, &part.view, |entity| {
                if entity
                    .as_ref()
                    .is_some_and(|entity| entity.applied >= sequence)
                {
                    self.meters.replayed.increment(1);
                    return (Applied::Done, false);
                }
                if matches!(work.action, Action::Remove) {
                    return match entity.take() {
                        Some(_) => (Applied::Done, true),
                        None => (Applied::Absent, false),
                    };
                }
                let entity = entity.get_or_insert_default();
                let applied = entity.fold(&part.view, &work.action, sequence, batch.known_at_us);
                (applied, true)
            })?;
            outcome[piece.view][piece.work] = applied;
        }
        shard.evict(&self.rows, self.cache.shard_bytes())
    }

    /// Changes an entity that exists by something that is not in the log; it lasts from the next
    /// checkpoint on.
    pub(super) fn change_entity(
        &self,
        view: &Arc<View>,
        key: &str,
        change: impl FnOnce(&mut Entity),
    ) -> Result<(), StoreError> {
        let _changing = self.changing();
        let row_key = row_key(&view.name, key);
        let mut shard = self.cache.lock(self.cache.shard_of(&row_key));
        shard.change(&self.rows, &row_key, view, |entity| match entity {
            Some(entity) => {
                change(entity);
                ((), true)
            }
            None => ((), false),
        })?;
        shard.evict(&self.rows, self.cache.shard_bytes())?;
        drop(shard);
        self.progress().filled = true;
        Ok(())
    }
}
