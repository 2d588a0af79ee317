//! Health and metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::aside::aside;
use super::error::ApiError;
use crate::models;
use crate::serve::App;
use crate::telemetry::exposition::Exposition;

/// The state of the server.
#[derive(Serialize, ToSchema)]
pub struct HealthReply {
    /// Whether the answer to the question is yes.
    pub ok: bool,
    /// Why not; empty when it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// Is the process alive?
#[utoipa::path(
    get, path = "/livez", tag = "operation",
    responses((status = 200, description = "It answers", body = HealthReply))
)]
pub async fn livez() -> Json<HealthReply> {
    Json(HealthReply {
        ok: true,
        reasons: Vec::new(),
    })
}

/// Can it score?
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, description = "Ready", body = HealthReply),
        (status = 503, description = "Not ready; the reasons are listed", body = HealthReply),
    )
)]
pub async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<HealthReply>) {
    let reasons = app.not_ready();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(HealthReply {
            ok: reasons.is_empty(),
            reasons,
        }),
    )
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    let text = aside(move || render_metrics(&app)).await?;
    Ok((content_type, text))
}

fn render_metrics(app: &App) -> String {
    metrics::gauge!("bellwether_requests_in_flight").set(app.admission.in_flight() as f64);
    metrics::gauge!("bellwether_requests_waiting").set(app.admission.waiting() as f64);
    let mut exposition = Exposition::default();
    app.scorer.timers.write(&mut exposition);
    let catalog = app.scorer.repository.catalog();
    let limits = app.config.rollout.guardrails();
    models::metrics::write(&catalog, &limits, &mut exposition);
    exposition.finish() + &app.metrics.render()
}
