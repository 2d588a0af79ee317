//! What has no place in a feature, and arithmetic that must not wrap around.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, Operator, Volatility};
use datafusion_physical_expr::expressions::{BinaryExpr, NegativeExpr, lit};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use super::parse::first_line;

/// The longest text that `lpad` and `rpad` may make, in characters.
const MAX_PADDED_CHARS: i64 = 1000;

/// Refuses aggregates, subqueries, and functions that depend on more than their arguments.
pub fn refuse_what_is_no_feature(expr: &Expr) -> Result<(), String> {
    let mut refused = None;
    let visited = expr.apply(|node| {
        let reason = match node {
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some(format!(
                    "calls {}(), whose result changes between calls",
                    call.func.name()
                ))
            }
            Expr::ScalarFunction(call) => refuse_long_text(call.func.name(), &call.args),
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                Some("is an aggregate; declare windows with `aggregate`".to_owned())
            }
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Some("holds a subquery".to_owned())
            }
            Expr::Placeholder(_) => Some("holds a placeholder".to_owned()),
            _ => None,
        };
        if reason.is_some() {
            refused = reason;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match (visited, refused) {
        (_, Some(reason)) => Err(reason),
        (Err(error), None) => Err(first_line(&error)),
        (Ok(_), None) => Ok(()),
    }
}

/// Functions whose result can be gigabytes of text from a few bytes.
fn refuse_long_text(function: &str, arguments: &[Expr]) -> Option<String> {
    match function {
        "repeat" => Some("calls repeat(), which can make text of any length".to_owned()),
        "lpad" | "rpad" => {
            let length = match arguments.get(1) {
                Some(Expr::Literal(ScalarValue::Int64(length), _)) => *length,
                _ => None,
            };
            let fits = length.is_some_and(|length| length <= MAX_PADDED_CHARS);
            (!fits).then(|| {
                format!("calls {function}(): its length must be a number up to {MAX_PADDED_CHARS}")
            })
        }
        _ => None,
    }
}

/// Parts that read no feature are computed once, when the expression is compiled, and would wrap around
/// there.
pub fn refuse_constants_that_overflow(
    expr: &Expr,
    df_schema: &DFSchema,
    schema: &SchemaRef,
) -> Result<(), String> {
    let nulls = schema.fields().iter();
    let nulls = nulls.map(|field| new_null_array(field.data_type(), 1));
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::clone(schema), nulls.collect(), &one_row)
        .map_err(|error| error.to_string())?;
    let overflows = |node: &Expr| {
        let context = PhysicalPlanningContext::default();
        let physical = create_physical_expr(node, df_schema, &ExecutionProps::new(), &context)?;
        fail_on_overflow(physical, schema)?.evaluate(&row)
    };
    let mut found = false;
    // The visitor never fails, and so neither does the visit.
    let _ = expr.apply(|node| {
        if matches!(node, Expr::Literal(..)) || !node.column_refs().is_empty() {
            return Ok(TreeNodeRecursion::Continue);
        }
        if let Err(error) = overflows(node)
            && let DataFusionError::ArrowError(error, _) = error.find_root()
        {
            found |= matches!(**error, ArrowError::ArithmeticOverflow(_));
        }
        Ok(TreeNodeRecursion::Jump)
    });
    match found {
        true => Err("has a part without features that overflows 64 bits".to_owned()),
        false => Ok(()),
    }
}

/// Integer arithmetic that overflows shall be an error of its row; by itself it wraps around.
pub fn fail_on_overflow(
    physical: Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let checked = |expression: BinaryExpr| -> Transformed<Arc<dyn PhysicalExpr>> {
        Transformed::yes(Arc::new(expression.with_fail_on_overflow(true)))
    };
    let transformed = physical.transform_up(|node| {
        if let Some(binary) = node.downcast_ref::<BinaryExpr>()
            && matches!(
                binary.op(),
                Operator::Plus | Operator::Minus | Operator::Multiply
            )
        {
            return Ok(checked(binary.clone()));
        }
        if let Some(negative) = node.downcast_ref::<NegativeExpr>() {
            let data_type = negative.arg().data_type(schema)?;
            if data_type.is_integer() {
                let zero = lit(ScalarValue::new_zero(&data_type)?);
                let difference = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
                return Ok(checked(difference));
            }
        }
        Ok(Transformed::no(node))
    })?;
    Ok(transformed.data)
}
