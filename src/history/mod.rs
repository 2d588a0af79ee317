//! What was known when: the log of changes read back for training sets, checks and backfills.
//!
//! The online store is a fold over the log of changes. Here the same changes are folded again, by the
//! same code ([`fold`], over `crate::store::entity`), for whatever entities and times are asked for.
//! Plans are DataFusion plans whose sorts spill to disk, so that memory is bounded whatever the size of
//! the log; they run on threads of their own, beside a serving server or without one.
//!
//! * [`log`] – the changes as a table.
//! * [`observations`] – which entities are asked for, and when.
//! * [`as_of`] – the join of the two.
//! * [`training_set`] – observations with features.
//! * [`consistency`] – served values recomputed; [`watch`] – every now and then, on a running server.
//! * [`backfill`] – windows that were declared later than the events they reach back to.
//! * [`outcomes`] – labels: which predictions came true.
//! * [`labelled`] – the predictions of a model with their labels, read from ledgers.
//! * [`labelled_file`] – these as a Parquet or CSV file.
//! * [`served`] – feature values as they were served, as columns.
//! * [`retrain`] – these as a new candidate version of the model.
//! * [`interest`], [`observed`], [`recompute`], [`plan`], [`snapshot`], [`output`], [`error`] – what they
//!   are made of.

pub mod as_of;
pub mod backfill;
pub mod consistency;
pub mod error;
pub mod fold;
pub mod interest;
pub mod labelled;
pub mod labelled_file;
pub mod log;
pub mod observations;
pub mod observed;
pub mod outcomes;
pub mod output;
pub mod plan;
pub mod recompute;
pub mod retrain;
pub mod served;
pub mod snapshot;
pub mod training_set;
pub mod watch;

pub use backfill::{Backfill, BackfillReport};
pub use consistency::{Consistency, ConsistencyReport, FeatureConsistency};
pub use error::HistoryError;
pub use plan::Bounds;
pub use training_set::{TrainingSet, TrainingSetReport};
