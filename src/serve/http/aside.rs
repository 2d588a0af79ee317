//! Answers that take a while to put together, on a thread beside those that serve.
//!
//! A list of some hundred versions with their comparisons takes milliseconds, in which the connections of
//! the same thread would wait.

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::error::ApiError;

/// How many are put together at a time. Others wait, without a thread.
static PLACES: Semaphore = Semaphore::const_new(2);

/// What `work` comes to.
///
/// # Errors
/// When it was not finished, which is a defect, or the server is shutting down.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let place = PLACES.acquire().await;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    let done = done.await;
    done.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
