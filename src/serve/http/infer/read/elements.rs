//! The data of a tensor: flat or nested, always row-major.
//!
//! Its elements are read as what the tensor's `datatype` says, which usually stands before `data`; where it
//! stands behind it, the data is passed over and comes here when the type is known. What is claimed of the
//! data bounds nothing: room is made for [`MOST_ROOM`] elements at most, and nesting ends at [`MOST_DEPTH`].

use onnx_ml::{CompactString, Data, DataType, Tensor, f16};
use serde_json::Value;

use crate::json::{Cursor, Unexpected};
use crate::models::tensors;

/// Elements that room is made for ahead.
const MOST_ROOM: u64 = 1 << 16;

/// How deep data may be nested: deeper than any shape, and far from the end of the stack.
const MOST_DEPTH: usize = 64;

/// Reads elements of a tensor; the inner error says which one is not of the type. `depth` becomes
/// how deep arrays are nested.
pub(super) fn read_elements(
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
