//! The labels that classifiers give out.

use compact_str::CompactString;

use crate::node::Node;
use crate::operator::{Context, OpError};
use crate::tensor::Tensor;

/// One label per class.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClassLabels {
    Integers(Vec<i64>),
    Strings(Vec<CompactString>),
}

impl ClassLabels {
    /// The attributes `classlabels_ints` and `classlabels_strings`; without either, no integers.
    /// As in ONNX Runtime strings go first.
    pub fn read(node: &Node<'_>) -> Result<ClassLabels, String> {
        let integers = node.ints("classlabels_ints")?.unwrap_or_default();
        let strings = node.strings("classlabels_strings")?.unwrap_or_default();
        Ok(if strings.is_empty() {
            ClassLabels::Integers(integers.to_vec())
        } else {
            ClassLabels::Strings(strings.into_iter().map(CompactString::from).collect())
        })
    }

    pub fn len(&self) -> usize {
        match self {
            ClassLabels::Integers(labels) => labels.len(),
            ClassLabels::Strings(labels) => labels.len(),
        }
    }

    /// One label per row, given the places of the classes.
    pub fn tensor(&self, classes: &[usize], context: &Context<'_>) -> Result<Tensor, OpError> {
        if let ClassLabels::Strings(labels) = self {
            let rows = classes.len() as u64;
            context.reserve_bytes(rows.saturating_mul(longest(labels)))?;
        }
        match self {
            ClassLabels::Integers(labels) => Ok(Tensor::vector(pick(labels, classes)?)),
            ClassLabels::Strings(labels) => Ok(Tensor::vector(pick(labels, classes)?)),
        }
    }
}

/// What a copy of the longest text takes.
pub(crate) fn longest(texts: &[CompactString]) -> u64 {
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    (size_of::<CompactString>() + longest) as u64
}

fn pick<T: Clone>(labels: &[T], classes: &[usize]) -> Result<Vec<T>, OpError> {
    let mut picked = Vec::with_capacity(classes.len());
    for class in classes {
        let label = labels.get(*class);
        let label = label.ok_or_else(|| format!("class {class} has no label"))?;
        picked.push(label.clone());
    }
    Ok(picked)
}
