//! Aggregates that are declared when an entity has events already, and their backfill.

use super::oracle::{everything, streams};
use super::*;
use Function::*;
use proptest::prelude::*;

/// A state of `windows` to which `events` were applied.
fn folded(windows: &Windows, mut state: WindowState, events: &[(Event, i64)]) -> WindowState {
    let contributions = windows.read_events(events.iter().map(|(event, _)| event));
    for (row, (_, now_us)) in events.iter().enumerate() {
        let _ = windows.apply(&mut state, &contributions, row, *now_us);
    }
    state
}

#[test]
fn a_new_track_is_late_until_it_is_filled() {
    let old = Windows::compile(vec![aggregate(Count, "1d")]).unwrap();
    let new = Windows::compile(vec![aggregate(Count, "1d"), aggregate(Sum, "1d")]).unwrap();
    let before = [(event("a", NOW, r#"{"x": 1}"#), NOW)];
    let after = [(event("b", NOW, r#"{"x": 2}"#), NOW + SECOND)];
    let state = folded(&old, WindowState::default(), &before);
    let state = new.decode_after(&encoded(&old, &state), 41).unwrap();
    let mut state = folded(&new, state, &after);
    let at = NOW + 2 * SECOND;
    assert_eq!(
        new.values(&state, at),
        [Value::Int64(2), Value::Float64(2.0)]
    );
    // The mark outlives bytes.
    state = new.decode_after(&encoded(&new, &state), 42).unwrap();
    assert_eq!(new.late(&state), [(new.track_ids()[1], 41)]);

    let only = new.only(&[new.track_ids()[1]]).unwrap();
    let history = folded(&only, WindowState::default(), &before);
    let history = new.decode(&encoded(&only, &history)).unwrap();
    for _ in 0..2 {
        new.fill(&mut state, &history, 41);
        assert_eq!(
            new.values(&state, at),
            [Value::Int64(2), Value::Float64(3.0)]
        );
        assert!(new.late(&state).is_empty());
    }
}

#[test]
fn tracks_that_began_at_different_changes_are_filled_one_by_one() {
    let first = Windows::compile(vec![aggregate(Count, "1d")]).unwrap();
    let second = Windows::compile(vec![aggregate(Count, "1d"), aggregate(Sum, "1d")]).unwrap();
    let third = Windows::compile(
        [Count, Sum, Max]
            .map(|function| aggregate(function, "1d"))
            .to_vec(),
    )
    .unwrap();
    let events: Vec<(Event, i64)> = (1..4)
        .map(|n: i64| (event(&n.to_string(), NOW, &format!(r#"{{"x": {n}}}"#)), NOW))
        .collect();
    let state = folded(&first, WindowState::default(), &events[..1]);
    let state = second.decode_after(&encoded(&first, &state), 1).unwrap();
    let state = folded(&second, state, &events[1..2]);
    let state = third.decode_after(&encoded(&second, &state), 2).unwrap();
    let mut state = folded(&third, state, &events[2..]);
    let late = third.late(&state);
    assert_eq!(late, [(third.track_ids()[1], 1), (third.track_ids()[2], 2)]);
    for ((id, after), sum) in [(late[1], 5.0), (late[0], 6.0)] {
        let only = third.only(&[id]).unwrap();
        let history = folded(&only, WindowState::default(), &events[..after as usize]);
        let history = third.decode(&encoded(&only, &history)).unwrap();
        third.fill(&mut state, &history, after);
        let found = [Value::Int64(3), Value::Float64(sum), Value::Float64(3.0)];
        assert_eq!(third.values(&state, NOW), found);
    }
    assert!(third.late(&state).is_empty());
}

#[test]
fn a_longer_window_on_the_same_track_lacks_only_what_is_older() {
    let old = Windows::compile(vec![aggregate(Count, "28d")]).unwrap();
    let new = Windows::compile(vec![aggregate(Count, "28d"), aggregate(Count, "30d")]).unwrap();
    assert_eq!(old.track_ids(), new.track_ids());
    let before = [
        (event("a", NOW - 29 * DAY - 1, "{}"), NOW - 29 * DAY),
        (event("b", NOW - 10 * DAY, "{}"), NOW),
    ];
    let state = folded(&old, WindowState::default(), &before);
    let mut state = new.decode_after(&encoded(&old, &state), 2).unwrap();
    assert_eq!(new.values(&state, NOW), [Value::Int64(1), Value::Int64(1)]);
    assert_eq!(new.late(&state), [(new.track_ids()[0], 2)]);
    let history = folded(&new, WindowState::default(), &before);
    new.fill(&mut state, &history, 2);
    assert_eq!(new.values(&state, NOW), [Value::Int64(1), Value::Int64(2)]);
}

#[test]
fn a_new_entity_is_not_late() {
    let windows = everything();
    let mut state = windows.decode_after(&[], 5).unwrap();
    assert!(windows.late(&state).is_empty());
    let before = state.clone();
    let other = folded(
        windows,
        WindowState::default(),
        &[(event("a", NOW, "{}"), NOW)],
    );
    windows.fill(&mut state, &other, 5);
    assert_eq!(state, before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Exact sums and few values: then not even the bits depend on when a track began.
    #[test]
    fn a_filled_state_is_that_of_a_server_that_had_the_feature_from_the_start(
        events in streams(120),
        split in any::<prop::sample::Index>(),
        fill_at in any::<prop::sample::Index>(),
        kept in prop::collection::vec(any::<bool>(), 64),
    ) {
        let new = everything();
        let mut keep = kept.iter().cycle();
        let mut aggregates: Vec<Aggregate> = new.aggregates().to_vec();
        aggregates.retain(|_| *keep.next().unwrap());
        let old = Windows::compile(aggregates).unwrap();
        let split = split.index(events.len() + 1);
        let (before, after) = events.split_at(split);
        let (between, rest) = after.split_at(fill_at.index(after.len() + 1));

        let state = folded(&old, WindowState::default(), before);
        let state = new.decode_after(&encoded(&old, &state), split as u64).unwrap();
        let mut state = folded(new, state, between);
        let history = folded(new, WindowState::default(), before);
        new.fill(&mut state, &history, split as u64);
        let state = folded(new, state, rest);

        let always = folded(new, WindowState::default(), &events);
        prop_assert_eq!(state.pending(), always.pending());
        let at = always.clock_us.max(NOW);
        for later in [0, SECOND, HOUR, 3 * DAY] {
            prop_assert_eq!(new.values(&state, at + later), new.values(&always, at + later));
        }
    }
}
