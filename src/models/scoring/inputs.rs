//! Inputs of a graph: the columns of the view that feed each, and the tensors that are made of them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use onnx_ml::{DataType, Tensor, TensorInfo};

use crate::features::view::{View, suggestion};
use crate::models::tensors::{self, MissingAs, shape_text};

/// One input of the graph and the columns that feed it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BoundInput {
    pub(super) columns: Vec<usize>,
    data_type: DataType,
    /// The input has the shape `[N]` instead of `[N, columns]`.
    flat: bool,
}

impl BoundInput {
    /// Binds an input to the features with these names.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub(super) fn bind(
        input: &TensorInfo,
        names: &[&str],
        view: &View,
    ) -> Result<BoundInput, Vec<String>> {
        let mut problems = Vec::new();
        let mut columns = Vec::new();
        for name in names {
            let Some(index) = view.index_of(name) else {
                let features = view.features().iter().map(|feature| feature.name.as_str());
                problems.push(format!(
                    "input {:?}: feature {name} is not in view {}{}",
                    input.name,
                    view.name,
                    suggestion(name, features)
                ));
                continue;
            };
            columns.push(index);
            let feature = &view.features()[index];
            let expected = tensors::protocol_name(input.data_type);
            match tensors::compatibility(feature.kind, input.data_type) {
                None => problems.push(format!(
                    "input {:?}: expected {expected}, found feature {name} of type {} in view {}",
                    input.name,
                    feature.kind.name(),
                    view.name
                )),
                Some(MissingAs::Nothing) if feature.default.is_none() => problems.push(format!(
                    "input {:?}: {expected} cannot express a missing value and feature {name} of view \
                     {} has no default; declare one",
                    input.name, view.name
                )),
                Some(_) => {}
            }
        }
        let flat = input.shape.len() == 1;
        let width_fits = match input.shape.as_slice() {
            [_] => names.len() == 1,
            [_, width] => width.is_none_or(|width| width == names.len()),
            _ => false,
        };
        if !width_fits {
            problems.push(format!(
                "input {:?}: expected the shape [N, {}], found {}",
                input.name,
                names.len(),
                shape_text(&input.shape)
            ));
        }
        if problems.is_empty() {
            Ok(BoundInput {
                columns,
                data_type: input.data_type,
                flat,
            })
        } else {
            Err(problems)
        }
    }

    /// What the input takes of the view's columns.
    pub(super) fn tensor(&self, columns: &[ArrayRef], rows: usize) -> Result<Tensor, String> {
        let several: Vec<&ArrayRef>;
        let sources: &[&ArrayRef] = match self.columns.as_slice() {
            // Most inputs are one column.
            [column] => &[&columns[*column]],
            many => {
                several = many.iter().map(|&column| &columns[column]).collect();
                &several
            }
        };
        tensors::from_columns(sources, rows, self.data_type, self.flat)
    }
}

/// The inputs that were made of one batch, for models that read the same columns.
#[derive(Debug, Default)]
pub struct InputTensors {
    made: Vec<(BoundInput, Arc<Tensor>)>,
}

impl InputTensors {
    pub(super) fn get(
        &mut self,
        input: &BoundInput,
        batch: &RecordBatch,
    ) -> Result<Arc<Tensor>, String> {
        if let Some((_, tensor)) = self.made.iter().find(|(other, _)| other == input) {
            return Ok(Arc::clone(tensor));
        }
        let tensor = Arc::new(input.tensor(batch.columns(), batch.num_rows())?);
        self.made.push((input.clone(), Arc::clone(&tensor)));
        Ok(tensor)
    }
}
