use super::*;
use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
use std::sync::Arc;

#[test]
fn missing_values_are_what_a_graph_would_be_given() {
    let mut texts = Values::Text(Vec::new());
    let column: ArrayRef = Arc::new(StringArray::from(vec![Some("A"), None]));
    assert_eq!(append(&mut texts, &column), 1);
    assert_eq!(texts, Values::Text(vec!["A".to_owned(), String::new()]));

    let mut numbers = Values::Number(Vec::new());
    let columns: [ArrayRef; 3] = [
        Arc::new(Float64Array::from(vec![Some(0.5), None, Some(f64::NAN)])),
        Arc::new(Int64Array::from(vec![Some(3), None])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false)])),
    ];
    for column in &columns {
        append(&mut numbers, column);
    }
    let expected = [Some(0.5), None, None, Some(3.0), None, Some(1.0), Some(0.0)];
    assert_eq!(numbers, Values::Number(expected.to_vec()));
}

#[test]
fn whole_numbers_stay_whole_as_long_as_none_is_missing_or_large() {
    let mut values = Values::Integer(vec![1]);
    let column: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    append(&mut values, &column);
    assert_eq!(values, Values::Integer(vec![1, 2]));
    assert_eq!(exact(values.clone()), values);
    let column: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(4)]));
    append(&mut values, &column);
    let expected = [Some(1.0), Some(2.0), None, Some(4.0)];
    assert_eq!(values, Values::Number(expected.to_vec()));
    let large = Values::Integer(vec![1, 1_700_000_000]);
    assert_eq!(exact(large), Values::Number(vec![Some(1.0), Some(1.7e9)]));
}

#[test]
fn features_named_like_values_of_the_graph_get_another_input() {
    let feature = |name: &str| format!("[[feature]]\nname = \"{name}\"\ntype = \"float64\"\n");
    let names = ["tenure", "weights", "input_weights_", "tenure_float"];
    let features = names.map(feature).join("");
    let text = format!("[view]\nname = \"v\"\nentity = \"id\"\n{features}");
    let view = View::parse(&text).unwrap();
    assert_eq!(input_name("tenure", &view), "tenure");
    assert_eq!(input_name("input_weights_", &view), "input_weights_");
    assert_eq!(input_name("weights", &view), "input_input_weights__");
    assert_eq!(input_name("tenure_float", &view), "input_tenure_float_");
}
