//! From the text of a view file to its sections, with the place of everything in it.
//!
//! Two steps: every table is held against the vocabulary of [`super::keys`], which names unknown,
//! missing and misshapen keys, all of them; then the sections are read from what is well formed. So
//! one wrong key hides no mistake behind it. What the values mean is not looked at here.

use std::time::Duration;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{AGGREGATE, FEATURE, FILE, RELATION, Section, Shape, VIEW};
use super::mistake::Mistake;
use super::shape::{check, duration_of, json_of, number_of, whole_of};

/// The sections of a view file. A key that is missing or wrong is `None` and has its mistake.
#[derive(Debug, Default)]
pub struct ViewFile {
    pub view: ViewSection,
    pub relations: Vec<RelationSection>,
    pub features: Vec<FeatureSection>,
}

#[derive(Debug, Default)]
pub struct ViewSection {
    pub name: Option<Spanned<String>>,
    pub entity: Vec<Spanned<String>>,
    pub description: String,
    pub owner: Option<String>,
    pub purposes: Vec<String>,
    pub max_age: Option<Duration>,
}

#[derive(Debug)]
pub struct FeatureSection {
    /// Where the section begins.
    pub at: usize,
    /// `feature tenure`, or its number when it has no name.
    pub place: String,
    pub name: Option<Spanned<String>>,
    pub kind: Option<Spanned<String>>,
    pub description: String,
    pub owner: Option<String>,
    pub purposes: Option<Vec<String>>,
    pub tags: Vec<String>,
    pub personal: bool,
    pub default: Option<Spanned<Json>>,
    pub values: Vec<Spanned<Json>>,
    pub has_values: Option<usize>,
    pub unknown: Option<Spanned<String>>,
    pub min: Option<Spanned<f64>>,
    pub max: Option<Spanned<f64>>,
    pub max_age: Option<Spanned<Duration>>,
    pub expression: Option<Spanned<String>>,
    pub source: Option<Spanned<String>>,
    pub aggregate: Option<AggregateSection>,
    pub from: Option<Spanned<String>>,
}

#[derive(Debug)]
pub struct AggregateSection {
    pub at: usize,
    pub event: Option<Spanned<String>>,
    pub function: Option<Spanned<String>>,
    /// The text as written and what it says.
    pub windows: Vec<(Spanned<String>, Duration)>,
    /// Whether the windows were given as a list.
    pub is_list: bool,
    pub value: Option<Spanned<String>>,
    pub filter: Option<Spanned<String>>,
    pub group_by: Option<Spanned<String>>,
    pub groups: Vec<Spanned<String>>,
    pub k: Option<Spanned<u64>>,
    pub q: Option<Spanned<f64>>,
}

#[derive(Debug)]
pub struct RelationSection {
    pub at: usize,
    pub name: Option<Spanned<String>>,
    pub view: Option<Spanned<String>>,
    pub key: Vec<Spanned<String>>,
}

/// Collects the mistakes of one text.
pub struct Findings<'t> {
    text: &'t str,
    pub mistakes: Vec<Mistake>,
}

impl<'t> Findings<'t> {
    pub fn new(text: &'t str) -> Findings<'t> {
        Findings {
            text,
            mistakes: Vec::new(),
        }
    }

    /// The 1-based line of a byte of the text.
    pub fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    pub fn add(&mut self, at: usize, place: &str, problem: impl Into<String>) {
        self.suggest(at, place, problem, None);
    }

    pub fn suggest(
        &mut self,
        at: usize,
        place: &str,
        problem: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.mistakes.push(Mistake {
            line: Some(self.line(at)),
            place: place.to_owned(),
            problem: problem.into(),
            suggestion,
        });
    }
}

/// Reads the sections of a text; what is wrong is added to `findings`.
pub fn read(text: &str, findings: &mut Findings<'_>) -> ViewFile {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        findings.add(at, "", format!("not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        // What could be made of the rest would be guesswork.
        return ViewFile::default();
    }
    let root = root.get_ref();
    check(root, 0, &FILE, "", findings);
    let mut file = ViewFile::default();
    if let Some((_, view)) = table(root, "view") {
        check(view, at_key(root, "view"), &VIEW, "[view]", findings);
        file.view = view_section(view);
    }
    for (index, (at, relation)) in tables(root, "relation").into_iter().enumerate() {
        let place = named_place("relation", relation, index);
        check(relation, at, &RELATION, &place, findings);
        file.relations.push(RelationSection {
            at,
            name: text_of(relation, "name"),
            view: text_of(relation, "view"),
            key: texts_of(relation, "key").unwrap_or_default(),
        });
    }
    for (index, (at, feature)) in tables(root, "feature").into_iter().enumerate() {
        let place = named_place("feature", feature, index);
        check(feature, at, &FEATURE, &place, findings);
        let aggregate = table(feature, "aggregate").map(|(at, aggregate)| {
            check(aggregate, at, &AGGREGATE, &place, findings);
            aggregate_section(at, aggregate)
        });
        file.features
            .push(feature_section(at, place, feature, aggregate));
    }
    file
}

fn named_place(what: &str, table: &DeTable<'_>, index: usize) -> String {
    match text_of(table, "name") {
        Some(name) => format!("{what} {}", super::shorten(name.get_ref(), 64)),
        None => format!("{what} number {}", index + 1),
    }
}

fn at_key(table: &DeTable<'_>, name: &str) -> usize {
    let found = table.get_key_value(name);
    found.map_or(0, |(key, _)| key.span().start)
}

fn table<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Option<(usize, &'a DeTable<'t>)> {
    let (key, value) = table.get_key_value(name)?;
    Some((key.span().start, value.get_ref().as_table()?))
}

fn tables<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Vec<(usize, &'a DeTable<'t>)> {
    let items = table.get(name).and_then(|value| value.get_ref().as_array());
    let items = items.into_iter().flat_map(|items| items.iter());
    items
        .filter_map(|item| Some((item.span().start, item.get_ref().as_table()?)))
        .collect()
}

fn text_of(table: &DeTable<'_>, name: &str) -> Option<Spanned<String>> {
    text_in(table.get(name)?)
}

fn text_in(value: &Spanned<DeValue<'_>>) -> Option<Spanned<String>> {
    let text = value.get_ref().as_str()?;
    Some(Spanned::new(value.span(), text.to_owned()))
}

/// One text or a list of them.
fn texts_of(table: &DeTable<'_>, name: &str) -> Option<Vec<Spanned<String>>> {
    let value = table.get(name)?;
    match value.get_ref() {
        DeValue::Array(items) => Some(items.iter().filter_map(text_in).collect()),
        _ => text_in(value).map(|text| vec![text]),
    }
}

fn plain_text(table: &DeTable<'_>, name: &str) -> Option<String> {
    text_of(table, name).map(Spanned::into_inner)
}

fn plain_texts(table: &DeTable<'_>, name: &str) -> Option<Vec<String>> {
    let texts = texts_of(table, name)?;
    Some(texts.into_iter().map(Spanned::into_inner).collect())
}

/// A word that is one of those its key takes.
fn word_of(table: &DeTable<'_>, section: &Section, name: &str) -> Option<Spanned<String>> {
    let word = text_of(table, name)?;
    match section.key(name)?.shape {
        Shape::OneOf(words) if words.contains(&word.get_ref().as_str()) => Some(word),
        _ => None,
    }
}

fn located<T>(
    table: &DeTable<'_>,
    name: &str,
    read: impl Fn(&DeValue<'_>) -> Option<T>,
) -> Option<Spanned<T>> {
    let value = table.get(name)?;
    Some(Spanned::new(value.span(), read(value.get_ref())?))
}

fn duration_in(value: &DeValue<'_>) -> Option<Duration> {
    duration_of(value.as_str()?).ok()
}

fn view_section(table: &DeTable<'_>) -> ViewSection {
    ViewSection {
        name: text_of(table, "name"),
        entity: texts_of(table, "entity").unwrap_or_default(),
        description: plain_text(table, "description").unwrap_or_default(),
        owner: plain_text(table, "owner"),
        purposes: plain_texts(table, "purposes").unwrap_or_default(),
        max_age: located(table, "max_age", duration_in).map(Spanned::into_inner),
    }
}

fn feature_section(
    at: usize,
    place: String,
    table: &DeTable<'_>,
    aggregate: Option<AggregateSection>,
) -> FeatureSection {
    let values = table.get("values");
    let listed = values.and_then(|values| values.get_ref().as_array());
    let listed = listed.into_iter().flat_map(|values| values.iter());
    FeatureSection {
        at,
        place,
        name: text_of(table, "name"),
        kind: word_of(table, &FEATURE, "type"),
        description: plain_text(table, "description").unwrap_or_default(),
        owner: plain_text(table, "owner"),
        purposes: plain_texts(table, "purposes"),
        tags: plain_texts(table, "tags").unwrap_or_default(),
        personal: located(table, "personal", |flag| flag.as_bool())
            .is_some_and(|flag| *flag.get_ref()),
        default: located(table, "default", json_of),
        values: listed
            .filter_map(|value| Some(Spanned::new(value.span(), json_of(value.get_ref())?)))
            .collect(),
        has_values: values.map(|values| values.span().start),
        unknown: word_of(table, &FEATURE, "unknown"),
        min: located(table, "min", number_of),
        max: located(table, "max", number_of),
        max_age: located(table, "max_age", duration_in),
        expression: text_of(table, "expression"),
        source: word_of(table, &FEATURE, "source"),
        aggregate,
        from: text_of(table, "from"),
    }
}

fn aggregate_section(at: usize, table: &DeTable<'_>) -> AggregateSection {
    let windows = texts_of(table, "window").unwrap_or_default();
    let windows = windows.into_iter().filter_map(|text| {
        let duration = duration_of(text.get_ref()).ok()?;
        Some((text, duration))
    });
    AggregateSection {
        at,
        event: text_of(table, "event"),
        function: word_of(table, &AGGREGATE, "function"),
        windows: windows.collect(),
        is_list: table
            .get("window")
            .is_some_and(|value| value.get_ref().is_array()),
        value: text_of(table, "value"),
        filter: text_of(table, "where"),
        group_by: text_of(table, "group_by"),
        groups: texts_of(table, "groups").unwrap_or_default(),
        k: located(table, "k", whole_of),
        q: located(table, "q", number_of),
    }
}
