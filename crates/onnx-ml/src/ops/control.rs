//! `If`, `Loop` and `Scan`: graphs inside a node.
//!
//! Every iteration costs a step of the run's budget even if its graph has no node, so that no loop
//! goes on for ever; what loops collect is charged to the run's memory as it grows.
//!
//! What a loop collects has no shape when it runs zero times (as for no rows). It is then that of a
//! trial of the body on zeros or, if the body refuses them, the one that the file declares.

use smallvec::SmallVec;

use super::joining::joined;
use super::layout::{self, View};
use crate::graph::{Subgraph, bytes};
use crate::node::Node;
use crate::operator::{Arg, Args, Build, Context, OpError, Operator, Outputs, axis, operations};
use crate::tensor::{Shape, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] = &[("If", if_else), ("Loop", repeat), ("Scan", scan)];

/// Runs a graph. The memory of its inner values is given back; whoever keeps its outputs charges
/// them.
fn run_graph<'a>(
    graph: &'a Subgraph,
    inputs: Vec<Arg<'a>>,
    args: &'a Args<'_>,
) -> Result<Vec<Tensor>, OpError> {
    args.context.take_steps(1)?;
    // A graph without steps may still hand on a million values.
    args.context.work(operations(&[256, graph.values()]))?;
    let live = args.context.live_bytes.get();
    let outputs = graph.run(inputs, args)?;
    args.context.live_bytes.set(live);
    Ok(outputs)
}

/// The only element of a bool input.
fn truth(tensor: &Tensor, what: &str) -> Result<bool, OpError> {
    match tensor.as_slice::<bool>() {
        Some([value]) => Ok(*value),
        Some(values) => Err(OpError::Value(format!(
            "{what} has {} elements, expected one",
            values.len()
        ))),
        None => Err(OpError::Type(format!(
            "{what} has element type {}, expected bool",
            tensor.data_type()
        ))),
    }
}

#[derive(Debug)]
struct If {
    then_branch: Subgraph,
    else_branch: Subgraph,
}

fn if_else(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let then_branch = node.subgraph("then_branch")?;
    let else_branch = node.subgraph("else_branch")?;
    for branch in [&then_branch, &else_branch] {
        if branch.inputs != 0 || branch.outputs != node.outputs() {
            return Err(format!(
                "a branch has {} inputs and {} outputs, expected none and {}",
                branch.inputs,
                branch.outputs,
                node.outputs()
            ));
        }
    }
    Ok(Box::new(If {
        then_branch,
        else_branch,
    }))
}

impl Operator for If {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let branch = if truth(args.get(0)?, "the condition")? {
            &self.then_branch
        } else {
            &self.else_branch
        };
        run_graph(branch, Vec::new(), args).map(Outputs::from_vec)
    }
}

/// What iterations give one after another, for one output.
struct Collected {
    parts: Vec<Tensor>,
}

impl Collected {
    fn push(&mut self, part: Tensor, context: &Context<'_>) -> Result<(), OpError> {
        if let Some(first) = self.parts.first()
            && (first.shape() != part.shape() || first.data_type() != part.data_type())
        {
            return Err(OpError::Value(format!(
                "an iteration gives {} of shape {:?}, the first gave {} of shape {:?}",
                part.data_type(),
                part.shape(),
                first.data_type(),
                first.shape()
            )));
        }
        let size = bytes(&part);
        context.reserve_bytes(size)?;
        context.live_bytes.set(context.live_bytes.get() + size);
        self.parts.push(part);
        Ok(())
    }

    /// The parts along a new first axis.
    fn stacked(&self, context: &Context<'_>) -> Result<Option<Tensor>, OpError> {
        let Some(first) = self.parts.first() else {
            return Ok(None);
        };
        let total = self.parts.iter().map(bytes).sum();
        context.reserve_bytes(total)?;
        let mut shape = Shape::from_slice(&[self.parts.len()]);
        shape.extend_from_slice(first.shape());
        let parts: Vec<&Tensor> = self.parts.iter().collect();
        let data = with_data!(first.data(), values => joined(&parts, values, 0));
        Ok(Some(Tensor::from_data(&shape, data)?))
    }
}

/// The outputs of a loop's body from `first` on, for no iteration at all.
fn empty_outputs(
    body: &Subgraph,
    first: usize,
    trial: Result<Vec<Tensor>, OpError>,
) -> Result<Vec<Tensor>, OpError> {
    let mut outputs = Vec::new();
    let trial = match trial {
        Err(OpError::Type(reason)) => return Err(OpError::Type(reason)),
        Err(error) => Err(error),
        Ok(tensors) => Ok(tensors),
    };
    for place in first..body.outputs {
        let declared = body.declared.get(place).and_then(Option::as_ref);
        let (data_type, found) = match (&trial, declared) {
            (Ok(tensors), _) if place < tensors.len() => {
                (tensors[place].data_type(), tensors[place].shape())
            }
            (_, Some((data_type, shape))) => (*data_type, shape.as_slice()),
            (Err(error), None) => return Err(error.clone()),
            (Ok(_), None) => return Err(OpError::Value("an output is missing".to_string())),
        };
        let mut shape = Shape::from_slice(&[0]);
        shape.extend_from_slice(found);
        outputs.push(Tensor::zeros(data_type, &shape)?);
    }
    Ok(outputs)
}

#[derive(Debug)]
struct Loop {
    body: Subgraph,
    /// The number of values that an iteration hands to the next.
    carried: usize,
}

fn repeat(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(0, usize::MAX)?;
    let carried = node
        .inputs()
        .checked_sub(2)
        .ok_or("it has fewer than 2 inputs")?;
    let body = node.subgraph("body")?;
    if body.inputs != carried + 2 || body.outputs < carried + 1 {
        return Err(format!(
            "the body has {} inputs and {} outputs, which does not fit {carried} carried values",
            body.inputs, body.outputs
        ));
    }
    if node.outputs() > body.outputs - 1 {
        return Err(format!(
            "it has {} outputs, and its body gives {}",
            node.outputs(),
            body.outputs - 1
        ));
    }
    Ok(Box::new(Loop { body, carried }))
}

impl Loop {
    fn inputs<'a>(&self, number: i64, carried: Vec<Arg<'a>>) -> Vec<Arg<'a>> {
        let mut inputs = Vec::with_capacity(self.carried + 2);
        inputs.push(Arg::Owned(Tensor::scalar(number)));
        inputs.push(Arg::Owned(Tensor::scalar(true)));
        inputs.extend(carried);
        inputs
    }

    fn initial<'a>(&self, args: &'a Args<'_>) -> Result<Vec<Arg<'a>>, OpError> {
        let each = (0..self.carried).map(|place| args.get(place + 2).map(Arg::Borrowed));
        each.collect()
    }
}

impl Operator for Loop {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let args = &*args;
        let live_before = args.context.live_bytes.get();
        let trips = match args.optional(0) {
            None => i64::MAX,
            Some(_) => match args.integers(0)?.as_slice() {
                [trips] => *trips,
                _ => return Err(OpError::Value("the trip count is not one number".into())),
            },
        };
        let mut going_on = match args.optional(1) {
            Some(condition) => truth(condition, "the condition")?,
            None => true,
        };
        let mut state: Option<Vec<Tensor>> = None;
        let mut collected: Vec<Collected> = Vec::new();
        collected.resize_with(self.body.outputs - 1 - self.carried, || Collected {
            parts: Vec::new(),
        });
        let mut number = 0;
        while going_on && number < trips {
            let carried = match state.take() {
                Some(state) => state.into_iter().map(Arg::Owned).collect(),
                None => self.initial(args)?,
            };
            let outputs = run_graph(&self.body, self.inputs(number, carried), args)?;
            let mut outputs = outputs.into_iter();
            if let Some(condition) = outputs.next() {
                going_on = truth(&condition, "the body's condition")?;
            }
            let next: Vec<Tensor> = outputs.by_ref().take(self.carried).collect();
            // The values of one iteration are small change against what is collected, unless they
            // grow with each.
            args.context.reserve_bytes(next.iter().map(bytes).sum())?;
            state = Some(next);
            for (collected, part) in collected.iter_mut().zip(outputs) {
                collected.push(part, args.context)?;
            }
            number += 1;
        }
        let mut outputs = Outputs::new();
        match state {
            Some(state) => outputs.extend(state),
            None => {
                for place in 0..self.carried {
                    outputs.push(args.get(place + 2)?.clone());
                }
            }
        }
        if number == 0 && !collected.is_empty() {
            let trial = run_graph(&self.body, self.inputs(0, self.initial(args)?), args);
            outputs.extend(empty_outputs(&self.body, 1 + self.carried, trial)?);
        } else {
            for collected in &collected {
                outputs.extend(collected.stacked(args.context)?);
            }
        }
        args.context.live_bytes.set(live_before);
        Ok(outputs)
    }
}

#[derive(Debug)]
struct Scan {
    body: Subgraph,
    /// The number of values that an iteration hands to the next.
    carried: usize,
    input_axes: Vec<i64>,
    input_backwards: Vec<bool>,
    output_axes: Vec<i64>,
    output_backwards: Vec<bool>,
}

fn scan(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    if node.version < 9 {
        return Err("the form with a batch axis (before version 9) is not supported".to_string());
    }
    let scanned = node.int("num_scan_inputs")?.unwrap_or(0);
    let scanned = usize::try_from(scanned).unwrap_or(0);
    let carried = node.inputs().checked_sub(scanned);
    let (Some(carried), 1..) = (carried, scanned) else {
        return Err(format!(
            "`num_scan_inputs` is missing or does not fit {} inputs",
            node.inputs()
        ));
    };
    node.expect_inputs(node.inputs(), node.inputs())?;
    let body = node.subgraph("body")?;
    if body.inputs != node.inputs() || body.outputs < carried || node.outputs() > body.outputs {
        return Err(format!(
            "the body has {} inputs and {} outputs, the node {} and {}",
            body.inputs,
            body.outputs,
            node.inputs(),
            node.outputs()
        ));
    }
    let collected = body.outputs - carried;
    let numbers = |name: &str, count: usize| match node.ints(name)? {
        Some(values) if values.len() == count => Ok(values.to_vec()),
        Some(values) => Err(format!(
            "`{name}` has {} numbers, expected {count}",
            values.len()
        )),
        None => Ok(vec![0; count]),
    };
    let directions = |name: &str, count: usize| -> Result<Vec<bool>, String> {
        let values = numbers(name, count)?;
        Ok(values.into_iter().map(|direction| direction == 1).collect())
    };
    Ok(Box::new(Scan {
        carried,
        input_axes: numbers("scan_input_axes", scanned)?,
        input_backwards: directions("scan_input_directions", scanned)?,
        output_axes: numbers("scan_output_axes", collected)?,
        output_backwards: directions("scan_output_directions", collected)?,
        body,
    }))
}

/// An input of `Scan` and the axis along which it is taken apart.
struct Scanned<'a> {
    tensor: &'a Tensor,
    axis: usize,
    backwards: bool,
    /// All of the tensor at the first place of the axis.
    shape: Shape,
    strides: SmallVec<[isize; 4]>,
    step: usize,
}

impl<'a> Scanned<'a> {
    fn new(tensor: &'a Tensor, place: i64, backwards: bool) -> Result<Scanned<'a>, OpError> {
        let axis = axis(place, tensor.rank())?;
        let mut shape = Shape::from_slice(tensor.shape());
        shape.remove(axis);
        let mut strides = layout::strides(tensor.shape());
        let step = strides.remove(axis).unsigned_abs();
        Ok(Scanned {
            tensor,
            axis,
            backwards,
            shape,
            strides,
            step,
        })
    }

    fn length(&self) -> usize {
        self.tensor.shape()[self.axis]
    }

    fn part(&self, number: usize, context: &Context<'_>) -> Result<Tensor, OpError> {
        let place = if self.backwards {
            self.length() - 1 - number
        } else {
            number
        };
        let view = View {
            shape: self.shape.clone(),
            strides: self.strides.clone(),
            start: place.saturating_mul(self.step),
        };
        layout::copy(self.tensor, &view, &view.shape, context)
    }
}

impl Operator for Scan {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let args = &*args;
        let live_before = args.context.live_bytes.get();
        let mut scanned = Vec::with_capacity(self.input_axes.len());
        for (number, place) in self.input_axes.iter().enumerate() {
            let tensor = args.get(self.carried + number)?;
            scanned.push(Scanned::new(tensor, *place, self.input_backwards[number])?);
        }
        let length = scanned.first().map_or(0, Scanned::length);
        if let Some(other) = scanned.iter().find(|other| other.length() != length) {
            return Err(OpError::Value(format!(
                "its inputs have different lengths, {length} and {}",
                other.length()
            )));
        }
        let mut collected: Vec<Collected> = Vec::new();
        collected.resize_with(self.output_axes.len(), || Collected { parts: Vec::new() });
        let mut state: Option<Vec<Tensor>> = None;
        for number in 0..length {
            let mut inputs: Vec<Arg<'_>> = match state.take() {
                Some(state) => state.into_iter().map(Arg::Owned).collect(),
                None => self.initial(args)?,
            };
            for scanned in &scanned {
                inputs.push(Arg::Owned(scanned.part(number, args.context)?));
            }
            let outputs = run_graph(&self.body, inputs, args)?;
            let mut outputs = outputs.into_iter();
            let next: Vec<Tensor> = outputs.by_ref().take(self.carried).collect();
            args.context.reserve_bytes(next.iter().map(bytes).sum())?;
            state = Some(next);
            for (collected, part) in collected.iter_mut().zip(outputs) {
                collected.push(part, args.context)?;
            }
        }
        let mut stacked = Vec::new();
        if length == 0 {
            let mut inputs = self.initial(args)?;
            for scanned in &scanned {
                let data_type = scanned.tensor.data_type();
                let elements = layout::count(&scanned.shape)?;
                args.context.reserve(elements, data_type)?;
                let zeros = Tensor::zeros(data_type, &scanned.shape)?;
                inputs.push(Arg::Owned(zeros));
            }
            let trial = run_graph(&self.body, inputs, args);
            stacked = empty_outputs(&self.body, self.carried, trial)?;
        } else {
            for (collected, backwards) in collected.iter_mut().zip(&self.output_backwards) {
                if *backwards {
                    collected.parts.reverse();
                }
                stacked.extend(collected.stacked(args.context)?);
            }
        }
        let mut outputs = Outputs::new();
        match state {
            Some(state) => outputs.extend(state),
            None => {
                for place in 0..self.carried {
                    outputs.push(args.get(place)?.clone());
                }
            }
        }
        for (tensor, place) in stacked.into_iter().zip(&self.output_axes) {
            outputs.push(first_axis_to(tensor, *place, args.context)?);
        }
        args.context.live_bytes.set(live_before);
        Ok(outputs)
    }
}

impl Scan {
    fn initial<'a>(&self, args: &'a Args<'_>) -> Result<Vec<Arg<'a>>, OpError> {
        let each = (0..self.carried).map(|place| args.get(place).map(Arg::Borrowed));
        each.collect()
    }
}

/// Moves the first axis to another place.
fn first_axis_to(tensor: Tensor, place: i64, context: &Context<'_>) -> Result<Tensor, OpError> {
    let place = axis(place, tensor.rank())?;
    if place == 0 {
        return Ok(tensor);
    }
    let mut view = View {
        shape: Shape::from_slice(tensor.shape()),
        strides: layout::strides(tensor.shape()),
        start: 0,
    };
    let size = view.shape.remove(0);
    view.shape.insert(place, size);
    let stride = view.strides.remove(0);
    view.strides.insert(place, stride);
    layout::copy(&tensor, &view, &view.shape, context)
}

#[cfg(test)]
mod tests {
    use super::super::layout::testing::{node, run_graph, value};
    use crate::proto::{AttributeProto, AttributeType, GraphProto};
    use crate::tensor::{DataType, Tensor};

    /// A loop without end over a body without nodes, or with one that doubles a tensor.
    fn endless(doubling: bool) -> Result<Vec<Tensor>, String> {
        let mut body = GraphProto {
            input: vec![
                value("number", DataType::I64),
                value("on", DataType::Bool),
                value("x", DataType::F32),
            ],
            output: vec![value("on", DataType::Bool), value("x", DataType::F32)],
            ..GraphProto::default()
        };
        if doubling {
            let mut concat = node("Concat", &["x", "x"], &["twice"]);
            concat
                .attribute
                .push(super::super::layout::testing::int("axis", 0));
            body.node.push(concat);
            body.output[1] = value("twice", DataType::F32);
        }
        let mut repeat = node("Loop", &["", "", "a"], &["out"]);
        repeat.attribute.push(AttributeProto {
            name: "body".to_string(),
            g: Some(body),
            r#type: AttributeType::Graph as i32,
            ..AttributeProto::default()
        });
        run_graph(
            vec![repeat],
            &["out"],
            vec![Tensor::vector(vec![1.0f32; 1 << 10])],
        )
    }

    #[test]
    fn loops_without_end_are_stopped() {
        assert!(endless(false).unwrap_err().contains("too many steps"));
    }

    #[test]
    fn loops_that_grow_without_end_are_stopped() {
        assert!(endless(true).unwrap_err().contains("bytes"));
    }
}
