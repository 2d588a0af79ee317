//! Scoring one customer: read the profile, assemble features, run the models, explain, record.
//!
//! [`Scorer::score`] is the one function behind every scoring endpoint. It answers only what has
//! been handed to the ledger: a prediction that cannot be recorded is an error, never an answer.
//!
//! * `scorer` – what every score needs: views and versions that belong together, store, ledger.
//! * `one` – a score of one customer, from its profile to its record.
//! * [`bulk`] – many customers at once, with the same answers.
//! * [`choose`] – the versions that a request asks for.
//! * [`shadow`] – versions that are run beside, after the answer.
//! * [`assemble`] – what is known and what is overridden to an Arrow batch.
//! * [`given`] – what is known of many entities, as columns; [`given_page`] – the same on its way from a
//!   server.
//! * [`related`] – the entities that an entity points to.
//! * [`quality`] – what to know about the values that were used.
//! * [`reasons`] – contributions of features to a score.
//! * `record` – the ledger row of an answer.
//! * `error` – why a customer was not scored.

pub mod assemble;
pub mod bulk;
pub mod choose;
mod error;
pub mod given;
pub mod given_page;
mod one;
pub mod quality;
pub mod reasons;
mod record;
pub mod related;
mod scorer;
pub mod shadow;

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

pub use self::error::ScoreError;
pub use self::one::read_related;
use self::quality::FeatureQuality;
use self::reasons::Reasons;
pub use self::scorer::Scorer;
use crate::models::scoring::Scored;
use crate::models::version::ModelVersion;

/// The entity that `/v1/score` and `/v1/customers` are about.
pub const CUSTOMER: &str = "customer_id";

/// A request to score one customer.
#[derive(Debug, Default)]
pub struct ScoreRequest {
    pub customer_id: String,
    /// The models asked for; `None` means every champion that binds to the customer's view.
    pub models: Option<Vec<String>>,
    /// Values to use instead of stored ones, by feature name.
    pub overrides: Map<String, Json>,
    /// What is known of the request itself: values of request features, by name.
    pub context: Map<String, Json>,
    /// How many contributions to give with each prediction; none when `None`.
    pub explain: Option<usize>,
}

/// The answer to a [`ScoreRequest`].
#[derive(Debug)]
pub struct ScoreAnswer {
    pub prediction_id: Uuid,
    pub predictions: Vec<Prediction>,
    pub quality: FeatureQuality,
}

/// What one model version said.
#[derive(Debug)]
pub struct Prediction {
    pub version: Arc<ModelVersion>,
    pub scored: Scored,
    pub reasons: Option<Reasons>,
    /// When the score was there and the reasons were begun; absent without reasons.
    pub scored_at: Option<Instant>,
}
