//! A store that is interrupted ends as one that is not.

use proptest::prelude::*;

use super::*;

/// What can happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Op>),
    /// So many hours go by.
    Wait(i64),
    Read(u8),
    Checkpoint,
    Crash,
    Restart,
}

#[derive(Clone, Debug)]
enum Op {
    Ticket {
        key: u8,
        id: u8,
        hours_ago: i64,
    },
    Update {
        key: u8,
        tenure: i64,
        hours_ago: i64,
    },
    Remove {
        key: u8,
    },
}

impl Op {
    fn change(&self, known_at_us: i64) -> Change {
        match self {
            Op::Ticket { key, id, hours_ago } => {
                let occurred_at_us = known_at_us - hours_ago * HOUR_US;
                ticket(&format!("C-{key}"), &format!("E-{id}"), occurred_at_us)
            }
            Op::Update {
                key,
                tenure,
                hours_ago,
            } => {
                let occurred_at_us = known_at_us - hours_ago * HOUR_US;
                update(&format!("C-{key}"), *tenure, occurred_at_us)
            }
            Op::Remove { key } => removal(&format!("C-{key}")),
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..6_u8, 0..12_u8, 0..800_i64)
            .prop_map(|(key, id, hours_ago)| Op::Ticket { key, id, hours_ago }),
        3 => (0..6_u8, any::<i64>(), 0..48_i64)
            .prop_map(|(key, tenure, hours_ago)| Op::Update { key, tenure, hours_ago }),
        1 => (0..6_u8).prop_map(|key| Op::Remove { key }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop::collection::vec(any_op(), 1..8).prop_map(Step::Apply),
        2 => prop_oneof![Just(1), Just(4), Just(23), Just(24), Just(30)].prop_map(Step::Wait),
        3 => (0..6_u8).prop_map(Step::Read),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_store_that_is_interrupted_ends_as_one_that_is_not(
        steps in prop::collection::vec(any_step(), 1..40),
        cache_bytes in prop_oneof![Just(0), Just(64 * 700), Just(1 << 30)],
    ) {
        let views = views(CUSTOMER);
        let view = view(&views);
        let whole_dir = tempfile::tempdir().unwrap();
        let whole = open(whole_dir.path(), 1 << 30);
        let mut dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), cache_bytes);
        let mut log = Log::new();
        for step in steps {
            match step {
                Step::Apply(ops) => {
                    let now_us = log.known_at_us;
                    let batch = log.push(ops.iter().map(|op| op.change(now_us)).collect());
                    let expected = log.apply(batch, &whole, &views);
                    prop_assert_eq!(log.apply(batch, &store, &views), expected);
                }
                Step::Wait(hours) => log.known_at_us += hours * HOUR_US,
                Step::Read(key) => {
                    let key = format!("C-{key}");
                    let at_us = log.known_at_us;
                    let expected = read(&whole, &view, &key, at_us);
                    prop_assert_eq!(read(&store, &view, &key, at_us), expected);
                }
                Step::Checkpoint => store.inner.checkpoint().unwrap(),
                Step::Crash => {
                    let copy = crashed(dir.path(), &store);
                    store.inner.schedule.crash();
                    drop(store);
                    dir = copy;
                    store = open(dir.path(), cache_bytes);
                    log.replay(&store, &views);
                }
                Step::Restart => {
                    drop(store);
                    store = open(dir.path(), cache_bytes);
                    prop_assert_eq!(store.watermark().sequence.max(1), log.next);
                }
            }
        }
        prop_assert_eq!(state(&store, &view), state(&whole, &view));
    }
}
