//! `OneHotEncoder` (ai.onnx.ml 1): each element becomes a row of zeros with a one at its category.
//!
//! As ONNX Runtime: numbers are compared after cutting them to integers; of a category listed twice
//! the last place counts; an unknown category gives zeros, or an error when `zeros` is 0. Beyond it:
//! int32 input, which the specification has and ONNX Runtime has not. Unlike it: a file whose
//! categories are strings while its input is a number (or the reverse) is refused, since nothing
//! could ever match.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{self, Built, Kernel};
use super::numbers::truncate_to_i64;

#[derive(Debug)]
enum Categories {
    Strings(HashMap<String, usize>),
    Integers(HashMap<i64, usize>),
}

#[derive(Debug)]
struct OneHotEncoder {
    categories: Categories,
    /// How many categories the file lists, those listed twice counted twice.
    width: usize,
    unknown_is_zeros: bool,
}

pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let strings: Vec<String> = node.get_attr_opt_vec("cats_strings")?.unwrap_or_default();
    let integers: Vec<i64> = node.get_attr_opt_vec("cats_int64s")?.unwrap_or_default();
    let unknown_is_zeros = node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0;
    let width = strings.len() + integers.len();
    let categories = match (strings.is_empty(), integers.is_empty()) {
        (false, true) => Categories::Strings(
            strings
                .into_iter()
                .enumerate()
                .map(|(i, c)| (c, i))
                .collect(),
        ),
        (true, false) => Categories::Integers(
            integers
                .into_iter()
                .enumerate()
                .map(|(i, c)| (c, i))
                .collect(),
        ),
        (true, true) => bail!("neither cats_strings nor cats_int64s lists a category"),
        (false, false) => bail!("both cats_strings and cats_int64s are given, expected one"),
    };
    kernel::build(OneHotEncoder {
        categories,
        width,
        unknown_is_zeros,
    })
}

impl OneHotEncoder {
    /// Sets the ones for every element; `place` finds an element's category.
    fn encode<T: std::fmt::Debug>(
        &self,
        elements: &[T],
        shape: &[usize],
        place: impl Fn(&T) -> Option<usize>,
    ) -> TractResult<Tensor> {
        let mut output_shape: TVec<usize> = shape.into();
        output_shape.push(self.width);
        let mut output = Tensor::zero::<f32>(&output_shape)?;
        let mut view = output.try_as_plain_ram_mut()?;
        let cells = view.as_slice_mut::<f32>()?;
        for (index, element) in elements.iter().enumerate() {
            match place(element) {
                Some(category) => cells[index * self.width + category] = 1.0,
                None if self.unknown_is_zeros => {}
                None => bail!(
                    "unknown category {element:?} at element {index}, and the attribute `zeros` is \
                     0, which forbids unknown categories"
                ),
            }
        }
        Ok(output)
    }
}

impl Kernel for OneHotEncoder {
    fn name(&self) -> &'static str {
        "OneHotEncoder"
    }

    fn output_type(&self, input: DatumType) -> TractResult<DatumType> {
        let accepted = match &self.categories {
            Categories::Strings(_) => input == DatumType::String,
            Categories::Integers(_) => matches!(
                input,
                DatumType::I64 | DatumType::I32 | DatumType::F32 | DatumType::F64
            ),
        };
        if !accepted {
            match &self.categories {
                Categories::Strings(_) => bail!("cats_strings needs String input, found {input:?}"),
                Categories::Integers(_) => {
                    bail!("cats_int64s needs I64, I32, F32 or F64 input, found {input:?}")
                }
            }
        }
        Ok(DatumType::F32)
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        let mut shape: TVec<TDim> = input.into();
        shape.push(self.width.to_dim());
        Ok(shape)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        let view = input.try_as_plain_ram()?;
        let shape = input.shape();
        match &self.categories {
            Categories::Strings(places) => self.encode(view.as_slice::<String>()?, shape, |s| {
                places.get(s).copied()
            }),
            Categories::Integers(places) => match input.datum_type() {
                DatumType::I64 => {
                    self.encode(view.as_slice::<i64>()?, shape, |i| places.get(i).copied())
                }
                DatumType::I32 => self.encode(view.as_slice::<i32>()?, shape, |i| {
                    places.get(&i64::from(*i)).copied()
                }),
                DatumType::F32 => self.encode(view.as_slice::<f32>()?, shape, |x| {
                    places.get(&truncate_to_i64(f64::from(*x))).copied()
                }),
                DatumType::F64 => self.encode(view.as_slice::<f64>()?, shape, |x| {
                    places.get(&truncate_to_i64(*x)).copied()
                }),
                other => bail!("element type {other:?} is not supported"),
            },
        }
    }
}
