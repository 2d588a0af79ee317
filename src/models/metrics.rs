//! Models and their versions for Prometheus.
//!
//! Written from the catalog when somebody asks, and remembered nowhere else: a version whose folder is
//! gone, that was retired or that the policy leaves out has no metrics any more. What was counted of it
//! goes on when it is loaded again.
//!
//! A score counts for the role that its version has when it is attributed, which is done once a second and
//! when somebody asks: one that is answered in the last second before a version changes its role may count
//! for the next. No request does any of this.

use metrics::{counter, describe_counter};

use super::catalog::{Catalog, Entry, Model};
use super::comparison::guardrails::Limits;
use super::comparison::shadow::ShadowReport;
use super::rollout::Role;
use crate::telemetry::exposition;
use crate::telemetry::exposition::{Exposition, Kind, Label, Metric};
use crate::telemetry::scores::STAGE_SECONDS;

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    exposition::Metric { name, kind, help }
}

static READY: Metric = metric(
    "bellwether_model_ready",
    Kind::Gauge,
    "1 for a version that is served, 0 for a refused or unloaded one.",
);
static ROLE: Metric = metric(
    "bellwether_model_role",
    Kind::Gauge,
    "1 for the role that a version has: champion, canary, shadow, candidate, retired.",
);
static CANARY_SHARE: Metric = metric(
    "bellwether_canary_share",
    Kind::Gauge,
    "Share of the customers that a model's canary answers, 0 to 1.",
);
static STAND_IN: Metric = metric(
    "bellwether_model_stand_in",
    Kind::Gauge,
    "1 while the champion of a model cannot answer, and the one before it does or none.",
);
static REQUESTS: Metric = metric(
    "bellwether_model_requests_total",
    Kind::Counter,
    "Customers that a version was run for, by model, version and role: champion, canary, shadow.",
);
static ERRORS: Metric = metric(
    "bellwether_model_errors_total",
    Kind::Counter,
    "Of these, those that it failed on. A canary's were answered by the champion.",
);
static SHADOW_DROPPED: Metric = metric(
    "bellwether_shadow_dropped_total",
    Kind::Counter,
    "Answers that a shadow version was not run on, because more waited than it keeps up with.",
);
static SHADOW_UNRECORDED: Metric = metric(
    "bellwether_shadow_unrecorded_total",
    Kind::Counter,
    "Scores of shadow versions that the ledger did not take, to keep its room for predictions.",
);
static SHADOW_DIFFERENCE: Metric = metric(
    "bellwether_shadow_score_difference",
    Kind::Gauge,
    "Mean absolute difference of a shadow version's scores from the served ones.",
);
static SHADOW_CORRELATION: Metric = metric(
    "bellwether_shadow_rank_correlation",
    Kind::Gauge,
    "Rank correlation of a shadow version's scores with the served ones, over the last 4,096.",
);
static SHADOW_DRIFT: Metric = metric(
    "bellwether_shadow_score_drift",
    Kind::Gauge,
    "Stability index of a shadow version's scores against the served ones, over the last 4,096.",
);
static SHADOW_FAULTS: Metric = metric(
    "bellwether_shadow_faults",
    Kind::Gauge,
    "What is wrong with a shadow version: 0 when nothing, 1 to 3 of failing, slow, drifting.",
);
static CANARY_DRIFT: Metric = metric(
    "bellwether_canary_score_drift",
    Kind::Gauge,
    "Stability index of a canary's scores against the champion's, over the guardrails' window.",
);
static INFERENCES: Metric = metric(
    "bellwether_inference_requests_total",
    Kind::Counter,
    "Inference requests under /v2, by model, version and outcome.",
);
static INFERENCE_ROWS: Metric = metric(
    "bellwether_inference_rows_total",
    Kind::Counter,
    "Rows of inference requests that succeeded, by model and version.",
);
static INFERENCE_NANOSECONDS: Metric = metric(
    "bellwether_inference_nanoseconds_total",
    Kind::Counter,
    "Time of inference requests that succeeded, by model, version and stage: queue, input, infer, output.",
);

/// Says what the metrics are that are not written here.
pub fn describe() {
    describe_counter!(
        "bellwether_rollbacks_total",
        "Canaries that the server rolled back by itself, by model and reason: error_rate, latency, score_drift."
    );
}

/// Writes everything down as it is now.
pub fn write(catalog: &Catalog, limits: &Limits, exposition: &mut Exposition) {
    attribute(catalog);
    for name in catalog.names() {
        let Some(model) = catalog.model(name) else {
            continue;
        };
        let canary = model.canary();
        let share = canary.map_or(0.0, |(canary, _)| canary.share.percent() / 100.0);
        exposition.gauge(&CANARY_SHARE, &[("model", name)], share);
        let stands_in = f64::from(model.stand_in().is_some());
        exposition.gauge(&STAND_IN, &[("model", name)], stands_in);
        for (number, entry) in model.numbered().filter(|(_, entry)| !entry.left_out) {
            let role = model.role(number);
            write_state(entry, role, exposition);
            write_counters(entry, exposition);
            write_comparisons(model, entry, role, limits, exposition);
        }
    }
}

/// Counts what was scored since this was last called for the roles that versions have now; takes a
/// microsecond for a version.
pub fn attribute(catalog: &Catalog) {
    for name in catalog.names() {
        let Some(model) = catalog.model(name) else {
            continue;
        };
        for (number, entry) in model.numbered() {
            let statistics = &entry.statistics;
            let scores = &statistics.scores;
            let (answered, failed) = (scores.answered_total(), scores.failed_total());
            let is_canary = model.role(number) == Role::Canary;
            statistics.watched.attribute(is_canary, answered, failed);
        }
    }
}

/// A canary was rolled back.
pub fn rolled_back(model: &str, reason: &'static str) {
    counter!("bellwether_rollbacks_total", "model" => model.to_owned(), "reason" => reason)
        .increment(1);
}

fn write_state(entry: &Entry, role: Role, exposition: &mut Exposition) {
    let labels = labels(entry);
    exposition.gauge(&READY, &labels, f64::from(entry.state.is_ok()));
    for other in Role::ALL {
        let labels = [labels[0], labels[1], ("role", other.word())];
        exposition.gauge(&ROLE, &labels, f64::from(role == other));
    }
}

fn write_counters(entry: &Entry, exposition: &mut Exposition) {
    let labels = labels(entry);
    let statistics = &entry.statistics;
    let with = |name: &'static str, value: &'static str| [labels[0], labels[1], (name, value)];
    let counts = statistics.read();
    for (outcome, count) in [("success", counts.succeeded), ("failure", counts.failed)] {
        exposition.count(&INFERENCES, &with("outcome", outcome), count);
    }
    exposition.count(&INFERENCE_ROWS, &labels, counts.rows);
    for (stage, ns) in [
        ("queue", counts.queue_ns),
        ("input", counts.input_ns),
        ("infer", counts.infer_ns),
        ("output", counts.output_ns),
    ] {
        exposition.count(&INFERENCE_NANOSECONDS, &with("stage", stage), ns);
    }
    let of_stage = [("stage", "model"), labels[0], labels[1]];
    exposition.histogram(&STAGE_SECONDS, &of_stage, &statistics.took);

    let attributed = statistics.watched.attributed();
    for (role, outcomes) in [
        ("champion", attributed.champion),
        ("canary", attributed.canary),
        ("shadow", attributed.shadow),
    ] {
        if outcomes.requests > 0 {
            exposition.count(&REQUESTS, &with("role", role), outcomes.requests);
            exposition.count(&ERRORS, &with("role", role), outcomes.errors);
        }
    }
    if attributed.was_shadow {
        exposition.count(&SHADOW_DROPPED, &labels, attributed.dropped);
        exposition.count(&SHADOW_UNRECORDED, &labels, attributed.unrecorded);
    }
}

/// How a version does that is on trial.
fn write_comparisons(
    model: &Model,
    entry: &Entry,
    role: Role,
    limits: &Limits,
    exposition: &mut Exposition,
) {
    let labels = labels(entry);
    if let Some(comparison) = entry.statistics.watched.shadow() {
        let report = comparison.report(limits);
        for (metric, value) in shadow_gauges(&report) {
            exposition.gauge(metric, &labels, value);
        }
    }
    if let Some(watch) = model.watch().filter(|_| role == Role::Canary) {
        let drift = watch.report().score_drift.unwrap_or(0.0);
        exposition.gauge(&CANARY_DRIFT, &labels, drift);
    }
}

fn shadow_gauges(report: &ShadowReport) -> [(&'static Metric, f64); 4] {
    [
        (&SHADOW_DIFFERENCE, report.difference.mean_absolute),
        (&SHADOW_CORRELATION, report.rank_correlation.unwrap_or(0.0)),
        (&SHADOW_DRIFT, report.score_drift.unwrap_or(0.0)),
        (&SHADOW_FAULTS, report.faults.len() as f64),
    ]
}

fn labels(entry: &Entry) -> [Label<'_>; 2] {
    [("model", &entry.name), ("version", &entry.version)]
}
