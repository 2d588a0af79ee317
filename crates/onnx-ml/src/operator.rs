//! What an operator is: built once from its node, then run on tensors.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Debug;

use smallvec::SmallVec;

use crate::pool::Pool;
use crate::tensor::{DataType, Element, ShapeError, Tensor};

/// The tensors an operator gives: one per output of its node, in order. Outputs that the node does
/// not name may be left out at the end.
pub(crate) type Outputs = SmallVec<[Tensor; 2]>;

/// An operator with its attributes read and checked.
///
/// The promise every implementation keeps: a row of the result has the same bits whatever other
/// rows are in the batch, on any number of threads and with or without SIMD; no input makes it
/// panic; an output larger than the inputs together is announced with [`Context::reserve`] before
/// it is allocated.
pub(crate) trait Operator: Any + Debug + Send + Sync {
    /// Computes the outputs.
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError>;
}

impl dyn Operator {
    /// The operator as the type that it is, if that is `T`: for those who know operators that are quicker
    /// together than one after another.
    pub fn downcast_ref<T: Operator>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }
}

/// Reads a node and makes its operator; the error says what is wrong with the node.
pub(crate) type Build = fn(&crate::node::Node<'_>) -> Result<Box<dyn Operator>, String>;

/// Why an operator gave no result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OpError {
    /// It does not take tensors of this element type. No value could change that, so a model in
    /// which it happens is refused when it is loaded.
    Type(String),
    /// A shape or a value does not fit.
    Value(String),
    /// It would take more memory than the limits allow.
    TooLarge { needed: u64, limit: u64 },
}

impl From<String> for OpError {
    fn from(reason: String) -> OpError {
        OpError::Value(reason)
    }
}

impl From<ShapeError> for OpError {
    fn from(error: ShapeError) -> OpError {
        OpError::Value(error.to_string())
    }
}

impl OpError {
    /// The error for input `index` of an element type that the operator does not take.
    pub fn data_type(index: usize, found: DataType, expected: &str) -> OpError {
        OpError::Type(format!(
            "input {index} has element type {found}, expected {expected}"
        ))
    }
}

/// Elementary operations that count as one step: far more than the operators of a model for a few
/// rows need, and done in a fraction of a millisecond.
const OPERATIONS_OF_A_STEP: u64 = 1 << 18;

/// What a run may use, and what it has used.
pub(crate) struct Context<'a> {
    /// Bytes that all tensors of the run may take at the same time.
    pub limit_bytes: u64,
    /// Bytes that they take now.
    pub live_bytes: Cell<u64>,
    /// How many more operators may be run, those with much to do counted several times; bounds
    /// loops and long computations.
    pub steps_left: Cell<u64>,
    /// The threads the caller lends.
    pub pool: Option<&'a dyn Pool>,
}

impl Context<'_> {
    /// Refuses what would go over the limit. To be called before allocating a tensor that may be
    /// larger than the inputs together.
    pub fn reserve(&self, elements: usize, data_type: DataType) -> Result<(), OpError> {
        self.reserve_bytes((elements as u64).saturating_mul(data_type.size() as u64))
    }

    /// As [`Context::reserve`], for scratch memory.
    pub fn reserve_bytes(&self, bytes: u64) -> Result<(), OpError> {
        let needed = self.live_bytes.get().saturating_add(bytes);
        if needed > self.limit_bytes {
            return Err(OpError::TooLarge {
                needed,
                limit: self.limit_bytes,
            });
        }
        Ok(())
    }

    /// Adds a tensor that is kept, and refuses what is over the limit. An operator that gives no
    /// more than it takes need not reserve, so this is where a long row of such is stopped.
    pub fn keep(&self, bytes: u64) -> Result<(), OpError> {
        self.reserve_bytes(bytes)?;
        self.live_bytes
            .set(self.live_bytes.get().saturating_add(bytes));
        Ok(())
    }

    /// Refuses work that goes over the limit of steps. To be called with the number of elementary
    /// operations before work that takes much more of them than there are elements in the inputs
    /// and outputs, which are counted for every operator.
    pub fn work(&self, operations: u64) -> Result<(), OpError> {
        self.take_steps(operations / OPERATIONS_OF_A_STEP)
    }

    /// Refuses what goes over the limit of steps.
    pub fn take_steps(&self, steps: u64) -> Result<(), OpError> {
        match self.steps_left.get().checked_sub(steps) {
            Some(left) => {
                self.steps_left.set(left);
                Ok(())
            }
            None => Err(OpError::Value(
                "the run takes too many steps (the limit counts every operator of a loop each \
                 time, and long computations several times)"
                    .to_string(),
            )),
        }
    }
}

/// The product of the factors of some work, for [`Context::work`].
pub(crate) fn operations(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |product, factor| {
        product.saturating_mul(*factor as u64)
    })
}

/// One input of an operator.
pub(crate) enum Arg<'a> {
    /// The node leaves this optional input out.
    Absent,
    /// Nobody reads the tensor after this operator.
    Owned(Tensor),
    /// Others read it too.
    Borrowed(&'a Tensor),
}

impl Arg<'_> {
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Arg::Absent => None,
            Arg::Owned(tensor) => Some(tensor),
            Arg::Borrowed(tensor) => Some(tensor),
        }
    }
}

/// The inputs of an operator.
pub(crate) struct Args<'a> {
    pub values: SmallVec<[Arg<'a>; 4]>,
    pub context: &'a Context<'a>,
}

impl Args<'_> {
    /// The number of inputs of the node, absent ones included.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// A required input.
    pub fn get(&self, index: usize) -> Result<&Tensor, OpError> {
        self.optional(index)
            .ok_or_else(|| OpError::Type(format!("input {index} is missing")))
    }

    /// An optional input.
    pub fn optional(&self, index: usize) -> Option<&Tensor> {
        self.values.get(index).and_then(Arg::tensor)
    }

    /// A required input to keep or change: moved if nobody else reads it, else copied.
    pub fn take(&mut self, index: usize) -> Result<Tensor, OpError> {
        let absent = || OpError::Type(format!("input {index} is missing"));
        let slot = self.values.get_mut(index).ok_or_else(absent)?;
        match std::mem::replace(slot, Arg::Absent) {
            Arg::Owned(tensor) => Ok(tensor),
            Arg::Borrowed(tensor) => Ok(tensor.clone()),
            Arg::Absent => Err(absent()),
        }
    }

    /// The elements of a required input of type `T`.
    pub fn slice<T: Element>(&self, index: usize) -> Result<&[T], OpError> {
        let tensor = self.get(index)?;
        tensor
            .as_slice::<T>()
            .ok_or_else(|| OpError::data_type(index, tensor.data_type(), T::DATA_TYPE.name()))
    }

    /// The elements of a required int64 input, or of an int32 one widened: what ONNX takes for
    /// axes, shapes and indices.
    pub fn integers(&self, index: usize) -> Result<Vec<i64>, OpError> {
        let tensor = self.get(index)?;
        if let Some(values) = tensor.as_slice::<i64>() {
            return Ok(values.to_vec());
        }
        match tensor.as_slice::<i32>() {
            Some(values) => Ok(values.iter().copied().map(i64::from).collect()),
            None => Err(OpError::data_type(
                index,
                tensor.data_type(),
                "int64 or int32",
            )),
        }
    }
}

/// One output.
pub(crate) fn one(tensor: Tensor) -> Result<Outputs, OpError> {
    let mut outputs = Outputs::new();
    outputs.push(tensor);
    Ok(outputs)
}

/// The place of `axis`, counted from the end when negative.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let rank_signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let place = if axis < 0 { axis + rank_signed } else { axis };
    match usize::try_from(place) {
        Ok(place) if place < rank => Ok(place),
        _ => Err(OpError::Value(format!(
            "axis {axis} is outside a tensor of {rank} dimensions"
        ))),
    }
}
