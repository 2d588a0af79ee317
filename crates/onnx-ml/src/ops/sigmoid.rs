//! `Sigmoid`: `1 / (1 + exp(-x))`.
//!
//! tract's own approximates in vectors; this one computes in float64 and rounds once, so that a
//! probability is right to the last bit of float32 and the same alone and in a batch. float16 is not
//! taken.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{self, Built, Kernel, same_shape};

#[derive(Debug)]
struct Sigmoid;

pub(super) fn build(_context: &ParsingContext, _node: &NodeProto) -> Built {
    kernel::build(Sigmoid)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Kernel for Sigmoid {
    fn name(&self) -> &'static str {
        "Sigmoid"
    }

    fn output_type(&self, input: DatumType) -> TractResult<DatumType> {
        match input {
            DatumType::F32 | DatumType::F64 => Ok(input),
            other => bail!("F32 or F64 input is expected, found {other:?}"),
        }
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        same_shape(input)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        let mut output = input.deep_clone();
        let mut view = output.try_as_plain_ram_mut()?;
        if input.datum_type() == DatumType::F64 {
            for x in view.as_slice_mut::<f64>()? {
                *x = sigmoid(*x);
            }
        } else {
            for x in view.as_slice_mut::<f32>()? {
                *x = sigmoid(f64::from(*x)) as f32;
            }
        }
        Ok(output)
    }
}
