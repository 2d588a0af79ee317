//! A body that is nothing but the bytes of a model's only input.
//!
//! Nothing says the shape, so it is worked out: the one dimension that the graph leaves open is as
//! long as the bytes allow. When more than one is open, the first is the number of rows and is one.
//! The bytes of a text have no length before them here: the whole body is one text.

use onnx_ml::{CompactString, Data, Shape, Tensor, TensorInfo};

use super::error::InferError;
use super::inputs::Inputs;
use crate::models::tensors::{protocol_name, shape_text};
use crate::models::{binary, version::ModelVersion};

/// The only input of `model`, from its bytes.
///
/// # Errors
/// When the model has several inputs, when its shape cannot be worked out, when the bytes do not
/// fill it.
pub fn raw_input(
    model: &ModelVersion,
    max_rows: usize,
    bytes: &[u8],
) -> Result<Vec<Tensor>, InferError> {
    let [info] = model.graph.inputs() else {
        return Err(InferError::invalid(format!(
            "body: bytes alone are the only input of a model; {} has {} inputs, so expected JSON \
             and its length in the header Inference-Header-Content-Length, found the length 0",
            model.name,
            model.graph.inputs().len()
        )));
    };
    let refuse =
        |problem: String| InferError::invalid(format!("body: input {:?}: {problem}", info.name));
    let shape = shape_of(info, bytes.len()).map_err(refuse)?;
    let mut inputs = Inputs::new(model, max_rows);
    let dims = shape.iter().map(|dim| *dim as u64);
    let declared = inputs.declare(&info.name, protocol_name(info.data_type), dims)?;
    let tensor = match binary::element_bytes(info.data_type) {
        Some(_) => binary::from_bytes(info.data_type, &shape, bytes).map_err(refuse)?,
        None => {
            let text = std::str::from_utf8(bytes)
                .map_err(|error| refuse(format!("expected UTF-8, found {error}")))?;
            let data = Data::String(vec![CompactString::from(text)]);
            Tensor::from_data(&shape, data).map_err(|error| refuse(error.to_string()))?
        }
    };
    inputs.put(&declared, tensor)?;
    inputs.finish()
}

/// The shape of an input that these many bytes fill.
fn shape_of(info: &TensorInfo, bytes: usize) -> Result<Shape, String> {
    let mut open = info.shape.iter().filter(|dim| dim.is_none()).count();
    let Some(size) = binary::element_bytes(info.data_type) else {
        let is_one = info.shape.iter().all(|dim| dim.is_none_or(|dim| dim == 1));
        return match is_one {
            true => Ok(info.shape.iter().map(|_| 1).collect()),
            false => Err(format!(
                "bytes alone are one text, expected the texts of a tensor {} with their lengths",
                shape_text(&info.shape)
            )),
        };
    };
    let fixed = info.shape.iter().flatten().product::<usize>();
    let row_bytes = fixed.saturating_mul(size);
    let mut shape = Shape::new();
    for (index, dim) in info.shape.iter().enumerate() {
        shape.push(match dim {
            Some(dim) => *dim,
            None if index == 0 && open > 1 => {
                open -= 1;
                1
            }
            None if open > 1 => {
                return Err(format!(
                    "the shape {} leaves more open than the number of bytes can tell; expected \
                     JSON with the shape",
                    shape_text(&info.shape)
                ));
            }
            None if row_bytes == 0 || !bytes.is_multiple_of(row_bytes) => {
                return Err(format!(
                    "expected a multiple of {row_bytes} bytes for the shape {} of {}, found {bytes}",
                    shape_text(&info.shape),
                    protocol_name(info.data_type)
                ));
            }
            None => bytes / row_bytes,
        });
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use onnx_ml::DataType;

    use super::*;

    fn shape(
        data_type: DataType,
        dims: &[Option<usize>],
        bytes: usize,
    ) -> Result<Vec<usize>, String> {
        let info = TensorInfo {
            name: "x".to_owned(),
            data_type,
            shape: dims.to_vec(),
            labels: None,
        };
        shape_of(&info, bytes).map(|shape| shape.to_vec())
    }

    #[test]
    fn the_open_dimension_is_as_long_as_the_bytes() {
        assert_eq!(shape(DataType::F32, &[None, Some(3)], 24), Ok(vec![2, 3]));
        assert_eq!(shape(DataType::F32, &[None, Some(3)], 0), Ok(vec![0, 3]));
        assert_eq!(shape(DataType::U8, &[None], 7), Ok(vec![7]));
        assert_eq!(shape(DataType::I64, &[Some(2), None], 48), Ok(vec![2, 3]));
        // The number of rows is one where something else is open
        assert_eq!(shape(DataType::F64, &[None, None], 24), Ok(vec![1, 3]));
        assert_eq!(
            shape(DataType::F32, &[None, Some(2), None], 24),
            Ok(vec![1, 2, 3])
        );
        // Nothing is open: the bytes are held against the shape later
        assert_eq!(shape(DataType::F32, &[Some(2), Some(3)], 5), Ok(vec![2, 3]));
    }

    #[test]
    fn what_cannot_be_worked_out_is_refused() {
        for (dims, bytes, word) in [
            (&[None, Some(3)][..], 13, "a multiple of 12"),
            (&[None, Some(0)], 13, "a multiple of 0"),
            (&[None, None, None], 12, "more open"),
            (&[Some(2), None, None], 12, "more open"),
        ] {
            let problem = shape(DataType::F32, dims, bytes).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn bytes_alone_are_one_text() {
        assert_eq!(
            shape(DataType::String, &[None, Some(1)], 100),
            Ok(vec![1, 1])
        );
        assert_eq!(shape(DataType::String, &[Some(1)], 0), Ok(vec![1]));
        assert!(shape(DataType::String, &[None, Some(2)], 0).is_err());
    }
}
