//! Related entities: which ones a batch of rows points to, and what their features are.
//!
//! [`Wanted`] names every entity once, so that the store is asked once for all of them;
//! [`Related`] holds the values that its answer gives. An entity that nothing is known of gives no
//! values: the default declared for the related feature counts, not the other view's. Of one that is
//! known the values are those that its own view would serve, defaults included; overrides of the
//! request concern its own entity only.

use std::collections::HashMap;
use std::sync::Arc;

use super::assemble::{RowInput, Source, assemble, resolved};
use crate::features::change::KEY_SEPARATOR;
use crate::features::column::value_at;
use crate::features::value::Value;
use crate::features::view::View;
use crate::features::view::relation::{KeyPart, Relation};
use crate::store::Snapshot;

/// The related entities of some rows.
#[derive(Debug, Default)]
pub struct Wanted {
    entities: Vec<(Arc<View>, String)>,
    relations: Vec<WantedRelation>,
}

/// What one relation asks for.
#[derive(Debug)]
struct WantedRelation {
    /// Index of the relation in the view.
    relation: usize,
    /// For each row its entity among [`Wanted::entities`].
    rows: Vec<Option<usize>>,
}

/// The values of the related features of some rows.
#[derive(Debug, Default)]
pub struct Related {
    /// By related feature, in the order of the columns; empty when none are known.
    features: Vec<RelatedColumn>,
}

#[derive(Debug, Default)]
struct RelatedColumn {
    /// For each row its position in `values`.
    rows: Arc<Vec<Option<usize>>>,
    /// A value, and when it was written where it is a stored one.
    values: Vec<(Value, Option<i64>)>,
}

impl Related {
    /// The value of the related feature number `feature` for `row`.
    pub fn value(&self, feature: usize, row: usize) -> Option<(&Value, Source, Option<i64>)> {
        let column = self.features.get(feature)?;
        let (value, as_of_us) = column.values.get((*column.rows.get(row)?)?)?;
        Some((value, Source::Related, *as_of_us))
    }
}

/// Whether any of the related features in `needed` (by column) is read through relation number
/// `relation`.
pub fn is_wanted(view: &View, relation: usize, needed: &[bool]) -> bool {
    let first = view.related_columns().start;
    let mut features = view.related().iter().enumerate();
    features.any(|(index, feature)| feature.relation == relation && needed[first + index])
}

impl Related {
    /// The related values of rows that each were looked at in their own time, `at_us`: by relation, what
    /// was known of each row's entity. Empty where a relation is not wanted.
    ///
    /// # Errors
    /// As [`assemble`].
    pub fn of_rows(
        view: &View,
        seen: &[Vec<Option<Snapshot>>],
        at_us: &[i64],
    ) -> Result<Related, arrow::error::ArrowError> {
        let mut features: Vec<RelatedColumn> = Vec::new();
        features.resize_with(view.related().len(), RelatedColumn::default);
        for (relation, seen) in seen.iter().enumerate() {
            let Some(target) = &view.relations()[relation].target else {
                continue;
            };
            let known: Vec<(&Snapshot, i64)> = seen
                .iter()
                .zip(at_us)
                .filter_map(|(seen, &at_us)| Some((seen.as_ref()?, at_us)))
                .collect();
            let contexts: Vec<Vec<(usize, Value)>> = known
                .iter()
                .map(|(_, at_us)| target.request_time(*at_us).collect())
                .collect();
            let inputs: Vec<RowInput<'_>> = known
                .iter()
                .zip(&contexts)
                .map(|((snapshot, _), context)| RowInput {
                    profile: Some(&snapshot.profile),
                    context,
                    windows: &snapshot.windows,
                    ..RowInput::default()
                })
                .collect();
            let mut next = 0..;
            let rows = seen
                .iter()
                .map(|seen| seen.as_ref().and_then(|_| next.next()));
            let rows = Arc::new(rows.collect::<Vec<Option<usize>>>());
            read_features(view, relation, target, &inputs, &rows, &mut features)?;
        }
        Ok(Related { features })
    }
}

/// Assembles the entities of one relation and puts their values into `features`.
fn read_features(
    view: &View,
    relation: usize,
    target: &View,
    inputs: &[RowInput<'_>],
    rows: &Arc<Vec<Option<usize>>>,
    features: &mut [RelatedColumn],
) -> Result<(), arrow::error::ArrowError> {
    let read: Vec<(usize, usize)> = view
        .related()
        .iter()
        .enumerate()
        .filter(|(_, feature)| feature.relation == relation)
        .map(|(index, feature)| (index, feature.column))
        .collect();
    let mut needed = vec![false; target.features().len()];
    for &(_, column) in &read {
        needed[column] = true;
    }
    target.close_over_inputs(&mut needed);
    let assembled = assemble(target, inputs, &Related::default(), &needed)?;
    for (index, column) in read {
        let value = |row| {
            let origin = assembled.origin(row, column);
            let value = value_at(assembled.batch.column(column), row);
            (value, origin.and_then(|origin| origin.as_of_us))
        };
        features[index] = RelatedColumn {
            rows: Arc::clone(rows),
            values: (0..inputs.len()).map(value).collect(),
        };
    }
    Ok(())
}

impl Wanted {
    /// The entities that the related features in `needed` (by column, closed over inputs) are of.
    pub fn of(view: &View, rows: &[RowInput<'_>], needed: &[bool]) -> Wanted {
        let mut wanted = Wanted::default();
        if view.relations().is_empty() {
            return wanted;
        }
        for (index, relation) in view.relations().iter().enumerate() {
            let Some(target) = &relation.target else {
                continue;
            };
            if !is_wanted(view, index, needed) {
                continue;
            }
            let mut seen: HashMap<String, usize> = HashMap::new();
            let mut positions = Vec::with_capacity(rows.len());
            for row in rows {
                let position = key_of(view, relation, row).map(|key| match seen.get(&key) {
                    Some(position) => *position,
                    None => {
                        let position = wanted.entities.len();
                        wanted.entities.push((Arc::clone(target), key.clone()));
                        seen.insert(key, position);
                        position
                    }
                });
                positions.push(position);
            }
            wanted.relations.push(WantedRelation {
                relation: index,
                rows: positions,
            });
        }
        wanted
    }

    /// Whether no row points anywhere.
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// The entities, each with its view, as a store is asked for them.
    pub fn entities(&self) -> Vec<(&Arc<View>, &str)> {
        let entities = self.entities.iter();
        entities.map(|(view, key)| (view, key.as_str())).collect()
    }

    /// The related values, from what the store said of [`Wanted::entities`] in their order. `at_us`
    /// is the time of the request.
    ///
    /// # Errors
    /// As [`assemble`].
    pub fn assemble(
        self,
        view: &View,
        snapshots: &[Option<Snapshot>],
        at_us: i64,
    ) -> Result<Related, arrow::error::ArrowError> {
        let mut features: Vec<RelatedColumn> = Vec::new();
        features.resize_with(view.related().len(), RelatedColumn::default);
        for wanted in self.relations {
            let relation = &view.relations()[wanted.relation];
            let Some(target) = &relation.target else {
                continue;
            };
            // The entities of this relation that are known, and their place in the batch.
            let mut place: Vec<Option<usize>> = vec![None; self.entities.len()];
            let context: Vec<(usize, Value)> = target.request_time(at_us).collect();
            let mut inputs = Vec::new();
            for entity in wanted.rows.iter().flatten() {
                let snapshot = snapshots.get(*entity).and_then(Option::as_ref);
                let (None, Some(snapshot)) = (place[*entity], snapshot) else {
                    continue;
                };
                place[*entity] = Some(inputs.len());
                inputs.push(RowInput {
                    key: &self.entities[*entity].1,
                    profile: Some(&snapshot.profile),
                    context: &context,
                    windows: &snapshot.windows,
                    ..RowInput::default()
                });
            }
            let rows = wanted.rows.iter().map(|entity| place[(*entity)?]);
            let rows = Arc::new(rows.collect::<Vec<_>>());
            read_features(view, wanted.relation, target, &inputs, &rows, &mut features)?;
        }
        Ok(Related { features })
    }
}

/// The key of the entity that a row points to; `None` when a part of it is missing.
pub fn key_of(view: &View, relation: &Relation, row: &RowInput<'_>) -> Option<String> {
    let mut key = String::new();
    for (index, part) in relation.key.iter().enumerate() {
        if index > 0 {
            key.push(KEY_SEPARATOR);
        }
        let start = key.len();
        match part {
            KeyPart::Own(own) => key.push_str(row.key.split(KEY_SEPARATOR).nth(*own)?),
            KeyPart::Feature(column) => match resolved(view, *column, row) {
                Value::String(text) => key.push_str(text),
                Value::Int64(integer) => key.push_str(&integer.to_string()),
                _ => return None,
            },
        }
        if key.len() == start {
            return None;
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::views::Views;
    use crate::store::{Profile, StoredValue};

    const VISIT: &str = r#"
[view]
name = "visit"
entity = ["customer_id", "site_id"]
[[relation]]
name = "site"
view = "site"
key = "site_id"
[[relation]]
name = "backup"
view = "site"
key = "backup_site"
[[feature]]
name = "backup_site"
type = "int64"
default = 7
[[feature]]
name = "risk"
type = "float64"
from = "site.risk"
default = 0.25
[[feature]]
name = "doubled"
type = "float64"
from = "backup.doubled"
"#;
    const SITE: &str = r#"
[view]
name = "site"
entity = "site_id"
[[feature]]
name = "risk"
type = "float64"
default = 0.5
[[feature]]
name = "doubled"
type = "float64"
expression = "risk * 2 + request_weekday * 0"
"#;

    fn visit() -> Arc<View> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), VISIT).unwrap();
        std::fs::write(folder.path().join("b.toml"), SITE).unwrap();
        let views = Views::load(folder.path()).unwrap();
        Arc::clone(views.get("visit").unwrap())
    }

    fn snapshot(risk: Option<f64>) -> Snapshot {
        let mut profile = Profile::default();
        if let Some(risk) = risk {
            let value = Value::Float64(risk);
            profile.set("risk".to_owned(), StoredValue { value, as_of_us: 9 });
        }
        Snapshot {
            profile,
            ..Snapshot::default()
        }
    }

    /// The sites of a store: 3 has a risk, 7 is known without one, others are not known.
    fn read(wanted: &Wanted) -> Vec<Option<Snapshot>> {
        let site = |key: &str| match key {
            "3" => Some(snapshot(Some(0.75))),
            "7" => Some(snapshot(None)),
            _ => None,
        };
        wanted.entities().iter().map(|(_, key)| site(key)).collect()
    }

    fn serve(view: &View, rows: &[RowInput<'_>]) -> Vec<Vec<Value>> {
        let needed = vec![true; view.features().len()];
        let wanted = Wanted::of(view, rows, &needed);
        let snapshots = read(&wanted);
        let related = wanted.assemble(view, &snapshots, 0).unwrap();
        let assembled = assemble(view, rows, &related, &needed).unwrap();
        let row = |row| {
            let columns = assembled.batch.columns().iter();
            columns.map(|column| value_at(column, row)).collect()
        };
        (0..rows.len()).map(row).collect()
    }

    #[test]
    fn values_are_those_of_the_other_view_and_of_an_unknown_entity_the_own_default() {
        let view = visit();
        let overridden = [(0, Value::Int64(3))];
        let rows = [
            RowInput {
                key: "C\u{1f}3",
                ..RowInput::default()
            },
            RowInput {
                key: "C\u{1f}unknown",
                overrides: &overridden,
                ..RowInput::default()
            },
        ];
        let served = serve(&view, &rows);
        // Site 3 by the key, site 7 by the default; site 7 has the default of its own view.
        let expected = [Value::Int64(7), Value::Float64(0.75), Value::Float64(1.0)];
        assert_eq!(served[0], expected);
        // No site by the key, site 3 by the override.
        let expected = [Value::Int64(3), Value::Float64(0.25), Value::Float64(1.5)];
        assert_eq!(served[1], expected);
    }

    #[test]
    fn every_entity_is_asked_for_once_and_only_when_something_of_it_is_needed() {
        let view = visit();
        let keys: Vec<String> = (0..50).map(|n| format!("C{n}\u{1f}{}", n % 5)).collect();
        let rows: Vec<RowInput<'_>> = keys
            .iter()
            .map(|key| RowInput {
                key,
                ..RowInput::default()
            })
            .collect();
        let mut needed = vec![false; view.features().len()];
        assert!(Wanted::of(&view, &rows, &needed).is_empty());
        needed[view.index_of("risk").unwrap()] = true;
        assert_eq!(Wanted::of(&view, &rows, &needed).entities().len(), 5);
        needed[view.index_of("doubled").unwrap()] = true;
        assert_eq!(Wanted::of(&view, &rows, &needed).entities().len(), 6);
        // And many rows at once give what each gives alone.
        let together = serve(&view, &rows);
        for (row, expected) in rows.iter().zip(together) {
            assert_eq!(serve(&view, std::slice::from_ref(row)), [expected]);
        }
    }
}
