//! Tensors as `InferTensorContents`: a list of numbers, flags or texts in the one field that the
//! protocol has for the tensor's type. FP16 has none, and travels raw only.

use onnx_ml::{CompactString, Data, DataType};
use prost::bytes::Bytes;

use super::messages::Contents;
use crate::models::tensors::protocol_name;

/// Takes the elements of a tensor of `count` elements out of `contents`.
///
/// # Errors
/// The field that is expected and what is there instead, or the first element that does not fit.
pub fn read(data_type: DataType, count: usize, contents: Contents) -> Result<Data, String> {
    let Some(expected) = field_of(data_type) else {
        return Err(format!(
            "{} has no field of its own: expected raw_input_contents",
            protocol_name(data_type)
        ));
    };
    let lengths = lengths(&contents);
    if let Some((other, _)) = lengths
        .iter()
        .find(|(field, length)| *field != expected && *length > 0)
    {
        return Err(format!(
            "expected {expected} for {}, found {other}",
            protocol_name(data_type)
        ));
    }
    // None of the other fields has any.
    let found: usize = lengths.iter().map(|(_, length)| length).sum();
    if found != count {
        return Err(format!(
            "{expected}: {found} elements do not fill the shape, which stands for {count}"
        ));
    }
    match data_type {
        DataType::Bool => Ok(Data::Bool(contents.bool_contents)),
        DataType::I8 => narrow(&contents.int_contents, "an 8-bit integer").map(Data::I8),
        DataType::I16 => narrow(&contents.int_contents, "a 16-bit integer").map(Data::I16),
        DataType::I32 => Ok(Data::I32(contents.int_contents)),
        DataType::I64 => Ok(Data::I64(contents.int64_contents)),
        DataType::U8 => narrow(&contents.uint_contents, "an unsigned 8-bit integer").map(Data::U8),
        DataType::U16 => {
            narrow(&contents.uint_contents, "an unsigned 16-bit integer").map(Data::U16)
        }
        DataType::U32 => Ok(Data::U32(contents.uint_contents)),
        DataType::U64 => Ok(Data::U64(contents.uint64_contents)),
        DataType::F32 => Ok(Data::F32(contents.fp32_contents)),
        DataType::F64 => Ok(Data::F64(contents.fp64_contents)),
        DataType::F16 => Ok(Data::F16(Vec::new())),
        DataType::String => texts(&contents.bytes_contents).map(Data::String),
    }
    .map_err(|problem| format!("{expected}: {problem}"))
}

/// The elements of an output; `None` for FP16.
pub fn write(data: &Data) -> Option<Contents> {
    let mut contents = Contents::default();
    match data {
        Data::Bool(values) => contents.bool_contents.clone_from(values),
        Data::I8(values) => contents.int_contents = widen(values),
        Data::I16(values) => contents.int_contents = widen(values),
        Data::I32(values) => contents.int_contents.clone_from(values),
        Data::I64(values) => contents.int64_contents.clone_from(values),
        Data::U8(values) => contents.uint_contents = widen(values),
        Data::U16(values) => contents.uint_contents = widen(values),
        Data::U32(values) => contents.uint_contents.clone_from(values),
        Data::U64(values) => contents.uint64_contents.clone_from(values),
        Data::F16(_) => return None,
        Data::F32(values) => contents.fp32_contents.clone_from(values),
        Data::F64(values) => contents.fp64_contents.clone_from(values),
        Data::String(values) => {
            let texts = values.iter();
            contents.bytes_contents = texts
                .map(|text| Bytes::copy_from_slice(text.as_bytes()))
                .collect();
        }
    }
    Some(contents)
}

/// The field for elements of a type.
fn field_of(data_type: DataType) -> Option<&'static str> {
    match data_type {
        DataType::Bool => Some("bool_contents"),
        DataType::I8 | DataType::I16 | DataType::I32 => Some("int_contents"),
        DataType::I64 => Some("int64_contents"),
        DataType::U8 | DataType::U16 | DataType::U32 => Some("uint_contents"),
        DataType::U64 => Some("uint64_contents"),
        DataType::F32 => Some("fp32_contents"),
        DataType::F64 => Some("fp64_contents"),
        DataType::String => Some("bytes_contents"),
        DataType::F16 => None,
    }
}

fn lengths(contents: &Contents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

fn narrow<W, N>(values: &[W], expected: &str) -> Result<Vec<N>, String>
where
    W: Copy + std::fmt::Display,
    N: TryFrom<W>,
{
    let mut narrowed = Vec::with_capacity(values.len());
    for (position, value) in values.iter().enumerate() {
        let fitting = N::try_from(*value)
            .map_err(|_| format!("element {position}: expected {expected}, found {value}"))?;
        narrowed.push(fitting);
    }
    Ok(narrowed)
}

fn widen<N: Copy, W: From<N>>(values: &[N]) -> Vec<W> {
    values.iter().map(|value| W::from(*value)).collect()
}

fn texts(values: &[Bytes]) -> Result<Vec<CompactString>, String> {
    let mut texts = Vec::with_capacity(values.len());
    for (position, value) in values.iter().enumerate() {
        let text = std::str::from_utf8(value).map_err(|error| {
            format!("element {position}: expected UTF-8, found {error} of the text")
        })?;
        texts.push(CompactString::from(text));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_every_type_that_has_a_field() {
        let samples = [
            Data::Bool(vec![true, false]),
            Data::U8(vec![0, u8::MAX]),
            Data::U16(vec![1, u16::MAX]),
            Data::U32(vec![1, u32::MAX]),
            Data::U64(vec![1, u64::MAX]),
            Data::I8(vec![i8::MIN, i8::MAX]),
            Data::I16(vec![i16::MIN, i16::MAX]),
            Data::I32(vec![i32::MIN, i32::MAX]),
            Data::I64(vec![i64::MIN, i64::MAX]),
            Data::F32(vec![f32::INFINITY, -0.0]),
            Data::F64(vec![f64::MIN_POSITIVE, f64::MAX]),
            Data::String(vec!["".into(), "äöü\0".into()]),
        ];
        assert_eq!(samples.len() + 1, DataType::ALL.len());
        for data in samples {
            let contents = write(&data).unwrap();
            assert_eq!(
                read(data.data_type(), 2, contents.clone()).as_ref(),
                Ok(&data)
            );
            let problem = read(data.data_type(), 3, contents).unwrap_err();
            assert!(problem.contains("2 elements do not fill"), "{problem}");
        }
        assert_eq!(write(&Data::F16(Vec::new())), None);
        let problem = read(DataType::F16, 0, Contents::default()).unwrap_err();
        assert!(problem.contains("raw_input_contents"), "{problem}");
    }

    #[test]
    fn what_does_not_fit_is_named_by_field_and_element() {
        let contents = Contents {
            uint_contents: vec![255, 256],
            ..Contents::default()
        };
        assert_eq!(
            read(DataType::U8, 2, contents.clone()).unwrap_err(),
            "uint_contents: element 1: expected an unsigned 8-bit integer, found 256"
        );
        assert_eq!(
            read(DataType::I32, 2, contents).unwrap_err(),
            "expected int_contents for INT32, found uint_contents"
        );
        let contents = Contents {
            bytes_contents: vec![Bytes::from_static(b"\xff")],
            ..Contents::default()
        };
        let problem = read(DataType::String, 1, contents).unwrap_err();
        assert!(
            problem.starts_with("bytes_contents: element 0: expected UTF-8"),
            "{problem}"
        );
    }
}
