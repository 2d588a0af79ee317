//! The input of the classical operators: a matrix of numbers with a sample in each row.

use std::borrow::Cow;

use crate::operator::OpError;
use crate::tensor::{Data, Tensor};

/// The numbers of rows and columns: `[N, C]` as it is, `[C]` is one row, a scalar one row of one
/// column.
pub(crate) fn matrix(tensor: &Tensor) -> Result<(usize, usize), OpError> {
    match *tensor.shape() {
        [] => Ok((1, 1)),
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(OpError::Value(format!(
            "the input has {} dimensions, expected 1 or 2",
            tensor.rank()
        ))),
    }
}

/// As [`matrix`], for an operator that knows how many columns it needs. Gives the number of rows.
pub(crate) fn matrix_of(tensor: &Tensor, columns: usize) -> Result<usize, OpError> {
    let (rows, found) = matrix(tensor)?;
    if found != columns {
        return Err(OpError::Value(format!(
            "the input has {found} columns, the model was made for {columns}"
        )));
    }
    Ok(rows)
}

/// How many elements follow each other until the operators that have one value per column start
/// over: ONNX Runtime counts columns along the second dimension, or the only one.
pub(crate) fn column_count(tensor: &Tensor) -> Result<usize, OpError> {
    match *tensor.shape() {
        [] => Err(OpError::Value(
            "the input is a scalar, expected at least one dimension".to_string(),
        )),
        [columns] => Ok(columns),
        [_, columns, ..] => Ok(columns),
    }
}

/// The elements of input 0 as float32, which the classical operators compute in whatever they get.
pub(crate) fn floats(tensor: &Tensor) -> Result<Cow<'_, [f32]>, OpError> {
    Ok(match tensor.data() {
        Data::F32(values) => Cow::Borrowed(values),
        Data::F64(values) => Cow::Owned(values.iter().map(|x| *x as f32).collect()),
        Data::I64(values) => Cow::Owned(values.iter().map(|x| *x as f32).collect()),
        Data::I32(values) => Cow::Owned(values.iter().map(|x| *x as f32).collect()),
        other => {
            return Err(OpError::data_type(
                0,
                other.data_type(),
                "float, double, int64 or int32",
            ));
        }
    })
}
