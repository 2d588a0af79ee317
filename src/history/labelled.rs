//! The predictions of one model with their labels, read from one ledger or several.
//!
//! Replicas keep a ledger each, and an outcome may be in another one than the prediction it is
//! about: so the outcomes of all ledgers are read first, then the predictions are read and labelled
//! one by one, in the order of the ledgers given and of their logs. The servers may be running.
//!
//! Memory: the outcomes (see [`super::outcomes`]) and one prediction.

use std::path::PathBuf;

use super::outcomes::{KnownOutcomes, Label, LabelRule, OutcomeCounts};
use crate::ledger::{Prediction, Score, read_outcomes, read_predictions};
use crate::models::catalog::Catalog;
use crate::models::manifest::LabelSection;
use crate::models::version::ModelVersion;

/// Which predictions are read, and as of when they are labelled.
#[derive(Debug, Clone)]
pub struct Question {
    /// The data directories of the servers whose ledgers are read.
    pub data_dirs: Vec<PathBuf>,
    pub model: String,
    /// The moment at which labels are asked for: what was received later is not known.
    pub as_of_us: i64,
    /// Predictions made before this are left out.
    pub since_us: Option<i64>,
}

/// A prediction that is old enough to have a label.
#[derive(Debug)]
pub struct LabelledPrediction<'a> {
    pub prediction: &'a Prediction,
    /// What the model said.
    pub score: &'a Score,
    pub label: Label,
}

/// How many predictions there are, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LabelCounts {
    /// Predictions of the model, made between `since` and the moment labels are asked for.
    pub predictions: u64,
    /// Of these, the ones that are old enough to have a label.
    pub matured: u64,
    pub positive: u64,
    /// Mature, with an outcome that says that it did not come true.
    pub known_negative: u64,
    /// Mature and without any outcome in the window: negative as well.
    pub without_outcome: u64,
    /// Too young; left out.
    pub unmatured: u64,
    #[serde(flatten)]
    pub outcomes: OutcomeCounts,
}

/// The champion of a model and its label, which is what predictions are labelled by.
///
/// # Errors
/// There is no champion, or its manifest has no `[label]`; and what to do.
pub fn labelled_champion<'a>(
    catalog: &'a Catalog,
    name: &str,
) -> Result<(&'a ModelVersion, &'a LabelSection), String> {
    let champion = catalog
        .find(name, None)
        .map_err(|error| error.to_string())?;
    let manifest = champion.manifest.as_ref();
    let label = manifest.and_then(|manifest| manifest.label.as_ref());
    let label = label.ok_or_else(|| {
        format!(
            "model {name} version {}: its model.toml has no [label] section, so nothing says which \
             outcome it predicts; add one with outcome, window and maturity",
            champion.version
        )
    })?;
    Ok((champion, label))
}

/// Hands every labelled prediction to `visit` and returns what was counted.
///
/// # Errors
/// A ledger that is missing, named twice, damaged or unreadable, too many outcomes; or what `visit`
/// says, which ends the reading.
pub fn read_labelled(
    question: &Question,
    rule: &LabelRule,
    mut visit: impl FnMut(&LabelledPrediction<'_>) -> Result<(), String>,
) -> Result<LabelCounts, String> {
    refuse_repeated(&question.data_dirs)?;
    let mut known = KnownOutcomes::new(rule.clone(), question.as_of_us);
    for data_dir in &question.data_dirs {
        read_outcomes(data_dir, |outcome| known.add(&outcome))?;
    }
    known.sort();

    let mut counts = LabelCounts::default();
    for data_dir in &question.data_dirs {
        read_predictions(data_dir, |prediction| {
            let asked = question.since_us.unwrap_or(i64::MIN)..=question.as_of_us;
            let mut scores = prediction.scores.iter();
            let score = scores.find(|score| score.model == question.model);
            let Some(score) = score.filter(|_| asked.contains(&prediction.at_us)) else {
                return Ok(());
            };
            counts.predictions += 1;
            let id = &prediction.prediction_id;
            let label = known.label(id, &prediction.customer_id, prediction.at_us);
            match label {
                Label::Positive { .. } => counts.positive += 1,
                Label::Negative { .. } => counts.known_negative += 1,
                Label::Silent => counts.without_outcome += 1,
                Label::Unmatured => {
                    counts.unmatured += 1;
                    return Ok(());
                }
            }
            counts.matured += 1;
            visit(&LabelledPrediction {
                prediction: &prediction,
                score,
                label,
            })
        })?;
    }
    counts.outcomes = known.counts();
    Ok(counts)
}

/// The same ledger twice would count every prediction twice.
fn refuse_repeated(data_dirs: &[PathBuf]) -> Result<(), String> {
    let mut seen = Vec::with_capacity(data_dirs.len());
    for data_dir in data_dirs {
        // A directory that is not there is reported when it is read.
        let place = data_dir.canonicalize().unwrap_or_else(|_| data_dir.clone());
        if seen.contains(&place) {
            return Err(format!(
                "--data-dir {}: is given twice; its predictions would count twice",
                data_dir.display()
            ));
        }
        seen.push(place);
    }
    Ok(())
}

impl Label {
    /// Whether the prediction came true; of no use for one that is too young to say.
    pub fn is_positive(self) -> bool {
        matches!(self, Label::Positive { .. })
    }

    /// When the outcome happened that decided, if one did.
    pub fn decided_at_us(self) -> Option<i64> {
        match self {
            Label::Positive { occurred_at_us } | Label::Negative { occurred_at_us } => {
                Some(occurred_at_us)
            }
            Label::Silent | Label::Unmatured => None,
        }
    }
}

impl std::fmt::Display for LabelCounts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} predictions: {} positive, {} with a negative outcome, {} without an outcome \
             (negative); {} too young to say, left out",
            self.predictions,
            self.positive,
            self.known_negative,
            self.without_outcome,
            self.unmatured
        )?;
        let remarks = [
            (
                self.outcomes.repeated,
                "outcomes were there before and count once",
            ),
            (
                self.outcomes.received_later,
                "outcomes were received later than that",
            ),
            (
                self.outcomes.without_value,
                "outcomes have no value and say nothing",
            ),
            (
                self.outcomes.of_unknown_predictions,
                "outcomes name predictions that are not in these ledgers, or are of other models",
            ),
            (
                self.outcomes.of_another_customer,
                "outcomes name a prediction and another customer than that prediction's",
            ),
        ];
        for (count, remark) in remarks {
            if count > 0 {
                write!(out, "\n{count} {remark}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, LedgerOptions, Outcome};
    use std::path::Path;
    use std::time::Duration;

    const DAY: i64 = 86_400_000_000;

    fn rule() -> LabelRule {
        LabelRule::new(&LabelSection {
            outcome: "churn".to_owned(),
            value_at_least: None,
            negative: Vec::new(),
            window: Duration::from_secs(30 * 86_400),
            maturity: Duration::from_secs(30 * 86_400),
        })
    }

    /// A ledger with a prediction of `model` on each of these days, for the customer `C-<day>`, and
    /// a churn of each of those customers on day 20, received on day 21.
    fn write(data_dir: &Path, model: &str, days: &[u8], churned: &[u8]) {
        let ledger = Ledger::open(data_dir, LedgerOptions::default()).unwrap();
        for day in days {
            let score = |model: &str, score| Score {
                model: model.to_owned(),
                version: "1".to_owned(),
                score,
                ..Score::default()
            };
            let prediction = Prediction {
                prediction_id: vec![*day; 16].into(),
                customer_id: format!("C-{day}"),
                at_us: i64::from(*day) * DAY,
                scores: vec![score("other", 0.1), score(model, f64::from(*day))],
                ..Prediction::default()
            };
            ledger.append_prediction(prediction).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for day in churned {
            let outcome = Outcome {
                outcome_id: format!("left-{day}"),
                customer_id: Some(format!("C-{day}")),
                outcome: "churn".to_owned(),
                occurred_at_us: 20 * DAY,
                received_at_us: 21 * DAY,
                ..Outcome::default()
            };
            runtime.block_on(ledger.append_outcome(outcome)).unwrap();
        }
        ledger.close().unwrap();
    }

    fn question(data_dirs: &[&Path], as_of_day: i64) -> Question {
        Question {
            data_dirs: data_dirs.iter().map(|dir| dir.to_path_buf()).collect(),
            model: "churn".to_owned(),
            as_of_us: as_of_day * DAY,
            since_us: None,
        }
    }

    /// Score and label of every labelled prediction.
    fn labels(question: &Question) -> (Vec<(f64, bool)>, LabelCounts) {
        let mut found = Vec::new();
        let counts = read_labelled(question, &rule(), |labelled| {
            found.push((labelled.score.score, labelled.label.is_positive()));
            Ok(())
        });
        (found, counts.unwrap())
    }

    #[test]
    fn outcomes_of_all_ledgers_label_the_predictions_of_all_ledgers() {
        // Given two replicas that know of each other's customers, and both of one outcome
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), "churn", &[1, 2, 3], &[11, 2]);
        write(two.path(), "churn", &[11, 12], &[2, 3]);
        // When their predictions are labelled, then each has its outcome, in either order
        let (found, counts) = labels(&question(&[one.path(), two.path()], 100));
        let expected = [
            (1.0, false),
            (2.0, true),
            (3.0, true),
            (11.0, true),
            (12.0, false),
        ];
        assert_eq!(found, expected);
        assert_eq!((counts.predictions, counts.positive), (5, 3));
        assert_eq!(counts.without_outcome, 2);
        assert_eq!(counts.outcomes.outcomes, 3);
        assert_eq!(counts.outcomes.repeated, 1);
        let (mut turned, again) = labels(&question(&[two.path(), one.path()], 100));
        turned.sort_by(|left, right| left.0.total_cmp(&right.0));
        assert_eq!(turned, expected);
        assert_eq!(again, counts);
    }

    #[test]
    fn what_is_too_young_too_old_later_or_of_another_model_is_left_out() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(dir.path(), "churn", &[1, 5, 10, 40], &[5]);
        write(other.path(), "moved", &[6], &[]);
        let mut question = question(&[dir.path(), other.path()], 38);
        question.since_us = Some(2 * DAY);
        let (found, counts) = labels(&question);
        assert_eq!(found, [(5.0, true)]);
        assert_eq!((counts.predictions, counts.matured), (2, 1));
        assert_eq!(counts.unmatured, 1);
    }

    #[test]
    fn a_ledger_given_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "churn", &[1], &[]);
        let again = dir.path().join(".");
        let question = question(&[dir.path(), &again], 100);
        let problem = read_labelled(&question, &rule(), |_| Ok(())).unwrap_err();
        assert!(problem.contains("is given twice"), "{problem}");
    }
}
