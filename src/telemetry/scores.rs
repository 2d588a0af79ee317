//! What is counted of scores: where their time went, and what the values were like that they used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metrics::{Counter, Histogram, counter};

use super::exposition::{Exposition, Kind, Metric};
use super::timer::Timer;
use crate::features::views::Views;
use crate::models::version::ModelVersion;

/// How old feature values are when they are used.
pub(super) const FEATURE_AGE: &str = "bellwether_feature_age_seconds";

/// How long the stages of scores took.
pub static STAGE_SECONDS: Metric = Metric {
    name: "bellwether_stage_seconds",
    kind: Kind::Histogram,
    help: "Time of one stage of a score: store, features, model (by model and version), ledger.",
};

/// The stages of a score. Those of a model are kept with its version.
#[derive(Debug, Default)]
pub struct StageTimers {
    store: Timer,
    features: Timer,
    ledger: Timer,
}

impl StageTimers {
    /// Records the store stage, begun at `since`; returns the start of the next stage.
    pub fn store(&self, since: Instant) -> Instant {
        self.store.lap(since)
    }

    /// Records the features stage.
    pub fn features(&self, since: Instant) -> Instant {
        self.features.lap(since)
    }

    /// Records the run of one model version.
    pub fn model(&self, version: &ModelVersion, since: Instant) -> Instant {
        version.statistics.took.lap(since)
    }

    /// Records the ledger stage.
    pub fn ledger(&self, since: Instant) -> Instant {
        self.ledger.lap(since)
    }

    /// Writes down the stages that are not a model's.
    pub fn write(&self, exposition: &mut Exposition) {
        for (stage, timer) in [
            ("store", &self.store),
            ("features", &self.features),
            ("ledger", &self.ledger),
        ] {
            exposition.histogram(&STAGE_SECONDS, &[("stage", stage)], timer);
        }
    }
}

/// Of how many scores one records the ages of its values: a histogram keeps every sample until it is
/// folded in, and the ages of one score in sixteen say as much.
const AGES_OF_ONE_IN: u64 = 16;

/// Feature quality, by column of the customer view.
pub struct FeatureCounters {
    served: Vec<Counter>,
    missing: Vec<Counter>,
    stale: Vec<Counter>,
    unknown: Vec<Counter>,
    out_of_range: Vec<Counter>,
    age: Vec<Histogram>,
    scores: AtomicU64,
    store_lost: Counter,
}

impl FeatureCounters {
    pub fn new(views: &Views, entity: &str) -> FeatureCounters {
        let view = views.of_entity(entity);
        let features = || {
            let view = view.into_iter();
            view.flat_map(|view| view.features().iter().map(move |feature| (view, feature)))
        };
        let of = |metric: &'static str| {
            features()
                .map(|(view, feature)| {
                    counter!(metric, "view" => view.name.clone(), "feature" => feature.name.clone())
                })
                .collect()
        };
        let age = features().map(|(view, feature)| {
            metrics::histogram!(
                FEATURE_AGE, "view" => view.name.clone(), "feature" => feature.name.clone()
            )
        });
        FeatureCounters {
            served: of("bellwether_feature_served_total"),
            missing: of("bellwether_feature_missing_total"),
            stale: of("bellwether_feature_stale_total"),
            unknown: of("bellwether_feature_unknown_total"),
            out_of_range: of("bellwether_feature_out_of_range_total"),
            age: age.collect(),
            scores: AtomicU64::new(0),
            store_lost: counter!("bellwether_store_defaults_total"),
        }
    }

    /// A score was answered without the store.
    pub fn store_lost(&self) {
        self.store_lost.increment(1);
    }

    /// Begins one score; whether the ages of its values are to be recorded: those of the first, and of
    /// one in sixteen after it.
    pub fn begin(&self) -> bool {
        let number = self.scores.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(AGES_OF_ONE_IN)
    }

    pub fn served(&self, column: usize) {
        self.served[column].increment(1);
    }

    pub fn missing(&self, column: usize) {
        self.missing[column].increment(1);
    }

    pub fn stale(&self, column: usize) {
        self.stale[column].increment(1);
    }

    pub fn unknown(&self, column: usize) {
        self.unknown[column].increment(1);
    }

    pub fn out_of_range(&self, column: usize) {
        self.out_of_range[column].increment(1);
    }

    /// How old a value was when it was used, in microseconds.
    pub fn age(&self, column: usize, age_us: i64) {
        self.age[column].record(age_us.max(0) as f64 / 1e6);
    }
}
