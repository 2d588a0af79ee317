//! Why a customer was not scored, in the words of the answer: the field, what was found, what to do.

use super::CUSTOMER;
use crate::features::view::ValueError;
use crate::ledger::AppendError;
use crate::models::catalog::FindError;
use crate::store::StoreError;

/// Why a customer was not scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error(
        "customer_id {customer_id:?}: no such customer; write features with PUT /v1/customers/{{id}} first"
    )]
    UnknownCustomer { customer_id: String },
    #[error("models[{index}]: {problem}")]
    UnknownModel { index: usize, problem: FindError },
    #[error(
        "models[{index}]: model {name} version {version} does not bind to a customer view: {problems}"
    )]
    Unbound {
        index: usize,
        name: String,
        version: String,
        problems: String,
    },
    #[error("models: no model is ready that binds to a view of {CUSTOMER}")]
    NoModels,
    #[error("features.{0}")]
    Override(ValueError),
    #[error("context.{0}")]
    Context(ValueError),
    #[error("no feature view has the entity {CUSTOMER}")]
    NoView,
    #[error("the feature views are being replaced; try again")]
    Replacing,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("model {name} version {version}: {problem}")]
    Model {
        name: String,
        version: String,
        problem: String,
    },
    #[error("the prediction cannot be recorded now: {0}; try again shortly")]
    Ledger(#[from] AppendError),
    #[error("features: {0}")]
    Assemble(#[from] arrow::error::ArrowError),
}
