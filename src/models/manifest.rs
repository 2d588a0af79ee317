//! `model.toml`: what the ONNX graph cannot say about a model version.
//!
//! A manifest is optional. Without one a version is bound by the names of its inputs, and its
//! score is read from the output that looks like one where the shape leaves no doubt; see
//! [`super::scoring`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// The text of `model.toml`, parsed.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub model: ModelSection,
    /// Graph input -> feature, or features for an input of several columns. Inputs not named
    /// here are bound to the feature of their own name.
    #[serde(default)]
    pub inputs: BTreeMap<String, Features>,
    #[serde(default)]
    pub output: OutputSection,
    /// For an affinity model: what each column of `probabilities` stands for, in order.
    #[serde(default)]
    pub choice: Vec<Choice>,
    /// What the score predicts, for joining outcomes.
    pub label: Option<LabelSection>,
    #[serde(default)]
    pub reasons: ReasonsSection,
    /// Where the model came from; informative.
    #[serde(default)]
    pub training: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    pub task: TaskKind,
    /// The feature view it reads; may be left out when only one view has the features.
    pub view: Option<String>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub owner: String,
    /// Set for a version that is not to answer unasked.
    pub state: Option<VersionState>,
}

/// What a version is for, as long as no rollout says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionState {
    /// Loaded and served to whoever names it, never chosen as champion.
    Candidate,
}

/// How the outputs become a score and a label.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// The probability of one class.
    #[default]
    Binary,
    /// The best of several choices the customer does not hold yet.
    Affinity,
    /// A number.
    Regression,
}

/// One feature or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Features {
    One(String),
    Several(Vec<String>),
}

impl Features {
    pub fn names(&self) -> Vec<&str> {
        match self {
            Features::One(name) => vec![name],
            Features::Several(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSection {
    /// The output that holds the probabilities (or the value, for a regression); default: the one
    /// named `probabilities`, `output_probability` or `variable`, or else the last with numbers
    /// that can be scores.
    pub probabilities: Option<String>,
    /// The output that holds the raw score; default: derived from the probability.
    pub log_odds: Option<String>,
    /// Binary: the column of `probabilities` that is the score; default: the last.
    pub positive: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub label: String,
    /// SQL over the view: a customer for whom it is true is not offered this.
    pub unless: Option<String>,
}

/// What the score predicts: which outcomes make a prediction true or false, and when that is known.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSection {
    /// The positive outcome, by its name in `POST /v1/outcomes`.
    pub outcome: String,
    /// The outcome is positive only with a value of at least this; with a smaller one it says that
    /// the prediction did not come true, without one it says nothing.
    pub value_at_least: Option<f64>,
    /// Outcomes that say that the prediction did not come true.
    #[serde(default)]
    pub negative: Vec<String>,
    /// How long after the prediction the outcome counts, for example "30d".
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long after the prediction the label can be trusted: the window and the time that
    /// outcomes take to arrive.
    #[serde(with = "humantime_serde")]
    pub maturity: Duration,
}

/// The longest window and maturity: times are counted in microseconds.
const MAX_LABEL_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl LabelSection {
    /// Checks what the types of the fields cannot say.
    ///
    /// # Errors
    /// The field, what was found, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let shown = |duration| duration_text(duration);
        if self.outcome.is_empty() {
            return Err("[label] outcome: expected the name of an outcome, found \"\"".to_owned());
        }
        if self.negative.contains(&self.outcome) {
            return Err(format!(
                "[label] negative: {:?} is the positive outcome; it cannot be both",
                self.outcome
            ));
        }
        if self.value_at_least.is_some_and(|least| !least.is_finite()) {
            return Err("[label] value_at_least: expected a finite number".to_owned());
        }
        if self.window.is_zero() {
            return Err("[label] window: expected a duration like \"30d\", found 0".to_owned());
        }
        if self.maturity < self.window {
            return Err(format!(
                "[label] maturity = {} is shorter than window = {}: a label cannot be trusted \
                 before its window has passed; make it {} or longer",
                shown(self.maturity),
                shown(self.window),
                shown(self.window)
            ));
        }
        if self.maturity > MAX_LABEL_DURATION {
            return Err(format!(
                "[label] maturity: expected at most {}, found {}",
                shown(MAX_LABEL_DURATION),
                shown(self.maturity)
            ));
        }
        Ok(())
    }
}

/// A duration in the largest unit that leaves no rest, as manifests have it: `30d`.
pub fn duration_text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    let nanoseconds = duration.as_nanos();
    for (unit, name) in UNITS {
        if nanoseconds >= unit && nanoseconds.is_multiple_of(unit) {
            return format!("{}{name}", nanoseconds / unit);
        }
    }
    format!("{nanoseconds}ns")
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonsSection {
    /// The reference customer that contributions are measured against; features not named take
    /// the view's default.
    #[serde(default)]
    pub baseline: BTreeMap<String, toml::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Result<LabelSection, String> {
        let label: LabelSection = toml::from_str(text).map_err(|error| error.to_string())?;
        label.check().map(|()| label)
    }

    #[test]
    fn a_label_is_an_outcome_with_a_window_and_a_maturity() {
        let found = label("outcome = \"churn\"\nwindow = \"30d\"\nmaturity = \"45d\"").unwrap();
        assert_eq!(found.window, Duration::from_secs(30 * 86_400));
        assert_eq!(found.value_at_least, None);
        assert!(found.negative.is_empty());
    }

    #[test]
    fn a_label_that_could_not_be_true_is_refused_with_what_to_do() {
        let window = "outcome = \"churn\"\nwindow = \"30d\"\n";
        for (text, expected) in [
            (
                "maturity = \"10d\"",
                "[label] maturity = 10d is shorter than window = 30d",
            ),
            (
                "maturity = \"300000d\"",
                "[label] maturity: expected at most 36500d",
            ),
            (
                "maturity = \"30d\"\nnegative = [\"churn\"]",
                "cannot be both",
            ),
            (
                "maturity = \"30d\"\nvalue_at_least = nan",
                "a finite number",
            ),
            (
                "maturity = \"30d\"\nvalue_least = 1",
                "unknown field `value_least`",
            ),
        ] {
            let problem = label(&format!("{window}{text}")).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        let problem = label("outcome = \"\"\nwindow = \"0s\"\nmaturity = \"1d\"").unwrap_err();
        assert!(problem.contains("outcome"), "{problem}");
        let problem = label("outcome = \"a\"\nwindow = \"0s\"\nmaturity = \"1d\"").unwrap_err();
        assert!(problem.contains("window"), "{problem}");
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["30d", "36h", "90m", "1s", "1500ms", "7us"] {
            let duration = humantime::parse_duration(text).unwrap();
            assert_eq!(duration_text(duration), text);
        }
    }
}
