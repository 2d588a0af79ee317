//! Relations: other entities that an entity points to, and the features that are read from them.
//!
//! A relation names another view and says which features of this one hold the other entity's key.
//! That the other view has the feature, with the same type, can be checked only when all views are
//! loaded: see [`View::link`]. Related features are one step away: what is itself related in the
//! other view cannot be taken over, so that a score reads the store at most twice.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::build::{Draft, check_name};
use super::file::{Findings, RelationSection};
use super::mistake::{Mistake, did_you_mean};
use super::{Holds, Role, View, shorten};
use crate::features::value::FeatureType;

/// Another entity that an entity of a view points to.
#[derive(Debug)]
pub struct Relation {
    pub name: String,
    /// The name of the other view.
    pub view: String,
    /// What holds the other entity's key, in the order of its key columns.
    pub key: Vec<KeyPart>,
    /// Where it is declared.
    pub line: usize,
    /// The other view; `None` until the views are linked.
    pub target: Option<Arc<View>>,
}

/// Where a part of another entity's key is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// In a stored or request feature of this view.
    Feature(usize),
    /// In a key column of this view.
    Own(usize),
}

/// A feature that is read from a related entity.
#[derive(Debug)]
pub struct RelatedFeature {
    /// Index of the relation.
    pub relation: usize,
    /// The name of the feature in the other view.
    pub feature: String,
    /// Its column there; meaningless until the views are linked.
    pub column: usize,
    pub line: usize,
}

impl Relation {
    /// The features of this view that hold the key.
    pub fn key_features(&self) -> impl Iterator<Item = usize> {
        self.key.iter().filter_map(|part| match part {
            KeyPart::Feature(column) => Some(*column),
            KeyPart::Own(_) => None,
        })
    }
}

/// Checks the relations of a view against its features.
pub fn relations(
    sections: &[RelationSection],
    drafts: &[Draft<'_>],
    by_name: &HashMap<String, usize>,
    key_columns: &[String],
    findings: &mut Findings<'_>,
) -> Vec<Relation> {
    let mut relations: Vec<Relation> = Vec::new();
    for section in sections {
        let (Some(name), Some(view)) = (&section.name, &section.view) else {
            continue;
        };
        let place = format!("relation {}", shorten(name.get_ref(), 64));
        check_name(name.get_ref(), name.span().start, &place, "name", findings);
        if relations.iter().any(|other| other.name == *name.get_ref()) {
            findings.add(name.span().start, &place, "is declared twice");
        }
        let mut key = Vec::new();
        for part in &section.key {
            let own = key_columns.iter().position(|own| own == part.get_ref());
            let found = match own {
                Some(own) => Ok(KeyPart::Own(own)),
                None => key_feature(part, drafts, by_name, key_columns),
            };
            match found {
                Ok(part) => key.push(part),
                Err((problem, suggestion)) => {
                    findings.suggest(part.span().start, &place, problem, suggestion);
                }
            }
        }
        relations.push(Relation {
            name: name.get_ref().clone(),
            view: view.get_ref().clone(),
            key,
            line: findings.line(view.span().start),
            target: None,
        });
    }
    relations
}

fn key_feature(
    part: &Spanned<String>,
    drafts: &[Draft<'_>],
    by_name: &HashMap<String, usize>,
    key_columns: &[String],
) -> Result<KeyPart, (String, Option<String>)> {
    let name = shorten(part.get_ref(), 64);
    let Some(&column) = by_name.get(part.get_ref()) else {
        let holds_keys = drafts
            .iter()
            .filter(|draft| draft.role <= Role::Request)
            .map(|draft| draft.name.as_str());
        let names = holds_keys.chain(key_columns.iter().map(String::as_str));
        let suggestion = did_you_mean(part.get_ref(), names);
        let problem = format!("key: no feature {name} in this view");
        return Err((problem, suggestion));
    };
    let draft = &drafts[column];
    if draft.role > Role::Request {
        let problem = format!(
            "key: {name} is {}; expected a stored or request feature, or a key column",
            draft.role.as_phrase()
        );
        return Err((problem, None));
    }
    match draft.kind {
        FeatureType::String | FeatureType::Int64 => Ok(KeyPart::Feature(column)),
        kind => {
            let problem = format!("key: {name} is {}; expected string or int64", kind.name());
            Err((problem, None))
        }
    }
}

/// The features that are read from related entities, in the order of their columns.
pub fn related_features(
    drafts: &[Draft<'_>],
    relations: &[Relation],
    findings: &mut Findings<'_>,
) -> Vec<RelatedFeature> {
    let mut related = Vec::new();
    for draft in drafts.iter().filter(|draft| draft.role == Role::Related) {
        let Some(from) = draft.section.and_then(|section| section.from.as_ref()) else {
            continue;
        };
        let at = from.span().start;
        let found = shorten(from.get_ref(), 128);
        let Some((relation, feature)) = from.get_ref().split_once('.') else {
            let problem = format!("from {found:?}: expected \"relation.feature\"");
            findings.add(at, &draft.place(), problem);
            continue;
        };
        let position = relations.iter().position(|known| known.name == relation);
        let Some(position) = position else {
            let names = relations.iter().map(|relation| relation.name.as_str());
            let suggestion = did_you_mean(relation, names)
                .unwrap_or_else(|| format!("declare it with [[relation]] name = {relation:?}"));
            let problem = format!("from {found:?}: no relation {}", shorten(relation, 64));
            findings.suggest(at, &draft.place(), problem, Some(suggestion));
            continue;
        };
        related.push(RelatedFeature {
            relation: position,
            feature: feature.to_owned(),
            column: 0,
            line: findings.line(at),
        });
    }
    related
}

impl View {
    /// The relations of the view.
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// The related features, in the order of their columns.
    pub fn related(&self) -> &[RelatedFeature] {
        &self.related
    }

    /// Binds the relations to the other views, which `find` knows by name. The digest covers them
    /// from then on: another definition there is another pipeline here.
    ///
    /// # Errors
    /// Every relation and related feature that does not fit the other view.
    pub fn link<'v>(
        &mut self,
        find: impl Fn(&str) -> Option<Arc<View>>,
        names: impl Iterator<Item = &'v str> + Clone,
    ) -> Result<(), Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut digest = Sha256::new();
        digest.update(self.digest);
        for relation in &mut self.relations {
            let mut fail = |problem: String, suggestion| {
                mistakes.push(Mistake {
                    line: Some(relation.line),
                    place: format!("relation {}", relation.name),
                    problem,
                    suggestion,
                });
            };
            let Some(target) = find(&relation.view) else {
                let problem = format!("no view {}", shorten(&relation.view, 64));
                fail(problem, did_you_mean(&relation.view, names.clone()));
                continue;
            };
            let expected = target.key_columns();
            if relation.key.len() != expected.len() {
                let problem = format!(
                    "key: {} given, view {} has {}: {}",
                    relation.key.len(),
                    target.name,
                    expected.len(),
                    expected.join(", ")
                );
                fail(problem, None);
            }
            digest.update(target.digest);
            relation.target = Some(target);
        }
        let first_related = self.bounds.window;
        for (index, related) in self.related.iter_mut().enumerate() {
            let feature = &self.features[first_related + index];
            let relation = &self.relations[related.relation];
            // Without a view the relation has its mistake already.
            let Some(target) = &relation.target else {
                continue;
            };
            let found = column_in(target, &related.feature, feature.kind);
            match found {
                Ok(column) => related.column = column,
                Err((problem, suggestion)) => mistakes.push(Mistake {
                    line: Some(related.line),
                    place: format!("feature {}", feature.name),
                    problem: format!("from \"{}.{}\": {problem}", relation.name, related.feature),
                    suggestion,
                }),
            }
        }
        if !self.relations.is_empty() {
            self.digest = digest.finalize().into();
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(mistakes),
        }
    }

    /// Whether the column is read from a related entity, or computed from one that is.
    fn depends_on_relations(&self, column: usize) -> bool {
        let mut needed = vec![false; self.features.len()];
        needed[column] = true;
        self.close_over_inputs(&mut needed);
        self.related_columns().any(|column| needed[column])
    }
}

fn column_in(
    target: &View,
    name: &str,
    expected: FeatureType,
) -> Result<usize, (String, Option<String>)> {
    let Some(column) = target.index_of(name) else {
        let names = target
            .features()
            .iter()
            .map(|feature| feature.name.as_str());
        let problem = format!("no feature {} in view {}", shorten(name, 64), target.name);
        return Err((problem, did_you_mean(name, names)));
    };
    let feature = &target.features()[column];
    if target.depends_on_relations(column) {
        let problem = format!(
            "{name} of view {} comes from yet another entity; only what an entity has itself can \
             be read from it",
            target.name
        );
        return Err((problem, None));
    }
    if feature.holds != Holds::One {
        let problem = format!(
            "{name} of view {} is {}; take one of its values",
            target.name,
            feature.holds.as_phrase()
        );
        return Err((problem, None));
    }
    if feature.kind != expected {
        let problem = format!(
            "the type is {} in view {}, declared here as {}",
            feature.kind.name(),
            target.name,
            expected.name()
        );
        let suggestion = format!("write type = {:?}", feature.kind.name());
        return Err((problem, Some(suggestion)));
    }
    Ok(column)
}
