//! From an `aggregate` table to window features: one for each window, and with groups one for each
//! group beside the map.

use std::time::Duration;

use super::file::{AggregateSection, Findings};
use super::{Holds, shorten};
use crate::features::value::{FeatureType, Value};
use crate::features::windows::{Aggregate, Function};

/// How many values `top_k` gives when the view does not say.
const DEFAULT_K: u64 = 10;

/// The most values that `top_k` gives.
const MAX_K: u64 = 100;

/// A window feature that an `aggregate` table declares.
#[derive(Debug)]
pub struct WindowDraft {
    pub name: String,
    pub holds: Holds,
    pub aggregate: Aggregate,
    /// Whether it is fit to be compiled.
    pub is_sound: bool,
}

/// The window features of `section`; what is wrong is added to `findings`.
pub fn expand(
    name: &str,
    kind: FeatureType,
    section: &AggregateSection,
    place: &str,
    findings: &mut Findings<'_>,
) -> Vec<WindowDraft> {
    let (Some(event), Some(function)) = (&section.event, &section.function) else {
        return Vec::new();
    };
    let Some(function) = function_of(function.get_ref()) else {
        return Vec::new();
    };
    let so_far = findings.mistakes.len();
    check(section, function, kind, place, findings);
    let is_sound = findings.mistakes.len() == so_far;
    let text = |sql: &Option<toml::Spanned<String>>| sql.as_ref().map(|sql| sql.get_ref().clone());
    // A map may be declared as what its column is; its values then have the function's own type.
    let is_text = kind == FeatureType::String;
    let plain_kind = match types_of(function) {
        types if is_text && !types.contains(&kind) => types.last().copied().unwrap_or(kind),
        _ => kind,
    };
    let aggregate = |window: Duration, group: Option<&str>| Aggregate {
        event: event.get_ref().clone(),
        function,
        window,
        value: text(&section.value),
        filter: text(&section.filter),
        group_by: text(&section.group_by),
        group: group.map(str::to_owned),
        k: section.k.as_ref().map_or(DEFAULT_K, |k| *k.get_ref()) as usize,
        q: section.q.as_ref().map_or(0.5, |q| *q.get_ref()),
        kind: if group.is_some() { plain_kind } else { kind },
    };
    let one = match function {
        Function::TopK => Holds::List,
        _ => Holds::One,
    };
    let mut drafts = Vec::new();
    for (text, window) in &section.windows {
        let name = match section.is_list {
            true => format!("{name}_{}", text.get_ref().replace(' ', "")),
            false => name.to_owned(),
        };
        let is_map = section.group_by.is_some();
        drafts.push(WindowDraft {
            name: name.clone(),
            holds: if is_map { Holds::Map } else { one },
            aggregate: aggregate(*window, None),
            is_sound,
        });
        for group in section.groups.iter().filter(|_| is_map) {
            drafts.push(WindowDraft {
                name: format!("{name}_{}", name_part(group.get_ref())),
                holds: one,
                aggregate: aggregate(*window, Some(group.get_ref())),
                is_sound,
            });
        }
    }
    drafts
}

/// What the aggregate is when no event lies in the window, where that is not null.
pub fn value_when_empty(aggregate: &Aggregate, holds: Holds) -> Option<Value> {
    let is_counted = matches!(
        aggregate.function,
        Function::Count | Function::Sum | Function::CountDistinct | Function::Rate
    );
    match (is_counted && holds == Holds::One, aggregate.kind) {
        (true, FeatureType::Int64) => Some(Value::Int64(0)),
        (true, FeatureType::Float64) => Some(Value::Float64(0.0)),
        _ => None,
    }
}

fn function_of(word: &str) -> Option<Function> {
    Some(match word {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "avg" => Function::Avg,
        "min" => Function::Min,
        "max" => Function::Max,
        "stddev" => Function::Stddev,
        "count_distinct" => Function::CountDistinct,
        "first" => Function::First,
        "last" => Function::Last,
        "rate" => Function::Rate,
        "time_since_last" => Function::TimeSinceLast,
        "top_k" => Function::TopK,
        "quantile" => Function::Quantile,
        _ => return None,
    })
}

/// The types that a function's result may be declared with; the last is the function's own.
fn types_of(function: Function) -> &'static [FeatureType] {
    match function {
        Function::Count | Function::CountDistinct => &[FeatureType::Float64, FeatureType::Int64],
        Function::Sum | Function::Min | Function::Max => {
            &[FeatureType::Int64, FeatureType::Float64]
        }
        Function::Avg
        | Function::Stddev
        | Function::Rate
        | Function::TimeSinceLast
        | Function::Quantile => &[FeatureType::Float64],
        Function::TopK => &[FeatureType::String],
        Function::First | Function::Last => &[
            FeatureType::String,
            FeatureType::Int64,
            FeatureType::Float64,
            FeatureType::Bool,
        ],
    }
}

fn check(
    section: &AggregateSection,
    function: Function,
    kind: FeatureType,
    place: &str,
    findings: &mut Findings<'_>,
) {
    let word = section.function.as_ref().map_or("", |word| word.get_ref());
    let event = section.event.as_ref();
    if let Some(event) = event.filter(|event| event.get_ref().trim().is_empty()) {
        findings.add(event.span().start, place, "event: empty; name the events");
    }
    let types = types_of(function);
    let is_text_map = section.group_by.is_some() && kind == FeatureType::String;
    if !types.contains(&kind) && !is_text_map {
        let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
        let problem = format!(
            "type: {word} gives {}, found {}",
            names.join(" or "),
            kind.name()
        );
        findings.add(section.at, place, problem);
    }
    let needs_value = !matches!(
        function,
        Function::Count | Function::Rate | Function::TimeSinceLast
    );
    match (&section.value, needs_value) {
        (None, true) => findings.suggest(
            section.at,
            place,
            format!("{word} needs a value"),
            Some("add value = \"…\", SQL over the event's properties".to_owned()),
        ),
        (Some(value), false) => findings.suggest(
            value.span().start,
            place,
            format!("{word} takes no value"),
            Some("leave it out, or choose another function".to_owned()),
        ),
        _ => {}
    }
    check_k_and_q(section, function, place, findings);
    if let (None, Some(group)) = (&section.group_by, section.groups.first()) {
        findings.suggest(
            group.span().start,
            place,
            "groups without group_by",
            Some("add group_by = \"…\", SQL over the event's properties".to_owned()),
        );
    }
    for group in &section.groups {
        if name_part(group.get_ref()).is_empty() {
            let problem = format!(
                "groups: {:?} has no letter or digit to name a feature by",
                shorten(group.get_ref(), 40)
            );
            findings.add(group.span().start, place, problem);
        }
    }
}

fn check_k_and_q(
    section: &AggregateSection,
    function: Function,
    place: &str,
    findings: &mut Findings<'_>,
) {
    match &section.k {
        Some(k) if function != Function::TopK => {
            findings.add(k.span().start, place, "k is for top_k only");
        }
        Some(k) if !(1..=MAX_K).contains(k.get_ref()) => {
            let problem = format!("k: expected 1 to {MAX_K}, found {}", k.get_ref());
            findings.add(k.span().start, place, problem);
        }
        _ => {}
    }
    match &section.q {
        Some(q) if function != Function::Quantile => {
            findings.add(q.span().start, place, "q is for quantile only");
        }
        Some(q) if !(0.0..=1.0).contains(q.get_ref()) => {
            let problem = format!("q: expected 0 to 1, found {}", q.get_ref());
            findings.add(q.span().start, place, problem);
        }
        None if function == Function::Quantile => {
            let suggestion = "add q = 0.5 for the median".to_owned();
            findings.suggest(section.at, place, "quantile needs q", Some(suggestion));
        }
        _ => {}
    }
}

/// A group's value as part of a feature's name: letters and digits in lower case, the rest
/// underscores.
fn name_part(group: &str) -> String {
    let mapped: String = group
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '_',
        })
        .collect();
    mapped.trim_matches('_').to_owned()
}
