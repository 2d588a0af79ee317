//! Convolutions, pooling and recurrent layers, lent by `tract`.
//!
//! Tabular models rarely have them; models of series do. Each node becomes a small tract graph of its
//! own, analysed and optimised for the shapes at hand and kept for the next run with the same
//! shapes, so that these operators stand beside all others in one graph. The bits of a row may
//! depend on the batch it is in: tract chooses its kernels by shape.
//!
//! What is promised of files and calls by people nobody knows:
//!
//! * Attributes are verified when the file is loaded and shapes before tract sees them (`windows`,
//!   `recurrent`). What tract does not know or would take no notice of is refused.
//! * The work of a run, and of the analysis before it, is counted in the steps of the run before it
//!   starts; so is the memory of outputs and of all copies in the bytes of the run (`needs`). The
//!   numbers are bounds made of the shapes alone, and often several times what is really taken.
//! * What a node keeps between runs, its plans with their packed weights, is counted when the file is
//!   loaded, together with what all other operators keep. A node that is over that budget keeps
//!   nothing, and is analysed in every run.
//!
//! It is not promised that tract is right: its thousands of lines are not ours, and some of them are
//! `unsafe`. A panic in them is an error of the call, and an output of another shape than expected is
//! one too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tract_onnx::pb::{self, tensor_proto::DataType as PbType};
use tract_onnx::prelude::{self as tract, Framework, IntoRunnable};

use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs};
use crate::tensor::{Data, DataType, Shape, Tensor};

mod needs;
mod recurrent;
mod windows;

use needs::{Layer, Needs, total};

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
const PLANS_KEPT: u64 = 8;
/// Bytes of a node's plans together up to which all of them are kept, and one in any case.
const SMALL_PLANS: u64 = 2 << 20;
/// Bytes of a plan besides its weights.
const PLAN_BYTES: u64 = 64 << 10;
/// Bytes of an entry of the tables of windows.
const OFFSET_BYTES: u64 = 16;
/// Elementary operations of the analysis for each element of the weights, for each of those as they
/// are packed, and for each entry of the tables.
const WEIGHT_OPERATIONS: u64 = 64;
const PACKED_OPERATIONS: u64 = 4;
const OFFSET_OPERATIONS: u64 = 128;

type Runnable = Arc<tract::TypedRunnableModel>;

/// What a plan is for: type and shape of every input that the file does not fix.
type Key = Vec<(usize, DataType, Shape)>;

/// One node as tract runs it.
#[derive(Debug)]
struct Lent {
    layer: Layer,
    node: pb::NodeProto,
    version: i64,
    /// The inputs whose value the file fixes.
    fixed: Vec<bool>,
    plans_kept: usize,
    /// The last used at the end.
    plans: Mutex<Vec<(Key, Runnable)>>,
}

fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let layer = Layer::read(node)?;
    let bytes = node.encode();
    let mut proto = pb::NodeProto::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    while proto.input.last().is_some_and(String::is_empty) {
        proto.input.pop();
    }
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
    // The series is an input even where the file fixes it.
    let constant = |index: usize| node.constant(index).filter(|_| index > 0);
    let constants: Vec<_> = (0..node.inputs()).map(constant).collect();
    let shapes: Vec<_> = constants.iter().map(|c| c.map(Tensor::shape)).collect();
    let size = constants.iter().flatten().map(|c| c.data_type().size());
    let elements: u64 = constants.iter().flatten().map(|c| c.len() as u64).sum();
    let plan = elements
        .max(layer.packed(&shapes))
        .saturating_mul(size.max().unwrap_or(0) as u64)
        .saturating_add(PLAN_BYTES);
    // What is over the budget of the file for such copies is made anew in every run.
    let wanted = (SMALL_PLANS / plan).clamp(1, PLANS_KEPT);
    let granted = node.prepare(plan.saturating_mul(wanted));
    Ok(Box::new(Lent {
        layer,
        node: proto,
        version: node.version,
        fixed: constants.iter().map(Option::is_some).collect(),
        plans_kept: if granted { wanted as usize } else { 0 },
        plans: Mutex::new(Vec::new()),
    }))
}

impl Operator for Lent {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let data_type = args.get(0)?.data_type();
        let inputs: Vec<Option<&Tensor>> = (0..args.len()).map(|i| args.optional(i)).collect();
        let shapes: Vec<_> = inputs.iter().map(|i| i.map(Tensor::shape)).collect();
        let needs = self.layer.needs(&shapes)?;
        if needs.outputs.iter().all(|shape| shape.contains(&0)) {
            return self.no_rows(data_type, &needs);
        }
        if inputs.iter().flatten().any(|tensor| tensor.is_empty()) {
            return Err("an input has no elements".to_string().into());
        }
        let context = args.context;
        context.work(needs.operations)?;
        context.reserve_bytes(needs.elements.saturating_mul(data_type.size() as u64))?;
        let mut key = Key::new();
        let mut values = tract::TVec::new();
        for (index, input) in inputs.iter().enumerate() {
            if let (Some(tensor), false) = (input, self.is_fixed(index)) {
                key.push((index, tensor.data_type(), Shape::from_slice(tensor.shape())));
                values.push(tract::IntoTValue::into_tvalue(to_tract(tensor)?));
            }
        }
        let plan = self.plan(&inputs, key, &needs, context)?;
        // Thousands of lines of another project run here; a panic in them must cost the call only.
        let outputs = catch_unwind(AssertUnwindSafe(|| plan.run(values)));
        let outputs = outputs.map_err(|_| "tract failed on these values".to_string())?;
        let outputs = outputs.map_err(|error| format!("{error:#}"))?;
        let mut tensors = Outputs::new();
        let mut outputs = outputs.into_iter();
        for (name, shape) in self.node.output.iter().zip(&needs.outputs) {
            if name.is_empty() {
                tensors.push(Tensor::vector::<f32>(Vec::new()));
                continue;
            }
            let found = outputs.next().map(|output| from_tract(&output));
            let found = found.ok_or_else(|| "tract gives too few outputs".to_string())??;
            if found.shape() != shape {
                return Err(OpError::Value(format!(
                    "tract gives an output of shape {:?}, expected {shape:?}",
                    found.shape()
                )));
            }
            tensors.push(found);
        }
        Ok(tensors)
    }
}

impl Lent {
    fn is_fixed(&self, index: usize) -> bool {
        self.fixed.get(index).copied().unwrap_or(false)
    }

    /// The outputs when there are no rows: of the right shape, and without elements.
    fn no_rows(&self, data_type: DataType, needs: &Needs) -> Result<Outputs, OpError> {
        let mut tensors = Outputs::new();
        for (place, shape) in needs.outputs.iter().enumerate() {
            let places = self.node.op_type == "MaxPool" && place == 1;
            let data_type = if places { DataType::I64 } else { data_type };
            tensors.push(Tensor::zeros(data_type, shape)?);
        }
        Ok(tensors)
    }

    fn plan(
        &self,
        inputs: &[Option<&Tensor>],
        key: Key,
        needs: &Needs,
        context: &Context<'_>,
    ) -> Result<Runnable, OpError> {
        {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = plans.iter().position(|(known, _)| *known == key) {
                let used = plans.remove(place);
                let plan = Arc::clone(&used.1);
                plans.push(used);
                return Ok(plan);
            }
        }
        // Others with known shapes do not wait for this.
        let analysed = catch_unwind(AssertUnwindSafe(|| self.analyse(inputs, needs, context)));
        let plan =
            analysed.unwrap_or_else(|_| Err("tract cannot analyse the node".to_string().into()))?;
        let tables = needs.offsets.saturating_mul(OFFSET_BYTES);
        if self.plans_kept > 0 && tables <= PLAN_BYTES {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            // Another call may have brought the same meanwhile.
            plans.retain(|(known, _)| *known != key);
            if plans.len() >= self.plans_kept {
                plans.remove(0);
            }
            plans.push((key, Arc::clone(&plan)));
        }
        Ok(plan)
    }

    /// The node as a graph of its own, for inputs of these shapes.
    fn typed(&self, inputs: &[Option<&Tensor>]) -> Result<tract::TypedModel, OpError> {
        let mut graph = pb::GraphProto {
            node: vec![self.node.clone()],
            ..Default::default()
        };
        for (index, input) in inputs.iter().enumerate() {
            let Some(tensor) = input else { continue };
            let name = format!("input{index}");
            if self.is_fixed(index) {
                graph.initializer.push(initializer(name, tensor)?);
            } else {
                graph.input.push(value_info(name, tensor));
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

    /// The plan of that graph. What tract will take for it is counted first.
    fn analyse(
        &self,
        inputs: &[Option<&Tensor>],
        needs: &Needs,
        context: &Context<'_>,
    ) -> Result<Runnable, OpError> {
        let shapes: Vec<_> = inputs.iter().map(|i| i.map(Tensor::shape)).collect();
        let weights = inputs.iter().skip(1).flatten();
        let elements: u64 = weights.clone().map(|tensor| tensor.len() as u64).sum();
        let size = weights.map(|tensor| tensor.data_type().size()).max();
        let size = size.unwrap_or(0) as u64;
        let packed = self.layer.packed(&shapes);
        context.take_steps(self.layer.analysis_steps())?;
        context.work(total(&[
            elements.saturating_mul(WEIGHT_OPERATIONS),
            packed.saturating_mul(PACKED_OPERATIONS),
            needs.offsets.saturating_mul(OFFSET_OPERATIONS),
        ]))?;
        context.reserve_bytes(total(&[
            elements.saturating_mul(4).saturating_mul(size),
            packed.saturating_mul(size),
            needs.offsets.saturating_mul(2 * OFFSET_BYTES),
            needs.elements.saturating_mul(size),
        ]))?;
        let optimized = self.typed(inputs)?.into_optimized().map_err(failed)?;
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
