//! The inputs of a request, gathered by name and checked against the graph.
//!
//! Every protocol reads its own form of tensors and puts them here; what is refused, and with which
//! words, is the same for all of them.

use onnx_ml::{DataType, Shape, Tensor, TensorInfo};
use smallvec::SmallVec;

use super::error::InferError;
use crate::features::value::shorten;
use crate::models::tensors::{protocol_name, shape_text};
use crate::models::version::ModelVersion;

/// The most elements that all shapes of a request may stand for.
const MAX_ELEMENTS: u64 = u32::MAX as u64;

/// The inputs that a request has given so far.
pub struct Inputs<'a> {
    model: &'a ModelVersion,
    max_rows: usize,
    given: usize,
    claimed: u64,
    /// In the order of the graph.
    tensors: SmallVec<[Option<Tensor>; 4]>,
}

/// An input whose name, type and shape are right, and whose elements are still to be read.
pub struct Declared<'a> {
    pub info: &'a TensorInfo,
    pub shape: Shape,
    /// How many elements the shape stands for.
    pub elements: usize,
    position: usize,
}

impl<'a> Inputs<'a> {
    /// No inputs yet, for `model`; a tensor may have `max_rows` rows.
    pub fn new(model: &'a ModelVersion, max_rows: usize) -> Inputs<'a> {
        let mut tensors = SmallVec::new();
        tensors.resize(model.graph.inputs().len(), None);
        Inputs {
            model,
            max_rows,
            given: 0,
            claimed: 0,
            tensors,
        }
    }

    /// Checks name, type and shape of the next input of the request, before its elements are read.
    ///
    /// # Errors
    /// An unknown or repeated name, another type or shape than the graph's, too many rows.
    pub fn declare(
        &mut self,
        name: &str,
        datatype: &str,
        shape: impl ExactSizeIterator<Item = u64> + Clone,
    ) -> Result<Declared<'a>, InferError> {
        let index = self.given;
        self.given += 1;
        let infos = self.model.graph.inputs();
        let Some(position) = infos.iter().position(|info| info.name == name) else {
            let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            return Err(InferError::invalid(format!(
                "inputs[{index}].name: {:?} is no input of {}; the inputs are {}",
                shorten(name, 64),
                self.model.name,
                shorten(&names.join(", "), 1000)
            )));
        };
        if self.tensors[position].is_some() {
            let message = format!("inputs[{index}].name: {name:?} is given twice");
            return Err(InferError::invalid(message));
        }
        let info = &infos[position];
        self.check_size(&info.name, shape.clone())?;
        check_type(info, datatype)?;
        let shape: Shape = shape.map(|dim| dim as usize).collect();
        check_shape(info, &shape)?;
        Ok(Declared {
            info,
            elements: shape.iter().product(),
            shape,
            position,
        })
    }

    /// Takes the elements of a declared input.
    ///
    /// # Errors
    /// When they are not of the input's type or do not fill its shape.
    pub fn put(&mut self, declared: &Declared<'_>, tensor: Tensor) -> Result<(), InferError> {
        let fits = tensor.data_type() == declared.info.data_type
            && tensor.shape() == declared.shape.as_slice();
        if !fits {
            return Err(InferError::internal(format!(
                "input {:?}: was read as another tensor than it was declared",
                declared.info.name
            )));
        }
        self.tensors[declared.position] = Some(tensor);
        Ok(())
    }

    /// All inputs, in the order of the graph.
    ///
    /// # Errors
    /// Names the first one that the request left out.
    pub fn finish(self) -> Result<Vec<Tensor>, InferError> {
        let infos = self.model.graph.inputs();
        let mut tensors = Vec::with_capacity(infos.len());
        for (info, tensor) in infos.iter().zip(self.tensors) {
            let missing = || InferError::invalid(format!("inputs: {:?} is missing", info.name));
            tensors.push(tensor.ok_or_else(missing)?);
        }
        Ok(tensors)
    }

    /// Refuses shapes that stand for more than the bounds.
    fn check_size(
        &mut self,
        name: &str,
        mut shape: impl ExactSizeIterator<Item = u64> + Clone,
    ) -> Result<(), InferError> {
        let dims = shape.clone();
        let rows = shape.clone().next().unwrap_or(1);
        if rows > self.max_rows as u64 {
            return Err(InferError::too_large(format!(
                "input {:?}: shape: {rows} rows, at most {} are allowed",
                shorten(name, 64),
                self.max_rows
            )));
        }
        let claimed = shape.try_fold(1_u64, |product, dim| product.checked_mul(dim));
        let total = claimed.and_then(|claimed| self.claimed.checked_add(claimed));
        self.claimed = total
            .filter(|total| *total <= MAX_ELEMENTS)
            .ok_or_else(|| {
                let shape = format!("{:?}", dims.collect::<Vec<u64>>());
                InferError::too_large(format!(
                    "input {:?}: shape: {} is too large",
                    shorten(name, 64),
                    shorten(&shape, 100)
                ))
            })?;
        Ok(())
    }
}

fn check_type(info: &TensorInfo, datatype: &str) -> Result<(), InferError> {
    let expected = protocol_name(info.data_type);
    if datatype == expected {
        return Ok(());
    }
    Err(InferError::invalid(format!(
        "input {:?}: datatype: expected {expected}, found {:?}",
        info.name,
        shorten(datatype, 32)
    )))
}

fn check_shape(info: &TensorInfo, shape: &[usize]) -> Result<(), InferError> {
    let fits = shape.len() == info.shape.len()
        && shape
            .iter()
            .zip(&info.shape)
            .all(|(dim, info)| info.is_none_or(|info| info == *dim));
    // An input that the file gives no dimensions is shown as [N, N] and takes others as well; the
    // graph itself knows which it is.
    if fits || info.shape == [None, None] {
        return Ok(());
    }
    Err(InferError::invalid(format!(
        "input {:?}: shape: expected {}, found {}",
        info.name,
        shape_text(&info.shape),
        shorten(&format!("{shape:?}"), 100)
    )))
}

/// The tensor type that a datatype of the protocol names.
pub fn data_type(name: &str) -> Option<DataType> {
    DataType::ALL
        .into_iter()
        .find(|data_type| protocol_name(*data_type) == name)
}
