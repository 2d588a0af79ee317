//! What was served can be recomputed from the log; where it cannot, the check says so.
#![allow(clippy::unwrap_used)]

mod history_common;

use bellwether::clock::new_id_at;
use bellwether::features::change::Scalar;
use bellwether::features::value::Value;
use bellwether::features::views::Views;
use bellwether::history::{Consistency, ConsistencyReport};
use bellwether::ledger::{Feature, FeatureSource, FeatureValue, Prediction};
use history_common::{HOUR, Online, START, removal, update, views};

const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"

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

/// The ledger row of what is read at `at_us`.
fn served(online: &Online, key: &str, at_us: i64) -> Prediction {
    let (values, applied) = online.read("customer", key, at_us);
    let view = online.views.get("customer").unwrap();
    let features = view
        .features()
        .iter()
        .zip(values)
        .map(|(feature, value)| Feature {
            name: feature.name.clone(),
            value: match value {
                Value::Null => None,
                Value::Bool(flag) => Some(FeatureValue::Bool(flag)),
                Value::Int64(integer) => Some(FeatureValue::Int64(integer)),
                Value::Float64(float) => Some(FeatureValue::Float64(float)),
                Value::String(text) => Some(FeatureValue::String(text)),
            },
            as_of_us: None,
            source: FeatureSource::Stored as i32,
        });
    Prediction {
        prediction_id: new_id_at(at_us).into_bytes().to_vec().into(),
        customer_id: key.to_owned(),
        at_us,
        view: view.name.clone(),
        view_digest: view.digest.to_vec().into(),
        features: features.collect(),
        scores: Vec::new(),
        applied,
    }
}

/// A server's life: updates, a late one, a removal, and predictions in between.
fn live(online: &Online, plant: impl Fn(usize, &mut Prediction)) -> usize {
    let mut predictions = 0;
    for hour in 0..8_i64 {
        let now = START + hour * HOUR;
        for customer in 0..5_i64 {
            let key = format!("c{customer}");
            let change = match (hour, customer) {
                (4, 2) => removal("customer", &key),
                (5, 3) => update(
                    "customer",
                    &key,
                    now - 3 * HOUR,
                    &[("tenure", Scalar::Int64(99))],
                ),
                (_, 4) => update("customer", &key, now, &[("tenure", Scalar::Int64(hour))]),
                _ => update(
                    "customer",
                    &key,
                    now,
                    &[
                        ("tenure", Scalar::Int64(hour)),
                        ("charges", Scalar::Float64(0.1 * hour as f64)),
                    ],
                ),
            };
            online.submit(vec![change], now + customer);
            if online.read("customer", &key, now).1.is_some() {
                let mut row = served(online, &key, now + 100);
                plant(predictions, &mut row);
                online.ledger.append_prediction(row).unwrap();
                predictions += 1;
            }
        }
    }
    online.ledger.close().unwrap();
    predictions
}

fn check(online: &Online, views: &Views, sample: usize) -> ConsistencyReport {
    let check = Consistency {
        data_dir: online.dir.path().to_owned(),
        views: views.clone(),
        sample,
        since_us: i64::MIN,
        bounds: online.bounds(16 << 20),
    };
    check.check().unwrap()
}

#[test]
fn what_was_served_is_recomputed_bit_for_bit() {
    let online = Online::new(&views(&[("customer", VIEW)]));
    let predictions = live(&online, |_, _| {});
    let report = check(&online, &online.views, 1000);
    assert_eq!(report.predictions, predictions as u64);
    assert_eq!(report.values, 3 * predictions as u64);
    assert_eq!(
        (report.mismatched_values, report.mismatch_rate),
        (0, 0.0),
        "{report:?}"
    );
    // A sample is no larger than asked for
    assert_eq!(check(&online, &online.views, 7).predictions, 7);
}

#[test]
fn a_view_that_has_changed_is_seen_in_the_features_that_changed() {
    let online = Online::new(&views(&[("customer", VIEW)]));
    live(&online, |_, _| {});
    let changed = VIEW.replace("default = 1.5", "default = 2.0");
    let report = check(&online, &views(&[("customer", &changed)]), 1000);
    let of = |name: &str| {
        report
            .features
            .iter()
            .find(|feature| feature.feature == name)
            .unwrap()
    };
    // Only customer c4 has no charges, in all its eight predictions
    assert_eq!(of("tenure").mismatched, 0);
    assert_eq!(of("charges").mismatched, 8);
    assert_eq!(of("charges").max_absolute_error, 0.5);
    assert!((of("charges").max_relative_error - 0.5 / 1.5).abs() < 1e-12);
    assert_eq!(of("per_month").mismatched, 8);
    assert_eq!(report.mismatched_predictions, 8);
    assert_eq!(report.other_view_version, report.predictions);
    assert_eq!(report.mismatch_rate, 16.0 / report.values as f64);
}

#[test]
fn a_value_that_the_log_does_not_give_is_seen() {
    let online = Online::new(&views(&[("customer", VIEW)]));
    live(&online, |number, row| match number {
        // One value that was never written, one prediction whose change is unknown
        3 => row.features[0].value = Some(FeatureValue::Int64(1000)),
        5 => row.applied = None,
        _ => {}
    });
    let report = check(&online, &online.views, 1000);
    assert_eq!(
        (report.mismatched_values, report.passed_over),
        (1, 1),
        "{report:?}"
    );
    let tenure = &report
        .features
        .iter()
        .find(|f| f.feature == "tenure")
        .unwrap();
    assert_eq!((tenure.mismatched, tenure.max_absolute_error), (1, 1000.0));
}

#[test]
fn values_that_came_with_the_request_are_taken_as_they_came() {
    let online = Online::new(&views(&[("customer", VIEW)]));
    live(&online, |_, row| {
        // What a request with "charges": 8.0 is served
        let tenure = match row.features[0].value {
            Some(FeatureValue::Int64(tenure)) => tenure,
            _ => 1,
        };
        row.features[1].value = Some(FeatureValue::Float64(8.0));
        row.features[1].source = FeatureSource::Override as i32;
        let per_month = 8.0 / tenure.max(1) as f64;
        row.features[2].value = Some(FeatureValue::Float64(per_month));
    });
    let report = check(&online, &online.views, 1000);
    assert_eq!(report.mismatched_values, 0, "{report:?}");
}
