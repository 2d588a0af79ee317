//! Fuzz targets for the SQL expressions of feature views and manifests.
//!
//! Promises: compiling any text ends soon and without a panic, with an expression or with a reason. What
//! compiles evaluates on any values without a panic, in as many rows as it was given and of the
//! type it was compiled for, and a row's result does not depend on the rows beside it.
//!
//! See `fuzz_files.rs` for how to run a target guided by coverage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bellwether::features::expression::Expression;
use bolero::TypeGenerator;
use bolero::generator::produce;
use common::TARGET_TIME;
use common::mutate::Mutation;

const TYPES: [DataType; 4] = [
    DataType::Float64,
    DataType::Int64,
    DataType::Utf8,
    DataType::Boolean,
];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("tenure", DataType::Int64, true),
        Field::new("charges", DataType::Float64, true),
        Field::new("contract", DataType::Utf8, true),
        Field::new("paperless", DataType::Boolean, true),
    ]))
}

/// Rows of what arithmetic and text functions trip over.
fn extreme_rows() -> RecordBatch {
    let tenure = vec![
        Some(0),
        Some(i64::MIN),
        Some(i64::MAX),
        None,
        Some(-1),
        Some(65),
    ];
    let charges = vec![
        Some(0.0),
        Some(f64::MAX),
        Some(-1e-300),
        None,
        Some(f64::NAN),
        Some(f64::INFINITY),
    ];
    let long = "x".repeat(300);
    let contract = vec![
        Some(""),
        Some("Ünï\u{301}\u{1F980}"),
        Some("%_\\'"),
        None,
        Some(&long),
        Some("12"),
    ];
    let paperless = vec![Some(true), Some(false), None, Some(true), None, Some(false)];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(tenure)),
        Arc::new(Float64Array::from(charges)),
        Arc::new(StringArray::from(contract)),
        Arc::new(BooleanArray::from(paperless)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Compiling takes milliseconds; a busy machine is given time, and one that would never end is not.
const LONGEST_COMPILE: Duration = Duration::from_secs(10);

/// Compiles `sql` for every type and evaluates what compiles.
fn compile_and_evaluate(sql: &str, rows: &RecordBatch) {
    for data_type in &TYPES {
        let started = Instant::now();
        let compiled = Expression::compile(sql, &rows.schema(), data_type);
        assert!(
            started.elapsed() < LONGEST_COMPILE,
            "{:?}: {sql}",
            started.elapsed()
        );
        let expression = match compiled {
            Ok(expression) => expression,
            Err(reason) => {
                assert!(!reason.is_empty(), "{sql}");
                continue;
            }
        };
        let whole = expression.evaluate(rows);
        assert_eq!(whole.len(), rows.num_rows(), "{sql}");
        assert_eq!(whole.data_type(), data_type, "{sql}");
        for row in 0..rows.num_rows() {
            let alone = expression.evaluate(&rows.slice(row, 1));
            assert_eq!(
                alone.to_data(),
                whole.slice(row, 1).to_data(),
                "{sql}, row {row}"
            );
        }
        if data_type == &DataType::Boolean {
            assert_eq!(expression.holds(rows).null_count(), 0, "{sql}");
        }
    }
}

/// An expression that is grammatical: the bytes choose among the forms SQL has.
#[derive(Debug, Clone, TypeGenerator)]
struct Grammatical {
    #[generator(produce::<Vec<u8>>().with().len(1usize..=24))]
    choices: Vec<u8>,
}

impl Grammatical {
    fn sql(&self) -> String {
        let functions = function_names();
        let mut choices = self.choices.iter().copied();
        write_expression(&mut choices, &functions, 5)
    }
}

/// The functions that expressions may call, sorted so that a choice means the same every time.
fn function_names() -> Vec<String> {
    let functions = datafusion_functions::all_default_functions();
    let mut names: Vec<String> = functions.iter().map(|f| f.name().to_owned()).collect();
    names.sort();
    names
}

fn write_expression(
    choices: &mut impl Iterator<Item = u8>,
    functions: &[String],
    depth: usize,
) -> String {
    let Some(form) = choices.next() else {
        return "tenure".to_owned();
    };
    let choice = choices.next().unwrap_or_default();
    let pick = |words: &[&str]| words[usize::from(choice) % words.len()].to_owned();
    if depth == 0 || form % 8 == 0 {
        return pick(&["tenure", "charges", "contract", "paperless"]);
    }
    let mut part = || write_expression(choices, functions, depth - 1);
    match form % 8 {
        1 => pick(&[
            "0",
            "1",
            "-1",
            "1.5",
            "1e308",
            "9223372036854775807",
            "-9223372036854775808",
            "null",
            "true",
            "''",
            "'Yes'",
            "'2026-01-31'",
            "'\u{1F980}'",
            "3",
            "64",
        ]),
        2 => {
            let operator = pick(&[
                "+",
                "-",
                "*",
                "/",
                "%",
                "=",
                "<>",
                "<",
                ">=",
                "and",
                "or",
                "||",
                "&",
                "|",
                "#",
                "<<",
                ">>",
                "like",
                "ilike",
                "~",
                "is distinct from",
            ]);
            format!("({} {operator} {})", part(), part())
        }
        3 => {
            let name = &functions[usize::from(choice) % functions.len()];
            // From none to three arguments, by the upper bits that the name left over.
            let arguments: Vec<String> = (0..(form >> 3) % 4).map(|_| part()).collect();
            format!("{name}({})", arguments.join(", "))
        }
        4 => format!("case when {} then {} else {} end", part(), part(), part()),
        5 => {
            let name = pick(&[
                "int",
                "bigint",
                "double",
                "varchar",
                "boolean",
                "date",
                "timestamp",
                "tinyint",
                "decimal(38, 10)",
                "interval",
                "bytea",
                "time",
            ]);
            format!("cast({} as {name})", part())
        }
        6 => {
            let check = pick(&[
                "is null",
                "is not null",
                "is true",
                "is not false",
                "is unknown",
            ]);
            format!("({} {check})", part())
        }
        _ => match choice % 4 {
            0 => format!("({} in ({}, {}))", part(), part(), part()),
            1 => format!("({} between {} and {})", part(), part(), part()),
            2 => format!("(not {})", part()),
            _ => format!("(- {})", part()),
        },
    }
}

#[test]
fn any_grammatical_expression_compiles_or_is_refused() {
    let rows = AssertUnwindSafe(extreme_rows());
    bolero::check!()
        .with_type::<Grammatical>()
        .with_iterations(3000)
        .with_test_time(TARGET_TIME)
        .for_each(|expression: &Grammatical| compile_and_evaluate(&expression.sql(), &rows));
}

#[test]
fn any_text_compiles_or_is_refused() {
    let seeds: Vec<Vec<u8>> = [
        "charges / greatest(tenure, 1)",
        "case when contract = 'Two year' then 1 else 0 end + case when paperless then 1 else 0 end",
        "coalesce(round(ln(charges + 1) * 100) / 100, 0.0)",
        "substr(upper(trim(contract)), 1, 3) || '-' || cast(tenure as varchar)",
        "tenure between 3 and 12 and not (contract in ('a', 'b') or paperless is null)",
        "extract(year from cast('2026-01-31' as date))",
    ]
    .iter()
    .map(|sql| sql.as_bytes().to_vec())
    .collect();
    let words = [
        "tenure",
        "charges",
        "contract",
        "paperless",
        "(",
        ")",
        ",",
        "'",
        "\"",
        "null",
        "::",
        "--",
        "/*",
        "*/",
        "$1",
        "?",
        "select",
        "from",
        "[1]",
        "{",
        ";",
        " over ()",
        "interval '1 day'",
        "struct(1)",
        "@",
        "1e400",
        "\u{0}",
        "\u{1F980}",
        "exists",
        "array[",
        "current_date",
        "x'ff'",
    ];
    let rows = AssertUnwindSafe(extreme_rows());
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(3000)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            compile_and_evaluate(&mutation.apply_text(&seeds, &words), &rows);
        });
}

#[test]
fn an_expression_as_long_as_allowed_is_no_deeper_than_the_stack() {
    // Given chains that the parser reads in a loop, so that its own bound on nesting says nothing
    let chains = [
        ("tenure", " + tenure"),
        ("paperless", " or paperless"),
        ("tenure", "::bigint"),
        ("paperless", " is true"),
        ("contract", " || contract"),
        ("", "not "),
        ("", "- "),
        ("", "("),
    ];
    let rows = extreme_rows();
    for (start, link) in chains {
        for length in [8 * 1024, 3000, 1000] {
            let mut sql = start.to_owned();
            while sql.len() + link.len() + 6 <= length {
                sql.push_str(link);
            }
            if start.is_empty() {
                sql.push_str("tenure");
            }
            // When it is compiled, and evaluated if it compiles, then the stack holds
            compile_and_evaluate(&sql, &rows);
        }
    }
}

#[test]
fn nesting_that_is_never_closed_is_refused_soon() {
    let rows = extreme_rows();
    for (open, close) in [
        ("not (", ")"),
        ("(", ")"),
        ("cast(", " as int)"),
        ("array[", "]"),
        ("case when paperless then + ", " end"),
        ("CASE WHEN paperless THEN(", ") END"),
        ("not (tenure between 3 and 12 and ", ")"),
    ] {
        for times in [8, 12, 13, 20, 200] {
            let unclosed = open.repeat(times) + "tenure";
            compile_and_evaluate(&unclosed, &rows);
            compile_and_evaluate(&(unclosed + &close.repeat(times)), &rows);
        }
    }
}

#[test]
fn text_of_any_length_cannot_be_asked_for() {
    for sql in [
        "repeat(contract, 2000000000)",
        "repeat('x', tenure)",
        "lpad(contract, tenure)",
        "rpad('x', 2000000000, 'y')",
    ] {
        let reason = Expression::compile(sql, &schema(), &DataType::Utf8).unwrap_err();
        assert!(reason.contains("length"), "{sql}: {reason}");
    }
    assert!(Expression::compile("lpad(contract, 12, '0')", &schema(), &DataType::Utf8).is_ok());
}
