//! Content types: what MLServer's clients say of tensors besides their type.
//!
//! A request or an input may carry the parameter `content_type`:
//!
//! * `pd` – of a request: a data frame. Every input is a column, which [`super::columns`] binds;
//!   the answer is a data frame too, of columns `[N, 1]`.
//! * `np`, `str` – an array, UTF-8 text. Of a request: its one input is the model's one input,
//!   whatever its name.
//! * `pd_json` – of a column of texts: every text is JSON. So columns are sent that hold texts and
//!   missing values.
//!
//! These clients send one-dimensional arrays as `[N, 1]` and numbers in their own widest type;
//! shapes and types are taken to the graph's as [`super::cells`] says.

use std::borrow::Cow;

use onnx_ml::{Data, Labels, Shape, Tensor, TensorInfo};
use serde_json::Value as Json;

use super::cells::Values;
use super::columns::{self, Column};
use super::error::InferError;
use crate::features::value::shorten;
use crate::models::version::ModelVersion;

/// The `content_type` of a request that is a data frame, and of its answer.
pub const FRAME: &str = "pd";

/// An output of more columns stays one tensor in a data frame's answer.
const MAX_FRAME_COLUMNS: usize = 1000;

/// What a `content_type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `pd`
    Frame,
    /// `np`
    Array,
    /// `str`
    Text,
    /// `pd_json`
    JsonTexts,
}

impl ContentType {
    /// Of a request's parameters.
    ///
    /// # Errors
    /// Names what is understood.
    pub fn of_request(text: &str) -> Result<ContentType, InferError> {
        match text {
            FRAME => Ok(ContentType::Frame),
            "np" => Ok(ContentType::Array),
            "str" => Ok(ContentType::Text),
            _ => Err(refused("parameters", "pd, np or str", text)),
        }
    }

    /// Of the parameters of the input at `index`.
    ///
    /// # Errors
    /// Names what is understood.
    pub fn of_input(text: &str, index: usize) -> Result<ContentType, InferError> {
        match text {
            "np" => Ok(ContentType::Array),
            "str" => Ok(ContentType::Text),
            "pd_json" => Ok(ContentType::JsonTexts),
            _ => {
                let field = format!("inputs[{index}].parameters");
                Err(refused(&field, "np, str or pd_json", text))
            }
        }
    }
}

fn refused(field: &str, understood: &str, found: &str) -> InferError {
    let found = shorten(found, 40);
    let message = format!("{field}.content_type: expected {understood}, found {found:?}");
    InferError::invalid(message)
}

/// An input as it came.
#[derive(Debug)]
pub struct GivenInput<'a> {
    pub name: Cow<'a, str>,
    pub shape: Shape,
    /// As many elements as the shape stands for, of the type that the request names.
    pub data: Data,
    pub content_type: Option<Cow<'a, str>>,
}

/// The inputs of `model` in the order of the graph, from a request that names a content type for
/// itself or for one of its inputs.
///
/// # Errors
/// A content type that is not understood, and what does not fit the graph.
pub fn tensors(
    model: &ModelVersion,
    max_rows: usize,
    request: Option<&str>,
    given: Vec<GivenInput<'_>>,
) -> Result<Vec<Tensor>, InferError> {
    let request = request.map(ContentType::of_request).transpose()?;
    let mut columns = Vec::with_capacity(given.len());
    for (index, input) in given.into_iter().enumerate() {
        let content_type = input.content_type;
        let content_type = content_type.map(|text| ContentType::of_input(&text, index));
        let values = read_values(input.data, content_type.transpose()?)
            .map_err(|problem| InferError::invalid(format!("inputs[{index}].{problem}")))?;
        columns.push(Column {
            name: input.name.into_owned(),
            shape: input.shape,
            values,
        });
    }
    // Such a request is one array or one list of texts: its client makes up the name.
    if matches!(request, Some(ContentType::Array | ContentType::Text))
        && let ([column], [info]) = (columns.as_mut_slice(), model.graph.inputs())
    {
        column.name.clone_from(&info.name);
    }
    columns::bind(model, max_rows, columns)
}

fn read_values(data: Data, content_type: Option<ContentType>) -> Result<Values, String> {
    match (content_type, data) {
        (Some(ContentType::JsonTexts), Data::String(texts)) => {
            let parse = |(position, text): (usize, &onnx_ml::CompactString)| {
                serde_json::from_str::<Json>(text).map_err(|error| {
                    format!("data: element {position}: expected JSON (pd_json), found {error}")
                })
            };
            let values: Result<Vec<Json>, String> = texts.iter().enumerate().map(parse).collect();
            values.map(Values::Json)
        }
        (Some(content_type @ (ContentType::Text | ContentType::JsonTexts)), data)
            if !matches!(data, Data::String(_)) =>
        {
            let name = match content_type {
                ContentType::Text => "str",
                _ => "pd_json",
            };
            let found = crate::models::tensors::protocol_name(data.data_type());
            let problem = format!("datatype: expected BYTES (content_type {name}), found {found}");
            Err(problem)
        }
        (_, data) => Ok(Values::Typed(data)),
    }
}

/// A column of a data frame's answer.
#[derive(Debug)]
pub struct FrameColumn {
    pub name: String,
    pub tensor: Tensor,
    /// The parameter `content_type` of this output; `None` for numbers.
    pub content_type: Option<&'static str>,
}

/// Outputs as the columns of a data frame: `[N]` becomes `[N, 1]`, and a matrix one column for each
/// of its own, named by the class it stands for or by its number. What is no table stays as it is.
///
/// # Errors
/// None that a caller can cause.
pub fn frame<'a>(
    outputs: impl IntoIterator<Item = (&'a TensorInfo, Tensor)>,
) -> Result<Vec<FrameColumn>, InferError> {
    let mut columns = Vec::new();
    for (info, tensor) in outputs {
        match *tensor.shape() {
            [rows] => columns.push(frame_column(
                info.name.clone(),
                tensor.reshaped(&[rows, 1]).map_err(internal)?,
            )),
            [rows, width] if width != 1 && width <= MAX_FRAME_COLUMNS => {
                for place in 0..width {
                    let data = every(tensor.data(), place, width);
                    let tensor = Tensor::from_data(&[rows, 1], data).map_err(internal)?;
                    columns.push(frame_column(class_name(info, place, width), tensor));
                }
            }
            _ => columns.push(frame_column(info.name.clone(), tensor)),
        }
    }
    Ok(columns)
}

fn internal(error: impl std::fmt::Display) -> InferError {
    InferError::internal(error.to_string())
}

fn frame_column(name: String, tensor: Tensor) -> FrameColumn {
    let content_type = matches!(tensor.data(), Data::String(_)).then_some("str");
    FrameColumn {
        name,
        tensor,
        content_type,
    }
}

fn class_name(info: &TensorInfo, place: usize, width: usize) -> String {
    let name = &info.name;
    match &info.labels {
        Some(Labels::Strings(labels)) if labels.len() == width => {
            format!("{name}_{}", labels[place])
        }
        Some(Labels::Integers(labels)) if labels.len() == width => {
            format!("{name}_{}", labels[place])
        }
        _ => format!("{name}_{place}"),
    }
}

/// The elements at `first`, `first + step` and so on.
fn every(data: &Data, first: usize, step: usize) -> Data {
    fn pick<T: Clone>(values: &[T], first: usize, step: usize) -> Vec<T> {
        values.iter().skip(first).step_by(step).cloned().collect()
    }
    match data {
        Data::Bool(values) => Data::Bool(pick(values, first, step)),
        Data::U8(values) => Data::U8(pick(values, first, step)),
        Data::U16(values) => Data::U16(pick(values, first, step)),
        Data::U32(values) => Data::U32(pick(values, first, step)),
        Data::U64(values) => Data::U64(pick(values, first, step)),
        Data::I8(values) => Data::I8(pick(values, first, step)),
        Data::I16(values) => Data::I16(pick(values, first, step)),
        Data::I32(values) => Data::I32(pick(values, first, step)),
        Data::I64(values) => Data::I64(pick(values, first, step)),
        Data::F16(values) => Data::F16(pick(values, first, step)),
        Data::F32(values) => Data::F32(pick(values, first, step)),
        Data::F64(values) => Data::F64(pick(values, first, step)),
        Data::String(values) => Data::String(pick(values, first, step)),
    }
}
