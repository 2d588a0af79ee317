//! Logs and metrics.
//!
//! Logs go to standard error: JSON lines, or plain text on a terminal. Metrics are kept by the
//! `metrics` crate and rendered for Prometheus at `/metrics`; those of models and stages are written
//! from where they are counted ([`exposition`]), those of scores in [`scores`]. Every name starts with
//! `bellwether_`. Neither ever holds a customer's key or a feature's value: labels are names from the
//! configuration only.

pub mod exposition;
pub mod scores;
pub mod timer;

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use self::scores::FEATURE_AGE;

/// Bucket bounds for durations, in seconds: 5 µs to 2.5 s.
const SECONDS: [f64; 18] = [
    5e-6, 1e-5, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4, 1.5e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2,
    0.25, 1.0, 2.5,
];

/// Bucket bounds for how late events are, in seconds: 10 ms to 30 days.
const LATENESS_SECONDS: [f64; 12] = [
    0.01,
    0.1,
    1.0,
    5.0,
    30.0,
    60.0,
    600.0,
    3_600.0,
    21_600.0,
    86_400.0,
    604_800.0,
    2_592_000.0,
];

/// Bucket bounds for the age of feature values, in seconds: a minute to a year.
const AGE_SECONDS: [f64; 9] = [
    60.0,
    3_600.0,
    21_600.0,
    86_400.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    31_536_000.0,
];

/// Starts logging; `BELLWETHER_LOG` holds the filter (`info` when unset).
pub fn start_logging() {
    let filter = std::env::var("BELLWETHER_LOG")
        .ok()
        .and_then(|filter| EnvFilter::try_new(filter).ok())
        .unwrap_or_else(|| EnvFilter::new("info,fjall=warn,lsm_tree=warn,async_nats=off"));
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
                .and_then(|builder| {
                    let lateness = "bellwether_event_lateness_seconds".to_owned();
                    builder.set_buckets_for_metric(Matcher::Full(lateness), &LATENESS_SECONDS)
                })
                .and_then(|builder| {
                    let age = Matcher::Full(FEATURE_AGE.to_owned());
                    builder.set_buckets_for_metric(age, &AGE_SECONDS)
                })
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
    crate::models::metrics::describe();
    describe_histogram!(
        "bellwether_http_seconds",
        "Time from request head to response, by route."
    );
    describe_counter!(
        "bellwether_score_batch_requests_total",
        "Requests with many customers, by outcome: done, failed (broke off), gone (the client took no more), \
         refused (before an answer), busy (too many at once)."
    );
    describe_counter!(
        "bellwether_score_batch_rows_total",
        "Rows of such requests, by outcome: scored, refused."
    );
    describe_gauge!(
        "bellwether_score_batch_in_flight",
        "Requests with many customers that run now."
    );
    describe_histogram!(
        "bellwether_model_load_seconds",
        "Time to build, check and warm one version of a model, or to refuse it."
    );
    describe_counter!(
        "bellwether_model_load_failures_total",
        "Versions that were refused when they were loaded."
    );
    describe_counter!(
        "bellwether_model_deploys_total",
        "Versions that were sent, by result: served, refused (its files), failed (anything else)."
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
    describe_counter!(
        "bellwether_feature_served_total",
        "Scores that used the feature."
    );
    describe_counter!(
        "bellwether_feature_out_of_range_total",
        "Scores that used a value outside the declared range."
    );
    describe_histogram!(
        FEATURE_AGE,
        "Age of stored values when they were used, of one score in sixteen."
    );
    describe_counter!(
        "bellwether_store_unavailable_total",
        "Operations that a shared store did not answer, or not in time: read, apply."
    );
    describe_counter!(
        "bellwether_store_defaults_total",
        "Scores answered with declared defaults because the store could not be read."
    );
    describe_counter!(
        "bellwether_store_conflicts_total",
        "Entities written again because another server had written them meanwhile."
    );
    describe_counter!(
        "bellwether_store_reconnects_total",
        "Connections to the shared store that were opened again."
    );
    describe_counter!(
        "bellwether_events_total",
        "Events, by source, view and outcome: accepted, duplicate, refused. An event that reaches several views is counted for each; one refused before that is known, for the view none."
    );
    describe_histogram!(
        "bellwether_event_lateness_seconds",
        "Time from when an event occurred to when it was taken, by source."
    );
    describe_counter!(
        "bellwether_ledger_rows_total",
        "Rows written to the ledger, by kind: prediction, inference, outcome."
    );
    describe_gauge!(
        "bellwether_ledger_queue_rows",
        "Rows waiting to be written to the ledger."
    );
    describe_counter!(
        "bellwether_store_cache_hits_total",
        "Entities of the embedded store that were found in memory."
    );
    describe_counter!(
        "bellwether_store_cache_misses_total",
        "Entities of the embedded store that were looked up on disk."
    );
    describe_counter!(
        "bellwether_store_duplicates_total",
        "Events that were recognised as sent again within 24 hours."
    );
    describe_counter!(
        "bellwether_store_replayed_total",
        "Changes that an entity had already when they were applied again."
    );
    describe_gauge!(
        "bellwether_store_entities_cached",
        "Entities that the embedded store has in memory."
    );
    describe_gauge!(
        "bellwether_store_cache_bytes",
        "Bytes of the entities in memory."
    );
    describe_gauge!(
        "bellwether_store_event_ids_bytes",
        "Bytes of memory for recognising events that are sent again."
    );
    describe_gauge!(
        "bellwether_store_rows_bytes",
        "Bytes of rows of the embedded store on their way to disk and from it."
    );
    describe_gauge!(
        "bellwether_store_entities_dirty",
        "Entities in memory that are newer than on disk."
    );
    describe_histogram!(
        "bellwether_store_checkpoint_seconds",
        "Time to write what has changed in the embedded store."
    );
    describe_histogram!(
        "bellwether_ledger_sync_seconds",
        "Time of one fsync of the ledger."
    );
    describe_counter!(
        "bellwether_denied_total",
        "Requests and calls refused for want of an API key, its scope or its rate."
    );
    describe_counter!(
        "bellwether_security_reload_errors_total",
        "Changed files of keys or certificates that could not be taken."
    );
    describe_counter!(
        "bellwether_tls_handshakes_failed_total",
        "Connections on which no TLS was agreed on."
    );
    describe_counter!(
        "bellwether_connections_given_up_total",
        "Connections whose client did not begin HTTP/2, or took nothing of an answer."
    );
    describe_counter!(
        "bellwether_grpc_streams_given_up_total",
        "gRPC answers of which their client took nothing more."
    );
    describe_gauge!(
        "bellwether_source_connected",
        "1 while a source of events is connected to its broker."
    );
    describe_gauge!(
        "bellwether_source_lag_messages",
        "Messages of a source that are not acknowledged yet, delivered or not."
    );
    describe_counter!(
        "bellwether_source_received_total",
        "Messages that a source delivered."
    );
    describe_counter!(
        "bellwether_source_redelivered_total",
        "Messages that a source delivered not for the first time."
    );
    describe_counter!(
        "bellwether_source_acknowledged_total",
        "Messages whose events are in the log and applied, or that are in the dead-letter file."
    );
    describe_counter!(
        "bellwether_source_dead_letters_total",
        "Messages of a source that were put into its dead-letter file."
    );
    describe_counter!(
        "bellwether_ledger_write_errors_total",
        "Failed writes of the ledger."
    );
    describe_gauge!(
        "bellwether_consistency_mismatch_rate",
        "Share of served values, of a sample, that differ from those recomputed from the log."
    );
    describe_gauge!(
        "bellwether_consistency_predictions",
        "Predictions that the last check recomputed."
    );
    describe_gauge!(
        "bellwether_consistency_feature_mismatch_rate",
        "The same share, by view and feature."
    );
    describe_gauge!(
        "bellwether_consistency_max_absolute_error",
        "Largest difference of a served number from the recomputed one, by view and feature."
    );
    describe_gauge!(
        "bellwether_consistency_max_relative_error",
        "The same relative to what was served."
    );
    describe_gauge!(
        "bellwether_backfill_entities",
        "Entities that the last backfill of a view has filled so far."
    );
    describe_counter!(
        "bellwether_consistency_failures_total",
        "Checks of consistency that could not be made."
    );
}
