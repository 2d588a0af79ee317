//! The windows of one entity, and how events and time change them.

use super::accumulators::{Kept, cut};
use super::plan::{Plan, TrackPlan};
use super::track::{Given, Track};
use super::{Contributions, TooManyPending};

/// The most events of an entity that may lie in the future.
pub const MAX_PENDING: usize = 64;

/// The tiles of one entity.
#[derive(Clone, Debug)]
pub struct WindowState {
    /// The latest time at which something was applied.
    pub(super) clock_us: i64,
    /// As many as the plan has, or none when nothing is kept.
    pub(super) tracks: Box<[Track]>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What few entities have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rare {
    /// Events in the future, the earliest first.
    pub pending: Vec<Pending>,
    /// The tracks that lack earlier events, by number.
    pub late: Vec<Late>,
}

/// An event in the future.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub time_us: i64,
    pub id_hash: u64,
    /// What it gives to which track. Per track, not per stream: one that is declared later gets the
    /// event from history.
    pub gives: Vec<Gives>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gives {
    pub track: usize,
    pub value: Kept,
    pub group: Option<Box<str>>,
}

/// A track that began after the entity's first events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Late {
    pub track: usize,
    /// The number of the last change that it lacks.
    pub after: u64,
    /// Only the tiles before this one are lacking.
    pub below: i64,
}

impl Default for WindowState {
    fn default() -> Self {
        WindowState {
            clock_us: i64::MIN,
            tracks: Box::default(),
            rare: None,
        }
    }
}

/// No tracks and empty tracks are the same.
impl PartialEq for WindowState {
    fn eq(&self, other: &Self) -> bool {
        let numbers = 0..self.tracks.len().max(other.tracks.len());
        let mut tracks =
            numbers.map(
                |number| match (self.tracks.get(number), other.tracks.get(number)) {
                    (Some(ours), Some(theirs)) => ours == theirs,
                    (Some(one), None) | (None, Some(one)) => one.is_empty(),
                    (None, None) => true,
                },
            );
        self.clock_us == other.clock_us && self.rare == other.rare && tracks.all(|same| same)
    }
}

impl WindowState {
    /// Bytes it takes beside its own size.
    pub fn heap_bytes(&self) -> usize {
        let tracks: usize = self.tracks.iter().map(Track::heap_bytes).sum();
        let rare = self.rare.as_ref().map_or(0, |rare| rare.heap_bytes());
        size_of_val::<[Track]>(&self.tracks) + tracks + rare
    }

    /// Builds the blocks of tiles that make reading quick, where the state came from bytes and has none.
    /// It takes about as long as one reading without them, and changes no value.
    pub fn condense(&mut self) {
        self.tracks.iter_mut().for_each(Track::condense);
    }

    /// The events kept aside until their time.
    pub fn pending(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.pending.len())
    }

    /// The numbers of the tracks that lack earlier events, and after which change each begins.
    pub(super) fn late(&self) -> &[Late] {
        self.rare.as_ref().map_or(&[], |rare| &rare.late)
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn drop_rare_if_empty(&mut self) {
        if self
            .rare
            .as_ref()
            .is_some_and(|rare| *rare.as_ref() == Rare::default())
        {
            self.rare = None;
        }
    }

    /// Lets time go on to `now_us`: tiles that no window reaches any more go, events whose time has
    /// come are counted. A clock that goes back changes nothing.
    pub(super) fn advance(&mut self, plan: &Plan, now_us: i64) {
        // The very first time means that nothing was applied yet.
        let now_us = now_us.max(i64::MIN + 1);
        if now_us <= self.clock_us {
            return;
        }
        for (track, plan) in self.tracks.iter_mut().zip(&plan.tracks) {
            let newest = plan.tile_of(self.clock_us);
            let first = plan.first_tile(now_us);
            if plan.hop_us == 0 || track.oldest(newest).is_some_and(|oldest| oldest < first) {
                track.let_go(first, newest, plan.gone_us(now_us));
            }
        }
        self.clock_us = now_us;
        if self.pending_until(now_us) {
            self.count_pending(plan);
        }
    }

    /// Whether an event that was kept aside counts at `at_us`.
    pub(super) fn pending_until(&self, at_us: i64) -> bool {
        let first = self.rare.as_ref().and_then(|rare| rare.pending.first());
        first.is_some_and(|first| first.time_us <= at_us)
    }

    fn count_pending(&mut self, plan: &Plan) {
        let clock_us = self.clock_us;
        let pending = &mut self.rare().pending;
        let due = pending.partition_point(|pending| pending.time_us <= clock_us);
        let due: Vec<Pending> = pending.drain(..due).collect();
        self.drop_rare_if_empty();
        for event in due {
            for gives in &event.gives {
                if let Some(track) = plan.tracks.get(gives.track) {
                    let given = Given {
                        time_us: event.time_us,
                        id_hash: event.id_hash,
                        value: gives.value.as_input(),
                        group: gives.group.as_deref(),
                    };
                    self.give(plan, gives.track, track, given);
                }
            }
        }
    }

    fn give(&mut self, plan: &Plan, number: usize, track: &TrackPlan, given: Given<'_>) {
        let Some(place) = track.place(given.time_us, self.clock_us) else {
            return;
        };
        if self.tracks.is_empty() {
            self.tracks = plan.tracks.iter().map(TrackPlan::empty).collect();
        }
        if let Some(kept) = self.tracks.get_mut(number) {
            kept.add(track.kind, place, given);
        }
    }

    /// Adds the event in `row`, as of `now_us`.
    pub(super) fn apply(
        &mut self,
        plan: &Plan,
        contributions: &Contributions,
        row: usize,
        now_us: i64,
    ) -> Result<(), TooManyPending> {
        self.advance(plan, now_us);
        let Some((time_us, id_hash)) = contributions.time_and_id(row) else {
            return Ok(());
        };
        let mut gives = Vec::new();
        for (number, track) in plan.tracks.iter().enumerate() {
            let Some((value, group)) = contributions.of(plan, row, track) else {
                continue;
            };
            if time_us > self.clock_us {
                gives.push(Gives {
                    track: number,
                    value: Kept::new(value),
                    group: group.map(|group| cut(group).into()),
                });
                continue;
            }
            let given = Given {
                time_us,
                id_hash,
                value,
                group,
            };
            self.give(plan, number, track, given);
        }
        if gives.is_empty() {
            return Ok(());
        }
        if self.pending() >= MAX_PENDING {
            return Err(TooManyPending { limit: MAX_PENDING });
        }
        self.rare().keep(Pending {
            time_us,
            id_hash,
            gives,
        });
        Ok(())
    }

    /// Adds what `from`, a state of the same plan that holds the events up to change number `after`, has
    /// of the tracks that lack exactly these. They lack nothing then; those that `from` lacks itself
    /// stay as they are.
    pub(super) fn fill(&mut self, plan: &Plan, from: &WindowState, after: u64) {
        let Some(rare) = self.rare.as_mut() else {
            return;
        };
        let late: Vec<Late> = rare
            .late
            .extract_if(.., |late| late.after == after)
            .collect();
        self.drop_rare_if_empty();
        if late.is_empty() {
            return;
        }
        // Both must be numbered by the same clock.
        self.advance(plan, from.clock_us);
        let mut from = from.clone();
        from.advance(plan, self.clock_us);
        if self.tracks.is_empty() {
            self.tracks = plan.tracks.iter().map(TrackPlan::empty).collect();
        }
        for late in late {
            if from
                .late()
                .iter()
                .any(|lacking| lacking.track == late.track)
            {
                let lates = &mut self.rare().late;
                lates.push(late);
                lates.sort_by_key(|late| late.track);
                continue;
            }
            let (Some(track), Some(ours)) =
                (plan.tracks.get(late.track), self.tracks.get_mut(late.track))
            else {
                continue;
            };
            if let Some(theirs) = from.tracks.get(late.track) {
                let newest = track.tile_of(self.clock_us);
                ours.merge(track.kind, theirs, newest, late.below);
            }
            for pending in from.rare.iter().flat_map(|rare| &rare.pending) {
                let mut gives = pending.gives.iter();
                let Some(gives) = gives.find(|gives| gives.track == late.track) else {
                    continue;
                };
                // Of a track that only lacks its oldest tiles, the future is known already.
                if track.tile_of(pending.time_us) < late.below {
                    self.rare().keep(Pending {
                        gives: vec![gives.clone()],
                        ..*pending
                    });
                }
            }
        }
    }
}

impl Rare {
    /// Keeps an event aside: by time, one entry for each.
    pub fn keep(&mut self, event: Pending) {
        let of = |pending: &Pending| (pending.time_us, pending.id_hash);
        let position = self.pending.partition_point(|other| of(other) < of(&event));
        match self.pending.get_mut(position) {
            Some(same) if of(same) == of(&event) => {
                same.gives.extend(event.gives);
                same.gives.sort_by_key(|gives| gives.track);
            }
            _ => self.pending.insert(position, event),
        }
    }

    fn heap_bytes(&self) -> usize {
        let inside = |gives: &Gives| {
            let group = gives.group.as_ref().map_or(0, |group| group.len());
            size_of::<Gives>() + gives.value.heap_bytes() + group
        };
        let events = self.pending.iter().map(|pending| {
            let gives: usize = pending.gives.iter().map(inside).sum();
            size_of::<Pending>() + gives
        });
        size_of::<Rare>() + events.sum::<usize>() + self.late.len() * size_of::<Late>()
    }
}
