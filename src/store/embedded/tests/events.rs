//! Events that are sent again: known for 24 hours, and not when they were refused.

use super::*;
use crate::features::windows::MAX_PENDING;

#[test]
fn an_event_sent_again_within_24_hours_is_recognised_also_after_a_restart() {
    let views = views(CUSTOMER);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let store = open(dir.path(), 1 << 20);
    let first = log.push(vec![ticket("C-1", "E-1", START_US)]);
    assert_eq!(log.apply(first, &store, &views), [Applied::Done]);
    drop(store);

    let store = open(dir.path(), 1 << 20);
    log.known_at_us += 24 * HOUR_US - 1;
    let again = log.push(vec![
        ticket("C-1", "E-1", START_US),
        ticket("C-2", "E-1", START_US),
    ]);
    assert_eq!(
        log.apply(again, &store, &views),
        [Applied::Duplicate, Applied::Done],
        "an id is one customer's"
    );
    log.known_at_us += 1;
    let later = log.push(vec![ticket("C-1", "E-1", START_US)]);
    assert_eq!(log.apply(later, &store, &views), [Applied::Done]);
    assert_eq!(
        log.apply(later, &store, &views),
        [Applied::Done],
        "an event is no duplicate of itself"
    );
    let view = view(&views);
    let snapshot = read(&store, &view, "C-1", log.known_at_us).unwrap();
    assert_eq!(snapshot.windows, [Value::Int64(2)]);
}

#[test]
fn an_event_that_was_refused_counts_when_it_is_sent_again() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let store = open(dir.path(), 1 << 20);
    // As many events in the future as are kept, and one more.
    let id = |number: usize| format!("E-{number}");
    let future = (0..=MAX_PENDING).map(|number| ticket("C-1", &id(number), START_US + HOUR_US));
    let batch = log.push(future.collect());
    let applied = log.apply(batch, &store, &views);
    assert_eq!(applied[..MAX_PENDING], vec![Applied::Done; MAX_PENDING]);
    assert!(
        matches!(&applied[MAX_PENDING], Applied::Refused(why) if why.contains("in the future"))
    );

    log.known_at_us += 2 * HOUR_US;
    let late = ticket("C-1", &id(MAX_PENDING), START_US + HOUR_US);
    let batch = log.push(vec![late.clone(), late]);
    let applied = log.apply(batch, &store, &views);
    assert_eq!(applied, [Applied::Done, Applied::Duplicate]);
    let found = read(&store, &view, "C-1", log.known_at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(MAX_PENDING as i64 + 1)]);
}
