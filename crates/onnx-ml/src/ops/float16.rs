//! float16 by way of float32, as ONNX Runtime computes it on processors: the inputs are widened,
//! which is exact, and the first output is rounded once.

use half::f16;

use crate::operator::{Arg, Args, OpError, Operator, Outputs};
use crate::tensor::{Data, DataType, Tensor};

/// Whether some input is float16.
pub(crate) fn any(args: &Args<'_>) -> bool {
    args.values
        .iter()
        .filter_map(Arg::tensor)
        .any(|tensor| tensor.data_type() == DataType::F16)
}

/// Runs the operator on float32 copies of its float16 inputs.
pub(crate) fn run(operator: &dyn Operator, args: &mut Args<'_>) -> Result<Outputs, OpError> {
    // All together: one tensor may be there many times.
    let halves = args.values.iter().filter_map(Arg::tensor);
    let halves = halves.filter(|tensor| tensor.data_type() == DataType::F16);
    let elements = halves.map(Tensor::len).fold(0, usize::saturating_add);
    args.context.reserve(elements, DataType::F32)?;
    for value in &mut args.values {
        if let Some(tensor) = value.tensor()
            && let Data::F16(halves) = tensor.data()
        {
            let wide: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            *value = Arg::Owned(Tensor::new(tensor.shape(), wide)?);
        }
    }
    let mut outputs = operator.run(args)?;
    if let Some(first) = outputs.first_mut()
        && let Data::F32(wide) = first.data()
    {
        let halves: Vec<f16> = wide.iter().map(|value| f16::from_f32(*value)).collect();
        *first = Tensor::new(first.shape(), halves)?;
    }
    Ok(outputs)
}
