//! The value of an aggregate: what its window holds of a track.

use super::accumulators::{Kept, Moments, Sum};
use super::double::Double;
use super::groups::{Group, Groups};
use super::plan::{Ask, TrackPlan};
use super::tiles::{Content, Tiles};
use super::track::Track;
use super::{Function, distinct, quantile, top_k};
use crate::features::value::{FeatureType, Value};

/// What is asked of a track: the window from tile `first` on. What is kept as one event counts when
/// it is after `edge_us`.
struct Window<'a> {
    ask: &'a Ask,
    first: i64,
    newest: i64,
    edge_us: i64,
    at_us: i64,
}

/// The value of `ask` at `at_us`, which is not before `clock_us`.
pub fn value(
    ask: &Ask,
    plan: &TrackPlan,
    track: Option<&Track>,
    clock_us: i64,
    at_us: i64,
) -> Value {
    let first = at_us.saturating_sub(ask.window_us).div_euclid(ask.hop_us);
    let window = Window {
        ask,
        first,
        newest: plan.tile_of(clock_us),
        edge_us: first.saturating_mul(ask.hop_us),
        at_us,
    };
    if plan.grouped {
        return window.map(track);
    }
    let found = track.and_then(|track| window.value(track));
    found.unwrap_or_else(|| of_nothing(ask))
}

/// The value of an empty window.
fn of_nothing(ask: &Ask) -> Value {
    match ask.function {
        Function::Count | Function::Sum | Function::CountDistinct | Function::Rate => {
            whole(0, ask.kind)
        }
        _ => Value::Null,
    }
}

impl Window<'_> {
    /// A JSON object with the value of every group that has events in the window, by name.
    fn map(&self, track: Option<&Track>) -> Value {
        let mut json = String::from("{");
        if let Some(Track::Groups(groups)) = track {
            for (name, track) in groups {
                let Some(value) = self.value(track) else {
                    continue;
                };
                if json.len() > 1 {
                    json.push(',');
                }
                json.push_str(&serde_json::Value::from(name.as_ref()).to_string());
                json.push(':');
                match (self.ask.function, &value) {
                    // It is JSON already.
                    (Function::TopK, Value::String(list)) => json.push_str(list),
                    _ => json.push_str(&value.to_json().to_string()),
                }
            }
        }
        json.push('}');
        Value::String(json)
    }

    fn groups<'t, A: Content>(&self, tiles: &'t Tiles<A>) -> Groups<'t, A> {
        tiles.since(self.first, self.newest)
    }

    /// The value of one group; none when its window is empty.
    fn value(&self, track: &Track) -> Option<Value> {
        let kind = self.ask.kind;
        match track {
            Track::Count(tiles) => {
                let count = merged(self.groups(tiles)).fold(0u64, u64::saturating_add);
                (count > 0).then(|| self.of_count(count))
            }
            Track::Sum(tiles) => {
                let whole = total(merged(self.groups(tiles)), Sum::merge);
                (whole.count > 0).then(|| match self.ask.function {
                    Function::Avg => float(whole.sum.divided_by(f64::from(whole.count)).to_float()),
                    _ => number(whole.sum, kind),
                })
            }
            Track::Moments(tiles) => {
                let whole = total(merged(self.groups(tiles)), Moments::merge);
                (whole.count > 0).then(|| float(whole.stddev()))
            }
            Track::Least(tiles) => {
                let all = merged(self.groups(tiles));
                let least = all.map(|least| least.0).reduce(f64::min)?;
                Some(number(Double::default().plus(least), kind))
            }
            Track::Greatest(tiles) => {
                let all = merged(self.groups(tiles));
                let greatest = all.map(|greatest| greatest.0).reduce(f64::max)?;
                Some(number(Double::default().plus(greatest), kind))
            }
            Track::Distinct(tiles) => {
                let count = distinct::count(self.groups(tiles));
                (count > 0).then(|| whole(count, kind))
            }
            Track::Quantile(tiles) => {
                quantile::quantile(self.groups(tiles), self.ask.q).map(Value::Float64)
            }
            Track::TopK(tiles) => {
                let most = top_k::most_frequent(self.groups(tiles), self.ask.k);
                (!most.is_empty()).then(|| Value::String(serde_json::Value::from(most).to_string()))
            }
            Track::First(tiles) => {
                let first = tiles.first_since(self.first, self.newest)?;
                Some(of_kept(&first.value))
            }
            Track::Last(last) => {
                let last = last.as_ref().filter(|last| last.time_us > self.edge_us)?;
                Some(of_kept(&last.value))
            }
            Track::LastTime(last) => {
                let last = last.filter(|last| *last > self.edge_us)?;
                let since_us = self.at_us.saturating_sub(last);
                Some(Value::Float64(since_us as f64 / 1e6))
            }
            // Groups hold no groups.
            Track::Groups(_) => None,
        }
    }

    fn of_count(&self, count: u64) -> Value {
        match self.ask.function {
            Function::Rate => Value::Float64(count as f64 / (self.ask.window_us as f64 / 1e6)),
            _ => whole(count, self.ask.kind),
        }
    }
}

/// What each group of tiles holds, put together here where no block is kept.
fn merged<A: Content<Merged: Copy>>(groups: Groups<'_, A>) -> impl Iterator<Item = A::Merged> {
    groups.filter_map(|group| match group {
        Group::Merged(merged) => Some(*merged),
        Group::Tiles(tiles) => A::merged(tiles),
    })
}

/// The sum of all. Four sums are made side by side: each addition waits for the one before it, and a
/// processor can do that for more than one at a time.
fn total<A: Copy + Default>(all: impl Iterator<Item = A>, merge: impl Fn(&mut A, &A)) -> A {
    let mut sums = [A::default(); 4];
    let mut number = 0;
    for next in all {
        let sum = &mut sums[number % 4];
        match number {
            0..4 => *sum = next,
            _ => merge(sum, &next),
        }
        number += 1;
    }
    let [mut whole, others @ ..] = sums;
    let others = others.iter().take(number.saturating_sub(1));
    others.for_each(|other| merge(&mut whole, other));
    whole
}

fn of_kept(kept: &Kept) -> Value {
    match kept {
        Kept::Number(number) => Value::Float64(*number),
        Kept::Integer(integer) => Value::Int64(*integer),
        Kept::Flag(flag) => Value::Bool(*flag),
        Kept::Text(text) => Value::String(text.to_string()),
        Kept::Nothing => Value::Null,
    }
}

/// A count in the type of the feature.
fn whole(count: u64, kind: FeatureType) -> Value {
    match kind {
        FeatureType::Float64 => Value::Float64(count as f64),
        _ => Value::Int64(i64::try_from(count).unwrap_or(i64::MAX)),
    }
}

/// A sum in the type of the feature; null when it does not fit.
fn number(sum: Double, kind: FeatureType) -> Value {
    match kind {
        FeatureType::Int64 => sum.to_integer().map_or(Value::Null, Value::Int64),
        _ => float(sum.to_float()),
    }
}

fn float(number: Option<f64>) -> Value {
    let finite = number.filter(|number| number.is_finite());
    finite.map_or(Value::Null, Value::Float64)
}
