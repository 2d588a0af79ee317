//! A track: the tiles of one kind for one reading of events.

use std::cmp::Ordering;

use super::accumulators::{Kept, Moments, Occurrence, Sum, cut};
use super::distinct::Distinct;
use super::evaluate::Input;
use super::quantile::Buckets;
use super::tiles::{Place, Tiles};
use super::top_k::Counts;
use crate::features::value::FeatureType;
use xxhash_rust::xxh3::xxh3_64;

/// The most groups of a track; further ones are counted together in [`OTHER_GROUP`].
pub const MAX_GROUPS: usize = 64;

/// The group of all groups beyond the most.
pub const OTHER_GROUP: &str = "other";

/// What a track keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Count,
    Sum,
    Moments,
    Least,
    Greatest,
    Distinct,
    Quantile,
    TopK,
    First(FeatureType),
    Last(FeatureType),
    /// The time of the last event.
    LastTime,
}

impl Kind {
    /// Its name in a track's identity and its number in bytes: both stay as they are.
    pub fn name_and_number(self) -> (&'static str, u8) {
        use FeatureType::{Bool, Float64, Int64, String};
        match self {
            Kind::Count => ("count", 1),
            Kind::Sum => ("sum", 2),
            Kind::Moments => ("moments", 3),
            Kind::Least => ("least", 4),
            Kind::Greatest => ("greatest", 5),
            Kind::Distinct => ("distinct", 6),
            Kind::Quantile => ("quantile", 7),
            Kind::TopK => ("top_k", 8),
            Kind::First(Float64) => ("first float64", 9),
            Kind::First(Int64) => ("first int64", 10),
            Kind::First(Bool) => ("first bool", 11),
            Kind::First(String) => ("first string", 12),
            Kind::Last(Float64) => ("last float64", 13),
            Kind::Last(Int64) => ("last int64", 14),
            Kind::Last(Bool) => ("last bool", 15),
            Kind::Last(String) => ("last string", 16),
            Kind::LastTime => ("last time", 17),
        }
    }

    /// Whether its events have values like this one.
    pub fn takes(self, value: &Kept) -> bool {
        match self {
            Kind::Count | Kind::LastTime => *value == Kept::Nothing,
            Kind::Distinct | Kind::TopK => value.is_of(FeatureType::String),
            Kind::First(kind) | Kind::Last(kind) => value.is_of(kind),
            _ => value.is_of(FeatureType::Float64),
        }
    }

    /// Whether there are tiles; of the last event there is only one, whatever the window.
    pub fn is_tiled(self) -> bool {
        !matches!(self, Kind::Last(_) | Kind::LastTime)
    }
}

/// What is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Track {
    Count(Tiles<u32>),
    Sum(Tiles<Sum>),
    Moments(Tiles<Moments>),
    Least(Tiles<f64>),
    Greatest(Tiles<f64>),
    Distinct(Tiles<Distinct>),
    Quantile(Tiles<Buckets>),
    TopK(Tiles<Counts>),
    First(Tiles<Occurrence>),
    Last(Option<Box<Occurrence>>),
    LastTime(Option<i64>),
    /// By name; each is a track that has no groups itself.
    Groups(Vec<(Box<str>, Track)>),
}

/// One event as a track sees it.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    pub time_us: i64,
    pub id_hash: u64,
    pub value: Input<'a>,
    pub group: Option<&'a str>,
}

impl Track {
    pub fn new(kind: Kind, grouped: bool) -> Track {
        if grouped {
            return Track::Groups(Vec::new());
        }
        match kind {
            Kind::Count => Track::Count(Tiles::default()),
            Kind::Sum => Track::Sum(Tiles::default()),
            Kind::Moments => Track::Moments(Tiles::default()),
            Kind::Least => Track::Least(Tiles::default()),
            Kind::Greatest => Track::Greatest(Tiles::default()),
            Kind::Distinct => Track::Distinct(Tiles::default()),
            Kind::Quantile => Track::Quantile(Tiles::default()),
            Kind::TopK => Track::TopK(Tiles::default()),
            Kind::First(_) => Track::First(Tiles::default()),
            Kind::Last(_) => Track::Last(None),
            Kind::LastTime => Track::LastTime(None),
        }
    }

    /// Adds an event to the tile at `place`. `kind` is that of the track, for a group that is new.
    pub fn add(&mut self, kind: Kind, place: Place, given: Given<'_>) {
        match (self, given.value) {
            (Track::Count(tiles), _) => {
                let count = tiles.at(place, || 0);
                *count = count.saturating_add(1);
            }
            (Track::Sum(tiles), Input::Number(value)) => tiles.at(place, Sum::default).add(value),
            (Track::Moments(tiles), Input::Number(value)) => {
                tiles.at(place, Moments::default).add(value);
            }
            (Track::Least(tiles), Input::Number(value)) => {
                let least = tiles.at(place, || value);
                *least = least.min(value);
            }
            (Track::Greatest(tiles), Input::Number(value)) => {
                let greatest = tiles.at(place, || value);
                *greatest = greatest.max(value);
            }
            (Track::Distinct(tiles), Input::Text(text)) => {
                tiles
                    .at(place, Distinct::default)
                    .add(xxh3_64(text.as_bytes()));
            }
            (Track::Quantile(tiles), Input::Number(value)) => {
                tiles.at(place, Buckets::default).add(value);
            }
            (Track::TopK(tiles), Input::Text(text)) => {
                tiles.at(place, Counts::default).add(text);
            }
            (Track::First(tiles), value) => {
                let Given {
                    time_us, id_hash, ..
                } = given;
                let occurrence = || Occurrence::new(time_us, id_hash, value);
                let first = tiles.at(place, occurrence);
                if first.order(time_us, id_hash, value) == Ordering::Greater {
                    *first = occurrence();
                }
            }
            (Track::Last(last), value) => {
                let Given {
                    time_us, id_hash, ..
                } = given;
                let older = last
                    .as_ref()
                    .is_none_or(|last| last.order(time_us, id_hash, value) == Ordering::Less);
                if older {
                    *last = Some(Box::new(Occurrence::new(time_us, id_hash, value)));
                }
            }
            (Track::LastTime(last), _) => *last = (*last).max(Some(given.time_us)),
            (Track::Groups(groups), _) => {
                if let Some(name) = given.group {
                    group_of(groups, cut(name), kind).add(kind, place, given);
                }
            }
            // Values are read as what their track needs, so there are no others.
            _ => {}
        }
    }

    /// Adds what another track of the same kind keeps of the tiles before `below`. `newest` is the
    /// tile of the clock of both.
    pub fn merge(&mut self, kind: Kind, other: &Track, newest: i64, below: i64) {
        match (self, other) {
            (Track::Count(ours), Track::Count(theirs)) => {
                merge_tiles(ours, theirs, newest, below, |our, their| {
                    *our = our.saturating_add(*their);
                });
            }
            (Track::Sum(ours), Track::Sum(theirs)) => {
                merge_tiles(ours, theirs, newest, below, Sum::merge);
            }
            (Track::Moments(ours), Track::Moments(theirs)) => {
                merge_tiles(ours, theirs, newest, below, Moments::merge);
            }
            (Track::Least(ours), Track::Least(theirs)) => {
                merge_tiles(ours, theirs, newest, below, |our, their| {
                    *our = our.min(*their)
                });
            }
            (Track::Greatest(ours), Track::Greatest(theirs)) => {
                merge_tiles(ours, theirs, newest, below, |our, their| {
                    *our = our.max(*their)
                });
            }
            (Track::Distinct(ours), Track::Distinct(theirs)) => {
                merge_tiles(ours, theirs, newest, below, Distinct::merge);
            }
            (Track::Quantile(ours), Track::Quantile(theirs)) => {
                merge_tiles(ours, theirs, newest, below, Buckets::merge);
            }
            (Track::TopK(ours), Track::TopK(theirs)) => {
                merge_tiles(ours, theirs, newest, below, Counts::merge);
            }
            (Track::First(ours), Track::First(theirs)) => {
                merge_tiles(ours, theirs, newest, below, |our, their| {
                    let order = our.order(their.time_us, their.id_hash, their.value.as_input());
                    if order == Ordering::Greater {
                        our.clone_from(their);
                    }
                });
            }
            (Track::Last(ours), Track::Last(Some(their))) => {
                let older = ours.as_ref().is_none_or(|our| {
                    let value = their.value.as_input();
                    our.order(their.time_us, their.id_hash, value) == Ordering::Less
                });
                if older {
                    *ours = Some(their.clone());
                }
            }
            (Track::LastTime(ours), Track::LastTime(theirs)) => *ours = (*ours).max(*theirs),
            (Track::Groups(ours), Track::Groups(theirs)) => {
                for (name, their) in theirs {
                    group_of(ours, name, kind).merge(kind, their, newest, below);
                }
                ours.retain(|(_, track)| !track.is_empty());
            }
            _ => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Track::Count(tiles) => tiles.is_empty(),
            Track::Sum(tiles) => tiles.is_empty(),
            Track::Moments(tiles) => tiles.is_empty(),
            Track::Least(tiles) | Track::Greatest(tiles) => tiles.is_empty(),
            Track::Distinct(tiles) => tiles.is_empty(),
            Track::Quantile(tiles) => tiles.is_empty(),
            Track::TopK(tiles) => tiles.is_empty(),
            Track::First(tiles) => tiles.is_empty(),
            Track::Last(last) => last.is_none(),
            Track::LastTime(last) => last.is_none(),
            Track::Groups(groups) => groups.is_empty(),
        }
    }

    /// The oldest tile; none when there are no tiles.
    pub fn oldest(&self, newest: i64) -> Option<i64> {
        match self {
            Track::Count(tiles) => tiles.oldest(newest),
            Track::Sum(tiles) => tiles.oldest(newest),
            Track::Moments(tiles) => tiles.oldest(newest),
            Track::Least(tiles) | Track::Greatest(tiles) => tiles.oldest(newest),
            Track::Distinct(tiles) => tiles.oldest(newest),
            Track::Quantile(tiles) => tiles.oldest(newest),
            Track::TopK(tiles) => tiles.oldest(newest),
            Track::First(tiles) => tiles.oldest(newest),
            Track::Last(_) | Track::LastTime(_) => None,
            Track::Groups(groups) => groups
                .iter()
                .filter_map(|(_, track)| track.oldest(newest))
                .min(),
        }
    }

    /// Lets go of the tiles before number `first`, and of a last event up to `gone_us`.
    pub fn let_go(&mut self, first: i64, newest: i64, gone_us: i64) {
        match self {
            Track::Count(tiles) => tiles.let_go_before(first, newest),
            Track::Sum(tiles) => tiles.let_go_before(first, newest),
            Track::Moments(tiles) => tiles.let_go_before(first, newest),
            Track::Least(tiles) | Track::Greatest(tiles) => tiles.let_go_before(first, newest),
            Track::Distinct(tiles) => tiles.let_go_before(first, newest),
            Track::Quantile(tiles) => tiles.let_go_before(first, newest),
            Track::TopK(tiles) => tiles.let_go_before(first, newest),
            Track::First(tiles) => tiles.let_go_before(first, newest),
            Track::Last(last) => {
                if last.as_ref().is_some_and(|last| last.time_us <= gone_us) {
                    *last = None;
                }
            }
            Track::LastTime(last) => *last = last.filter(|time| *time > gone_us),
            Track::Groups(groups) => groups.retain_mut(|(_, track)| {
                track.let_go(first, newest, gone_us);
                !track.is_empty()
            }),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Track::Count(tiles) => tiles.heap_bytes(|_| 0),
            Track::Sum(tiles) => tiles.heap_bytes(|_| 0),
            Track::Moments(tiles) => tiles.heap_bytes(|_| 0),
            Track::Least(tiles) | Track::Greatest(tiles) => tiles.heap_bytes(|_| 0),
            Track::Distinct(tiles) => tiles.heap_bytes(Distinct::heap_bytes),
            Track::Quantile(tiles) => tiles.heap_bytes(Buckets::heap_bytes),
            Track::TopK(tiles) => tiles.heap_bytes(Counts::heap_bytes),
            Track::First(tiles) => tiles.heap_bytes(|first| first.value.heap_bytes()),
            Track::Last(last) => last.as_ref().map_or(0, |last| {
                size_of::<Occurrence>() + Kept::heap_bytes(&last.value)
            }),
            Track::LastTime(_) => 0,
            Track::Groups(groups) => {
                let inside = groups
                    .iter()
                    .map(|(name, track)| name.len() + track.heap_bytes());
                groups.capacity() * size_of::<(Box<str>, Track)>() + inside.sum::<usize>()
            }
        }
    }
}

/// The track of a group, or that of all others when there are too many.
fn group_of<'a>(groups: &'a mut Vec<(Box<str>, Track)>, name: &str, kind: Kind) -> &'a mut Track {
    let find = |groups: &[(Box<str>, Track)], name: &str| {
        groups.binary_search_by(|(known, _)| known.as_ref().cmp(name))
    };
    let mut found = find(groups, name);
    let mut name = name;
    if found.is_err() && name != OTHER_GROUP {
        let others = usize::from(find(groups, OTHER_GROUP).is_ok());
        if groups.len() - others >= MAX_GROUPS {
            name = OTHER_GROUP;
            found = find(groups, name);
        }
    }
    let position = found.unwrap_or_else(|position| {
        if groups.len() == groups.capacity() {
            groups.reserve_exact(1 + groups.len() / 4);
        }
        groups.insert(position, (name.into(), Track::new(kind, false)));
        position
    });
    &mut groups[position].1
}

fn merge_tiles<A: Clone>(
    ours: &mut Tiles<A>,
    theirs: &Tiles<A>,
    newest: i64,
    below: i64,
    merge: impl Fn(&mut A, &A),
) {
    for (tile, their) in theirs.iter(newest).take_while(|(tile, _)| *tile < below) {
        let mut new = false;
        let our = ours.at(Place { tile, newest }, || {
            new = true;
            their.clone()
        });
        if !new {
            merge(our, their);
        }
    }
}
