//! The consistency of a running server: every now and then a sample of its recent predictions is
//! recomputed from the log, and what differs is a metric.
//!
//! It runs on a thread of its own and reads the ledger from the start, so it passes over ledgers larger
//! than the configuration allows. Labels are names of views and features from the configuration.

use std::path::PathBuf;
use std::time::Instant;

use super::consistency::{Consistency, ConsistencyReport};
use super::plan::Bounds;
use crate::config::HistoryConfig;
use crate::features::views::Views;
use crate::ledger::ledger_directory;

/// Checks the predictions made since `since_us` once. Blocks until it is done, and says what it found
/// in metrics and, when anything differs, in the log.
pub fn check_once(views: Views, data_dir: PathBuf, config: &HistoryConfig, since_us: i64) {
    let bytes = ledger_bytes(&data_dir);
    if bytes > config.consistency_max_log_bytes {
        tracing::warn!(
            bytes,
            limit = config.consistency_max_log_bytes,
            "the ledger is too large to recompute served values beside serving; run \
             `bellwether ledger consistency`"
        );
        return;
    }
    let check = Consistency {
        bounds: Bounds {
            temp_bytes: config.temp_bytes,
            memory_bytes: config.memory_bytes,
            temp_dir: data_dir.join("tmp"),
        },
        data_dir,
        views,
        sample: config.consistency_sample,
        since_us,
    };
    let started = Instant::now();
    match check.check() {
        Ok(report) => publish(&report, started),
        Err(error) => {
            metrics::counter!("bellwether_consistency_failures_total").increment(1);
            tracing::warn!(error = %error, "served values could not be recomputed");
        }
    }
}

fn publish(report: &ConsistencyReport, started: Instant) {
    metrics::gauge!("bellwether_consistency_predictions").set(report.predictions as f64);
    metrics::gauge!("bellwether_consistency_mismatch_rate").set(report.mismatch_rate);
    for feature in &report.features {
        let labels = [
            ("view", feature.view.clone()),
            ("feature", feature.feature.clone()),
        ];
        let rate = feature.mismatched as f64 / feature.values.max(1) as f64;
        metrics::gauge!("bellwether_consistency_feature_mismatch_rate", &labels).set(rate);
        metrics::gauge!("bellwether_consistency_max_absolute_error", &labels)
            .set(feature.max_absolute_error);
        metrics::gauge!("bellwether_consistency_max_relative_error", &labels)
            .set(feature.max_relative_error);
    }
    let seconds = started.elapsed().as_secs_f64();
    if report.mismatched_values > 0 {
        tracing::warn!(
            predictions = report.predictions,
            values = report.values,
            mismatched = report.mismatched_values,
            other_view_version = report.other_view_version,
            seconds,
            "served values differ from those recomputed from the log"
        );
    } else {
        tracing::debug!(predictions = report.predictions, seconds, "consistent");
    }
}

/// How large the ledger is, as far as its files say; 0 when there is none.
fn ledger_bytes(data_dir: &std::path::Path) -> u64 {
    let Ok(files) = std::fs::read_dir(ledger_directory(data_dir)) else {
        return 0;
    };
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    sizes.sum()
}
