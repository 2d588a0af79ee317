//! Expressions over the properties of events: one property as it is, or SQL compiled.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::infer::{self, Reading};
use crate::features::expression::{Expression, read_tree};

/// One value of a column, null aside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input<'a> {
    Number(f64),
    Integer(i64),
    Flag(bool),
    Text(&'a str),
    /// Where only the event itself counts.
    Nothing,
}

/// An expression, ready to be evaluated.
#[derive(Debug)]
pub struct Evaluation {
    pub sql: String,
    pub wanted: Reading,
    /// The properties it reads, each with its type.
    pub inputs: Vec<(String, Reading)>,
    /// None for one property as it is.
    compiled: Option<(Expression, SchemaRef)>,
}

impl Evaluation {
    /// Compiles `sql` to a column of the type `wanted`. Where any text is wanted, numbers and
    /// booleans become theirs.
    ///
    /// # Errors
    /// A phrase saying what is wrong with the expression.
    pub fn compile(sql: &str, wanted: Reading) -> Result<Evaluation, String> {
        let result = (wanted != Reading::AnyText).then_some(match wanted {
            Reading::Integer => Reading::Number,
            other => other,
        });
        let (lone, properties) = read_tree(sql, |tree| {
            let lone = infer::lone_property(tree);
            let properties = match lone {
                Some(_) => Vec::new(),
                None => infer::properties(tree, result)?,
            };
            Ok((lone, properties))
        })?;
        let sql = sql.to_owned();
        if let Some(property) = lone {
            return Ok(Evaluation {
                sql,
                wanted,
                inputs: vec![(property, wanted)],
                compiled: None,
            });
        }
        let inputs: Vec<(String, Reading)> = properties
            .iter()
            .map(|property| {
                let reading = property.reading.unwrap_or(Reading::AnyText);
                (property.name.clone(), reading)
            })
            .collect();
        let fields: Vec<Field> = properties
            .iter()
            .zip(&inputs)
            .map(|(property, (_, reading))| Field::new(&property.column, reading.arrow(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let expression = compile_as(&sql, &schema, wanted)?;
        Ok(Evaluation {
            sql,
            wanted,
            inputs,
            compiled: Some((expression, schema)),
        })
    }

    /// Evaluates it on columns that hold `inputs`, in that order, `rows` long each.
    pub fn evaluate(&self, columns: Vec<ArrayRef>, rows: usize) -> Column {
        let Some((expression, schema)) = &self.compiled else {
            return columns.first().map_or(Column::Absent, Column::new);
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        match RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options) {
            Ok(batch) => {
                let result = expression.evaluate(&batch);
                let column = Column::new(&result);
                if self.wanted == Reading::AnyText {
                    column.into_text()
                } else {
                    column
                }
            }
            // The columns are made to fit, so this does not happen; null is what is not known.
            Err(_) => Column::Absent,
        }
    }
}

fn compile_as(sql: &str, schema: &SchemaRef, wanted: Reading) -> Result<Expression, String> {
    let compile = |kind: &DataType| Expression::compile(sql, schema, kind);
    match wanted {
        Reading::AnyText => {
            let others = [DataType::Float64, DataType::Boolean];
            compile(&DataType::Utf8).or_else(|problem| {
                let other = others.iter().find_map(|kind| compile(kind).ok());
                other.ok_or(problem)
            })
        }
        Reading::Integer => compile(&DataType::Int64).map_err(|problem| {
            format!(
                "{problem}; numbers in events are float64: declare the feature so, or write \
                 cast(… as bigint)"
            )
        }),
        other => compile(&other.arrow()),
    }
}

/// A column of results.
#[derive(Debug)]
pub enum Column {
    Numbers(Float64Array),
    Integers(Int64Array),
    Flags(BooleanArray),
    Texts(StringArray),
    /// Nothing but nulls.
    Absent,
}

impl Column {
    fn new(array: &ArrayRef) -> Column {
        match array.data_type() {
            DataType::Float64 => Column::Numbers(array.as_primitive::<Float64Type>().clone()),
            DataType::Int64 => Column::Integers(array.as_primitive::<Int64Type>().clone()),
            DataType::Boolean => Column::Flags(array.as_boolean().clone()),
            DataType::Utf8 => Column::Texts(array.as_string::<i32>().clone()),
            _ => Column::Absent,
        }
    }

    fn into_text(self) -> Column {
        match self {
            Column::Numbers(numbers) => {
                let texts = numbers.iter().map(|number| number.map(text_of_number));
                Column::Texts(texts.collect())
            }
            Column::Flags(flags) => {
                let texts = flags.iter().map(|flag| flag.map(text_of_flag));
                Column::Texts(texts.collect())
            }
            other => other,
        }
    }

    /// The value in `row`; none when it is null.
    pub fn at(&self, row: usize) -> Option<Input<'_>> {
        let array: &dyn Array = match self {
            Column::Numbers(numbers) => numbers,
            Column::Integers(integers) => integers,
            Column::Flags(flags) => flags,
            Column::Texts(texts) => texts,
            Column::Absent => return None,
        };
        if row >= array.len() || array.is_null(row) {
            return None;
        }
        Some(match self {
            // Adding zero makes one zero of the two.
            Column::Numbers(numbers) => Input::Number(numbers.value(row) + 0.0),
            Column::Integers(integers) => Input::Integer(integers.value(row)),
            Column::Flags(flags) => Input::Flag(flags.value(row)),
            Column::Texts(texts) => Input::Text(texts.value(row)),
            Column::Absent => return None,
        })
    }
}

/// A number as text: whole ones without a fraction, so that `3` and `3.0` are the same.
pub fn text_of_number(number: f64) -> String {
    // Up to 2^53 every whole number is a float.
    if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
        return (number as i64).to_string();
    }
    serde_json::Number::from_f64(number).map_or_else(String::new, |number| number.to_string())
}

pub fn text_of_flag(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}
