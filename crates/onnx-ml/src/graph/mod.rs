//! [`Plan`]: a graph of the file as a list of steps.
//!
//! | module | holds |
//! |---|---|
//! | `build` | from the graphs of a file to plans |
//! | `scope`, `versions` | what names stand for meanwhile, and which rules the operators follow |
//! | `folding` | what depends on the file alone, computed when it is loaded |
//! | `reads` | who reads what: what nobody reads is dropped, the last reader is marked |
//! | `shortcut` | steps that are quicker together |
//!
//! A step is an operator with the places of its inputs and outputs. Names are resolved once, when
//! the file is loaded; what depends on constants of the file alone is computed then. A run walks the
//! steps with one slot per value; each slot is emptied by its last reader, which may so change the
//! tensor in place.
//!
//! Shapes are those of the tensors at hand: nothing is inferred ahead of the run, so a graph loads
//! whatever its dimensions are called and however they depend on each other. What a run may allocate
//! is bounded by the [`Context`] instead.

mod build;
mod folding;
mod reads;
mod scope;
mod shortcut;
mod versions;

use smallvec::SmallVec;

pub(crate) use self::build::{Builder, MOST_ATTRIBUTES, node_name};
pub(crate) use self::scope::Scope;
use self::shortcut::Shortcut;
use crate::operator::{Arg, Args, Context, OpError, Operator, Outputs};
use crate::tensor::{Data, DataType, Shape, Tensor};

/// Dimensions of a tensor, as many as numpy has.
pub(crate) const MOST_DIMENSIONS: usize = 64;

/// Where an input of a step comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The node leaves the input out.
    Absent,
    /// A constant of the plan.
    Constant(usize),
    /// A value of the run.
    Slot(usize),
}

#[derive(Debug, Clone, Copy)]
struct Input {
    source: Source,
    /// No later step reads the slot.
    last: bool,
}

#[derive(Debug)]
struct Step {
    name: String,
    operator_name: String,
    operator: Box<dyn Operator>,
    inputs: SmallVec<[Input; 4]>,
    outputs: SmallVec<[Option<usize>; 2]>,
}

/// Steps in the order of the file.
#[derive(Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    /// In the order of their steps.
    shortcuts: Vec<Shortcut>,
    constants: Vec<Tensor>,
    slots: usize,
    /// Slots of the graph's own inputs, then of the captured values.
    inputs: Vec<usize>,
    outputs: Vec<Output>,
}

#[derive(Debug, Clone, Copy)]
struct Output {
    source: Source,
    /// A later output is the same value.
    again: bool,
}

/// A failed step.
#[derive(Debug)]
pub(crate) struct StepError {
    pub node: String,
    pub operator: String,
    pub error: OpError,
}

enum Slot<'a> {
    Empty,
    Owned(Tensor),
    Borrowed(&'a Tensor),
}

/// What a tensor takes; long texts have memory of their own.
pub(crate) fn bytes(tensor: &Tensor) -> u64 {
    let mut bytes = tensor.len() as u64 * tensor.data_type().size() as u64;
    if let Data::String(texts) = tensor.data() {
        for text in texts {
            if text.is_heap_allocated() {
                bytes += text.len() as u64;
            }
        }
    }
    bytes
}

impl Plan {
    /// Computes the outputs.
    pub fn run<'a>(
        &'a self,
        inputs: impl Iterator<Item = Arg<'a>>,
        context: &Context<'_>,
    ) -> Result<Vec<Tensor>, StepError> {
        let mut slots: SmallVec<[Slot<'a>; 32]> = SmallVec::new();
        slots.resize_with(self.slots, || Slot::Empty);
        for (place, input) in self.inputs.iter().zip(inputs) {
            slots[*place] = match input {
                Arg::Owned(tensor) => {
                    context
                        .live_bytes
                        .set(context.live_bytes.get() + bytes(&tensor));
                    Slot::Owned(tensor)
                }
                Arg::Borrowed(tensor) => Slot::Borrowed(tensor),
                Arg::Absent => Slot::Empty,
            };
        }
        let mut shortcuts = self.shortcuts.iter().peekable();
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            let shortcut = shortcuts.next_if(|shortcut| shortcut.first == at);
            let done = match shortcut {
                Some(shortcut) => self.take(shortcut, &mut slots, context),
                None => Ok(0),
            };
            let done = match done {
                Ok(0) => self.step(step, &mut slots, context).map(|()| 1),
                other => other,
            };
            at += done.map_err(|error| StepError {
                node: step.name.clone(),
                operator: step.operator_name.clone(),
                error,
            })?;
        }
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            let tensor = self.output(*output, &mut slots, context);
            outputs.push(tensor.map_err(|error| StepError {
                node: String::new(),
                operator: String::new(),
                error,
            })?);
        }
        Ok(outputs)
    }

    /// How much there is to do for a run besides its steps.
    pub fn values(&self) -> usize {
        self.slots + self.outputs.len()
    }

    fn step<'a>(
        &'a self,
        step: &Step,
        slots: &mut [Slot<'a>],
        context: &Context<'_>,
    ) -> Result<(), OpError> {
        context.take_steps(1)?;
        let mut freed = 0;
        let mut taken: SmallVec<[Option<Tensor>; 4]> = SmallVec::new();
        for input in &step.inputs {
            let mut tensor = None;
            if let (Source::Slot(place), true) = (input.source, input.last)
                && matches!(slots[place], Slot::Owned(_))
                && let Slot::Owned(owned) = std::mem::replace(&mut slots[place], Slot::Empty)
            {
                freed += bytes(&owned);
                tensor = Some(owned);
            }
            taken.push(tensor);
        }
        let mut values: SmallVec<[Arg<'_>; 4]> = SmallVec::new();
        for (input, taken) in step.inputs.iter().zip(taken) {
            values.push(match (taken, input.source) {
                (Some(tensor), _) => Arg::Owned(tensor),
                (None, Source::Absent) => Arg::Absent,
                (None, Source::Constant(place)) => Arg::Borrowed(&self.constants[place]),
                (None, Source::Slot(place)) => match &slots[place] {
                    Slot::Owned(tensor) => Arg::Borrowed(tensor),
                    Slot::Borrowed(tensor) => Arg::Borrowed(tensor),
                    Slot::Empty => Arg::Absent,
                },
            });
        }
        let outputs = compute(step, values, context)?;
        context
            .live_bytes
            .set(context.live_bytes.get().saturating_sub(freed));
        for (tensor, place) in outputs.into_iter().zip(&step.outputs) {
            if let Some(place) = place {
                context.keep(bytes(&tensor))?;
                slots[*place] = Slot::Owned(tensor);
            }
        }
        Ok(())
    }

    fn output(
        &self,
        output: Output,
        slots: &mut [Slot<'_>],
        context: &Context<'_>,
    ) -> Result<Tensor, OpError> {
        let missing = || OpError::Value("an output was not computed".to_string());
        let copied = |tensor: &Tensor| {
            context.keep(bytes(tensor))?;
            Ok(tensor.clone())
        };
        match output.source {
            Source::Constant(place) => copied(&self.constants[place]),
            Source::Absent => Err(missing()),
            Source::Slot(place) if output.again => match &slots[place] {
                Slot::Owned(tensor) => copied(tensor),
                Slot::Borrowed(tensor) => copied(tensor),
                Slot::Empty => Err(missing()),
            },
            Source::Slot(place) => match std::mem::replace(&mut slots[place], Slot::Empty) {
                Slot::Owned(tensor) => Ok(tensor),
                Slot::Borrowed(tensor) => copied(tensor),
                Slot::Empty => Err(missing()),
            },
        }
    }
}

/// Runs the operator, and counts what it has done.
fn compute<'a>(
    step: &Step,
    values: SmallVec<[Arg<'a>; 4]>,
    context: &'a Context<'a>,
) -> Result<Outputs, OpError> {
    let given = values.iter().filter_map(Arg::tensor).map(size);
    context.work(given.sum())?;
    let outputs = step.operator.run(&mut Args { values, context })?;
    context.work(outputs.iter().map(size).sum())?;
    if let Some(tensor) = outputs.iter().find(|t| t.rank() > MOST_DIMENSIONS) {
        return Err(OpError::Value(format!(
            "its output has {} dimensions, at most {MOST_DIMENSIONS} are supported",
            tensor.rank()
        )));
    }
    Ok(outputs)
}

/// The elements of a tensor, or the bytes of its texts.
fn size(tensor: &Tensor) -> u64 {
    match tensor.data() {
        Data::String(_) => bytes(tensor),
        _ => tensor.len() as u64,
    }
}

/// A graph inside a node, and where the values it takes from outside are among the node's inputs.
#[derive(Debug)]
pub(crate) struct Subgraph {
    plan: Plan,
    /// The number of the graph's own inputs.
    pub inputs: usize,
    /// The number of the graph's outputs.
    pub outputs: usize,
    /// Element types and shapes of the outputs as the file declares them, unknown sizes as 0.
    pub declared: Vec<Option<(DataType, Shape)>>,
    captures: Vec<String>,
    first_capture: usize,
}

impl Subgraph {
    /// How much there is to do for a run besides its steps.
    pub fn values(&self) -> usize {
        self.plan.values()
    }

    /// The names of the values taken from outside; the node's step gets them as further inputs,
    /// from `first` on.
    pub fn place_captures(&mut self, first: usize) -> &[String] {
        self.first_capture = first;
        &self.captures
    }

    /// Computes the outputs; `args` are those of the node.
    pub fn run<'a>(
        &'a self,
        inputs: Vec<Arg<'a>>,
        args: &'a Args<'_>,
    ) -> Result<Vec<Tensor>, OpError> {
        let captured =
            (0..self.captures.len()).map(|index| match args.optional(self.first_capture + index) {
                Some(tensor) => Arg::Borrowed(tensor),
                None => Arg::Absent,
            });
        let outputs = self
            .plan
            .run(inputs.into_iter().chain(captured), args.context);
        outputs.map_err(|inner| match inner.error {
            OpError::Type(reason) => {
                OpError::Type(inner_reason(&inner.node, &inner.operator, reason))
            }
            OpError::Value(reason) => {
                OpError::Value(inner_reason(&inner.node, &inner.operator, reason))
            }
            too_large => too_large,
        })
    }
}

fn inner_reason(node: &str, operator: &str, reason: String) -> String {
    if operator.is_empty() {
        return reason;
    }
    format!("inner node `{node}` ({operator}): {reason}")
}
