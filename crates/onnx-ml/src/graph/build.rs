//! [`Builder`]: from the graphs of a file to plans.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use smallvec::SmallVec;

use super::{Input, Output, Plan, Source, Step, Subgraph, bytes, compute};
use crate::error::LoadError;
use crate::interface;
use crate::limits::Limits;
use crate::node::Node;
use crate::operator::{Arg, Context, OpError, Outputs};
use crate::operators::{self, ML};
use crate::proto::{GraphProto, ModelProto, NodeProto};
use crate::tensor::Tensor;
use crate::tensors;

/// Versions of the default operator set. Before 7 the rules of broadcasting were others.
const DEFAULT_VERSIONS: std::ops::RangeInclusive<i64> = 7..=26;
/// Versions of ai.onnx.ml.
const ML_VERSIONS: std::ops::RangeInclusive<i64> = 1..=5;
/// The versions for files that use an operator set without importing it, as some exporters do for
/// files of ai.onnx.ml operators alone.
const CURRENT_DEFAULT: i64 = 21;
const CURRENT_ML: i64 = 3;
/// Graphs inside graphs (branches and loop bodies).
const DEEPEST: usize = 8;
/// Attributes of a node: no operator has half as many.
pub(crate) const MOST_ATTRIBUTES: usize = 64;

/// The values known while a graph is built.
pub(crate) struct Scope<'a> {
    names: RefCell<HashMap<String, Source>>,
    slots: Cell<usize>,
    captures: RefCell<Vec<(String, usize)>>,
    parent: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    fn new(parent: Option<&'a Scope<'a>>) -> Scope<'a> {
        Scope {
            names: RefCell::new(HashMap::new()),
            slots: Cell::new(0),
            captures: RefCell::new(Vec::new()),
            parent,
        }
    }

    fn new_slot(&self) -> usize {
        let slot = self.slots.get();
        self.slots.set(slot + 1);
        slot
    }

    /// Whether the name was free.
    fn define(&self, name: &str, source: Source) -> bool {
        self.names
            .borrow_mut()
            .insert(name.to_string(), source)
            .is_none()
    }

    /// Where the value is, taking it from the graph around if it is there.
    fn resolve(&self, name: &str) -> Option<Source> {
        if name.is_empty() {
            return Some(Source::Absent);
        }
        if let Some(source) = self.names.borrow().get(name) {
            return Some(*source);
        }
        self.parent?.resolve(name)?;
        let slot = self.new_slot();
        self.captures.borrow_mut().push((name.to_string(), slot));
        self.define(name, Source::Slot(slot));
        Some(Source::Slot(slot))
    }
}

/// Makes plans of the graphs of one file.
pub(crate) struct Builder<'a> {
    default_version: i64,
    ml_version: i64,
    limits: &'a Limits,
    nodes: Cell<u64>,
    depth: Cell<usize>,
    folding: Context<'static>,
    /// Bytes that operators may still keep for themselves of what the file fixes.
    prepared: Cell<u64>,
}

impl<'a> Builder<'a> {
    /// Verifies that the operator sets are of versions whose rules this crate knows. Sets of other
    /// domains may be imported as long as no node uses them.
    pub fn new(model: &ModelProto, limits: &'a Limits) -> Result<Builder<'a>, LoadError> {
        let mut builder = Builder {
            default_version: CURRENT_DEFAULT,
            ml_version: CURRENT_ML,
            limits,
            nodes: Cell::new(0),
            depth: Cell::new(0),
            folding: Context {
                limit_bytes: limits.tensor_bytes,
                live_bytes: Cell::new(0),
                steps_left: Cell::new(limits.nodes),
                pool: None,
            },
            prepared: Cell::new(limits.tensor_bytes),
        };
        let only_identity = only_identity(model);
        for import in &model.opset_import {
            let (known, version) = match import.domain.as_str() {
                "" | "ai.onnx" => (DEFAULT_VERSIONS, &mut builder.default_version),
                ML => (ML_VERSIONS, &mut builder.ml_version),
                _ => continue,
            };
            if import.version >= 1 && *known.start() > import.version && only_identity {
                continue;
            }
            if !known.contains(&import.version) {
                return Err(LoadError::Value {
                    role: "operator set",
                    name: import.domain.clone(),
                    reason: format!(
                        "version {} is not supported, expected {} to {}",
                        import.version,
                        known.start(),
                        known.end()
                    ),
                });
            }
            *version = import.version;
        }
        Ok(builder)
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
        let scope = Scope::new(None);
        let (plan, _) = self.build(graph, inputs, &scope)?;
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
        let scope = Scope::new(Some(parent));
        let inputs: Vec<&str> = graph
            .input
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        let built = self.build(graph, &inputs, &scope);
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
        scope: &Scope<'_>,
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
            let step = self.node(node, scope, &constants)?;
            self.fold_or_keep(step, scope, &mut constants, &mut steps, node)?;
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
        for (name, slot) in scope.captures.borrow().iter() {
            captures.push(name.clone());
            input_slots.push(*slot);
        }
        let mut plan = Plan {
            steps,
            shortcuts: Vec::new(),
            constants,
            slots: scope.slots.get(),
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
        let (known_versions, graph_version) = if proto.domain == ML {
            (ML_VERSIONS, self.ml_version)
        } else {
            (DEFAULT_VERSIONS, self.default_version)
        };
        let version = match proto.function_version {
            0 => graph_version,
            own if known_versions.contains(&own) => own,
            own => {
                return Err(error(format!(
                    "version {own} of its operator set is not supported"
                )));
            }
        };
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

    /// Computes a step all of whose inputs the file fixes.
    fn fold(&self, step: &Step, constants: &[Tensor]) -> Result<Outputs, OpError> {
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
        let context = &self.folding;
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
            match self.fold(&step, constants) {
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

impl Plan {
    /// Drops steps that no output depends on, and constants that no step reads.
    fn drop_unread(&mut self) {
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

    fn mark_last(&mut self) {
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

/// Whether the graph uses nothing of the default operator set but `Identity`, which has always been
/// the same. Exporters import version 1 for such graphs.
fn only_identity(model: &ModelProto) -> bool {
    let mut nodes = model.graph.iter().flat_map(|graph| &graph.node);
    nodes.all(|node| !matches!(node.domain.as_str(), "" | "ai.onnx") || node.op_type == "Identity")
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
