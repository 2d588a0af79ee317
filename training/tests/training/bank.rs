//! The trainer on data with a time axis: as good as scikit-learn on the same split.

use crate::common::{ScratchDirectory, shared_file};
use bellwether_training::train_bank;

/// AUC of scikit-learn 1.9.1 on the same split, its default pipeline (see reference_bank.py).
const SCIKIT_LEARN_AUC: f64 = 0.748_321;
/// The same run to convergence. The default stops early, which on this data happens to rank the
/// later rows a little better.
const SCIKIT_LEARN_AUC_CONVERGED: f64 = 0.744_910;

#[test]
fn bank_marketing_ranks_as_scikit_learn_does() {
    let Some(data) = shared_file("data/bank-marketing/bank-additional-full.csv.gz") else {
        return;
    };
    // Given the contacts in date order, compressed as published.
    let output = ScratchDirectory::new("bank");
    // When the model is trained on the first 80 % and evaluated on the last 20 %.
    let report = train_bank(&data, output.path()).unwrap();
    // Then it ranks as well as scikit-learn's, and equals its converged model.
    let auc = report.results[0].metrics.roc_auc.value;
    assert!((auc - SCIKIT_LEARN_AUC).abs() < 0.005, "AUC {auc}");
    assert!((auc - SCIKIT_LEARN_AUC_CONVERGED).abs() < 2e-4, "AUC {auc}");
    assert_eq!((report.training_rows, report.holdout_rows), (32950, 8238));
    // And it says that the later rows have another level.
    assert!(report.to_markdown().contains("must be recalibrated"));
}
