//! [`Model`]: a loaded file, ready to run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{DimLike, SymbolValues, TDim, TVec};
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

use crate::error::{LoadError, RunError};
use crate::limits::Limits;
use crate::prepare::{Dimension, Input, Inputs, prepare, symbol_name};
use crate::{check, ops};

type State = tract_onnx::tract_hir::tract_core::plan::SimpleState<TypedFact, Box<dyn TypedOp>>;

/// What a caller must know about one input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Exactly as in the file.
    pub name: String,
    /// Element type.
    pub datum_type: DatumType,
    /// One entry per dimension; `None` is any size, as of the number of rows.
    pub shape: Vec<Option<usize>>,
}

/// A loaded model. Immutable, `Send` and `Sync`; share it in an `Arc`.
#[derive(Debug)]
pub struct Model {
    plan: Arc<TypedSimplePlan>,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    input_dimensions: Vec<Vec<Dimension>>,
    output_dimensions: Vec<TVec<TDim>>,
    /// tract's handle of each symbol, in the numbering of [`Dimension::Symbol`].
    symbols: Vec<Symbol>,
    /// Bytes of the largest tensor of a run, for one row.
    largest_tensor: u64,
    limits: Limits,
    /// Run states that are not in use. One is made when none is left, so this holds at most as many
    /// as there ever were calls at the same time.
    idle: Mutex<Vec<State>>,
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
        check::bytes(bytes, limits)?;
        let mut proto = ModelProto::decode(bytes).map_err(|error| LoadError::Malformed {
            reason: format!("the protobuf cannot be decoded: {error}"),
        })?;
        check::model(&proto, limits)?;
        let inputs = prepare(&mut proto)?;
        // `check` has refused what is known to make tract fail badly. Analysing a graph is tens of
        // thousands of lines of code all the same, and a panic there must cost the file, not the
        // server. Everything the closure touches is dropped when it unwinds, so no half-changed
        // state is seen afterwards.
        let result = catch_unwind(AssertUnwindSafe(|| engine_model(&proto)));
        let typed = match result {
            Ok(Ok(typed)) => typed,
            Ok(Err(error)) => {
                return Err(LoadError::Graph {
                    reason: format!("{error:#}"),
                });
            }
            Err(panic) => {
                return Err(LoadError::EnginePanic {
                    reason: panic_text(panic),
                });
            }
        };
        let names = match &proto.graph {
            Some(graph) => graph
                .output
                .iter()
                .map(|output| output.name.clone())
                .collect(),
            None => Vec::new(),
        };
        finish(typed, inputs, names, limits)
    }

    /// The inputs in the order of the file. Initializers that the file also lists as inputs are
    /// constants and not among them.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// The outputs in the order of the file.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Computes the outputs, in the order of [`Model::outputs`], from one tensor per input, in the
    /// order of [`Model::inputs`]. No rows in give no rows out.
    ///
    /// # Errors
    /// [`RunError`] naming the tensor that does not fit, or the operator that refused a value.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let sizes = self.bind(&inputs)?;
        if sizes.contains(&Some(0))
            && let Some(outputs) = self.empty_outputs(&sizes)
        {
            return outputs;
        }
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut state = match idle {
                Some(state) => state,
                None => self.plan.spawn()?,
            };
            let values: TVec<TValue> = inputs.into_iter().map(Tensor::into_tvalue).collect();
            let outputs = state.run(values)?;
            Ok::<_, TractError>((state, outputs))
        }));
        match result {
            Ok(Ok((state, outputs))) => {
                // Only a state whose run ended well is used again.
                self.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(state);
                Ok(outputs.into_iter().map(TValue::into_tensor).collect())
            }
            Ok(Err(error)) => Err(RunError::Compute {
                reason: format!("{error:#}"),
            }),
            Err(panic) => Err(RunError::EnginePanic {
                reason: panic_text(panic),
            }),
        }
    }

    /// Checks the inputs and returns the size of each symbol that they bind.
    fn bind(&self, inputs: &[Tensor]) -> Result<TVec<Option<usize>>, RunError> {
        if inputs.len() != self.inputs.len() {
            return Err(RunError::InputCount {
                expected: self.inputs.len(),
                found: inputs.len(),
            });
        }
        let mut sizes: TVec<Option<usize>> = self.symbols.iter().map(|_| None).collect();
        for ((tensor, info), dimensions) in
            inputs.iter().zip(&self.inputs).zip(&self.input_dimensions)
        {
            if tensor.datum_type() != info.datum_type {
                return Err(RunError::InputType {
                    name: info.name.clone(),
                    expected: info.datum_type,
                    found: tensor.datum_type(),
                });
            }
            let mut fits = tensor.rank() == dimensions.len();
            for (size, dimension) in tensor.shape().iter().zip(dimensions) {
                fits &= match dimension {
                    Dimension::Fixed(expected) => size == expected,
                    Dimension::Symbol(symbol) => *sizes[*symbol].get_or_insert(*size) == *size,
                };
            }
            if !fits {
                return Err(RunError::InputShape {
                    name: info.name.clone(),
                    expected: describe(dimensions, &sizes),
                    found: tensor.shape().to_vec(),
                });
            }
        }
        let rows = sizes.iter().flatten().fold(1u64, |product, size| {
            product.saturating_mul(u64::try_from(*size).unwrap_or(u64::MAX).max(1))
        });
        let needed_bytes = self.largest_tensor.saturating_mul(rows);
        if needed_bytes > self.limits.run_tensor_bytes {
            return Err(RunError::TooLarge {
                needed_bytes,
                limit_bytes: self.limits.run_tensor_bytes,
            });
        }
        Ok(sizes)
    }

    /// The outputs when they hold no element at all, as for a call without rows; `None` when some
    /// output has elements even so and must be computed. Not every operator of tract takes a tensor
    /// without elements.
    fn empty_outputs(&self, sizes: &[Option<usize>]) -> Option<Result<Vec<Tensor>, RunError>> {
        let mut values = SymbolValues::default();
        for (symbol, size) in self.symbols.iter().zip(sizes) {
            values.set(symbol, i64::try_from((*size)?).ok()?);
        }
        let mut outputs = Vec::new();
        for (info, dimensions) in self.outputs.iter().zip(&self.output_dimensions) {
            let mut shape: TVec<usize> = TVec::new();
            for dimension in dimensions {
                shape.push(dimension.eval(&values).to_usize().ok()?);
            }
            if !shape.contains(&0) {
                return None;
            }
            #[expect(
                unsafe_code,
                reason = "the only way to make a tensor of any type, given as a value"
            )]
            // SAFETY: a tensor without elements has none that could be read before it is written.
            let tensor = unsafe { Tensor::uninitialized_dt(info.datum_type, &shape) };
            match tensor {
                Ok(tensor) => outputs.push(tensor),
                Err(error) => {
                    return Some(Err(RunError::Compute {
                        reason: format!("{error:#}"),
                    }));
                }
            }
        }
        Some(Ok(outputs))
    }
}

/// Parses, types and optimises the graph.
fn engine_model(proto: &ModelProto) -> TractResult<TypedModel> {
    let mut typed = ops::framework()
        .model_for_proto_model(proto)?
        .into_typed()?;
    // tract computes shapes in a type of its own; callers expect the int64 that ONNX has.
    let mut outlets = typed.output_outlets()?.to_vec();
    for (place, outlet) in outlets.iter_mut().enumerate() {
        if typed.outlet_fact(*outlet)?.datum_type == DatumType::TDim {
            let name = format!("output {place} as int64");
            let wires = typed.wire_node(name, cast(DatumType::I64), &[*outlet])?;
            if let Some(wire) = wires.first() {
                *outlet = *wire;
            }
        }
    }
    typed.select_output_outlets(&outlets)?;
    typed.into_optimized()
}

/// Describes the outputs, bounds the memory of a run and makes the plan.
fn finish(
    typed: TypedModel,
    declared: Inputs,
    output_names: Vec<String>,
    limits: &Limits,
) -> Result<Model, LoadError> {
    let graph_error = |error: TractError| LoadError::Graph {
        reason: format!("{error:#}"),
    };
    let symbols: Vec<Symbol> = (0..declared.symbols)
        .map(|symbol| typed.symbols.sym(&symbol_name(symbol)))
        .collect();
    let largest_tensor = check::memory(&typed, &symbols, limits)?;
    let mut outputs = Vec::new();
    let mut output_dimensions = Vec::new();
    for (place, name) in output_names.into_iter().enumerate() {
        let fact = typed.output_fact(place).map_err(graph_error)?;
        let shape = fact
            .shape
            .iter()
            .map(|dimension| dimension.to_usize().ok())
            .collect();
        output_dimensions.push(fact.shape.iter().cloned().collect());
        outputs.push(TensorInfo {
            name,
            datum_type: fact.datum_type,
            shape,
        });
    }
    let plan = match catch_unwind(AssertUnwindSafe(|| TypedSimplePlan::new(typed))) {
        Ok(plan) => plan.map_err(graph_error)?,
        Err(panic) => {
            return Err(LoadError::EnginePanic {
                reason: panic_text(panic),
            });
        }
    };
    let mut inputs = Vec::new();
    let mut input_dimensions = Vec::new();
    for Input {
        name,
        datum_type,
        dimensions,
    } in declared.inputs
    {
        let shape = dimensions.iter().map(|dimension| match dimension {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Symbol(_) => None,
        });
        inputs.push(TensorInfo {
            name,
            datum_type,
            shape: shape.collect(),
        });
        input_dimensions.push(dimensions);
    }
    Ok(Model {
        plan,
        inputs,
        outputs,
        input_dimensions,
        output_dimensions,
        symbols,
        largest_tensor,
        limits: limits.clone(),
        idle: Mutex::new(Vec::new()),
    })
}

/// An input's shape in words, such as `[any, 3]`, with the sizes that earlier inputs decided.
fn describe(dimensions: &[Dimension], sizes: &[Option<usize>]) -> String {
    let mut words = Vec::new();
    for dimension in dimensions {
        words.push(match dimension {
            Dimension::Fixed(size) => size.to_string(),
            Dimension::Symbol(symbol) => match sizes.get(*symbol).copied().flatten() {
                Some(size) => format!("{size} as in the inputs before it"),
                None => "any".to_string(),
            },
        });
    }
    format!("[{}]", words.join(", "))
}

/// The message of a panic.
fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_string()
    }
}
