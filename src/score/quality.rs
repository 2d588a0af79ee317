//! What to know about the feature values that a score used: said in the answer, and counted.

use arrow::array::Array;

use super::assemble::{Assembled, Source};
use crate::features::column::value_at;
use crate::features::view::{Role, View};
use crate::telemetry::scores::FeatureCounters;

/// What a caller should know about the features that were used.
#[derive(Debug, Default)]
pub struct FeatureQuality {
    /// Stored, but older than the feature's `max_age`.
    pub stale: Vec<String>,
    /// Without a value: the default was used, or missing passed on.
    pub missing: Vec<String>,
    /// With a value that is not among the declared ones.
    pub unknown: Vec<String>,
    /// The store could not be read: every stored value is missing.
    pub store_lost: bool,
}

/// Looks at the values of one row that were `needed` (by column), and counts what it finds. A derived
/// feature without a value is counted and not named: what it is computed from is.
pub fn judge(
    view: &View,
    assembled: &Assembled,
    row: usize,
    needed: &[bool],
    now_us: i64,
    counters: &FeatureCounters,
) -> FeatureQuality {
    let mut quality = FeatureQuality::default();
    let with_ages = counters.begin();
    for (column, feature) in view.features().iter().enumerate() {
        if !needed[column] {
            continue;
        }
        counters.served(column);
        let Some(origin) = assembled.origin(row, column) else {
            let values = assembled.batch.column(column);
            if values.is_null(row) {
                counters.missing(column);
            } else if feature.has_range() && feature.is_out_of_range(&value_at(values, row)) {
                counters.out_of_range(column);
            }
            continue;
        };
        let age_us = origin
            .as_of_us
            .map(|as_of_us| now_us.saturating_sub(as_of_us));
        if matches!(origin.source, Source::Default | Source::Missing) {
            counters.missing(column);
            quality.missing.push(feature.name.clone());
        } else if let Some(age_us) = age_us {
            if feature.is_stale(age_us) {
                counters.stale(column);
                quality.stale.push(feature.name.clone());
            }
            if with_ages && matches!(feature.role, Role::Stored | Role::Related) {
                counters.age(column, age_us);
            }
        }
        if origin.unknown {
            counters.unknown(column);
            quality.unknown.push(feature.name.clone());
        }
        if origin.out_of_range {
            counters.out_of_range(column);
        }
    }
    quality
}
