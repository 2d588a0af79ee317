//! When an event counts: from its time on, for as long as a window reaches back.

use super::*;
use Function::*;

#[test]
fn the_future_waits_for_its_time() {
    let windows = Windows::compile(vec![aggregate(Count, "1h"), aggregate(Last, "1h")]).unwrap();
    let mut state = WindowState::default();
    apply(
        &windows,
        &mut state,
        &[
            (event("a", NOW + 10 * SECOND, r#"{"s": "later"}"#), NOW),
            (event("b", NOW, r#"{"s": "now"}"#), NOW),
        ],
    );
    assert_eq!(
        windows.values(&state, NOW + 9 * SECOND),
        [Value::Int64(1), text("now")]
    );
    assert_eq!(
        windows.values(&state, NOW + 10 * SECOND),
        [Value::Int64(2), text("later")]
    );
    apply(
        &windows,
        &mut state,
        &[(event("c", NOW + SECOND, "{}"), NOW + 11 * SECOND)],
    );
    assert_eq!(state.pending(), 0);
    assert_eq!(
        windows.values(&state, NOW + 11 * SECOND),
        [Value::Int64(3), text("later")]
    );
}

#[test]
fn only_so_many_events_wait() {
    let windows = Windows::compile(vec![aggregate(Count, "1h")]).unwrap();
    let mut state = WindowState::default();
    let later = |id: usize| (event(&id.to_string(), NOW + SECOND, "{}"), NOW);
    let events: Vec<(Event, i64)> = (0..MAX_PENDING).map(later).collect();
    apply(&windows, &mut state, &events);
    let more = windows.read_events([&later(1000).0].into_iter());
    let full = TooManyPending { limit: MAX_PENDING };
    let before = state.clone();
    assert_eq!(windows.apply(&mut state, &more, 0, NOW), Err(full));
    assert_eq!(state, before);
    assert_eq!(windows.apply(&mut state, &more, 0, NOW + SECOND), Ok(()));
    assert_eq!(
        windows.values(&state, NOW + SECOND),
        [Value::Int64(MAX_PENDING as i64 + 1)]
    );
}

#[test]
fn a_window_begins_on_a_multiple_of_its_hop_and_ends_now() {
    let windows = Windows::compile(vec![aggregate(Count, "1h"), aggregate(Last, "1h")]).unwrap();
    // The hop of an hour is 30 seconds.
    let edge = (NOW - HOUR).div_euclid(30 * SECOND) * 30 * SECOND;
    for (time, counts) in [
        (edge, false),
        (edge + 1, true),
        (NOW, true),
        (NOW + 1, false),
    ] {
        let mut state = WindowState::default();
        apply(
            &windows,
            &mut state,
            &[(event("a", time, r#"{"s": "x"}"#), NOW)],
        );
        let found = windows.values(&state, NOW);
        assert_eq!(found[0], Value::Int64(i64::from(counts)), "{}", time - edge);
        assert_eq!(!found[1].is_null(), counts, "{}", time - edge);
    }
}

#[test]
fn what_no_window_reaches_is_let_go() {
    let windows = Windows::compile(vec![aggregate(Sum, "1h"), aggregate(Last, "1h")]).unwrap();
    let mut state = WindowState::default();
    for minute in 0..10_000 {
        let time = NOW + minute * 60 * SECOND;
        let id = minute.to_string();
        apply(
            &windows,
            &mut state,
            &[(event(&id, time, r#"{"x": 1, "s": "t"}"#), time)],
        );
        assert!(state.heap_bytes() < 8_000, "{}", state.heap_bytes());
    }
    let end = NOW + 10_000 * 60 * SECOND + 2 * HOUR;
    apply(
        &windows,
        &mut state,
        &[(event("late", NOW, r#"{"x": 1, "s": "t"}"#), end)],
    );
    assert_eq!(
        windows.values(&state, end),
        [Value::Float64(0.0), Value::Null]
    );
    let mut untouched = WindowState::default();
    apply(&windows, &mut untouched, &[(event("late", NOW, "{}"), end)]);
    assert_eq!(state, untouched);
}

#[test]
fn any_time_is_survived() {
    let all = [Count, Sum, First, Last, TimeSinceLast];
    let windows =
        Windows::compile(all.map(|function| aggregate(function, "400days")).to_vec()).unwrap();
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    for time in ends {
        for now in ends {
            for at in ends {
                let mut state = WindowState::default();
                apply(
                    &windows,
                    &mut state,
                    &[(event("a", time, r#"{"x":1,"s":"t"}"#), now)],
                );
                let found = windows.values(&state, at);
                let seen = found[0] == Value::Int64(1);
                let read_at = at.max(now);
                if time <= read_at && read_at.saturating_sub(time) < 400 * DAY {
                    assert!(seen, "{time} {now} {at}");
                }
                let bytes = encoded(&windows, &state);
                assert_eq!(windows.decode(&bytes), Ok(state), "{time} {now} {at}");
            }
        }
    }
}
