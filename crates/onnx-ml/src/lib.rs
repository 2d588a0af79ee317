//! Loads ONNX files of tabular models and runs them.
//!
//! The README says what loads, what is promised and how fast it is.
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `model` | [`Model`]: load, describe, run |
//! | `proto` | the messages of the file format; `wire` bounds what decoding them may take |
//! | `functions`, `rewrite` | what is put in other words before anything else looks at the graph |
//! | `interface` | [`TensorInfo`]: inputs and outputs |
//! | `graph` | the graph as a list of steps, and running it |
//! | `node`, `operator`, `operators` | how an operator is built, what it is, and the table of all |
//! | `ops` | the operators, one file per family |
//! | `trees` | tree ensembles and their kernels |
//! | `tensor`, `tensors` | [`Tensor`], and reading it from a file |
//! | `pool` | [`Pool`]: threads that the caller lends |
//! | `processor` | which vector instructions are used |
//! | `limits`, `error` | the bounds, and the two ways of saying no |
//!
//! A file goes `wire → proto → functions → rewrite → graph`, where each node is built by its file of
//! `ops`; then rows of zeros are run once, to see what the outputs are. A call goes through `graph`
//! alone.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod error;
mod functions;
mod graph;
mod interface;
mod limits;
mod model;
mod node;
mod operator;
mod operators;
mod ops;
mod pool;
mod processor;
pub mod proto;
mod rewrite;
mod tensor;
mod tensors;
mod trees;
mod wire;

pub use compact_str::CompactString;
pub use error::{LoadError, RunError};
pub use half::f16;
pub use interface::{Labels, TensorInfo};
pub use limits::Limits;
pub use model::Model;
pub use operators::{is_supported, supported};
pub use pool::{Pool, ScopedThreads};
pub use tensor::{Data, DataType, Element, Shape, ShapeError, Tensor};
