//! A window that is declared late and filled from history is one that was there from the start.
#![allow(clippy::unwrap_used)]

mod history_common;

use std::sync::Arc;

use bellwether::features::change::Change;
use bellwether::features::views::Views;
use bellwether::history::{Backfill, BackfillReport};
use history_common::{DAY, HOUR, Online, START, event, exactly, removal, views};
use proptest::collection::vec;
use proptest::prelude::*;

const OLD: &str = r#"
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "orders_7d"
type = "int64"
aggregate = { event = "order", function = "count", window = "7d" }
"#;

/// The same with windows on other tracks, and a longer one on the same.
const NEW: &str = r#"
[[feature]]
name = "amount_30d"
type = "float64"
aggregate = { event = "order", function = "sum", window = "30d", value = "amount" }

[[feature]]
name = "best_1h"
type = "float64"
aggregate = { event = "order", function = "max", window = "1h", value = "amount" }

[[feature]]
name = "orders_90d"
type = "int64"
aggregate = { event = "order", function = "count", window = "90d" }

[[feature]]
name = "visits_30d"
type = "int64"
aggregate = { event = "visit", function = "count", window = "30d" }
"#;

const NEWEST: &str = r#"
[[feature]]
name = "last_90d"
type = "float64"
aggregate = { event = "order", function = "last", window = "90d", value = "amount" }
"#;

/// A batch of changes: hours since the last one, and what happened to whom.
type Batches = Vec<(i64, Vec<Change>)>;

fn batches() -> impl Strategy<Value = Batches> {
    let happens = (0..3_usize, 0..30_u8, 0..50_i64, -50..50_i32, 0..10_u8);
    vec((1..60_i64, vec(happens, 1..8)), 9..16).prop_map(|batches| {
        let mut now = START;
        let mut all = Vec::new();
        for (hours, happens) in batches {
            now += hours * HOUR;
            let change = |(customer, id, late, amount, kind): (usize, u8, i64, i32, u8)| {
                let key = format!("c{customer}");
                let id = format!("{now}-{id}");
                match kind {
                    0 => removal("customer", &key),
                    1 => event(&key, &id, "visit", now - late * HOUR, ""),
                    _ => {
                        let properties = format!("{{\"amount\": {amount}}}");
                        event(&key, &id, "order", now - late * HOUR, &properties)
                    }
                }
            };
            all.push((now, happens.into_iter().map(change).collect()));
        }
        all
    })
}

fn fill(online: &Online) -> BackfillReport {
    let work = Backfill {
        store: Arc::clone(&online.store),
        view: online.views.get("customer").unwrap().clone(),
        data_dir: online.dir.path().to_owned(),
        bounds: online.bounds(16 << 20),
    };
    work.run(|_| {}).unwrap()
}

fn with(texts: &[&str]) -> Views {
    views(&[("customer", &texts.concat())])
}

fn send(online: &Online, batches: &[(i64, Vec<Change>)]) {
    for (now, changes) in batches {
        online.submit(changes.clone(), *now);
    }
}

fn assert_same(one: &Online, other: &Online, at_us: i64) -> Result<(), TestCaseError> {
    for customer in 0..3 {
        let key = format!("c{customer}");
        let (values, applied) = one.read("customer", &key, at_us);
        let (expected, expected_applied) = other.read("customer", &key, at_us);
        prop_assert_eq!(exactly(&values), exactly(&expected), "{} at {}", key, at_us);
        prop_assert_eq!(applied, expected_applied);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn values_after_a_backfill_are_those_of_a_server_that_had_the_windows_from_the_start(
        batches in batches()
    ) {
        let always = Online::new(&with(&[OLD, NEW, NEWEST]));
        send(&always, &batches);

        // A server that is given windows, takes events, is given another one, takes events
        let third = batches.len() / 3;
        let mut grown = Online::new(&with(&[OLD]));
        send(&grown, &batches[..third]);
        grown = grown.restarted(&with(&[OLD, NEW]));
        send(&grown, &batches[third..2 * third]);
        grown = grown.restarted(&with(&[OLD, NEW, NEWEST]));
        send(&grown, &batches[2 * third..batches.len() - 1]);
        // is filled while it takes events, and once more
        fill(&grown);
        send(&grown, &batches[batches.len() - 1..]);
        let end = batches[batches.len() - 1].0;
        for at_us in [end, end + HOUR / 2, end + 10 * DAY, end + 40 * DAY] {
            assert_same(&grown, &always, at_us)?;
        }
        prop_assert_eq!(fill(&grown).filled, 0);
        assert_same(&grown, &always, end + DAY)?;
        // What was filled lasts
        let grown = grown.restarted(&with(&[OLD, NEW, NEWEST]));
        assert_same(&grown, &always, end + DAY)?;
    }
}
