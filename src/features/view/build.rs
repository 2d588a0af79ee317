//! From the sections of a view file to a [`View`]: names, types, roles, relations, windows and
//! expressions checked against each other.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::aggregate::expand;
use super::feature::feature;
use super::file::{FeatureSection, Findings, ViewFile};
use super::mistake::Mistakes;
use super::order::{inputs, order_derived};
use super::relation::{related_features, relations};
use super::request::{BUILT_IN, BuiltIn};
use super::{Bounds, Holds, Role, View, shorten};
use crate::features::value::FeatureType;
use crate::features::windows::{Aggregate, Windows};

/// A feature that is declared, before what it says is looked at.
pub struct Draft<'f> {
    /// None for a column of the server's own.
    pub section: Option<&'f FeatureSection>,
    /// Where it is named.
    pub at: usize,
    pub name: String,
    /// The declared type: of the values of a list or map.
    pub kind: FeatureType,
    pub role: Role,
    pub holds: Holds,
    pub aggregate: Option<Aggregate>,
    /// Whether the aggregate is fit to be compiled.
    pub is_sound: bool,
    pub built_in: Option<BuiltIn>,
}

impl Draft<'_> {
    pub fn place(&self) -> String {
        format!("feature {}", shorten(&self.name, 64))
    }

    /// The type of the column: lists and maps are JSON text.
    pub fn column_type(&self) -> FeatureType {
        match self.holds {
            Holds::One => self.kind,
            Holds::List | Holds::Map => FeatureType::String,
        }
    }
}

/// Builds the view of a file that was read from `text`.
///
/// # Errors
/// Every mistake, those of `findings` included.
pub fn build(text: &str, file: &ViewFile, findings: &mut Findings<'_>) -> Result<View, Mistakes> {
    // What was found so far says that something cannot be told apart any more only when it is about
    // a name or a type; the rest is looked at all the same.
    let mut names_are_known = file.features.iter().all(|section| {
        let named = section.name.is_some() && section.kind.is_some();
        let aggregate = section.aggregate.as_ref();
        named && aggregate.is_none_or(|a| a.function.is_some() && !a.windows.is_empty())
    });
    let key_columns = key_columns(file, findings);
    let mut drafts = Vec::new();
    for section in &file.features {
        draft(section, &mut drafts, findings);
    }
    add_built_in(file, &mut drafts);
    // Stable: within a role the features keep their declared order.
    drafts.sort_by_key(|draft| draft.role);
    let so_far = findings.mistakes.len();
    let by_name = index_names(&drafts, &key_columns, findings);
    names_are_known &= findings.mistakes.len() == so_far;
    let relations = relations(&file.relations, &drafts, &by_name, &key_columns, findings);
    let related = related_features(&drafts, &relations, findings);
    let fields = drafts
        .iter()
        .map(|draft| Field::new(&draft.name, draft.column_type().arrow(), true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut features = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        features.push(feature(draft, file, &schema, names_are_known, findings));
    }
    let levels = order_derived(&features, &drafts, &by_name, findings);
    let windows = compile_windows(&drafts, findings);
    if !findings.mistakes.is_empty() {
        let mut mistakes = std::mem::take(&mut findings.mistakes);
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes.dedup();
        return Err(Mistakes(mistakes));
    }
    let upto = |role: Role| drafts.partition_point(|draft| draft.role <= role);
    let bounds = Bounds {
        stored: upto(Role::Stored),
        request: upto(Role::Request),
        window: upto(Role::Window),
        related: upto(Role::Related),
    };
    let inputs = inputs(&features, &by_name, &relations, &related, bounds.window);
    let built_in = drafts.iter().enumerate();
    Ok(View {
        name: file
            .view
            .name
            .as_ref()
            .map_or(String::new(), |name| name.get_ref().clone()),
        entity: key_columns.join(", "),
        description: file.view.description.clone(),
        owner: file.view.owner.clone(),
        purposes: file.view.purposes.clone(),
        digest: Sha256::digest(text.as_bytes()).into(),
        bounds,
        built_in: built_in
            .filter_map(|(column, draft)| Some((column, draft.built_in?)))
            .collect(),
        features,
        by_name,
        schema,
        key_columns,
        windows,
        relations,
        related,
        levels,
        inputs,
    })
}

/// What cannot be a view's name, because views are read anew under it.
const RELOAD: &str = "reload";

fn key_columns(file: &ViewFile, findings: &mut Findings<'_>) -> Vec<String> {
    if let Some(name) = &file.view.name {
        check_name(
            name.get_ref(),
            name.span().start,
            "[view]",
            "name",
            findings,
        );
        if name.get_ref() == RELOAD {
            let problem = format!("name: {RELOAD} is a path of the server, /v1/features/{RELOAD}");
            let suggestion = Some("take another name".to_owned());
            findings.suggest(name.span().start, "[view]", problem, suggestion);
        }
    }
    let mut columns: Vec<String> = Vec::new();
    for column in &file.view.entity {
        let at = column.span().start;
        check_name(column.get_ref(), at, "[view]", "entity", findings);
        if columns.contains(column.get_ref()) {
            let problem = format!("entity: {} is named twice", column.get_ref());
            findings.add(at, "[view]", problem);
        }
        columns.push(column.get_ref().clone());
    }
    columns
}

/// The features that a section declares: several when it has several windows or groups.
fn draft<'f>(
    section: &'f FeatureSection,
    drafts: &mut Vec<Draft<'f>>,
    findings: &mut Findings<'_>,
) {
    let place = &section.place;
    let (Some(name), Some(kind)) = (&section.name, &section.kind) else {
        return;
    };
    let Some(kind) = FeatureType::from_name(kind.get_ref()) else {
        return;
    };
    let is_request = |source: &&Spanned<String>| source.get_ref() == "request";
    let roles = [
        section.source.as_ref().filter(is_request).map(|source| {
            let at = source.span().start;
            (Role::Request, at, "source = \"request\"")
        }),
        section
            .aggregate
            .as_ref()
            .map(|aggregate| (Role::Window, aggregate.at, "aggregate")),
        section
            .from
            .as_ref()
            .map(|from| (Role::Related, from.span().start, "from")),
        section
            .expression
            .as_ref()
            .map(|sql| (Role::Derived, sql.span().start, "expression")),
    ];
    let mut given = roles.into_iter().flatten();
    let first = given.next();
    if let (Some((_, _, first)), Some((_, at, second))) = (first, given.next()) {
        let problem = format!("has both {first} and {second}");
        let suggestion = "its values come from one of them; leave the other out".to_owned();
        findings.suggest(at, place, problem, Some(suggestion));
        return;
    }
    let at = name.span().start;
    let new = |name: String, role, holds, aggregate| Draft {
        section: Some(section),
        at,
        name,
        kind,
        role,
        holds,
        aggregate,
        is_sound: true,
        built_in: None,
    };
    let role = first.map_or(Role::Stored, |(role, _, _)| role);
    if let (Role::Window, Some(aggregate)) = (role, &section.aggregate) {
        check_name(name.get_ref(), at, place, "name", findings);
        let windows = expand(name.get_ref(), kind, aggregate, place, findings);
        drafts.extend(windows.into_iter().map(|window| Draft {
            kind: window.aggregate.kind,
            is_sound: window.is_sound,
            ..new(
                window.name,
                Role::Window,
                window.holds,
                Some(window.aggregate),
            )
        }));
        return;
    }
    let mut draft = new(name.get_ref().clone(), role, Holds::One, None);
    let built_in = BUILT_IN.iter().find(|built_in| built_in.name == draft.name);
    if let Some(built_in) = built_in {
        if role != Role::Request || kind != built_in.kind {
            let problem = format!("{} is the server's own", built_in.name);
            let suggestion = format!(
                "declare it with type = {:?} and source = \"request\", or take another name",
                built_in.kind.name()
            );
            findings.suggest(at, place, problem, Some(suggestion));
        }
        draft.built_in = Some(built_in.what);
    }
    drafts.push(draft);
}

/// Adds the server's own columns that an expression reads.
fn add_built_in(file: &ViewFile, drafts: &mut Vec<Draft<'_>>) {
    for built_in in BUILT_IN {
        let declared = drafts.iter().any(|draft| draft.name == built_in.name);
        let mut expressions = file.features.iter().filter_map(|f| f.expression.as_ref());
        let read = expressions.any(|sql| sql.get_ref().to_lowercase().contains(built_in.name));
        if read && !declared {
            drafts.push(Draft {
                section: None,
                at: 0,
                name: built_in.name.to_owned(),
                kind: built_in.kind,
                role: Role::Request,
                holds: Holds::One,
                aggregate: None,
                is_sound: true,
                built_in: Some(built_in.what),
            });
        }
    }
}

fn index_names(
    drafts: &[Draft<'_>],
    key_columns: &[String],
    findings: &mut Findings<'_>,
) -> HashMap<String, usize> {
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        let place = draft.place();
        check_name(&draft.name, draft.at, &place, "name", findings);
        if key_columns.contains(&draft.name) {
            let problem = "is a key column of the entity; it cannot be a feature";
            findings.add(draft.at, &place, problem);
        }
        if let Some(earlier) = by_name.insert(draft.name.clone(), index) {
            let other = &drafts[earlier];
            let (first, second) = (draft.at.min(other.at), draft.at.max(other.at));
            let problem = format!("is declared twice, first in line {}", findings.line(first));
            findings.add(second, &place, problem);
        }
    }
    by_name
}

/// Compiles the window features; every one that cannot be is a mistake.
fn compile_windows(drafts: &[Draft<'_>], findings: &mut Findings<'_>) -> Windows {
    let mut declared: Vec<(&Draft<'_>, &Aggregate)> = drafts
        .iter()
        .filter(|draft| draft.is_sound)
        .filter_map(|draft| Some((draft, draft.aggregate.as_ref()?)))
        .collect();
    loop {
        let aggregates = declared.iter().map(|(_, aggregate)| (*aggregate).clone());
        match Windows::compile(aggregates.collect()) {
            Ok(windows) => return windows,
            Err((index, problem)) if index < declared.len() => {
                let (draft, _) = declared.remove(index);
                let at = draft.section.and_then(|section| section.aggregate.as_ref());
                let at = at.map_or(draft.at, |aggregate| aggregate.at);
                findings.add(at, &draft.place(), format!("aggregate: {problem}"));
            }
            Err((_, problem)) => {
                findings.add(0, "", problem);
                return Windows::default();
            }
        }
    }
}

/// Refuses what is no name: it is a column in SQL, a key in JSON and a label in metrics.
pub fn check_name(name: &str, at: usize, place: &str, key: &str, findings: &mut Findings<'_>) {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let continues = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if starts_well && name.chars().all(continues) && name.len() <= 64 {
        return;
    }
    let problem = format!(
        "{key} {:?}: expected lower-case letters, digits and underscores, starting with a letter, \
         at most 64",
        shorten(name, 64)
    );
    let lower: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if continues(c) { c } else { '_' })
        .collect();
    let mended = lower.trim_matches(|c: char| c == '_' || c.is_ascii_digit());
    let suggestion = (!mended.is_empty() && mended != name && mended.len() <= 64)
        .then(|| format!("for example {mended}"));
    findings.suggest(at, place, problem, suggestion);
}
