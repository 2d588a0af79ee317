//! `grpc.health.v1.Health`: what probes and load balancers ask.
//!
//! The status is the server's readiness, for the server as a whole (the empty name) and for each of
//! its services by name. It is written here, as two small messages, because the readiness changes
//! with the disk and the models and nobody tells: it has to be looked at.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::unfold;
use tonic::Status;

use super::codec::encode;
use super::messages::{HealthResponse, ServingStatus};
use super::stream::{Answers, LOOK};
use crate::features::value::shorten;
use crate::serve::App;

const SERVICES: [&str; 3] = [
    "",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
];

/// How long a watcher is kept after it was told that the server is stopping: it may not come back
/// at once only to hear the same.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The status of a service.
///
/// # Errors
/// NOT_FOUND for a service that is not here.
pub fn check(app: &App, service: &str) -> Result<HealthResponse, Status> {
    match status_of(app, service) {
        ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
            "service: expected \"\" or \"inference.GRPCInferenceService\", found {:?}",
            shorten(service, 100)
        ))),
        status => Ok(message(status)),
    }
}

/// The status of a service now, and again whenever it has changed, until the server stops.
pub fn watch(app: Arc<App>, service: &str) -> Answers {
    // Any name may be watched; one that is not here can be forgotten.
    let service = SERVICES.into_iter().find(|name| *name == service);
    let service = service.unwrap_or("unknown");
    let told: Option<ServingStatus> = None;
    Box::pin(unfold((app, told), move |(app, told)| async move {
        loop {
            let status = status_of(&app, service);
            if told != Some(status) {
                return Some((Ok(encode(&message(status))), (app, Some(status))));
            }
            if app.stopping.load(Ordering::Relaxed) {
                // An open stream would hold the shutdown up.
                tokio::time::sleep(LAST_WORD).await;
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }))
}

fn status_of(app: &App, service: &str) -> ServingStatus {
    if !SERVICES.contains(&service) {
        return ServingStatus::ServiceUnknown;
    }
    match app.not_ready().is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn message(status: ServingStatus) -> HealthResponse {
    HealthResponse {
        status: status.into(),
    }
}
