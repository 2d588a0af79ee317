//! The comparisons for Prometheus.
//!
//! Handed over when they are asked for and once a second, never by a request. A score counts for the role
//! that its version has then: one that is answered in the last second before a version changes its role
//! may count for the next. When a version loses its role its gauges are set to 0.

use metrics::{SharedString, counter, describe_counter, describe_gauge, gauge};

use super::guardrails::Limits;
use crate::models::catalog::{Catalog, Entry, Model};

/// Says what the metrics are.
pub fn describe() {
    describe_counter!(
        "bellwether_model_requests_total",
        "Customers that a version was run for, by model, version and role: champion, canary, shadow."
    );
    describe_counter!(
        "bellwether_model_errors_total",
        "Of these, those that it failed on. A canary's were answered by the champion."
    );
    describe_counter!(
        "bellwether_shadow_dropped_total",
        "Answers that a shadow version was not run on, because more waited than it keeps up with."
    );
    describe_counter!(
        "bellwether_shadow_unrecorded_total",
        "Scores of shadow versions that the ledger did not take, to keep its room for predictions."
    );
    describe_gauge!(
        "bellwether_shadow_score_difference",
        "Mean absolute difference of a shadow version's scores from the served ones."
    );
    describe_gauge!(
        "bellwether_shadow_rank_correlation",
        "Rank correlation of a shadow version's scores with the served ones, over the last 4,096."
    );
    describe_gauge!(
        "bellwether_shadow_score_drift",
        "Stability index of a shadow version's scores against the served ones, over the last 4,096."
    );
    describe_gauge!(
        "bellwether_shadow_faults",
        "What is wrong with a shadow version: 0 when nothing, 1 to 3 of failing, slow, drifting."
    );
    describe_gauge!(
        "bellwether_canary_score_drift",
        "Stability index of a canary's scores against the champion's, over the guardrails' window."
    );
    describe_counter!(
        "bellwether_rollbacks_total",
        "Canaries that the server rolled back by itself, by model and reason: error_rate, latency, score_drift."
    );
}

/// Hands over what has come since the last time, and the gauges as they are now.
pub fn publish(catalog: &Catalog, limits: &Limits) {
    count(catalog);
    for_each(catalog, |model, entry| {
        let watched = &entry.statistics.watched;
        let (name, version) = labels(entry);
        let set = |metric: &'static str, value: f64| {
            gauge!(metric, "model" => name.clone(), "version" => version.clone()).set(value);
        };
        let shadow = watched.shadow();
        let is_watched = shadow.is_some() || watched.canary().is_some();
        let was_watched = watched.set_gauges(is_watched);
        if let Some(comparison) = shadow {
            let report = comparison.report(limits);
            set(
                "bellwether_shadow_score_difference",
                report.difference.mean_absolute,
            );
            let correlation = report.rank_correlation.unwrap_or(0.0);
            set("bellwether_shadow_rank_correlation", correlation);
            set(
                "bellwether_shadow_score_drift",
                report.score_drift.unwrap_or(0.0),
            );
            set("bellwether_shadow_faults", report.faults.len() as f64);
        } else if was_watched {
            for metric in [
                "bellwether_shadow_score_difference",
                "bellwether_shadow_rank_correlation",
                "bellwether_shadow_score_drift",
                "bellwether_shadow_faults",
            ] {
                set(metric, 0.0);
            }
        }
        let watch = model.watch().filter(|_| is_canary(model, entry));
        if let Some(watch) = watch {
            let drift = watch.report().score_drift.unwrap_or(0.0);
            set("bellwether_canary_score_drift", drift);
        } else if was_watched {
            set("bellwether_canary_score_drift", 0.0);
        }
    });
}

/// Hands over the counters only, which takes a microsecond for a version.
pub fn count(catalog: &Catalog) {
    for_each(catalog, |model, entry| {
        let watched = &entry.statistics.watched;
        let (name, version) = labels(entry);
        let add = |role: &'static str, requests: u64, errors: u64| {
            if requests + errors == 0 {
                return;
            }
            let requests_total = counter!(
                "bellwether_model_requests_total",
                "model" => name.clone(), "version" => version.clone(), "role" => role
            );
            requests_total.increment(requests + errors);
            let errors_total = counter!(
                "bellwether_model_errors_total",
                "model" => name.clone(), "version" => version.clone(), "role" => role
            );
            errors_total.increment(errors);
        };
        let scores = &entry.statistics.scores;
        let (answered, failed) =
            watched.unpublished(scores.answered_total(), scores.failed_total());
        let role = match is_canary(model, entry) {
            true => "canary",
            false => "champion",
        };
        add(role, answered, failed);
        if let Some(comparison) = watched.shadow() {
            let new = comparison.unpublished();
            add("shadow", new.pairs, new.errors);
            let of_shadow = |metric: &'static str, count: u64| {
                counter!(metric, "model" => name.clone(), "version" => version.clone())
                    .increment(count);
            };
            of_shadow("bellwether_shadow_dropped_total", new.dropped);
            of_shadow("bellwether_shadow_unrecorded_total", new.unrecorded);
        }
    });
}

/// A canary was rolled back.
pub fn rolled_back(model: &str, reason: &'static str) {
    counter!("bellwether_rollbacks_total", "model" => model.to_owned(), "reason" => reason)
        .increment(1);
}

fn for_each(catalog: &Catalog, each: impl Fn(&Model, &Entry)) {
    for name in catalog.names() {
        if let Some(model) = catalog.model(name) {
            model.entries().for_each(|entry| each(model, entry));
        }
    }
}

fn is_canary(model: &Model, entry: &Entry) -> bool {
    let canary = model.canary();
    canary.is_some_and(|(_, version)| version.version == entry.version)
}

fn labels(entry: &Entry) -> (SharedString, SharedString) {
    (entry.name.clone().into(), entry.version.clone().into())
}
