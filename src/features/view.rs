//! Feature views: what is known about one kind of entity, as declared in `features/<view>.toml`.
//!
//! A [`View`] names the entity's key column and its features with their types, defaults, allowed
//! values and ranges. Features with an `expression` are derived: computed from the others each
//! time they are needed, never stored. Loading a view checks everything that can be checked
//! without data, so that what is loaded can be trusted by the rest of the server.
//!
//! This file does not read stored values; see `crate::store` and `crate::score`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::Deserialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::expression::Expression;
use super::value::{FeatureType, Value, shorten};

/// One declared feature.
#[derive(Debug)]
pub struct Feature {
    pub name: String,
    pub kind: FeatureType,
    pub description: String,
    /// What a missing or null value becomes; `None` passes it on as missing (NaN).
    pub default: Option<Value>,
    /// The values that are known; empty when any value is.
    pub values: Vec<Value>,
    /// What happens to a value that is not among `values`.
    pub unknown: UnknownValue,
    /// Smallest and largest number allowed.
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// A stored value older than this is reported as stale.
    pub max_age: Option<Duration>,
    /// Set for a derived feature.
    pub expression: Option<Expression>,
}

/// What happens to a value that is not among a feature's declared `values`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownValue {
    /// It is counted, reported, and passed on; the model's encoder decides.
    #[default]
    Pass,
    /// It is refused with an error.
    Refuse,
}

/// A loaded feature view. Its schema holds the stored features in declared order, then the
/// derived ones in declared order; a feature's index is its column.
#[derive(Debug)]
pub struct View {
    pub name: String,
    /// The name of the entity's key column, for example `customer_id`.
    pub entity: String,
    pub description: String,
    /// SHA-256 of the view file: what "the same pipeline" means in the ledger.
    pub digest: [u8; 32],
    features: Vec<Feature>,
    stored: usize,
    by_name: HashMap<String, usize>,
    schema: SchemaRef,
    /// Derived features grouped so that each group reads only columns of the ones before it.
    levels: Vec<Vec<usize>>,
}

/// Why a view file was refused.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct ViewError {
    pub file: PathBuf,
    pub problem: String,
}

/// Why a value was refused for a feature. Displays as `<feature>: <problem>`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{feature}: {problem}")]
pub struct ValueError {
    pub feature: String,
    pub problem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewFile {
    view: ViewSection,
    #[serde(default)]
    feature: Vec<FeatureSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewSection {
    name: String,
    entity: String,
    #[serde(default)]
    description: String,
    max_age: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureSection {
    name: toml::Spanned<String>,
    #[serde(rename = "type")]
    kind: FeatureType,
    #[serde(default)]
    description: String,
    default: Option<toml::Value>,
    #[serde(default)]
    values: Vec<toml::Value>,
    #[serde(default)]
    unknown: UnknownValue,
    min: Option<f64>,
    max: Option<f64>,
    max_age: Option<String>,
    expression: Option<String>,
}

impl View {
    /// Reads and checks one view file.
    ///
    /// # Errors
    /// The file and what is wrong in it: the line of the syntax error, or the feature's name and
    /// line with the problem.
    pub fn load(file: &Path) -> Result<View, ViewError> {
        let fail = |problem: String| ViewError {
            file: file.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(file).map_err(|e| fail(format!("cannot read: {e}")))?;
        View::parse(&text).map_err(fail)
    }

    /// Reads and checks the text of a view file.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(text: &str) -> Result<View, String> {
        let file: ViewFile = toml::from_str(text).map_err(|e| e.to_string())?;
        check_name("view name", &file.view.name)?;
        check_name("entity", &file.view.entity)?;
        if file.feature.is_empty() {
            return Err("a view needs at least one [[feature]]".to_owned());
        }
        let view_max_age = file.view.max_age.as_deref().map(parse_age).transpose()?;
        let (stored, derived): (Vec<_>, Vec<_>) = file
            .feature
            .into_iter()
            .partition(|feature| feature.expression.is_none());
        let stored_count = stored.len();
        let sections: Vec<FeatureSection> = stored.into_iter().chain(derived).collect();

        let mut by_name = HashMap::new();
        for (index, section) in sections.iter().enumerate() {
            let name = section.name.get_ref();
            let at = |problem: String| format!("{}: {problem}", locate(text, &section.name));
            check_name("feature name", name).map_err(at)?;
            if *name == file.view.entity {
                return Err(at(
                    "is the entity's key column; it cannot be a feature".to_owned()
                ));
            }
            if by_name.insert(name.clone(), index).is_some() {
                return Err(at("is declared twice".to_owned()));
            }
        }
        let schema: SchemaRef = Arc::new(Schema::new(
            sections
                .iter()
                .map(|section| Field::new(section.name.get_ref(), section.kind.arrow(), true))
                .collect::<Vec<_>>(),
        ));
        let mut features = Vec::with_capacity(sections.len());
        for section in sections {
            let place = locate(text, &section.name);
            let feature = build_feature(section, &schema, view_max_age)
                .map_err(|problem| format!("{place}: {problem}"))?;
            features.push(feature);
        }
        let levels = order_derived(&features, stored_count, &by_name)?;
        Ok(View {
            name: file.view.name,
            entity: file.view.entity,
            description: file.view.description,
            digest: Sha256::digest(text.as_bytes()).into(),
            features,
            stored: stored_count,
            by_name,
            schema,
            levels,
        })
    }

    /// All features; the index of one is its column in [`View::schema`].
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// The features that are stored: all but the derived ones.
    pub fn stored_features(&self) -> &[Feature] {
        &self.features[..self.stored]
    }

    /// The Arrow schema of an assembled batch: every feature, all nullable.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The column of the feature called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Reads a JSON value for the feature `name` and checks type, range and allowed values.
    /// Returns the column, the value, and whether the value is an unknown category.
    ///
    /// # Errors
    /// The feature's name with: no such feature, derived, wrong type, out of range, or refused
    /// as unknown.
    pub fn read_value(&self, name: &str, json: &Json) -> Result<(usize, Value, bool), ValueError> {
        let index = self.stored_index(name)?;
        let feature = &self.features[index];
        let value = Value::from_json(json, feature.kind).map_err(|problem| ValueError {
            feature: name.to_owned(),
            problem,
        })?;
        let unknown = feature.check(&value)?;
        Ok((index, value, unknown))
    }

    /// The column of the stored feature `name`.
    ///
    /// # Errors
    /// When there is no such feature, or it is derived.
    pub fn stored_index(&self, name: &str) -> Result<usize, ValueError> {
        let problem = match self.index_of(name) {
            Some(index) if index < self.stored => return Ok(index),
            Some(index) => {
                let expression = self.features[index].expression.as_ref();
                let inputs = expression
                    .map(|e| e.columns().join(", "))
                    .unwrap_or_default();
                format!("is derived and cannot be set; set what it is computed from ({inputs})")
            }
            None => {
                let names = self.features.iter().map(|feature| feature.name.as_str());
                format!(
                    "no such feature in view {}{}",
                    self.name,
                    suggestion(name, names)
                )
            }
        };
        Err(ValueError {
            feature: shorten(name, 64),
            problem,
        })
    }

    /// Computes the derived features marked in `needed` (indexed by column) from the stored
    /// columns; the columns not needed are null.
    ///
    /// # Errors
    /// When `columns` do not fit the schema.
    pub fn derive(
        &self,
        stored_columns: Vec<ArrayRef>,
        rows: usize,
        needed: impl Fn(usize) -> bool,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut columns = stored_columns;
        for feature in &self.features[columns.len().min(self.features.len())..] {
            columns.push(new_null_array(&feature.kind.arrow(), rows));
        }
        let mut batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        for level in &self.levels {
            let mut columns: Option<Vec<ArrayRef>> = None;
            for &index in level.iter().filter(|&&index| needed(index)) {
                if let Some(expression) = &self.features[index].expression {
                    let column = expression.evaluate(&batch);
                    columns.get_or_insert_with(|| batch.columns().to_vec())[index] = column;
                }
            }
            if let Some(columns) = columns {
                batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            }
        }
        Ok(batch)
    }

    /// Adds to `needed` (indexed by column) every feature that a needed derived one reads.
    pub fn close_over_inputs(&self, needed: &mut [bool]) {
        for level in self.levels.iter().rev() {
            for &index in level {
                if !needed[index] {
                    continue;
                }
                for column in self.features[index]
                    .expression
                    .iter()
                    .flat_map(|e| e.columns())
                {
                    if let Some(input) = self.index_of(column) {
                        needed[input] = true;
                    }
                }
            }
        }
    }
}

impl Feature {
    /// Checks range and allowed values; `true` means "an unknown category, passed on".
    ///
    /// # Errors
    /// When the value is out of range, or unknown and declared to be refused.
    pub fn check(&self, value: &Value) -> Result<bool, ValueError> {
        let fail = |problem: String| ValueError {
            feature: self.name.clone(),
            problem,
        };
        let number = match value {
            Value::Int64(integer) => Some(*integer as f64),
            Value::Float64(float) => Some(*float),
            _ => None,
        };
        if let Some(number) = number {
            let below = self.min.is_some_and(|min| number < min);
            let above = self.max.is_some_and(|max| number > max);
            if below || above {
                let range = match (self.min, self.max) {
                    (Some(min), Some(max)) => format!("{min} to {max}"),
                    (Some(min), None) => format!("at least {min}"),
                    (None, Some(max)) => format!("at most {max}"),
                    (None, None) => String::new(),
                };
                return Err(fail(format!("{number} is out of range, expected {range}")));
            }
        }
        let unknown = !self.values.is_empty() && !value.is_null() && !self.values.contains(value);
        if unknown && self.unknown == UnknownValue::Refuse {
            let known: Vec<String> = self
                .values
                .iter()
                .take(20)
                .map(|known| known.to_json().to_string())
                .collect();
            let found = shorten(&value.to_json().to_string(), 60);
            return Err(fail(format!(
                "unknown value {found}, expected one of {}",
                known.join(", ")
            )));
        }
        Ok(unknown)
    }
}

fn build_feature(
    section: FeatureSection,
    schema: &SchemaRef,
    view_max_age: Option<Duration>,
) -> Result<Feature, String> {
    let kind = section.kind;
    let read = |what: &str, value: &toml::Value| {
        Value::from_json(&json_of(value)?, kind)
            .map_err(|problem| format!("{what}: {problem}"))
            .and_then(|value| match value.is_null() {
                true => Err(format!("{what}: leave it out instead of giving null")),
                false => Ok(value),
            })
    };
    let default = section
        .default
        .as_ref()
        .map(|value| read("default", value))
        .transpose()?;
    let values: Vec<Value> = section
        .values
        .iter()
        .map(|value| read("values", value))
        .collect::<Result<_, _>>()?;
    if section
        .min
        .is_some_and(|min| section.max.is_some_and(|max| min > max))
    {
        return Err("min is greater than max".to_owned());
    }
    let is_number = matches!(kind, FeatureType::Int64 | FeatureType::Float64);
    if !is_number && (section.min.is_some() || section.max.is_some()) {
        return Err(format!(
            "min and max need a number, the type is {}",
            kind.name()
        ));
    }
    let expression = match &section.expression {
        Some(sql) => {
            if section.default.is_some() || !values.is_empty() || section.max_age.is_some() {
                return Err(
                    "is derived by an expression: default, values and max_age belong to the \
                     features it reads"
                        .to_owned(),
                );
            }
            let data_type: DataType = kind.arrow();
            let compiled = Expression::compile(sql, schema, &data_type);
            Some(compiled.map_err(|problem| format!("expression {sql:?}: {problem}"))?)
        }
        None => None,
    };
    let max_age = section
        .max_age
        .as_deref()
        .map(parse_age)
        .transpose()?
        .or(view_max_age);
    let feature = Feature {
        name: section.name.into_inner(),
        kind,
        description: section.description,
        default,
        values,
        unknown: section.unknown,
        min: section.min,
        max: section.max,
        max_age,
        expression,
    };
    if let Some(default) = &feature.default {
        let unknown = feature
            .check(default)
            .map_err(|error| format!("default: {}", error.problem))?;
        if unknown {
            return Err("default is not among values".to_owned());
        }
    }
    Ok(feature)
}

/// Groups the derived features by depth; an expression that reads itself, directly or through
/// others, is an error.
fn order_derived(
    features: &[Feature],
    stored: usize,
    by_name: &HashMap<String, usize>,
) -> Result<Vec<Vec<usize>>, String> {
    let mut done: Vec<bool> = (0..features.len()).map(|index| index < stored).collect();
    let mut levels = Vec::new();
    loop {
        let ready: Vec<usize> = (stored..features.len())
            .filter(|&index| !done[index])
            .filter(|&index| {
                let columns = features[index].expression.iter().flat_map(|e| e.columns());
                columns
                    .filter_map(|column| by_name.get(column))
                    .all(|&input| done[input])
            })
            .collect();
        if ready.is_empty() {
            break;
        }
        for &index in &ready {
            done[index] = true;
        }
        levels.push(ready);
    }
    match done.iter().position(|done| !done) {
        Some(index) => Err(format!(
            "feature {}: its expression depends on itself, directly or through other features",
            features[index].name
        )),
        None => Ok(levels),
    }
}

fn json_of(value: &toml::Value) -> Result<Json, String> {
    match value {
        toml::Value::Datetime(date) => Err(format!("{date}: dates are not a feature type")),
        other => serde_json::to_value(other).map_err(|error| error.to_string()),
    }
}

fn parse_age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("max_age {text:?}: {error}; expected for example \"30d\" or \"12h\"")
    })
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let continues = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if starts_well && name.chars().all(continues) && name.len() <= 64 {
        return Ok(());
    }
    Err(format!(
        "{what} {name:?}: expected lower-case letters, digits and underscores, starting with a \
         letter, at most 64"
    ))
}

fn locate(text: &str, name: &toml::Spanned<String>) -> String {
    let line = text
        .get(..name.span().start)
        .unwrap_or_default()
        .matches('\n')
        .count()
        + 1;
    format!("line {line}: feature {}", name.get_ref())
}

/// ", did you mean X?" when one of `names` is close to `name`, else nothing.
pub fn suggestion<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    if name.len() > 64 {
        return String::new();
    }
    let closest = names
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match closest {
        Some((similarity, candidate)) if similarity > 0.8 => {
            format!("; did you mean {candidate}?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Float64Array, Int64Array};
    use arrow::datatypes::Float64Type;
    use serde_json::json;

    const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
max_age = "30d"

[[feature]]
name = "per_month_twice"
type = "float64"
expression = "per_month * 2"

[[feature]]
name = "tenure"
type = "int64"
default = 0
min = 0

[[feature]]
name = "total"
type = "float64"

[[feature]]
name = "per_month"
type = "float64"
expression = "total / greatest(tenure, 1)"

[[feature]]
name = "contract"
type = "string"
values = ["Month-to-month", "One year"]
unknown = "refuse"
"#;

    #[test]
    fn derived_features_may_build_on_each_other_in_any_order() {
        let view = View::parse(VIEW).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![4])),
            Arc::new(Float64Array::from(vec![Some(10.0)])),
            new_null_array(&DataType::Utf8, 1),
        ];
        let batch = view.derive(columns, 1, |_| true).unwrap();
        let twice = batch.column_by_name("per_month_twice").unwrap();
        assert_eq!(twice.as_primitive::<Float64Type>().value(0), 5.0);
        let mut needed = vec![false; view.features().len()];
        needed[view.index_of("per_month_twice").unwrap()] = true;
        view.close_over_inputs(&mut needed);
        assert!(needed[view.index_of("tenure").unwrap()]);
        assert!(!needed[view.index_of("contract").unwrap()]);
    }

    #[test]
    fn values_are_checked_and_the_error_names_the_feature() {
        let view = View::parse(VIEW).unwrap();
        for (name, value, message) in [
            (
                "tenure",
                json!(-1),
                "tenure: -1 is out of range, expected at least 0",
            ),
            (
                "tenure",
                json!("x"),
                "tenure: expected int64, found the string \"x\"",
            ),
            (
                "tenur",
                json!(1),
                "tenur: no such feature in view customer; did you mean tenure?",
            ),
            (
                "contract",
                json!("Weekly"),
                "contract: unknown value \"Weekly\", expected one of \"Month-to-month\", \"One year\"",
            ),
            (
                "per_month",
                json!(1.0),
                "per_month: is derived and cannot be set; set what it is computed from (tenure, total)",
            ),
        ] {
            assert_eq!(
                view.read_value(name, &value).unwrap_err().to_string(),
                message
            );
        }
        assert_eq!(
            view.read_value("total", &json!(null)).unwrap().1,
            Value::Null
        );
    }

    #[test]
    fn mistakes_in_a_view_file_are_named_with_their_place() {
        for (from, to, part) in [
            (
                "total / greatest",
                "totl / greatest",
                "line 23: feature per_month: expression",
            ),
            ("default = 0", "default = -3", "out of range"),
            ("default = 0", "default = \"x\"", "default: expected int64"),
            ("min = 0", "mini = 0", "unknown field `mini`"),
            ("\"total\"", "\"tenure\"", "declared twice"),
            ("\"total\"", "\"Total\"", "lower-case"),
            (
                "total / greatest(tenure, 1)",
                "per_month_twice + 1",
                "depends on itself",
            ),
            ("30d", "soon", "max_age"),
            ("\"total\"", "\"customer_id\"", "key column"),
        ] {
            let error = View::parse(&VIEW.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(part), "{to}: {error}");
        }
        let (without_features, _) = VIEW.split_once("[[feature]]").unwrap();
        let error = View::parse(without_features).unwrap_err();
        assert!(error.contains("at least one [[feature]]"), "{error}");
    }
}
