//! What is wrong with a view file, and where.
//!
//! Everything that can be found in one go is collected, so that a file is mended in one round. Each
//! mistake has its line, the part of the file it is about, what was found and expected, and where a
//! name is close to one that exists, that name.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One thing that is wrong in a view file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// 1-based; absent when the whole file is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The part of the file, for example `feature tenure`; empty when the whole file is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    pub problem: String,
    /// What may have been meant, as a phrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Mistake {
    /// A mistake of the whole file.
    pub fn of_file(problem: impl Into<String>) -> Mistake {
        Mistake {
            line: None,
            place: String::new(),
            problem: problem.into(),
            suggestion: None,
        }
    }

    /// The mistake without its line: `feature tenur: no such key; did you mean …?`.
    fn write_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.write_text(f)
    }
}

/// Everything that is wrong with the text of one view; at least one mistake, by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lines(f, &self.0)
    }
}

impl std::error::Error for Mistakes {}

/// A mistake and the file it is in. Displays as `features/customer.toml:23: feature tenure: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewError {
    pub file: PathBuf,
    #[serde(flatten)]
    pub mistake: Mistake,
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.mistake.line {
            write!(f, "{line}:")?;
        }
        f.write_str(" ")?;
        self.mistake.write_text(f)
    }
}

impl std::error::Error for ViewError {}

/// Writes `items` one per line.
pub fn write_lines(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        let separator = if index > 0 { "\n" } else { "" };
        write!(f, "{separator}{item}")?;
    }
    Ok(())
}

/// Why a value was refused for a feature. Displays as `<feature>: <problem>`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{feature}: {problem}")]
pub struct ValueError {
    pub feature: String,
    pub problem: String,
}

/// The one of `names` that is close to `name`.
pub fn closest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let best = names
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(similarity, _)| *similarity > 0.8)
        .map(|(_, candidate)| candidate)
}

/// "did you mean X?" when one of `names` is close to `name`.
pub fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    closest(name, names).map(|candidate| format!("did you mean {candidate}?"))
}

/// "; did you mean X?" when one of `names` is close to `name`, else nothing.
pub fn suggestion<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    did_you_mean(name, names).map_or(String::new(), |phrase| format!("; {phrase}"))
}
