//! From what is known of some entities to one Arrow batch of the view's schema.
//!
//! For every feature of every row that is not derived: the request's override, else the value of its
//! role (stored, of the request's context, of the windows, of the related entity), else the declared
//! default, else null. Derived features are then computed on the batch. Where each value came from and
//! how old it is stays with the batch, because the ledger records it.
//!
//! One row online and a million offline go through the same code, column by column. A whole table has
//! columns already: [`assemble_columns`] takes them as they are.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Scalar, UInt32Array, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{is_not_null, take};
use arrow::record_batch::RecordBatch;

use super::related::Related;
use crate::features::column::to_array;
use crate::features::value::{FeatureType, Value};
use crate::features::view::{Feature, Role, View};
use crate::store::Profile;

const NULL: Value = Value::Null;

/// What is known of one row before assembly.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowInput<'a> {
    /// The entity's key; relations may read its parts.
    pub key: &'a str,
    pub profile: Option<&'a Profile>,
    /// Checked values by column, replacing what is known.
    pub overrides: &'a [(usize, Value)],
    /// Checked values of request features by column, those of [`View::request_time`] among them.
    pub context: &'a [(usize, Value)],
    /// The values of the window features, as a snapshot has them; none when nothing is known.
    pub windows: &'a [Value],
}

/// Where a served value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stored,
    Override,
    Request,
    Window,
    Related,
    Default,
    Missing,
}

/// The origin of one served value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub source: Source,
    /// When a stored value was written, microseconds since the Unix epoch; of a related one, there.
    pub as_of_us: Option<i64>,
    /// The value is not among those the feature declares.
    pub unknown: bool,
    /// The value lies outside the feature's range.
    pub out_of_range: bool,
}

/// An assembled batch: every feature of the view, and the origin of all but the derived ones.
#[derive(Debug)]
pub struct Assembled {
    pub batch: RecordBatch,
    derived: usize,
    origins: Vec<Origin>,
}

impl Assembled {
    /// The origin of the value in `row` and `column`; `None` for a derived feature.
    pub fn origin(&self, row: usize, column: usize) -> Option<&Origin> {
        if column >= self.derived {
            return None;
        }
        self.origins.get(column * self.batch.num_rows() + row)
    }
}

/// Assembles `rows`; derived features are computed only where `needed` (by column) is true. `related`
/// is what is known of the related entities of these rows.
///
/// # Errors
/// Only when the view's schema is at odds with its own features, which loading excludes.
pub fn assemble(
    view: &View,
    rows: &[RowInput<'_>],
    related: &Related,
    needed: &[bool],
) -> Result<Assembled, arrow::error::ArrowError> {
    let derived = view.derived_columns().start;
    let mut origins = Vec::with_capacity(derived * rows.len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.features().len());
    let mut values: Vec<&Value> = Vec::with_capacity(rows.len());
    for (column, feature) in view.features()[..derived].iter().enumerate() {
        values.clear();
        for (index, row) in rows.iter().enumerate() {
            let found = match feature.role {
                Role::Related => related.value(column - view.related_columns().start, index),
                _ => find(view, column, feature, row),
            };
            let (value, origin) = resolve(column, feature, row, found);
            values.push(value);
            origins.push(origin);
        }
        columns.push(to_array(feature.kind, &values));
    }
    let batch = view.derive(columns, rows.len(), |column| needed[column])?;
    Ok(Assembled {
        batch,
        derived,
        origins,
    })
}

/// Assembles a table: by column what is given of it, of the feature's type, where null stands for a value
/// that is missing; `None` where nothing is. What is missing becomes the declared default, and derived
/// features are computed where `needed` (by column) is true. A row has the values that [`assemble`] gives
/// it.
///
/// # Errors
/// When a column does not have the feature's type or `rows` rows.
pub fn assemble_columns(
    view: &View,
    given: &[Option<ArrayRef>],
    rows: usize,
    needed: &[bool],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let derived = view.derived_columns().start;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.features().len());
    for (column, feature) in view.features()[..derived].iter().enumerate() {
        let given = given.get(column).and_then(Option::as_ref);
        let default = || to_array(feature.kind, &[feature.default.as_ref().unwrap_or(&NULL)]);
        let array = match given {
            None if !needed[column] => new_null_array(&feature.kind.arrow(), rows),
            None => take(&default(), &UInt32Array::from(vec![0; rows]), None)?,
            Some(given) if given.null_count() > 0 && feature.default.is_some() => {
                zip(&is_not_null(given)?, given, &Scalar::new(default()))?
            }
            Some(given) => Arc::clone(given),
        };
        columns.push(array);
    }
    view.derive(columns, rows, |column| needed[column])
}

/// The value of a feature that is neither related nor derived, as far as the row has one.
fn find<'a>(
    view: &View,
    column: usize,
    feature: &Feature,
    row: &RowInput<'a>,
) -> Option<(&'a Value, Source, Option<i64>)> {
    match feature.role {
        Role::Stored => {
            let stored = row.profile?.get(&feature.name)?;
            Some((&stored.value, Source::Stored, Some(stored.as_of_us)))
        }
        Role::Request => {
            let (_, value) = row.context.iter().find(|(index, _)| *index == column)?;
            Some((value, Source::Request, None))
        }
        Role::Window => {
            let value = row.windows.get(column - view.window_columns().start)?;
            Some((value, Source::Window, None))
        }
        Role::Related | Role::Derived => None,
    }
}

fn resolve<'a>(
    column: usize,
    feature: &'a Feature,
    row: &RowInput<'a>,
    found: Option<(&'a Value, Source, Option<i64>)>,
) -> (&'a Value, Origin) {
    let overridden = row.overrides.iter().find(|(index, _)| *index == column);
    let (value, source, as_of_us) = match (overridden, found) {
        (Some((_, value)), _) => (value, Source::Override, None),
        (None, Some(found)) => found,
        (None, None) => (&NULL, Source::Missing, None),
    };
    if fits(value, feature.kind) {
        let origin = Origin {
            source,
            as_of_us,
            unknown: feature.is_unknown(value),
            out_of_range: feature.is_out_of_range(value),
        };
        return (value, origin);
    }
    let (value, source) = match &feature.default {
        Some(default) => (default, Source::Default),
        None => (&NULL, Source::Missing),
    };
    let origin = Origin {
        source,
        as_of_us,
        unknown: false,
        out_of_range: false,
    };
    (value, origin)
}

/// Whether a value is one of the feature's type. One that was written under an earlier type of the
/// feature counts as missing, and so does null.
fn fits(value: &Value, kind: FeatureType) -> bool {
    match (value, kind) {
        (Value::Int64(_), FeatureType::Float64) => true,
        (Value::Float64(float), FeatureType::Float64) => float.is_finite(),
        (value, kind) => value.feature_type() == Some(kind),
    }
}

/// The value of the stored or request feature in `column`, as [`assemble`] gives it.
pub fn resolved<'a>(view: &'a View, column: usize, row: &RowInput<'a>) -> &'a Value {
    let feature = &view.features()[column];
    resolve(column, feature, row, find(view, column, feature, row)).0
}
