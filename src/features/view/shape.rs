//! Holding the tables of a view file against the vocabulary: unknown, missing and misshapen keys.

use std::time::Duration;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::Findings;
use super::keys::{Section, Shape};
use super::mistake::did_you_mean;
use super::shorten;

/// Holds a table against its section: keys that are unknown, misshapen or missing.
pub fn check(
    table: &DeTable<'_>,
    at: usize,
    section: &Section,
    place: &str,
    findings: &mut Findings<'_>,
) {
    for (name, value) in table {
        let at = name.span().start;
        let name = name.get_ref();
        let Some(key) = section.key(name) else {
            let known: Vec<&str> = section.names().collect();
            let suggestion = did_you_mean(name, section.names())
                .unwrap_or_else(|| format!("the keys are {}", known.join(", ")));
            let shown = shorten(name, 64);
            let problem = format!("unknown key `{shown}` in {}", section.name);
            findings.suggest(at, place, problem, Some(suggestion));
            continue;
        };
        if let Err((at, problem, suggestion)) = check_shape(value, &key.shape) {
            findings.suggest(at, place, format!("{name}: {problem}"), suggestion);
        }
    }
    for key in section.keys.iter().filter(|key| key.required) {
        if !table.contains_key(key.name) {
            let suggestion = match key.shape {
                Shape::Tables(_) => format!("add a [[{}]]", key.name),
                Shape::Table(_) => format!("add [{}]", key.name),
                _ => format!("add it to {}", section.name),
            };
            let problem = format!("{} is missing", key.name);
            findings.suggest(at, place, problem, Some(suggestion));
        }
    }
}

type ShapeProblem = (usize, String, Option<String>);

fn check_shape(value: &Spanned<DeValue<'_>>, shape: &Shape) -> Result<(), ShapeProblem> {
    let at = value.span().start;
    let found = describe(value.get_ref());
    let fail = |expected: &str| Err((at, format!("expected {expected}, found {found}"), None));
    let each = |expected: &str, shape: Shape| match value.get_ref() {
        DeValue::Array(items) => items.iter().try_for_each(|item| check_shape(item, &shape)),
        _ => fail(expected),
    };
    match (shape, value.get_ref()) {
        (Shape::Text, DeValue::String(_))
        | (Shape::Flag, DeValue::Boolean(_))
        | (Shape::Scalar, DeValue::String(_) | DeValue::Boolean(_))
        | (Shape::TextOrTexts, DeValue::String(_))
        | (Shape::Table(_), DeValue::Table(_)) => Ok(()),
        (Shape::OneOf(words), DeValue::String(word)) => {
            if words.contains(&word.as_ref()) {
                return Ok(());
            }
            let suggestion = did_you_mean(word, words.iter().copied());
            let word = shorten(word, 40);
            let problem = format!("expected one of {}, found {word:?}", words.join(", "));
            Err((at, problem, suggestion))
        }
        (Shape::Scalar, DeValue::Integer(_) | DeValue::Float(_)) => {
            match json_of(value.get_ref()) {
                Some(_) => Ok(()),
                None => fail("a finite number of at most 64 bits"),
            }
        }
        (Shape::Number, _) => match number_of(value.get_ref()) {
            Some(_) => Ok(()),
            None => fail("a finite number"),
        },
        (Shape::Whole, _) => match whole_of(value.get_ref()) {
            Some(_) => Ok(()),
            None => fail("a whole number, 0 or more"),
        },
        (Shape::Duration | Shape::Durations, DeValue::String(text)) => match duration_of(text) {
            Ok(_) => Ok(()),
            Err(problem) => Err((at, problem, None)),
        },
        (Shape::Durations, DeValue::Array(items)) if items.is_empty() => fail("at least one"),
        (Shape::TextOrTexts, DeValue::Array(items)) if items.is_empty() => fail("at least one"),
        (Shape::Durations, DeValue::Array(_)) => each("", Shape::Duration),
        (Shape::TextOrTexts, DeValue::Array(_)) => each("", Shape::Text),
        (Shape::Texts, _) => each("a list of texts", Shape::Text),
        (Shape::Scalars, _) => each("a list of values", Shape::Scalar),
        (Shape::Tables(section), DeValue::Array(items)) => {
            let is_table = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
            match items.iter().all(is_table) {
                true => Ok(()),
                false => fail(&format!("tables, each begun by {}", section.name)),
            }
        }
        (Shape::Tables(section), _) => fail(&format!("tables, each begun by {}", section.name)),
        (Shape::Table(_), _) => fail("a table"),
        (Shape::Text | Shape::OneOf(_), _) => fail("text in quotes"),
        (Shape::TextOrTexts, _) => fail("text in quotes, or a list of them"),
        (Shape::Scalar, DeValue::Datetime(_)) => fail("a value; dates are not a feature type"),
        (Shape::Scalar, _) => fail("a text, number or boolean"),
        (Shape::Flag, _) => fail("true or false"),
        (Shape::Duration, _) => fail("a duration in quotes, for example \"30d\""),
        (Shape::Durations, _) => {
            fail("a duration in quotes, for example \"30d\", or a list of them")
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {:?}", shorten(text, 40)),
        DeValue::Integer(number) => format!("the number {}", shorten(number.as_str(), 40)),
        DeValue::Float(number) => format!("the number {}", shorten(number.as_str(), 40)),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A duration as view files have it, longer than nothing.
///
/// # Errors
/// What is wrong with the text.
pub fn duration_of(text: &str) -> Result<Duration, String> {
    let shown = shorten(text, 40);
    let duration = humantime::parse_duration(text).map_err(|error| {
        format!("{shown:?} is no duration: {error}; expected for example \"30d\" or \"12h\"")
    })?;
    match duration.is_zero() {
        true => Err(format!(
            "{shown:?}: expected a duration longer than nothing"
        )),
        false => Ok(duration),
    }
}

/// A finite number.
pub fn number_of(value: &DeValue<'_>) -> Option<f64> {
    json_of(value).filter(Json::is_number)?.as_f64()
}

/// A whole number that is not negative.
pub fn whole_of(value: &DeValue<'_>) -> Option<u64> {
    json_of(value)?.as_u64()
}

/// A single value as JSON; `None` for what is none, or does not fit its type.
pub fn json_of(value: &DeValue<'_>) -> Option<Json> {
    match value {
        DeValue::String(text) => Some(Json::from(text.as_ref())),
        DeValue::Boolean(flag) => Some(Json::from(*flag)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Json::from),
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().ok()?;
            number.is_finite().then(|| Json::from(number))
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
