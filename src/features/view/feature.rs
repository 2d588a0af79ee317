//! One declared feature: reading what its section says, and checking values against it.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use serde_json::Value as Json;
use toml::Spanned;

use super::aggregate::value_when_empty;
use super::build::Draft;
use super::file::{FeatureSection, Findings, ViewFile};
use super::mistake::{ValueError, did_you_mean};
use super::request::BUILT_IN;
use super::{Feature, Holds, Role, UnknownValue, shorten};
use crate::features::expression::Expression;
use crate::features::value::{FeatureType, Value};

/// The feature of a draft; what is wrong with it is added to `findings`.
pub fn feature(
    draft: &Draft<'_>,
    file: &ViewFile,
    schema: &SchemaRef,
    names_are_known: bool,
    findings: &mut Findings<'_>,
) -> Feature {
    let Some(section) = draft.section else {
        return built_in_feature(draft);
    };
    refuse_what_has_no_meaning(draft, section, findings);
    let kind = draft.column_type();
    let place = section.place.clone();
    let is_plain = draft.holds == Holds::One;
    let mut read = |what: &str, json: &Spanned<Json>| match Value::from_json(json.get_ref(), kind) {
        Ok(value) => Some(value),
        Err(problem) => {
            findings.add(json.span().start, &place, format!("{what}: {problem}"));
            None
        }
    };
    let given = section.default.as_ref().filter(|_| is_plain);
    let default = given.and_then(|default| read("default", default));
    let values: Vec<Value> = section
        .values
        .iter()
        .filter(|_| is_plain)
        .filter_map(|value| read("values", value))
        .collect();
    let max_age = section.max_age.as_ref().map(|age| *age.get_ref());
    let expression = section
        .expression
        .as_ref()
        .and_then(|sql| compile(draft, sql, schema, names_are_known, findings));
    let number = |number: &Option<Spanned<f64>>| number.as_ref().map(|n| *n.get_ref());
    let built_in = BUILT_IN.iter().find(|column| column.name == draft.name);
    let view = &file.view;
    let mut feature = Feature {
        name: draft.name.clone(),
        kind,
        role: draft.role,
        holds: draft.holds,
        description: section.description.clone(),
        owner: section.owner.clone().or_else(|| view.owner.clone()),
        purposes: section
            .purposes
            .clone()
            .unwrap_or_else(|| view.purposes.clone()),
        tags: section.tags.clone(),
        personal: section.personal,
        default,
        values,
        unknown: match &section.unknown {
            Some(word) if word.get_ref() == "refuse" => UnknownValue::Refuse,
            _ => UnknownValue::Pass,
        },
        min: number(&section.min).or(built_in.and_then(|column| column.min)),
        max: number(&section.max).or(built_in.and_then(|column| column.max)),
        max_age: match draft.role {
            Role::Stored => max_age.or(view.max_age),
            _ => max_age,
        },
        expression,
    };
    check_default(&feature, section, &place, findings);
    if let (None, Some(aggregate)) = (&feature.default, &draft.aggregate) {
        feature.default = value_when_empty(aggregate, draft.holds);
    }
    feature
}

fn built_in_feature(draft: &Draft<'_>) -> Feature {
    let column = BUILT_IN.iter().find(|column| column.name == draft.name);
    Feature {
        name: draft.name.clone(),
        kind: draft.kind,
        role: draft.role,
        holds: draft.holds,
        description: column.map_or(String::new(), |column| column.description.to_owned()),
        owner: None,
        purposes: Vec::new(),
        tags: Vec::new(),
        personal: false,
        default: None,
        values: Vec::new(),
        unknown: UnknownValue::Pass,
        min: column.and_then(|column| column.min),
        max: column.and_then(|column| column.max),
        max_age: None,
        expression: None,
    }
}

/// Keys that are well formed and say nothing for this kind of feature.
fn refuse_what_has_no_meaning(
    draft: &Draft<'_>,
    section: &FeatureSection,
    findings: &mut Findings<'_>,
) {
    let start = |at: Option<usize>, key: &'static str| at.map(|at| (at, key));
    let default = start(section.default.as_ref().map(|d| d.span().start), "default");
    let values = start(section.has_values, "values");
    let unknown = start(section.unknown.as_ref().map(|u| u.span().start), "unknown");
    let max_age = start(section.max_age.as_ref().map(|a| a.span().start), "max_age");
    let min = start(section.min.as_ref().map(|n| n.span().start), "min");
    let max = start(section.max.as_ref().map(|n| n.span().start), "max");
    let grouped = section
        .aggregate
        .as_ref()
        .is_some_and(|aggregate| !aggregate.groups.is_empty());
    let (refused, why) = match (draft.role, draft.holds) {
        (Role::Derived, _) => (
            vec![default, values, unknown, max_age],
            "belongs to the features that the expression reads",
        ),
        // With groups the keys are those of the plain features beside the map.
        (_, Holds::Map | Holds::List) if !grouped => (
            vec![default, values, unknown, min, max, max_age],
            "has no meaning for a map or list",
        ),
        (Role::Window | Role::Request, _) => (vec![max_age], "belongs to values that are stored"),
        _ => (Vec::new(), ""),
    };
    for (at, key) in refused.into_iter().flatten() {
        let suggestion = Some("leave it out".to_owned());
        findings.suggest(at, &section.place, format!("{key} {why}"), suggestion);
    }
    let is_number = matches!(draft.kind, FeatureType::Int64 | FeatureType::Float64);
    for (at, key) in [min, max].into_iter().flatten().filter(|_| !is_number) {
        let problem = format!("{key} needs a number, the type is {}", draft.kind.name());
        findings.add(at, &section.place, problem);
    }
    if let (Some(min), Some(max)) = (&section.min, &section.max)
        && min.get_ref() > max.get_ref()
    {
        let at = min.span().start;
        findings.add(at, &section.place, "min is greater than max");
    }
}

fn compile(
    draft: &Draft<'_>,
    sql: &Spanned<String>,
    schema: &SchemaRef,
    names_are_known: bool,
    findings: &mut Findings<'_>,
) -> Option<Expression> {
    let text = sql.get_ref();
    match Expression::compile(text, schema, &draft.kind.arrow()) {
        Ok(expression) => Some(expression),
        // It may read a feature that has a mistake itself.
        Err(_) if !names_are_known => None,
        Err(problem) => {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let suggestion =
                unknown_column(&problem).and_then(|column| did_you_mean(column, names));
            let problem = format!("expression {:?}: {problem}", shorten(text, 200));
            findings.suggest(sql.span().start, &draft.place(), problem, suggestion);
            None
        }
    }
}

/// The column that a compiler's message says is not there.
fn unknown_column(problem: &str) -> Option<&str> {
    problem.strip_prefix("no feature ").map(str::trim)
}

fn check_default(
    feature: &Feature,
    section: &FeatureSection,
    place: &str,
    findings: &mut Findings<'_>,
) {
    let (Some(default), Some(given)) = (&feature.default, &section.default) else {
        return;
    };
    let at = given.span().start;
    match feature.check(default) {
        Ok(false) => {}
        Ok(true) => findings.add(at, place, "default is not among values"),
        Err(error) => findings.add(at, place, format!("default: {}", error.problem)),
    }
}

impl Feature {
    /// Whether it declares a smallest or largest number.
    pub fn has_range(&self) -> bool {
        self.min.is_some() || self.max.is_some()
    }

    /// Whether a number lies outside `min` and `max`.
    pub fn is_out_of_range(&self, value: &Value) -> bool {
        let number = match value {
            Value::Int64(integer) => *integer as f64,
            Value::Float64(float) => *float,
            _ => return false,
        };
        self.min.is_some_and(|min| number < min) || self.max.is_some_and(|max| number > max)
    }

    /// Whether the value is none of those that are declared.
    pub fn is_unknown(&self, value: &Value) -> bool {
        !self.values.is_empty() && !value.is_null() && !self.values.contains(value)
    }

    /// Checks range and allowed values; `true` means "an unknown category, passed on".
    ///
    /// # Errors
    /// When the value is out of range, or unknown and declared to be refused.
    pub fn check(&self, value: &Value) -> Result<bool, ValueError> {
        let fail = |problem: String| ValueError {
            feature: self.name.clone(),
            problem,
        };
        if self.is_out_of_range(value) {
            let range = match (self.min, self.max) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("at least {min}"),
                (None, Some(max)) => format!("at most {max}"),
                (None, None) => String::new(),
            };
            let number = value.to_json();
            return Err(fail(format!("{number} is out of range, expected {range}")));
        }
        let unknown = self.is_unknown(value);
        if unknown && self.unknown == UnknownValue::Refuse {
            let known: Vec<String> = self
                .values
                .iter()
                .take(20)
                .map(|known| known.to_json().to_string())
                .collect();
            let found = shorten(&value.to_json().to_string(), 60);
            let known = known.join(", ");
            return Err(fail(format!(
                "unknown value {found}, expected one of {known}"
            )));
        }
        Ok(unknown)
    }

    /// Whether a value of `age_us` microseconds is older than it may be.
    pub fn is_stale(&self, age_us: i64) -> bool {
        let is_over = |max_age: Duration| i128::from(age_us) > max_age.as_micros() as i128;
        self.max_age.is_some_and(is_over)
    }
}
