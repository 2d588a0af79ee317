//! What [`super::read`] promises, held against a general JSON reader: it takes the same texts, finds
//! the same values to the last bit, and names the field of what it refuses.

use onnx_ml::{Data, Tensor};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use serde_json::Value;

use super::read::{Given, InferBody, Payload, read, timeout_us};
use crate::infer::inputs;
use crate::models::tensors;

/// Whether a text is a request by the general reader and the description.
///
/// The general reader is also content with texts that are not JSON in fields that it passes over,
/// and with an array of values in place of an object's fields. The protocol has neither.
fn is_request(text: &[u8]) -> bool {
    let described = serde_json::from_slice::<InferBody>(text).is_ok();
    described && serde_json::from_slice::<Value>(text).is_ok_and(|body| has_objects(&body))
}

/// Where objects belong, there are objects; what is left out is none of this function's business.
fn has_objects(body: &Value) -> bool {
    let has_parameters =
        |of: &Value| of.is_object() && (of["parameters"].is_null() || of["parameters"].is_object());
    let items = |name: &str| body[name].as_array().into_iter().flatten();
    has_parameters(body) && items("inputs").chain(items("outputs")).all(has_parameters)
}

/// How [`Given`] looks for the value that the general reader made of the same text.
fn expected(body: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let items = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let inputs = items("inputs").iter().map(expected_input).collect();
    let outputs = items("outputs").into_iter().map(|output| {
        let parameters = &output["parameters"];
        let unsupported = ["classification", "shared_memory_region"];
        let is_asked_for = unsupported.iter().any(|name| !parameters[name].is_null());
        let binary_data = parameters["binary_data"].as_bool();
        format!("{:?} {binary_data:?} {is_asked_for}", text(&output["name"]))
    });
    let parameters = &body["parameters"];
    format!(
        "{:?} {} {:?} {:?} {:?} {:?}",
        text(&body["id"]),
        parameters["binary_data_output"].as_bool().unwrap_or(false),
        parameters["timeout"].as_u64(),
        text(&parameters["content_type"]),
        Vec::from_iter::<Vec<String>>(inputs),
        Vec::from_iter(outputs),
    )
}

fn expected_input(input: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let dims = input["shape"].as_array().into_iter().flatten();
    let shape: Vec<u64> = dims.filter_map(Value::as_u64).collect();
    let datatype = text(&input["datatype"]);
    let (size, data) = (&input["parameters"]["binary_data_size"], &input["data"]);
    let payload = match (size, data) {
        (Value::Null, Value::Null) => "missing".to_owned(),
        (Value::Null, data) => {
            let elements = expected_elements(datatype.as_deref(), data, shape.len().max(1));
            format!(
                "elements {}",
                elements.map_or("wrong".to_owned(), |data| bits(&data))
            )
        }
        (size, data) => format!("bytes {size} {}", !data.is_null()),
    };
    format!(
        "{:?} {datatype:?} {shape:?} {:?} {payload}",
        text(&input["name"]),
        text(&input["parameters"]["content_type"]),
    )
}

/// The elements of `data`; `None` when they are not of the type or nested deeper than `most`.
fn expected_elements(datatype: Option<&str>, data: &Value, most: usize) -> Option<Data> {
    let mut elements = Vec::new();
    if collect(data, &mut elements) > most {
        return None;
    }
    let data_type = inputs::data_type(datatype?)?;
    let tensor = tensors::from_json(data_type, &[elements.len()], &elements);
    tensor.ok().map(Tensor::into_data)
}

/// Collects the elements of nested arrays; returns how deep they are nested.
fn collect<'a>(data: &'a Value, elements: &mut Vec<&'a Value>) -> usize {
    let Value::Array(items) = data else {
        elements.push(data);
        return 0;
    };
    let depths = items.iter().map(|item| collect(item, elements));
    1 + depths.max().unwrap_or(0)
}

fn found(given: &Given<'_>) -> String {
    let inputs = given.inputs.iter().map(|input| {
        let payload = match &input.payload {
            Payload::Missing => "missing".to_owned(),
            Payload::Elements(Ok(data)) => format!("elements {}", bits(data)),
            Payload::Elements(Err(problem)) => {
                assert!(problem.starts_with("data: "), "{problem}");
                "elements wrong".to_owned()
            }
            Payload::Bytes { size, and_data } => format!("bytes {size} {and_data}"),
        };
        format!(
            "{:?} {:?} {:?} {:?} {payload}",
            Some(&input.name),
            Some(&input.datatype),
            input.shape.to_vec(),
            input.content_type,
        )
    });
    let outputs = given.outputs.iter().map(|output| {
        let is_asked_for = output.unsupported.is_some();
        format!(
            "{:?} {:?} {is_asked_for}",
            Some(&output.name),
            output.binary_data
        )
    });
    format!(
        "{:?} {} {:?} {:?} {:?} {:?}",
        given.id,
        given.binary_data_output,
        given.timeout_us,
        given.content_type,
        Vec::from_iter(inputs),
        Vec::from_iter(outputs),
    )
}

/// Elements with floats as their bits.
fn bits(data: &Data) -> String {
    match data {
        Data::F16(values) => format!("{:x?}", Vec::from_iter(values.iter().map(|v| v.to_bits()))),
        Data::F32(values) => format!("{:x?}", Vec::from_iter(values.iter().map(|v| v.to_bits()))),
        Data::F64(values) => format!("{:x?}", Vec::from_iter(values.iter().map(|v| v.to_bits()))),
        data => format!("{data:?}"),
    }
}

/// Holds one text against the general reader.
fn check(text: &[u8]) -> Result<(), TestCaseError> {
    let shown = String::from_utf8_lossy(text);
    match read(text) {
        Ok(given) => {
            prop_assert!(is_request(text), "taken here only: {shown}");
            let body: Value = serde_json::from_slice(text).unwrap();
            prop_assert_eq!(found(&given), expected(&body), "{}", shown);
            prop_assert_eq!(timeout_us(text), given.timeout_us);
        }
        Err(error) => {
            prop_assert!(!is_request(text), "refused here only: {shown}: {error}");
            let message = error.to_string();
            let (field, problem) = message.split_once(": ").unwrap_or_default();
            prop_assert!(!field.is_empty() && !problem.is_empty(), "{message}");
            prop_assert!(message.len() < 1000, "{message}");
        }
    }
    Ok(())
}

/// A number as somebody might write it, within the protocol or not.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => r"-?(0|[1-9][0-9]{0,21})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?",
        1 => r"-?[0-9]{1,3}(\.0)?(e[0-3])?",
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => any::<f32>().prop_map(|number| serde_json::to_string(&number).unwrap()),
        1 => any::<f64>().prop_map(|number| serde_json::to_string(&number).unwrap()),
    ]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\u00e4\ud83d\ude00\/\b\f""#.to_owned()),
    ]
}

/// Elements of one kind, flat or nested, with at times one of another kind among them.
fn data() -> impl Strategy<Value = String> {
    let odd = || {
        select(vec![
            "null", "true", "-0", "1e17", "1e18", "1e400", "{}", "3.0", "\"x\"",
        ])
    };
    let kinds = prop_oneof![
        4 => prop::collection::vec(number(), 0..6),
        // The form that has a way of its own through the reader, and what is just outside of it.
        4 => prop::collection::vec(r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,16})?", 0..12),
        1 => prop::collection::vec(string(), 0..6),
        1 => prop::collection::vec(select(vec!["true".to_owned(), "false".to_owned()]), 0..6),
    ];
    let elements = (kinds, prop::option::weighted(0.3, odd())).prop_map(|(mut elements, odd)| {
        elements.extend(odd.map(str::to_owned));
        elements
    });
    (elements, 0..4_usize, any::<Index>()).prop_map(|(elements, form, at)| {
        let (front, back) = elements.split_at(at.index(elements.len() + 1));
        match form {
            0 => front.first().cloned().unwrap_or_else(|| "null".to_owned()),
            1 => format!("[{},[{}]]", front.join(" ,"), back.join(",")),
            2 => format!("[[{}],[ {}\n]]", front.join(","), back.join(", ")),
            _ => format!("[{}]", elements.join(",")),
        }
    })
}

/// An object of members in any order, of which some may be missing.
fn object(members: Vec<(&'static str, BoxedStrategy<String>)>) -> BoxedStrategy<String> {
    let texts: Vec<_> = members
        .into_iter()
        .map(|(name, text)| text.prop_map(move |text| format!("\"{name}\": {text}")))
        .collect();
    let count = texts.len();
    texts
        .prop_flat_map(move |texts| {
            let kept = prop_oneof![
                12 => Just(texts.clone()),
                1 => subsequence(texts, 0..=count),
            ];
            kept.prop_shuffle()
        })
        .prop_map(|members| format!("{{{}}}", members.join(", ")))
        .boxed()
}

fn or_null(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    prop_oneof![6 => strategy, 1 => Just("null".to_owned())].boxed()
}

fn list(strategy: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let items = prop::collection::vec(strategy, 0..4);
    items
        .prop_map(|items| format!("[{}]", items.join(",")))
        .boxed()
}

fn request() -> BoxedStrategy<String> {
    let flag = || select(vec!["true".to_owned(), "false".to_owned()]);
    let types = [
        "FP16", "FP32", "FP64", "BYTES", "BOOL", "INT8", "INT64", "UINT8", "UINT64", "X",
    ];
    let datatype = select(types.to_vec()).prop_map(|name| format!("\"{name}\""));
    let dim = prop_oneof![6 => (0..4_u64).prop_map(|dim| dim.to_string()), 1 => number()];
    let input_parameters = object(vec![
        ("binary_data_size", or_null(prop_oneof![number(), string()])),
        ("content_type", or_null(string())),
        ("mine", data().boxed()),
    ]);
    let input = object(vec![
        ("name", string().boxed()),
        ("shape", list(dim)),
        ("datatype", datatype.boxed()),
        (
            "parameters",
            prop_oneof![1 => input_parameters, 6 => Just("{}".to_owned())].boxed(),
        ),
        ("data", or_null(data())),
    ]);
    let output = object(vec![
        ("name", string().boxed()),
        (
            "parameters",
            or_null(object(vec![
                ("binary_data", or_null(flag())),
                ("classification", or_null(number())),
                ("shared_memory_region", or_null(string())),
            ])),
        ),
    ]);
    let parameters = object(vec![
        ("binary_data_output", or_null(flag())),
        (
            "timeout",
            or_null(prop_oneof![3 => (0..9_u32).prop_map(|n| n.to_string()), 1 => number()]),
        ),
        ("content_type", or_null(string())),
    ]);
    object(vec![
        ("id", or_null(string())),
        ("parameters", or_null(parameters)),
        ("inputs", list(input)),
        ("outputs", or_null(list(output))),
        ("note", data().boxed()),
    ])
}

/// Texts that mean something, to be put where they do not belong.
const WORDS: &[&str] = &[
    "null",
    "true",
    "-",
    "-0",
    "01",
    "1.",
    "1e999",
    "NaN",
    "{",
    "}",
    "[",
    "]",
    "[]",
    "{}",
    "\"",
    ",",
    ":",
    " ",
    "\\u0000",
    "\\ud800",
    "\\",
    "\u{feff}",
    "\u{1}",
    "\"name\":",
    "\"data\":[",
    "\"shape\":[",
    "\"inputs\":[],",
    "[[[[[[[[[[[[[[[[[[[[",
    "18446744073709551616",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn requests_are_read_as_a_general_reader_reads_them(text in request()) {
        check(text.as_bytes())?;
    }

    #[test]
    fn changed_requests_are_requests_here_when_they_are_elsewhere(
        text in request(),
        edits in prop::collection::vec(
            (any::<Index>(), 0..3_usize, prop::option::of(select(WORDS.to_vec())), any::<u8>()),
            1..4,
        ),
    ) {
        let mut text = text.into_bytes();
        for (at, removed, word, byte) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            let put = word.map_or(vec![byte], |word| word.as_bytes().to_vec());
            text.splice(start..end, put);
        }
        check(&text)?;
    }

    #[test]
    fn anything_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&text)?;
    }
}

#[test]
fn what_is_refused_is_refused_by_the_name_of_its_field() {
    let tensor = r#""name":"x","shape":[1],"datatype":"FP32""#;
    for (text, field) in [
        ("", "body: "),
        ("[]", "body: "),
        ("{}", "body: missing field `inputs`"),
        (r#"{"inputs":[]} x"#, "body: trailing characters"),
        (
            r#"{"inputs":[],"inputs":[]}"#,
            "body: duplicate field `inputs`",
        ),
        (r#"{"inputs":{}}"#, "inputs: "),
        (r#"{"inputs":[],"id":7}"#, "id: "),
        (
            r#"{"inputs":[],"parameters":{"timeout":-0}}"#,
            "parameters.timeout: ",
        ),
        (
            r#"{"inputs":[],"parameters":{"timeout":1.5}}"#,
            "parameters.timeout: ",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1,-2],"datatype":"FP32"}]}"#,
            "inputs[0].shape[1]: ",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1]}]}"#,
            "inputs[0]: missing field `datatype`",
        ),
        (
            r#"{"inputs":[],"outputs":[{"name":"y"},{}]}"#,
            "outputs[1]: missing field `name`",
        ),
        // What only the general reader takes: arrays for objects, and anything in other fields.
        (
            r#"{"inputs":[["x",[1],"FP32"]]}"#,
            "inputs: expected an object",
        ),
        (
            r#"{"inputs":[],"parameters":[]}"#,
            "parameters: expected an object",
        ),
        (
            r#"{"inputs":[],"note":[1e400]}"#,
            "note[0]: number out of range",
        ),
        (r#"{"inputs":[],"note":"\ud800"}"#, "note: "),
        (
            &format!(r#"{{"inputs":[{{{tensor},"data":[1e400]}}]}}"#),
            "inputs[0].data",
        ),
        (
            &format!(r#"{{"inputs":[{{{tensor},"parameters":[]}}]}}"#),
            "inputs[0].parameters: ",
        ),
    ] {
        let message = read(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with(field), "{text}: {message}");
    }
}

#[test]
fn deep_nesting_is_refused_and_costs_no_stack() {
    for depth in [100, 1000, 1_000_000] {
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        for text in [
            format!(r#"{{"inputs":[],"note":{nested}}}"#),
            format!(
                r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{nested}}}]}}"#
            ),
            format!(
                r#"{{"inputs":[{{"data":{nested},"name":"x","shape":[1],"datatype":"FP32"}}]}}"#
            ),
            nested,
        ] {
            match read(text.as_bytes()) {
                // Found out when it is bound to the model.
                Ok(given) => {
                    assert!(depth == 100);
                    let wrong = |payload: &Payload| !matches!(payload, Payload::Elements(Ok(_)));
                    assert!(given.inputs.iter().all(|input| wrong(&input.payload)));
                }
                Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
            }
        }
    }
}
