//! RepositoryModelLoad and RepositoryModelUnload: models come and go while requests run.

use tonic::Status;

use super::messages::{Empty, RepositoryModelRequest};
use super::status::shortened;
use crate::models::repository::{ChangeError, refuse_override};
use crate::serve::App;

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

fn refusal(error: ChangeError) -> Status {
    let message = shortened(&error.to_string());
    match error {
        ChangeError::UnknownModel { .. } => Status::not_found(message),
        // The request is right, and what lies in the folder is not.
        ChangeError::NotLoaded { .. } => Status::failed_precondition(message),
    }
}
