//! RFC 3339 times, read quickly when they are written as nearly all are.

use crate::clock;

const DAY_S: i64 = 86_400;

/// Reads RFC 3339 text with any offset, as microseconds since the Unix epoch; what is finer than
/// that is cut off.
///
/// # Errors
/// A phrase "expected …, found …" for the field's error message.
pub fn read(text: &str) -> Result<i64, String> {
    match read_common(text.as_bytes()) {
        Some(time_us) => Ok(time_us),
        None => clock::from_rfc3339(text),
    }
}

/// `2026-01-31T12:00:00`, perhaps a fraction, and `Z` or an offset. `None` for everything else, which
/// may still be a time.
fn read_common(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let marks = [date[4], date[7], date[10], date[13], date[16]];
    if marks != *b"--T::" {
        return None;
    }
    let two = |at: usize| Some(digit(date[at])? * 10 + digit(date[at + 1])?);
    let year = two(0)? * 100 + two(2)?;
    let (month, day) = (two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is left to the slower reader.
    if year == 0 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = read_fraction(rest)?;
    let offset_s = match *zone {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let hours = digit(h1)? * 10 + digit(h2)?;
            let minutes = digit(m1)? * 10 + digit(m2)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset_s = hours * 3600 + minutes * 60;
            if sign == b'-' { -offset_s } else { offset_s }
        }
        _ => return None,
    };
    let of_day = hour * 3600 + minute * 60 + second;
    Some((days_since_epoch(year, month, day) * DAY_S + of_day - offset_s) * 1_000_000 + micros)
}

/// The microseconds of a fraction of one to nine digits, none when there is none, and what follows.
fn read_fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', fraction)) = rest.split_first() else {
        return Some((0, rest));
    };
    let places = fraction
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if places == 0 || places > 9 {
        return None;
    }
    let (digits, zone) = fraction.split_at(places);
    let micros = (0..6).fold(0, |micros, place| {
        micros * 10 + digits.get(place).and_then(|byte| digit(*byte)).unwrap_or(0)
    });
    Some((micros, zone))
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years are counted from March, so that the
/// leap day is the last; before a month of such a year lie 153 days for every five months.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let before_month = (153 * month + 2) / 5;
    // 719,468 days lie between the first of March of the year 0 and 1970-01-01.
    year * 365 + leap_days + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_time_is_refused_with_what_was_found() {
        for text in [
            "",
            "yesterday",
            "2026-02-29T00:00:00Z",
            "2026-01-31T12:00:00",
            "2026-01-31",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("expected a time like"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn times_are_read_as_the_calendar_has_them(
            text in r"[0-2][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,10})?(Z|[+-][0-2][0-9]:[0-6][0-9])"
        ) {
            prop_assert_eq!(read(&text), clock::from_rfc3339(&text), "{}", text);
        }

        #[test]
        fn every_time_survives_the_round_trip(time_us in 0..7_258_118_400_000_000_i64) {
            let text = clock::to_rfc3339(time_us);
            prop_assert_eq!(read_common(text.as_bytes()), Some(time_us), "{}", text);
        }
    }
}
