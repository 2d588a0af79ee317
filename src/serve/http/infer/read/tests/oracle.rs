//! What a general JSON reader finds in a request, and what is found here, in the same words.

use onnx_ml::{Data, Tensor};
use serde_json::Value;

use crate::infer::inputs;
use crate::models::tensors;
use crate::serve::http::infer::read::{Given, InferBody, Payload};

/// Whether a text is a request by the general reader and the description.
///
/// The general reader is also content with texts that are not JSON in fields that it passes over,
/// and with an array of values in place of an object's fields. The protocol has neither.
pub fn is_request(text: &[u8]) -> bool {
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
pub fn expected(body: &Value) -> String {
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

pub fn found(given: &Given<'_>) -> String {
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
