//! The customers that a canary answers.
//!
//! A customer has one point between 0 and 9,999 for each model, a hash of the model's name and the
//! customer's key, and belongs to the share if the point is below it. So a customer is always answered
//! by the same version, on every server, and raising the share keeps everyone who was in it.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// A share of the customers, in steps of a hundredth of a percent: more than none, at most all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(u16);

/// All customers.
const WHOLE: u16 = 10_000;

/// How far from a step a percentage may be: the error of decimal fractions, and not a finer step.
const STEP_TOLERANCE: f64 = 1e-6;

impl Share {
    /// # Errors
    /// What a percentage has to be like.
    pub fn from_percent(percent: f64) -> Result<Share, String> {
        let steps = percent * 100.0;
        let rounded = steps.round();
        if !(1.0..=f64::from(WHOLE)).contains(&rounded) || (steps - rounded).abs() > STEP_TOLERANCE
        {
            return Err(format!(
                "percent: expected a number from 0.01 to 100 in steps of 0.01, found {percent}"
            ));
        }
        Ok(Share(rounded as u16))
    }

    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// Whether the customer of that key belongs to the share of that model.
    pub fn takes(self, model: &str, key: &str) -> bool {
        point(model, key) < self.0
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(percent: f64) -> Result<Share, String> {
        Share::from_percent(percent)
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.percent()
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// The place of a customer among all of a model, from 0 to 9,999. Changing it gives canaries other
/// customers.
fn point(model: &str, key: &str) -> u16 {
    let mut hash = Xxh3::new();
    hash.update(model.as_bytes());
    hash.update(&[0]);
    hash.update(key.as_bytes());
    (hash.digest() % u64::from(WHOLE)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMERS: usize = 100_000;

    fn customers() -> impl Iterator<Item = String> {
        (0..CUSTOMERS).map(|number| format!("C-{number:06}"))
    }

    fn share(percent: f64) -> Share {
        Share::from_percent(percent).unwrap()
    }

    #[test]
    fn of_a_hundred_thousand_customers_a_canary_answers_its_share() {
        for model in ["churn", "upsell", "m"] {
            for percent in [0.5, 1.0, 5.0, 10.0, 33.33, 50.0, 90.0, 99.9] {
                let share = share(percent);
                let taken = customers().filter(|key| share.takes(model, key)).count();
                let found = taken as f64 / CUSTOMERS as f64 * 100.0;
                // Customers are spread as dice would: a third of a percent for small and large shares,
                // a little more about the middle.
                let deviation = (percent * (100.0 - percent) / CUSTOMERS as f64).sqrt();
                let bound = (4.0 * deviation).max(0.3);
                assert!(
                    (found - percent).abs() < bound,
                    "{model}: {found} % instead of {percent} %"
                );
            }
            let all = customers().filter(|key| share(100.0).takes(model, key));
            assert_eq!(all.count(), CUSTOMERS);
        }
    }

    #[test]
    fn a_customer_stays_with_a_share_that_grows() {
        let steps = [0.01, 1.0, 5.0, 5.01, 25.0, 99.99, 100.0].map(share);
        for key in customers() {
            let taken = steps.map(|share| share.takes("churn", &key));
            assert!(taken.is_sorted(), "{key}: {taken:?}");
            assert_eq!(taken, steps.map(|share| share.takes("churn", &key)));
        }
    }

    #[test]
    fn models_try_their_canaries_on_different_customers() {
        let ten = share(10.0);
        let both = customers().filter(|key| ten.takes("churn", key) && ten.takes("upsell", key));
        let both = both.count() as f64 / CUSTOMERS as f64 * 100.0;
        assert!((both - 1.0).abs() < 0.3, "{both} % of the customers");
    }

    #[test]
    fn whom_a_canary_answers_does_not_change_from_one_release_to_the_next() {
        let points = ["C-000001", "C-000002", "", "ü"].map(|key| point("churn", key));
        assert_eq!(points, [4628, 3594, 7726, 4529]);
    }

    #[test]
    fn a_share_is_in_steps_of_a_hundredth_of_a_percent_of_some_customers() {
        for percent in [0.01, 0.07, 5.0, 12.5, 33.33, 99.99, 100.0] {
            assert_eq!(share(percent).percent(), percent);
        }
        for percent in [
            0.0,
            -1.0,
            0.001,
            5.005,
            100.01,
            1e300,
            f64::NAN,
            f64::INFINITY,
        ] {
            let problem = Share::from_percent(percent).unwrap_err();
            assert!(problem.contains("from 0.01 to 100"), "{problem}");
        }
        let read: Result<Share, _> = serde_json::from_str("250");
        assert!(read.unwrap_err().to_string().contains("from 0.01 to 100"));
    }
}
