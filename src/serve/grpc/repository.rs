//! RepositoryModelLoad and RepositoryModelUnload: models come and go while requests run.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use serde_json::Value as Json;
use tonic::Status;

use super::messages::{Empty, RepositoryModelRequest};
use super::status::shortened;
use crate::models::repository::{ChangeError, refuse_override};
use crate::serve::App;
use crate::serve::auth::audit::Act;

/// Loads a model, or loads it again, from its folder.
///
/// # Errors
/// A parameter would bring files or settings along, there is no such folder, or a version in it
/// cannot be loaded: it goes on as it was served before.
pub async fn load(app: &App, asked: RepositoryModelRequest) -> Result<Empty, Status> {
    for parameter in asked.parameters.keys() {
        refuse_override(parameter).map_err(Status::invalid_argument)?;
    }
    let loaded = app.scorer.repository.load_aside(asked.model_name).await;
    loaded.map(|()| Empty {}).map_err(refusal)
}

/// Takes a model out of service; one that is not there is out of service already.
///
/// # Errors
/// When the change could not be made.
pub async fn unload(app: &App, asked: RepositoryModelRequest) -> Result<Empty, Status> {
    let unloaded = app.scorer.repository.unload_aside(asked.model_name).await;
    unloaded.map(|()| Empty {}).map_err(refusal)
}

/// Answers a call that changes something, also when the caller goes away, and whatever comes of it: once
/// its row is on the disk. Its message has to come `within` that time; the work takes as long as it
/// takes.
pub async fn recorded(
    app: &Arc<App>,
    act: Act,
    within: Duration,
    answered: impl Future<Output = Response> + Send + 'static,
) -> Response {
    if !app.scorer.ledger.healthy() {
        return Status::unavailable(
            "nothing was done: the ledger takes no rows now, so it could not be recorded",
        )
        .into_http();
    }
    let subject = Arc::clone(&act.subject);
    let under_way = act.begin(&app.scorer.ledger);
    let finished = app.finishing.finish(async move {
        let mut answered = std::pin::pin!(answered);
        let response = match tokio::time::timeout(within, &mut answered).await {
            Ok(response) => response,
            Err(_) if subject.get().is_some() => answered.await,
            Err(_) => Status::deadline_exceeded("the message did not come in time").into_http(),
        };
        let refused = Status::from_header_map(response.headers());
        let outcome = refused.as_ref().map_or("done", Status::message);
        match under_way.record(outcome, &Json::Null).await {
            Ok(()) => response,
            Err(problem) => Status::unavailable(format!(
                "answered with {outcome:?}, but not recorded: {problem}"
            ))
            .into_http(),
        }
    });
    let response = finished.await;
    response.unwrap_or_else(|error| Status::internal(error.to_string()).into_http())
}

fn refusal(error: ChangeError) -> Status {
    let message = shortened(&error.to_string());
    match error {
        ChangeError::UnknownModel { .. } => Status::not_found(message),
        // The request is right, and what lies in the folder is not.
        ChangeError::NotLoaded { .. } => Status::failed_precondition(message),
    }
}
