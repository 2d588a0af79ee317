//! What an aggregate may say.

use std::time::Duration;

use super::accumulators::MAX_TEXT_BYTES;
use super::{Aggregate, Function};
use crate::features::value::FeatureType;

/// The shortest and the longest window.
pub const MIN_WINDOW: Duration = Duration::from_secs(1);
pub const MAX_WINDOW: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The most values that `top_k` returns.
pub const MAX_K: usize = 100;

/// The most aggregates of one view.
pub const MAX_AGGREGATES: usize = 1000;

/// Checks everything but the expressions.
///
/// # Errors
/// A phrase saying what is wrong and what to write instead.
pub fn check(aggregate: &Aggregate) -> Result<(), String> {
    let function = aggregate.function.name();
    if aggregate.event.is_empty() {
        return Err("`event` is empty; it names the events that count".to_owned());
    }
    check_window(aggregate.window)?;
    match (&aggregate.value, aggregate.function.takes_value()) {
        (None, true) => {
            return Err(format!(
                "{function} needs a `value`: the property to aggregate, or SQL over properties"
            ));
        }
        (Some(_), false) => {
            return Err(format!(
                "{function} takes no `value`; to count only some events, say which with `where`"
            ));
        }
        _ => {}
    }
    let texts = [
        ("value", &aggregate.value),
        ("where", &aggregate.filter),
        ("group_by", &aggregate.group_by),
    ];
    for (field, text) in texts {
        if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(format!("`{field}` is empty; leave it out"));
        }
    }
    if let Some(group) = &aggregate.group {
        if aggregate.group_by.is_none() {
            return Err(format!(
                "`group` is {group:?}, but there is no `group_by` that says what is grouped"
            ));
        }
        if group.len() > MAX_TEXT_BYTES {
            return Err(format!(
                "`group` is {} bytes long; groups are told apart by their first {MAX_TEXT_BYTES}",
                group.len()
            ));
        }
    }
    if aggregate.function == Function::TopK && !(1..=MAX_K).contains(&aggregate.k) {
        return Err(format!("`k` is {}; expected 1 to {MAX_K}", aggregate.k));
    }
    if aggregate.function == Function::Quantile && !(0.0..=1.0).contains(&aggregate.q) {
        return Err(format!(
            "`q` is {}; expected 0 to 1, 0.5 being the median",
            aggregate.q
        ));
    }
    check_type(aggregate)
}

fn check_window(window: Duration) -> Result<(), String> {
    if window < MIN_WINDOW || window > MAX_WINDOW {
        let window = humantime::format_duration(window);
        return Err(format!("`window` is {window}; expected 1s to 400 days"));
    }
    if !window.subsec_nanos().is_multiple_of(1000) {
        return Err("`window` is no whole number of microseconds".to_owned());
    }
    Ok(())
}

fn check_type(aggregate: &Aggregate) -> Result<(), String> {
    use FeatureType::{Bool, Float64, Int64, String};
    let kind = aggregate.kind;
    let allowed: &[FeatureType] = match aggregate.function {
        Function::Count | Function::CountDistinct => &[Int64, Float64],
        Function::Sum | Function::Min | Function::Max => &[Float64, Int64],
        Function::Avg
        | Function::Stddev
        | Function::Rate
        | Function::TimeSinceLast
        | Function::Quantile => &[Float64],
        Function::First | Function::Last => &[String, Int64, Float64, Bool],
        Function::TopK => &[String],
    };
    // The column of a map is text, whatever is in the map.
    if allowed.contains(&kind) || (aggregate.is_map() && kind == String) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(|kind| kind.name()).collect();
    Err(format!(
        "{} has the type {}, the feature is declared {}",
        aggregate.function.name(),
        names.join(" or "),
        kind.name()
    ))
}
