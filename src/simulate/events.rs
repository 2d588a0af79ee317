//! Made-up events of the last 30 days: data used, payments, support tickets.
//!
//! Every customer uses data now and then and pays once. Some payments fail; a few customers in a
//! hundred have trouble, and open tickets.

use serde_json::{Map, Value as Json, json};

use super::{cents, customer_key, percent};
use crate::clock;
use crate::features::change::{Change, Event, KeyColumn, What};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// The entity that the events are of.
const KEY_COLUMN: &str = "customer_id";

/// One made-up event.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedEvent {
    pub event_id: String,
    /// `usage`, `payment` or `ticket`.
    pub event: &'static str,
    pub customer_id: String,
    /// Microseconds since the Unix epoch.
    pub occurred_at_us: i64,
    pub properties: Map<String, Json>,
}

impl SimulatedEvent {
    /// As `POST /v1/events` takes it.
    pub fn to_json(&self) -> Json {
        json!({
            "event_id": self.event_id,
            "event": self.event,
            KEY_COLUMN: self.customer_id,
            "occurred_at": clock::to_rfc3339(self.occurred_at_us),
            "properties": self.properties,
        })
    }

    /// As the log takes it.
    pub fn to_change(&self) -> Change {
        Change {
            known_at_us: None,
            what: Some(What::Event(Event {
                event_id: self.event_id.clone(),
                event: self.event.to_owned(),
                keys: vec![KeyColumn {
                    column: KEY_COLUMN.to_owned(),
                    value: self.customer_id.clone(),
                }],
                occurred_at_us: self.occurred_at_us,
                properties: Json::Object(self.properties.clone()).to_string(),
            })),
        }
    }
}

/// The events of the customers 1 to `customers` in the 30 days before `now_us`, customer by customer.
pub fn events(customers: u64, seed: u64, now_us: i64) -> impl Iterator<Item = SimulatedEvent> {
    (1..=customers).flat_map(move |number| of_customer(number, seed, now_us))
}

/// A customer's events depend on the seed and the customer alone.
fn of_customer(number: u64, seed: u64, now_us: i64) -> Vec<SimulatedEvent> {
    let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut events = Vec::new();
    let mut add = |event: &'static str, ago_us: i64, properties: Json| {
        let count = events.len() + 1;
        events.push(SimulatedEvent {
            event_id: format!("sim-{seed}-{number}-{count}"),
            event,
            customer_id: customer_key(number),
            occurred_at_us: now_us - ago_us,
            properties: match properties {
                Json::Object(properties) => properties,
                _ => Map::new(),
            },
        });
    };
    for _ in 0..random.u32(1..3) {
        let ago = random.i64(HOUR_US..6 * DAY_US);
        let gigabytes = cents(random.f64() * random.f64() * 40.0);
        add("usage", ago, json!({ "gigabytes": gigabytes }));
    }
    let has_trouble = percent(&mut random, 12);
    let failed = percent(&mut random, if has_trouble { 40 } else { 3 });
    let status = if failed { "failed" } else { "settled" };
    let ago = random.i64(DAY_US..29 * DAY_US);
    add("payment", ago, json!({ "status": status }));
    let tickets = if has_trouble { random.u32(1..5) } else { 0 };
    for _ in 0..tickets {
        let topic = ["outage", "billing", "speed"][random.usize(0..3)];
        let ago = random.i64(HOUR_US / 2..28 * DAY_US);
        add("ticket", ago, json!({ "topic": topic }));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events_whoever_else_there_is() {
        let now_us = 1_750_000_000_000_000;
        let few: Vec<_> = events(10, 7, now_us).collect();
        let many: Vec<_> = events(100, 7, now_us).collect();
        assert_eq!(few, many[..few.len()]);
        assert_ne!(few, events(10, 8, now_us).collect::<Vec<_>>());
        assert!(few.iter().all(|event| event.occurred_at_us < now_us));
        let ids: std::collections::HashSet<_> = many.iter().map(|e| &e.event_id).collect();
        assert_eq!(ids.len(), many.len());
    }
}
