//! What is compared of one version: kept through every reload of it, for as long as it has the role.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    attributed: Mutex<Attributed>,
}

/// What a version was run for, by the role that it had then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributed {
    pub champion: Outcomes,
    pub canary: Outcomes,
    pub shadow: Outcomes,
    /// Whether it was in shadow at any time.
    pub was_shadow: bool,
    /// In shadow: what it was not run on, and what the ledger did not take.
    pub dropped: u64,
    pub unrecorded: u64,
    /// The totals that are counted already.
    known: (u64, u64),
}

/// Customers that a version was run for, and those of them that it failed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub requests: u64,
    pub errors: u64,
}

impl Outcomes {
    fn add(&mut self, answered: u64, failed: u64) {
        self.requests += answered + failed;
        self.errors += failed;
    }
}

impl Attributed {
    fn add_shadow(&mut self, comparison: &ShadowComparison) {
        let new = comparison.unpublished();
        self.shadow.add(new.pairs, new.errors);
        self.was_shadow = true;
        self.dropped += new.dropped;
        self.unrecorded += new.unrecorded;
    }
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
            self.replace_shadow(Some(Arc::default()));
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

    /// Counts what came since this was last called for the role that the version has now. `answered` and
    /// `failed` are the totals by now of those that it answered or was to answer.
    pub fn attribute(&self, is_canary: bool, answered: u64, failed: u64) {
        let mut attributed = self.lock_attributed();
        let (before, failed_before) = attributed.known;
        // Two may call at a time, and the one with the older totals come last.
        attributed.known = (before.max(answered), failed_before.max(failed));
        let answered = answered.saturating_sub(before);
        let failed = failed.saturating_sub(failed_before);
        match is_canary {
            true => attributed.canary.add(answered, failed),
            false => attributed.champion.add(answered, failed),
        }
        if let Some(comparison) = self.shadow() {
            attributed.add_shadow(&comparison);
        }
    }

    /// What was counted for which role, through all of them.
    pub fn attributed(&self) -> Attributed {
        *self.lock_attributed()
    }

    fn lock_attributed(&self) -> MutexGuard<'_, Attributed> {
        let attributed = self.attributed.lock();
        attributed.unwrap_or_else(PoisonError::into_inner)
    }

    /// Another comparison or none takes the place of the one there is, whose counts are kept.
    fn replace_shadow(&self, comparison: Option<Arc<ShadowComparison>>) {
        let mut attributed = self.lock_attributed();
        if let Some(ended) = self.shadow_comparison.swap(comparison) {
            attributed.add_shadow(&ended);
        }
    }

    /// The version is no canary, or not any more.
    pub fn is_no_canary(&self) {
        *self.canary.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The version is not in shadow, or not any more.
    pub fn is_no_shadow(&self) {
        let mut shadow = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        if shadow.take().is_some() {
            self.replace_shadow(None);
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

    #[test]
    fn what_was_scored_counts_for_the_role_of_its_time_and_is_never_forgotten() {
        let watched = Watched::default();
        watched.attribute(false, 5, 1);
        watched.as_shadow(1);
        watched.shadow().unwrap().failure("no");
        watched.attribute(false, 5, 1);
        // What comes between the last look and the end of the role counts too.
        watched.shadow().unwrap().failure("no");
        watched.shadow().unwrap().dropped();
        watched.is_no_shadow();
        watched.attribute(true, 8, 1);
        // Whoever looked earlier comes later.
        watched.attribute(true, 7, 1);
        let found = watched.attributed();
        let outcomes = |requests, errors| Outcomes { requests, errors };
        assert_eq!(found.champion, outcomes(6, 1));
        assert_eq!(found.shadow, outcomes(2, 2));
        assert_eq!(found.canary, outcomes(3, 0));
        assert_eq!(
            (found.was_shadow, found.dropped, found.unrecorded),
            (true, 1, 0)
        );
    }
}
