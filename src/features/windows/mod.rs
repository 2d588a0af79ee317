//! Window aggregates: counts, sums and their kin over the events of the last hours and days.
//!
//! [`Windows`] is the compiled plan of a view's aggregates, [`WindowState`] what is kept of one
//! entity. Both are pure: time comes in as an argument, nothing goes out. The online store and the
//! simulation of history run this same code.
//!
//! # What a value means
//!
//! A window `w` at the time `t` holds the events of the times (E, t], where E is t - w rounded down
//! to a multiple of the *hop* `h` of the window: the longest of 1s, 5s, 10s, 30s, 1m, 5m, 10m, 30m,
//! 1h, 2h, 6h, 12h, 1d, 2d and 7d that is at most 1 % of it (under 100 s: 1 % in whole
//! milliseconds). So a window is up to 1 % longer than declared, never shorter, and its leading edge
//! is exact.
//!
//! An event counts for an aggregate when `filter` is true of it and its value and group are not
//! null. In an empty window `count`, `sum`, `count_distinct` and `rate` are 0 and all others null.
//!
//! * `sum`, `avg`, `stddev`: summed with twice a float's precision ([`double`]), so that neither
//!   order nor size matters; declared int64, a sum is rounded to the nearest whole number. `stddev` is
//!   that of a sample, null for a single value. What overflows a float is null.
//! * `rate`: events per second of the declared window. `time_since_last`: seconds.
//! * `first`, `last`: by time, events of the same time by the hash of their id. Text is kept up to
//!   256 bytes, also that of groups and of `top_k`.
//! * `count_distinct`: exact for few, within some 3 % for many ([`distinct`]).
//! * `quantile`: within 1 % ([`quantile`]). `top_k`: a JSON array, the most frequent first
//!   ([`top_k`]).
//! * with `group_by`: a JSON object with the value of each group that has events in the window. At
//!   most 64 groups are kept at a time; events of further ones count in a group `other`. With
//!   `group` as well: that group's value alone, whatever others there are.
//!
//! # What is kept
//!
//! Aggregates that read the same events the same way and have the same hop share a *track*: a list of
//! tiles, one for each hop in which something happened ([`tiles`]). Values do not depend on the order
//! in which events come, with two exceptions: `top_k` above 256 different values in a tile, and which
//! 64 groups are kept of more. Late events count as long as a window reaches them. An event in the
//! future is kept aside, and counts from its time on.
//!
//! Where a list is longer than 32 tiles, sixteen at a time are put together in *blocks* ([`blocks`]), so
//! that a window of 100 to 180 tiles is read from some 15 to 20 things. Blocks are not in the bytes of
//! a state, and no value depends on whether they are there: they are kept as events come, and
//! built by [`WindowState::condense`] for a state that was read from bytes. Two kinds do without:
//! `first` looks at one tile only, and `top_k` where the tiles of a block have little in common.
//!
//! A track has at most horizon / hop + 2 tiles, 502 at the very most, some 100 to 180 for windows of
//! round length; a tile takes 8 (count) to 40 bytes (stddev), at most 0.3 KB for `first`, 1 KB for
//! `count_distinct`, 4 KB for `quantile`, 72 KB for `top_k`; 65 times that with groups. A block takes
//! about what one tile does; of `count_distinct`, `quantile` and `top_k` at most what its tiles do. 64
//! events may lie in the future. So the memory of an entity is bounded by its view.
//!
//! # New aggregates and backfill
//!
//! A track has an identity ([`Windows::track_ids`]), a hash of all that decides what it keeps, and so
//! its tiles survive a change of the plan. A state that was written before a track was declared (or
//! when its horizon was shorter) marks it as *late* when it is read back ([`Windows::decode_after`]):
//! it lacks the events up to the change that the state had seen. To fill it ([`Windows::fill`]):
//!
//! 1. ask [`Windows::late`] for the tracks of an entity and the change up to which events are lacking;
//! 2. apply the entity's events up to and including that change, in their order, to an empty state of
//!    the same plan, or of [`Windows::only`] those tracks, carried over by encoding it there and
//!    decoding it here: all other tracks are late in it;
//! 3. call `fill` with it and the number of that change: the tiles are added and the marks taken away of
//!    the tracks that lack the events up to exactly this change and are not late in it, so that a
//!    second call does nothing. Values are then those of a state that had the tracks from the start.

mod accumulators;
mod blocks;
mod bytes;
mod check;
mod contributions;
mod distinct;
mod double;
mod evaluate;
mod events;
mod groups;
mod infer;
mod long;
mod plan;
mod quantile;
mod read;
mod registers;
mod state;
mod tiles;
mod top_k;
mod track;
mod track_bytes;
mod varint;

#[cfg(test)]
mod tests;

use std::time::Duration;

use self::events::Row;
use self::plan::Plan;
use super::change::Event;
use super::value::{FeatureType, Value};

pub use self::check::{MAX_K, MAX_WINDOW, MIN_WINDOW};
pub use self::contributions::Contributions;
pub use self::plan::hop_us;
pub use self::state::{MAX_PENDING, WindowState};
pub use self::track::{MAX_GROUPS, OTHER_GROUP};

/// The functions of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    Stddev,
    CountDistinct,
    First,
    Last,
    Rate,
    TimeSinceLast,
    TopK,
    Quantile,
}

/// One window feature as declared: one function over one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The event it listens to.
    pub event: String,
    pub function: Function,
    /// The length of the window.
    pub window: Duration,
    /// SQL over the event's properties: what is aggregated; none for count, rate, time_since_last.
    pub value: Option<String>,
    /// SQL over the event's properties: only events for which it is true count.
    pub filter: Option<String>,
    /// SQL over the event's properties: one aggregate for each of its values.
    pub group_by: Option<String>,
    /// With `group_by`: only this group's value, as a plain value instead of a map of all.
    pub group: Option<String>,
    /// top_k: how many values.
    pub k: usize,
    /// quantile: which, 0 to 1.
    pub q: f64,
    /// The type of the feature (of the map's values with `group_by` and without `group`; `string`
    /// there means the type that the function has by itself).
    pub kind: FeatureType,
}

impl Function {
    /// Its name in view files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min => "min",
            Function::Max => "max",
            Function::Stddev => "stddev",
            Function::CountDistinct => "count_distinct",
            Function::First => "first",
            Function::Last => "last",
            Function::Rate => "rate",
            Function::TimeSinceLast => "time_since_last",
            Function::TopK => "top_k",
            Function::Quantile => "quantile",
        }
    }

    /// Whether it aggregates a value; the others look only at the events themselves.
    pub fn takes_value(self) -> bool {
        !matches!(
            self,
            Function::Count | Function::Rate | Function::TimeSinceLast
        )
    }
}

impl Aggregate {
    /// Whether its value is a map of all groups, as the text of a JSON object.
    pub fn is_map(&self) -> bool {
        self.group_by.is_some() && self.group.is_none()
    }

    /// The type of its values.
    pub fn column_type(&self) -> FeatureType {
        if self.is_map() {
            FeatureType::String
        } else {
            self.kind
        }
    }
}

/// The compiled windows of one view.
#[derive(Debug, Default)]
pub struct Windows {
    aggregates: Vec<Aggregate>,
    plan: Plan,
    track_ids: Vec<u64>,
}

impl Windows {
    /// Compiles the aggregates of a view. Those that read the same events the same way share tiles.
    ///
    /// # Errors
    /// The index of the aggregate and a phrase saying what is wrong with it.
    pub fn compile(aggregates: Vec<Aggregate>) -> Result<Windows, (usize, String)> {
        let plan = Plan::compile(&aggregates)?;
        let track_ids = plan.tracks.iter().map(|track| track.id).collect();
        Ok(Windows {
            aggregates,
            plan,
            track_ids,
        })
    }

    /// The aggregates, in the order of their values.
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// Whether an event of this name counts anywhere.
    pub fn listens_to(&self, event: &str) -> bool {
        self.plan.readers.iter().any(|reader| reader.event == event)
    }

    /// The identities of the tracks. The same identity in another plan means the same tiles.
    pub fn track_ids(&self) -> &[u64] {
        &self.track_ids
    }

    /// The identity of the track behind each aggregate, in the order of the aggregates.
    pub fn track_of(&self, aggregate: usize) -> Option<u64> {
        let ask = self.plan.asks.get(aggregate)?;
        self.track_ids.get(ask.track).copied()
    }

    /// The same windows with only those aggregates that read one of the tracks `ids`. Its states are
    /// carried over to this plan by encoding them there and decoding them here.
    ///
    /// # Errors
    /// None that compiling the whole did not have.
    pub fn only(&self, ids: &[u64]) -> Result<Windows, (usize, String)> {
        let wanted = |index: usize| self.track_of(index).is_some_and(|id| ids.contains(&id));
        let aggregates = self.aggregates.iter().enumerate();
        let wanted = aggregates.filter(|(index, _)| wanted(*index));
        Windows::compile(wanted.map(|(_, aggregate)| aggregate.clone()).collect())
    }

    /// Evaluates conditions, values and groups for a batch of events, all at once. A property that is
    /// missing or of another type than the expression reads is null.
    pub fn read_events<'a>(&self, events: impl Iterator<Item = &'a Event>) -> Contributions {
        let readers = &self.plan.readers;
        let mut of_reader: Vec<Vec<&Event>> = readers.iter().map(|_| Vec::new()).collect();
        let mut rows = Vec::new();
        for event in events {
            let mut read = None;
            let mut all = readers.iter().zip(&mut of_reader).enumerate();
            if let Some((number, (_, events))) = all.find(|(_, (r, _))| r.event == event.event) {
                read = Some((number, events.len()));
                events.push(event);
            }
            rows.push(Row {
                time_us: event.occurred_at_us,
                id_hash: events::id_hash(event),
                read,
            });
        }
        let results = readers.iter().zip(of_reader);
        Contributions {
            rows,
            results: results
                .map(|(reader, events)| reader.read(&events))
                .collect(),
        }
    }

    /// Adds the event in `row` of `contributions`, which this plan made, to an entity, as of `now_us`.
    /// An event after `now_us` is kept aside until its time. Tiles that no window can reach any more
    /// are let go. Where `now_us` is before that of an earlier call, that one's is taken.
    ///
    /// # Errors
    /// When the event is in the future and too many such are kept aside already.
    pub fn apply(
        &self,
        state: &mut WindowState,
        contributions: &Contributions,
        row: usize,
        now_us: i64,
    ) -> Result<(), TooManyPending> {
        state.apply(&self.plan, contributions, row, now_us)
    }

    /// The value of every aggregate at `at_us`. Where that is before the last `now_us` that was
    /// applied, they are as of the latter.
    pub fn values(&self, state: &WindowState, at_us: i64) -> Vec<Value> {
        let at_us = at_us.max(state.clock_us);
        if state.pending_until(at_us) {
            let mut later = state.clone();
            later.advance(&self.plan, at_us);
            return self.values_of(&later, at_us);
        }
        self.values_of(state, at_us)
    }

    fn values_of(&self, state: &WindowState, at_us: i64) -> Vec<Value> {
        let value = |ask: &plan::Ask| {
            let track = self.plan.tracks.get(ask.track)?;
            let kept = state.tracks.get(ask.track);
            Some(read::value(ask, track, kept, state.clock_us, at_us))
        };
        let values = self
            .plan
            .asks
            .iter()
            .map(|ask| value(ask).unwrap_or_default());
        values.collect()
    }

    /// The bytes of a state, self-describing: read back under a changed plan they keep what is still
    /// declared.
    pub fn encode(&self, state: &WindowState, bytes: &mut Vec<u8>) {
        bytes::encode(&self.plan, state, bytes);
    }

    /// As [`Windows::decode_after`] where changes have no numbers.
    ///
    /// # Errors
    /// What is wrong with the bytes. Never panics, whatever they are.
    pub fn decode(&self, bytes: &[u8]) -> Result<WindowState, String> {
        self.decode_after(bytes, 0)
    }

    /// Reads the bytes of a state that may have been written under another plan: tracks that are not
    /// declared any more are dropped, new ones begin empty and are late, lacking what happened up to
    /// change number `after`, the last that was applied to the entity. No bytes are a new entity.
    ///
    /// # Errors
    /// What is wrong with the bytes. Never panics, whatever they are.
    pub fn decode_after(&self, bytes: &[u8], after: u64) -> Result<WindowState, String> {
        bytes::decode(&self.plan, bytes, after)
    }

    /// The tracks of a state that lack earlier events: their identities, and the number of the last
    /// change whose events are lacking.
    pub fn late(&self, state: &WindowState) -> Vec<(u64, u64)> {
        let late = state.late().iter();
        late.filter_map(|late| Some((*self.track_ids.get(late.track)?, late.after)))
            .collect()
    }

    /// Adds to those late tracks of `into` that lack the events up to change number `after` what `from`
    /// has of them: a state of this plan to which these events of the entity were applied. They are
    /// complete then; a second call changes nothing. Tracks that are late in `from` too stay late.
    pub fn fill(&self, into: &mut WindowState, from: &WindowState, after: u64) {
        into.fill(&self.plan, from, after);
    }
}

/// More events of one entity lie in the future than are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} events of this entity are in the future already; no more are kept")]
pub struct TooManyPending {
    pub limit: usize,
}
