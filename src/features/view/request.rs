//! What comes with a request: the time columns that the server fills in by itself.

use crate::features::value::{FeatureType, Value};

/// A column that every view can read without declaring it.
pub struct BuiltInColumn {
    pub name: &'static str,
    pub kind: FeatureType,
    pub description: &'static str,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub what: BuiltIn,
}

/// What a built-in column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    Time,
    Hour,
    Weekday,
}

/// The built-in columns, in the order of a view that reads them all.
pub const BUILT_IN: &[BuiltInColumn] = &[
    BuiltInColumn {
        name: "request_time",
        kind: FeatureType::Float64,
        description: "When the request came, seconds since 1970-01-01T00:00:00Z.",
        min: None,
        max: None,
        what: BuiltIn::Time,
    },
    BuiltInColumn {
        name: "request_hour",
        kind: FeatureType::Int64,
        description: "The hour of the request in UTC, 0 to 23.",
        min: Some(0.0),
        max: Some(23.0),
        what: BuiltIn::Hour,
    },
    BuiltInColumn {
        name: "request_weekday",
        kind: FeatureType::Int64,
        description: "The weekday of the request in UTC, 1 for Monday to 7 for Sunday.",
        min: Some(1.0),
        max: Some(7.0),
        what: BuiltIn::Weekday,
    },
];

const HOUR_US: i64 = 3_600 * 1_000_000;
const DAY_US: i64 = 24 * HOUR_US;

impl BuiltIn {
    /// The value at a time in microseconds since the Unix epoch.
    pub fn at(self, at_us: i64) -> Value {
        match self {
            BuiltIn::Time => Value::Float64(at_us as f64 / 1e6),
            BuiltIn::Hour => Value::Int64(at_us.div_euclid(HOUR_US).rem_euclid(24)),
            // 1970-01-01 was a Thursday, the day with number 4.
            BuiltIn::Weekday => Value::Int64((at_us.div_euclid(DAY_US) + 3).rem_euclid(7) + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hour_and_weekday_are_those_of_utc() {
        for (at_s, hour, weekday) in [
            (0, 0, 4),
            (-1, 23, 3),
            // Sunday 2026-11-22 12:34:56 and the Monday after it.
            (1_795_350_896, 12, 7),
            (1_795_350_896 + 43_200, 0, 1),
        ] {
            let at_us = at_s * 1_000_000;
            assert_eq!(BuiltIn::Hour.at(at_us), Value::Int64(hour), "{at_s}");
            assert_eq!(BuiltIn::Weekday.at(at_us), Value::Int64(weekday), "{at_s}");
            assert_eq!(BuiltIn::Time.at(at_us), Value::Float64(at_s as f64));
        }
    }
}
