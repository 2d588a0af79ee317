//! `Normalizer` (ai.onnx.ml 1): divides each row by its largest value, or its L1 or L2 norm.
//!
//! As ONNX Runtime: `MAX` divides by the largest value, not the largest absolute value, so a row of
//! negative numbers changes sign; a norm of zero leaves the row as it is; one dimension is one row;
//! the output is float32. Norms are summed in float64, where ONNX Runtime may overflow.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{self, Built, Kernel, same_shape};

#[derive(Debug, Clone, Copy)]
enum Normalizer {
    Max,
    L1,
    L2,
}

pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let norm: String = node
        .get_attr_opt("norm")?
        .unwrap_or_else(|| "MAX".to_string());
    kernel::build(match norm.as_str() {
        "MAX" => Normalizer::Max,
        "L1" => Normalizer::L1,
        "L2" => Normalizer::L2,
        other => bail!("norm `{other}` is none of MAX, L1 and L2"),
    })
}

impl Normalizer {
    fn normalize(self, row: &mut [f32]) {
        match self {
            Normalizer::Max => {
                let mut largest = f32::MIN;
                for x in row.iter() {
                    if largest < *x {
                        largest = *x;
                    }
                }
                if largest != 0.0 {
                    for x in row {
                        *x /= largest;
                    }
                }
            }
            Normalizer::L1 => {
                let sum: f64 = row.iter().map(|x| f64::from(x.abs())).sum();
                if sum != 0.0 {
                    for x in row {
                        *x = (f64::from(*x) / sum) as f32;
                    }
                }
            }
            Normalizer::L2 => {
                let sum: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                if sum != 0.0 {
                    let norm = sum.sqrt();
                    for x in row {
                        *x = (f64::from(*x) / norm) as f32;
                    }
                }
            }
        }
    }
}

impl Kernel for Normalizer {
    fn name(&self) -> &'static str {
        "Normalizer"
    }

    fn output_type(&self, input: DatumType) -> TractResult<DatumType> {
        match input {
            DatumType::F32 | DatumType::F64 | DatumType::I64 | DatumType::I32 => Ok(DatumType::F32),
            other => bail!("F32, F64, I64 or I32 input is expected, found {other:?}"),
        }
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        if input.is_empty() || input.len() > 2 {
            bail!(
                "an input of 1 or 2 dimensions is expected, found {}",
                input.len()
            );
        }
        same_shape(input)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        let mut output = input.cast_to::<f32>()?.into_owned();
        let width = output.shape().last().copied().unwrap_or(0);
        if width == 0 {
            return Ok(output);
        }
        let mut view = output.try_as_plain_ram_mut()?;
        for row in view.as_slice_mut::<f32>()?.chunks_mut(width) {
            self.normalize(row);
        }
        Ok(output)
    }
}
