//! What is compared of one version: kept through every reload of it, for as long as it has the role.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use super::canary::CanaryWatch;
use super::shadow::ShadowComparison;
use crate::models::rollout::Roles;
use crate::models::statistics::Statistics;

/// The comparisons of one version. Empty, and of no weight, for one that is not on trial.
#[derive(Debug, Default)]
pub struct Watched {
    canary: Mutex<Option<(Begun, Arc<CanaryWatch>)>>,
    shadow: Mutex<Option<Begun>>,
    shadow_comparison: ArcSwapOption<ShadowComparison>,
    /// Scores answered and failed that the metrics have already.
    published: Mutex<(u64, u64)>,
    /// Gauges of its role are set, which have to be taken back when it loses it.
    has_gauges: AtomicBool,
}

/// Begins the comparisons of a model's versions that are in shadow and in canary, or goes on with them,
/// and ends those of all others. Returns the watch over the canary.
pub fn begin<'a>(
    versions: impl Iterator<Item = (u64, &'a Statistics)>,
    roles: Option<&Roles>,
    champion: Option<&str>,
) -> Option<Arc<CanaryWatch>> {
    let mut watch = None;
    for (number, statistics) in versions {
        let watched = &statistics.watched;
        let canary = roles.and_then(|roles| roles.canary.as_ref());
        match canary.filter(|canary| canary.version == number) {
            Some(canary) => {
                watch = Some(watched.as_canary(canary.since_us, champion.unwrap_or_default()));
            }
            None => watched.is_no_canary(),
        }
        let mut shadows = roles.into_iter().flat_map(|roles| &roles.shadows);
        match shadows.find(|shadow| shadow.version == number) {
            Some(shadow) => watched.as_shadow(shadow.since_us),
            None => watched.is_no_shadow(),
        }
    }
    watch
}

/// What a comparison is of; another one, and it begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Begun {
    /// When the version took its role.
    since_us: i64,
    /// The version it is compared with, for a canary.
    champion: String,
}

impl Watched {
    /// The watch over a canary that took the role at `since_us` and stands beside that version: the one
    /// that is there, or a new one.
    pub fn as_canary(&self, since_us: i64, champion: &str) -> Arc<CanaryWatch> {
        let begun = Begun {
            since_us,
            champion: champion.to_owned(),
        };
        let mut canary = self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        match &*canary {
            Some((earlier, watch)) if *earlier == begun => Arc::clone(watch),
            _ => {
                let watch = Arc::new(CanaryWatch::default());
                *canary = Some((begun, Arc::clone(&watch)));
                watch
            }
        }
    }

    /// Begins the comparison of a version that went into shadow at `since_us`, unless it has begun.
    pub fn as_shadow(&self, since_us: i64) {
        let begun = Begun {
            since_us,
            champion: String::new(),
        };
        let mut shadow = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        if shadow.as_ref() != Some(&begun) {
            *shadow = Some(begun);
            self.shadow_comparison.store(Some(Arc::default()));
        }
    }

    /// The comparison of a version that is in shadow.
    pub fn shadow(&self) -> Option<Arc<ShadowComparison>> {
        self.shadow_comparison.load_full()
    }

    /// The watch over a version that is in canary.
    pub fn canary(&self) -> Option<Arc<CanaryWatch>> {
        let canary = self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        canary.as_ref().map(|(_, watch)| Arc::clone(watch))
    }

    /// What was answered and failed since this was last asked, of the totals by now.
    pub fn unpublished(&self, answered: u64, failed: u64) -> (u64, u64) {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (before, failed_before) = *published;
        // Two may ask at a time, and the one with the older totals come last.
        *published = (before.max(answered), failed_before.max(failed));
        (
            answered.saturating_sub(before),
            failed.saturating_sub(failed_before),
        )
    }

    /// Notes whether gauges of its role are set; returns whether they were.
    pub fn set_gauges(&self, are_set: bool) -> bool {
        self.has_gauges.swap(are_set, Ordering::Relaxed)
    }

    /// The version is no canary, or not any more.
    pub fn is_no_canary(&self) {
        *self.canary.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The version is not in shadow, or not any more.
    pub fn is_no_shadow(&self) {
        let mut shadow = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        if shadow.take().is_some() {
            self.shadow_comparison.store(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::comparison::canary::Side;

    #[test]
    fn a_comparison_goes_on_until_the_role_is_taken_anew() {
        let watched = Watched::default();
        assert!(watched.canary().is_none() && watched.shadow().is_none());
        watched.as_canary(1, "1").failure(Side::Canary, "no");
        assert_eq!(watched.as_canary(1, "1").report().errors, 1);
        assert_eq!(watched.as_canary(1, "2").report().errors, 0);
        watched.as_canary(1, "2").failure(Side::Canary, "no");
        assert_eq!(watched.as_canary(2, "2").report().errors, 0);
        watched.is_no_canary();
        assert!(watched.canary().is_none());

        watched.as_shadow(1);
        watched.shadow().unwrap().failure("no");
        watched.as_shadow(1);
        assert_eq!(watched.shadow().unwrap().totals().errors, 1);
        watched.as_shadow(2);
        assert_eq!(watched.shadow().unwrap().totals().errors, 0);
        watched.is_no_shadow();
        assert!(watched.shadow().is_none());
    }
}
