//! Reads the JSON of an inference request: once, from front to back, numbers straight into tensors.
//!
//! The data of a tensor is flat or nested and always row-major. Its elements are read as what the
//! tensor's `datatype` says, which usually stands before `data`; where it stands behind it, the data
//! is passed over and read when the type is known. Whether name, type and shape fit the model is
//! found out later, by [`crate::infer::inputs`], so that this file knows nothing of models.
//!
//! When the text is not a request, [`super::body::parse`] reads it again into [`InferBody`] and says
//! what is wrong in which field. [`InferBody`] is also what the API's description is made from.

use std::borrow::Cow;
use std::ops::Range;

use onnx_ml::{CompactString, Data, DataType, Tensor, f16};
use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;
use utoipa::ToSchema;

use crate::infer::error::InferError;
use crate::infer::inputs;
use crate::json::{Cursor, Unexpected};
use crate::models::tensors;
use crate::serve::http::body::{self, parse};

/// Elements that room is made for ahead.
const MOST_ROOM: u64 = 1 << 16;

/// How deep data may be nested: deeper than any shape, and far from the end of the stack.
const MOST_DEPTH: usize = 64;

/// Tensors to run a model on.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code)] // Its fields are read by what describes the API.
pub struct InferBody {
    /// Given back in the answer.
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<InferParameters>,
    inputs: Vec<InputTensor>,
    /// The outputs to give; all when left out.
    #[serde(default)]
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
pub struct InferParameters {
    /// Answer every output as bytes that does not say otherwise itself.
    #[serde(default)]
    binary_data_output: Option<bool>,
    /// Microseconds after which the answer is of no use; the work is not begun then.
    #[serde(default)]
    timeout: Option<u64>,
    /// What the inputs are together: `pd` for the columns of a table.
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
pub struct InputTensor {
    name: String,
    shape: Vec<u64>,
    #[schema(example = "FP32")]
    datatype: String,
    #[serde(default)]
    parameters: Option<InputParameters>,
    /// The elements in row-major order, flat or nested. Left out when they are sent as bytes.
    #[serde(default)]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    data: Option<Value>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
pub struct InputParameters {
    /// How many of the bytes behind the JSON are this input's.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    binary_data_size: Option<Value>,
    /// What the elements are: `np`, or `str` for text.
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
pub struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Option<OutputChoice>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
pub struct OutputChoice {
    /// Answer this output as bytes, or, when false, as JSON.
    #[serde(default)]
    binary_data: Option<bool>,
    /// Not supported.
    #[serde(default)]
    #[schema(ignore)]
    classification: Option<Value>,
    /// Not supported.
    #[serde(default)]
    #[schema(ignore)]
    shared_memory_region: Option<Value>,
}

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

/// Which fields an object has had.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn once(&mut self, field: u8, cursor: &Cursor<'_>) -> Result<(), Unexpected> {
        let bit = 1 << field;
        if self.0 & bit != 0 {
            return Err(cursor.unexpected("every field once"));
        }
        self.0 |= bit;
        Ok(())
    }

    fn require(
        &self,
        field: u8,
        cursor: &Cursor<'_>,
        name: &'static str,
    ) -> Result<(), Unexpected> {
        match self.0 & (1 << field) {
            0 => Err(cursor.unexpected(name)),
            _ => Ok(()),
        }
    }
}

/// Reads what may also be null.
fn optional<'a, T>(
    cursor: &mut Cursor<'a>,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Unexpected>,
) -> Result<Option<T>, Unexpected> {
    match cursor.null()? {
        true => Ok(None),
        false => read(cursor).map(Some),
    }
}

/// Reads a whole number from 0, written as such.
fn unsigned(cursor: &mut Cursor<'_>) -> Result<u64, Unexpected> {
    let expected = cursor.unexpected("a whole number");
    let number = cursor.number()?;
    number.to_unsigned().ok_or(expected)
}

/// Reads a value of any kind, for saying what it is.
fn value(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<Value, Unexpected> {
    let range = cursor.skip()?;
    let found = serde_json::from_slice(&body[range.clone()]);
    found.map_err(|_| Unexpected {
        at: range.start,
        expected: "a value",
    })
}

/// Reads elements of a tensor; the inner error says which one is not of the type. `depth` becomes
/// how deep arrays are nested.
fn read_elements(
    cursor: &mut Cursor<'_>,
    data_type: DataType,
    shape: &[u64],
    depth: &mut usize,
) -> Result<Result<Data, String>, Unexpected> {
    let claimed = shape
        .iter()
        .try_fold(1_u64, |product, &dim| product.checked_mul(dim));
    // A shape may claim more than the body holds.
    let room = claimed.unwrap_or(0).min(MOST_ROOM) as usize;
    let start = cursor.clone();
    let read = match data_type {
        DataType::F32 => collect_floats(cursor, room, depth, |value| value as f32).map(Data::F32),
        DataType::F64 => collect_floats(cursor, room, depth, |value| value).map(Data::F64),
        DataType::F16 => collect_floats(cursor, room, depth, f16::from_f64).map(Data::F16),
        DataType::Bool => collect(cursor, room, depth, |c| c.boolean()).map(Data::Bool),
        DataType::String => collect(cursor, room, depth, text).map(Data::String),
        DataType::I8 => collect(cursor, room, depth, integer::<i8>).map(Data::I8),
        DataType::I16 => collect(cursor, room, depth, integer::<i16>).map(Data::I16),
        DataType::I32 => collect(cursor, room, depth, integer::<i32>).map(Data::I32),
        DataType::I64 => collect(cursor, room, depth, integer::<i64>).map(Data::I64),
        DataType::U8 => collect(cursor, room, depth, integer::<u8>).map(Data::U8),
        DataType::U16 => collect(cursor, room, depth, integer::<u16>).map(Data::U16),
        DataType::U32 => collect(cursor, room, depth, integer::<u32>).map(Data::U32),
        DataType::U64 => collect(cursor, room, depth, integer::<u64>).map(Data::U64),
    };
    if let Ok(data) = read {
        return Ok(Ok(data));
    }
    // Not JSON, which this says, or an element of another kind, which the slower reader names.
    *cursor = start;
    let range = cursor.skip()?;
    Ok(read_slowly(cursor.slice(range), data_type))
}

/// Reads elements of a floating point type, the common ones many at a time.
fn collect_floats<T>(
    cursor: &mut Cursor<'_>,
    room: usize,
    depth: &mut usize,
    narrow: impl Fn(f64) -> T,
) -> Result<Vec<T>, Unexpected> {
    let mut values = Vec::with_capacity(room);
    let elements = Elements {
        one: |cursor: &mut Cursor<'_>| float(cursor).map(&narrow),
        many: |cursor: &mut Cursor<'_>, values: &mut Vec<T>| {
            cursor.decimals(|value| values.push(narrow(value)));
        },
    };
    collect_level(cursor, &elements, &mut values, 0, depth)?;
    Ok(values)
}

fn collect<T>(
    cursor: &mut Cursor<'_>,
    room: usize,
    depth: &mut usize,
    one: impl Fn(&mut Cursor<'_>) -> Result<T, Unexpected>,
) -> Result<Vec<T>, Unexpected> {
    let mut values = Vec::with_capacity(room);
    let elements = Elements {
        one,
        many: |_: &mut Cursor<'_>, _: &mut Vec<T>| {},
    };
    collect_level(cursor, &elements, &mut values, 0, depth)?;
    Ok(values)
}

/// How elements are read: one, and as many as come in a form that can be read faster.
struct Elements<One, Many> {
    one: One,
    many: Many,
}

/// Reads one element, or an array of elements and arrays.
fn collect_level<T>(
    cursor: &mut Cursor<'_>,
    elements: &Elements<
        impl Fn(&mut Cursor<'_>) -> Result<T, Unexpected>,
        impl Fn(&mut Cursor<'_>, &mut Vec<T>),
    >,
    values: &mut Vec<T>,
    level: usize,
    depth: &mut usize,
) -> Result<(), Unexpected> {
    if cursor.peek() != Some(b'[') {
        values.push((elements.one)(cursor)?);
        return Ok(());
    }
    if level >= MOST_DEPTH {
        return Err(cursor.unexpected("less nesting"));
    }
    *depth = (*depth).max(level + 1);
    cursor.take(b'[');
    if cursor.take(b']') {
        return Ok(());
    }
    loop {
        (elements.many)(cursor, values);
        match cursor.peek() {
            Some(b'[') => collect_level(cursor, elements, values, level + 1, depth)?,
            _ => values.push((elements.one)(cursor)?),
        }
        if cursor.take(b',') {
            continue;
        }
        return match cursor.take(b']') {
            true => Ok(()),
            false => Err(cursor.unexpected("a comma or the end of the array")),
        };
    }
}

fn float(cursor: &mut Cursor<'_>) -> Result<f64, Unexpected> {
    if cursor.peek() == Some(b'n') && cursor.null()? {
        return Ok(f64::NAN);
    }
    let number = cursor.number()?;
    number.to_f64().ok_or(cursor.unexpected("a float64"))
}

fn text(cursor: &mut Cursor<'_>) -> Result<CompactString, Unexpected> {
    if cursor.null()? {
        return Ok(CompactString::default());
    }
    cursor.string().map(CompactString::from)
}

fn integer<T: TryFrom<i128>>(cursor: &mut Cursor<'_>) -> Result<T, Unexpected> {
    let whole = cursor.number()?.to_integer();
    let fitting = whole.and_then(|whole| T::try_from(whole).ok());
    fitting.ok_or(cursor.unexpected("an integer of the type"))
}

/// Reads elements by way of general JSON values, to say which one is wrong.
fn read_slowly(text: &[u8], data_type: DataType) -> Result<Data, String> {
    let data: Value = serde_json::from_slice(text).map_err(|error| format!("data: {error}"))?;
    let mut elements = Vec::new();
    flatten(&data, MOST_DEPTH, &mut elements)?;
    tensors::from_json(data_type, &[elements.len()], &elements)
        .map(Tensor::into_data)
        .map_err(|problem| format!("data: {problem}"))
}

/// Collects the elements of flat or nested arrays, at most `depth` deep.
fn flatten<'a>(data: &'a Value, depth: usize, elements: &mut Vec<&'a Value>) -> Result<(), String> {
    match data {
        Value::Array(items) if depth > 0 => {
            for item in items {
                flatten(item, depth - 1, elements)?;
            }
            Ok(())
        }
        Value::Array(_) => Err("data: nested deeper than the shape".to_owned()),
        Value::Object(_) => Err("data: expected an array of elements, found an object".to_owned()),
        element => {
            elements.push(element);
            Ok(())
        }
    }
}
