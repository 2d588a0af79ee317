//! Who reads what in a plan: what nobody reads is dropped, and the last reader of each value is marked.

use super::{Plan, Source};
use crate::tensor::Tensor;

impl Plan {
    /// Drops steps that no output depends on, and constants that no step reads.
    pub(super) fn drop_unread(&mut self) {
        let mut read = vec![false; self.slots];
        for output in &self.outputs {
            if let Source::Slot(slot) = output.source {
                read[slot] = true;
            }
        }
        let mut kept = Vec::with_capacity(self.steps.len());
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            if !step.outputs.iter().flatten().any(|slot| read[*slot]) {
                continue;
            }
            for input in &step.inputs {
                if let Source::Slot(slot) = input.source {
                    read[slot] = true;
                }
            }
            kept.push(step);
        }
        kept.reverse();
        self.steps = kept;
        let mut used = vec![false; self.constants.len()];
        let sources = self
            .steps
            .iter()
            .flat_map(|step| step.inputs.iter().map(|i| i.source));
        for source in sources.chain(self.outputs.iter().map(|output| output.source)) {
            if let Source::Constant(place) = source {
                used[place] = true;
            }
        }
        for (constant, used) in self.constants.iter_mut().zip(used) {
            if !used {
                *constant = Tensor::vector::<u8>(Vec::new());
            }
        }
    }

    /// Marks who reads each value last, and may so take it and change it in place.
    pub(super) fn mark_last(&mut self) {
        let mut seen = vec![false; self.slots];
        for output in self.outputs.iter_mut().rev() {
            if let Source::Slot(slot) = output.source {
                output.again = seen[slot];
                seen[slot] = true;
            }
        }
        let mut times = vec![0usize; self.slots];
        for step in self.steps.iter_mut().rev() {
            for input in step.inputs.iter_mut().rev() {
                if let Source::Slot(slot) = input.source {
                    input.last = !seen[slot];
                    seen[slot] = true;
                }
            }
            // The same tensor twice in one step (x * x) is taken by neither: the other would miss it.
            for input in &step.inputs {
                if let Source::Slot(slot) = input.source {
                    times[slot] += 1;
                }
            }
            for input in &mut step.inputs {
                if let Source::Slot(slot) = input.source {
                    input.last &= times[slot] == 1;
                }
            }
            for input in &step.inputs {
                if let Source::Slot(slot) = input.source {
                    times[slot] = 0;
                }
            }
        }
    }
}
