//! What is served, as messages: the server, its models, the repository. The words are those of
//! [`crate::models::describe`], which HTTP writes as JSON.

use std::sync::Arc;

use tonic::Status;

use super::messages::{
    InferStatistics, ModelIndex, ModelMetadataResponse, ModelRequest, ModelStatistics,
    ModelStatisticsResponse, ReadyResponse, RepositoryIndexResponse, ServerMetadataResponse,
    StatisticDuration, TensorMetadata,
};
use super::status;
use crate::infer::error::{InferError, Kind};
use crate::models::catalog::FindError;
use crate::models::describe;
use crate::models::version::ModelVersion;
use crate::serve::App;

/// After how long asking again for a version that is not ready makes sense.
const NOT_READY_RETRY_S: u32 = 5;

/// The version that is asked for; the one that answers by itself when `version` is empty.
///
/// # Errors
/// There is none, or it is not ready.
pub fn find(app: &App, name: &str, version: &str) -> Result<Arc<ModelVersion>, InferError> {
    let found = app.scorer.repository.find(name, named(version));
    found.map_err(refusal)
}

/// gRPC tells what is not there from what is not ready.
fn refusal(error: FindError) -> InferError {
    let kind = match error {
        FindError::UnknownModel { .. } | FindError::UnknownVersion { .. } => Kind::NotFound,
        FindError::NotReady { .. } => Kind::Unavailable {
            retry_after_s: NOT_READY_RETRY_S,
        },
    };
    InferError::new(kind, error.to_string())
}

/// Empty text is how the protocol leaves a name out.
fn named(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// Whether the server is ready.
pub fn server_ready(app: &App) -> ReadyResponse {
    ReadyResponse {
        ready: app.not_ready().is_empty(),
    }
}

/// Whether a version is ready. One that does not exist is not: clients ask before they load it.
pub fn model_ready(app: &App, asked: &ModelRequest) -> ReadyResponse {
    ReadyResponse {
        ready: find(app, &asked.name, &asked.version).is_ok(),
    }
}

pub fn server_metadata() -> ServerMetadataResponse {
    let server = describe::server();
    ServerMetadataResponse {
        name: server.name.to_owned(),
        version: server.version.to_owned(),
        extensions: server.extensions.into_iter().map(str::to_owned).collect(),
    }
}

/// Inputs and outputs of a version.
///
/// # Errors
/// As [`find`].
pub fn model_metadata(app: &App, asked: &ModelRequest) -> Result<ModelMetadataResponse, Status> {
    let repository = &app.scorer.repository;
    let metadata = describe::metadata(repository, &asked.name, named(&asked.version))
        .map_err(|error| status::of(refusal(error)))?;
    Ok(ModelMetadataResponse {
        name: metadata.name,
        versions: metadata.versions,
        platform: metadata.platform.to_owned(),
        inputs: metadata.inputs.into_iter().map(tensor).collect(),
        outputs: metadata.outputs.into_iter().map(tensor).collect(),
    })
}

fn tensor(tensor: describe::TensorMetadata) -> TensorMetadata {
    TensorMetadata {
        name: tensor.name,
        datatype: tensor.datatype.to_owned(),
        shape: tensor.shape,
    }
}

/// The configuration of a version.
///
/// # Errors
/// As [`find`].
pub fn model_config(app: &App, asked: &ModelRequest) -> Result<describe::ModelConfig, Status> {
    let repository = &app.scorer.repository;
    let max_rows = app.inference.max_rows;
    describe::config(repository, &asked.name, named(&asked.version), max_rows)
        .map_err(|error| status::of(refusal(error)))
}

/// The statistics of one version, one model, or all.
///
/// # Errors
/// As [`find`], of what is named.
pub fn statistics(app: &App, asked: &ModelRequest) -> Result<ModelStatisticsResponse, Status> {
    let repository = &app.scorer.repository;
    let report = describe::statistics(repository, named(&asked.name), named(&asked.version))
        .map_err(|error| status::of(refusal(error)))?;
    let model_stats = report.model_stats.into_iter();
    Ok(ModelStatisticsResponse {
        model_stats: model_stats.map(model_statistics).collect(),
    })
}

fn model_statistics(statistics: describe::ModelStatistics) -> ModelStatistics {
    let stages = statistics.inference_stats;
    let duration = |duration: describe::DurationStatistics| {
        Some(StatisticDuration {
            count: duration.count,
            ns: duration.ns,
        })
    };
    ModelStatistics {
        name: statistics.name,
        version: statistics.version,
        last_inference: statistics.last_inference,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(stages.success),
            fail: duration(stages.fail),
            queue: duration(stages.queue),
            compute_input: duration(stages.compute_input),
            compute_infer: duration(stages.compute_infer),
            compute_output: duration(stages.compute_output),
            cache_hit: duration(stages.cache_hit),
            cache_miss: duration(stages.cache_miss),
        }),
    }
}

/// Every version folder with its state and, where there is one, the reason.
pub fn repository_index(app: &App, only_ready: bool) -> RepositoryIndexResponse {
    let entries = describe::index(&app.scorer.repository, only_ready).into_iter();
    let models = entries.map(|entry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: entry.state.to_owned(),
        reason: entry.reason,
    });
    RepositoryIndexResponse {
        models: models.collect(),
    }
}
