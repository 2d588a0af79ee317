//! Bellwether: a prediction engine for service companies, in one binary.
//!
//! It keeps what is known of each customer, scores them with ONNX models, says why, and records
//! every prediction and its outcome.
//!
//! # The map of the house
//!
//! | room | what it is for |
//! |---|---|
//! | [`batch`] | whole tables: reading files, loading the online store |
//! | [`cli`] | the command line, one file per subcommand |
//! | [`config`] | every setting: file, environment, flags |
//! | [`serve`] | the server: HTTP and gRPC, connections, limits, shutdown |
//! | [`score`] | the hot path: assemble features, run models, explain, record |
//! | [`infer`] | models on tensors as they are, whatever the protocol |
//! | [`admission`] | overload: who may run now, who waits, who is turned away |
//! | [`features`] | feature views, their types, SQL expressions |
//! | [`store`] | the online store: current values of every customer |
//! | [`models`] | the model repository: versions, manifests, binding to features |
//! | [`ledger`] | the durable log of predictions, inferences and outcomes; verification and export |
//! | [`simulate`] | made-up customers for demos and load tests |
//! | [`telemetry`] | logs and metrics |
//! | [`clock`] | wall-clock time as it is recorded |
//!
//! Beside it: `crates/onnx-ml` runs ONNX graphs, `training` fits and exports the sample models.
//!
//! Data flows one way: `serve` calls `score`, which calls `features`, `store` and `models`, or
//! `infer`, which asks `admission` and calls `models`; both hand what happened to `ledger`. `serve`
//! and `cli` know everyone; nobody knows them.

pub mod admission;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
pub mod features;
pub mod infer;
pub mod ledger;
pub mod models;
pub mod score;
pub mod serve;
pub mod simulate;
pub mod store;
pub mod telemetry;
