//! From SQL to an expression tree, within bounds of length, nesting and depth.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, SchemaError};
use datafusion_expr::Expr;
use datafusion_sql::parser::DFParser;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as Tree;

use super::functions::FUNCTIONS;

/// The longest expression accepted, in bytes; a feature is not a program.
const MAX_SQL_BYTES: usize = 8 * 1024;

/// The deepest tree of an expression. Evaluating goes down the tree on a request's thread, and a
/// chain like `a + a + a` is as deep as it is long.
const MAX_DEPTH: usize = 100;

/// The most brackets and cases inside each other. The parser tries some of them (`not (`, `cast(`,
/// `case when … then`) in two ways, one after the other, and what is inside each time again: a
/// mistake behind twelve of them is found in milliseconds, behind thirty in hours.
const MAX_NESTED: usize = 12;

/// Stack for reading an expression before its depth is known. Whatever [`MAX_SQL_BYTES`] can nest
/// fits, also in a debug build; pages that are not touched take no memory.
const COMPILE_STACK_BYTES: usize = 512 * 1024 * 1024;

/// The parser bounds nesting, but reads chains of operators and casts in a loop, and everything
/// behind it goes down the tree by recursion. A tree that is too deep is refused, which itself
/// takes the stack to build, measure and drop it.
pub fn on_deep_stack<T: Send>(
    compile: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
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
pub fn read_tree<T: Send>(
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
pub fn parse(sql: &str, schema: &SchemaRef) -> Result<Expr, String> {
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

/// What is wrong with an expression, in the words of a view file.
pub fn explain(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SchemaError(missing, _) => match missing.as_ref() {
            SchemaError::FieldNotFound { field, .. } => format!("no feature {}", field.name),
            _ => first_line(error),
        },
        _ => first_line(error),
    }
}

pub fn first_line(error: &DataFusionError) -> String {
    let message = error.strip_backtrace();
    message.lines().next().unwrap_or_default().to_owned()
}
