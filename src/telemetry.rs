//! Logs and metrics.
//!
//! Logs go to standard error: JSON lines, or plain text on a terminal. Metrics are kept by the
//! `metrics` crate and rendered for Prometheus at `/metrics`; every name starts with
//! `bellwether_`. Neither ever holds a customer's key or a feature's value: labels are names from
//! the configuration only.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::features::views::Views;
use crate::models::version::ModelVersion;

/// Bucket bounds for durations, in seconds: 5 µs to 2.5 s.
const SECONDS: [f64; 18] = [
    5e-6, 1e-5, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4, 1.5e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2,
    0.25, 1.0, 2.5,
];

/// Starts logging; `BELLWETHER_LOG` holds the filter (`info` when unset).
pub fn start_logging() {
    let filter = std::env::var("BELLWETHER_LOG")
        .ok()
        .and_then(|filter| EnvFilter::try_new(filter).ok())
        .unwrap_or_else(|| EnvFilter::new("info,fjall=warn,lsm_tree=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start (tests run several servers in one process) leaves the first in place.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_target(false)
            .try_init()
    };
}

/// Starts collecting metrics, once per process.
///
/// # Errors
/// When another recorder is already installed in this process.
pub fn start_metrics() -> Result<PrometheusHandle, String> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .map_err(|error| error.to_string())?;
            let handle = builder
                .install_recorder()
                .map_err(|error| error.to_string())?;
            describe();
            Ok(handle)
        })
        .clone()
}

fn describe() {
    describe_histogram!(
        "bellwether_stage_seconds",
        "Time of one stage of a score: store, features, model (by model and version), ledger."
    );
    describe_histogram!(
        "bellwether_http_seconds",
        "Time from request head to response, by route."
    );
    describe_counter!(
        "bellwether_http_requests_total",
        "Requests answered, by route and status."
    );
    describe_histogram!(
        "bellwether_grpc_seconds",
        "Time from request head to answer, by gRPC call; of a stream, to its beginning."
    );
    describe_counter!(
        "bellwether_grpc_requests_total",
        "gRPC calls answered, by call and code."
    );
    describe_gauge!("bellwether_requests_in_flight", "Requests that run now.");
    describe_gauge!(
        "bellwether_requests_waiting",
        "Requests that wait for a place."
    );
    describe_counter!(
        "bellwether_feature_missing_total",
        "Scores that used a feature without a value."
    );
    describe_counter!(
        "bellwether_feature_stale_total",
        "Scores that used a value over its max_age."
    );
    describe_counter!(
        "bellwether_feature_unknown_total",
        "Scores that used a value not among the declared ones."
    );
    describe_gauge!(
        "bellwether_model_ready",
        "1 for a version that is served, 0 for a refused or unloaded one."
    );
    describe_counter!(
        "bellwether_inference_requests_total",
        "Inference requests under /v2, by model, version and outcome."
    );
    describe_counter!(
        "bellwether_inference_rows_total",
        "Rows of inference requests that succeeded, by model and version."
    );
    describe_counter!(
        "bellwether_inference_nanoseconds_total",
        "Time of inference requests that succeeded, by model, version and stage: queue, input, infer, output."
    );
    describe_counter!(
        "bellwether_ledger_rows_total",
        "Rows written to the ledger, by kind: prediction, inference, outcome."
    );
    describe_gauge!(
        "bellwether_ledger_queue_rows",
        "Rows waiting to be written to the ledger."
    );
    describe_histogram!(
        "bellwether_ledger_sync_seconds",
        "Time of one fsync of the ledger."
    );
    describe_counter!(
        "bellwether_ledger_write_errors_total",
        "Failed writes of the ledger."
    );
}

/// The stages of a score that are not a model's.
pub struct StageTimers {
    store: Histogram,
    features: Histogram,
    ledger: Histogram,
}

impl Default for StageTimers {
    fn default() -> Self {
        let stage =
            |name: &'static str| metrics::histogram!("bellwether_stage_seconds", "stage" => name);
        StageTimers {
            store: stage("store"),
            features: stage("features"),
            ledger: stage("ledger"),
        }
    }
}

impl StageTimers {
    /// Records the store stage, begun at `since`; returns the start of the next stage.
    pub fn store(&self, since: Instant) -> Instant {
        lap(&self.store, since)
    }

    /// Records the features stage.
    pub fn features(&self, since: Instant) -> Instant {
        lap(&self.features, since)
    }

    /// Records the run of one model version.
    pub fn model(&self, version: &ModelVersion, since: Instant) -> Instant {
        lap(&version.latency, since)
    }

    /// Records the ledger stage.
    pub fn ledger(&self, since: Instant) -> Instant {
        lap(&self.ledger, since)
    }
}

/// The histogram of one model version's stage.
pub fn model_latency(name: &str, version: &str) -> Histogram {
    metrics::histogram!(
        "bellwether_stage_seconds",
        "stage" => "model", "model" => name.to_owned(), "version" => version.to_owned()
    )
}

/// Says whether a version is served.
pub fn model_is_ready(name: &str, version: &str, ready: bool) {
    metrics::gauge!(
        "bellwether_model_ready", "model" => name.to_owned(), "version" => version.to_owned()
    )
    .set(if ready { 1.0 } else { 0.0 });
}

fn lap(histogram: &Histogram, since: Instant) -> Instant {
    let now = Instant::now();
    histogram.record(now.duration_since(since));
    now
}

/// Counters of feature quality, by column of the customer view.
pub struct FeatureCounters {
    missing: Vec<Counter>,
    stale: Vec<Counter>,
    unknown: Vec<Counter>,
}

impl FeatureCounters {
    pub fn new(views: &Views, entity: &str) -> FeatureCounters {
        let of = |metric: &'static str| {
            let view = views.of_entity(entity).into_iter();
            view.flat_map(|view| view.stored_features().iter().map(move |feature| (view, feature)))
                .map(|(view, feature)| {
                    counter!(metric, "view" => view.name.clone(), "feature" => feature.name.clone())
                })
                .collect()
        };
        FeatureCounters {
            missing: of("bellwether_feature_missing_total"),
            stale: of("bellwether_feature_stale_total"),
            unknown: of("bellwether_feature_unknown_total"),
        }
    }

    pub fn missing(&self, column: usize) {
        self.missing[column].increment(1);
    }

    pub fn stale(&self, column: usize) {
        self.stale[column].increment(1);
    }

    pub fn unknown(&self, column: usize) {
        self.unknown[column].increment(1);
    }
}
