//! What is kept of several tiles together says what the tiles say: to the last bit, whatever order
//! events come in, and whether or not a state was written and read in between.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use Function::*;

/// Every function with tiles over windows of some 100 tiles, and one of more.
static TILED: LazyLock<Windows> = LazyLock::new(|| {
    let mut all = Vec::new();
    for function in [
        Count,
        Sum,
        Avg,
        Min,
        Max,
        Stddev,
        CountDistinct,
        First,
        TopK,
        Quantile,
    ] {
        for window in ["100s", "1h", "90m", "5days"] {
            all.push(aggregate(function, window));
        }
        all.push(Aggregate {
            group_by: Some("g".to_owned()),
            ..aggregate(function, "1h")
        });
    }
    Windows::compile(all).unwrap()
});

/// A burst of events: how long after the one before, how late, how many, and what they say.
type Burst = (i64, i64, usize, u64);

fn bursts(most: usize) -> impl Strategy<Value = Vec<Burst>> {
    let pause = prop_oneof![
        6 => 0..3 * SECOND,
        6 => 0..2 * 60 * SECOND,
        3 => 0..2 * HOUR,
        1 => 0..DAY,
    ];
    let late = prop_oneof![
        6 => Just(0),
        2 => 0..100 * SECOND,
        2 => 0..HOUR,
        1 => 0..5 * DAY,
    ];
    let number = prop_oneof![30 => Just(1usize), 10 => 2..5usize, 1 => 100..400usize];
    prop::collection::vec((pause, late, number, any::<u64>()), 1..most)
}

/// Numbers whose sums need rounding. Some are so large that of others beside them little is left, and
/// cancel each other, which brings to light what was rounded away, and so the order of additions.
fn number(random: u64) -> f64 {
    let part = (random >> 11) as f64 / (1u64 << 53) as f64;
    match random % 32 {
        0 => f64::MAX * (part - 0.5),
        1..7 => 2f64.powi(110),
        7..13 => -2f64.powi(110),
        size => (part - 0.3) * 10f64.powi(size as i32 - 20),
    }
}

fn events(bursts: &[Burst]) -> Vec<(Event, i64)> {
    let mut now = NOW;
    let mut events = Vec::new();
    for (pause, late, size, seed) in bursts {
        now += pause;
        for index in 0..*size {
            let id = format!("{} {index}", events.len());
            let random = xxhash_rust::xxh3::xxh3_64_with_seed(id.as_bytes(), *seed);
            let (x, s, g) = (number(random), random % 997, random % 5);
            let properties = format!(r#"{{"x": {x:e}, "s": "t{s}", "g": "g{g}"}}"#);
            events.push((event(&id, now - late, &properties), now));
        }
    }
    events
}

/// Reads a state as it is, as it is read from bytes, tile by tile, and with blocks built from these.
fn check(windows: &Windows, state: &WindowState, at: i64) -> Result<(), TestCaseError> {
    for track in &state.tracks {
        prop_assert!(track.blocks_are_right());
    }
    let bytes = encoded(windows, state);
    let mut read = windows.decode(&bytes).unwrap();
    let tile_by_tile = windows.values(&read, at);
    prop_assert_eq!(&windows.values(state, at), &tile_by_tile);
    let small = read.heap_bytes();
    read.condense();
    prop_assert!(
        read.heap_bytes() <= 2 * small + 10_000,
        "{}",
        read.heap_bytes()
    );
    prop_assert_eq!(&windows.values(&read, at), &tile_by_tile);
    prop_assert_eq!(&read, state);
    prop_assert_eq!(encoded(windows, &read), bytes);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_value_is_the_same_through_blocks_and_tile_by_tile(
        bursts in bursts(240),
        from_bytes_at in any::<prop::sample::Index>(),
        condense: bool,
    ) {
        let windows = &*TILED;
        let events = events(&bursts);
        let contributions = windows.read_events(events.iter().map(|(event, _)| event));
        let mut state = WindowState::default();
        let from_bytes_at = from_bytes_at.index(events.len());
        for (row, (_, now)) in events.iter().enumerate() {
            if row == from_bytes_at {
                state = windows.decode(&encoded(windows, &state)).unwrap();
                if condense {
                    state.condense();
                }
            }
            windows.apply(&mut state, &contributions, row, *now).unwrap();
            if row % 128 == 0 {
                check(windows, &state, *now)?;
            }
        }
        let last = state.clock_us;
        for later in [0, 17 * SECOND, 1_000 * SECOND, 40 * HOUR, 6 * DAY] {
            check(windows, &state, last + later)?;
        }
        // Time alone goes on, and tiles are let go.
        for later in [60 * SECOND, HOUR, 2 * DAY] {
            let nothing = windows.read_events([&event("z", NOW, "{}")].into_iter());
            windows.apply(&mut state, &nothing, 0, last + later).unwrap();
            check(windows, &state, last + later)?;
        }
    }

    #[test]
    fn events_in_any_order_have_their_blocks(bursts in bursts(160), seed: u64) {
        let windows = &*TILED;
        let events = events(&bursts);
        let now = events.last().map_or(NOW, |(_, now)| *now);
        let contributions = windows.read_events(events.iter().map(|(event, _)| event));
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by_key(|row| xxhash_rust::xxh3::xxh3_64_with_seed(&row.to_le_bytes(), seed));
        let mut state = WindowState::default();
        for (done, row) in order.into_iter().enumerate() {
            windows.apply(&mut state, &contributions, row, now).unwrap();
            if done % 128 == 0 {
                check(windows, &state, now)?;
            }
        }
        check(windows, &state, now + SECOND)?;
    }

    #[test]
    fn what_was_filled_in_is_in_the_blocks(
        bursts in bursts(160),
        split in any::<prop::sample::Index>(),
    ) {
        let windows = &*TILED;
        let events = events(&bursts);
        let (before, after) = events.split_at(split.index(events.len() + 1));
        let nothing = Windows::compile(Vec::new()).unwrap();
        let unknown = encoded(&nothing, &WindowState::default());
        let mut state = windows.decode_after(&unknown, 1).unwrap();
        apply(windows, &mut state, after);
        let mut history = WindowState::default();
        apply(windows, &mut history, before);
        windows.fill(&mut state, &history, 1);
        check(windows, &state, state.clock_us.max(NOW))?;
        apply(windows, &mut state, &[(event("z", NOW, r#"{"x": 1, "s": "z"}"#), NOW)]);
        check(windows, &state, state.clock_us)?;
    }
}
