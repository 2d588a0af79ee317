//! Tensors as bytes, as the binary tensor data extension of the Open Inference Protocol has them.
//!
//! Elements follow each other in row-major order, little-endian, without padding: numbers as they
//! are in memory, `BOOL` as one byte 0 or 1, `BYTES` as the length in four bytes followed by that
//! many bytes of UTF-8. Nothing is read beyond what is there, whatever the lengths say.

use onnx_ml::{CompactString, Data, DataType, Tensor, f16};

use super::tensors::protocol_name;

/// Bytes before each element of a `BYTES` tensor: its length.
const LENGTH_BYTES: usize = 4;

/// The bytes of one element; `None` when elements differ in length.
pub fn element_bytes(data_type: DataType) -> Option<usize> {
    match data_type {
        DataType::String => None,
        other => Some(other.size()),
    }
}

/// A tensor of exactly these bytes.
///
/// # Errors
/// What does not fit: the number of bytes, or the first element that is wrong, with what was
/// expected and found.
pub fn from_bytes(data_type: DataType, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
    let count = shape
        .iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
        .ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    if let Some(size) = element_bytes(data_type)
        && count.checked_mul(size) != Some(bytes.len())
    {
        let expected = count as u128 * size as u128;
        let name = protocol_name(data_type);
        return Err(format!(
            "expected {expected} bytes ({count} elements {name} of {size}), found {}",
            bytes.len()
        ));
    }
    let data = match data_type {
        DataType::Bool => Data::Bool(flags(bytes)?),
        DataType::U8 => Data::U8(bytes.to_vec()),
        DataType::U16 => Data::U16(numbers(bytes, u16::from_le_bytes)),
        DataType::U32 => Data::U32(numbers(bytes, u32::from_le_bytes)),
        DataType::U64 => Data::U64(numbers(bytes, u64::from_le_bytes)),
        DataType::I8 => Data::I8(numbers(bytes, i8::from_le_bytes)),
        DataType::I16 => Data::I16(numbers(bytes, i16::from_le_bytes)),
        DataType::I32 => Data::I32(numbers(bytes, i32::from_le_bytes)),
        DataType::I64 => Data::I64(numbers(bytes, i64::from_le_bytes)),
        DataType::F16 => Data::F16(numbers(bytes, f16::from_le_bytes)),
        DataType::F32 => Data::F32(numbers(bytes, f32::from_le_bytes)),
        DataType::F64 => Data::F64(numbers(bytes, f64::from_le_bytes)),
        DataType::String => Data::String(texts(count, bytes)?),
    };
    Tensor::from_data(shape, data).map_err(|error| error.to_string())
}

/// `bytes` is a multiple of `SIZE` long.
fn numbers<T, const SIZE: usize>(bytes: &[u8], read: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<SIZE>();
    chunks.iter().map(|chunk| read(*chunk)).collect()
}

fn flags(bytes: &[u8]) -> Result<Vec<bool>, String> {
    let mut flags = Vec::with_capacity(bytes.len());
    for (position, byte) in bytes.iter().enumerate() {
        flags.push(match byte {
            0 => false,
            1 => true,
            other => {
                return Err(format!(
                    "element {position}: expected 0 or 1, found the byte {other}"
                ));
            }
        });
    }
    Ok(flags)
}

fn texts(count: usize, bytes: &[u8]) -> Result<Vec<CompactString>, String> {
    // Every text takes its length at least, so that a short body cannot ask for much memory.
    let mut texts = Vec::with_capacity(count.min(bytes.len() / LENGTH_BYTES));
    let mut rest = bytes;
    for position in 0..count {
        let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(format!(
                "element {position}: expected {LENGTH_BYTES} bytes with its length, found {}; the \
                 shape stands for {count} elements",
                rest.len()
            ));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((text, after)) = after.split_at_checked(length) else {
            return Err(format!(
                "element {position}: expected {length} bytes of text, found {}",
                after.len()
            ));
        };
        let text = std::str::from_utf8(text).map_err(|error| {
            format!("element {position}: expected UTF-8, found {error} of the text")
        })?;
        texts.push(CompactString::from(text));
        rest = after;
    }
    if !rest.is_empty() {
        return Err(format!(
            "expected {} bytes ({count} elements BYTES with their lengths), found {}",
            bytes.len() - rest.len(),
            bytes.len()
        ));
    }
    Ok(texts)
}

/// Writes the elements behind what `bytes` holds; returns how many bytes they take.
///
/// # Errors
/// When a text is 4 GiB long or longer, which its length cannot say.
pub fn write(data: &Data, bytes: &mut Vec<u8>) -> Result<usize, String> {
    let before = bytes.len();
    match data {
        Data::Bool(values) => bytes.extend(values.iter().map(|value| u8::from(*value))),
        Data::U8(values) => bytes.extend_from_slice(values),
        Data::U16(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::U32(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::U64(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::I8(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::I16(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::I32(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::I64(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::F16(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::F32(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::F64(values) => write_numbers(values, bytes, |value| value.to_le_bytes()),
        Data::String(values) => {
            for value in values {
                let length = u32::try_from(value.len())
                    .map_err(|_| format!("a text of {} bytes is too long to send", value.len()))?;
                bytes.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(value.as_bytes());
            }
        }
    }
    Ok(bytes.len() - before)
}

fn write_numbers<T: Copy, const SIZE: usize>(
    values: &[T],
    bytes: &mut Vec<u8>,
    to_bytes: impl Fn(T) -> [u8; SIZE],
) {
    bytes.reserve(values.len() * SIZE);
    for value in values {
        bytes.extend_from_slice(&to_bytes(*value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One tensor of each type, with the values at the ends of its range.
    fn samples() -> Vec<Data> {
        vec![
            Data::Bool(vec![true, false]),
            Data::U8(vec![0, u8::MAX]),
            Data::U16(vec![1, u16::MAX]),
            Data::U32(vec![1, u32::MAX]),
            Data::U64(vec![1, u64::MAX]),
            Data::I8(vec![i8::MIN, i8::MAX]),
            Data::I16(vec![i16::MIN, i16::MAX]),
            Data::I32(vec![i32::MIN, i32::MAX]),
            Data::I64(vec![i64::MIN, i64::MAX]),
            Data::F16(vec![f16::NEG_INFINITY, f16::MIN_POSITIVE_SUBNORMAL]),
            Data::F32(vec![f32::INFINITY, -0.0]),
            Data::F64(vec![f64::MIN_POSITIVE, f64::MAX]),
            Data::String(vec!["".into(), "a text longer than 24 bytes, äöü".into()]),
        ]
    }

    #[test]
    fn what_is_written_is_read_back_in_every_type() {
        assert_eq!(samples().len(), DataType::ALL.len());
        for data in samples() {
            let mut bytes = vec![7];
            let written = write(&data, &mut bytes).unwrap();
            assert_eq!(written, bytes.len() - 1);
            let read = from_bytes(data.data_type(), &[2, 1], &bytes[1..]).unwrap();
            assert_eq!(read.shape(), [2, 1]);
            assert_eq!(read.data(), &data);
            // And no rows are no bytes
            let none = from_bytes(data.data_type(), &[0, 3], &[]).unwrap();
            assert_eq!((none.shape(), none.len()), (&[0, 3][..], 0));
        }
    }

    #[test]
    fn a_nan_keeps_its_bits() {
        let bits = 0x7fc0_1234_u32;
        let read = from_bytes(DataType::F32, &[1], &bits.to_le_bytes()).unwrap();
        assert_eq!(read.as_slice::<f32>().unwrap()[0].to_bits(), bits);
    }

    #[test]
    fn one_byte_too_few_or_too_many_is_refused_in_every_type() {
        for data in samples() {
            let mut bytes = Vec::new();
            write(&data, &mut bytes).unwrap();
            let short = &bytes[..bytes.len() - 1];
            let problem = from_bytes(data.data_type(), &[2], short).unwrap_err();
            assert!(problem.contains("expected") && problem.contains("found"));
            bytes.push(0);
            let problem = from_bytes(data.data_type(), &[2], &bytes).unwrap_err();
            assert!(problem.contains(&format!("found {}", bytes.len())));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_memory_is_taken() {
        let huge = u32::MAX.to_le_bytes();
        let problem = from_bytes(DataType::String, &[1], &huge).unwrap_err();
        assert_eq!(
            problem,
            "element 0: expected 4294967295 bytes of text, found 0"
        );
        let problem = from_bytes(DataType::String, &[usize::MAX], &[0; 8]).unwrap_err();
        assert!(
            problem.starts_with("element 2: expected 4 bytes"),
            "{problem}"
        );
        assert!(from_bytes(DataType::U8, &[usize::MAX, 2], &[]).is_err());
        assert!(from_bytes(DataType::F64, &[usize::MAX], &[]).is_err());
    }

    #[test]
    fn what_is_no_text_and_no_flag_is_named() {
        let problem = from_bytes(
            DataType::String,
            &[2],
            &[0, 0, 0, 0, 2, 0, 0, 0, b'a', 0xff],
        );
        let problem = problem.unwrap_err();
        assert!(
            problem.starts_with("element 1: expected UTF-8"),
            "{problem}"
        );
        let problem = from_bytes(DataType::Bool, &[2], &[1, 2]).unwrap_err();
        assert_eq!(problem, "element 1: expected 0 or 1, found the byte 2");
    }
}
