//! What the operators of this crate have in common: one tensor in, one tensor out, and an output
//! type and shape that follow from those of the input.
//!
//! An operator implements [`Kernel`]; [`build`] makes of it what tract wants during analysis
//! (`Expansion`) and during the run (`TypedOp`).

use std::fmt;
use std::sync::Arc;

use tract_onnx::tract_hir::internal::*;

/// What an operator's builder returns to tract: the operator, and the outer names it closes on
/// (none of ours does).
pub(super) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// A function from one tensor to one tensor.
pub(super) trait Kernel: fmt::Debug + Send + Sync + 'static {
    /// The operator's name in the ONNX specification.
    fn name(&self) -> &'static str;

    /// The element type of the output, or an error that says which input types are taken.
    fn output_type(&self, input: DatumType) -> TractResult<DatumType>;

    /// The shape of the output.
    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>>;

    /// The output itself; `input` has a type and shape that the two functions above accepted.
    fn compute(&self, input: &Tensor) -> TractResult<Tensor>;

    /// How many inputs the node has. Only the first is read; the others are constants that the
    /// kernel took over when it was built.
    fn node_inputs(&self) -> usize {
        1
    }
}

/// Hands a kernel over to tract.
pub(super) fn build(kernel: impl Kernel) -> Built {
    Ok((expand(KernelOp(Arc::new(kernel))), vec![]))
}

/// Adds a kernel to a model, for operators that decide late which kernel they are.
pub(super) fn wire(
    kernel: impl Kernel,
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
) -> TractResult<TVec<OutletId>> {
    model.wire_node(prefix, KernelOp(Arc::new(kernel)), inputs)
}

/// The output shape of an operator that works element by element.
pub(super) fn same_shape(input: &[TDim]) -> TractResult<TVec<TDim>> {
    Ok(input.into())
}

#[derive(Clone)]
struct KernelOp(Arc<dyn Kernel>);

impl fmt::Debug for KernelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// tract compares operators to merge equal nodes. Two nodes of a file share no kernel, so they are
// never merged; nothing is lost but a rare optimisation.
impl PartialEq for KernelOp {
    fn eq(&self, other: &KernelOp) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for KernelOp {}

impl Expansion for KernelOp {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.0.node_inputs())?;
        check_output_arity(outputs, 1)?;
        solver.given(&inputs[0].datum_type, move |solver, datum_type| {
            solver.equals(&outputs[0].datum_type, self.0.output_type(datum_type)?)
        })?;
        solver.given(&inputs[0].shape, move |solver, shape| {
            let shape = self.0.output_shape(&shape)?;
            solver.equals(&outputs[0].shape, ShapeFactoid::from(shape))
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), &inputs[..1])
    }
}

impl Op for KernelOp {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for KernelOp {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Some(input) = inputs.first() else {
            bail!("{} got no input", self.0.name());
        };
        let output = self.0.compute(input)?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for KernelOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let datum_type = self.0.output_type(inputs[0].datum_type)?;
        let shape = self.0.output_shape(&inputs[0].shape)?;
        Ok(tvec!(datum_type.fact(shape)))
    }

    as_op!();
}
