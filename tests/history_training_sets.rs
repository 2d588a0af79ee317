//! What was served online is what training sets hold: the same changes through the store and through
//! the offline plan give the same values.
#![allow(clippy::unwrap_used)]

mod history_common;

use std::fmt::Write as _;
use std::path::PathBuf;

use bellwether::clock::to_rfc3339;
use bellwether::features::change::{Change, Scalar};
use bellwether::features::value::Value as FeatureValue;
use bellwether::history::log::ChangeLog;
use bellwether::history::{HistoryError, TrainingSet, TrainingSetReport};
use history_common::{
    DAY, HOUR, Online, SECOND, START, event, event_of, exactly, read_parquet, removal, row_values,
    update, views,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PROFILE: &str = r#"
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "plan"
type = "string"
default = "basic"

[[feature]]
name = "tenure"
type = "int64"

[[feature]]
name = "charges"
type = "float64"
default = 1.5

[[feature]]
name = "per_month"
type = "float64"
expression = "charges / greatest(tenure, 1)"
"#;

const SITE: &str = r#"
[view]
name = "site"
entity = "site_id"

[[feature]]
name = "risk"
type = "float64"
default = 0.25

[[feature]]
name = "outages_7d"
type = "int64"
aggregate = { event = "outage", function = "count", window = "7d" }

[[feature]]
name = "risk_per_outage"
type = "float64"
expression = "risk / greatest(outages_7d, 1)"
"#;

/// Every function of a window, over several lengths, with conditions and groups.
fn all_functions() -> String {
    let mut text = PROFILE.to_owned();
    let functions = [
        ("count", "int64", ""),
        ("sum", "float64", "value = \"amount\""),
        ("avg", "float64", "value = \"amount\""),
        ("min", "float64", "value = \"amount\""),
        ("max", "float64", "value = \"amount\""),
        ("stddev", "float64", "value = \"amount\""),
        ("count_distinct", "int64", "value = \"place\""),
        ("first", "float64", "value = \"amount\""),
        ("last", "string", "value = \"place\""),
        ("rate", "float64", ""),
        ("time_since_last", "float64", ""),
        ("quantile", "float64", "value = \"amount\", q = 0.9"),
    ];
    for window in ["90s", "1h", "24h", "7d", "90d"] {
        for (function, kind, more) in functions {
            let more = match more {
                "" => String::new(),
                more => format!(", {more}"),
            };
            write!(
                text,
                "\n[[feature]]\nname = \"{function}_{window}\"\ntype = \"{kind}\"\n\
                 aggregate = {{ event = \"order\", function = \"{function}\", window = \"{window}\"{more} }}\n"
            )
            .unwrap();
        }
    }
    text.push_str(
        r#"
[[feature]]
name = "large_7d"
type = "int64"
aggregate = { event = "order", function = "count", window = "7d", where = "amount > 10" }

[[feature]]
name = "share_large"
type = "float64"
expression = "large_7d / greatest(count_7d, 1)"

[[feature]]
name = "places_7d"
type = "string"
aggregate = { event = "order", function = "top_k", window = "7d", value = "place", k = 3 }

[[feature]]
name = "by_place_30d"
type = "float64"
aggregate = { event = "order", function = "sum", window = "30d", value = "amount", group_by = "place" }

[[feature]]
name = "site_id"
type = "string"

[[relation]]
name = "site"
view = "site"
key = ["site_id"]

[[feature]]
name = "site_risk"
type = "float64"
from = "site.risk_per_outage"
default = 9.0

[[feature]]
name = "site_outages"
type = "int64"
from = "site.outages_7d"

[[feature]]
name = "risk_and_rate"
type = "float64"
expression = "site_risk * site_outages + coalesce(rate_1h, 0)"
"#,
    );
    text
}

/// One thing that happens in a random story.
#[derive(Clone, Debug)]
enum Step {
    /// Time goes on.
    Wait(i64),
    Order {
        customer: u8,
        id: u8,
        /// How late it is; negative for one in the future.
        late_us: i64,
        amount: f64,
        place: u8,
    },
    Update {
        customer: u8,
        late_us: i64,
        tenure: i64,
        charges: f64,
    },
    Remove {
        customer: u8,
    },
    /// A customer moves to a site, of which there are two.
    Move {
        customer: u8,
        site: u8,
    },
    /// Something about a site becomes known.
    Risk {
        site: u8,
        risk: f64,
    },
    Outage {
        site: u8,
        id: u8,
    },
    /// What was collected goes in as one batch.
    Send,
    /// Somebody looks, a while after the last batch.
    Read {
        customer: u8,
        after_us: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let waits = prop_oneof![
        1..2 * SECOND,
        SECOND..90 * SECOND,
        SECOND..2 * HOUR,
        HOUR..3 * DAY,
        Just(24 * HOUR),
        DAY..40 * DAY
    ];
    let lateness = prop_oneof![
        Just(0),
        -4 * SECOND..0,
        0..100 * SECOND,
        0..2 * HOUR,
        0..30 * DAY,
        -2 * DAY..0
    ];
    let amounts = prop_oneof![-100.0..100.0, Just(0.0), Just(1e16), 0.001..0.002];
    prop_oneof![
        3 => waits.prop_map(Step::Wait),
        8 => (0..3_u8, 0..60_u8, lateness.clone(), amounts, 0..5_u8).prop_map(
            |(customer, id, late_us, amount, place)| Step::Order { customer, id, late_us, amount, place }
        ),
        2 => (0..3_u8, lateness, 0..100_i64, 0.0..100.0).prop_map(
            |(customer, late_us, tenure, charges)| Step::Update { customer, late_us, tenure, charges }
        ),
        1 => (0..3_u8).prop_map(|customer| Step::Remove { customer }),
        2 => (0..3_u8, 0..2_u8).prop_map(|(customer, site)| Step::Move { customer, site }),
        1 => (0..2_u8, 0.0..1.0).prop_map(|(site, risk)| Step::Risk { site, risk }),
        1 => (0..2_u8, 0..9_u8).prop_map(|(site, id)| Step::Outage { site, id }),
        4 => Just(Step::Send),
        4 => (0..4_u8, prop_oneof![Just(0), 0..100 * SECOND, 0..DAY, 0..60 * DAY])
            .prop_map(|(customer, after_us)| Step::Read { customer, after_us }),
    ]
}

/// What was read online: who, when, and the values.
type Reads = Vec<(String, i64, Vec<FeatureValue>)>;

fn play(online: &Online, steps: &[Step]) -> Reads {
    let (mut now, mut batch, mut reads) = (START, Vec::new(), Vec::new());
    for step in steps {
        match *step {
            Step::Wait(us) => now += us,
            Step::Order {
                customer,
                id,
                late_us,
                amount,
                place,
            } => batch.push(event(
                &format!("c{customer}"),
                &format!("e{id}"),
                "order",
                now - late_us,
                &format!("{{\"amount\": {amount}, \"place\": \"p{place}\"}}"),
            )),
            Step::Update {
                customer,
                late_us,
                tenure,
                charges,
            } => batch.push(update(
                "customer",
                &format!("c{customer}"),
                now - late_us,
                &[
                    ("tenure", Scalar::Int64(tenure)),
                    ("charges", Scalar::Float64(charges)),
                ],
            )),
            Step::Remove { customer } => batch.push(removal("customer", &format!("c{customer}"))),
            Step::Move { customer, site } => {
                let site = Scalar::String(format!("s{site}"));
                let key = format!("c{customer}");
                batch.push(update("customer", &key, now, &[("site_id", site)]));
            }
            Step::Risk { site, risk } => {
                let risk = Scalar::Float64(risk);
                batch.push(update("site", &format!("s{site}"), now, &[("risk", risk)]));
            }
            Step::Outage { site, id } => {
                let (site, id) = (format!("s{site}"), format!("o{id}"));
                batch.push(event_of("site_id", &site, &id, "outage", now, ""));
            }
            Step::Send => {
                online.submit(std::mem::take(&mut batch), now);
                now += 1;
            }
            Step::Read { customer, after_us } => {
                let (key, at_us) = (format!("c{customer}"), now + after_us);
                let (values, _) = online.read("customer", &key, at_us);
                reads.push((key, at_us, values));
                now = at_us + 1;
            }
        }
    }
    reads
}

fn observations(online: &Online, reads: &Reads) -> PathBuf {
    let mut text = "customer_id,note,observed_at\n".to_owned();
    for (number, (key, at_us, _)) in reads.iter().enumerate() {
        writeln!(text, "{key},{number},{}", to_rfc3339(*at_us)).unwrap();
    }
    let file = online.dir.path().join("observations.csv");
    std::fs::write(&file, text).unwrap();
    file
}

fn training_set(online: &Online, observations: PathBuf, memory_bytes: usize) -> TrainingSet {
    TrainingSet {
        log: ChangeLog::Directories(vec![online.dir.path().to_owned()]),
        view: online.views.get("customer").unwrap().clone(),
        called: "observations.csv".to_owned(),
        observations,
        time_column: "observed_at".to_owned(),
        max_rows: u64::MAX,
        features: None,
        bounds: online.bounds(memory_bytes),
    }
}

fn make(
    online: &Online,
    reads: &Reads,
    memory_bytes: usize,
) -> (TrainingSetReport, arrow::array::RecordBatch) {
    let set = training_set(online, observations(online, reads), memory_bytes);
    let file = online.dir.path().join("train.parquet");
    let report = set.write(&file).unwrap();
    (report, read_parquet(&file))
}

/// Compares every feature of every read; `carried` columns are those of the observations.
fn assert_equal(online: &Online, reads: &Reads, memory_bytes: usize) -> TrainingSetReport {
    let (report, batch) = make(online, reads, memory_bytes);
    assert_eq!(batch.num_rows(), reads.len());
    let view = online.views.get("customer").unwrap();
    let names: Vec<&str> = view.features().iter().map(|f| f.name.as_str()).collect();
    for (row, (key, at_us, online_values)) in reads.iter().enumerate() {
        let offline = row_values(&batch, row, 0);
        assert_eq!(offline[0], FeatureValue::String(key.clone()));
        assert_eq!(
            offline[1],
            FeatureValue::Int64(row as i64),
            "rows keep their order"
        );
        let (offline, online_values) = (exactly(&offline[3..]), exactly(online_values));
        for (index, name) in names.iter().enumerate() {
            assert_eq!(
                offline[index],
                online_values[index],
                "{name} of {key} at {}",
                to_rfc3339(*at_us)
            );
        }
    }
    report
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn values_online_and_offline_are_equal_for_every_feature_and_time(
        steps in vec(step(), 20..200)
    ) {
        let online = Online::new(&views(&[("customer", &all_functions()), ("site", SITE)]));
        let reads = play(&online, &steps);
        assert_equal(&online, &reads, 64 << 20);
    }
}

/// A log with many more changes than fit, in the reverse order of their entities.
fn many(online: &Online, entities: usize) -> Reads {
    let batch = |round: i64| -> Vec<Change> {
        let padding = "x".repeat(100);
        let of = |entity: usize| {
            let key = format!("customer-{entity:06}");
            let values = [
                ("tenure", Scalar::Int64(round)),
                (
                    "plan",
                    Scalar::String(format!("{padding}-{entity}-{round}")),
                ),
            ];
            update("customer", &key, START + round, &values)
        };
        (0..entities).rev().map(of).collect()
    };
    let mut reads = Vec::new();
    for round in 0..4 {
        let known_at_us = START + round * HOUR;
        online.submit(batch(round), known_at_us);
        for entity in (0..entities).step_by(7) {
            let (key, at_us) = (
                format!("customer-{entity:06}"),
                known_at_us + 1 + entity as i64,
            );
            let (values, _) = online.read("customer", &key, at_us);
            reads.push((key, at_us, values));
        }
    }
    reads
}

#[test]
fn what_does_not_fit_into_memory_goes_to_disk_and_the_result_is_the_same() {
    let online = Online::new(&views(&[("customer", PROFILE)]));
    let reads = many(&online, 20_000);
    // 80,000 changes of over 200 bytes in 16 MiB, of which each of three sorts has its share
    let report = assert_equal(&online, &reads, 16 << 20);
    assert!(report.spilled_bytes > 1 << 20, "{report:?}");
    // And what was put aside is gone
    let left = std::fs::read_dir(online.dir.path().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
    // With enough memory nothing is put aside
    let report = assert_equal(&online, &reads, 1 << 30);
    assert_eq!(report.spilled_bytes, 0, "{report:?}");
}

#[test]
fn what_may_not_be_put_aside_on_disk_ends_in_an_error_that_names_the_bound() {
    let online = Online::new(&views(&[("customer", PROFILE)]));
    let reads = many(&online, 20_000);
    let mut set = training_set(&online, observations(&online, &reads), 16 << 20);
    set.bounds.temp_bytes = 1 << 20;
    let file = online.dir.path().join("train.parquet");
    let error = set.write(&file).unwrap_err();
    assert!(matches!(error, HistoryError::Plan(_)), "{error:?}");
    assert!(error.to_string().contains("history.temp_bytes"), "{error}");
    // Nothing is left of it.
    let left = std::fs::read_dir(online.dir.path().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_correction_counts_from_when_it_was_known() {
    let online = Online::new(&views(&[("customer", PROFILE)]));
    let tenure = |value| [("tenure", Scalar::Int64(value))];
    online.submit(
        vec![update("customer", "c", START, &tenure(1))],
        START + HOUR,
    );
    // Learned a day later: it had been 2 since half an hour after the start
    let late = update("customer", "c", START + HOUR / 2, &tenure(2));
    online.submit(vec![late], START + DAY);
    // History that was loaded later, and says that it was known in between
    let mut loaded = update("customer", "c", START + HOUR, &tenure(3));
    loaded.known_at_us = Some(START + 2 * HOUR);
    online.submit(vec![loaded], START + 2 * DAY);

    let at = |us: i64| ("c".to_owned(), START + us, Vec::new());
    let reads = vec![
        at(0),
        at(HOUR - 1),
        at(HOUR),
        at(2 * HOUR),
        at(DAY),
        at(3 * DAY),
    ];
    let (report, batch) = make(&online, &reads, 64 << 20);
    let column = batch.schema().index_of("tenure").unwrap();
    let tenures: Vec<FeatureValue> = (0..6)
        .map(|row| row_values(&batch, row, column)[0].clone())
        .collect();
    let known = FeatureValue::Int64;
    assert_eq!(
        tenures,
        [
            FeatureValue::Null,
            FeatureValue::Null,
            known(1),
            known(3),
            known(3),
            known(3)
        ]
    );
    assert_eq!((report.rows, report.unknown_rows), (6, 2));
}

#[test]
fn mistakes_in_observations_are_named_with_file_column_and_row() {
    let online = Online::new(&views(&[("customer", PROFILE)]));
    let fails = |text: &str, change: &dyn Fn(&mut TrainingSet)| -> String {
        let file = online.dir.path().join("observations.csv");
        std::fs::write(&file, text).unwrap();
        let mut set = training_set(&online, file, 64 << 20);
        change(&mut set);
        let output = online.dir.path().join("failed.parquet");
        let error: HistoryError = set.write(&output).unwrap_err();
        assert!(!output.exists());
        error.to_string()
    };
    let as_is = |_: &mut TrainingSet| {};
    let error = fails("customer_id,observed\nc,2026-01-01\n", &as_is);
    assert!(error.contains("no column \"observed_at\""), "{error}");
    assert!(error.contains("did you mean observed?"), "{error}");
    let error = fails("customer,observed_at\nc,2026-01-01\n", &as_is);
    assert!(error.contains("a key column of view customer"), "{error}");
    let error = fails("customer_id,observed_at\nc,2026-01-01\nd,soon\n", &as_is);
    assert!(
        error.contains("row 2: observed_at: expected a time"),
        "{error}"
    );
    assert!(error.contains("observations.csv"), "{error}");
    let error = fails("customer_id,observed_at\n,2026-01-01\n", &as_is);
    assert!(error.contains("row 1: customer_id: missing"), "{error}");
    let error = fails("customer_id,observed_at,tenure\nc,2026-01-01,3\n", &as_is);
    assert!(error.contains("\"tenure\" is also a feature"), "{error}");
    let error = fails("customer_id,observed_at\nc,2026-01-01\n", &|set| {
        set.features = Some(vec!["tenur".to_owned()]);
    });
    assert!(error.contains("did you mean tenure?"), "{error}");
    let error = fails(
        "customer_id,observed_at\nc,2026-01-01\nd,2026-01-01\n",
        &|set| {
            set.max_rows = 1;
        },
    );
    assert!(error.contains("more than 1 rows"), "{error}");
}
