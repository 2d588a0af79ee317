//! [`Shortcut`]: texts that are one-hot encoded and then multiplied by a matrix, without the ones and
//! zeros in between.
//!
//! Linear models of tabular data begin like this, and most of their time goes into writing zeros and
//! multiplying by them:
//!
//! ```text
//! [Concat of texts] -> OneHotEncoder -> Flatten or Reshape -> Concat with numbers -> Gemm or MatMul
//! ```
//!
//! Steps that belong together like that, and whose values in between nobody else reads, are put next to
//! each other in the plan. A run tries the shortcut first. Where the tensors at hand are not as it needs
//! them, or a text is refused, the steps are run one by one, so that results and errors are the same.

mod find;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use super::{Plan, Slot, Source, bytes};
use crate::operator::{Context, OpError};
use crate::ops::dense::{FixedProduct, addend};
use crate::ops::encoded_product::{Columns, EncodedProduct};
use crate::ops::one_hot_encoder::OneHotEncoder;
use crate::tensor::Tensor;

/// Some steps of a plan, one after the other.
#[derive(Debug)]
pub(super) struct Shortcut {
    /// The first of its steps, and how many they are; the last is the product.
    pub first: usize,
    steps: usize,
    /// The columns of the left matrix.
    parts: Vec<Part>,
    /// What the product adds.
    addend: Source,
}

#[derive(Debug)]
enum Part {
    Numbers(Source),
    /// Side by side, and which of the steps encodes them into how many columns, if that is fixed.
    Texts {
        texts: SmallVec<[Source; 4]>,
        encoder: usize,
        columns: Option<usize>,
    },
}

impl Plan {
    /// Runs the steps of `shortcut` at once if that is possible. How many steps are done: all of them,
    /// or none.
    pub(super) fn take<'a>(
        &'a self,
        shortcut: &Shortcut,
        slots: &mut [Slot<'a>],
        context: &Context<'_>,
    ) -> Result<usize, OpError> {
        let tensor = {
            let Some(product) = self.encoded_product(shortcut, slots)? else {
                return Ok(0);
            };
            context.take_steps(1)?;
            let Some(results) = product.compute(context)? else {
                return Ok(0);
            };
            Tensor::new(&[product.rows, product.right.columns], results)?
        };
        let steps = &self.steps[shortcut.first..shortcut.first + shortcut.steps];
        let mut freed = 0;
        for input in steps.iter().flat_map(|step| &step.inputs) {
            if let (Source::Slot(place), true) = (input.source, input.last)
                && let Slot::Owned(tensor) = std::mem::replace(&mut slots[place], Slot::Empty)
            {
                freed += bytes(&tensor);
            }
        }
        let live = context.live_bytes.get().saturating_sub(freed);
        context.live_bytes.set(live);
        context.keep(bytes(&tensor))?;
        if let Some(place) = steps.last().and_then(|step| *step.outputs.first()?) {
            slots[place] = Slot::Owned(tensor);
        }
        Ok(shortcut.steps)
    }

    /// The product of the tensors at hand; `None` if they are not two-dimensional, of other types or
    /// of other sizes than the shortcut is for.
    fn encoded_product<'a>(
        &'a self,
        shortcut: &Shortcut,
        slots: &'a [Slot<'a>],
    ) -> Result<Option<EncodedProduct<'a>>, OpError> {
        let last = shortcut.first + shortcut.steps - 1;
        let Some(fixed) = FixedProduct::computed_by(&*self.steps[last].operator) else {
            return Ok(None);
        };
        let mut left: SmallVec<[Columns<'a>; 4]> = SmallVec::new();
        let mut rows = None;
        let mut inner = 0usize;
        for part in &shortcut.parts {
            let sources = match part {
                Part::Numbers(source) => std::slice::from_ref(source),
                Part::Texts { texts, .. } => texts,
            };
            let before = inner;
            for source in sources {
                let Some(tensor) = self.tensor(*source, slots) else {
                    return Ok(None);
                };
                let [tensor_rows, width] = *tensor.shape() else {
                    return Ok(None);
                };
                let columns = self.columns(part, shortcut.first, tensor, width);
                let Some(columns) = columns.filter(|_| width > 0) else {
                    return Ok(None);
                };
                if *rows.get_or_insert(tensor_rows) != tensor_rows {
                    return Ok(None);
                }
                inner = inner.saturating_add(columns.inner());
                left.push(columns);
            }
            if let Part::Texts { columns, .. } = part
                && columns.is_some_and(|columns| columns != inner - before)
            {
                return Ok(None);
            }
        }
        let rows = rows.unwrap_or_default();
        if rows == 0 || inner != fixed.right.inner {
            return Ok(None);
        }
        let added = self.tensor(shortcut.addend, slots);
        Ok(Some(EncodedProduct {
            left,
            rows,
            right: fixed.right,
            scale: fixed.scale,
            addend: addend(added, rows, fixed.right.columns, fixed.addend_scale)?,
        }))
    }

    fn columns<'a>(
        &'a self,
        part: &Part,
        first: usize,
        tensor: &'a Tensor,
        width: usize,
    ) -> Option<Columns<'a>> {
        let Part::Texts { encoder, .. } = part else {
            let values = tensor.as_slice::<f32>()?;
            return Some(Columns::Numbers { values, width });
        };
        let encoder: &OneHotEncoder = self.steps[first + encoder].operator.downcast_ref()?;
        Some(Columns::Texts {
            values: tensor.as_slice()?,
            width,
            encoder,
            places: encoder.texts()?,
        })
    }

    fn tensor<'a>(&'a self, source: Source, slots: &'a [Slot<'a>]) -> Option<&'a Tensor> {
        match source {
            Source::Absent => None,
            Source::Constant(place) => Some(&self.constants[place]),
            Source::Slot(place) => match &slots[place] {
                Slot::Owned(tensor) => Some(tensor),
                Slot::Borrowed(tensor) => Some(tensor),
                Slot::Empty => None,
            },
        }
    }

    /// How many there were.
    #[cfg(test)]
    pub(crate) fn drop_shortcuts(&mut self) -> usize {
        std::mem::take(&mut self.shortcuts).len()
    }
}
