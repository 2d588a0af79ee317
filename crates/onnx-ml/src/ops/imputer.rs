//! `Imputer` (ai.onnx.ml 1): replaces one value, usually NaN, by a constant of its column.
//!
//! As ONNX Runtime: NaN as replaced value matches every NaN; without the attribute the replaced
//! value is 0; one imputed value serves every column. Beyond it: float64 and int32 input. Unlike it:
//! a number of imputed values that is neither 1 nor the number of columns is refused (ONNX Runtime
//! would silently use the first), and so are per-column values on more than two dimensions.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{self, Built, Kernel, same_shape};
use super::scaler::columns;

const COUNTED: &str = "imputed values";

#[derive(Debug)]
enum Imputer {
    Floats { imputed: Vec<f32>, replaced: f32 },
    Integers { imputed: Vec<i64>, replaced: i64 },
}

pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let floats: Vec<f32> = node
        .get_attr_opt_vec("imputed_value_floats")?
        .unwrap_or_default();
    let integers: Vec<i64> = node
        .get_attr_opt_vec("imputed_value_int64s")?
        .unwrap_or_default();
    match (floats.is_empty(), integers.is_empty()) {
        (false, true) => kernel::build(Imputer::Floats {
            imputed: floats,
            replaced: node.get_attr_opt("replaced_value_float")?.unwrap_or(0.0),
        }),
        (true, false) => kernel::build(Imputer::Integers {
            imputed: integers,
            replaced: node.get_attr_opt("replaced_value_int64")?.unwrap_or(0),
        }),
        (true, true) => bail!("neither imputed_value_floats nor imputed_value_int64s has a value"),
        (false, false) => {
            bail!("both imputed_value_floats and imputed_value_int64s are given, expected one")
        }
    }
}

/// Copies `input`, replacing each element that `is_replaced` by its column's imputed value.
fn impute<T: Datum + Copy, V>(
    input: &Tensor,
    imputed: &[V],
    is_replaced: impl Fn(T) -> bool,
    to_element: impl Fn(&V) -> T,
) -> TractResult<Tensor> {
    columns(COUNTED, imputed.len(), input.shape())?;
    let mut output = input.deep_clone();
    let mut view = output.try_as_plain_ram_mut()?;
    for row in view.as_slice_mut::<T>()?.chunks_mut(imputed.len()) {
        for (element, imputed) in row.iter_mut().zip(imputed) {
            if is_replaced(*element) {
                *element = to_element(imputed);
            }
        }
    }
    Ok(output)
}

/// Equality in which NaN equals NaN.
fn same_float(element: f64, replaced: f64) -> bool {
    element == replaced || (element.is_nan() && replaced.is_nan())
}

impl Kernel for Imputer {
    fn name(&self) -> &'static str {
        "Imputer"
    }

    fn output_type(&self, input: DatumType) -> TractResult<DatumType> {
        match (self, input) {
            (Imputer::Floats { .. }, DatumType::F32 | DatumType::F64)
            | (Imputer::Integers { .. }, DatumType::I64) => Ok(input),
            (Imputer::Integers { imputed, replaced }, DatumType::I32) => {
                for value in imputed.iter().chain([replaced]) {
                    if i32::try_from(*value).is_err() {
                        bail!("the value {value} does not fit the int32 input");
                    }
                }
                Ok(input)
            }
            (Imputer::Floats { .. }, _) => {
                bail!("imputed_value_floats needs F32 or F64 input, found {input:?}")
            }
            (Imputer::Integers { .. }, _) => {
                bail!("imputed_value_int64s needs I64 or I32 input, found {input:?}")
            }
        }
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        let found = match self {
            Imputer::Floats { imputed, .. } => imputed.len(),
            Imputer::Integers { imputed, .. } => imputed.len(),
        };
        columns(COUNTED, found, input)?;
        same_shape(input)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        match (self, input.datum_type()) {
            (Imputer::Floats { imputed, replaced }, DatumType::F32) => impute(
                input,
                imputed,
                |x: f32| same_float(f64::from(x), f64::from(*replaced)),
                |v| *v,
            ),
            (Imputer::Floats { imputed, replaced }, DatumType::F64) => impute(
                input,
                imputed,
                |x: f64| same_float(x, f64::from(*replaced)),
                |v| f64::from(*v),
            ),
            (Imputer::Integers { imputed, replaced }, DatumType::I64) => {
                impute(input, imputed, |x: i64| x == *replaced, |v| *v)
            }
            (Imputer::Integers { imputed, replaced }, DatumType::I32) => {
                // `output_type` made sure that the values fit.
                impute(
                    input,
                    imputed,
                    |x: i32| i64::from(x) == *replaced,
                    |v| *v as i32,
                )
            }
            (_, other) => bail!("element type {other:?} is not supported"),
        }
    }
}
