//! Fuzz targets for every file that is read: models, manifests, golden rows, view files with their
//! SQL, and segments of the ledger.
//!
//! Promises: whatever a file holds, reading it ends without a panic, and a file that is not
//! accepted is refused with a reason. What is accepted can also be used: a model runs, a view
//! assembles a row, an expression evaluates.
//!
//! Each target is a short random run in `cargo test`. The same target runs guided by coverage, for
//! as long as one likes, with
//!
//! ```sh
//! cargo install cargo-bolero --locked
//! cargo bolero test --sanitizer NONE any_view_file_is_parsed_or_refused
//! ```
//!
//! Inputs that it finds are kept in `tests/__fuzz__/` and replayed by `cargo test`. A failure of a
//! random run names its seed; `BOLERO_RANDOM_SEED=…` repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;
mod ledger_common;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bellwether::features::value::FeatureType;
use bellwether::features::view::View;
use bellwether::ledger::{SegmentEnd, SegmentScan, scan_segment_bytes};
use bellwether::models::golden::Golden;
use bellwether::models::manifest::Manifest;
use bellwether::models::scoring::Scoring;
use bellwether::score::assemble::{RowInput, assemble};
use bellwether::score::related::Related;
use common::mutate::Mutation;
use common::{TARGET_TIME, committed, committed_text};
use onnx_ml::{CompactString, DataType, Model, Tensor};

/// Tokens that mean something in TOML, in a view or in a manifest.
const TOML_WORDS: &[&str] = &[
    "int64",
    "float64",
    "string",
    "bool",
    "refuse",
    "nan",
    "-inf",
    "1e999",
    "9223372036854775808",
    "-1",
    "0",
    "true",
    "\"\"",
    "\"\u{0}\"",
    "\"\u{1F980}\"",
    "1979-05-27T07:32:00Z",
    "[[feature]]\n",
    "[view]\n",
    "[[choice]]\n",
    "[reasons.baseline]\n",
    "[inputs]\n",
    "= [",
    "]",
    "\"\"\"",
    "'''",
    "\nmin = ",
    "\nmax = ",
    "\nmax_age = \"9999999999999y\"",
    "\ndefault = ",
    "\nvalues = [[]]",
    "\nexpression = \"tenure\"",
    "\nexpression = \"contract\"",
    "\nsource = \"request\"",
    "\nfrom = \"site.risk\"",
    "\naggregate = { event = \"e\", function = \"top_k\", window = [\"1h\", \"400d\"], value = \"v\" }",
    ", group_by = \"g\", groups = [\"a\", \"A\"]",
    "count_distinct",
    "request_hour",
    "[[relation]]\n",
    "\nentity = [\"a\", \"b\"]",
    "regression",
    "binary",
    "affinity",
    "tenure",
    "customer_id",
    "probabilities",
    "positive = 18446744073709551615",
];

const JSON_WORDS: &[&str] = &[
    "null",
    "true",
    "-1",
    "1e999",
    "1e-400",
    "\"\"",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    "tolerance",
    "probabilities",
    "tenure",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "NaN",
];

fn customer_view() -> Arc<View> {
    Arc::new(View::parse(&committed_text("features/customer.toml")).unwrap())
}

fn churn_model() -> Model {
    Model::from_bytes(&committed("models/churn/1/model.onnx")).unwrap()
}

/// One row for every input, of zeros or of a text; `None` when the inputs are too large to try.
fn one_row(model: &Model) -> Option<Vec<Tensor>> {
    let mut inputs = Vec::new();
    for info in model.inputs() {
        let shape: Vec<usize> = info.shape.iter().map(|size| size.unwrap_or(1)).collect();
        let elements = shape
            .iter()
            .try_fold(1_usize, |product, size| product.checked_mul(*size))?;
        if elements > 1 << 16 {
            return None;
        }
        let tensor = match info.data_type {
            DataType::String => {
                let texts = vec![CompactString::from("Yes"); elements];
                Tensor::new(&shape, texts).ok()?
            }
            data_type => Tensor::zeros(data_type, &shape).ok()?,
        };
        inputs.push(tensor);
    }
    Some(inputs)
}

#[test]
fn any_model_file_is_loaded_or_refused() {
    let seeds = vec![
        committed("models/churn/1/model.onnx"),
        committed("models/upsell/1/model.onnx"),
    ];
    let words = [
        "ai.onnx.ml",
        "Gemm",
        "Scaler",
        "TreeEnsembleClassifier",
        "Loop",
        "If",
        "N",
        "\u{0}",
    ];
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(150)
        .with_test_time(TARGET_TIME)
        .for_each(
            |mutation: &Mutation| match Model::from_bytes(&mutation.apply(&seeds, &words)) {
                Ok(model) => {
                    if let Some(inputs) = one_row(&model)
                        && let Err(error) = model.run(inputs)
                    {
                        assert!(!error.to_string().is_empty());
                    }
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            },
        );
}

#[test]
fn any_manifest_is_bound_or_refused() {
    let seeds = vec![
        committed("models/churn/1/model.toml"),
        committed("models/upsell/1/model.toml"),
    ];
    let view = customer_view();
    let everything = vec![true; view.features().len()];
    let assembled = assemble(
        &view,
        &[RowInput::default()],
        &Related::default(),
        &everything,
    )
    .unwrap();
    let given = AssertUnwindSafe((view, assembled.batch, churn_model()));
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(1000)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            let (view, batch, model) = &*given;
            let text = mutation.apply_text(&seeds, TOML_WORDS);
            let Ok(manifest) = toml::from_str::<Manifest>(&text) else {
                return;
            };
            match Scoring::bind(model, Some(&manifest), view) {
                // A version that is bound scores, or says why it cannot.
                Ok(scoring) => match scoring.score(model, batch) {
                    Ok(scored) => assert_eq!(scored.len(), 1),
                    Err(reason) => assert!(!reason.is_empty()),
                },
                Err(problems) => {
                    assert!(!problems.is_empty() && problems.iter().all(|line| !line.is_empty()));
                }
            }
        });
}

#[test]
fn any_golden_file_is_checked_or_refused() {
    let seeds = vec![committed("models/churn/1/golden.json")];
    let model = AssertUnwindSafe(churn_model());
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(500)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            let bytes = mutation.apply(&seeds, JSON_WORDS);
            let Ok(golden) = serde_json::from_slice::<Golden>(&bytes) else {
                return;
            };
            if let Err(problem) = golden.check(&model) {
                assert!(problem.starts_with("golden.json row "), "{problem}");
            }
        });
}

#[test]
fn any_view_file_is_parsed_or_refused() {
    let seeds = vec![
        committed("features/customer.toml"),
        SMALL_VIEW.as_bytes().to_vec(),
        EVERY_ROLE.as_bytes().to_vec(),
    ];
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(300)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            let text = mutation.apply_text(&seeds, TOML_WORDS);
            match View::parse(&text) {
                Ok(view) => {
                    // What is loaded can be trusted: a row without any value is assembled, and
                    // every value has its feature's type.
                    let needed = vec![true; view.features().len()];
                    let assembled =
                        assemble(&view, &[RowInput::default()], &Related::default(), &needed)
                            .unwrap();
                    assert_eq!(assembled.batch.schema(), *view.schema());
                    for (column, feature) in view.features().iter().enumerate() {
                        assert_eq!(view.index_of(&feature.name), Some(column));
                    }
                }
                Err(mistakes) => assert!(!mistakes.0.is_empty()),
            }
        });
}

const EVERY_ROLE: &str = r#"
[view]
name = "visit"
entity = ["customer_id", "site_id"]
owner = "field service"
purposes = ["service"]

[[relation]]
name = "site"
view = "site"
key = ["site_id", "region"]

[[feature]]
name = "region"
type = "string"
personal = true
tags = ["geo"]

[[feature]]
name = "channel"
type = "string"
source = "request"
default = "app"

[[feature]]
name = "visits"
type = "int64"
aggregate = { event = "visit", function = "count", window = ["1h", "90d"], where = "late" }

[[feature]]
name = "minutes"
type = "float64"
default = 0.0
aggregate = { event = "visit", function = "quantile", q = 0.9, window = "7d", value = "minutes", group_by = "kind", groups = ["Repair"] }

[[feature]]
name = "risk"
type = "float64"
from = "site.risk"

[[feature]]
name = "score"
type = "float64"
expression = "coalesce(risk, 0) * visits_90d + minutes_repair + request_hour"
"#;

const SMALL_VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
max_age = "30d"

[[feature]]
name = "tenure"
type = "int64"
default = 0
min = 0
max = 9223372036854775807
max_age = "1h 30m"

[[feature]]
name = "contract"
type = "string"
default = "One year"
values = ["Month-to-month", "One year"]
unknown = "refuse"

[[feature]]
name = "months_left"
type = "float64"
expression = "greatest(12.0 - tenure, 0) * factor"

[[feature]]
name = "factor"
type = "int64"
expression = "case when contract = 'One year' then 1 else 0 end"

[[feature]]
name = "new"
type = "bool"
expression = "tenure < 12"
"#;

#[test]
fn feature_types_are_named_as_they_are_written() {
    // The words above must not go stale, or the targets lose their bite.
    for kind in [
        FeatureType::String,
        FeatureType::Int64,
        FeatureType::Float64,
        FeatureType::Bool,
    ] {
        assert!(TOML_WORDS.contains(&kind.name()));
    }
}

/// A segment with predictions, outcomes and marks, written by the ledger itself.
fn written_segment() -> Vec<u8> {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = ledger_common::open(data_dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for number in 0..6 {
        ledger
            .append_prediction(ledger_common::prediction(number, 5))
            .unwrap();
        let outcome = ledger_common::outcome(&format!("outcome-{number}"), "churn");
        runtime.block_on(ledger.append_outcome(outcome)).unwrap();
    }
    ledger.close().unwrap();
    std::fs::read(ledger_common::segment_path(data_dir.path(), 1)).unwrap()
}

fn frames_of(scan: &SegmentScan) -> u64 {
    scan.predictions + scan.outcomes + scan.marks + scan.undecodable
}

#[test]
fn any_ledger_segment_is_read_up_to_its_first_bad_byte() {
    let seeds = vec![written_segment(), written_segment()];
    for seed in &seeds {
        let scan = scan_segment_bytes(seed);
        assert_eq!((scan.predictions, scan.outcomes), (6, 6));
        assert_eq!(scan.end, Ok(SegmentEnd::Complete));
    }
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(5000)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            let seed = mutation.seed(&seeds);
            let bytes = mutation.apply(&seeds, &[]);
            let scan = scan_segment_bytes(&bytes);
            // Every frame that ends before the first changed byte is found
            let unchanged = bytes
                .iter()
                .zip(seed)
                .take_while(|(left, right)| left == right)
                .count();
            let offsets = ledger_common::frame_offsets(seed);
            let intact = offsets
                .iter()
                .filter(|&&offset| offset + ledger_common::frame_length(seed, offset) <= unchanged)
                .count() as u64;
            assert!(
                frames_of(&scan) >= intact,
                "{scan:?}, {intact} frames are intact"
            );
            // A payload that passes its checksum is one that the ledger wrote
            assert_eq!(scan.undecodable, 0, "{scan:?}");
            // And the end is where it says: nothing behind it is counted as read
            if let Ok(SegmentEnd::Torn {
                offset,
                bytes: torn,
            }) = scan.end
            {
                assert_eq!(offset + torn, bytes.len() as u64);
            }
            if scan.end == Ok(SegmentEnd::Complete) && bytes == seed {
                assert_eq!((scan.predictions, scan.outcomes), (6, 6));
            }
        });
}
