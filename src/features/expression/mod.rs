//! SQL expressions over the features of a view.
//!
//! An expression is parsed once, when its file is loaded, and compiled to a DataFusion physical
//! expression over the view's schema. The same compiled tree evaluates one row online and many
//! rows in a batch.
//!
//! Promises: a row's result does not depend on the other rows it is evaluated with; a row on
//! which evaluation fails (integer division by zero, overflow, a cast that does not fit) yields
//! null, as does a result that is NaN or infinite; evaluation never panics on data.
//!
//! It does not allow what has no place in a feature: aggregates, subqueries, functions whose result
//! depends on anything but their arguments (`random()`, `now()`), text of any length (`repeat`),
//! and trees so deep that evaluating them would need more stack than a thread has.

mod check;
mod functions;
mod parse;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::DFSchema;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{ExprSchemable, cast};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use self::check::{fail_on_overflow, refuse_constants_that_overflow, refuse_what_is_no_feature};
pub use self::parse::read_tree;
use self::parse::{first_line, on_deep_stack, parse};

/// A compiled SQL expression over one view's schema.
#[derive(Clone, Debug)]
pub struct Expression {
    sql: String,
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    columns: Vec<String>,
}

impl Expression {
    /// Compiles `sql` over `schema`; the result has the type `expected`.
    ///
    /// A numeric result of another width is cast to `expected` when that loses nothing
    /// (integer to float); other differences are an error.
    ///
    /// # Errors
    /// A phrase saying what is wrong with the expression.
    pub fn compile(sql: &str, schema: &SchemaRef, expected: &DataType) -> Result<Self, String> {
        on_deep_stack(|| Self::compile_here(sql, schema, expected))
    }

    fn compile_here(sql: &str, schema: &SchemaRef, expected: &DataType) -> Result<Self, String> {
        let logical = parse(sql, schema)?;
        refuse_what_is_no_feature(&logical)?;
        let df_schema = DFSchema::try_from(Arc::clone(schema)).map_err(|e| first_line(&e))?;
        let mut columns: Vec<String> = logical
            .column_refs()
            .into_iter()
            .map(|column| column.name.clone())
            .collect();
        columns.sort_unstable();

        let df_schema = Arc::new(df_schema);
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&df_schema))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = simplifier
            .coerce(logical, &df_schema)
            .map_err(|e| first_line(&e))?;
        let found = coerced
            .get_type(df_schema.as_ref())
            .map_err(|e| first_line(&e))?;
        let typed = if &found == expected {
            coerced
        } else if converts_without_loss(&found, expected) {
            cast(coerced, expected.clone())
        } else {
            return Err(format!("has the type {found}, expected {expected}"));
        };
        refuse_constants_that_overflow(&typed, &df_schema, schema)?;
        let simplified = simplifier.simplify(typed).map_err(|e| first_line(&e))?;
        let physical = create_physical_expr(
            &simplified,
            &df_schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )
        .and_then(|physical| fail_on_overflow(physical, schema))
        .map_err(|error| first_line(&error))?;
        Ok(Expression {
            sql: sql.to_owned(),
            physical,
            data_type: expected.clone(),
            columns,
        })
    }

    /// The text it was compiled from.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The names of the columns it reads, sorted.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Evaluates the expression on every row of `batch`, which has the schema it was compiled
    /// over. The result has as many rows as the batch.
    pub fn evaluate(&self, batch: &RecordBatch) -> ArrayRef {
        let rows = batch.num_rows();
        let whole = self
            .physical
            .evaluate(batch)
            .and_then(|column| column.into_array(rows))
            .map(|array| null_where_not_finite(&array));
        match whole {
            Ok(array) => array,
            // One bad row must not decide about the others: halves are evaluated until it is alone.
            Err(_) if rows > 1 => {
                let half = rows / 2;
                let first = self.evaluate(&batch.slice(0, half));
                let second = self.evaluate(&batch.slice(half, rows - half));
                concat(&[&first, &second]).unwrap_or_else(|_| new_null_array(&self.data_type, rows))
            }
            Err(_) => new_null_array(&self.data_type, rows),
        }
    }

    /// Evaluates a boolean expression; null counts as false.
    pub fn holds(&self, batch: &RecordBatch) -> BooleanArray {
        let array = self.evaluate(batch);
        match array.as_boolean_opt() {
            Some(flags) => flags
                .iter()
                .map(|flag| Some(flag.unwrap_or(false)))
                .collect(),
            None => BooleanArray::from(vec![false; batch.num_rows()]),
        }
    }
}

/// Runs `compile` on a thread whose stack holds the deepest tree a text can describe.
///
fn converts_without_loss(from: &DataType, to: &DataType) -> bool {
    let text = matches!(from, DataType::Utf8View | DataType::LargeUtf8) && to == &DataType::Utf8;
    let number = match to {
        DataType::Float64 => from.is_numeric(),
        DataType::Int64 => matches!(
            from,
            DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::UInt8
                | DataType::UInt16
                | DataType::UInt32
        ),
        _ => false,
    };
    text || number || from == &DataType::Null
}

fn null_where_not_finite(array: &ArrayRef) -> ArrayRef {
    match array.as_primitive_opt::<Float64Type>() {
        Some(floats) if floats.iter().flatten().any(|float| !float.is_finite()) => Arc::new(
            floats
                .iter()
                .map(|f| f.filter(|f| f.is_finite()))
                .collect::<arrow::array::Float64Array>(),
        ),
        _ => Arc::clone(array),
    }
}

#[cfg(test)]
mod tests;
