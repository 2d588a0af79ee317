//! Rewrites what exporters say with sequences into tensors, before anything else looks at the graph.
//!
//! The executor has no sequences. Those of tabular models are made in one place and are taken apart
//! where they are read, so that tensors can stand for them:
//!
//! * a graph output made by `SequenceConstruct(a, b, …)` (the probabilities of a multi-output
//!   classifier) becomes one output per element, named `<name>_0`, `<name>_1`, …;
//! * `ConcatFromSequence` of one becomes `Concat`, with `new_axis` after an `Unsqueeze` of each;
//! * `SequenceAt` of one with a fixed place becomes `Identity`, and `SequenceLength` a `Constant`.
//!
//! Every other use of sequences stays in the graph and is refused by name.

use std::collections::{HashMap, HashSet};

use crate::proto::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use crate::tensors;

/// Rewrites the model's graph; inner graphs stay as they are.
///
/// `most_nodes` bounds what is added, beyond which the rest stays as it is.
pub(crate) fn sequences(model: &mut ModelProto, most_nodes: u64) {
    let version = model
        .opset_import
        .iter()
        .find(|import| matches!(import.domain.as_str(), "" | "ai.onnx"))
        .map_or(i64::MAX, |import| import.version);
    if let Some(graph) = &mut model.graph
        && graph.node.iter().any(is_construct)
    {
        rewrite(graph, version, most_nodes);
    }
}

fn is_default(node: &NodeProto) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx")
}

fn is_construct(node: &NodeProto) -> bool {
    is_default(node) && node.op_type == "SequenceConstruct"
}

/// More bytes of names made of others are not for the names of an exporter.
const MOST_NAME_BYTES: usize = 64 << 20;

fn rewrite(graph: &mut GraphProto, version: i64, most_nodes: u64) {
    let fixed = fixed_integers(graph);
    let mut room = usize::try_from(most_nodes).unwrap_or(usize::MAX);
    let mut name_room = MOST_NAME_BYTES;
    // Whether there is room for so many nodes with names of this length.
    let mut fits = |parts: &[String], name: &str| {
        let mut name_bytes = parts.len().saturating_mul(name.len());
        for part in parts {
            name_bytes = name_bytes.saturating_add(part.len());
        }
        let fits = parts.len() < room && name_bytes <= name_room;
        if fits {
            room -= parts.len();
            name_room -= name_bytes;
        }
        fits
    };
    let mut elements: HashMap<String, Vec<String>> = HashMap::new();
    for node in graph.node.iter().filter(|node| is_construct(node)) {
        if let [output] = node.output.as_slice() {
            elements.insert(output.clone(), node.input.clone());
        }
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        match elements.get(node.input.first().map_or("", String::as_str)) {
            Some(parts)
                if is_default(&node)
                    && fits(parts, node.output.first().map_or("", String::as_str)) =>
            {
                match replacement(&node, parts, &fixed, version) {
                    Some(replacement) => nodes.extend(replacement),
                    None => nodes.push(node),
                }
            }
            _ => nodes.push(node),
        }
    }
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in std::mem::take(&mut graph.output) {
        match elements.get(&output.name) {
            Some(parts) if fits(parts, &output.name) => {
                for (number, part) in parts.iter().enumerate() {
                    let name = format!("{}_{number}", output.name);
                    nodes.push(node("Identity", vec![part.clone()], name.clone()));
                    outputs.push(ValueInfoProto { name, r#type: None });
                }
            }
            _ => outputs.push(output),
        }
    }
    // What still reads a sequence keeps its maker, and is refused with it.
    let mut read: HashSet<String> = HashSet::new();
    for node in &nodes {
        read.extend(node.input.iter().cloned());
    }
    read.extend(outputs.iter().map(|output| output.name.clone()));
    nodes.retain(|node| !is_construct(node) || node.output.iter().any(|name| read.contains(name)));
    graph.node = nodes;
    graph.output = outputs;
}

/// The single integers that initializers and `Constant` nodes fix.
fn fixed_integers(graph: &GraphProto) -> HashMap<String, i64> {
    let mut fixed = HashMap::new();
    let mut add = |name: &str, tensor: &TensorProto| {
        // Larger tensors are no places, and reading them would copy them.
        if tensor.dims.iter().all(|size| *size == 1)
            && let Ok(tensor) = tensors::read(tensor)
        {
            match (tensor.as_slice::<i64>(), tensor.as_slice::<i32>()) {
                (Some([value]), _) => fixed.insert(name.to_string(), *value),
                (_, Some([value])) => fixed.insert(name.to_string(), i64::from(*value)),
                _ => None,
            };
        }
    };
    for tensor in &graph.initializer {
        add(&tensor.name, tensor);
    }
    for node in &graph.node {
        if let ("Constant", [output], [attribute]) = (
            node.op_type.as_str(),
            node.output.as_slice(),
            node.attribute.as_slice(),
        ) && let Some(tensor) = &attribute.t
        {
            add(output, tensor);
        }
    }
    fixed
}

/// Nodes of tensors that do what `node` does with a sequence of `parts`.
fn replacement(
    reader: &NodeProto,
    parts: &[String],
    fixed: &HashMap<String, i64>,
    version: i64,
) -> Option<Vec<NodeProto>> {
    let [output] = reader.output.as_slice() else {
        return None;
    };
    let int = |name: &str| {
        let found = reader.attribute.iter().find(|a| a.name == name);
        found.map(|attribute| attribute.i)
    };
    match reader.op_type.as_str() {
        "ConcatFromSequence" => {
            let axis = int("axis")?;
            let mut nodes = Vec::new();
            let mut inputs = parts.to_vec();
            if int("new_axis").unwrap_or(0) != 0 {
                let axes_name = format!("{output}_axes");
                if version >= 13 {
                    let mut axes = node("Constant", Vec::new(), axes_name.clone());
                    axes.attribute
                        .push(ints_attribute("value_ints", vec![axis]));
                    nodes.push(axes);
                }
                for (number, input) in inputs.iter_mut().enumerate() {
                    let name = format!("{output}_part_{number}");
                    let part = std::mem::replace(input, name.clone());
                    let mut unsqueeze = node("Unsqueeze", vec![part], name);
                    if version >= 13 {
                        unsqueeze.input.push(axes_name.clone());
                    } else {
                        unsqueeze.attribute.push(ints_attribute("axes", vec![axis]));
                    }
                    nodes.push(unsqueeze);
                }
            }
            let mut concat = node("Concat", inputs, output.clone());
            concat.name = reader.name.clone();
            concat.attribute.push(AttributeProto {
                name: "axis".to_string(),
                i: axis,
                r#type: AttributeType::Int as i32,
                ..AttributeProto::default()
            });
            nodes.push(concat);
            Some(nodes)
        }
        "SequenceAt" => {
            let place = *fixed.get(reader.input.get(1)?)?;
            let count = i64::try_from(parts.len()).ok()?;
            let place = if place < 0 {
                place.checked_add(count)?
            } else {
                place
            };
            let part = parts.get(usize::try_from(place).ok()?)?;
            Some(vec![node("Identity", vec![part.clone()], output.clone())])
        }
        "SequenceLength" => {
            let mut length = node("Constant", Vec::new(), output.clone());
            length.attribute.push(AttributeProto {
                name: "value_int".to_string(),
                i: i64::try_from(parts.len()).ok()?,
                r#type: AttributeType::Int as i32,
                ..AttributeProto::default()
            });
            Some(vec![length])
        }
        _ => None,
    }
}

fn node(operator: &str, input: Vec<String>, output: String) -> NodeProto {
    NodeProto {
        input,
        output: vec![output],
        op_type: operator.to_string(),
        ..NodeProto::default()
    }
}

fn ints_attribute(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        ints,
        r#type: AttributeType::Ints as i32,
        ..AttributeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence_model(reader: Option<NodeProto>, output: &str) -> ModelProto {
        let construct = node(
            "SequenceConstruct",
            vec!["a".into(), "b".into()],
            "s".into(),
        );
        let mut graph = GraphProto {
            node: vec![construct],
            ..GraphProto::default()
        };
        graph.node.extend(reader);
        graph.output.push(ValueInfoProto {
            name: output.to_string(),
            r#type: None,
        });
        ModelProto {
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    fn rewritten(mut model: ModelProto, most_nodes: u64) -> (Vec<String>, Vec<String>) {
        sequences(&mut model, most_nodes);
        let graph = model.graph.unwrap();
        let operators = graph.node.into_iter().map(|node| node.op_type);
        let outputs = graph.output.into_iter().map(|output| output.name);
        (operators.collect(), outputs.collect())
    }

    #[test]
    fn an_output_that_is_a_sequence_becomes_one_output_per_element() {
        let (operators, outputs) = rewritten(sequence_model(None, "s"), 100);
        assert_eq!(operators, ["Identity", "Identity"]);
        assert_eq!(outputs, ["s_0", "s_1"]);
    }

    #[test]
    fn what_is_not_known_or_too_much_stays() {
        let insert = node("SequenceInsert", vec!["s".into(), "c".into()], "o".into());
        let (operators, _) = rewritten(sequence_model(Some(insert), "o"), 100);
        assert_eq!(operators, ["SequenceConstruct", "SequenceInsert"]);
        let (operators, outputs) = rewritten(sequence_model(None, "s"), 2);
        assert_eq!(operators, ["SequenceConstruct"]);
        assert_eq!(outputs, ["s"]);
    }
}
