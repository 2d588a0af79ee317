//! `POST /v1/features/{view}/backfill`: windows that were declared later than the events they reach
//! back to, filled from the log while the server serves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use super::training_sets::{refusal, view_called};
use crate::history::{Backfill, Bounds};
use crate::priority;
use crate::serve::App;

/// What was filled.
#[derive(Serialize, ToSchema)]
pub struct BackfillReply {
    view: String,
    /// Entities whose windows lacked earlier events and do not any more.
    filled: u64,
    seconds: f64,
}

/// Fill the new windows of a view from history.
///
/// Answers when it is done; goes on when the caller does not wait. What was filled is not filled again.
#[utoipa::path(
    post, path = "/v1/features/{view}/backfill", tag = "features",
    params(("view" = String, Path, description = "The feature view")),
    responses(
        (status = 200, description = "Every entity has what the log has", body = BackfillReply),
        (status = 404, description = "Unknown view", body = ErrorBody),
        (status = 429, description = "History is being read for something else", body = ErrorBody),
        (status = 503, description = "The log cannot be read or the store not be filled now", body = ErrorBody),
    )
)]
pub async fn backfill(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<Json<BackfillReply>, ApiError> {
    let view = view_called(&app, &name)?;
    let Ok(place) = Arc::clone(&app.history).try_acquire_owned() else {
        return Err(ApiError::busy(
            "history is being read for something else; try again later",
            30,
        ));
    };
    let work = Backfill {
        store: Arc::clone(&app.scorer.store),
        view,
        data_dir: app.config.data_dir.clone(),
        bounds: Bounds {
            temp_bytes: app.config.history.temp_bytes,
            memory_bytes: app.config.history.memory_bytes,
            temp_dir: app.config.data_dir.join("tmp"),
        },
    };
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("backfill".to_owned())
        .spawn(move || {
            priority::lower();
            let labels = [("view", work.view.name.clone())];
            let filled = metrics::gauge!("bellwether_backfill_entities", &labels);
            let report = work.run(|entities| filled.set(entities as f64));
            match &report {
                Ok(report) => tracing::info!(
                    view = report.view,
                    entities = report.filled,
                    seconds = report.seconds,
                    "windows were filled from history"
                ),
                Err(error) => tracing::warn!(error = %error, "a backfill ended early"),
            }
            // Held until it is done, also when the client is gone by then; free when it is told.
            drop(place);
            // Nobody waits any more when this fails.
            let _ = reply.send(report);
        })
        .map_err(|error| ApiError::unavailable(format!("no thread: {error}"), 5))?;
    let report = answer.await.map_err(|_| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the backfill ended early; the log of the server says why",
        )
    })?;
    let report = report.map_err(refusal)?;
    Ok(Json(BackfillReply {
        view: report.view,
        filled: report.filled,
        seconds: report.seconds,
    }))
}
