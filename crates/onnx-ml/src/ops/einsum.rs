//! `Einsum`: products of tensors along dimensions named by letters.
//!
//! The inputs are multiplied from left to right. Before each product, letters that no later part of
//! the equation mentions are summed away, so that no more work is done than a chain of matrix
//! products takes; the letters are then sorted into those of a stack, of rows, of columns and of the
//! inner dimension of a matrix product.

use smallvec::SmallVec;

use crate::node::Node;
use crate::operator::{Args, Context, OpError, Operator, Outputs, one, operations};
use crate::ops::broadcast::product;
use crate::ops::dense::stacked_product;
use crate::ops::float16;
use crate::ops::matrix::Factor;
use crate::tensor::{DataType, Shape, Tensor};

/// A dimension's name: a letter, or a number counted from 256 for those of the ellipsis, the last
/// of which is 256.
type Label = u32;
type Labels = SmallVec<[Label; 4]>;

const ELLIPSIS: Label = 256;

/// The work of planning grows with the square of this.
const LONGEST_EQUATION: usize = 1024;

/// One side of a comma or of the arrow: letters before the ellipsis, whether there is one, letters
/// after it.
#[derive(Debug, Clone)]
struct Term {
    before: Labels,
    ellipsis: bool,
    after: Labels,
}

#[derive(Debug)]
struct Einsum {
    inputs: Vec<Term>,
    output: Option<Term>,
}

pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let equation = node.string("equation")?;
    let equation = equation.ok_or("attribute `equation` is missing")?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    if equation.len() > LONGEST_EQUATION {
        return Err(format!(
            "attribute `equation` has {} letters, at most {LONGEST_EQUATION} are supported",
            equation.len()
        ));
    }
    let inputs = left.split(',').map(term).collect::<Result<Vec<_>, _>>()?;
    let output = right.map(term).transpose()?;
    node.expect_inputs(inputs.len(), inputs.len())?;
    let all = || inputs.iter().flat_map(|t| t.before.iter().chain(&t.after));
    if let Some(output) = &output {
        let letters: Vec<Label> = output.before.iter().chain(&output.after).copied().collect();
        for (place, letter) in letters.iter().enumerate() {
            if letters[..place].contains(letter) || !all().any(|known| known == letter) {
                return Err(format!(
                    "equation `{equation}` repeats a letter after the arrow or has one that is not \
                     before it"
                ));
            }
        }
    }
    Ok(Box::new(Einsum { inputs, output }))
}

fn term(text: &str) -> Result<Term, String> {
    let letters = |text: &str| -> Result<Labels, String> {
        let mut labels = Labels::new();
        for letter in text.bytes() {
            if !letter.is_ascii_alphabetic() {
                return Err(format!("{text:?} in the equation is not made of letters"));
            }
            labels.push(Label::from(letter));
        }
        Ok(labels)
    };
    Ok(match text.split_once("...") {
        Some((before, after)) => Term {
            before: letters(before)?,
            ellipsis: true,
            after: letters(after)?,
        },
        None => Term {
            before: letters(text)?,
            ellipsis: false,
            after: Labels::new(),
        },
    })
}

impl Term {
    /// The labels of the dimensions of a tensor of this rank.
    fn labels(&self, rank: usize) -> Result<Labels, OpError> {
        let named = self.before.len() + self.after.len();
        let hidden = rank.checked_sub(named);
        let hidden = hidden.filter(|hidden| self.ellipsis || *hidden == 0);
        let Some(hidden) = hidden else {
            return Err(OpError::Value(format!(
                "an input has {rank} dimensions, the equation names {named}"
            )));
        };
        let mut labels = self.before.clone();
        labels.extend((0..hidden as Label).rev().map(|place| ELLIPSIS + place));
        labels.extend_from_slice(&self.after);
        Ok(labels)
    }
}

impl Operator for Einsum {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        match args.get(0)?.data_type() {
            DataType::F32 => one(self.compute::<f32>(args)?),
            DataType::F64 => one(self.compute::<f64>(args)?),
            other => Err(OpError::data_type(0, other, "floating point numbers")),
        }
    }
}

/// A tensor with names for its dimensions, each of which occurs once.
struct Named<T> {
    labels: Labels,
    sizes: Shape,
    values: Vec<T>,
}

impl Einsum {
    fn compute<T: Factor>(&self, args: &Args<'_>) -> Result<Tensor, OpError> {
        let mut labels = Vec::with_capacity(self.inputs.len());
        for (index, term) in self.inputs.iter().enumerate() {
            labels.push(term.labels(args.get(index)?.rank())?);
        }
        let output = self.output_labels(&labels);
        let mut result: Option<Named<T>> = None;
        for (index, own) in labels.iter().enumerate() {
            let wanted_later = |label: &Label| {
                output.contains(label) || labels[index + 1..].iter().any(|l| l.contains(label))
            };
            let known = result.as_ref().map(|named| named.labels.clone());
            let known = known.unwrap_or_default();
            let mut kept = Labels::new();
            for label in own {
                let wanted = known.contains(label) || wanted_later(label);
                if wanted && !kept.contains(label) {
                    kept.push(*label);
                }
            }
            let shape = args.get(index)?.shape();
            let next = gather(own, shape, args.slice::<T>(index)?, &kept, args.context)?;
            result = Some(match result {
                None => next,
                Some(before) => multiply(before, next, &wanted_later, args.context)?,
            });
        }
        let Some(result) = result else {
            return Err(OpError::Value("it has no inputs".to_string()));
        };
        let result = gather(
            &result.labels,
            &result.sizes,
            &result.values,
            &output,
            args.context,
        )?;
        Ok(Tensor::new(&result.sizes, result.values)?)
    }

    /// The labels of the output; without an arrow those of the ellipsis, then the letters that occur
    /// once, in the order of the alphabet.
    fn output_labels(&self, inputs: &[Labels]) -> Labels {
        let all = || inputs.iter().flatten().copied();
        let mut hidden: Labels = all().filter(|label| *label >= ELLIPSIS).collect();
        hidden.sort_unstable_by(|a, b| b.cmp(a));
        hidden.dedup();
        let Some(output) = &self.output else {
            let mut letters: Labels = all()
                .filter(|label| *label < ELLIPSIS)
                .filter(|label| all().filter(|other| other == label).count() == 1)
                .collect();
            letters.sort_unstable();
            hidden.extend(letters);
            return hidden;
        };
        let mut labels = output.before.clone();
        if output.ellipsis {
            labels.extend(hidden);
        }
        labels.extend_from_slice(&output.after);
        labels
    }
}

/// The tensor with its dimensions in the order of `kept`; the others are summed, and one that occurs
/// twice is its diagonal.
fn gather<T: Factor>(
    labels: &[Label],
    shape: &[usize],
    values: &[T],
    kept: &[Label],
    context: &Context<'_>,
) -> Result<Named<T>, OpError> {
    // For each label its size and the step from one element to the next.
    let mut axes: SmallVec<[(Label, usize, usize); 4]> = SmallVec::new();
    let mut stride = 1;
    for (label, size) in labels.iter().zip(shape).rev() {
        match axes.iter_mut().find(|(known, _, _)| known == label) {
            // The steps can only overflow where there are no elements.
            Some((_, known, step)) if *known == *size => *step = step.saturating_add(stride),
            Some((_, known, _)) => {
                return Err(OpError::Value(format!(
                    "a letter that occurs twice stands for the sizes {known} and {size}"
                )));
            }
            None => axes.push((*label, *size, stride)),
        }
        stride = stride.saturating_mul(*size);
    }
    let mut order: SmallVec<[(usize, usize); 4]> = SmallVec::new();
    let mut sizes = Shape::new();
    for label in kept {
        // An ellipsis that the tensor has not: one element.
        let axis = axes.iter().find(|(known, _, _)| known == label);
        let (_, size, step) = axis.copied().unwrap_or((*label, 1, 0));
        order.push((size, step));
        sizes.push(size);
    }
    let summed: SmallVec<[(usize, usize); 4]> = axes
        .iter()
        .filter(|(label, _, _)| !kept.contains(label))
        .map(|(_, size, step)| (*size, *step))
        .collect();
    let elements = product(&sizes)?;
    context.reserve(elements, T::DATA_TYPE)?;
    let sums = summed
        .iter()
        .fold(1usize, |n, (size, _)| n.saturating_mul(*size));
    context.work(operations(&[elements, sums]))?;
    let mut results = Vec::with_capacity(elements);
    if values.is_empty() {
        results.resize(elements, T::default());
        return Ok(Named {
            labels: Labels::from_slice(kept),
            sizes,
            values: results,
        });
    }
    for_each_place(&order, |start| {
        if summed.is_empty() {
            results.push(values[start]);
            return;
        }
        let mut sum = 0.0;
        for_each_place(&summed, |offset| sum += values[start + offset].wide());
        results.push(T::round(sum));
    });
    Ok(Named {
        labels: Labels::from_slice(kept),
        sizes,
        values: results,
    })
}

/// Calls `work` with the place of each combination of steps, the last axis moving fastest.
fn for_each_place(axes: &[(usize, usize)], mut work: impl FnMut(usize)) {
    if axes.iter().any(|(size, _)| *size == 0) {
        return;
    }
    let mut counters: SmallVec<[usize; 4]> = SmallVec::from_elem(0, axes.len());
    let mut place = 0;
    loop {
        work(place);
        let mut finished = true;
        for (counter, (size, step)) in counters.iter_mut().zip(axes).rev() {
            *counter += 1;
            if *counter < *size {
                place += step;
                finished = false;
                break;
            }
            *counter = 0;
            place -= step * (size - 1);
        }
        if finished {
            return;
        }
    }
}

/// The product of two tensors, with the labels that are still wanted.
fn multiply<T: Factor>(
    left: Named<T>,
    right: Named<T>,
    wanted: &dyn Fn(&Label) -> bool,
    context: &Context<'_>,
) -> Result<Named<T>, OpError> {
    let (mut stack, mut rows, mut inner) = (Labels::new(), Labels::new(), Labels::new());
    let size_in = |named: &Named<T>, label: &Label| {
        let place = named.labels.iter().position(|known| known == label);
        place.map(|place| named.sizes[place])
    };
    for label in &left.labels {
        match (size_in(&left, label), size_in(&right, label)) {
            (Some(a), Some(b)) if a != b && a != 1 && b != 1 => {
                return Err(OpError::Value(format!(
                    "one dimension of the equation has the sizes {a} and {b}"
                )));
            }
            (Some(a), Some(b)) if wanted(label) || a != b => stack.push(*label),
            (_, Some(_)) => inner.push(*label),
            _ => rows.push(*label),
        }
    }
    let columns: Labels = right
        .labels
        .iter()
        .filter(|label| !left.labels.contains(label))
        .copied()
        .collect();
    let join = |parts: [&Labels; 3]| -> Labels { parts.into_iter().flatten().copied().collect() };
    let order_left = join([&stack, &rows, &inner]);
    let order_right = join([&stack, &inner, &columns]);
    let left = gather(
        &left.labels,
        &left.sizes,
        &left.values,
        &order_left,
        context,
    )?;
    let right = gather(
        &right.labels,
        &right.sizes,
        &right.values,
        &order_right,
        context,
    )?;
    let shapes = |named: &Named<T>, first: usize| -> Result<Shape, OpError> {
        let mut shape = Shape::from_slice(&named.sizes[..stack.len()]);
        shape.push(product(&named.sizes[stack.len()..stack.len() + first])?);
        shape.push(product(&named.sizes[stack.len() + first..])?);
        Ok(shape)
    };
    let left_shape = shapes(&left, rows.len())?;
    let right_shape = shapes(&right, inner.len())?;
    let result = stacked_product(
        (&left_shape, &left.values),
        (&right_shape, &right.values),
        context,
    )?;
    let mut sizes = Shape::from_slice(&result.shape()[..stack.len()]);
    sizes.extend_from_slice(&left.sizes[stack.len()..stack.len() + rows.len()]);
    sizes.extend_from_slice(&right.sizes[stack.len() + inner.len()..]);
    let values = result.as_slice::<T>().unwrap_or_default().to_vec();
    Ok(Named {
        labels: join([&stack, &rows, &columns]),
        sizes,
        values,
    })
}
