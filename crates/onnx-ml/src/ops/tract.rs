//! Convolutions, pooling and recurrent layers, lent by `tract`.
//!
//! Tabular models rarely have them; models of series do. Each node becomes a small tract graph of its
//! own, analysed and optimised for the shapes at hand and kept for the next run with the same
//! shapes, so that these operators stand beside all others in one graph. The bits of a row may
//! depend on the batch it is in: tract chooses its kernels by shape.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tract_onnx::pb::{self, tensor_proto::DataType as PbType};
use tract_onnx::prelude::{self as tract, Framework, IntoRunnable};

use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs};
use crate::tensor::{Data, DataType, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("AveragePool", build),
    ("Conv", build),
    ("ConvTranspose", build),
    ("GRU", build),
    ("GlobalAveragePool", build),
    ("GlobalMaxPool", build),
    ("LSTM", build),
    ("MaxPool", build),
    ("RNN", build),
];

/// Shapes whose plans are kept; a model meets one or two, and a hostile caller should not fill the
/// memory with more.
const PLANS_KEPT: usize = 8;

type Runnable = Arc<tract::TypedRunnableModel>;

/// One node as tract runs it.
#[derive(Debug)]
struct Lent {
    node: pb::NodeProto,
    version: i64,
    /// The inputs that the file fixes.
    constants: Vec<Option<Tensor>>,
    /// Plans by the shapes of the other inputs, the last used at the end.
    plans: Mutex<Vec<(Vec<Vec<usize>>, Runnable)>>,
}

fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let bytes = node.encode();
    let mut proto = pb::NodeProto::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    for (index, name) in proto.input.iter_mut().enumerate() {
        if !name.is_empty() {
            *name = format!("input{index}");
        }
    }
    for (index, name) in proto.output.iter_mut().enumerate() {
        if !name.is_empty() {
            *name = format!("output{index}");
        }
    }
    let constants = (0..node.inputs()).map(|index| node.constant(index).cloned());
    Ok(Box::new(Lent {
        node: proto,
        version: node.version,
        constants: constants.collect(),
        plans: Mutex::new(Vec::new()),
    }))
}

impl Operator for Lent {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let mut inputs = Vec::new();
        let mut shapes = Vec::new();
        for (index, constant) in self.constants.iter().enumerate() {
            if constant.is_none()
                && let Some(tensor) = args.optional(index)
            {
                shapes.push(tensor.shape().to_vec());
                inputs.push((index, tensor));
            }
        }
        if inputs.iter().any(|(_, tensor)| tensor.is_empty()) {
            let found = catch_unwind(AssertUnwindSafe(|| self.empty(&inputs, args.context)));
            return found
                .unwrap_or_else(|_| Err("tract cannot analyse the node".to_string().into()));
        }
        let plan = self.plan(&inputs, &shapes, args.context)?;
        let values = inputs
            .iter()
            .map(|(_, tensor)| to_tract(tensor).map(tract::IntoTValue::into_tvalue));
        let values = values.collect::<Result<tract::TVec<_>, String>>()?;
        // Thousands of lines of another project run here; a panic in them must cost the call only.
        let outputs = catch_unwind(AssertUnwindSafe(|| plan.run(values)));
        let outputs = outputs.map_err(|_| "tract failed on these values".to_string())?;
        let outputs = outputs.map_err(|error| format!("{error:#}"))?;
        let mut tensors = Outputs::new();
        let mut outputs = outputs.into_iter();
        for name in &self.node.output {
            match outputs.next() {
                Some(output) if !name.is_empty() => tensors.push(from_tract(&output)?),
                _ => tensors.push(Tensor::vector::<f32>(Vec::new())),
            }
        }
        Ok(tensors)
    }
}

impl Lent {
    fn plan(
        &self,
        inputs: &[(usize, &Tensor)],
        shapes: &[Vec<usize>],
        context: &Context<'_>,
    ) -> Result<Runnable, OpError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = plans.iter().position(|(known, _)| known == shapes) {
            let used = plans.remove(place);
            let plan = Arc::clone(&used.1);
            plans.push(used);
            return Ok(plan);
        }
        let analysed = catch_unwind(AssertUnwindSafe(|| self.analyse(inputs, context)));
        let plan =
            analysed.unwrap_or_else(|_| Err("tract cannot analyse the node".to_string().into()))?;
        if plans.len() >= PLANS_KEPT {
            plans.remove(0);
        }
        plans.push((shapes.to_vec(), Arc::clone(&plan)));
        Ok(plan)
    }

    /// The outputs when there are no rows: of the right shape, and without elements. Not all of
    /// tract's operators are analysed for nothing, so this looks at how the outputs of one row
    /// differ from those of two.
    fn empty(
        &self,
        inputs: &[(usize, &Tensor)],
        context: &Context<'_>,
    ) -> Result<Outputs, OpError> {
        let analyse = |rows: usize| {
            let mut stand_ins = Vec::new();
            for (index, tensor) in inputs {
                let sizes = tensor.shape().iter();
                let shape: Vec<usize> = sizes.map(|s| if *s == 0 { rows } else { *s }).collect();
                let elements = shape
                    .iter()
                    .try_fold(1usize, |n, size| n.checked_mul(*size));
                context.reserve(elements.unwrap_or(usize::MAX), tensor.data_type())?;
                stand_ins.push((*index, Tensor::zeros(tensor.data_type(), &shape)?));
            }
            let borrowed: Vec<(usize, &Tensor)> = stand_ins.iter().map(|(i, t)| (*i, t)).collect();
            self.typed(&borrowed)
        };
        let (one, two) = (analyse(1)?, analyse(2)?);
        let mut tensors = Outputs::new();
        let mut place = 0;
        for name in &self.node.output {
            if name.is_empty() {
                tensors.push(Tensor::vector::<f32>(Vec::new()));
                continue;
            }
            let one = one.output_fact(place).map_err(failed)?.shape.as_concrete();
            let two = two.output_fact(place).map_err(failed)?.shape.as_concrete();
            let pairs = one.unwrap_or_default().iter().zip(two.unwrap_or_default());
            let shape: Vec<usize> = pairs.map(|(a, b)| if a == b { *a } else { 0 }).collect();
            if !shape.contains(&0) {
                return Err("an input has no elements".to_string().into());
            }
            tensors.push(Tensor::zeros(DataType::F32, &shape)?);
            place += 1;
        }
        Ok(tensors)
    }

    /// The node as a graph of its own, for inputs of these shapes.
    fn typed(&self, inputs: &[(usize, &Tensor)]) -> Result<tract::TypedModel, OpError> {
        let mut graph = pb::GraphProto {
            node: vec![self.node.clone()],
            ..Default::default()
        };
        for (index, tensor) in inputs {
            graph
                .input
                .push(value_info(format!("input{index}"), tensor));
        }
        for (index, constant) in self.constants.iter().enumerate() {
            if let Some(tensor) = constant {
                graph
                    .initializer
                    .push(initializer(format!("input{index}"), tensor)?);
            }
        }
        for name in self.node.output.iter().filter(|name| !name.is_empty()) {
            graph.output.push(pb::ValueInfoProto {
                name: name.clone(),
                ..Default::default()
            });
        }
        let model = pb::ModelProto {
            ir_version: 8,
            opset_import: vec![pb::OperatorSetIdProto {
                domain: String::new(),
                version: self.version,
            }],
            graph: Some(graph),
            ..Default::default()
        };
        let typed = tract_onnx::onnx()
            .model_for_proto_model(&model)
            .map_err(failed)?;
        tract::InferenceModelExt::into_typed(typed).map_err(failed)
    }

    /// The plan of that graph.
    fn analyse(
        &self,
        inputs: &[(usize, &Tensor)],
        context: &Context<'_>,
    ) -> Result<Runnable, OpError> {
        let typed = self.typed(inputs)?;
        // All sizes are known here, so that what the run will take is known before it starts.
        let mut bytes = 0u64;
        for node in typed.nodes() {
            for output in &node.outputs {
                let sizes = output.fact.shape.as_concrete().unwrap_or_default();
                let elements = sizes
                    .iter()
                    .try_fold(8u64, |n, size| n.checked_mul(*size as u64));
                bytes = bytes.saturating_add(elements.unwrap_or(u64::MAX));
            }
        }
        context.reserve_bytes(bytes)?;
        let optimized = typed.into_optimized().map_err(failed)?;
        optimized.into_runnable().map_err(failed)
    }
}

fn failed(error: tract::TractError) -> OpError {
    OpError::Value(format!("{error:#}"))
}

fn value_info(name: String, tensor: &Tensor) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = tensor.shape().iter().map(|size| Dimension {
        value: Some(Value::DimValue(i64::try_from(*size).unwrap_or(i64::MAX))),
        ..Default::default()
    });
    let tensor_type = pb::type_proto::Tensor {
        elem_type: tensor.data_type() as i32,
        shape: Some(pb::TensorShapeProto { dim: dim.collect() }),
    };
    pb::ValueInfoProto {
        name,
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor_type)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn initializer(name: String, tensor: &Tensor) -> Result<pb::TensorProto, String> {
    let (data_type, raw_data): (PbType, Vec<u8>) = match tensor.data() {
        Data::F32(values) => (
            PbType::Float,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        Data::F64(values) => (
            PbType::Double,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        Data::I64(values) => (
            PbType::Int64,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        Data::I32(values) => (
            PbType::Int32,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        other => {
            return Err(format!(
                "constants of type {} are not supported",
                other.data_type()
            ));
        }
    };
    Ok(pb::TensorProto {
        name,
        dims: tensor
            .shape()
            .iter()
            .map(|size| i64::try_from(*size).unwrap_or(i64::MAX))
            .collect(),
        data_type: data_type as i32,
        raw_data,
        ..Default::default()
    })
}

fn to_tract(tensor: &Tensor) -> Result<tract::Tensor, String> {
    let shape = tensor.shape();
    let made = match tensor.data() {
        Data::F32(values) => tract::Tensor::from_shape(shape, values),
        Data::F64(values) => tract::Tensor::from_shape(shape, values),
        Data::I64(values) => tract::Tensor::from_shape(shape, values),
        Data::I32(values) => tract::Tensor::from_shape(shape, values),
        other => {
            return Err(format!(
                "inputs of type {} are not supported",
                other.data_type()
            ));
        }
    };
    made.map_err(|error| format!("{error:#}"))
}

fn from_tract(tensor: &tract::Tensor) -> Result<Tensor, OpError> {
    fn values<T: tract::Datum + Clone>(tensor: &tract::Tensor) -> Result<Vec<T>, String> {
        let view = tensor
            .to_plain_array_view::<T>()
            .map_err(|error| format!("{error:#}"))?;
        Ok(view.iter().cloned().collect())
    }
    let data = match tensor.datum_type() {
        tract::DatumType::F32 => Data::F32(values(tensor)?),
        tract::DatumType::F64 => Data::F64(values(tensor)?),
        tract::DatumType::I64 => Data::I64(values(tensor)?),
        tract::DatumType::I32 => Data::I32(values(tensor)?),
        other => {
            let expected = DataType::F32;
            return Err(OpError::Type(format!(
                "its output is {other:?}, expected {expected}"
            )));
        }
    };
    Ok(Tensor::from_data(tensor.shape(), data)?)
}
