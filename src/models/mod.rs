//! The model repository: versions, their manifests, how they bind to features.
//!
//! * [`repository`] – the folder of models; which version answers.
//! * [`version`] – one version folder, loaded or refused.
//! * [`manifest`] – `model.toml`.
//! * [`golden`] – rows a version must reproduce.
//! * [`scoring`] – inputs to features, outputs to scores.
//! * [`tensors`] – Arrow columns and JSON to tensors and back.
//! * [`binary`] – tensors as bytes.
//!
//! Versions are loaded when the server starts; deploying to a running server is not here yet.

pub mod binary;
pub mod golden;
pub mod manifest;
pub mod repository;
pub mod scoring;
pub mod tensors;
pub mod version;
