//! From aggregates to tracks: what is read of events, what is kept, and for how long.

use std::collections::HashSet;

use xxhash_rust::xxh3::Xxh3Default;

use super::check::{MAX_AGGREGATES, check};
use super::events::Reader;
use super::infer::Reading;
use super::tiles::Place;
use super::track::{Kind, Track};
use super::{Aggregate, Function};
use crate::features::value::FeatureType;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

/// The lengths of tiles, longest first.
const HOPS_US: [i64; 15] = [
    7 * DAY_US,
    2 * DAY_US,
    DAY_US,
    12 * HOUR_US,
    6 * HOUR_US,
    2 * HOUR_US,
    HOUR_US,
    30 * MINUTE_US,
    10 * MINUTE_US,
    5 * MINUTE_US,
    MINUTE_US,
    30 * SECOND_US,
    10 * SECOND_US,
    5 * SECOND_US,
    SECOND_US,
];

/// The hop of a window, the steps in which its trailing edge moves: the longest of a list of round
/// ones that is at most 1 % of the window; for windows under 100 s, 1 % in whole milliseconds.
pub fn hop_us(window_us: i64) -> i64 {
    let most = window_us / 100;
    let round = HOPS_US.iter().find(|hop| **hop <= most);
    round
        .copied()
        .unwrap_or_else(|| (most / 1000 * 1000).max(1000))
}

/// The events of one name, read one way: which count, what their value is, and their group. The
/// numbers are those of the reader's expressions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    pub reader: usize,
    pub filter: Option<usize>,
    pub value: Option<usize>,
    pub group: Option<usize>,
}

/// What is kept of a stream.
#[derive(Debug)]
pub struct TrackPlan {
    /// The same in every plan that keeps the same.
    pub id: u64,
    pub stream: usize,
    pub kind: Kind,
    /// 0 for kinds without tiles.
    pub hop_us: i64,
    /// The longest window.
    pub horizon_us: i64,
    /// All groups are kept, each for itself.
    pub grouped: bool,
    /// Only this group counts.
    pub only_group: Option<String>,
}

/// An aggregate: a window over a track.
#[derive(Debug)]
pub struct Ask {
    pub track: usize,
    pub function: Function,
    pub window_us: i64,
    pub hop_us: i64,
    pub k: usize,
    pub q: f64,
    pub kind: FeatureType,
}

/// A compiled plan.
#[derive(Debug, Default)]
pub struct Plan {
    pub readers: Vec<Reader>,
    /// The streams of every reader.
    pub streams: Vec<Stream>,
    pub tracks: Vec<TrackPlan>,
    pub asks: Vec<Ask>,
}

impl TrackPlan {
    /// The tile that `time_us` is in.
    pub fn tile_of(&self, time_us: i64) -> i64 {
        match self.hop_us {
            0 => 0,
            hop => time_us.saturating_sub(1).div_euclid(hop),
        }
    }

    /// The first tile that a window of the horizon's length still reaches at `at_us`.
    pub fn first_tile(&self, at_us: i64) -> i64 {
        match self.hop_us {
            0 => 0,
            hop => at_us.saturating_sub(self.horizon_us).div_euclid(hop),
        }
    }

    /// Up to when events are out of reach at `at_us`, for kinds without tiles. The edges of all
    /// windows lie at most a hop before their nominal ones.
    pub fn gone_us(&self, at_us: i64) -> i64 {
        at_us
            .saturating_sub(self.horizon_us)
            .saturating_sub(self.horizon_us / 100)
    }

    /// Where an event of `time_us` belongs when the clock is `clock_us`; none when it is out of
    /// reach.
    pub fn place(&self, time_us: i64, clock_us: i64) -> Option<Place> {
        if self.hop_us == 0 {
            let reached = time_us > self.gone_us(clock_us);
            return reached.then_some(Place { tile: 0, newest: 0 });
        }
        let tile = self.tile_of(time_us);
        let newest = self.tile_of(clock_us);
        (tile >= self.first_tile(clock_us)).then_some(Place { tile, newest })
    }

    pub fn empty(&self) -> Track {
        Track::new(self.kind, self.grouped)
    }
}

impl Plan {
    pub fn compile(aggregates: &[Aggregate]) -> Result<Plan, (usize, String)> {
        if aggregates.len() > MAX_AGGREGATES {
            let problem = format!(
                "a view has at most {MAX_AGGREGATES} window features, this one {}",
                aggregates.len()
            );
            return Err((MAX_AGGREGATES, problem));
        }
        let mut plan = Plan::default();
        for (index, aggregate) in aggregates.iter().enumerate() {
            plan.add(aggregate).map_err(|problem| (index, problem))?;
        }
        let mut ids = HashSet::new();
        for ask in plan.tracks.iter().enumerate() {
            if !ids.insert(ask.1.id) {
                let index = plan.asks.iter().position(|other| other.track == ask.0);
                let problem = "hashes to the same identity as another; write it differently";
                return Err((index.unwrap_or_default(), problem.to_owned()));
            }
        }
        Ok(plan)
    }

    fn add(&mut self, aggregate: &Aggregate) -> Result<(), String> {
        check(aggregate)?;
        let stream = self.stream(aggregate)?;
        // Checked to be at most 400 days.
        let window_us = i64::try_from(aggregate.window.as_micros()).unwrap_or(i64::MAX);
        let hop = hop_us(window_us);
        let kind = kind_of(aggregate);
        let track = TrackPlan {
            id: identity(aggregate, kind, hop),
            stream,
            kind,
            hop_us: if kind.is_tiled() { hop } else { 0 },
            horizon_us: window_us,
            grouped: aggregate.is_map(),
            only_group: aggregate.group.clone(),
        };
        let known = self.tracks.iter().position(|known| {
            known.stream == track.stream
                && known.kind == track.kind
                && known.hop_us == track.hop_us
                && known.grouped == track.grouped
                && known.only_group == track.only_group
        });
        let track = match known.and_then(|known| Some((known, self.tracks.get_mut(known)?))) {
            Some((number, known)) => {
                known.horizon_us = known.horizon_us.max(window_us);
                number
            }
            None => {
                self.tracks.push(track);
                self.tracks.len() - 1
            }
        };
        self.asks.push(Ask {
            track,
            function: aggregate.function,
            window_us,
            hop_us: hop,
            k: aggregate.k,
            q: aggregate.q,
            kind: kind_of_value(aggregate),
        });
        Ok(())
    }

    fn stream(&mut self, aggregate: &Aggregate) -> Result<usize, String> {
        let known = self
            .readers
            .iter()
            .position(|reader| reader.event == aggregate.event);
        let number = known.unwrap_or_else(|| {
            self.readers.push(Reader::new(&aggregate.event));
            self.readers.len() - 1
        });
        let Some(reader) = self.readers.get_mut(number) else {
            return Err("has no reader".to_owned());
        };
        let mut expression = |field: &str, sql: &Option<String>, wanted: Reading| match sql {
            None => Ok(None),
            Some(sql) => match reader.expression(sql.trim(), wanted) {
                Ok(number) => Ok(Some(number)),
                Err(problem) => Err(format!("`{field}` {problem}")),
            },
        };
        let stream = Stream {
            reader: number,
            filter: expression("where", &aggregate.filter, Reading::Flag)?,
            value: expression("value", &aggregate.value, reading_of(aggregate))?,
            group: expression("group_by", &aggregate.group_by, Reading::AnyText)?,
        };
        let known = self.streams.iter().position(|known| *known == stream);
        Ok(known.unwrap_or_else(|| {
            self.streams.push(stream);
            self.streams.len() - 1
        }))
    }
}

/// The type of a value, or of each value of a map.
fn kind_of_value(aggregate: &Aggregate) -> FeatureType {
    if !aggregate.is_map() || aggregate.kind != FeatureType::String {
        return aggregate.kind;
    }
    match aggregate.function {
        Function::Count | Function::CountDistinct => FeatureType::Int64,
        Function::First | Function::Last | Function::TopK => FeatureType::String,
        _ => FeatureType::Float64,
    }
}

fn kind_of(aggregate: &Aggregate) -> Kind {
    match aggregate.function {
        Function::Count | Function::Rate => Kind::Count,
        Function::Sum | Function::Avg => Kind::Sum,
        Function::Stddev => Kind::Moments,
        Function::Min => Kind::Least,
        Function::Max => Kind::Greatest,
        Function::CountDistinct => Kind::Distinct,
        Function::Quantile => Kind::Quantile,
        Function::TopK => Kind::TopK,
        Function::First => Kind::First(aggregate.kind),
        Function::Last => Kind::Last(aggregate.kind),
        Function::TimeSinceLast => Kind::LastTime,
    }
}

/// What the values of an aggregate are read as.
fn reading_of(aggregate: &Aggregate) -> Reading {
    match aggregate.function {
        Function::CountDistinct | Function::TopK => Reading::AnyText,
        Function::First | Function::Last => match aggregate.kind {
            FeatureType::String => Reading::Text,
            FeatureType::Int64 => Reading::Integer,
            FeatureType::Float64 => Reading::Number,
            FeatureType::Bool => Reading::Flag,
        },
        _ => Reading::Number,
    }
}

/// Hashes all that decides what a track keeps, so that it is found again under another plan.
fn identity(aggregate: &Aggregate, kind: Kind, hop_us: i64) -> u64 {
    let hop_us = if kind.is_tiled() { hop_us } else { 0 };
    let trimmed = |text: &Option<String>| text.as_ref().map(|text| text.trim().to_owned());
    let parts = [
        Some(aggregate.event.clone()),
        trimmed(&aggregate.filter),
        trimmed(&aggregate.value),
        trimmed(&aggregate.group_by),
        aggregate.group.clone(),
        Some(kind.name_and_number().0.to_owned()),
        Some(hop_us.to_string()),
    ];
    let mut hasher = Xxh3Default::new();
    for part in parts {
        // An absent part differs from an empty one.
        let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
        hasher.update(&length.to_le_bytes());
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    hasher.digest()
}
