//! `model.toml`: what the ONNX graph cannot say about a model version.
//!
//! A manifest is optional. Without one a version is bound by the names of its inputs, and its
//! score is read from the output that looks like one where the shape leaves no doubt; see
//! [`super::scoring`].

use std::collections::BTreeMap;

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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSection {
    /// The name used in `POST /v1/outcomes`.
    pub outcome: String,
    /// How long after the prediction the outcome counts, for example "30d".
    #[serde(with = "humantime_serde")]
    pub window: std::time::Duration,
    /// How long after the prediction the label can be trusted.
    #[serde(with = "humantime_serde")]
    pub maturity: std::time::Duration,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonsSection {
    /// The reference customer that contributions are measured against; features not named take
    /// the view's default.
    #[serde(default)]
    pub baseline: BTreeMap<String, toml::Value>,
}
