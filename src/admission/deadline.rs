//! Until when a caller waits, as each protocol says it.
//!
//! | where | form | absent |
//! |---|---|---|
//! | header `Bellwether-Timeout-Ms` | milliseconds, an integer | no header |
//! | request parameter `timeout` (Triton) | microseconds, an unsigned integer | no parameter, or 0 |
//! | gRPC header `grpc-timeout` | up to 8 digits and one of `H M S m u n` | no header |
//!
//! The smallest of what the caller says and the server's own `request_deadline` counts, from the
//! moment the request arrived. So a caller can ask for less than the server allows, never for more.
//! A time of 0 in a header has passed already.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::features::value::{describe_json, shorten};

/// Our own header, in the spelling that `http::HeaderName` wants.
pub const TIMEOUT_HEADER: &str = "bellwether-timeout-ms";
/// The header that says which [`super::Priority`] a request has.
pub const PRIORITY_HEADER: &str = "bellwether-priority";
/// gRPC's header.
pub const GRPC_TIMEOUT_HEADER: &str = "grpc-timeout";

/// Longer than anyone waits; keeps sums of times far from overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment at which a request that arrived at `arrived` need not be executed any more.
pub fn deadline_of(
    arrived: Instant,
    request_deadline: Duration,
    asked: impl IntoIterator<Item = Option<Duration>>,
) -> Instant {
    let allowed = asked
        .into_iter()
        .flatten()
        .fold(request_deadline, Duration::min);
    arrived + allowed.min(LONGEST)
}

/// Whether it is too late.
pub fn has_passed(deadline: Option<Instant>) -> bool {
    // Without a deadline the clock is not even read.
    deadline.is_some_and(|at| at <= now())
}

pub(super) fn has_passed_at(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|at| at <= now)
}

/// The clock that deadlines are read from: the runtime's.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Reads `Bellwether-Timeout-Ms`.
///
/// # Errors
/// What was found and what was expected.
pub fn from_header(value: &[u8]) -> Result<Duration, String> {
    let refused = || {
        format!(
            "header Bellwether-Timeout-Ms: expected whole milliseconds, such as 250, found {:?}",
            shorten(&String::from_utf8_lossy(value), 40)
        )
    };
    let milliseconds = digits(value).ok_or_else(refused)?;
    Ok(Duration::from_millis(milliseconds).min(LONGEST))
}

/// Reads Triton's request parameter `timeout` from JSON.
///
/// # Errors
/// What was found and what was expected.
pub fn from_triton_json(value: &Value) -> Result<Option<Duration>, String> {
    match value.as_u64() {
        Some(microseconds) => Ok(from_triton(microseconds)),
        None => Err(format!(
            "parameters.timeout: expected whole microseconds, such as 250000, found {}",
            describe_json(value)
        )),
    }
}

/// Triton's request parameter `timeout`; its 0 is no timeout.
pub fn from_triton(microseconds: u64) -> Option<Duration> {
    (microseconds > 0).then(|| Duration::from_micros(microseconds).min(LONGEST))
}

/// Reads gRPC's `grpc-timeout`.
///
/// # Errors
/// What was found and what was expected.
pub fn from_grpc(value: &[u8]) -> Result<Duration, String> {
    let refused = || {
        format!(
            "header grpc-timeout: expected up to 8 digits and one of H M S m u n, such as 250m, found {:?}",
            shorten(&String::from_utf8_lossy(value), 40)
        )
    };
    let (unit, number) = value.split_last().ok_or_else(refused)?;
    if number.len() > 8 {
        return Err(refused());
    }
    let count = digits(number).ok_or_else(refused)?;
    let time = match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return Err(refused()),
    };
    Ok(time.min(LONGEST))
}

/// An unsigned integer of digits only: no sign, no space, no exponent.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn our_header_is_whole_milliseconds() {
        assert_eq!(from_header(b"250"), Ok(250 * MS));
        assert_eq!(from_header(b"0"), Ok(Duration::ZERO));
        assert_eq!(from_header(b"18446744073709551615"), Ok(LONGEST));
        for wrong in [
            "",
            "-1",
            "+1",
            "1.5",
            "1e3",
            " 5",
            "5 ",
            "5ms",
            "18446744073709551616",
            "٣",
        ] {
            let error = from_header(wrong.as_bytes()).unwrap_err();
            assert!(
                error.contains("Bellwether-Timeout-Ms") && error.contains("found"),
                "{error}"
            );
        }
        assert!(from_header(b"\xff\xfe").is_err());
        let long = from_header(&[b'x'; 10_000]).unwrap_err();
        assert!(long.len() < 300, "an error does not repeat a long header");
    }

    #[test]
    fn tritons_parameter_is_microseconds_and_zero_is_none() {
        assert_eq!(
            from_triton_json(&json!(1500)),
            Ok(Some(Duration::from_micros(1500)))
        );
        assert_eq!(from_triton_json(&json!(0)), Ok(None));
        assert_eq!(from_triton(u64::MAX), Some(LONGEST));
        for wrong in [
            json!(-1),
            json!(1.5),
            json!("1500"),
            json!(null),
            json!([1]),
            json!(true),
        ] {
            let error = from_triton_json(&wrong).unwrap_err();
            assert!(error.starts_with("parameters.timeout: expected"), "{error}");
        }
    }

    #[test]
    fn grpcs_header_has_six_units() {
        for (text, expected) in [
            ("1H", 3_600_000 * MS),
            ("2M", 120_000 * MS),
            ("1S", 1000 * MS),
            ("100m", 100 * MS),
            ("250u", Duration::from_micros(250)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0m", Duration::ZERO),
            ("99999999H", LONGEST),
        ] {
            assert_eq!(from_grpc(text.as_bytes()), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "m",
            "5",
            "5s",
            "5h",
            "123456789m",
            "-5m",
            "1.5S",
            "5 m",
            "5µ",
        ] {
            let error = from_grpc(wrong.as_bytes()).unwrap_err();
            assert!(
                error.starts_with("header grpc-timeout: expected"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_smallest_counts() {
        let arrived = Instant::now();
        let of = |asked: &[Option<Duration>]| {
            deadline_of(arrived, 10_000 * MS, asked.iter().copied()) - arrived
        };
        assert_eq!(of(&[]), 10_000 * MS);
        assert_eq!(of(&[None, None]), 10_000 * MS);
        assert_eq!(of(&[Some(300 * MS), None, Some(200 * MS)]), 200 * MS);
        assert_eq!(
            of(&[Some(20_000 * MS)]),
            10_000 * MS,
            "the server's own is the most"
        );
        assert_eq!(deadline_of(arrived, Duration::MAX, []) - arrived, LONGEST);
    }

    #[test]
    fn a_deadline_has_passed_at_its_moment_and_none_never_does() {
        let now = Instant::now();
        assert!(has_passed_at(Some(now), now));
        assert!(!has_passed_at(Some(now + MS), now));
        assert!(!has_passed_at(None, now));
        assert!(has_passed(Some(now)));
    }
}
