//! A model's configuration as `ModelConfig` answers it: the part of Triton's message that clients
//! read before they make requests. Field numbers are those Triton publishes.

use crate::models::describe;

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub config: Option<ModelConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub platform: String,
    #[prost(message, optional, tag = "3")]
    pub version_policy: Option<VersionPolicy>,
    /// Above 0 the dimensions of the tensors leave the rows out.
    #[prost(int32, tag = "4")]
    pub max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    pub input: Vec<InputConfig>,
    #[prost(message, repeated, tag = "6")]
    pub output: Vec<OutputConfig>,
    #[prost(string, tag = "17")]
    pub backend: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionPolicy {
    /// Every version that is ready answers.
    #[prost(message, optional, tag = "2")]
    pub all: Option<AllVersions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AllVersions {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InputConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(int64, repeated, tag = "4")]
    pub dims: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    pub reshape: Option<Reshape>,
}

/// As [`InputConfig`], but the field of the dimensions has another number.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutputConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(int64, repeated, tag = "3")]
    pub dims: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    pub reshape: Option<Reshape>,
}

/// The shape that stands behind `dims`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reshape {
    #[prost(int64, repeated, tag = "1")]
    pub shape: Vec<i64>,
}

/// Names of tensor types in the order of their numbers, which begin with 1.
const TYPES: [&str; 13] = [
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
];

/// The number of a type; 0 stands for none.
fn type_number(name: &str) -> i32 {
    let position = TYPES.iter().position(|known| *known == name);
    position.map_or(0, |position| position as i32 + 1)
}

impl From<describe::ModelConfig> for ModelConfigResponse {
    fn from(config: describe::ModelConfig) -> ModelConfigResponse {
        let reshape = |reshape: Option<describe::Reshape>| {
            reshape.map(|reshape| Reshape {
                shape: reshape.shape,
            })
        };
        let input = |tensor: describe::TensorConfig| InputConfig {
            name: tensor.name,
            data_type: type_number(tensor.data_type),
            dims: tensor.dims,
            reshape: reshape(tensor.reshape),
        };
        let output = |tensor: describe::TensorConfig| OutputConfig {
            name: tensor.name,
            data_type: type_number(tensor.data_type),
            dims: tensor.dims,
            reshape: reshape(tensor.reshape),
        };
        ModelConfigResponse {
            config: Some(ModelConfig {
                name: config.name,
                platform: config.platform.to_owned(),
                version_policy: Some(VersionPolicy {
                    all: Some(AllVersions {}),
                }),
                max_batch_size: config.max_batch_size,
                input: config.input.into_iter().map(input).collect(),
                output: config.output.into_iter().map(output).collect(),
                backend: config.backend.to_owned(),
            }),
        }
    }
}
