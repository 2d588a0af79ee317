//! What is loaded, in the words of the Open Inference Protocol and of Triton's extensions to it.
//!
//! Plain values that HTTP writes as JSON and gRPC as messages; neither is known here.

use onnx_ml::{DataType, Labels, TensorInfo};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::catalog::{Entry, FindError};
use super::repository::Repository;
use super::statistics::Counts;
use super::tensors;
use super::version::ModelVersion;

/// What runs the graphs, as metadata and configuration name it.
const PLATFORM: &str = "bellwether_onnx";

/// The parts of the protocol beyond its core, by the names that Triton gives them.
const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];

/// Who answers, and what it can do.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    pub name: &'static str,
    pub version: &'static str,
    pub extensions: Vec<&'static str>,
}

/// The inputs and outputs of a model version.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    pub name: String,
    /// The versions that are ready, or the one asked for.
    pub versions: Vec<String>,
    pub platform: &'static str,
    pub inputs: Vec<TensorMetadata>,
    pub outputs: Vec<TensorMetadata>,
}

/// An input or output.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    pub name: String,
    pub datatype: &'static str,
    /// -1 for a dimension of any size.
    pub shape: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<TensorParameters>,
}

/// What the graph says of a tensor besides its type.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorParameters {
    /// The classes its columns stand for, in order.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub labels: Vec<Value>,
}

/// A model as Triton's model configuration describes one; what clients read before a load test.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelConfig {
    pub name: String,
    pub platform: &'static str,
    pub backend: &'static str,
    pub version_policy: VersionPolicy,
    /// The most rows in a request when the first dimension of every input and output is open;
    /// `dims` leave that dimension out then. 0 otherwise, and `dims` are whole.
    pub max_batch_size: i32,
    pub input: Vec<TensorConfig>,
    pub output: Vec<TensorConfig>,
}

/// Which versions are served: all that are ready.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct VersionPolicy {
    pub all: AllVersions,
}

/// Has no settings.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct AllVersions {}

/// An input or output of a [`ModelConfig`].
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorConfig {
    pub name: String,
    #[schema(example = "TYPE_FP32")]
    pub data_type: &'static str,
    /// -1 for a dimension of any size.
    pub dims: Vec<i64>,
    /// Given where the tensor has no dimension but that of the rows: `dims` may not be empty and
    /// are `[1]`, and this says that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reshape: Option<Reshape>,
}

/// The shape that stands behind `dims`.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Reshape {
    pub shape: Vec<i64>,
}

/// One version folder in the repository index.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndexEntry {
    pub name: String,
    pub version: String,
    /// READY or UNAVAILABLE.
    pub state: &'static str,
    /// Why it is unavailable; or, of one that is ready, why the files that are there now are not
    /// the ones that are served.
    pub reason: String,
}

/// How often versions were asked, and where the time went, since the server started.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatisticsReport {
    pub model_stats: Vec<ModelStatistics>,
}

/// The statistics of one version.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelStatistics {
    pub name: String,
    pub version: String,
    /// When it was last asked, in milliseconds since the Unix epoch; 0 when it never was.
    pub last_inference: u64,
    /// Rows of the requests that succeeded.
    pub inference_count: u64,
    /// How often the graph ran.
    pub execution_count: u64,
    pub inference_stats: InferenceStatistics,
    /// Always empty: times are not kept by number of rows.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub batch_stats: [u8; 0],
}

/// Numbers of requests and their times.
#[derive(Debug, Serialize, ToSchema)]
pub struct InferenceStatistics {
    pub success: DurationStatistics,
    pub fail: DurationStatistics,
    pub queue: DurationStatistics,
    pub compute_input: DurationStatistics,
    pub compute_infer: DurationStatistics,
    pub compute_output: DurationStatistics,
    /// Always 0: answers are not kept.
    pub cache_hit: DurationStatistics,
    /// Always 0: answers are not kept.
    pub cache_miss: DurationStatistics,
}

/// How often, and how long in all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct DurationStatistics {
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// Name, version and extensions of the server.
pub fn server() -> ServerMetadata {
    ServerMetadata {
        name: "bellwether",
        version: env!("CARGO_PKG_VERSION"),
        extensions: EXTENSIONS.to_vec(),
    }
}

/// Inputs and outputs of a version; of the champion when none is named.
///
/// # Errors
/// As [`Repository::find`].
pub fn metadata(
    repository: &Repository,
    name: &str,
    version: Option<&str>,
) -> Result<ModelMetadata, FindError> {
    let catalog = repository.catalog();
    let found = catalog.find(name, version)?;
    let versions = match version {
        Some(_) => vec![found.version.clone()],
        None => {
            let entries = catalog
                .model(name)
                .into_iter()
                .flat_map(|model| model.entries());
            let ready = entries.filter(|entry| entry.state.is_ok());
            ready.map(|entry| entry.version.clone()).collect()
        }
    };
    let graph = &found.graph;
    Ok(ModelMetadata {
        name: found.name.clone(),
        versions,
        platform: PLATFORM,
        inputs: graph.inputs().iter().map(tensor_metadata).collect(),
        outputs: graph.outputs().iter().map(tensor_metadata).collect(),
    })
}

fn tensor_metadata(info: &TensorInfo) -> TensorMetadata {
    let labels = info.labels.as_ref().map(|labels| match labels {
        Labels::Integers(labels) => labels.iter().map(|label| Value::from(*label)).collect(),
        Labels::Strings(labels) => labels
            .iter()
            .map(|label| Value::from(label.as_str()))
            .collect(),
    });
    TensorMetadata {
        name: info.name.clone(),
        datatype: tensors::protocol_name(info.data_type),
        shape: dims(&info.shape),
        parameters: labels.map(|labels| TensorParameters { labels }),
    }
}

/// The configuration of a version; of the champion when none is named. `max_rows` is the bound on
/// the rows of a request.
///
/// # Errors
/// As [`Repository::find`].
pub fn config(
    repository: &Repository,
    name: &str,
    version: Option<&str>,
    max_rows: usize,
) -> Result<ModelConfig, FindError> {
    let found = repository.find(name, version)?;
    let ModelVersion { name, graph, .. } = &*found;
    let mut tensors = graph.inputs().iter().chain(graph.outputs());
    // In Triton's terms a model takes batches when every tensor begins with a dimension of any
    // size. Metadata shows that dimension as -1 in either case; with a max_batch_size above 0 dims
    // leave it out, and clients such as perf_analyzer fill it with the batch size they are told
    // (with 0 they would ask for every such shape by hand, and refuse a batch size).
    let takes_batches = tensors.all(|info| info.shape.first() == Some(&None));
    let tensor = |info: &TensorInfo| tensor_config(info, takes_batches);
    Ok(ModelConfig {
        name: name.clone(),
        platform: PLATFORM,
        backend: PLATFORM,
        version_policy: VersionPolicy::default(),
        max_batch_size: match takes_batches {
            true => i32::try_from(max_rows).unwrap_or(i32::MAX),
            false => 0,
        },
        input: graph.inputs().iter().map(tensor).collect(),
        output: graph.outputs().iter().map(tensor).collect(),
    })
}

fn tensor_config(info: &TensorInfo, takes_batches: bool) -> TensorConfig {
    let mut dims = dims(&info.shape);
    if takes_batches {
        dims.remove(0);
    }
    let reshape = dims.is_empty().then(|| {
        dims.push(1);
        Reshape::default()
    });
    TensorConfig {
        name: info.name.clone(),
        data_type: config_type(info.data_type),
        dims,
        reshape,
    }
}

fn dims(shape: &[Option<usize>]) -> Vec<i64> {
    let size = |dim: usize| i64::try_from(dim).unwrap_or(i64::MAX);
    shape.iter().map(|dim| dim.map_or(-1, size)).collect()
}

/// A type's name in a model configuration.
fn config_type(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Bool => "TYPE_BOOL",
        DataType::I8 => "TYPE_INT8",
        DataType::I16 => "TYPE_INT16",
        DataType::I32 => "TYPE_INT32",
        DataType::I64 => "TYPE_INT64",
        DataType::U8 => "TYPE_UINT8",
        DataType::U16 => "TYPE_UINT16",
        DataType::U32 => "TYPE_UINT32",
        DataType::U64 => "TYPE_UINT64",
        DataType::F16 => "TYPE_FP16",
        DataType::F32 => "TYPE_FP32",
        DataType::F64 => "TYPE_FP64",
        DataType::String => "TYPE_STRING",
    }
}

/// Every version folder with its state and, where there is one, the reason.
pub fn index(repository: &Repository, only_ready: bool) -> Vec<IndexEntry> {
    let catalog = repository.catalog();
    let listed = catalog
        .entries()
        .filter(|entry| !only_ready || entry.state.is_ok());
    listed
        .map(|entry| {
            let (state, reason) = match &entry.state {
                Ok(_) => ("READY", entry.not_reloaded.clone()),
                Err(reason) => ("UNAVAILABLE", Some(reason.clone())),
            };
            IndexEntry {
                name: entry.name.clone(),
                version: entry.version.clone(),
                state,
                reason: reason.unwrap_or_default(),
            }
        })
        .collect()
}

/// The statistics of one version, of all versions of a model that are ready, or, when no model is
/// named, of all that are ready.
///
/// # Errors
/// As [`Repository::find`], of what is named.
pub fn statistics(
    repository: &Repository,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<StatisticsReport, FindError> {
    let catalog = repository.catalog();
    let is_asked_for = |entry: &&Entry| {
        let ready = entry.state.is_ok();
        ready && version.is_none_or(|version| entry.version == version)
    };
    let model_stats = match name {
        None => {
            let ready = catalog.entries().filter(|entry| entry.state.is_ok());
            ready.map(model_statistics).collect()
        }
        Some(name) => {
            catalog.find(name, version)?;
            let entries = catalog
                .model(name)
                .into_iter()
                .flat_map(|model| model.entries());
            entries.filter(is_asked_for).map(model_statistics).collect()
        }
    };
    Ok(StatisticsReport { model_stats })
}

fn model_statistics(entry: &Entry) -> ModelStatistics {
    let counts = entry.statistics.read();
    let Counts {
        succeeded, failed, ..
    } = counts;
    let of = |count: u64, ns: u64| DurationStatistics { count, ns };
    // Of a request that was answered every part is known, so the whole is their sum.
    let stages = [
        counts.queue_ns,
        counts.input_ns,
        counts.infer_ns,
        counts.output_ns,
    ];
    let total_ns = stages.into_iter().fold(0, u64::saturating_add);
    ModelStatistics {
        name: entry.name.clone(),
        version: entry.version.clone(),
        last_inference: counts.last_ms,
        inference_count: counts.rows,
        // Requests are not joined: each one that is answered runs the graph once.
        execution_count: succeeded,
        inference_stats: InferenceStatistics {
            success: of(succeeded, total_ns),
            fail: of(failed, counts.failed_ns),
            queue: of(succeeded, counts.queue_ns),
            compute_input: of(succeeded, counts.input_ns),
            compute_infer: of(succeeded, counts.infer_ns),
            compute_output: of(succeeded, counts.output_ns),
            cache_hit: DurationStatistics::default(),
            cache_miss: DurationStatistics::default(),
        },
        batch_stats: [],
    }
}
