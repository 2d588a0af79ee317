//! Verifies that a tensor in the file holds as many elements as its shape says.

use tract_onnx::pb::{TensorProto, tensor_proto::DataLocation};
use tract_onnx::prelude::DatumType;

/// The number of elements of a verified tensor, or what is wrong with it.
pub(super) fn tensor(tensor: &TensorProto) -> Result<u64, String> {
    if tensor.data_location == Some(DataLocation::External as i32)
        || !tensor.external_data.is_empty()
    {
        return Err(
            "its data is in another file (external data), which is not supported: export \
                    the model as one file"
                .to_string(),
        );
    }
    if tensor.segment.is_some() {
        return Err("it is stored in segments, which is not supported".to_string());
    }
    let datum_type = super::datum_type(tensor.data_type)?;
    let elements = elements(&tensor.dims)?;
    let expected = usize::try_from(elements).map_err(|_| "it is too large".to_string())?;
    let check = |unit: &str, found: usize, expected: usize| {
        if found == expected {
            Ok(elements)
        } else {
            Err(format!(
                "shape {:?} needs {expected} {unit}, the file holds {found}",
                tensor.dims
            ))
        }
    };
    if !tensor.raw_data.is_empty() {
        if datum_type == DatumType::String {
            return Err("strings cannot be stored as raw data".to_string());
        }
        let bytes = expected.saturating_mul(datum_type.size_of());
        return check("bytes of raw data", tensor.raw_data.len(), bytes);
    }
    let found = match datum_type {
        DatumType::F32 => tensor.float_data.len(),
        DatumType::F64 => tensor.double_data.len(),
        DatumType::I64 => tensor.int64_data.len(),
        DatumType::String => tensor.string_data.len(),
        DatumType::U64 | DatumType::U32 => {
            if !tensor.uint64_data.is_empty() {
                return Err("unsigned numbers outside raw data are not supported".to_string());
            }
            0
        }
        _ => tensor.int32_data.len(),
    };
    check("values", found, expected)
}

/// The product of the dimensions.
pub(super) fn elements(dims: &[i64]) -> Result<u64, String> {
    let mut product = 1u64;
    for dim in dims {
        let Ok(size) = u64::try_from(*dim) else {
            return Err(format!("shape {dims:?} has a negative dimension"));
        };
        let Some(next) = product.checked_mul(size) else {
            return Err(format!("shape {dims:?} has too many elements"));
        };
        product = next;
    }
    Ok(product)
}
