//! Puts the nodes of a file's own functions in the place of the nodes that call them.
//!
//! Exporters write functions for what they say often (scikit-learn's imputer of nearest neighbours,
//! whole layers of PyTorch). Names inside a function are its own: each call gets names of its own for
//! them, and the caller's for the function's inputs and outputs.
//!
//! A call that is nested too deep stays as it is and is refused as an unknown operator, as are those
//! of functions that call themselves. Few bytes of a file can ask for very many nodes, names and
//! constants here, so all that is copied is counted before.

use std::collections::HashMap;

use prost::Message;

use crate::error::LoadError;
use crate::graph::{MOST_ATTRIBUTES, node_name};
use crate::limits::Limits;
use crate::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};

/// Functions that call functions.
const DEEPEST: usize = 8;

/// What a copied node or attribute takes besides its names and values, in bytes.
const OWN_BYTES: u64 = 256;
/// A copied name.
const NAME_BYTES: u64 = 32;

/// Replaces the calls in the model's graph.
///
/// # Errors
/// When that takes more nodes or memory than the limits allow.
pub(crate) fn inline(model: &mut ModelProto, limits: &Limits) -> Result<(), LoadError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let functions = std::mem::take(&mut model.functions);
    let by_name: HashMap<(&str, &str), &FunctionProto> = functions
        .iter()
        .map(|function| ((function.domain.as_str(), function.name.as_str()), function))
        .collect();
    let mut inliner = Inliner {
        functions: &by_name,
        limits,
        nodes: 0,
        bytes: 0,
        calls: 0,
    };
    if let Some(graph) = &mut model.graph {
        graph.node = inliner.nodes(std::mem::take(&mut graph.node), 0)?;
    }
    Ok(())
}

struct Inliner<'a> {
    functions: &'a HashMap<(&'a str, &'a str), &'a FunctionProto>,
    limits: &'a Limits,
    /// The nodes added so far, and what has been copied for them.
    nodes: u64,
    bytes: u64,
    calls: usize,
}

impl Inliner<'_> {
    fn nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, LoadError> {
        let mut inlined = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for graph in node
                .attribute
                .iter_mut()
                .filter_map(|attribute| attribute.g.as_mut())
            {
                graph.node = self.nodes(std::mem::take(&mut graph.node), depth)?;
            }
            let function = self
                .functions
                .get(&(node.domain.as_str(), node.op_type.as_str()));
            let Some(function) = function.filter(|_| depth < DEEPEST) else {
                inlined.push(node);
                continue;
            };
            if node.attribute.len().max(function.attribute_proto.len()) > MOST_ATTRIBUTES {
                return Err(LoadError::Node {
                    node: node_name(&node).to_string(),
                    operator: node.op_type,
                    reason: format!(
                        "it or its function has more than {MOST_ATTRIBUTES} attributes"
                    ),
                });
            }
            self.calls += 1;
            let names = (function.input.len() + function.output.len()) as u64;
            self.add(0, NAME_BYTES * names)?;
            let call = Call::new(function, &node, self.calls);
            let mut body = Vec::new();
            for inner in &function.node {
                self.add(count(std::slice::from_ref(inner)), call.bytes(inner))?;
                body.push(call.node(inner));
            }
            inlined.extend(self.nodes(body, depth + 1)?);
        }
        Ok(inlined)
    }

    /// Counts what is about to be copied, and refuses what is too much.
    fn add(&mut self, nodes: u64, bytes: u64) -> Result<(), LoadError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        for (what, found, limit) in [
            (
                "the number of nodes with the file's functions in the place of their calls",
                self.nodes,
                self.limits.nodes,
            ),
            (
                "the size of the file's functions in the place of their calls, in bytes",
                self.bytes,
                self.limits.tensor_bytes,
            ),
        ] {
            if found > limit {
                return Err(LoadError::TooLarge { what, found, limit });
            }
        }
        Ok(())
    }
}

/// The number of nodes, those of inner graphs included.
fn count(nodes: &[NodeProto]) -> u64 {
    let mut total = nodes.len() as u64;
    for attribute in nodes.iter().flat_map(|node| &node.attribute) {
        if let Some(graph) = &attribute.g {
            total += count(&graph.node);
        }
    }
    total
}

/// What the value of an attribute takes in memory, about.
fn value_bytes(attribute: &AttributeProto) -> u64 {
    let mut numbers = attribute.ints.len();
    let mut texts = attribute.strings.len();
    if let Some(tensor) = &attribute.t {
        numbers += tensor.int32_data.len() + tensor.int64_data.len() + tensor.uint64_data.len();
        texts += tensor.string_data.len();
    }
    let encoded = attribute.encoded_len() as u64;
    let graphs = attribute.g.as_ref().map_or(0, Message::encoded_len) as u64;
    // Numbers of one byte in the file take eight, and empty messages of an inner graph hundreds.
    encoded + 8 * numbers as u64 + NAME_BYTES * texts as u64 + 64 * graphs
}

/// One call of a function.
struct Call<'a> {
    function: &'a FunctionProto,
    caller: &'a NodeProto,
    /// The caller's names for the function's inputs and outputs.
    names: HashMap<&'a str, &'a str>,
    /// In front of all other names.
    prefix: String,
}

impl<'a> Call<'a> {
    fn new(function: &'a FunctionProto, caller: &'a NodeProto, number: usize) -> Call<'a> {
        let mut names = HashMap::new();
        for (place, name) in function.input.iter().enumerate() {
            let given = caller.input.get(place).map_or("", String::as_str);
            names.insert(name.as_str(), given);
        }
        for (place, name) in function.output.iter().enumerate() {
            if let Some(wanted) = caller.output.get(place).filter(|wanted| !wanted.is_empty()) {
                names.insert(name.as_str(), wanted.as_str());
            }
        }
        Call {
            function,
            caller,
            names,
            prefix: format!("{}#{number}/", function.name),
        }
    }

    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(outside) => (*outside).to_string(),
            None if name.is_empty() => String::new(),
            None => format!("{}{name}", self.prefix),
        }
    }

    fn node(&self, inner: &NodeProto) -> NodeProto {
        let mut node = inner.clone();
        for name in node.input.iter_mut().chain(&mut node.output) {
            *name = self.name(name);
        }
        if !node.name.is_empty() {
            node.name = format!("{}{}", self.prefix, node.name);
        }
        node.attribute = inner
            .attribute
            .iter()
            .filter_map(|a| self.attribute(a))
            .collect();
        node
    }

    /// What a copy of the node takes in memory, about.
    fn bytes(&self, inner: &NodeProto) -> u64 {
        let name = |name: &str| {
            let length = self.names.get(name).map_or(name.len(), |given| given.len());
            NAME_BYTES + (self.prefix.len() + length) as u64
        };
        let mut bytes = OWN_BYTES + inner.op_type.len() as u64 + inner.domain.len() as u64;
        bytes += name(&inner.name);
        for text in inner.input.iter().chain(&inner.output) {
            bytes += name(text);
        }
        for attribute in &inner.attribute {
            bytes += OWN_BYTES + attribute.name.len() as u64;
            bytes += match self.given(attribute) {
                Some(given) => value_bytes(given),
                None => 0,
            };
            if let Some(graph) = &attribute.g {
                let inner = graph.node.iter().map(|node| self.bytes(node));
                bytes += inner.sum::<u64>();
            }
        }
        bytes
    }

    /// The attribute itself or, if it refers to one of the function, the caller's, else the
    /// function's default.
    fn given<'b>(&'b self, inner: &'b AttributeProto) -> Option<&'b AttributeProto> {
        if inner.ref_attr_name.is_empty() {
            return Some(inner);
        }
        let wanted = |given: &&AttributeProto| given.name == inner.ref_attr_name;
        let given = self.caller.attribute.iter().find(wanted);
        given.or_else(|| self.function.attribute_proto.iter().find(wanted))
    }

    /// The attribute as it is in the copy; one that refers to what nobody gives is left out.
    fn attribute(&self, inner: &AttributeProto) -> Option<AttributeProto> {
        let mut attribute = AttributeProto {
            name: inner.name.clone(),
            ..self.given(inner)?.clone()
        };
        if let Some(graph) = &mut attribute.g
            && inner.ref_attr_name.is_empty()
        {
            self.graph(graph);
        }
        Some(attribute)
    }

    /// Gives every name of an inner graph this call's form.
    fn graph(&self, graph: &mut GraphProto) {
        for value in graph.input.iter_mut().chain(&mut graph.output) {
            value.name = self.name(&value.name);
        }
        for tensor in &mut graph.initializer {
            tensor.name = self.name(&tensor.name);
        }
        for node in &mut graph.node {
            *node = self.node(node);
        }
    }
}
