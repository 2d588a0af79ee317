//! Random streams of events against a plain list of events that is searched for every value.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use Function::*;

const FUNCTIONS: [Function; 13] = [
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
];

static EVERYTHING: LazyLock<Windows> = LazyLock::new(|| {
    let mut all = Vec::new();
    for window in ["30s", "1h", "2days"] {
        for function in FUNCTIONS {
            all.push(aggregate(function, window));
        }
    }
    for function in [Count, Sum, Last, CountDistinct, Quantile, TimeSinceLast] {
        let filtered = Aggregate {
            filter: Some("x > 10 and s <> 'b'".to_owned()),
            ..aggregate(function, "1h")
        };
        let grouped = Aggregate {
            group_by: Some("s".to_owned()),
            ..aggregate(function, "1day")
        };
        let one = Aggregate {
            group: Some("b".to_owned()),
            ..grouped.clone()
        };
        all.extend([filtered, grouped, one]);
    }
    Windows::compile(all).unwrap()
});

/// Every function over several windows, with and without conditions and groups.
pub fn everything() -> &'static Windows {
    &EVERYTHING
}

/// What may happen: how long after the event before it, how late or early it is known, on which
/// grid its time lies, and what it says.
type Step = (i64, i64, i64, Option<i64>, Option<usize>);

fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![Just(0), 0..SECOND, 0..90 * SECOND, 0..6 * HOUR];
    let late = prop_oneof![
        4 => Just(0),
        4 => 0..20 * SECOND,
        4 => 0..3 * HOUR,
        2 => 0..4 * DAY,
        1 => -30 * SECOND..0,
    ];
    let grid = prop_oneof![Just(1), Just(SECOND), Just(30 * SECOND), Just(600 * SECOND)];
    let number = prop::option::weighted(0.8, -100..400i64);
    (
        pause,
        late,
        grid,
        number,
        prop::option::weighted(0.8, 0..5usize),
    )
}

/// Events with the times at which they are known, in that order.
pub fn streams(most: usize) -> impl Strategy<Value = Vec<(Event, i64)>> {
    prop::collection::vec(step(), 0..most).prop_map(|steps| {
        let mut now = NOW;
        let mut events = Vec::new();
        for (id, (pause, late, grid, number, text)) in steps.into_iter().enumerate() {
            now += pause;
            let time = (now - late).div_euclid(grid) * grid;
            // Quarters: their sums and squares are exact in a float, so that the list can say
            // what is right to the last bit.
            let x = number.map(|n| format!(r#""x": {}"#, n as f64 / 4.0));
            let s = text.map(|text| format!(r#""s": "{}""#, ["a", "b", "c", "d", "e"][text]));
            let properties: Vec<String> = x.into_iter().chain(s).collect();
            let properties = format!("{{{}}}", properties.join(", "));
            events.push((event(&id.to_string(), time, &properties), now));
        }
        events
    })
}

/// An event as the list has it.
#[derive(Clone, Debug)]
struct Plain {
    time_us: i64,
    id_hash: u64,
    x: Option<f64>,
    s: Option<String>,
}

fn plain(event: &Event) -> Plain {
    let json: Json = serde_json::from_str(&event.properties).unwrap();
    Plain {
        time_us: event.occurred_at_us,
        id_hash: xxhash_rust::xxh3::xxh3_64(event.event_id.as_bytes()),
        x: json["x"].as_f64(),
        s: json["s"].as_str().map(str::to_owned),
    }
}

fn expected(aggregate: &Aggregate, known: &[Plain], at: i64) -> Value {
    let window = window_us(aggregate);
    let hop = hop_us(window);
    let edge = (at - window).div_euclid(hop) * hop;
    let mut inside: Vec<Plain> = known
        .iter()
        .filter(|event| event.time_us > edge && event.time_us <= at)
        .filter(|event| {
            aggregate.filter.is_none()
                || (event.x.is_some_and(|x| x > 10.0) && event.s.as_ref().is_some_and(|s| s != "b"))
        })
        .filter(|event| match aggregate.value.as_deref() {
            Some("x") => event.x.is_some(),
            Some(_) => event.s.is_some(),
            None => true,
        })
        .cloned()
        .collect();
    inside.sort_by_key(|event| (event.time_us, event.id_hash));
    if aggregate.group_by.is_none() {
        return of_events(aggregate, &inside, at);
    }
    let mut groups: BTreeMap<String, Vec<Plain>> = BTreeMap::new();
    for event in inside {
        if let Some(group) = event.s.clone() {
            groups.entry(group).or_default().push(event);
        }
    }
    if let Some(group) = &aggregate.group {
        return of_events(
            aggregate,
            groups.get(group).map_or(&[], |events| events),
            at,
        );
    }
    let values: serde_json::Map<String, Json> = groups
        .iter()
        .map(|(name, events)| (name.clone(), of_events(aggregate, events, at).to_json()))
        .collect();
    Value::String(Json::Object(values).to_string())
}

fn of_events(aggregate: &Aggregate, events: &[Plain], at: i64) -> Value {
    let mut numbers: Vec<f64> = events.iter().filter_map(|event| event.x).collect();
    let texts: Vec<&String> = events.iter().filter_map(|event| event.s.as_ref()).collect();
    let number = numbers.len() as f64;
    let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
    for text in &texts {
        *counts.entry(text).or_default() += 1;
    }
    let float = |number: Option<f64>| number.map_or(Value::Null, Value::Float64);
    let sum = numbers.iter().sum::<f64>();
    match aggregate.function {
        Count => Value::Int64(events.len() as i64),
        Rate => Value::Float64(events.len() as f64 / aggregate.window.as_secs_f64()),
        TimeSinceLast => float(events.last().map(|last| (at - last.time_us) as f64 / 1e6)),
        Sum => Value::Float64(sum),
        Avg => float((number > 0.0).then(|| sum / number)),
        Min => float(numbers.iter().copied().reduce(f64::min)),
        Max => float(numbers.iter().copied().reduce(f64::max)),
        Stddev => float((number > 1.0).then(|| {
            let mean = sum / number;
            let squares: f64 = numbers.iter().map(|x| (x - mean) * (x - mean)).sum();
            (squares / (number - 1.0)).sqrt()
        })),
        CountDistinct => Value::Int64(counts.len() as i64),
        First => texts.first().map_or(Value::Null, |s| text(s)),
        Last => texts.last().map_or(Value::Null, |s| text(s)),
        TopK => {
            let mut ranked: Vec<(&String, i64)> = counts.into_iter().collect();
            ranked.sort_by_key(|(text, count)| (-count, *text));
            let most: Vec<&str> = ranked
                .iter()
                .map(|(text, _)| text.as_str())
                .take(3)
                .collect();
            if most.is_empty() {
                Value::Null
            } else {
                text(&Json::from(most).to_string())
            }
        }
        Quantile => {
            numbers.sort_by(f64::total_cmp);
            let rank = (aggregate.q * (number - 1.0).max(0.0)).floor() as usize;
            float(numbers.get(rank).copied())
        }
    }
}

/// How far a value may be from the exact one, relatively.
fn tolerance(function: Function) -> f64 {
    match function {
        Stddev => 1e-12,
        Quantile => 0.010_001,
        _ => 0.0,
    }
}

fn near(found: f64, exact: f64, tolerance: f64) -> bool {
    (found - exact).abs() <= exact.abs() * tolerance
}

fn agree(aggregate: &Aggregate, found: &Value, exact: &Value) -> bool {
    let tolerance = tolerance(aggregate.function);
    if found == exact || tolerance == 0.0 {
        return found == exact;
    }
    match (found, exact) {
        (Value::Float64(found), Value::Float64(exact)) => near(*found, *exact, tolerance),
        (Value::String(found), Value::String(exact)) => {
            let read =
                |json: &str| -> BTreeMap<String, f64> { serde_json::from_str(json).unwrap() };
            let (found, exact) = (read(found), read(exact));
            let names = found.keys().eq(exact.keys());
            names
                && found
                    .values()
                    .zip(exact.values())
                    .all(|(f, e)| near(*f, *e, tolerance))
        }
        _ => false,
    }
}

fn check(
    windows: &Windows,
    state: &WindowState,
    known: &[Plain],
    at: i64,
) -> Result<(), TestCaseError> {
    let found = windows.values(state, at);
    for (aggregate, found) in windows.aggregates().iter().zip(&found) {
        let exact = expected(aggregate, known, at);
        prop_assert!(
            agree(aggregate, found, &exact),
            "{:?}\nfound {:?}\nexact {:?}\nat NOW + {}",
            aggregate,
            found,
            exact,
            at - NOW
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_value_at_every_time_is_that_of_the_list(
        events in streams(80),
        waits in prop::collection::vec(
            prop_oneof![Just(0), 0..SECOND, 0..HOUR, 0..3 * DAY], 1..4),
    ) {
        let windows = everything();
        let contributions = windows.read_events(events.iter().map(|(event, _)| event));
        let mut state = WindowState::default();
        let mut known = Vec::new();
        for (row, (event, now)) in events.iter().enumerate() {
            windows.apply(&mut state, &contributions, row, *now).unwrap();
            known.push(plain(event));
            if row % 8 == 0 {
                check(windows, &state, &known, *now)?;
            }
        }
        let mut at = events.last().map_or(NOW, |(_, now)| *now);
        for wait in waits {
            at += wait;
            check(windows, &state, &known, at)?;
        }
    }

    #[test]
    fn the_order_of_events_changes_no_bit(
        events in streams(80),
        seed: u64,
        late_by in prop_oneof![Just(0), 0..HOUR],
    ) {
        let windows = everything();
        // All known late, so that the order is all that differs.
        let now = events.last().map_or(NOW, |(_, now)| *now) + late_by;
        let mut forward = WindowState::default();
        let contributions = windows.read_events(events.iter().map(|(event, _)| event));
        for row in 0..events.len() {
            windows.apply(&mut forward, &contributions, row, now).unwrap();
        }
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by_key(|row| xxhash_rust::xxh3::xxh3_64_with_seed(&row.to_le_bytes(), seed));
        let mut shuffled = WindowState::default();
        for row in order {
            windows.apply(&mut shuffled, &contributions, row, now).unwrap();
        }
        prop_assert_eq!(&forward, &shuffled);
        prop_assert_eq!(encoded(windows, &forward), encoded(windows, &shuffled));
        // Known one by one in time or all at the end comes to the same as well.
        let mut online = WindowState::default();
        for (row, (_, now)) in events.iter().enumerate() {
            windows.apply(&mut online, &contributions, row, *now).unwrap();
        }
        prop_assert_eq!(windows.values(&online, now), windows.values(&forward, now));
    }

    #[test]
    fn many_values_of_any_size_are_summed_in_any_order(
        values in prop::collection::vec(-1e9..1e9f64, 2..200),
    ) {
        let windows = Windows::compile(
            [Sum, Avg, Stddev, Min, Max].map(|function| aggregate(function, "1h")).to_vec(),
        )
        .unwrap();
        let events: Vec<(Event, i64)> = values
            .iter()
            .enumerate()
            .map(|(id, x)| (event(&id.to_string(), NOW - id as i64, &format!(r#"{{"x": {x}}}"#)), NOW))
            .collect();
        let mut forward = WindowState::default();
        apply(&windows, &mut forward, &events);
        let reversed: Vec<(Event, i64)> = events.into_iter().rev().collect();
        let mut backward = WindowState::default();
        apply(&windows, &mut backward, &reversed);
        prop_assert_eq!(windows.values(&forward, NOW), windows.values(&backward, NOW));
    }

    #[test]
    fn the_memory_of_an_entity_is_bounded(events in streams(300)) {
        let windows = everything();
        let mut state = WindowState::default();
        apply(windows, &mut state, &events);
        prop_assert!(state.heap_bytes() < 200_000, "{}", state.heap_bytes());
        let at = state.clock_us + 10 * DAY;
        let last = windows.read_events([&event("z", at, "{}")].into_iter());
        windows.apply(&mut state, &last, 0, at).unwrap();
        prop_assert!(state.heap_bytes() < 5_000, "{}", state.heap_bytes());
    }
}
