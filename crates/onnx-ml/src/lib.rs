//! Loads ONNX files of tabular models and runs them.
//!
//! `tract` runs the graph; this crate adds the `ai.onnx.ml` operators that tabular exporters write
//! and tract lacks, replaces the few tract operators whose results a scoring service could not rely
//! on, and stands between tract and files from outside.
//!
//! # What it promises
//!
//! * A file is either loaded or refused with a [`LoadError`] that names the place and the reason;
//!   a file from an unknown sender makes it neither panic nor take memory out of proportion
//!   (see [`Limits`]).
//! * A row gives the same bits alone and inside a batch, for the operators written here.
//! * Results follow ONNX Runtime; where it differs from itself between processors, its behaviour on
//!   x86-64 is followed.
//! * [`Model`] is immutable, `Send` and `Sync`: share it in an `Arc`, call [`Model::run`] from any
//!   number of threads.
//!
//! # What it does not do
//!
//! It reads no file from disk (a model with external data is refused), runs no control flow, and is
//! no general ONNX runtime: operators outside tabular work are refused by name.
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `model` | [`Model`]: load, describe, run |
//! | `check` | everything that is verified before tract sees a file |
//! | `prepare` | rewriting a verified file into the form tract analyses best |
//! | `operators` | which operators are accepted, and which are not yet |
//! | `ops` | the operators themselves, one file per family |
//! | `limits` | the bounds on files and runs |
//! | `error` | [`LoadError`] and [`RunError`] |
//!
//! # Example
//!
//! ```
//! use onnx_ml::{Model, Tensor};
//! use tract_onnx::pb;
//!
//! // y = Identity(x), one float32 column and any number of rows.
//! # fn column(name: &str) -> pb::ValueInfoProto {
//! #     let rows = pb::tensor_shape_proto::Dimension {
//! #         value: Some(pb::tensor_shape_proto::dimension::Value::DimParam("N".into())),
//! #         ..Default::default()
//! #     };
//! #     let one = pb::tensor_shape_proto::Dimension {
//! #         value: Some(pb::tensor_shape_proto::dimension::Value::DimValue(1)),
//! #         ..Default::default()
//! #     };
//! #     let tensor = pb::type_proto::Tensor {
//! #         elem_type: pb::tensor_proto::DataType::Float as i32,
//! #         shape: Some(pb::TensorShapeProto { dim: vec![rows, one] }),
//! #     };
//! #     pb::ValueInfoProto {
//! #         name: name.into(),
//! #         r#type: Some(pb::TypeProto {
//! #             value: Some(pb::type_proto::Value::TensorType(tensor)),
//! #             ..Default::default()
//! #         }),
//! #         ..Default::default()
//! #     }
//! # }
//! # fn file() -> Vec<u8> {
//! #     use prost::Message;
//! #     let node = pb::NodeProto {
//! #         op_type: "Identity".into(),
//! #         input: vec!["x".into()],
//! #         output: vec!["y".into()],
//! #         ..Default::default()
//! #     };
//! #     let graph = pb::GraphProto {
//! #         node: vec![node],
//! #         input: vec![column("x")],
//! #         output: vec![column("y")],
//! #         ..Default::default()
//! #     };
//! #     pb::ModelProto { ir_version: 8, graph: Some(graph), ..Default::default() }.encode_to_vec()
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bytes = file(); // or std::fs::read("model.onnx")?
//! let model = Model::from_bytes(&bytes)?;
//! assert_eq!(model.inputs()[0].shape, [None, Some(1)]);
//!
//! let x = Tensor::from_shape(&[2, 1], &[1.0f32, 2.0])?;
//! let outputs = model.run(vec![x])?;
//! assert_eq!(outputs[0].shape(), &[2, 1]);
//! # Ok(())
//! # }
//! ```

mod check;
mod error;
mod limits;
mod model;
mod operators;
mod ops;
mod prepare;

pub use error::{LoadError, RunError};
pub use limits::Limits;
pub use model::{Model, TensorInfo};
pub use operators::{NOT_YET, is_supported};
pub use tract_onnx::prelude::{Datum, DatumType, Tensor};
