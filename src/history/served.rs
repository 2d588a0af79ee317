//! Feature values as they were served, from the ledger's predictions to Arrow columns of a view.
//!
//! A value is what the model was given then, defaults and overrides included; it is never looked
//! up again. A feature of the view that a prediction did not need, did not have yet or served as
//! another type is null; [`ServedRows::lacks`] tells that apart from a null that was served.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
};
use arrow::error::ArrowError;

use crate::features::value::FeatureType;
use crate::features::view::View;
use crate::ledger::{Feature, FeatureValue, Prediction};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Bytes of text after which a batch ends early, so that long values cannot fill the memory.
const BATCH_BYTES: usize = 64 * 1024 * 1024;

/// Served values of the features of a view, row by row.
pub struct ServedRows {
    view: Arc<View>,
    columns: Vec<Builder>,
    rows: usize,
    text_bytes: usize,
}

enum Builder {
    Bool(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    String(StringBuilder),
}

impl ServedRows {
    pub fn new(view: &Arc<View>) -> ServedRows {
        let columns = view.features().iter().map(|feature| match feature.kind {
            FeatureType::Bool => Builder::Bool(BooleanBuilder::new()),
            FeatureType::Int64 => Builder::Int64(Int64Builder::new()),
            FeatureType::Float64 => Builder::Float64(Float64Builder::new()),
            FeatureType::String => Builder::String(StringBuilder::new()),
        });
        ServedRows {
            columns: columns.collect(),
            view: Arc::clone(view),
            rows: 0,
            text_bytes: 0,
        }
    }

    /// The first of `columns` that was not served with this prediction, or as another type.
    pub fn lacks(view: &View, prediction: &Prediction, columns: &[usize]) -> Option<usize> {
        let was_served = |column: usize| {
            let declared = &view.features()[column];
            let served = prediction.features.iter();
            let mut named = served.filter(|feature| feature.name == declared.name);
            named.any(|feature| feature.value.is_none() || fits(feature, declared.kind))
        };
        columns.iter().copied().find(|column| !was_served(*column))
    }

    /// Adds the values of a prediction as a row.
    pub fn push(&mut self, prediction: &Prediction) {
        let mut row: Vec<Option<&FeatureValue>> = vec![None; self.columns.len()];
        for feature in &prediction.features {
            if let Some(column) = self.view.index_of(&feature.name) {
                row[column] = feature.value.as_ref();
            }
        }
        for (builder, value) in self.columns.iter_mut().zip(row) {
            match (builder, value) {
                (Builder::Bool(column), Some(FeatureValue::Bool(flag))) => {
                    column.append_value(*flag);
                }
                (Builder::Int64(column), Some(FeatureValue::Int64(integer))) => {
                    column.append_value(*integer);
                }
                (Builder::Float64(column), Some(FeatureValue::Float64(float))) => {
                    column.append_value(*float);
                }
                (Builder::String(column), Some(FeatureValue::String(text))) => {
                    self.text_bytes += text.len();
                    column.append_value(text);
                }
                (Builder::Bool(column), _) => column.append_null(),
                (Builder::Int64(column), _) => column.append_null(),
                (Builder::Float64(column), _) => column.append_null(),
                (Builder::String(column), _) => column.append_null(),
            }
        }
        self.rows += 1;
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether the rows should be taken before the next one is added.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.text_bytes >= BATCH_BYTES
    }

    /// The rows so far as a batch of the view's schema; none are left.
    ///
    /// # Errors
    /// None that data could cause: the columns are made by the schema.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        self.text_bytes = 0;
        let columns = self.columns.iter_mut().map(|builder| match builder {
            Builder::Bool(column) => Arc::new(column.finish()) as ArrayRef,
            Builder::Int64(column) => Arc::new(column.finish()),
            Builder::Float64(column) => Arc::new(column.finish()),
            Builder::String(column) => Arc::new(column.finish()),
        });
        RecordBatch::try_new(Arc::clone(self.view.schema()), columns.collect())
    }
}

fn fits(feature: &Feature, kind: FeatureType) -> bool {
    let served = match &feature.value {
        None => return true,
        Some(FeatureValue::Bool(_)) => FeatureType::Bool,
        Some(FeatureValue::Int64(_)) => FeatureType::Int64,
        Some(FeatureValue::Float64(_)) => FeatureType::Float64,
        Some(FeatureValue::String(_)) => FeatureType::String,
    };
    served == kind
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, Int64Type};

    const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "tenure"
type = "int64"

[[feature]]
name = "charges"
type = "float64"

[[feature]]
name = "contract"
type = "string"

[[feature]]
name = "active"
type = "bool"
"#;

    fn prediction(values: &[(&str, Option<FeatureValue>)]) -> Prediction {
        let features = values.iter().map(|(name, value)| Feature {
            name: (*name).to_owned(),
            value: value.clone(),
            ..Feature::default()
        });
        Prediction {
            features: features.collect(),
            ..Prediction::default()
        }
    }

    #[test]
    fn values_come_back_as_they_were_served() {
        let view = Arc::new(View::parse(VIEW).unwrap());
        let full = prediction(&[
            ("active", Some(FeatureValue::Bool(true))),
            ("contract", Some(FeatureValue::String("Weekly".to_owned()))),
            ("charges", Some(FeatureValue::Float64(0.1))),
            ("tenure", Some(FeatureValue::Int64(7))),
            ("gone", Some(FeatureValue::Int64(1))),
        ]);
        let partly = prediction(&[
            ("tenure", None),
            ("charges", Some(FeatureValue::String("much".to_owned()))),
        ]);
        let mut rows = ServedRows::new(&view);
        rows.push(&full);
        rows.push(&partly);
        let batch = rows.take_batch().unwrap();
        assert!(rows.is_empty());
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(batch.column(1).as_primitive::<Float64Type>().value(0), 0.1);
        assert_eq!(batch.column(2).as_string::<i32>().value(0), "Weekly");
        assert!(batch.column(3).as_boolean().value(0));
        assert!(batch.columns().iter().all(|column| column.is_null(1)));

        // A null that was served is a value; another type, or nothing, is not.
        assert_eq!(ServedRows::lacks(&view, &full, &[0, 1, 2, 3]), None);
        assert_eq!(ServedRows::lacks(&view, &partly, &[0]), None);
        assert_eq!(ServedRows::lacks(&view, &partly, &[0, 1]), Some(1));
        assert_eq!(ServedRows::lacks(&view, &partly, &[0, 3]), Some(3));
    }
}
