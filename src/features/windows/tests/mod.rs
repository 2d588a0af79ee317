//! What windows promise.

mod blocks;
mod bytes;
mod declared;
mod functions;
mod late;
mod oracle;
mod time;

use super::*;

pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3_600 * SECOND;
pub const DAY: i64 = 24 * HOUR;

/// A time that is on no tile's edge.
pub const NOW: i64 = 20_000 * DAY + 1_234_567_891;

/// An aggregate over the event `e` with the type its function has.
pub fn aggregate(function: Function, window: &str) -> Aggregate {
    let kind = match function {
        Function::Count | Function::CountDistinct => FeatureType::Int64,
        Function::TopK | Function::First | Function::Last => FeatureType::String,
        _ => FeatureType::Float64,
    };
    let value = match function {
        Function::CountDistinct | Function::TopK | Function::First | Function::Last => "s",
        _ => "x",
    };
    Aggregate {
        event: "e".to_owned(),
        function,
        window: humantime::parse_duration(window).unwrap(),
        value: function.takes_value().then(|| value.to_owned()),
        filter: None,
        group_by: None,
        group: None,
        k: 3,
        q: 0.5,
        kind,
    }
}

pub fn window_us(aggregate: &Aggregate) -> i64 {
    aggregate.window.as_micros() as i64
}

pub fn event(id: &str, occurred_at_us: i64, properties: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event: "e".to_owned(),
        keys: Vec::new(),
        occurred_at_us,
        properties: properties.to_owned(),
    }
}

/// Applies events as of the time behind each.
pub fn apply(windows: &Windows, state: &mut WindowState, events: &[(Event, i64)]) {
    let contributions = windows.read_events(events.iter().map(|(event, _)| event));
    for (row, (_, now_us)) in events.iter().enumerate() {
        windows.apply(state, &contributions, row, *now_us).unwrap();
    }
}

/// The values at `NOW` of aggregates over events so long ago, all known at once.
pub fn values(aggregates: Vec<Aggregate>, ago_and_properties: &[(i64, &str)]) -> Vec<Value> {
    let windows = Windows::compile(aggregates).unwrap();
    let mut state = WindowState::default();
    let events: Vec<(Event, i64)> = ago_and_properties
        .iter()
        .enumerate()
        .map(|(id, (ago, properties))| (event(&id.to_string(), NOW - ago, properties), NOW))
        .collect();
    apply(&windows, &mut state, &events);
    windows.values(&state, NOW)
}

pub fn encoded(windows: &Windows, state: &WindowState) -> Vec<u8> {
    let mut bytes = Vec::new();
    windows.encode(state, &mut bytes);
    bytes
}

pub fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}
