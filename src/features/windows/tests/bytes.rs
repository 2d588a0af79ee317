//! States as bytes.

use super::oracle::{everything, streams};
use super::*;
use proptest::prelude::*;

fn state_of(windows: &Windows, events: &[(Event, i64)]) -> WindowState {
    let mut state = WindowState::default();
    let contributions = windows.read_events(events.iter().map(|(event, _)| event));
    for (row, (_, now_us)) in events.iter().enumerate() {
        let _ = windows.apply(&mut state, &contributions, row, *now_us);
    }
    state
}

#[test]
fn no_bytes_are_a_new_entity() {
    let windows = everything();
    assert_eq!(windows.decode(&[]), Ok(WindowState::default()));
    let bytes = encoded(windows, &WindowState::default());
    assert_eq!(windows.decode(&bytes), Ok(WindowState::default()));
}

#[test]
fn a_later_format_is_refused() {
    let error = everything().decode(&[9, 0, 0]).unwrap_err();
    assert!(error.contains("version 9, expected 1"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_state_survives_the_round_trip(events in streams(120)) {
        let windows = everything();
        let state = state_of(windows, &events);
        let bytes = encoded(windows, &state);
        let read = windows.decode(&bytes).unwrap();
        prop_assert_eq!(&read, &state);
        prop_assert_eq!(encoded(windows, &read), bytes);
        prop_assert!(windows.late(&read).is_empty());
    }

    #[test]
    fn under_another_plan_what_is_still_declared_is_kept(
        events in streams(120),
        kept in prop::collection::vec(any::<bool>(), 64),
        turn in 0..64usize,
    ) {
        let old = everything();
        let mut aggregates: Vec<Aggregate> = old.aggregates().to_vec();
        let places = aggregates.len();
        aggregates.rotate_left(turn % places);
        let mut keep = kept.iter().cycle();
        aggregates.retain(|_| *keep.next().unwrap());
        let new = Windows::compile(aggregates).unwrap();
        let state = state_of(old, &events);
        let read = new.decode(&encoded(old, &state)).unwrap();
        prop_assert!(new.late(&read).is_empty());
        let at = state.clock_us.max(NOW) + SECOND;
        let all = old.values(&state, at);
        for (index, value) in new.values(&read, at).iter().enumerate() {
            let place = old.aggregates().iter().position(|a| *a == new.aggregates()[index]);
            prop_assert_eq!(value, &all[place.unwrap()]);
        }
        // Back again, what was left out is late, and what was kept for a shorter time.
        let back = old.decode_after(&encoded(&new, &read), 7).unwrap();
        let late = old.late(&back);
        for id in old.track_ids() {
            let kept = new.track_ids().contains(id);
            prop_assert!(kept || late.contains(&(*id, 7)));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let windows = everything();
        let _ = windows.decode(&bytes);
        let mut led = vec![1, 5, 2];
        led.extend_from_slice(&bytes);
        let _ = windows.decode(&led);
    }

    #[test]
    fn damaged_bytes_are_survived(
        events in streams(60),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        do_cut: bool,
    ) {
        let windows = everything();
        let mut bytes = encoded(windows, &state_of(windows, &events));
        for (position, byte) in changes {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        if do_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(mut state) = windows.decode(&bytes) {
            prop_assert!(state.heap_bytes() < 100 * bytes.len() + 100_000);
            windows.values(&state, NOW + HOUR);
            apply(windows, &mut state, &[(event("z", NOW, r#"{"x": 1, "s": "t"}"#), NOW + DAY)]);
            windows.values(&state, NOW + DAY);
            let again = encoded(windows, &state);
            prop_assert!(windows.decode(&again).is_ok());
        }
    }
}
