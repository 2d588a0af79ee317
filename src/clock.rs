//! Wall-clock time as the server records it: microseconds since the Unix epoch, UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

/// Now, in microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

/// A time as RFC 3339 text in UTC with microseconds, `2026-01-31T12:00:00.000000Z`.
pub fn to_rfc3339(time_us: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_micros(time_us).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads RFC 3339 text with any offset.
///
/// # Errors
/// A phrase "expected …, found …" for the field's error message.
pub fn from_rfc3339(text: &str) -> Result<i64, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_micros())
        .map_err(|_| {
            let found = crate::features::value::shorten(text, 40);
            format!("expected a time like 2026-01-31T12:00:00Z, found {found:?}")
        })
}
