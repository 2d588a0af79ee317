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
    let result = expression.evaluate(&batch(vec![Some(0), Some(4)], vec![Some(7.0), Some(8.0)]));
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

    let expression = Expression::compile("charges / 0.0", &schema(), &DataType::Float64).unwrap();
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
