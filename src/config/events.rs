//! Section `[events]`: how events are taken.

use std::time::Duration;

use serde::Deserialize;

/// How events are taken, `[events]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// The most events, or rows of features, in one request; over it the answer is 413.
    pub max_batch_events: usize,
    /// The largest body of such a request, in bytes; over it the answer is 413.
    pub max_body_bytes: usize,
    /// What becomes of an event that lies in the future by more than `max_clock_skew`.
    pub future: FutureEvents,
    /// How far ahead an event may lie because the clocks of sender and server differ. It counts from
    /// its time on.
    #[serde(with = "humantime_serde")]
    pub max_clock_skew: Duration,
    /// How far ahead an event may lie that is parked.
    #[serde(with = "humantime_serde")]
    pub max_ahead: Duration,
    /// The key column that the `subject` of a CloudEvent is, when its data does not have that column;
    /// empty when it is none.
    pub cloudevents_subject: String,
}

/// What becomes of an event that lies in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FutureEvents {
    /// It is refused.
    Refuse,
    /// It is kept and counts from its time on.
    Park,
}

impl Default for EventsConfig {
    fn default() -> Self {
        EventsConfig {
            max_batch_events: 10_000,
            max_body_bytes: 16 * 1024 * 1024,
            future: FutureEvents::Refuse,
            max_clock_skew: Duration::from_secs(5),
            max_ahead: Duration::from_secs(24 * 3600),
            cloudevents_subject: "customer_id".to_owned(),
        }
    }
}
