//! Promises about the committed churn and upsell models.

use crate::common::{ScratchDirectory, assert_same_version, committed_scorer, telco_file};
use bellwether_training::report::ReportResult;
use bellwether_training::table::Values;
use bellwether_training::telco::{self, ADD_ONS};
use bellwether_training::{train_churn, train_upsell};

/// AUC of scikit-learn 1.9.1 on the same split, its default pipeline (see reference_bank.py).
const SCIKIT_LEARN_CHURN_AUC: f64 = 0.837_227;
/// The same run to convergence: the model that ours must equal.
const SCIKIT_LEARN_CHURN_AUC_CONVERGED: f64 = 0.837_284;

#[test]
fn retraining_churn_gives_the_committed_model_and_its_figures() {
    let Some(data) = telco_file() else { return };
    // Given the published data.
    let output = ScratchDirectory::new("churn");
    // When the model is trained again.
    let report = train_churn(&data, output.path()).unwrap();
    // Then it is the committed one, it ranks the hold-out as scikit-learn's does, and not so well
    // that the answer must have leaked.
    assert_same_version("churn", output.path(), &telco::read(&data).unwrap());
    let metrics = report.results[0].metrics;
    let auc = metrics.roc_auc.value;
    assert!(auc >= SCIKIT_LEARN_CHURN_AUC - 0.005, "AUC {auc}");
    assert!(
        (auc - SCIKIT_LEARN_CHURN_AUC_CONVERGED).abs() < 1e-4,
        "AUC {auc}"
    );
    assert!(auc < 0.86, "AUC {auc} means leakage");
    assert!(metrics.expected_calibration_error.value < 0.05);
    assert_eq!((report.training_rows, report.holdout_rows), (5635, 1408));
}

#[test]
fn retraining_upsell_gives_the_committed_model_without_leakage() {
    let Some(data) = telco_file() else { return };
    // Given the published data.
    let output = ScratchDirectory::new("upsell");
    // When the models are trained again.
    let report = train_upsell(&data, output.path()).unwrap();
    // Then they are the committed ones, and each add-on is told apart among customers with
    // internet service, but not perfectly: that would mean the bill gave it away.
    assert_same_version("upsell", output.path(), &telco::read(&data).unwrap());
    let (with_internet, all): (Vec<_>, Vec<_>) = report
        .results
        .iter()
        .partition(|result| result.segment.contains("with internet service"));
    let targets = |results: &[&ReportResult]| -> Vec<String> {
        results.iter().map(|result| result.target.clone()).collect()
    };
    assert_eq!(targets(&with_internet), ADD_ONS);
    assert_eq!(targets(&all), ADD_ONS);
    for result in with_internet {
        let auc = result.metrics.roc_auc.value;
        assert!((0.72..0.90).contains(&auc), "{}: AUC {auc}", result.target);
    }
}

#[test]
fn an_add_on_s_own_column_does_not_change_its_affinity() {
    let Some(data) = telco_file() else { return };
    // Given customers, and the same customers with one add-on answered otherwise.
    let table = telco::read(&data).unwrap().select(&[0, 1, 2, 3, 4]);
    let scorer = committed_scorer("upsell");
    let before = scorer.score(&table).unwrap();
    for (output, add_on) in ADD_ONS.into_iter().enumerate() {
        let mut changed = table.clone();
        for column in &mut changed.columns {
            if column.name == add_on
                && let Values::Text(texts) = &mut column.values
            {
                for text in texts {
                    *text = if text == "Yes" { "No" } else { "Yes" }.to_owned();
                }
            }
        }
        // When both are scored.
        let after = scorer.score(&changed).unwrap();
        // Then the affinity for that add-on is the same and that for others is not.
        for row in 0..table.rows {
            let (before, after) = (&before.log_odds[row], &after.log_odds[row]);
            assert_eq!(before[output], after[output], "{add_on}, row {row}");
            assert_ne!(before, after, "{add_on}, row {row}");
        }
    }
}

#[test]
fn a_row_alone_scores_as_it_does_among_others() {
    let Some(data) = telco_file() else { return };
    // Given two hundred customers scored together.
    let table = telco::read(&data).unwrap();
    for model in ["churn", "upsell"] {
        let scorer = committed_scorer(model);
        let rows: Vec<usize> = (0..200).collect();
        let together = scorer.score(&table.select(&rows)).unwrap();
        for row in rows {
            // When each is scored alone, then the bits are the same.
            let alone = scorer.score(&table.select(&[row])).unwrap();
            assert_eq!(
                alone.log_odds[0], together.log_odds[row],
                "{model}, row {row}"
            );
            assert_eq!(alone.probabilities[0], together.probabilities[row]);
        }
    }
}

#[test]
fn golden_rows_are_invented_and_cover_the_odd_cases() {
    let Some(data) = telco_file() else { return };
    // Given the golden rows of both models and all customers of the published data.
    let customers = telco::read(&data).unwrap();
    for model in ["churn", "upsell"] {
        let text = std::fs::read_to_string(crate::common::committed(model, "golden.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows = golden["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 16);
        // When they are looked up among the customers, then none of them is one.
        for row in rows {
            for customer in 0..customers.rows {
                let same = customers.columns.iter().all(|column| {
                    let value = &row["inputs"][&column.name];
                    match &column.values {
                        Values::Text(texts) => value == &serde_json::json!(texts[customer]),
                        Values::Integer(numbers) => value == &serde_json::json!(numbers[customer]),
                        // Numbers that upsell does not take, and the target, decide nothing.
                        Values::Number(numbers) => {
                            value.is_null() || value.as_f64() == numbers[customer]
                        }
                        Values::Flag(_) => true,
                    }
                });
                assert!(!same, "a golden row of '{model}' is customer {customer}");
            }
        }
        assert!(text.contains("Something new"), "an unknown category");
        assert_eq!(text.contains("\"total_charges\":null"), model == "churn");
    }
}
