//! `Scaler` (ai.onnx.ml 1): `(x - offset) * scale`, per column or with one pair for all.
//!
//! As ONNX Runtime: the output is float32; float64 input is computed in float64 and rounded once,
//! integers are converted to float32 first. Unlike it: per-column values on more than two dimensions
//! are refused, where ONNX Runtime counts columns in a way the specification does not have.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{self, Built, Kernel, same_shape};

const COUNTED: &str = "offsets and scales";

#[derive(Debug)]
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let offset: Vec<f32> = node.get_attr_vec("offset")?;
    let scale: Vec<f32> = node.get_attr_vec("scale")?;
    if scale.is_empty() || scale.len() != offset.len() {
        bail!(
            "offset has {} values and scale {}, expected as many of both and at least one",
            offset.len(),
            scale.len()
        );
    }
    kernel::build(Scaler { offset, scale })
}

/// Checks that `found` per-column values fit an input of this shape (`[C]` or `[N, C]`; any shape
/// when there is just one value). A number of columns that only the run decides passes here; the
/// kernels call this again with the shape they meet.
pub(super) fn columns<D: DimLike>(what: &str, found: usize, shape: &[D]) -> TractResult<()> {
    let Some(last) = shape.last() else {
        bail!("a tensor of at least one dimension is expected, found a scalar");
    };
    if found == 1 {
        return Ok(());
    }
    if shape.len() > 2 {
        bail!(
            "{found} {what} for an input of {} dimensions, expected 1 or 2",
            shape.len()
        );
    }
    if last.to_usize().is_ok_and(|columns| columns != found) {
        bail!("{found} {what} for an input of {last} columns, expected one each or a single one");
    }
    Ok(())
}

impl Scaler {
    fn scale<T: Datum + Copy>(
        &self,
        input: &Tensor,
        compute: impl Fn(T, f32, f32) -> f32,
    ) -> TractResult<Tensor> {
        columns(COUNTED, self.scale.len(), input.shape())?;
        let mut output = Tensor::zero::<f32>(input.shape())?;
        let mut output_view = output.try_as_plain_ram_mut()?;
        let scaled = output_view.as_slice_mut::<f32>()?;
        let input_view = input.try_as_plain_ram()?;
        let elements = input_view.as_slice::<T>()?;
        let width = self.scale.len();
        for (to_row, row) in scaled.chunks_mut(width).zip(elements.chunks(width)) {
            for (column, (to, from)) in to_row.iter_mut().zip(row).enumerate() {
                *to = compute(*from, self.offset[column], self.scale[column]);
            }
        }
        Ok(output)
    }
}

impl Kernel for Scaler {
    fn name(&self) -> &'static str {
        "Scaler"
    }

    fn output_type(&self, input: DatumType) -> TractResult<DatumType> {
        match input {
            DatumType::F32 | DatumType::F64 | DatumType::I64 | DatumType::I32 => Ok(DatumType::F32),
            other => bail!("F32, F64, I64 or I32 input is expected, found {other:?}"),
        }
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        columns(COUNTED, self.scale.len(), input)?;
        same_shape(input)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        match input.datum_type() {
            DatumType::F32 => self.scale(input, |x: f32, offset, scale| (x - offset) * scale),
            DatumType::F64 => self.scale(input, |x: f64, offset, scale| {
                ((x - f64::from(offset)) * f64::from(scale)) as f32
            }),
            DatumType::I64 => {
                self.scale(input, |x: i64, offset, scale| (x as f32 - offset) * scale)
            }
            DatumType::I32 => {
                self.scale(input, |x: i32, offset, scale| (x as f32 - offset) * scale)
            }
            other => bail!("element type {other:?} is not supported"),
        }
    }
}
