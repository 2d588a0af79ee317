//! `POST /v1/features/reload`: view files read again while the server serves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use crate::serve::App;

/// What is in force.
#[derive(Serialize, ToSchema)]
pub struct ReloadReply {
    /// The views that are new, or other than before.
    changed: Vec<String>,
    /// All views.
    views: Vec<String>,
}

/// Read the view files again.
///
/// Requests in flight are answered by the views they began with. New windows count from now on; fill
/// them from history with a backfill.
#[utoipa::path(
    post, path = "/v1/features/reload", tag = "features",
    responses(
        (status = 200, description = "The files are in force", body = ReloadReply),
        (status = 503, description = "A backfill or a training set is being made", body = ErrorBody),
        (status = 422, description = "A file is wrong, or a model that is served does not fit; what was in force still is", body = ErrorBody),
    )
)]
pub async fn reload(State(app): State<Arc<App>>) -> Result<Json<ReloadReply>, ApiError> {
    // A backfill fills the windows of the views it began with.
    let Ok(place) = Arc::clone(&app.history).try_acquire_owned() else {
        let problem = "a backfill or a training set is being made; reload when it is done";
        return Err(ApiError::unavailable(problem.to_owned(), 10));
    };
    let reloading = Arc::clone(&app);
    let reloaded = tokio::task::spawn_blocking(move || {
        let _place = place;
        reloading.reload_views()
    })
    .await;
    let reloaded = reloaded
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let changed = reloaded.map_err(|problems| ApiError::unprocessable(problems.join("; ")))?;
    let views = app.scorer.views();
    Ok(Json(ReloadReply {
        changed,
        views: views.all().iter().map(|view| view.name.clone()).collect(),
    }))
}
