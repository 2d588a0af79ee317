//! What the ledger promises about its Parquet export, read back with the parquet crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod ledger_common;

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use bellwether::ledger::{
    FeatureSource, FeatureValue, InferenceRow, InferenceTemplate, LedgerError, export_parquet,
};
use ledger_common::{open, outcome, prediction, segment_path};
use onnx_ml::Tensor;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn read(path: &Path) -> RecordBatch {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let values = batch.column_by_name(column).unwrap().as_string::<i32>();
    values.is_valid(row).then(|| values.value(row).to_string())
}

#[tokio::test]
async fn every_prediction_and_outcome_is_exported_with_all_it_holds() {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    // Given a prediction of two models with all kinds of values, and two outcomes
    let mut record = prediction(7, 4);
    record.features[1].source = FeatureSource::Override as i32;
    record.features[1].as_of_us = None;
    record.features[2].value = Some(FeatureValue::Float64(f64::NAN));
    record.features[3].source = FeatureSource::Missing as i32;
    let mut second_score = record.scores[0].clone();
    second_score.model = "upsell".to_string();
    second_score.score = 0.1f32.into();
    second_score.label = None;
    second_score.log_odds = None;
    second_score.reasons = None;
    record.scores.push(second_score);
    let prediction_id = uuid::Uuid::from_slice(&record.prediction_id).unwrap();
    let mut linked = outcome("with-prediction", "churned");
    linked.prediction_id = Some(record.prediction_id.clone());
    linked.value = None;
    ledger.append_prediction(record).unwrap();
    ledger.append_outcome(linked).await.unwrap();
    ledger
        .append_outcome(outcome("with-customer", "stayed"))
        .await
        .unwrap();
    ledger.close().unwrap();
    // When the ledger is exported
    let output_dir = tempfile::tempdir().unwrap();
    let report = export_parquet(data_dir.path(), output_dir.path()).unwrap();
    // Then there is one row for each model
    assert_eq!(
        (
            report.prediction_rows,
            report.outcome_rows,
            report.duplicate_outcomes
        ),
        (2, 2, 0)
    );
    let rows = read(&output_dir.path().join("predictions-00001.parquet"));
    assert_eq!(rows.num_rows(), 2);
    for row in 0..2 {
        assert_eq!(
            text(&rows, "prediction_id", row),
            Some(prediction_id.to_string())
        );
        assert_eq!(
            text(&rows, "customer_id", row).as_deref(),
            Some("customer-7")
        );
        assert_eq!(text(&rows, "view_digest", row), Some("07".repeat(32)));
        assert_eq!(text(&rows, "model_digest", row), Some("09".repeat(32)));
        assert_eq!(
            text(&rows, "features", row).as_deref(),
            Some(
                r#"{"feature_0":"Month-to-month","feature_1":7,"feature_2":"NaN","feature_3":null}"#
            )
        );
        let sources = r#"{"feature_0":"stored","feature_1":"override","feature_2":"stored","feature_3":"missing"}"#;
        assert_eq!(
            text(&rows, "features_source", row).as_deref(),
            Some(sources)
        );
        let times: serde_json::Value =
            serde_json::from_str(&text(&rows, "features_as_of", row).unwrap()).unwrap();
        assert_eq!(times["feature_0"], "2023-11-14T22:13:20.000000Z");
        assert!(times.get("feature_1").is_none());
    }
    let at = rows.column_by_name("at").unwrap();
    assert_eq!(at.data_type().to_string(), "Timestamp(µs, \"UTC\")");
    assert_eq!(
        at.as_primitive::<TimestampMicrosecondType>().value(0),
        1_700_000_000_000_007
    );
    assert_eq!(text(&rows, "model", 0).as_deref(), Some("churn"));
    assert_eq!(text(&rows, "model", 1).as_deref(), Some("upsell"));
    let scores = rows
        .column_by_name("score")
        .unwrap()
        .as_primitive::<Float64Type>();
    assert_eq!(scores.values().as_ref(), [0.25, f64::from(0.1f32)]);
    let reasons: serde_json::Value =
        serde_json::from_str(&text(&rows, "reasons", 0).unwrap()).unwrap();
    assert_eq!(reasons["contributions"][0]["feature"], "feature_0");
    assert_eq!(text(&rows, "reasons", 1), None);
    assert_eq!(text(&rows, "label", 1), None);
    // And one row for each outcome
    let outcomes = read(&output_dir.path().join("outcomes-00001.parquet"));
    assert_eq!(
        text(&outcomes, "outcome_id", 0).as_deref(),
        Some("with-prediction")
    );
    assert_eq!(
        text(&outcomes, "prediction_id", 0),
        Some(prediction_id.to_string())
    );
    assert_eq!(text(&outcomes, "prediction_id", 1), None);
    assert_eq!(text(&outcomes, "outcome", 1).as_deref(), Some("stayed"));
    let values = outcomes
        .column_by_name("value")
        .unwrap()
        .as_primitive::<Float64Type>();
    assert!(values.is_null(0) && values.value(1) == 1.5);
}

#[test]
fn every_inference_is_exported_with_its_tensors_as_v2_prints_them() {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    // Given an inference that is logged whole, and one that is over the bound
    let template = InferenceTemplate::new("gbdt", "3", &[9; 32]);
    let id = bellwether::clock::new_id();
    let at_us = 1_700_000_000_000_007;
    let floats = Tensor::new(&[1, 3], vec![0.1_f32, f32::NAN, -2.0]).unwrap();
    let texts = Tensor::vector(vec![onnx_ml::CompactString::from("Two \"year\"")]);
    let label = Tensor::vector(vec![-1_i64]);
    for (request_id, bound) in [(Some("r-17"), 1_000), (None, 10)] {
        let mut row = InferenceRow::begin(&template, id, at_us, request_id, 1, bound);
        row.input("charges", &floats);
        row.input("contract", &texts);
        row.output("label", &label);
        ledger.append_inference(row.finish().unwrap()).unwrap();
    }
    ledger.close().unwrap();
    // When the ledger is exported
    let output_dir = tempfile::tempdir().unwrap();
    let report = export_parquet(data_dir.path(), output_dir.path()).unwrap();
    // Then there is one row for each, with the data of the first
    assert_eq!((report.inference_rows, report.prediction_rows), (2, 0));
    let rows = read(&output_dir.path().join("inferences-00001.parquet"));
    assert_eq!(rows.num_rows(), 2);
    for row in 0..2 {
        assert_eq!(text(&rows, "prediction_id", row), Some(id.to_string()));
        assert_eq!(text(&rows, "model", row).as_deref(), Some("gbdt"));
        assert_eq!(text(&rows, "version", row).as_deref(), Some("3"));
        assert_eq!(text(&rows, "model_digest", row), Some("09".repeat(32)));
    }
    assert_eq!(text(&rows, "request_id", 0).as_deref(), Some("r-17"));
    assert_eq!(text(&rows, "request_id", 1), None);
    let at = rows.column_by_name("at").unwrap();
    assert_eq!(
        at.as_primitive::<TimestampMicrosecondType>().value(0),
        at_us
    );
    let counts = rows.column_by_name("rows").unwrap();
    assert_eq!(counts.as_primitive::<UInt64Type>().value(0), 1);
    assert_eq!(
        text(&rows, "inputs", 0).as_deref(),
        Some(
            r#"{"charges":{"datatype":"FP32","shape":[1,3],"data":[0.10000000149011612,null,-2.0]},"contract":{"datatype":"BYTES","shape":[1],"data":["Two \"year\""]}}"#
        )
    );
    assert_eq!(
        text(&rows, "outputs", 0).as_deref(),
        Some(r#"{"label":{"datatype":"INT64","shape":[1],"data":[-1]}}"#)
    );
    assert_eq!(
        text(&rows, "inputs", 1).as_deref(),
        Some(
            r#"{"charges":{"datatype":"FP32","shape":[1,3],"data":null},"contract":{"datatype":"BYTES","shape":[1],"data":null}}"#
        )
    );
}

#[test]
fn an_empty_ledger_is_exported_as_empty_files_with_the_schema() {
    let data_dir = tempfile::tempdir().unwrap();
    open(data_dir.path()).close().unwrap();
    let output_dir = tempfile::tempdir().unwrap();
    export_parquet(data_dir.path(), &output_dir.path().join("new/directory")).unwrap();
    let rows = read(
        &output_dir
            .path()
            .join("new/directory/predictions-00001.parquet"),
    );
    assert_eq!((rows.num_rows(), rows.num_columns()), (0, 15));
    for (file, columns) in [
        ("inferences-00001.parquet", 9),
        ("outcomes-00001.parquet", 7),
        ("changes-00001.parquet", 9),
    ] {
        let rows = read(&output_dir.path().join("new/directory").join(file));
        assert_eq!((rows.num_rows(), rows.num_columns()), (0, columns));
    }
}

#[test]
fn an_export_replaces_an_earlier_one_and_leaves_nothing_else_behind() {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    for number in 0..20_000 {
        ledger.append_prediction(prediction(number, 1)).unwrap();
    }
    ledger.close().unwrap();
    // Given a directory with an earlier export of more files, and a file of someone else
    let output_dir = tempfile::tempdir().unwrap();
    for name in [
        "predictions-00001.parquet",
        "predictions-00002.parquet",
        "notes.txt",
    ] {
        std::fs::write(output_dir.path().join(name), b"old").unwrap();
    }
    // When the ledger is exported there
    let report = export_parquet(data_dir.path(), output_dir.path()).unwrap();
    // Then the directory holds this export and the other file
    assert_eq!(report.prediction_rows, 20_000);
    let mut names: Vec<String> = std::fs::read_dir(output_dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "audit-00001.parquet",
            "changes-00001.parquet",
            "inferences-00001.parquet",
            "notes.txt",
            "outcomes-00001.parquet",
            "predictions-00001.parquet",
            "shadow_scores-00001.parquet"
        ]
    );
    assert_eq!(
        read(&output_dir.path().join("predictions-00001.parquet")).num_rows(),
        20_000
    );
}

#[test]
fn a_damaged_ledger_is_not_exported() {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    ledger.append_prediction(prediction(1, 3)).unwrap();
    ledger.close().unwrap();
    let path = segment_path(data_dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output_dir = tempfile::tempdir().unwrap();
    let refused = export_parquet(data_dir.path(), output_dir.path());
    assert!(
        matches!(refused, Err(LedgerError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_dir(output_dir.path()).unwrap().count(), 0);
}
