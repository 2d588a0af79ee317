//! Feature views: what is known about one kind of entity, as declared in `features/<view>.toml`.
//!
//! A [`View`] names the entity's key columns and its features with their types, defaults, allowed
//! values and ranges. A feature has a [`Role`]: where its values come from. Loading a view checks
//! everything that can be checked without data and without the other views, so that what is loaded
//! can be trusted by the rest of the server; all mistakes of a file are reported at once.
//!
//! * `keys` – the vocabulary: sections, keys and what they take.
//! * `file`, `shape` – from text to sections, with their places.
//! * `build`, `feature`, `aggregate`, `order` – from sections to a view.
//! * `input` – values from outside.
//! * [`relation`] – other entities, and linking views with each other.
//! * [`request`] – what comes with a request.
//! * [`mistake`] – what is wrong, and where.
//! * [`schema`] – the JSON schema of view files, for editors.
//!
//! Nothing here reads stored values; see `crate::store` and `crate::score`.

mod aggregate;
mod build;
mod feature;
mod file;
mod input;
mod keys;
pub mod mistake;
mod order;
pub mod relation;
pub mod request;
pub mod schema;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::Serialize;

pub use self::mistake::{Mistake, Mistakes, ValueError, ViewError, suggestion};
use self::relation::{RelatedFeature, Relation};
use self::request::BuiltIn;
use super::expression::Expression;
use super::value::{FeatureType, Value, shorten};
use super::windows::Windows;

/// Where the values of a feature come from. The columns of a view are in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Written to the online store.
    Stored,
    /// Sent with each request, or the time of it; never stored.
    Request,
    /// Computed from the events of a window of time.
    Window,
    /// Read from another entity.
    Related,
    /// Computed from other features by an expression.
    Derived,
}

impl Role {
    /// For tables: `stored`.
    pub fn as_word(self) -> &'static str {
        match self {
            Role::Stored => "stored",
            Role::Request => "request",
            Role::Window => "window",
            Role::Related => "related",
            Role::Derived => "derived",
        }
    }

    /// For messages: `a stored feature`.
    pub fn as_phrase(self) -> &'static str {
        match self {
            Role::Stored => "a stored feature",
            Role::Request => "a request feature",
            Role::Window => "a window feature",
            Role::Related => "a related feature",
            Role::Derived => "a derived feature",
        }
    }
}

/// How many values a feature has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    One,
    /// The column holds a JSON array as text.
    List,
    /// The column holds a JSON object as text: one value for each group.
    Map,
}

impl Holds {
    fn as_phrase(self) -> &'static str {
        match self {
            Holds::One => "one value",
            Holds::List => "a list",
            Holds::Map => "a map",
        }
    }
}

/// One declared feature.
#[derive(Debug)]
pub struct Feature {
    pub name: String,
    /// The type of the column.
    pub kind: FeatureType,
    pub role: Role,
    pub holds: Holds,
    pub description: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it may be used for; anything when empty.
    pub purposes: Vec<String>,
    pub tags: Vec<String>,
    /// Whether it is personal data.
    pub personal: bool,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownValue {
    /// It is counted, reported, and passed on; the model's encoder decides.
    #[default]
    Pass,
    /// It is refused with an error.
    Refuse,
}

/// A loaded feature view. Its schema holds the stored features, then the request, window, related
/// and derived ones, each in declared order; a feature's index is its column.
#[derive(Debug)]
pub struct View {
    pub name: String,
    /// The entity's key column, for example `customer_id`; of a composite key all its columns, with
    /// commas between them: for messages. See [`View::key_columns`].
    pub entity: String,
    pub description: String,
    pub owner: Option<String>,
    pub purposes: Vec<String>,
    /// SHA-256 of the view file, and of the views it is related to: what "the same pipeline" means
    /// in the ledger.
    pub digest: [u8; 32],
    features: Vec<Feature>,
    bounds: Bounds,
    built_in: Vec<(usize, BuiltIn)>,
    by_name: HashMap<String, usize>,
    schema: SchemaRef,
    key_columns: Vec<String>,
    windows: Windows,
    relations: Vec<Relation>,
    related: Vec<RelatedFeature>,
    /// Derived features grouped so that each group reads only columns of the ones before it.
    levels: Vec<Vec<usize>>,
    /// By column: the columns that it is computed from.
    inputs: Vec<Vec<usize>>,
}

/// Where the columns of each role end; each begins where the one before it ends.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    stored: usize,
    request: usize,
    window: usize,
    related: usize,
}

impl View {
    /// Reads and checks one view file.
    ///
    /// # Errors
    /// Every mistake with its file and line.
    pub fn load(file: &Path) -> Result<View, Vec<ViewError>> {
        let in_file = |mistake| ViewError {
            file: file.to_owned(),
            mistake,
        };
        let text = std::fs::read_to_string(file)
            .map_err(|e| vec![in_file(Mistake::of_file(format!("cannot read: {e}")))])?;
        View::parse(&text)
            .map_err(|mistakes| mistakes.0.into_iter().map(in_file).collect::<Vec<_>>())
    }

    /// Reads and checks the text of a view file. Its relations are not bound to other views yet:
    /// see [`View::link`].
    ///
    /// # Errors
    /// Every mistake with its line.
    pub fn parse(text: &str) -> Result<View, Mistakes> {
        let mut findings = file::Findings::new(text);
        let file = file::read(text, &mut findings);
        build::build(text, &file, &mut findings)
    }

    /// All features; the index of one is its column in [`View::schema`].
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// The features that are stored.
    pub fn stored_features(&self) -> &[Feature] {
        &self.features[..self.bounds.stored]
    }

    /// The columns of request features.
    pub fn request_columns(&self) -> Range<usize> {
        self.bounds.stored..self.bounds.request
    }

    /// The columns of window features, in the order of the values of a snapshot.
    pub fn window_columns(&self) -> Range<usize> {
        self.bounds.request..self.bounds.window
    }

    /// The columns of related features.
    pub fn related_columns(&self) -> Range<usize> {
        self.bounds.window..self.bounds.related
    }

    /// The columns of derived features.
    pub fn derived_columns(&self) -> Range<usize> {
        self.bounds.related..self.features.len()
    }

    /// The key columns, one or, for a composite key, more.
    pub fn key_columns(&self) -> &[String] {
        &self.key_columns
    }

    /// The window features; the values of a snapshot are in their order.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// The values of the server's own request columns that the view has, at `at_us` microseconds
    /// since the Unix epoch.
    pub fn request_time(&self, at_us: i64) -> impl Iterator<Item = (usize, Value)> {
        let built_in = self.built_in.iter();
        built_in.map(move |(column, what)| (*column, what.at(at_us)))
    }

    /// The Arrow schema of an assembled batch: every feature, all nullable.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The column of the feature called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Computes the derived features marked in `needed` (indexed by column) from `columns`, which
    /// are all the others; the derived ones that are not needed are null.
    ///
    /// # Errors
    /// When `columns` do not fit the schema.
    pub fn derive(
        &self,
        mut columns: Vec<ArrayRef>,
        rows: usize,
        needed: impl Fn(usize) -> bool,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
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

    /// Adds to `needed` (indexed by column) everything that a needed column is computed from: what
    /// an expression reads, and what holds the key of a related entity.
    pub fn close_over_inputs(&self, needed: &mut [bool]) {
        let derived = self.levels.iter().rev().flatten().copied();
        for index in derived.chain(self.related_columns()) {
            if needed[index] {
                for &input in &self.inputs[index] {
                    needed[input] = true;
                }
            }
        }
    }
}
