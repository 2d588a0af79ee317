//! Reads the tensors of a file.

use compact_str::CompactString;
use half::f16;

use crate::graph::MOST_DIMENSIONS;
use crate::proto::TensorProto;
use crate::tensor::{Data, DataType, Tensor};

/// The tensor, or what is wrong with it. Nothing is allocated beyond what the file holds.
pub(crate) fn read(proto: &TensorProto) -> Result<Tensor, String> {
    if proto.data_location != 0 || !proto.external_data.is_empty() {
        return Err(
            "its data is in another file (external data), which is not supported: export the \
             model as one file"
                .to_string(),
        );
    }
    if proto.segment.is_some() {
        return Err("it is stored in segments, which is not supported".to_string());
    }
    let data_type = DataType::from_onnx(proto.data_type)?;
    let shape = shape(&proto.dims)?;
    let count: usize = shape.iter().product();
    let data = if proto.raw_data.is_empty() {
        typed(proto, data_type, count)?
    } else {
        raw(&proto.raw_data, data_type, count, &proto.dims)?
    };
    Tensor::from_data(&shape, data).map_err(|error| error.to_string())
}

/// The sizes as they count elements in memory.
fn shape(dims: &[i64]) -> Result<Vec<usize>, String> {
    if dims.len() > MOST_DIMENSIONS {
        return Err(format!(
            "it has {} dimensions, at most {MOST_DIMENSIONS} are supported",
            dims.len()
        ));
    }
    let mut sizes = Vec::with_capacity(dims.len());
    let mut product = 1usize;
    for dim in dims {
        let size = usize::try_from(*dim)
            .map_err(|_| format!("shape {dims:?} has a negative dimension"))?;
        product = product
            .checked_mul(size)
            .ok_or_else(|| format!("shape {dims:?} has too many elements"))?;
        sizes.push(size);
    }
    Ok(sizes)
}

fn raw(bytes: &[u8], data_type: DataType, count: usize, dims: &[i64]) -> Result<Data, String> {
    if data_type == DataType::String {
        return Err("strings cannot be stored as raw data".to_string());
    }
    let expected = count.checked_mul(data_type.size());
    if expected != Some(bytes.len()) {
        return Err(format!(
            "shape {dims:?} of {data_type} needs {} bytes of raw data, the file holds {}",
            expected.unwrap_or(usize::MAX),
            bytes.len()
        ));
    }
    macro_rules! read {
        ($variant:ident, $element:ty) => {
            Data::$variant(
                bytes
                    .as_chunks::<{ size_of::<$element>() }>()
                    .0
                    .iter()
                    .map(|chunk| <$element>::from_le_bytes(*chunk))
                    .collect(),
            )
        };
    }
    Ok(match data_type {
        DataType::Bool => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        DataType::U8 => Data::U8(bytes.to_vec()),
        DataType::I8 => read!(I8, i8),
        DataType::U16 => read!(U16, u16),
        DataType::I16 => read!(I16, i16),
        DataType::U32 => read!(U32, u32),
        DataType::I32 => read!(I32, i32),
        DataType::U64 => read!(U64, u64),
        DataType::I64 => read!(I64, i64),
        DataType::F16 => read!(F16, f16),
        DataType::F32 => read!(F32, f32),
        DataType::F64 => read!(F64, f64),
        DataType::String => Data::String(Vec::new()),
    })
}

/// Elements in the field of their type; small integers are stored as int32.
fn typed(proto: &TensorProto, data_type: DataType, count: usize) -> Result<Data, String> {
    let found = match data_type {
        DataType::F32 => proto.float_data.len(),
        DataType::F64 => proto.double_data.len(),
        DataType::I64 => proto.int64_data.len(),
        DataType::U32 | DataType::U64 => proto.uint64_data.len(),
        DataType::String => proto.string_data.len(),
        _ => proto.int32_data.len(),
    };
    if found != count {
        return Err(format!(
            "shape {:?} needs {count} values, the file holds {found}",
            proto.dims
        ));
    }
    fn narrow<T, N>(values: &[N], name: &str) -> Result<Vec<T>, String>
    where
        N: Copy + std::fmt::Display,
        T: TryFrom<N>,
    {
        let each = values
            .iter()
            .map(|value| T::try_from(*value).map_err(|_| format!("value {value} is no {name}")));
        each.collect()
    }
    let small = &proto.int32_data;
    Ok(match data_type {
        DataType::F32 => Data::F32(proto.float_data.clone()),
        DataType::F64 => Data::F64(proto.double_data.clone()),
        DataType::I64 => Data::I64(proto.int64_data.clone()),
        DataType::U64 => Data::U64(proto.uint64_data.clone()),
        DataType::U32 => Data::U32(narrow(&proto.uint64_data, "uint32")?),
        DataType::I32 => Data::I32(small.clone()),
        DataType::U8 => Data::U8(narrow(small, "uint8")?),
        DataType::I8 => Data::I8(narrow(small, "int8")?),
        DataType::U16 => Data::U16(narrow(small, "uint16")?),
        DataType::I16 => Data::I16(narrow(small, "int16")?),
        DataType::F16 => {
            let bits: Vec<u16> = narrow(small, "float16 bits")?;
            Data::F16(bits.into_iter().map(f16::from_bits).collect())
        }
        DataType::Bool => Data::Bool(small.iter().map(|value| *value != 0).collect()),
        DataType::String => {
            let mut texts = Vec::with_capacity(count);
            for bytes in &proto.string_data {
                let text = CompactString::from_utf8(bytes);
                texts.push(text.map_err(|_| "a string is not UTF-8".to_string())?);
            }
            Data::String(texts)
        }
    })
}
