//! The model repository: versions, their manifests, how they bind to features.
//!
//! * [`repository`] – the folder of models; loading and unloading while requests run.
//! * [`catalog`] – what is loaded at one moment; which version answers.
//! * [`version`] – one version folder, loaded or refused.
//! * [`statistics`] – how often a version was asked, and where the time went.
//! * [`describe`] – models in the words of the Open Inference Protocol.
//! * [`manifest`] – `model.toml`.
//! * [`golden`] – rows a version must reproduce.
//! * [`scoring`] – inputs to features, outputs to scores.
//! * [`tensors`] – Arrow columns and JSON to tensors and back.
//! * [`binary`] – tensors as bytes.

pub mod binary;
pub mod catalog;
pub mod describe;
pub mod golden;
pub mod manifest;
pub mod repository;
pub mod scoring;
pub mod statistics;
pub mod tensors;
pub mod version;
