//! `Concat` of strings: the columns of a customer put side by side, the first node of most tabular
//! models that take categories.
//!
//! tract's own concatenation assigns slices of n-dimensional views, which for a handful of strings
//! costs many times what copying them does. Here blocks are copied in order. Every other element
//! type goes to tract.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::array::{Concat, TypedConcat};

use super::kernel::Built;

pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let axis: i64 = node.get_attr("axis")?;
    let concat = ConcatOfAnyType {
        axis,
        tract: Concat::new(axis),
    };
    Ok((expand(concat), vec![]))
}

/// The operator before its element type is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ConcatOfAnyType {
    axis: i64,
    tract: Concat,
}

impl Expansion for ConcatOfAnyType {
    fn name(&self) -> StaticName {
        "Concat".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.tract.rules(solver, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let mut rank = 0;
        for input in inputs {
            let fact = model.outlet_fact(*input)?;
            if fact.datum_type != DatumType::String {
                return self.tract.wire(prefix, model, inputs);
            }
            rank = fact.rank();
        }
        let from_end = if self.axis < 0 { rank as i64 } else { 0 };
        let axis = usize::try_from(self.axis + from_end)?;
        ensure!(axis < rank, "axis {} of {rank} dimensions", self.axis);
        model.wire_node(prefix, StringConcat { axis }, inputs)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StringConcat {
    axis: usize,
}

impl Op for StringConcat {
    fn name(&self) -> StaticName {
        "StringConcat".into()
    }

    op_as_typed_op!();
}

impl EvalOp for StringConcat {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Some(first) = inputs.first() else {
            bail!("Concat got no input");
        };
        let mut shape: TVec<usize> = first.shape().into();
        let rows: usize = shape[..self.axis].iter().product();
        shape[self.axis] = 0;
        let mut sources: TVec<&[String]> = TVec::new();
        for input in &inputs {
            let fits = input.rank() == shape.len()
                && (0..shape.len())
                    .all(|axis| axis == self.axis || input.shape()[axis] == first.shape()[axis]);
            ensure!(
                fits,
                "Concat of shapes {:?} and {:?} along axis {}",
                first.shape(),
                input.shape(),
                self.axis
            );
            shape[self.axis] += input.shape()[self.axis];
            sources.push(input.try_as_plain_ram()?.as_slice::<String>()?);
        }
        let mut joined: Vec<String> = Vec::with_capacity(shape.iter().product());
        for row in 0..rows {
            for source in &sources {
                let width = source.len() / rows;
                joined.extend_from_slice(&source[row * width..(row + 1) * width]);
            }
        }
        let array = tract_ndarray::ArrayD::from_shape_vec(&*shape, joined)?;
        Ok(tvec!(array.into_tensor().into_tvalue()))
    }
}

impl TypedOp for StringConcat {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        TypedConcat::new(self.axis).output_facts(inputs)
    }

    as_op!();
}
