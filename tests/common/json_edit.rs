//! Edits of JSON values, drawn by bolero's generator: what remains is always JSON, so that the
//! checks behind the parser are reached.

use bolero::TypeGenerator;
use serde_json::{Map, Value, json};

/// One edit of the node that `node` chooses, in the order of the text.
#[derive(Debug, Clone, TypeGenerator)]
pub struct JsonEdit {
    node: u16,
    change: Change,
}

#[derive(Debug, Clone, TypeGenerator)]
enum Change {
    /// Puts a value in its place that is often forgotten.
    Replace(u8),
    /// Takes a member or an element out.
    Remove,
    /// Gives a member another name.
    Rename(u8),
    /// Adds a member or an element.
    Add(u8),
    /// Puts arrays around it.
    Wrap(u8),
    /// Writes the elements of an array, or the text, several times.
    Repeat(u8),
    /// Swaps it for another node of the same document.
    CopyFrom(u16),
}

/// Makes the edit; a change that the chosen node does not allow changes nothing.
pub fn apply(document: &mut Value, edit: &JsonEdit) {
    let mut pointers = Vec::new();
    collect_pointers(document, String::new(), &mut pointers);
    let pointer = &pointers[usize::from(edit.node) % pointers.len()];
    match edit.change {
        Change::Remove => {
            take_from_parent(document, pointer);
        }
        Change::Rename(name) => {
            if let Some((parent, value)) = take_from_parent(document, pointer)
                && let Some(Value::Object(members)) = document.pointer_mut(&parent)
            {
                members.insert(hostile_name(name), value);
            }
        }
        Change::CopyFrom(other) => {
            let source = &pointers[usize::from(other) % pointers.len()];
            let copy = document.pointer(source).cloned().unwrap_or_default();
            replace(document, pointer, |_| copy);
        }
        Change::Replace(index) => replace(document, pointer, |_| hostile_value(index)),
        Change::Wrap(depth) => replace(document, pointer, |value| {
            (0..=depth).fold(value, |inner, _| Value::Array(vec![inner]))
        }),
        Change::Add(index) => replace(document, pointer, |mut value| {
            match &mut value {
                Value::Object(members) => {
                    members.insert(hostile_name(index), hostile_value(index));
                }
                Value::Array(elements) => elements.push(hostile_value(index)),
                _ => {}
            }
            value
        }),
        Change::Repeat(times) => replace(document, pointer, |value| match value {
            Value::Array(elements) => {
                let length = elements.len() * usize::from(times);
                Value::Array(elements.into_iter().cycle().take(length).collect())
            }
            Value::String(text) => Value::String(text.repeat(usize::from(times))),
            other => other,
        }),
    }
}

fn replace(document: &mut Value, pointer: &str, change: impl FnOnce(Value) -> Value) {
    if let Some(node) = document.pointer_mut(pointer) {
        *node = change(node.take());
    }
}

/// Takes a node out and returns the pointer of its parent with it.
fn take_from_parent(document: &mut Value, pointer: &str) -> Option<(String, Value)> {
    let (parent, key) = pointer.rsplit_once('/')?;
    let value = match document.pointer_mut(parent)? {
        Value::Object(members) => members.remove(&key.replace("~1", "/").replace("~0", "~"))?,
        Value::Array(elements) => {
            let index: usize = key.parse().ok()?;
            (index < elements.len()).then(|| elements.remove(index))?
        }
        _ => return None,
    };
    Some((parent.to_owned(), value))
}

fn collect_pointers(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect_pointers(member, format!("{at}/{name}"), pointers);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect_pointers(element, format!("{at}/{index}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(at);
}

fn hostile_value(index: u8) -> Value {
    match index % 32 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(1.5),
        5 => json!(-0.0),
        6 => json!(1e308),
        7 => json!(5e-324),
        8 => json!(i64::MIN),
        9 => json!(i64::MAX),
        10 => json!(u64::MAX),
        11 => json!(4_294_967_296_u64),
        12 => json!(""),
        13 => json!("\u{0}"),
        14 => json!("\u{feff}Ünï\u{301}\u{1F980}"),
        15 => json!("NaN"),
        16 => json!("-9223372036854775809"),
        17 => json!("x".repeat(257)),
        18 => json!("\u{1F980}".repeat(20_000)),
        19 => json!([]),
        20 => json!({}),
        21 => json!([null, [[]], {"": null}]),
        22 => json!(vec![0; 5_000]),
        23 => json!(vec!["churn"; 65]),
        24 => json!("churn"),
        25 => json!("9999-12-31T23:59:59.999999999Z"),
        26 => json!("-262144-01-01T00:00:00+23:59"),
        27 => json!("00000000-0000-0000-0000-000000000000"),
        28 => json!("INT64"),
        29 => json!(3.0),
        30 => json!(100_001),
        _ => {
            let many = (0..300).map(|number| (format!("feature_{number}"), json!(number)));
            Value::Object(many.collect::<Map<String, Value>>())
        }
    }
}

fn hostile_name(index: u8) -> String {
    match index % 11 {
        0 => String::new(),
        1 => "customer_id".to_owned(),
        2 => "tenure".to_owned(),
        3 => "charge_per_month".to_owned(),
        4 => "tenur".to_owned(),
        5 => "\u{0}".to_owned(),
        6 => "f".repeat(10_000),
        7 => "features".to_owned(),
        9 => "context".to_owned(),
        8 => "parameters".to_owned(),
        _ => "\u{1F980}".repeat(100),
    }
}
