//! Labels: which predictions came true, by the outcomes that are known at one moment.
//!
//! An outcome belongs to the prediction it names. One that names only a customer belongs to every
//! prediction of that customer in whose window it happened. The window of a prediction made at `t`
//! is `(t, t + window]`: what happened at `t` was known then, and what happens later is not what
//! the score was about. Order of arrival does not matter, nor how late an outcome was received, as
//! long as that was before the moment at which labels are asked for.
//!
//! | what is known of a prediction | its label |
//! |---|---|
//! | it is younger than the maturity | none, whatever has happened: to count early positives and wait for the negatives would make the rate of positives too high |
//! | a positive outcome in its window | positive, also when a negative one is there too |
//! | a negative outcome in its window | negative |
//! | nothing | negative: what should have happened did not |
//!
//! Pure code: no files and no clock. Memory: 80 bytes for each outcome that the label names, at
//! most [`MAX_OUTCOMES`] of them.

use uuid::Uuid;

use crate::ledger::{Outcome, short_id};
use crate::models::manifest::LabelSection;

/// The most outcomes that are held, 800 MB; more are refused with a message.
pub const MAX_OUTCOMES: usize = 10_000_000;

/// What a prediction of a model is labelled by, from its manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelRule {
    outcome: String,
    value_at_least: Option<f64>,
    negative: Vec<String>,
    window_us: i64,
    maturity_us: i64,
}

/// What became of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// It came true; when it first did.
    Positive { occurred_at_us: i64 },
    /// An outcome says that it did not; when that was first the case.
    Negative { occurred_at_us: i64 },
    /// Nothing happened in its window: it did not come true.
    Silent,
    /// It is too early to say.
    Unmatured,
}

/// What was made of the outcomes that were read. Outcomes that the label does not name are not
/// counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct OutcomeCounts {
    /// Different outcomes that the label names and that were known in time.
    pub outcomes: u64,
    /// The same outcome once more: replicas may each have recorded it.
    pub repeated: u64,
    /// Received after the moment at which labels are asked for.
    pub received_later: u64,
    /// Of the positive outcome's name, without the value that decides.
    pub without_value: u64,
    /// They name a prediction that is not among those that were labelled: it is in a ledger that
    /// was not given, or is one of another model.
    pub of_unknown_predictions: u64,
    /// They name a prediction and a customer who is not the one of that prediction.
    pub of_another_customer: u64,
}

/// The outcomes that decide about predictions, as far as they are known at one moment.
#[derive(Debug)]
pub struct KnownOutcomes {
    rule: LabelRule,
    as_of_us: i64,
    /// Sorted by subject, positives first, then by time.
    outcomes: Vec<KnownOutcome>,
    counts: OutcomeCounts,
}

#[derive(Debug, Clone)]
struct KnownOutcome {
    /// The prediction, or a digest of the customer: whom it is joined by.
    subject: u128,
    by_prediction: bool,
    positive: bool,
    /// Some prediction that was labelled is the subject.
    met: bool,
    occurred_at_us: i64,
    received_at_us: i64,
    outcome_id: u128,
    /// A digest of the customer it also names.
    customer: Option<std::num::NonZeroU64>,
}

impl LabelRule {
    /// The rule of a manifest's label, which has been checked.
    pub fn new(label: &LabelSection) -> LabelRule {
        let microseconds =
            |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        LabelRule {
            outcome: label.outcome.clone(),
            value_at_least: label.value_at_least,
            negative: label.negative.clone(),
            window_us: microseconds(label.window),
            maturity_us: microseconds(label.maturity),
        }
    }

    /// The end of the window of a prediction made at `at_us`.
    pub fn window_end_us(&self, at_us: i64) -> i64 {
        at_us.saturating_add(self.window_us)
    }

    /// Whether a prediction made at `at_us` can be labelled at `as_of_us`.
    fn is_mature(&self, at_us: i64, as_of_us: i64) -> bool {
        at_us.saturating_add(self.maturity_us) <= as_of_us
    }
}

impl KnownOutcomes {
    /// No outcomes yet, to be labelled by `rule` with what is known at `as_of_us`.
    pub fn new(rule: LabelRule, as_of_us: i64) -> KnownOutcomes {
        KnownOutcomes {
            rule,
            as_of_us,
            outcomes: Vec::new(),
            counts: OutcomeCounts::default(),
        }
    }

    /// Adds an outcome, in any order; those that say nothing about this label are passed over.
    ///
    /// # Errors
    /// When there are more than [`MAX_OUTCOMES`].
    pub fn add(&mut self, outcome: &Outcome) -> Result<(), String> {
        let positive = if outcome.outcome == self.rule.outcome {
            match (self.rule.value_at_least, outcome.value) {
                (None, _) => true,
                (Some(least), Some(value)) => value >= least,
                (Some(_), None) => {
                    self.counts.without_value += 1;
                    return Ok(());
                }
            }
        } else if self.rule.negative.contains(&outcome.outcome) {
            false
        } else {
            return Ok(());
        };
        if outcome.received_at_us > self.as_of_us {
            self.counts.received_later += 1;
            return Ok(());
        }
        let prediction = outcome.prediction_id.as_deref().map(prediction_subject);
        let customer = outcome.customer_id.as_deref().map(customer_subject);
        let Some(subject) = prediction.or(customer) else {
            return Ok(());
        };
        if self.outcomes.len() >= MAX_OUTCOMES {
            return Err(format!(
                "there are more than {MAX_OUTCOMES} outcomes named {:?} or its negatives, which is \
                 the most that are held in memory; give fewer ledgers",
                self.rule.outcome
            ));
        }
        self.outcomes.push(KnownOutcome {
            subject,
            by_prediction: prediction.is_some(),
            positive,
            met: false,
            occurred_at_us: outcome.occurred_at_us,
            received_at_us: outcome.received_at_us,
            outcome_id: u128::from_be_bytes(short_id(outcome.outcome_id.as_bytes())),
            customer: prediction.and(customer).and_then(short),
        });
        Ok(())
    }

    /// Must be called after the last outcome and before the first prediction: an id is counted
    /// once, and of two outcomes with one id the one received first counts.
    pub fn sort(&mut self) {
        self.outcomes
            .sort_unstable_by_key(|known| (known.outcome_id, known.received_at_us));
        let with_repeated = self.outcomes.len();
        self.outcomes.dedup_by_key(|known| known.outcome_id);
        self.counts.repeated = (with_repeated - self.outcomes.len()) as u64;
        self.counts.outcomes = self.outcomes.len() as u64;
        self.outcomes.sort_unstable_by_key(KnownOutcome::place);
    }

    /// What became of the prediction `prediction_id`, made for `customer_id` at `at_us`.
    pub fn label(&mut self, prediction_id: &[u8], customer_id: &str, at_us: i64) -> Label {
        let customer = customer_subject(customer_id);
        let by_id = self.named(prediction_subject(prediction_id), customer, at_us);
        if !self.rule.is_mature(at_us, self.as_of_us) {
            return Label::Unmatured;
        }
        let first = |positive, named: Option<i64>| {
            let of_customer = self.first_of_customer(customer, positive, at_us);
            of_customer.into_iter().chain(named).min()
        };
        if let Some(occurred_at_us) = first(true, by_id.positive) {
            Label::Positive { occurred_at_us }
        } else if let Some(occurred_at_us) = first(false, by_id.negative) {
            Label::Negative { occurred_at_us }
        } else {
            Label::Silent
        }
    }

    /// What was made of the outcomes. Complete once every prediction has been labelled.
    pub fn counts(&self) -> OutcomeCounts {
        let mut counts = self.counts;
        let unmet = self
            .outcomes
            .iter()
            .filter(|known| known.by_prediction && !known.met);
        counts.of_unknown_predictions = unmet.count() as u64;
        counts
    }

    /// The first outcomes in the window among those that name this prediction; they are marked as
    /// met whenever they happened.
    fn named(&mut self, prediction: u128, customer: u128, at_us: i64) -> Named {
        let start = self.lower_bound((true, prediction, false, i64::MIN));
        let end_us = self.rule.window_end_us(at_us);
        let mut named = Named::default();
        for known in &mut self.outcomes[start..] {
            if !known.by_prediction || known.subject != prediction {
                break;
            }
            known.met = true;
            if known.customer.is_some() && known.customer != short(customer) {
                self.counts.of_another_customer += 1;
                continue;
            }
            if known.occurred_at_us <= at_us || known.occurred_at_us > end_us {
                continue;
            }
            let first = if known.positive {
                &mut named.positive
            } else {
                &mut named.negative
            };
            // They come in the order of time.
            first.get_or_insert(known.occurred_at_us);
        }
        named
    }

    /// When the first outcome of this kind that names only the customer happened in the window.
    fn first_of_customer(&self, customer: u128, positive: bool, at_us: i64) -> Option<i64> {
        let after_us = at_us.saturating_add(1);
        let first = self.lower_bound((false, customer, !positive, after_us));
        let known = self.outcomes.get(first)?;
        let is_meant = !known.by_prediction
            && known.subject == customer
            && known.positive == positive
            && known.occurred_at_us > at_us
            && known.occurred_at_us <= self.rule.window_end_us(at_us);
        is_meant.then_some(known.occurred_at_us)
    }

    /// The position of the first outcome that is not before `place`.
    fn lower_bound(&self, place: (bool, u128, bool, i64)) -> usize {
        self.outcomes.partition_point(|known| known.place() < place)
    }
}

impl KnownOutcome {
    /// What outcomes are sorted by: positives come before negatives.
    fn place(&self) -> (bool, u128, bool, i64) {
        (
            self.by_prediction,
            self.subject,
            !self.positive,
            self.occurred_at_us,
        )
    }
}

/// The first outcomes in the window that name a prediction.
#[derive(Default)]
struct Named {
    positive: Option<i64>,
    negative: Option<i64>,
}

/// A prediction's id as a number; ids of another length than a UUID's do not exist in a ledger.
fn prediction_subject(id: &[u8]) -> u128 {
    Uuid::from_slice(id).map_or(0, |id| id.as_u128())
}

fn customer_subject(customer_id: &str) -> u128 {
    u128::from_be_bytes(short_id(customer_id.as_bytes()))
}

/// Half of a digest, which is enough to see that two customers are not the same one.
fn short(customer: u128) -> Option<std::num::NonZeroU64> {
    std::num::NonZeroU64::new(customer as u64 | 1)
}

#[cfg(test)]
mod tests;
