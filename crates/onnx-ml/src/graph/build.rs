//! [`Builder`]: from the graphs of a file to plans.

use std::cell::Cell;

use smallvec::SmallVec;

use super::folding::Folding;
use super::scope::Scope;
use super::versions::Versions;
use super::{Input, Output, Plan, Source, Step, Subgraph};
use crate::error::LoadError;
use crate::interface;
use crate::limits::Limits;
use crate::node::Node;
use crate::operator::OpError;
use crate::operators;
use crate::proto::{GraphProto, ModelProto, NodeProto};
use crate::tensor::Tensor;
use crate::tensors;

/// Graphs inside graphs (branches and loop bodies).
const DEEPEST: usize = 8;
/// Attributes of a node: no operator has half as many.
pub(crate) const MOST_ATTRIBUTES: usize = 64;

/// Makes plans of the graphs of one file.
pub(crate) struct Builder<'a> {
    versions: Versions,
    limits: &'a Limits,
    nodes: Cell<u64>,
    depth: Cell<usize>,
    folding: Folding,
    /// Bytes that operators may still keep for themselves of what the file fixes.
    prepared: Cell<u64>,
}

impl<'a> Builder<'a> {
    /// Refuses a file of operator sets whose rules this crate does not know.
    pub fn new(model: &ModelProto, limits: &'a Limits) -> Result<Builder<'a>, LoadError> {
        Ok(Builder {
            versions: Versions::imported_by(model)?,
            limits,
            nodes: Cell::new(0),
            depth: Cell::new(0),
            folding: Folding::new(limits),
            prepared: Cell::new(limits.tensor_bytes),
        })
    }

    /// Whether an operator may keep so many bytes made of constants: packed matrices, compiled
    /// patterns and the like. Many nodes may share a constant, so there is a bound for all together.
    pub fn prepare(&self, bytes: u64) -> bool {
        match self.prepared.get().checked_sub(bytes) {
            Some(left) => {
                self.prepared.set(left);
                true
            }
            None => false,
        }
    }

    /// The plan of the file's graph, whose own inputs have these names.
    pub fn plan(&self, graph: &GraphProto, inputs: &[&str]) -> Result<Plan, LoadError> {
        let (plan, _) = self.build(graph, inputs, Scope::new(None))?;
        Ok(plan)
    }

    /// The plan of a graph in an attribute of a node.
    pub fn subgraph(&self, graph: &GraphProto, parent: &Scope<'_>) -> Result<Subgraph, LoadError> {
        if self.depth.get() >= DEEPEST {
            return Err(LoadError::Malformed {
                reason: format!("graphs are nested more than {DEEPEST} deep"),
            });
        }
        self.depth.set(self.depth.get() + 1);
        let inputs: Vec<&str> = graph
            .input
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        let built = self.build(graph, &inputs, Scope::new(Some(parent)));
        self.depth.set(self.depth.get() - 1);
        let (plan, captures) = built?;
        Ok(Subgraph {
            inputs: inputs.len(),
            outputs: plan.outputs.len(),
            declared: graph.output.iter().map(interface::declared).collect(),
            plan,
            captures,
            first_capture: 0,
        })
    }

    fn build(
        &self,
        graph: &GraphProto,
        inputs: &[&str],
        scope: Scope<'_>,
    ) -> Result<(Plan, Vec<String>), LoadError> {
        self.count(graph)?;
        let mut constants = Vec::new();
        for proto in &graph.initializer {
            let refuse = |reason: String| value_error("initializer", &proto.name, reason);
            let tensor = tensors::read(proto).map_err(refuse)?;
            if !scope.define(&proto.name, Source::Constant(constants.len())) {
                return Err(value_error(
                    "initializer",
                    &proto.name,
                    "the name is used twice",
                ));
            }
            constants.push(tensor);
        }
        let mut input_slots = Vec::new();
        for name in inputs {
            let slot = scope.new_slot();
            if name.is_empty() || !scope.define(name, Source::Slot(slot)) {
                let reason = "the name is empty or used twice";
                return Err(value_error("graph input", name, reason));
            }
            input_slots.push(slot);
        }
        // Operators first: that a model needs an operator which is not there is the news its owner
        // wants, not what follows from it.
        for node in &graph.node {
            if operators::find(&node.domain, &node.op_type).is_none() {
                return Err(operators::unsupported(node));
            }
        }
        let mut steps = Vec::with_capacity(graph.node.len());
        for node in &graph.node {
            let step = self.node(node, &scope, &constants)?;
            self.fold_or_keep(step, &scope, &mut constants, &mut steps, node)?;
        }
        let mut outputs = Vec::with_capacity(graph.output.len());
        for output in &graph.output {
            match scope.resolve(&output.name) {
                Some(Source::Absent) | None => {
                    let reason = "nothing in the graph produces it";
                    return Err(value_error("graph output", &output.name, reason));
                }
                Some(source) => outputs.push(Output {
                    source,
                    again: false,
                }),
            }
        }
        let mut captures = Vec::new();
        let slots = scope.slots();
        for (name, slot) in scope.into_captures() {
            captures.push(name);
            input_slots.push(slot);
        }
        let mut plan = Plan {
            steps,
            shortcuts: Vec::new(),
            constants,
            slots,
            inputs: input_slots,
            outputs,
        };
        plan.drop_unread();
        plan.find_shortcuts();
        plan.mark_last();
        Ok((plan, captures))
    }

    fn count(&self, graph: &GraphProto) -> Result<(), LoadError> {
        self.nodes.set(self.nodes.get() + graph.node.len() as u64);
        if self.nodes.get() > self.limits.nodes {
            return Err(LoadError::TooLarge {
                what: "the number of nodes",
                found: self.nodes.get(),
                limit: self.limits.nodes,
            });
        }
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map(|values| values.name.as_str());
            let reason = "sparse initializers are not supported";
            return Err(value_error("initializer", name.unwrap_or_default(), reason));
        }
        Ok(())
    }

    fn node(
        &self,
        proto: &NodeProto,
        scope: &Scope<'_>,
        constants: &[Tensor],
    ) -> Result<Step, LoadError> {
        let error = |reason: String| LoadError::Node {
            node: node_name(proto).to_string(),
            operator: proto.op_type.clone(),
            reason,
        };
        if proto.attribute.len() > MOST_ATTRIBUTES {
            return Err(error(format!(
                "it has {} attributes, at most {MOST_ATTRIBUTES} are supported",
                proto.attribute.len()
            )));
        }
        let mut names: Vec<&str> = Vec::new();
        for attribute in &proto.attribute {
            let name = attribute.name.as_str();
            if names.contains(&name) {
                return Err(error(format!("attribute `{name}` is given twice")));
            }
            names.push(name);
            if !attribute.ref_attr_name.is_empty() {
                return Err(error(format!(
                    "attribute `{name}` refers to a function's attribute outside a function"
                )));
            }
        }
        let mut inputs = SmallVec::new();
        let mut known = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            let source = scope.resolve(name).ok_or_else(|| {
                error(format!(
                    "input `{name}` is neither a graph input, nor an initializer, nor an output of \
                     a node before this one"
                ))
            })?;
            known.push(match source {
                Source::Constant(place) => constants.get(place),
                _ => None,
            });
            inputs.push(Input {
                source,
                last: false,
            });
        }
        let Some(build) = operators::find(&proto.domain, &proto.op_type) else {
            return Err(operators::unsupported(proto));
        };
        let version = self.versions.of_node(proto).map_err(error)?;
        let node = Node::new(proto, version, known, self, scope);
        let operator = build(&node).map_err(error)?;
        node.finish().map_err(error)?;
        for name in node.captured() {
            let source = scope.resolve(&name).unwrap_or(Source::Absent);
            inputs.push(Input {
                source,
                last: false,
            });
        }
        if proto.output.iter().all(String::is_empty) {
            return Err(error("it has no output".to_string()));
        }
        Ok(Step {
            name: node_name(proto).to_string(),
            operator_name: proto.op_type.clone(),
            operator,
            inputs,
            outputs: SmallVec::new(),
        })
    }

    /// Computes the step now if the file fixes all its inputs, and gives its outputs their places.
    fn fold_or_keep(
        &self,
        mut step: Step,
        scope: &Scope<'_>,
        constants: &mut Vec<Tensor>,
        steps: &mut Vec<Step>,
        proto: &NodeProto,
    ) -> Result<(), LoadError> {
        let twice = |name: &String| LoadError::Node {
            node: node_name(proto).to_string(),
            operator: proto.op_type.clone(),
            reason: format!("output `{name}` is defined twice"),
        };
        let fixed = step
            .inputs
            .iter()
            .all(|input| !matches!(input.source, Source::Slot(_)));
        if fixed {
            match self.folding.compute(&step, constants) {
                Ok(outputs) => {
                    let unnamed = outputs.len();
                    for (tensor, name) in outputs.into_iter().zip(&proto.output) {
                        if !name.is_empty()
                            && !scope.define(name, Source::Constant(constants.len()))
                        {
                            return Err(twice(name));
                        }
                        constants.push(tensor);
                    }
                    for name in proto.output.iter().skip(unnamed) {
                        let slot = scope.new_slot();
                        if !name.is_empty() && !scope.define(name, Source::Slot(slot)) {
                            return Err(twice(name));
                        }
                    }
                    return Ok(());
                }
                Err(OpError::Type(reason)) => {
                    return Err(LoadError::Node {
                        node: step.name,
                        operator: step.operator_name,
                        reason,
                    });
                }
                // Left to the run: it may be in a branch that is never taken.
                Err(_) => {}
            }
        }
        for name in &proto.output {
            if name.is_empty() {
                step.outputs.push(None);
                continue;
            }
            let slot = scope.new_slot();
            if !scope.define(name, Source::Slot(slot)) {
                return Err(twice(name));
            }
            step.outputs.push(Some(slot));
        }
        steps.push(step);
        Ok(())
    }
}

/// What a node is called in messages: its name, or that of its first output.
pub(crate) fn node_name(node: &NodeProto) -> &str {
    if !node.name.is_empty() {
        return &node.name;
    }
    node.output.first().map(String::as_str).unwrap_or_default()
}

fn value_error(role: &'static str, name: &str, reason: impl Into<String>) -> LoadError {
    LoadError::Value {
        role,
        name: name.to_string(),
        reason: reason.into(),
    }
}
