//! Wall-clock time as the server records it: microseconds since the Unix epoch, UTC; and the ids that
//! begin with it.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use fastrand::Rng;
use uuid::{Builder, Uuid};

/// Now, in microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

/// A new id (UUIDv7) of something that happens now.
pub fn new_id() -> Uuid {
    new_id_at(now_us())
}

/// A new id (UUIDv7) of something that happened at `time_us`.
///
/// `Uuid::now_v7` orders the ids of a process by a counter behind a lock, which all requests would
/// share. Nothing here needs that order, so each thread makes its ids by itself: the millisecond and
/// 74 random bits. That no two are equal rests on the random bits alone: each thread has two
/// generators, seeded from what the operating system gives as random, so two ids of the same
/// millisecond are equal with a probability of 2^-74, in one process or in two. At a million
/// predictions a second, for ten years, the chance that any two of them are equal is below one in a
/// hundred thousand. They are unique but no secrets: who has seen some may compute others.
pub fn new_id_at(time_us: i64) -> Uuid {
    thread_local! {
        // Two, because one has 64 bits of state only, fewer than an id shows.
        static GENERATORS: RefCell<(Rng, Rng)> = RefCell::new((seeded(), seeded()));
    }
    let (first, second) =
        GENERATORS.with_borrow_mut(|(first, second)| (first.u64(..), second.u64(..)));
    let mut random = [0; 10];
    random[..8].copy_from_slice(&first.to_be_bytes());
    random[8..].copy_from_slice(&second.to_be_bytes()[..2]);
    let milliseconds = u64::try_from(time_us / 1000).unwrap_or_default();
    Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid()
}

/// A generator seeded through the standard library's random hash keys: they come from the operating
/// system, for each thread anew.
fn seeded() -> Rng {
    Rng::with_seed(RandomState::new().hash_one(0_u64))
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_version_7_of_their_millisecond_and_unique_over_threads() {
        let time_us = 1_700_000_000_123_456;
        // Given eight threads that make ids of the same millisecond
        let mut threads = Vec::new();
        for _ in 0..8 {
            threads.push(std::thread::spawn(move || {
                (0..20_000)
                    .map(|_| new_id_at(time_us))
                    .collect::<Vec<Uuid>>()
            }));
        }
        let mut seen = HashSet::new();
        for thread in threads {
            for id in thread.join().unwrap() {
                // Then each is a UUIDv7 that says when, and no other is like it
                assert_eq!(
                    (id.get_version_num(), id.get_variant()),
                    (7, uuid::Variant::RFC4122)
                );
                let timestamp = id.get_timestamp().unwrap().to_unix();
                assert_eq!(timestamp, (1_700_000_000, 123_000_000));
                assert!(seen.insert(id), "{id} was made twice");
            }
        }
        // And every one of the 74 random bits varies
        let ones = seen.iter().fold(0, |bits, id| bits | id.as_u128());
        let always = seen.iter().fold(u128::MAX, |bits, id| bits & id.as_u128());
        assert_eq!((ones ^ always).count_ones(), 74);
    }
}
