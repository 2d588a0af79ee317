//! A track: the tiles of one kind for one reading of events.

use std::cmp::Ordering;

use super::accumulators::{Count, Greatest, Kept, Least, Moments, Occurrence, Sum, cut};
use super::distinct::Distinct;
use super::evaluate::Input;
use super::quantile::Buckets;
use super::tiles::{List, Place, Tiles};
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
    Count(Tiles<Count>),
    Sum(Tiles<Sum>),
    Moments(Tiles<Moments>),
    Least(Tiles<Least>),
    Greatest(Tiles<Greatest>),
    Distinct(Tiles<Distinct>),
    Quantile(Tiles<Buckets>),
    TopK(Tiles<Counts>),
    First(Tiles<Occurrence>),
    Last(Option<Box<Occurrence>>),
    LastTime(Option<i64>),
    /// By name; each is a track that has no groups itself.
    Groups(Box<[Named]>),
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
            return Track::Groups(Box::default());
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
            (Track::Count(tiles), _) => tiles.change(place, Count::default, |count, _| {
                count.0 = count.0.saturating_add(1);
                false
            }),
            (Track::Sum(tiles), Input::Number(value)) => {
                tiles.change(place, Sum::default, |sum, _| {
                    sum.add(value);
                    false
                });
            }
            (Track::Moments(tiles), Input::Number(value)) => {
                tiles.change(place, Moments::default, |moments, _| {
                    moments.add(value);
                    false
                });
            }
            (Track::Least(tiles), Input::Number(value)) => {
                tiles.change(
                    place,
                    || Least(value),
                    |least, merged| {
                        least.add(value);
                        merged.map(|merged| merged.add(value)).is_some()
                    },
                );
            }
            (Track::Greatest(tiles), Input::Number(value)) => {
                tiles.change(
                    place,
                    || Greatest(value),
                    |greatest, merged| {
                        greatest.add(value);
                        merged.map(|merged| merged.add(value)).is_some()
                    },
                );
            }
            (Track::Distinct(tiles), Input::Text(text)) => {
                let hash = xxh3_64(text.as_bytes());
                tiles.change(place, Distinct::default, |tile, merged| {
                    tile.add_late(hash, merged)
                });
            }
            (Track::Quantile(tiles), Input::Number(value)) => {
                tiles.change(place, Buckets::default, |tile, merged| {
                    tile.add_late(value, merged)
                });
            }
            (Track::TopK(tiles), Input::Text(text)) => {
                tiles.change(place, Counts::default, |tile, merged| {
                    tile.add_late(text, merged)
                });
            }
            (Track::First(tiles), value) => {
                let Given {
                    time_us, id_hash, ..
                } = given;
                let occurrence = || Occurrence::new(time_us, id_hash, value);
                tiles.change(place, occurrence, |first, _| {
                    if first.order(time_us, id_hash, value) == Ordering::Greater {
                        *first = occurrence();
                    }
                    true
                });
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
            (Track::Count(ours), Track::Count(theirs)) => ours.merge(theirs, newest, below),
            (Track::Sum(ours), Track::Sum(theirs)) => ours.merge(theirs, newest, below),
            (Track::Moments(ours), Track::Moments(theirs)) => ours.merge(theirs, newest, below),
            (Track::Least(ours), Track::Least(theirs)) => ours.merge(theirs, newest, below),
            (Track::Greatest(ours), Track::Greatest(theirs)) => ours.merge(theirs, newest, below),
            (Track::Distinct(ours), Track::Distinct(theirs)) => ours.merge(theirs, newest, below),
            (Track::Quantile(ours), Track::Quantile(theirs)) => ours.merge(theirs, newest, below),
            (Track::TopK(ours), Track::TopK(theirs)) => ours.merge(theirs, newest, below),
            (Track::First(ours), Track::First(theirs)) => ours.merge(theirs, newest, below),
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
                retain(ours, |track| !track.is_empty());
            }
            _ => {}
        }
    }

    /// Its tiles, if it has any itself.
    fn tiles(&self) -> Option<&dyn List> {
        match self {
            Track::Count(tiles) => Some(tiles),
            Track::Sum(tiles) => Some(tiles),
            Track::Moments(tiles) => Some(tiles),
            Track::Least(tiles) => Some(tiles),
            Track::Greatest(tiles) => Some(tiles),
            Track::Distinct(tiles) => Some(tiles),
            Track::Quantile(tiles) => Some(tiles),
            Track::TopK(tiles) => Some(tiles),
            Track::First(tiles) => Some(tiles),
            Track::Last(_) | Track::LastTime(_) | Track::Groups(_) => None,
        }
    }

    fn tiles_mut(&mut self) -> Option<&mut dyn List> {
        match self {
            Track::Count(tiles) => Some(tiles),
            Track::Sum(tiles) => Some(tiles),
            Track::Moments(tiles) => Some(tiles),
            Track::Least(tiles) => Some(tiles),
            Track::Greatest(tiles) => Some(tiles),
            Track::Distinct(tiles) => Some(tiles),
            Track::Quantile(tiles) => Some(tiles),
            Track::TopK(tiles) => Some(tiles),
            Track::First(tiles) => Some(tiles),
            Track::Last(_) | Track::LastTime(_) | Track::Groups(_) => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Track::Last(last) => last.is_none(),
            Track::LastTime(last) => last.is_none(),
            Track::Groups(groups) => groups.is_empty(),
            _ => self.tiles().is_none_or(List::is_empty),
        }
    }

    /// The oldest tile; none when there are no tiles.
    pub fn oldest(&self, newest: i64) -> Option<i64> {
        match self {
            Track::Groups(groups) => {
                let oldest = groups.iter().filter_map(|(_, track)| track.oldest(newest));
                oldest.min()
            }
            _ => self.tiles()?.oldest(newest),
        }
    }

    /// Lets go of the tiles before number `first`, and of a last event up to `gone_us`.
    pub fn let_go(&mut self, first: i64, newest: i64, gone_us: i64) {
        match self {
            Track::Last(last) => {
                if last.as_ref().is_some_and(|last| last.time_us <= gone_us) {
                    *last = None;
                }
            }
            Track::LastTime(last) => *last = last.filter(|time| *time > gone_us),
            Track::Groups(groups) => retain(groups, |track| {
                track.let_go(first, newest, gone_us);
                !track.is_empty()
            }),
            _ => {
                if let Some(tiles) = self.tiles_mut() {
                    tiles.let_go_before(first, newest);
                }
            }
        }
    }

    /// Builds the blocks of long lists, where there are none.
    pub fn condense(&mut self) {
        if let Track::Groups(groups) = self {
            groups.iter_mut().for_each(|(_, track)| track.condense());
        } else if let Some(tiles) = self.tiles_mut() {
            tiles.condense();
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Track::Last(last) => last.as_ref().map_or(0, |last| {
                size_of::<Occurrence>() + Kept::heap_bytes(&last.value)
            }),
            Track::Groups(groups) => {
                let inside = groups
                    .iter()
                    .map(|(name, track)| name.len() + track.heap_bytes());
                size_of_val::<[_]>(groups) + inside.sum::<usize>()
            }
            _ => self.tiles().map_or(0, List::heap_bytes),
        }
    }

    /// Whether what is kept of several tiles is what they say.
    #[cfg(test)]
    pub fn blocks_are_right(&self) -> bool {
        match self {
            Track::Groups(groups) => groups.iter().all(|(_, track)| track.blocks_are_right()),
            _ => self.tiles().is_none_or(List::blocks_are_right),
        }
    }
}

/// A group and its track.
type Named = (Box<str>, Track);

/// The track of a group, or that of all others when there are too many.
fn group_of<'a>(groups: &'a mut Box<[Named]>, name: &str, kind: Kind) -> &'a mut Track {
    let find = |groups: &[Named], name: &str| {
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
        let mut more = std::mem::take(groups).into_vec();
        more.reserve_exact(1);
        more.insert(position, (name.into(), Track::new(kind, false)));
        *groups = more.into_boxed_slice();
        position
    });
    &mut groups[position].1
}

/// Keeps the groups of which `keep` is true.
fn retain(groups: &mut Box<[Named]>, mut keep: impl FnMut(&mut Track) -> bool) {
    let mut kept = std::mem::take(groups).into_vec();
    kept.retain_mut(|(_, track)| keep(track));
    *groups = kept.into_boxed_slice();
}
