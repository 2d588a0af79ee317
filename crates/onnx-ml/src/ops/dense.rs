//! `Gemm` and `MatMul` by a constant matrix: the linear layer that ends most tabular models.
//!
//! tract chooses among matrix kernels by the number of rows, so the same row may sum in another order
//! alone than in a batch; and its preparation costs more than a small layer's arithmetic. Here each
//! output is one sum over the inputs in the order of the file, in float64, rounded once. That makes
//! a row's bits independent of its batch and the result at least as exact as ONNX Runtime's float32
//! sum. Layers whose matrix is not constant, not float32 or too large for this to pay go to tract.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_hir::internal::*;

use super::kernel::{self, Built, Kernel};
use super::tract_operators;

/// Above this many weights tract's blocked kernels win by more than their overhead.
const MOST_WEIGHTS: usize = 1 << 15;

#[derive(Debug)]
struct Dense {
    operator: &'static str,
    /// `[inputs][outputs]`, each weight times `alpha`.
    weights: Vec<f64>,
    /// One per output, times `beta`; zeros when the node has none.
    bias: Vec<f64>,
    inputs: usize,
    outputs: usize,
    node_inputs: usize,
    /// `Gemm` is defined for two dimensions only.
    matrices_only: bool,
}

pub(super) fn build_gemm(context: &ParsingContext, node: &NodeProto) -> Built {
    match gemm(context, node)? {
        Some(dense) => kernel::build(dense),
        None => original("Gemm", context, node),
    }
}

pub(super) fn build_matmul(context: &ParsingContext, node: &NodeProto) -> Built {
    let Some((weights, shape)) = constant_floats(context, node, 1)? else {
        return original("MatMul", context, node);
    };
    let [inputs, outputs] = *shape else {
        return original("MatMul", context, node);
    };
    if weights.len() > MOST_WEIGHTS || node.input.len() != 2 {
        return original("MatMul", context, node);
    }
    kernel::build(Dense {
        operator: "MatMul",
        weights: weights.iter().map(|w| f64::from(*w)).collect(),
        bias: vec![0.0; outputs],
        inputs,
        outputs,
        node_inputs: 2,
        matrices_only: false,
    })
}

fn original(name: &str, context: &ParsingContext, node: &NodeProto) -> Built {
    match tract_operators().op_register.0.get(name) {
        Some(build) => build(context, node),
        None => bail!("the graph engine has no {name}"),
    }
}

/// The layer of a `Gemm` node, or `None` when tract should run it.
fn gemm(context: &ParsingContext, node: &NodeProto) -> TractResult<Option<Dense>> {
    let alpha: f32 = node.get_attr_opt("alpha")?.unwrap_or(1.0);
    let beta: f32 = node.get_attr_opt("beta")?.unwrap_or(1.0);
    let transpose_a = node.get_attr_opt::<i64>("transA")?.unwrap_or(0) != 0;
    let transpose_b = node.get_attr_opt::<i64>("transB")?.unwrap_or(0) != 0;
    let Some((matrix, shape)) = constant_floats(context, node, 1)? else {
        return Ok(None);
    };
    let [rows, columns] = *shape else {
        bail!(
            "the second input has {} dimensions, expected 2",
            shape.len()
        );
    };
    if transpose_a || matrix.len() > MOST_WEIGHTS {
        return Ok(None);
    }
    let (inputs, outputs) = if transpose_b {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let has_bias = node.input.get(2).is_some_and(|name| !name.is_empty());
    let bias = if has_bias {
        match constant_floats(context, node, 2)? {
            Some((values, shape)) => match bias_per_output(&values, &shape, outputs, beta) {
                Some(bias) => bias,
                None => return Ok(None),
            },
            None => return Ok(None),
        }
    } else {
        vec![0.0; outputs]
    };
    let mut weights = vec![0.0; matrix.len()];
    for input in 0..inputs {
        for output in 0..outputs {
            let from = if transpose_b {
                output * inputs + input
            } else {
                input * outputs + output
            };
            weights[input * outputs + output] = f64::from(matrix[from]) * f64::from(alpha);
        }
    }
    let node_inputs = if has_bias { 3 } else { 2 };
    Ok(Some(Dense {
        operator: "Gemm",
        weights,
        bias,
        inputs,
        outputs,
        node_inputs,
        matrices_only: true,
    }))
}

/// `C` of `Gemm` as one value per output; `None` when it differs from row to row.
fn bias_per_output(values: &[f32], shape: &[usize], outputs: usize, beta: f32) -> Option<Vec<f64>> {
    let rows: usize = match shape.len() {
        0 | 1 => 1,
        2 => shape[0],
        _ => return None,
    };
    if rows != 1 {
        return None;
    }
    let scaled = |value: f32| f64::from(value) * f64::from(beta);
    match values {
        [single] => Some(vec![scaled(*single); outputs]),
        each if each.len() == outputs => Some(each.iter().map(|v| scaled(*v)).collect()),
        _ => None,
    }
}

/// The values and shape of a node's input when it is a float32 initializer.
#[allow(clippy::type_complexity)]
fn constant_floats(
    context: &ParsingContext,
    node: &NodeProto,
    input: usize,
) -> TractResult<Option<(Vec<f32>, TVec<usize>)>> {
    let (Some(name), Some(graph)) = (node.input.get(input), &context.model.graph) else {
        return Ok(None);
    };
    let found: Option<&TensorProto> = graph.initializer.iter().find(|t| t.name == *name);
    let Some(proto) = found else {
        return Ok(None);
    };
    let tensor = context.load_tensor(proto)?;
    if tensor.datum_type() != DatumType::F32 {
        return Ok(None);
    }
    let values = tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
    Ok(Some((values, tensor.shape().into())))
}

impl Kernel for Dense {
    fn name(&self) -> &'static str {
        self.operator
    }

    fn node_inputs(&self) -> usize {
        self.node_inputs
    }

    fn output_type(&self, input: DatumType) -> TractResult<DatumType> {
        if input != DatumType::F32 {
            bail!("the matrix is F32, so F32 input is expected, found {input:?}");
        }
        Ok(DatumType::F32)
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        if self.matrices_only && input.len() != 2 {
            bail!("the first input has {} dimensions, expected 2", input.len());
        }
        let mut shape: TVec<TDim> = input.into();
        let Some(last) = shape.last_mut() else {
            bail!("the first input is a scalar, expected at least one dimension");
        };
        // A number of columns that only the run decides is checked there.
        if last.to_usize().is_ok_and(|columns| columns != self.inputs) {
            bail!(
                "the first input has {last} columns, the matrix {} rows",
                self.inputs
            );
        }
        *last = self.outputs.to_dim();
        Ok(shape)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        let mut shape: TVec<usize> = input.shape().into();
        if let Some(last) = shape.last_mut() {
            if *last != self.inputs {
                bail!(
                    "the first input has {last} columns, the matrix {} rows",
                    self.inputs
                );
            }
            *last = self.outputs;
        }
        let mut output = Tensor::zero::<f32>(&shape)?;
        if output.len() == 0 {
            return Ok(output);
        }
        let mut output_view = output.try_as_plain_ram_mut()?;
        let results = output_view.as_slice_mut::<f32>()?;
        let input_view = input.try_as_plain_ram()?;
        let values = input_view.as_slice::<f32>()?;
        let mut sums = vec![0.0; self.outputs];
        for (row, result) in results.chunks_mut(self.outputs).enumerate() {
            sums.fill(0.0);
            let row_values = &values[row * self.inputs..(row + 1) * self.inputs];
            for (value, weights) in row_values.iter().zip(self.weights.chunks(self.outputs)) {
                let value = f64::from(*value);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += value * weight;
                }
            }
            for ((to, sum), bias) in result.iter_mut().zip(&sums).zip(&self.bias) {
                *to = (sum + bias) as f32;
            }
        }
        Ok(output)
    }
}
