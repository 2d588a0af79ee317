//! [`Folding`]: steps all of whose inputs the file fixes are computed when it is loaded.

use std::cell::Cell;

use smallvec::SmallVec;

use super::{Source, Step, bytes, compute};
use crate::limits::Limits;
use crate::operator::{Arg, Context, OpError, Outputs};
use crate::tensor::Tensor;

/// What all steps together that are computed when a file is loaded may take, and have taken.
pub(super) struct Folding {
    context: Context<'static>,
}

impl Folding {
    pub fn new(limits: &Limits) -> Folding {
        Folding {
            context: Context {
                limit_bytes: limits.tensor_bytes,
                live_bytes: Cell::new(0),
                steps_left: Cell::new(limits.nodes),
                pool: None,
            },
        }
    }

    /// Computes a step all of whose inputs the file fixes.
    pub fn compute(&self, step: &Step, constants: &[Tensor]) -> Result<Outputs, OpError> {
        // A node without inputs (`Constant`) gives what is in the file.
        if step.inputs.is_empty() {
            let context = Context {
                limit_bytes: u64::MAX,
                live_bytes: Cell::new(0),
                steps_left: Cell::new(u64::MAX),
                pool: None,
            };
            return compute(step, SmallVec::new(), &context);
        }
        let mut values = SmallVec::new();
        for input in &step.inputs {
            values.push(match input.source {
                Source::Constant(place) => Arg::Borrowed(&constants[place]),
                _ => Arg::Absent,
            });
        }
        let context = &self.context;
        let before = context.live_bytes.get();
        let folded = context
            .take_steps(1)
            .and_then(|()| compute(step, values, context))
            .and_then(|outputs| {
                context.keep(outputs.iter().map(bytes).sum())?;
                Ok(outputs)
            });
        if folded.is_err() {
            context.live_bytes.set(before);
        }
        folded
    }
}
