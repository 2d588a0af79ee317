//! [`Model`]: a loaded file, ready to run.

use std::borrow::Borrow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use prost::Message;

use crate::error::{LoadError, RunError};
use crate::functions;
use crate::graph::{Builder, Plan, StepError};
use crate::interface::{self, Inputs, TensorInfo};
use crate::limits::Limits;
use crate::operator::{Arg, Context, OpError};
use crate::pool::Pool;
use crate::proto::{ModelProto, TensorProto};
use crate::rewrite;
use crate::tensor::Tensor;
use crate::wire;

/// A loaded model. Immutable, `Send` and `Sync`; share it in an `Arc`.
#[derive(Debug)]
pub struct Model {
    plan: Plan,
    inputs: Inputs,
    outputs: Vec<TensorInfo>,
    limits: Limits,
}

impl Model {
    /// Loads a file with the default [`Limits`].
    ///
    /// # Errors
    /// [`LoadError`] with the place and the reason; never a panic, whatever the bytes are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, LoadError> {
        Model::from_bytes_with(bytes, &Limits::default())
    }

    /// Loads a file with the given limits.
    ///
    /// # Errors
    /// As [`Model::from_bytes`].
    pub fn from_bytes_with(bytes: &[u8], limits: &Limits) -> Result<Model, LoadError> {
        wire::check(bytes, limits)?;
        let mut proto = ModelProto::decode(bytes).map_err(|error| LoadError::Malformed {
            reason: format!("the protobuf cannot be decoded: {error}"),
        })?;
        let loaded = catch_unwind(AssertUnwindSafe(|| load(&mut proto, limits)));
        loaded.unwrap_or_else(|panic| {
            Err(LoadError::Defect {
                reason: panic_text(panic),
            })
        })
    }

    /// The inputs in the order of the file. Initializers that the file also lists as inputs are
    /// constants and not among them.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs.infos
    }

    /// The outputs in the order of the file.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Computes the outputs, in the order of [`Model::outputs`], from one tensor per input, in the
    /// order of [`Model::inputs`], on the calling thread. No rows in give no rows out.
    ///
    /// # Errors
    /// [`RunError`] naming the tensor that does not fit, or the operator that refused a value.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        self.check(&inputs)?;
        self.run_checked(inputs.into_iter().map(Arg::Owned), None)
    }

    /// As [`Model::run`], of tensors that others need too.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_shared(&self, inputs: &[Arc<Tensor>]) -> Result<Vec<Tensor>, RunError> {
        self.check(inputs)?;
        self.run_checked(inputs.iter().map(|tensor| Arg::Borrowed(tensor)), None)
    }

    /// As [`Model::run`]; large batches are worked on by the threads of `pool` too. The results are
    /// the same to the bit.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_on(&self, inputs: Vec<Tensor>, pool: &dyn Pool) -> Result<Vec<Tensor>, RunError> {
        self.check(&inputs)?;
        self.run_checked(inputs.into_iter().map(Arg::Owned), Some(pool))
    }

    /// For tests: the model that runs every step by itself, and how many shortcuts it had.
    #[cfg(test)]
    pub(crate) fn without_shortcuts(mut self) -> (Model, usize) {
        let shortcuts = self.plan.drop_shortcuts();
        (self, shortcuts)
    }

    fn run_checked<'a>(
        &'a self,
        inputs: impl Iterator<Item = Arg<'a>>,
        pool: Option<&dyn Pool>,
    ) -> Result<Vec<Tensor>, RunError> {
        let context = Context {
            limit_bytes: self.limits.run_bytes,
            live_bytes: Cell::new(0),
            steps_left: Cell::new(self.limits.steps),
            pool,
        };
        // No operator is meant to panic on any input. If one does all the same, it must cost the
        // call, not the server; nothing of the run is seen afterwards.
        let result = catch_unwind(AssertUnwindSafe(|| self.plan.run(inputs, &context)));
        match result {
            Ok(outputs) => outputs.map_err(run_error),
            Err(panic) => Err(RunError::Defect {
                reason: panic_text(panic),
            }),
        }
    }

    fn check<T: Borrow<Tensor>>(&self, inputs: &[T]) -> Result<(), RunError> {
        let infos = &self.inputs.infos;
        if inputs.len() != infos.len() {
            return Err(RunError::InputCount {
                expected: infos.len(),
                found: inputs.len(),
            });
        }
        for (tensor, info) in inputs.iter().map(Borrow::borrow).zip(infos) {
            if tensor.data_type() != info.data_type {
                return Err(RunError::InputType {
                    name: info.name.clone(),
                    expected: info.data_type,
                    found: tensor.data_type(),
                });
            }
        }
        self.inputs
            .check(inputs)
            .map_err(|misfit| RunError::InputShape {
                name: infos[misfit.input].name.clone(),
                expected: misfit.expected,
                found: inputs[misfit.input].borrow().shape().to_vec(),
            })
    }
}

fn load(proto: &mut ModelProto, limits: &Limits) -> Result<Model, LoadError> {
    functions::inline(proto, limits)?;
    rewrite::sequences(proto, limits.nodes);
    let Some(graph) = &proto.graph else {
        return Err(no_graph());
    };
    let builder = Builder::new(proto, limits)?;
    let inputs = Inputs::read(graph)?;
    let names: Vec<&str> = inputs.infos.iter().map(|info| info.name.as_str()).collect();
    let plan = builder.plan(graph, &names)?;
    drop_what_is_read(proto);
    let Some(graph) = &proto.graph else {
        return Err(no_graph());
    };
    // Rows of zeros show what the outputs are, and whether some operator does not take the element
    // types it will get. Values that a model refuses prove nothing against it.
    let one = sample(&plan, &inputs, 2, limits)?;
    let more = sample(&plan, &inputs, 3, limits)?;
    let samples = one.as_deref().zip(more.as_deref());
    let outputs = interface::outputs(graph, samples)?;
    Ok(Model {
        plan,
        inputs,
        outputs,
        limits: limits.clone(),
    })
}

fn no_graph() -> LoadError {
    LoadError::Malformed {
        reason: "the model has no graph".to_string(),
    }
}

/// Gives back the memory of what operators and constants have been made of. What the outputs are is
/// still to be read.
fn drop_what_is_read(proto: &mut ModelProto) {
    if let Some(graph) = &mut proto.graph {
        for node in &mut graph.node {
            if node.op_type != "ZipMap" {
                node.attribute = Vec::new();
            }
        }
        for constant in &mut graph.initializer {
            *constant = TensorProto {
                name: std::mem::take(&mut constant.name),
                ..TensorProto::default()
            };
        }
    }
}

/// The outputs for rows of zeros; `None` when the model refuses these values.
fn sample(
    plan: &Plan,
    inputs: &Inputs,
    rows: usize,
    limits: &Limits,
) -> Result<Option<Vec<Tensor>>, LoadError> {
    let Some(tensors) = inputs.sample(rows, limits.tensor_bytes) else {
        return Ok(None);
    };
    let context = Context {
        limit_bytes: limits.tensor_bytes,
        live_bytes: Cell::new(0),
        steps_left: Cell::new(limits.nodes),
        pool: None,
    };
    match plan.run(tensors.into_iter().map(Arg::Owned), &context) {
        Ok(outputs) => Ok(Some(outputs)),
        Err(StepError {
            node,
            operator,
            error: OpError::Type(reason),
        }) => Err(LoadError::Node {
            node,
            operator,
            reason,
        }),
        Err(_) => Ok(None),
    }
}

fn run_error(failed: StepError) -> RunError {
    match failed.error {
        OpError::Type(reason) | OpError::Value(reason) => RunError::Compute {
            node: failed.node,
            operator: failed.operator,
            reason,
        },
        OpError::TooLarge { needed, limit } => RunError::TooLarge {
            needed_bytes: needed,
            limit_bytes: limit,
        },
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_string();
    }
    match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "no message".to_string(),
    }
}
