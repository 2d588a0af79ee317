//! Which steps of a plan a [`Shortcut`] can stand for.

use smallvec::SmallVec;

use super::{Part, Shortcut};
use crate::graph::{Input, Plan, Source, Step};
use crate::ops::dense::FixedProduct;
use crate::ops::joining::Concat;
use crate::ops::one_hot_encoder::OneHotEncoder;
use crate::ops::shape::Matrix;

/// A shortcut whose steps are not yet next to each other.
struct Found {
    /// In the order of the plan; the last is the product.
    steps: Vec<usize>,
    parts: Vec<Part>,
    addend: Source,
}

impl Plan {
    /// Finds the shortcuts, and puts the steps of each next to each other.
    pub(in crate::graph) fn find_shortcuts(&mut self) {
        let finder = Finder::new(self);
        let mut found: Vec<Found> = (0..self.steps.len())
            .filter_map(|step| finder.look_at(step))
            .collect();
        if found.is_empty() {
            return;
        }
        // The steps of a shortcut move to its product, behind whatever they need.
        let mut product_of: Vec<Option<usize>> = vec![None; self.steps.len()];
        for (number, found) in found.iter().enumerate() {
            for step in &found.steps {
                product_of[*step] = Some(number);
            }
        }
        let mut waiting: Vec<Vec<Step>> = found.iter().map(|_| Vec::new()).collect();
        let mut steps = Vec::with_capacity(self.steps.len());
        for (place, step) in std::mem::take(&mut self.steps).into_iter().enumerate() {
            let Some(number) = product_of[place] else {
                steps.push(step);
                continue;
            };
            waiting[number].push(step);
            if found[number].steps.last() == Some(&place) {
                self.shortcuts.push(Shortcut {
                    first: steps.len(),
                    steps: waiting[number].len(),
                    parts: std::mem::take(&mut found[number].parts),
                    addend: found[number].addend,
                });
                steps.append(&mut waiting[number]);
            }
        }
        self.steps = steps;
    }
}

/// Who makes each value of a plan, and how often it is read.
struct Finder<'p> {
    steps: &'p [Step],
    makers: Vec<Option<usize>>,
    reads: Vec<usize>,
}

impl<'p> Finder<'p> {
    fn new(plan: &'p Plan) -> Finder<'p> {
        let mut makers = vec![None; plan.slots];
        let mut reads = vec![0; plan.slots];
        for (number, step) in plan.steps.iter().enumerate() {
            for place in step.outputs.iter().flatten() {
                makers[*place] = Some(number);
            }
            for input in &step.inputs {
                if let Source::Slot(place) = input.source {
                    reads[place] += 1;
                }
            }
        }
        for output in &plan.outputs {
            if let Source::Slot(place) = output.source {
                reads[place] += 1;
            }
        }
        Finder {
            steps: &plan.steps,
            makers,
            reads,
        }
    }

    /// The step that makes the value, if nobody else reads it.
    fn maker(&self, source: Source) -> Option<usize> {
        match source {
            Source::Slot(place) if self.reads[place] == 1 => self.makers[place],
            _ => None,
        }
    }

    /// The inputs of a step that puts matrices side by side.
    fn side_by_side(&self, step: usize) -> Option<&'p [Input]> {
        let step = &self.steps[step];
        let concat: &Concat = step.operator.downcast_ref()?;
        concat.is_side_by_side().then_some(&*step.inputs)
    }

    /// The shortcut to the product that is this step.
    fn look_at(&self, product: usize) -> Option<Found> {
        let step = &self.steps[product];
        let fixed = FixedProduct::computed_by(&*step.operator)?;
        if !fixed.right.is_finite() {
            return None;
        }
        let mut steps = vec![product];
        let mut parts = Vec::new();
        let left = step.inputs.first()?.source;
        match self.maker(left) {
            Some(maker) if self.side_by_side(maker).is_some() => {
                steps.push(maker);
                for input in self.side_by_side(maker)? {
                    parts.push(self.part(input.source, &mut steps));
                }
            }
            _ => parts.push(self.part(left, &mut steps)),
        }
        let is_encoded = |part: &Part| matches!(part, Part::Texts { .. });
        if !parts.iter().any(is_encoded) {
            return None;
        }
        steps.sort_unstable();
        for part in &mut parts {
            if let Part::Texts { encoder, .. } = part {
                *encoder = steps.binary_search(encoder).ok()?;
            }
        }
        Some(Found {
            steps,
            parts,
            addend: step
                .inputs
                .get(2)
                .map_or(Source::Absent, |input| input.source),
        })
    }

    /// What makes some columns of the left matrix; steps that do it go to `steps`.
    fn part(&self, source: Source, steps: &mut Vec<usize>) -> Part {
        let encoded = || {
            let matrix = self.maker(source)?;
            let columns = Matrix::made_by(&*self.steps[matrix].operator)?.columns;
            let encoder = self.maker(self.steps[matrix].inputs.first()?.source)?;
            let one_hot: &OneHotEncoder = self.steps[encoder].operator.downcast_ref()?;
            one_hot.texts()?;
            Some((matrix, encoder, columns))
        };
        let Some((matrix, encoder, columns)) = encoded() else {
            return Part::Numbers(source);
        };
        steps.extend([matrix, encoder]);
        let mut texts: SmallVec<[Source; 4]> = SmallVec::new();
        let inputs = &self.steps[encoder].inputs;
        texts.extend(inputs.first().map(|input| input.source));
        if let Some(&text) = texts.first()
            && let Some(joined) = self.maker(text)
            && let Some(inputs) = self.side_by_side(joined)
        {
            steps.push(joined);
            texts = inputs.iter().map(|input| input.source).collect();
        }
        Part::Texts {
            texts,
            encoder,
            columns,
        }
    }
}
