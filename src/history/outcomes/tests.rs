use super::*;
use std::time::Duration;

const DAY: i64 = 86_400_000_000;
/// The prediction is made on day 100; its window of 30 days ends on day 130, and it is mature
/// on day 140.
const AT: i64 = 100 * DAY;
const MATURE: i64 = 140 * DAY;
const PREDICTION: [u8; 16] = [7; 16];

fn section() -> LabelSection {
    LabelSection {
        outcome: "churn".to_owned(),
        value_at_least: None,
        negative: vec!["stayed".to_owned()],
        window: Duration::from_secs(30 * 86_400),
        maturity: Duration::from_secs(40 * 86_400),
    }
}

fn outcome(name: &str, occurred_at_us: i64) -> Outcome {
    Outcome {
        outcome_id: format!("{name} {occurred_at_us}"),
        customer_id: Some("C-1".to_owned()),
        outcome: name.to_owned(),
        occurred_at_us,
        received_at_us: occurred_at_us,
        ..Outcome::default()
    }
}

fn naming(prediction: [u8; 16], mut outcome: Outcome) -> Outcome {
    outcome.prediction_id = Some(prediction.to_vec().into());
    outcome.customer_id = None;
    outcome
}

fn known(section: &LabelSection, as_of_us: i64, outcomes: &[Outcome]) -> KnownOutcomes {
    let mut known = KnownOutcomes::new(LabelRule::new(section), as_of_us);
    for outcome in outcomes {
        known.add(outcome).unwrap();
    }
    known.sort();
    known
}

/// The label of the prediction, when these outcomes are known at its maturity.
fn label(outcomes: &[Outcome]) -> Label {
    known(&section(), MATURE, outcomes).label(&PREDICTION, "C-1", AT)
}

fn positive(occurred_at_us: i64) -> Label {
    Label::Positive { occurred_at_us }
}

#[test]
fn an_outcome_counts_after_the_prediction_up_to_the_end_of_its_window() {
    for (occurred_at, expected) in [
        (AT - DAY, Label::Silent),
        (AT, Label::Silent),
        (AT + 1, positive(AT + 1)),
        (AT + 30 * DAY, positive(AT + 30 * DAY)),
        (AT + 30 * DAY + 1, Label::Silent),
    ] {
        let churn = outcome("churn", occurred_at);
        assert_eq!(
            label(std::slice::from_ref(&churn)),
            expected,
            "{occurred_at}"
        );
        // The same when the outcome names the prediction.
        assert_eq!(
            label(&[naming(PREDICTION, churn)]),
            expected,
            "{occurred_at}"
        );
    }
}

#[test]
fn a_prediction_has_no_label_before_its_maturity_whatever_has_happened() {
    for outcomes in [vec![], vec![outcome("churn", AT + DAY)]] {
        let mut early = known(&section(), MATURE - 1, &outcomes);
        assert_eq!(early.label(&PREDICTION, "C-1", AT), Label::Unmatured);
        let mut mature = known(&section(), MATURE, &outcomes);
        assert_ne!(mature.label(&PREDICTION, "C-1", AT), Label::Unmatured);
    }
}

#[test]
fn an_outcome_that_arrives_late_counts_once_it_is_known() {
    let mut late = outcome("churn", AT + DAY);
    late.received_at_us = MATURE + 5 * DAY;
    let mut before = known(&section(), MATURE, &[late.clone()]);
    assert_eq!(before.label(&PREDICTION, "C-1", AT), Label::Silent);
    assert_eq!(before.counts().received_later, 1);
    let mut after = known(&section(), MATURE + 5 * DAY, &[late]);
    assert_eq!(after.label(&PREDICTION, "C-1", AT), positive(AT + DAY));
}

#[test]
fn order_and_repetition_change_nothing() {
    let (first, second) = (outcome("churn", AT + DAY), outcome("churn", AT + 2 * DAY));
    for outcomes in [
        vec![first.clone(), second.clone()],
        vec![second.clone(), first.clone()],
        vec![second.clone(), first.clone(), second, first],
    ] {
        let mut known = known(&section(), MATURE, &outcomes);
        assert_eq!(known.label(&PREDICTION, "C-1", AT), positive(AT + DAY));
        assert_eq!(known.counts().outcomes, 2);
        assert_eq!(known.counts().repeated, outcomes.len() as u64 - 2);
    }
}

#[test]
fn of_two_outcomes_with_one_id_the_first_received_counts() {
    let mut first = outcome("stayed", AT + DAY);
    let mut second = outcome("churn", AT + 2 * DAY);
    first.outcome_id = "one".to_owned();
    second.outcome_id = "one".to_owned();
    let negative = Label::Negative {
        occurred_at_us: AT + DAY,
    };
    assert_eq!(label(&[second, first]), negative);
}

#[test]
fn a_positive_outcome_outweighs_a_negative_one() {
    let (stayed, churn) = (outcome("stayed", AT + DAY), outcome("churn", AT + 2 * DAY));
    let negative = Label::Negative {
        occurred_at_us: AT + DAY,
    };
    assert_eq!(label(std::slice::from_ref(&stayed)), negative);
    assert_eq!(
        label(&[stayed.clone(), churn.clone()]),
        positive(AT + 2 * DAY)
    );
    assert_eq!(
        label(&[naming(PREDICTION, stayed), churn]),
        positive(AT + 2 * DAY)
    );
}

#[test]
fn an_outcome_that_names_another_prediction_or_customer_says_nothing() {
    let mut other_customer = outcome("churn", AT + DAY);
    other_customer.customer_id = Some("C-2".to_owned());
    let unknown = naming([8; 16], outcome("churn", AT + 2 * DAY));
    // Both named, and they do not belong together.
    let mut contradiction = outcome("churn", AT + 3 * DAY);
    contradiction.prediction_id = Some(PREDICTION.to_vec().into());
    contradiction.customer_id = Some("C-2".to_owned());
    let other_kind = outcome("complaint", AT + DAY);
    let outcomes = [other_customer, unknown, contradiction, other_kind];
    let mut known = known(&section(), MATURE, &outcomes);
    assert_eq!(known.label(&PREDICTION, "C-1", AT), Label::Silent);
    assert_eq!(
        known.counts(),
        OutcomeCounts {
            outcomes: 3,
            of_unknown_predictions: 1,
            of_another_customer: 1,
            ..OutcomeCounts::default()
        }
    );
}

#[test]
fn an_outcome_that_names_one_prediction_is_not_one_of_the_others_of_that_customer() {
    let mut accepted = naming(PREDICTION, outcome("churn", AT + DAY));
    accepted.customer_id = Some("C-1".to_owned());
    let mut known = known(&section(), MATURE, &[accepted]);
    assert_eq!(known.label(&[9; 16], "C-1", AT), Label::Silent);
    assert_eq!(known.label(&PREDICTION, "C-1", AT), positive(AT + DAY));
}

#[test]
fn the_outcome_of_a_customer_labels_every_prediction_whose_window_it_is_in() {
    let mut known = known(&section(), 300 * DAY, &[outcome("churn", 125 * DAY)]);
    for (day, expected) in [
        (94, Label::Silent),
        (95, positive(125 * DAY)),
        (124, positive(125 * DAY)),
        (125, Label::Silent),
        (126, Label::Silent),
    ] {
        let found = known.label(&[day; 16], "C-1", i64::from(day) * DAY);
        assert_eq!(found, expected, "day {day}");
    }
}

#[test]
fn with_a_smallest_value_the_value_decides() {
    let mut section = section();
    section.value_at_least = Some(0.5);
    let with = |value| Outcome {
        value,
        ..outcome("churn", AT + DAY)
    };
    let negative = Label::Negative {
        occurred_at_us: AT + DAY,
    };
    for (value, expected, without_value) in [
        (Some(0.5), positive(AT + DAY), 0),
        (Some(0.4), negative, 0),
        (Some(f64::NAN), negative, 0),
        (None, Label::Silent, 1),
    ] {
        let mut known = known(&section, MATURE, &[with(value)]);
        assert_eq!(known.label(&PREDICTION, "C-1", AT), expected, "{value:?}");
        assert_eq!(known.counts().without_value, without_value);
    }
}

#[test]
fn times_at_the_end_of_time_do_no_harm() {
    let mut known = known(&section(), i64::MAX, &[outcome("churn", i64::MAX)]);
    for at in [i64::MIN, -1, i64::MAX - 1, i64::MAX] {
        known.label(&PREDICTION, "C-1", at);
    }
}
