//! Trains, evaluates and exports Bellwether's linear models: the sample models, and new versions of
//! a model from what was served and what came of it.
//!
//! One call per model: it reads a public data set as it is published, holds rows out, fits
//! logistic regressions with linfa, writes an ONNX graph that takes the raw columns, and
//! evaluates exactly that graph on the rows held out. The same data gives the same files. It does
//! not tune, search for features or serve predictions.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let data = Path::new("Telco-Customer-Churn.csv");
//! let report = bellwether_training::train_churn(data, Path::new("models"))?;
//! println!("{report}");
//! # Ok::<(), bellwether_training::TrainError>(())
//! ```
//!
//! # Map
//!
//! | module | what it does |
//! |---|---|
//! | [`jobs`] | one file per model: churn, upsell, bank |
//! | [`telco`], [`bank`] | the data sets: columns and split |
//! | [`table`] | reads CSV into typed columns |
//! | [`encode`] | imputation, standardisation, one-hot: raw columns to design matrix |
//! | [`fit`], [`newton`] | logistic regression: linfa's optimum, refined to rounding level |
//! | [`onnx`], [`graph`] | a small builder of ONNX files, and the graph of a linear model |
//! | [`scores`] | runs the exported graph as a server would |
//! | [`metrics`], [`bootstrap`] | the measures and their intervals |
//! | [`synthetic`], [`golden`] | invented rows, and their expected outputs in `golden.json` |
//! | [`candidate`] | a new version of a model, fitted on one part of the rows and judged on the other |
//! | [`comparison`] | two models on the same rows |
//! | [`description`] | `model.toml` |
//! | [`report`], [`plot`] | `report.json`, `report.md` and the two pictures |
//! | [`bundle`] | all files of one version |

pub mod bank;
pub mod bootstrap;
pub mod bundle;
pub mod candidate;
pub mod comparison;
pub mod description;
pub mod encode;
pub mod error;
pub mod fit;
pub mod golden;
pub mod graph;
pub mod jobs;
pub mod metrics;
pub mod newton;
pub mod onnx;
pub mod plot;
pub mod report;
pub mod scores;
pub mod synthetic;
pub mod table;
pub mod telco;

pub use error::TrainError;
pub use jobs::{train_bank, train_churn, train_upsell};
pub use report::Report;
