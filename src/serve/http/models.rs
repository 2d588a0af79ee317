//! `GET /v1/models`: what is loaded and how it is scored.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::score::task_word;
use crate::models::catalog::Entry;
use crate::serve::App;

/// Every model version.
#[derive(Serialize, ToSchema)]
pub struct ModelsReply {
    models: Vec<ModelReply>,
}

/// One version folder.
#[derive(Serialize, ToSchema)]
pub struct ModelReply {
    name: String,
    version: String,
    /// "champion" answers when no version is named, "candidate" is another one that is ready,
    /// "unavailable" was refused.
    state: &'static str,
    /// Why it was refused or is not served as its files are now, or why it is served under /v2
    /// only.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'static str>,
    /// The feature view it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    /// The features its inputs are bound to.
    features: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    /// SHA-256 over model.onnx and model.toml, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// List every model version with its state.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "Every version folder", body = ModelsReply))
)]
pub async fn list_models(State(app): State<Arc<App>>) -> Json<ModelsReply> {
    let catalog = app.scorer.repository.catalog();
    let models = catalog.entries().map(|entry| {
        let champion = catalog
            .model(&entry.name)
            .and_then(|model| model.champion())
            .map(|version| version.version.as_str());
        describe(entry, champion == Some(entry.version.as_str()))
    });
    Json(ModelsReply {
        models: models.collect(),
    })
}

fn describe(entry: &Entry, is_champion: bool) -> ModelReply {
    let mut reply = ModelReply {
        name: entry.name.clone(),
        version: entry.version.clone(),
        state: if is_champion { "champion" } else { "candidate" },
        reason: None,
        task: None,
        view: None,
        features: Vec::new(),
        description: String::new(),
        digest: None,
    };
    let version = match &entry.state {
        Ok(version) => version,
        Err(reason) => {
            reply.state = "unavailable";
            reply.reason = Some(reason.clone());
            return reply;
        }
    };
    let not_reloaded = entry.not_reloaded.as_ref();
    reply.reason = not_reloaded.map(|problem| format!("served as it was before: {problem}"));
    reply.digest = Some(hex(&version.digest));
    if let Some(manifest) = &version.manifest {
        reply.description.clone_from(&manifest.model.description);
    }
    match &version.scoring {
        Ok(scoring) => {
            reply.task = Some(task_word(scoring.task));
            reply.view = Some(scoring.view.name.clone());
            let names = scoring.input_features.iter();
            reply.features = names
                .map(|&column| scoring.view.features()[column].name.clone())
                .collect();
        }
        Err(problems) => {
            let raw_only = format!("served under /v2 only: {}", problems.join("; "));
            let reason = reply.reason.take();
            reply.reason = Some(match reason {
                Some(reason) => format!("{reason}; {raw_only}"),
                None => raw_only,
            });
        }
    }
    reply
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
