//! The model repository: versions, their manifests, how they bind to features.
//!
//! * [`bundles`] – where the files of versions are.
//! * [`repository`] – what is loaded of them; loading and unloading while requests run.
//! * [`catalog`] – what is loaded at one moment; which version answers.
//! * [`version`] – one version folder, loaded or refused.
//! * [`comparison`] – versions in shadow and in canary beside the one that answers.
//! * [`rollout`] – champion, canary, shadows: who answers whom, and the way back.
//! * [`statistics`] – how often a version was asked, and where the time went.
//! * [`usage`] – how often it scored customers, and how that went.
//! * [`metrics`] – all of it for Prometheus.
//! * [`describe`] – models in the words of the Open Inference Protocol.
//! * [`manifest`] – `model.toml`.
//! * [`golden`] – rows a version must reproduce.
//! * [`trial`] – runs to warm a version and to time it.
//! * [`validate`] – a version folder looked at without a server.
//! * [`scoring`] – inputs to features, outputs to scores.
//! * [`tensors`] – Arrow columns and JSON to tensors and back.
//! * [`binary`] – tensors as bytes.

pub mod binary;
pub mod bundles;
pub mod catalog;
pub mod comparison;
pub mod describe;
pub mod golden;
pub mod manifest;
pub mod metrics;
pub mod repository;
pub mod rollout;
pub mod scoring;
pub mod statistics;
pub mod tensors;
pub mod trial;
pub mod usage;
pub mod validate;
pub mod version;
