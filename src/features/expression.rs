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

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{
    DFSchema, DataFusionError, ScalarValue, SchemaError, TableReference, plan_err,
};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, Operator, ScalarUDF, TableSource,
    Volatility, WindowUDF, cast,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions::{BinaryExpr, NegativeExpr, lit};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParser;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as Tree;

/// The longest expression accepted, in bytes; a feature is not a program.
const MAX_SQL_BYTES: usize = 8 * 1024;

/// The deepest tree of an expression. Evaluating goes down the tree on a request's thread, and a
/// chain like `a + a + a` is as deep as it is long.
const MAX_DEPTH: usize = 100;

/// The most brackets and cases inside each other. The parser tries some of them (`not (`, `cast(`,
/// `case when … then`) in two ways, one after the other, and what is inside each time again: a
/// mistake behind twelve of them is found in milliseconds, behind thirty in hours.
const MAX_NESTED: usize = 12;

/// The longest text that `lpad` and `rpad` may make, in characters.
const MAX_PADDED_CHARS: i64 = 1000;

/// Stack for reading an expression before its depth is known. Whatever [`MAX_SQL_BYTES`] can nest
/// fits, also in a debug build; pages that are not touched take no memory.
const COMPILE_STACK_BYTES: usize = 512 * 1024 * 1024;

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
/// The parser bounds nesting, but reads chains of operators and casts in a loop, and everything
/// behind it goes down the tree by recursion. A tree that is too deep is refused, which itself
/// takes the stack to build, measure and drop it.
fn on_deep_stack<T: Send>(compile: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new()
            .name("compile-sql".to_owned())
            .stack_size(COMPILE_STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, compile)
            .map_err(|error| format!("cannot be compiled: no thread: {error}"))?;
        thread
            .join()
            .unwrap_or_else(|_| Err("makes the SQL compiler fail; write it differently".to_owned()))
    })
}

/// How many brackets and cases are open at most. Those in quotes are counted too: no honest text
/// is refused for them, and telling them apart would take a parser.
fn deepest_nesting(sql: &str) -> usize {
    let mut open: usize = 0;
    let mut most = 0;
    let mut word = String::new();
    // The space ends the last word.
    for character in sql.chars().chain([' ']) {
        if character.is_alphanumeric() || character == '_' {
            word.extend(character.to_lowercase());
            continue;
        }
        match word.as_str() {
            "case" => open += 1,
            "end" => open = open.saturating_sub(1),
            _ => {}
        }
        word.clear();
        most = most.max(open);
        match character {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Parses `sql` and hands its tree to `look`, which may go down it as deep as it likes.
///
/// # Errors
/// A phrase saying why it is no expression, or what `look` says.
pub(super) fn read_tree<T: Send>(
    sql: &str,
    look: impl FnOnce(&Tree) -> Result<T, String> + Send,
) -> Result<T, String> {
    refuse_too_long(sql)?;
    on_deep_stack(|| {
        let parsed = DFParser::parse_sql_into_expr(sql).map_err(|error| first_line(&error))?;
        if let Some(alias) = parsed.alias {
            return Err(format!("is followed by {alias}, which has no place there"));
        }
        look(&parsed.expr)
    })
}

/// Refuses a text that would take the parser too long.
fn refuse_too_long(sql: &str) -> Result<(), String> {
    if sql.len() > MAX_SQL_BYTES {
        return Err(format!(
            "is {} bytes long; at most {MAX_SQL_BYTES} are allowed",
            sql.len()
        ));
    }
    let nested = deepest_nesting(sql);
    if nested > MAX_NESTED {
        return Err(format!(
            "has {nested} brackets and cases inside each other; at most {MAX_NESTED} are allowed: \
             split it into several features"
        ));
    }
    Ok(())
}

/// Parses and refuses what is too long or too deep.
fn parse(sql: &str, schema: &SchemaRef) -> Result<Expr, String> {
    refuse_too_long(sql)?;
    let logical = plan(sql, schema).map_err(|error| explain(&error))?;
    let depth = depth_of(&logical);
    if depth > MAX_DEPTH {
        return Err(format!(
            "is nested {depth} deep, counting each operator of a chain; at most {MAX_DEPTH} are \
             allowed: use parentheses, or split it into several features"
        ));
    }
    Ok(logical)
}

fn plan(sql: &str, schema: &SchemaRef) -> Result<Expr, DataFusionError> {
    let parsed = DFParser::parse_sql_into_expr(sql)?;
    let df_schema = DFSchema::try_from(Arc::clone(schema))?;
    let planner = SqlToRel::new(&*FUNCTIONS);
    planner.sql_to_expr(parsed.expr, &df_schema, &mut PlannerContext::new())
}

/// The number of expressions on the longest way from the whole to a leaf.
fn depth_of(expr: &Expr) -> usize {
    let mut deepest = 0;
    // The visitor never fails, and so neither does the visit.
    let _ = expr.apply_children(|child| {
        deepest = deepest.max(depth_of(child));
        Ok(TreeNodeRecursion::Continue)
    });
    deepest + 1
}

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

fn refuse_what_is_no_feature(expr: &Expr) -> Result<(), String> {
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
fn refuse_constants_that_overflow(
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
fn fail_on_overflow(
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

/// What is wrong with an expression, in the words of a view file.
fn explain(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SchemaError(missing, _) => match missing.as_ref() {
            SchemaError::FieldNotFound { field, .. } => format!("no feature {}", field.name),
            _ => first_line(error),
        },
        _ => first_line(error),
    }
}

fn first_line(error: &DataFusionError) -> String {
    let message = error.strip_backtrace();
    message.lines().next().unwrap_or_default().to_owned()
}

/// What SQL may name besides the view's columns: DataFusion's scalar functions.
struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut scalar = HashMap::new();
    for function in datafusion_functions::all_default_functions() {
        for alias in function.aliases() {
            scalar.insert(alias.clone(), Arc::clone(&function));
        }
        scalar.insert(function.name().to_owned(), function);
    }
    Functions {
        scalar,
        planners: vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        ],
        options: ConfigOptions::default(),
    }
});

impl ContextProvider for Functions {
    fn get_table_source(
        &self,
        name: TableReference,
    ) -> Result<Arc<dyn TableSource>, DataFusionError> {
        plan_err!("a feature expression reads the features of its view, not the table {name}")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("tenure", DataType::Int64, true),
            Field::new("charges", DataType::Float64, true),
            Field::new("contract", DataType::Utf8, true),
        ]))
    }

    fn batch(tenure: Vec<Option<i64>>, charges: Vec<Option<f64>>) -> RecordBatch {
        let contract = StringArray::from(vec![Some("One year"); tenure.len()]);
        RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(Int64Array::from(tenure)),
                Arc::new(Float64Array::from(charges)),
                Arc::new(contract),
            ],
        )
        .unwrap()
    }

    fn floats(array: &ArrayRef) -> Vec<Option<f64>> {
        array.as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn mixed_number_types_are_coerced() {
        let sql = "charges / greatest(tenure, 1)";
        let expression = Expression::compile(sql, &schema(), &DataType::Float64).unwrap();
        let result =
            expression.evaluate(&batch(vec![Some(0), Some(4)], vec![Some(7.0), Some(8.0)]));
        assert_eq!(floats(&result), [Some(7.0), Some(2.0)]);
        assert_eq!(expression.columns(), ["charges", "tenure"]);
    }

    #[test]
    fn a_row_that_divides_by_zero_is_null_and_leaves_the_others_alone() {
        let expression = Expression::compile("10 / tenure", &schema(), &DataType::Int64).unwrap();
        let result = expression.evaluate(&batch(vec![Some(0), Some(5)], vec![None, None]));
        let integers: Vec<_> = result
            .as_primitive::<arrow::datatypes::Int64Type>()
            .iter()
            .collect();
        assert_eq!(integers, [None, Some(2)]);

        let expression =
            Expression::compile("charges / 0.0", &schema(), &DataType::Float64).unwrap();
        let result = expression.evaluate(&batch(vec![Some(0)], vec![Some(1.0)]));
        assert_eq!(floats(&result), [None]);
    }

    #[test]
    fn what_has_no_result_is_null_and_never_a_panic_or_a_wrong_number() {
        let tenure = [i64::MAX, i64::MIN, 0, 7];
        let rows = batch(tenure.map(Some).to_vec(), vec![Some(-1.0); 4]);
        for (sql, kind, expected) in [
            // Overflow of whole numbers
            ("tenure + 1", DataType::Int64, [false, true, true, true]),
            ("tenure - 1", DataType::Int64, [true, false, true, true]),
            ("tenure * 2", DataType::Int64, [false, false, true, true]),
            ("-tenure", DataType::Int64, [true, false, true, true]),
            ("tenure / -1", DataType::Int64, [true, false, true, true]),
            // Division by zero
            ("1 / tenure", DataType::Int64, [true, true, false, true]),
            ("1 % tenure", DataType::Int64, [true, true, false, true]),
            ("1.5 / tenure", DataType::Float64, [true, true, false, true]),
            // A cast that does not fit, of numbers and of text
            (
                "cast(tenure as int)",
                DataType::Int64,
                [false, false, true, true],
            ),
            ("cast(contract as bigint)", DataType::Int64, [false; 4]),
            (
                "cast(charges * 1e300 as bigint)",
                DataType::Int64,
                [false; 4],
            ),
            // Not a number, or infinite
            ("ln(charges)", DataType::Float64, [false; 4]),
            ("sqrt(charges)", DataType::Float64, [false; 4]),
            (
                "exp(tenure * 1.0)",
                DataType::Float64,
                [false, true, true, true],
            ),
        ] {
            let expression = Expression::compile(sql, &schema(), &kind).unwrap();
            let result = expression.evaluate(&rows);
            let found: Vec<bool> = (0..4).map(|row| result.is_valid(row)).collect();
            assert_eq!(found, expected, "{sql}: {result:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (sql, part) in [
            ("tenur * 2", "no feature tenur"),
            ("random()", "random"),
            ("tenure +", "Expected"),
            ("nosuch(tenure)", "nosuch"),
            (
                "charges + (9223372036854775807 + 1)",
                "part without features that overflows",
            ),
            ("contract", "expected Float64"),
            ("(select 1)", ""),
            ("count(tenure)", "count"),
        ] {
            let error = Expression::compile(sql, &schema(), &DataType::Float64).unwrap_err();
            assert!(error.contains(part), "{sql}: {error}");
        }
    }

    #[test]
    fn null_is_not_true() {
        let sql = "contract = 'One year' and tenure > 3";
        let expression = Expression::compile(sql, &schema(), &DataType::Boolean).unwrap();
        let flags = expression.holds(&batch(vec![Some(4), None, Some(1)], vec![None; 3]));
        assert_eq!(flags, BooleanArray::from(vec![true, false, false]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_row_alone_and_in_a_batch_give_the_same_bits(
            rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<f64>>()), 1..20),
            sql in prop::sample::select(vec![
                "charges / tenure",
                "tenure / (tenure - 1)",
                "tenure * tenure",
                "case when tenure > 3 then charges else ln(charges) end",
                "coalesce(charges, 0) + cast(tenure as int)",
            ]),
        ) {
            let (tenure, charges): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let together = batch(tenure, charges);
            for kind in [DataType::Float64, DataType::Int64] {
                let Ok(expression) = Expression::compile(sql, &schema(), &kind) else { continue };
                let whole = expression.evaluate(&together);
                for row in 0..together.num_rows() {
                    let alone = expression.evaluate(&together.slice(row, 1));
                    prop_assert_eq!(alone.to_data(), whole.slice(row, 1).to_data());
                }
            }
        }

        #[test]
        fn no_text_makes_the_compiler_panic(sql in "[a-z0-9()+*/'., <>=-]{0,60}") {
            let _ = Expression::compile(&sql, &schema(), &DataType::Float64);
        }
    }
}
