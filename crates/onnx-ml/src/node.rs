//! [`Node`]: a node of the file as an operator's builder reads it.

use std::cell::RefCell;

use crate::graph::{Builder, Scope, Subgraph};
use crate::interface::Labels;
use crate::proto::{AttributeProto, AttributeType, NodeProto};
use crate::tensor::Tensor;
use crate::tensors;

/// A node, its operator set's version and what is known of its inputs. Attributes are read by
/// name and type; one that no reader asked for makes the node an error ([`Node::finish`]), so that
/// no attribute is ever ignored silently.
pub(crate) struct Node<'a> {
    proto: &'a NodeProto,
    /// The version of the operator set that the operator belongs to.
    pub version: i64,
    /// The inputs whose value the file fixes.
    constants: Vec<Option<&'a Tensor>>,
    read: RefCell<Vec<&'a str>>,
    /// Names of outside values that the node's graphs read.
    captured: RefCell<Vec<String>>,
    builder: &'a Builder<'a>,
    scope: &'a Scope<'a>,
}

impl<'a> Node<'a> {
    pub fn new(
        proto: &'a NodeProto,
        version: i64,
        constants: Vec<Option<&'a Tensor>>,
        builder: &'a Builder<'a>,
        scope: &'a Scope<'a>,
    ) -> Node<'a> {
        Node {
            proto,
            version,
            constants,
            read: RefCell::new(Vec::new()),
            captured: RefCell::new(Vec::new()),
            builder,
            scope,
        }
    }

    /// The operator's name.
    pub fn operator(&self) -> &'a str {
        &self.proto.op_type
    }

    /// The number of inputs, absent ones included.
    pub fn inputs(&self) -> usize {
        self.proto.input.len()
    }

    /// Whether the optional input is given.
    pub fn has_input(&self, index: usize) -> bool {
        self.proto
            .input
            .get(index)
            .is_some_and(|name| !name.is_empty())
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// Whether the node names the output, so that somebody may read it.
    pub fn has_output(&self, index: usize) -> bool {
        self.proto
            .output
            .get(index)
            .is_some_and(|name| !name.is_empty())
    }

    /// The value of an input that the file fixes (an initializer, or computed from such alone).
    pub fn constant(&self, index: usize) -> Option<&'a Tensor> {
        self.constants.get(index).copied().flatten()
    }

    /// Verifies the number of inputs: at least `least`, at most `most`, the first `least` given.
    pub fn expect_inputs(&self, least: usize, most: usize) -> Result<(), String> {
        let found = self.inputs();
        if found < least || found > most {
            let expected = if least == most {
                format!("{least}")
            } else {
                format!("{least} to {most}")
            };
            return Err(format!("it has {found} inputs, expected {expected}"));
        }
        for index in 0..least {
            if !self.has_input(index) {
                return Err(format!("input {index} is missing"));
            }
        }
        Ok(())
    }

    fn find(
        &self,
        name: &str,
        expected: AttributeType,
    ) -> Result<Option<&'a AttributeProto>, String> {
        let found = self.proto.attribute.iter().find(|a| a.name == name);
        let Some(attribute) = found else {
            return Ok(None);
        };
        self.read.borrow_mut().push(&attribute.name);
        // The first versions of the format did not write the type.
        if attribute.r#type != expected as i32
            && attribute.r#type != AttributeType::Undefined as i32
        {
            return Err(format!(
                "attribute `{name}` is of type {:?}, expected {expected:?}",
                attribute.r#type()
            ));
        }
        Ok(Some(attribute))
    }

    /// Whether the attribute is there, whatever its type. Does not count as reading it.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.proto.attribute.iter().any(|a| a.name == name)
    }

    /// The node in the format of the file, for others to read. Does not count as reading attributes.
    #[cfg(feature = "tract")]
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self.proto)
    }

    /// Accepts attributes that change nothing in the result.
    pub fn ignore(&self, names: &[&str]) {
        for attribute in &self.proto.attribute {
            if names.contains(&attribute.name.as_str()) {
                self.read.borrow_mut().push(&attribute.name);
            }
        }
    }

    pub fn int(&self, name: &str) -> Result<Option<i64>, String> {
        Ok(self.find(name, AttributeType::Int)?.map(|a| a.i))
    }

    /// An int attribute that is 0 or 1.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.int(name)?.map_or(default, |i| i != 0))
    }

    pub fn float(&self, name: &str) -> Result<Option<f32>, String> {
        Ok(self.find(name, AttributeType::Float)?.map(|a| a.f))
    }

    pub fn string(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.find(name, AttributeType::String)? {
            Some(attribute) => text(name, &attribute.s).map(Some),
            None => Ok(None),
        }
    }

    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, String> {
        Ok(self
            .find(name, AttributeType::Ints)?
            .map(|a| a.ints.as_slice()))
    }

    pub fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, String> {
        Ok(self
            .find(name, AttributeType::Floats)?
            .map(|a| a.floats.as_slice()))
    }

    /// As [`Node::strings`], as they are in the file: for lists of millions.
    pub fn texts(&self, name: &str) -> Result<Option<&'a [Vec<u8>]>, String> {
        Ok(self
            .find(name, AttributeType::Strings)?
            .map(|a| a.strings.as_slice()))
    }

    pub fn strings(&self, name: &str) -> Result<Option<Vec<&'a str>>, String> {
        match self.find(name, AttributeType::Strings)? {
            Some(attribute) => {
                let texts = attribute.strings.iter().map(|bytes| text(name, bytes));
                texts.collect::<Result<Vec<_>, _>>().map(Some)
            }
            None => Ok(None),
        }
    }

    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, String> {
        match self.find(name, AttributeType::Tensor)? {
            Some(attribute) => {
                let proto = attribute.t.as_ref();
                let proto = proto.ok_or_else(|| format!("attribute `{name}` has no tensor"))?;
                let tensor = tensors::read(proto);
                tensor
                    .map(Some)
                    .map_err(|reason| format!("attribute `{name}`: {reason}"))
            }
            None => Ok(None),
        }
    }

    /// The graph in an attribute, ready to run with the values it takes from outside.
    pub fn subgraph(&self, name: &str) -> Result<Subgraph, String> {
        let attribute = self.find(name, AttributeType::Graph)?;
        let graph = attribute.and_then(|a| a.g.as_ref());
        let graph = graph.ok_or_else(|| format!("attribute `{name}` is missing"))?;
        let built = self.builder.subgraph(graph, self.scope);
        let mut built = built.map_err(|error| format!("graph `{name}`: {error}"))?;
        let mut captured = self.captured.borrow_mut();
        let first = self.inputs() + captured.len();
        captured.extend_from_slice(built.place_captures(first));
        Ok(built)
    }

    /// The names of outside values that the node's graphs read, in the order in which they follow
    /// the node's own inputs.
    pub fn captured(&self) -> Vec<String> {
        self.captured.borrow().clone()
    }

    /// Whether the operator may keep so many bytes made of constants, which other nodes may share.
    pub fn prepare(&self, bytes: u64) -> bool {
        self.builder.prepare(bytes)
    }

    /// Verifies that every attribute was read.
    pub fn finish(&self) -> Result<(), String> {
        let read = self.read.borrow();
        for attribute in &self.proto.attribute {
            if !read.contains(&attribute.name.as_str()) {
                return Err(format!(
                    "attribute `{}` is not known for version {} of the operator",
                    attribute.name, self.version
                ));
            }
        }
        Ok(())
    }
}

fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("attribute `{name}` is not UTF-8 text"))
}

/// The class labels in one of two attributes of a node.
pub(crate) fn labels_of(node: &NodeProto, integers: &str, strings: &str) -> Option<Labels> {
    for attribute in &node.attribute {
        if attribute.name == integers && !attribute.ints.is_empty() {
            return Some(Labels::Integers(attribute.ints.clone()));
        }
        if attribute.name == strings && !attribute.strings.is_empty() {
            let each = attribute
                .strings
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            return Some(Labels::Strings(each.collect()));
        }
    }
    None
}
