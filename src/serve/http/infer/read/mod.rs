//! Reads the JSON of an inference request: once, from front to back, numbers straight into tensors.
//!
//! * `fields` – what all objects of a request have in common.
//! * `elements` – the data of a tensor.
//! * `described` – the request as the API's description has it.
//!
//! Whether name, type and shape fit the model is found out later, by [`crate::infer::inputs`], so that
//! this room knows nothing of models. When the text is not a request, [`body::parse`] reads it again into
//! [`InferBody`] and says what is wrong in which field.

mod described;
mod elements;
mod fields;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use onnx_ml::Data;
use serde_json::Value;
use smallvec::SmallVec;

pub use self::described::InferBody;
use self::elements::read_elements;
use self::fields::{Seen, optional, unsigned, value};
use crate::infer::error::InferError;
use crate::infer::inputs;
use crate::json::{Cursor, Unexpected};
use crate::serve::http::body::{self, parse};

/// A request as it is written; what needs no unescaping is borrowed from the body.
#[derive(Debug, Default)]
pub struct Given<'a> {
    pub id: Option<String>,
    pub binary_data_output: bool,
    pub timeout_us: Option<u64>,
    pub content_type: Option<Cow<'a, str>>,
    pub inputs: SmallVec<[GivenInput<'a>; 4]>,
    pub outputs: SmallVec<[GivenOutput<'a>; 4]>,
}

#[derive(Debug, Default)]
pub struct GivenInput<'a> {
    pub name: Cow<'a, str>,
    pub datatype: Cow<'a, str>,
    pub shape: SmallVec<[u64; 4]>,
    pub content_type: Option<Cow<'a, str>>,
    pub payload: Payload,
}

/// Where the elements of an input are.
#[derive(Debug, Default)]
pub enum Payload {
    /// There is neither `data` nor `binary_data_size`.
    #[default]
    Missing,
    /// Elements from JSON, or what is wrong with them.
    Elements(Result<Data, String>),
    /// `binary_data_size`, which may be anything yet, and whether there is `data` as well.
    Bytes { size: Value, and_data: bool },
}

#[derive(Debug, Default)]
pub struct GivenOutput<'a> {
    pub name: Cow<'a, str>,
    pub binary_data: Option<bool>,
    /// A parameter that asks for what is not supported.
    pub unsupported: Option<&'static str>,
}

/// Reads a request.
///
/// # Errors
/// The text is not JSON or not a request; the message names the field.
pub fn read(body: &[u8]) -> Result<Given<'_>, InferError> {
    read_given(body).map_err(|problem| explain(body, problem))
}

/// The `timeout` of a request, in microseconds, before it is read. `None` when it has none, and when
/// it is no request, which is said when it is read.
pub fn timeout_us(text: &[u8]) -> Option<u64> {
    let mut given = Given::default();
    let read = Cursor::new(text).object(|cursor, name| match name {
        "parameters" => {
            optional(cursor, |cursor| request_parameters(cursor, &mut given)).map(|_| ())
        }
        _ => cursor.skip().map(|_| ()),
    });
    read.ok().and(given.timeout_us)
}

/// Says what is wrong with a body that could not be read, and in which field.
fn explain(text: &[u8], problem: Unexpected) -> InferError {
    // A reader by the description knows the fields; one of any JSON also looks into those that it
    // passes over.
    let described = parse::<InferBody>(text).err();
    if let Some(error) = described.or_else(|| parse::<Value>(text).err()) {
        return InferError::invalid(error.into_message());
    }
    // Both take an array where the fields of an object are meant.
    let Unexpected { at, expected } = problem;
    let field = body::field_at_end(&text[..at.min(text.len())]);
    InferError::invalid(format!("{field}: expected {expected} at byte {at}"))
}

fn read_given(body: &[u8]) -> Result<Given<'_>, Unexpected> {
    let mut cursor = Cursor::new(body);
    let mut given = Given::default();
    let mut seen = Seen::default();
    cursor.object(|cursor, name| match name {
        "id" => {
            seen.once(0, cursor)?;
            given.id = optional(cursor, Cursor::string)?.map(Cow::into_owned);
            Ok(())
        }
        "parameters" => {
            seen.once(1, cursor)?;
            optional(cursor, |cursor| request_parameters(cursor, &mut given)).map(|_| ())
        }
        "inputs" => {
            seen.once(2, cursor)?;
            cursor.array(|cursor| {
                given.inputs.push(read_input(cursor, body)?);
                Ok(())
            })
        }
        "outputs" => {
            seen.once(3, cursor)?;
            optional(cursor, |cursor| {
                cursor.array(|cursor| {
                    given.outputs.push(read_output(cursor)?);
                    Ok(())
                })
            })
            .map(|_| ())
        }
        _ => cursor.skip().map(|_| ()),
    })?;
    cursor.end()?;
    seen.require(2, &cursor, "inputs")?;
    Ok(given)
}

fn request_parameters<'a>(
    cursor: &mut Cursor<'a>,
    given: &mut Given<'a>,
) -> Result<(), Unexpected> {
    let mut seen = Seen::default();
    cursor.object(|cursor, name| match name {
        "binary_data_output" => {
            seen.once(0, cursor)?;
            given.binary_data_output = optional(cursor, Cursor::boolean)?.unwrap_or(false);
            Ok(())
        }
        "timeout" => {
            seen.once(1, cursor)?;
            given.timeout_us = optional(cursor, unsigned)?;
            Ok(())
        }
        "content_type" => {
            seen.once(2, cursor)?;
            given.content_type = optional(cursor, Cursor::string)?;
            Ok(())
        }
        _ => cursor.skip().map(|_| ()),
    })
}

fn read_input<'a>(cursor: &mut Cursor<'a>, body: &'a [u8]) -> Result<GivenInput<'a>, Unexpected> {
    let mut input = GivenInput::default();
    let mut seen = Seen::default();
    let mut passed_over: Option<Range<usize>> = None;
    let mut depth = 0;
    let mut binary_data_size: Option<Value> = None;
    let mut elements: Option<Result<Data, String>> = None;
    cursor.object(|cursor, name| match name {
        "name" => {
            seen.once(0, cursor)?;
            input.name = cursor.string()?;
            Ok(())
        }
        "shape" => {
            seen.once(1, cursor)?;
            cursor.array(|cursor| {
                input.shape.push(unsigned(cursor)?);
                Ok(())
            })
        }
        "datatype" => {
            seen.once(2, cursor)?;
            input.datatype = cursor.string()?;
            Ok(())
        }
        "parameters" => {
            seen.once(3, cursor)?;
            optional(cursor, |cursor| {
                input_parameters(cursor, body, &mut input, &mut binary_data_size)
            })
            .map(|_| ())
        }
        "data" => {
            seen.once(4, cursor)?;
            if cursor.null()? {
                return Ok(());
            }
            match inputs::data_type(&input.datatype) {
                Some(data_type) => {
                    elements = Some(read_elements(cursor, data_type, &input.shape, &mut depth)?);
                }
                // The type comes behind the data, or is none.
                None => passed_over = Some(cursor.skip()?),
            }
            Ok(())
        }
        _ => cursor.skip().map(|_| ()),
    })?;
    for (field, name) in [(0, "name"), (1, "shape"), (2, "datatype")] {
        seen.require(field, cursor, name)?;
    }
    if let Some(range) = passed_over {
        elements = Some(match inputs::data_type(&input.datatype) {
            Some(data_type) => {
                let mut cursor = Cursor::new(&body[range]);
                read_elements(&mut cursor, data_type, &input.shape, &mut depth)?
            }
            None => Err("data: its type is not known".to_owned()),
        });
    }
    if depth > input.shape.len().max(1) && matches!(elements, Some(Ok(_))) {
        elements = Some(Err("data: nested deeper than the shape".to_owned()));
    }
    input.payload = match (binary_data_size, elements) {
        (Some(size), elements) => Payload::Bytes {
            size,
            and_data: elements.is_some(),
        },
        (None, Some(elements)) => Payload::Elements(elements),
        (None, None) => Payload::Missing,
    };
    Ok(input)
}

fn input_parameters<'a>(
    cursor: &mut Cursor<'a>,
    body: &'a [u8],
    input: &mut GivenInput<'a>,
    binary_data_size: &mut Option<Value>,
) -> Result<(), Unexpected> {
    let mut seen = Seen::default();
    cursor.object(|cursor, name| match name {
        "binary_data_size" => {
            seen.once(0, cursor)?;
            if !cursor.null()? {
                *binary_data_size = Some(value(cursor, body)?);
            }
            Ok(())
        }
        "content_type" => {
            seen.once(1, cursor)?;
            input.content_type = optional(cursor, Cursor::string)?;
            Ok(())
        }
        _ => cursor.skip().map(|_| ()),
    })
}

fn read_output<'a>(cursor: &mut Cursor<'a>) -> Result<GivenOutput<'a>, Unexpected> {
    let mut output = GivenOutput::default();
    let mut seen = Seen::default();
    cursor.object(|cursor, name| match name {
        "name" => {
            seen.once(0, cursor)?;
            output.name = cursor.string()?;
            Ok(())
        }
        "parameters" => {
            seen.once(1, cursor)?;
            optional(cursor, |cursor| output_parameters(cursor, &mut output)).map(|_| ())
        }
        _ => cursor.skip().map(|_| ()),
    })?;
    seen.require(0, cursor, "name")?;
    Ok(output)
}

fn output_parameters<'a>(
    cursor: &mut Cursor<'a>,
    output: &mut GivenOutput<'a>,
) -> Result<(), Unexpected> {
    let mut seen = Seen::default();
    cursor.object(|cursor, name| match name {
        "binary_data" => {
            seen.once(0, cursor)?;
            output.binary_data = optional(cursor, Cursor::boolean)?;
            Ok(())
        }
        "classification" => {
            seen.once(1, cursor)?;
            if !cursor.null()? {
                cursor.skip()?;
                output.unsupported = Some("classification");
            }
            Ok(())
        }
        "shared_memory_region" => {
            seen.once(2, cursor)?;
            if !cursor.null()? {
                cursor.skip()?;
                output.unsupported.get_or_insert("shared_memory_region");
            }
            Ok(())
        }
        _ => cursor.skip().map(|_| ()),
    })
}
