//! Requests as somebody might write them, within the protocol or not.

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

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

pub fn request() -> BoxedStrategy<String> {
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
pub const WORDS: &[&str] = &[
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
