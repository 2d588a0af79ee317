//! RepositoryModelLoad and RepositoryModelUnload: models come and go while requests run.

use std::sync::Arc;

use serde_json::Value as Json;
use tonic::Status;

use super::messages::{Empty, RepositoryModelRequest};
use super::status::shortened;
use crate::models::repository::{ChangeError, refuse_override};
use crate::serve::App;
use crate::serve::auth::Caller;
use crate::serve::auth::audit::Act;

/// Loads a model, or loads it again, from its folder.
///
/// # Errors
/// A parameter would bring files or settings along, there is no such folder, or a version in it
/// cannot be loaded: it goes on as it was served before.
pub async fn load(
    app: &Arc<App>,
    caller: &Caller,
    asked: RepositoryModelRequest,
) -> Result<Empty, Status> {
    for parameter in asked.parameters.keys() {
        refuse_override(parameter).map_err(Status::invalid_argument)?;
    }
    let act = act(caller, "RepositoryModelLoad", &asked);
    let work = Arc::clone(app);
    recorded(app, act, async move {
        let loaded = work.scorer.repository.load_aside(asked.model_name).await;
        loaded.map_err(refusal)
    })
    .await
}

/// Takes a model out of service; one that is not there is out of service already.
///
/// # Errors
/// When the change could not be made.
pub async fn unload(
    app: &Arc<App>,
    caller: &Caller,
    asked: RepositoryModelRequest,
) -> Result<Empty, Status> {
    let act = act(caller, "RepositoryModelUnload", &asked);
    let work = Arc::clone(app);
    recorded(app, act, async move {
        let unloaded = work.scorer.repository.unload_aside(asked.model_name).await;
        unloaded.map_err(refusal)
    })
    .await
}

fn act(caller: &Caller, call: &str, asked: &RepositoryModelRequest) -> Act {
    Act {
        actor: caller.to_string(),
        action: format!("gRPC {call}"),
        subject: asked.model_name.clone(),
    }
}

/// Does the work, also when the caller goes away, and answers once its row is on the disk.
async fn recorded(
    app: &Arc<App>,
    act: Act,
    work: impl Future<Output = Result<(), Status>> + Send + 'static,
) -> Result<Empty, Status> {
    if !app.scorer.ledger.healthy() {
        return Err(Status::unavailable(
            "nothing was done: the ledger takes no rows now, so it could not be recorded",
        ));
    }
    let owner = Arc::clone(app);
    let app = Arc::clone(app);
    let finished = owner.finishing.finish(async move {
        let done = work.await;
        let outcome = match &done {
            Ok(()) => "done",
            Err(status) => status.message(),
        };
        match act.record(&app.scorer.ledger, outcome, &Json::Null).await {
            Ok(()) => done,
            Err(problem) => Err(Status::unavailable(format!(
                "answered with {outcome:?}, but not recorded: {problem}"
            ))),
        }
    });
    let done = finished
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    done.map(|()| Empty {})
}

fn refusal(error: ChangeError) -> Status {
    let message = shortened(&error.to_string());
    match error {
        ChangeError::UnknownModel { .. } => Status::not_found(message),
        // The request is right, and what lies in the folder is not.
        ChangeError::NotLoaded { .. } => Status::failed_precondition(message),
    }
}
