//! Bellwether: a prediction engine for service companies, in one binary.
//!
//! It keeps what is known of each customer, scores them with ONNX models, says why, and records
//! every prediction and its outcome.
//!
//! # The map of the house
//!
//! | room | what it is for |
//! |---|---|
//! | [`batch`] | whole tables and files of events: reading them, loading them into a server or its directory |
//! | [`cli`] | the command line, one file per subcommand |
//! | [`config`] | every setting: file, environment, flags |
//! | [`serve`] | the server: HTTP and gRPC, connections, limits, shutdown |
//! | [`score`] | the hot path: assemble features, run models, explain, record |
//! | [`infer`] | models on tensors as they are, whatever the protocol |
//! | [`admission`] | overload: who may run now, who waits, who is turned away |
//! | [`features`] | feature views, their types, SQL expressions, windows over events |
//! | [`ingest`] | changes on their way in, from requests, brokers and files: checked, numbered, logged, applied |
//! | [`store`] | the online store: current values and windows of every entity, here or on Redis |
//! | [`models`] | the model repository: versions, their roles, manifests, binding to features |
//! | [`ledger`] | the durable log of changes, predictions, inferences and outcomes; verification and export |
//! | [`history`] | what was known when: training sets, consistency, backfill, labels and candidate models |
//! | [`remote`] | a running server as commands talk to it: URL, API key, TLS |
//! | [`simulate`] | made-up customers and events for demos and load tests |
//! | [`telemetry`] | logs and metrics |
//! | [`priority`] | which threads get a core at once, and which give way |
//! | [`memory`] | what nobody uses any more, back to the system |
//! | [`clock`] | wall-clock time as it is recorded |
//! | [`json`] | a cursor over JSON text, for bodies that are read too often for anything slower |
//!
//! Beside it: `crates/onnx-ml` runs ONNX graphs, `training` fits and exports the sample models.
//!
//! Data flows one way. What is asked: `serve` calls `score`, which calls `features`, `store` and `models`, or
//! `infer`, which asks `admission` and calls `models`; both hand what happened to `ledger`. What is told:
//! `serve`, `batch` and the sources of `ingest` hand changes to `ingest`, which has `ledger` log them and then
//! `store` apply them. What is asked later: `history` reads `ledger` and folds the changes by the code of
//! `store` and `features`. `serve` and `cli` know everyone; nobody knows them.

pub mod admission;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
pub mod features;
pub mod history;
pub mod infer;
pub mod ingest;
pub mod json;
pub mod ledger;
pub mod memory;
pub mod models;
pub mod priority;
pub mod remote;
pub mod score;
pub mod serve;
pub mod simulate;
pub mod store;
pub mod telemetry;
