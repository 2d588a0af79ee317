//! [`Layer`]: what a lent node says of itself, and [`Needs`]: what it will take.
//!
//! tract trusts the graphs it is given: a window that does not fit its input, a stride of zero or a
//! table of billions of offsets would show as a wrong result, a panic or hours of work. So every
//! attribute is verified when the file is loaded and every shape before tract sees it, and what the
//! work will take is computed from the shapes alone.

use super::recurrent::Recurrent;
use super::windows::Windows;
use crate::node::Node;
use crate::operator::operations;

/// The most rows that the packed matrices of tract are filled up to, in its kernels for any
/// processor.
const MOST_PANEL_ROWS: u64 = 128;

/// Shapes of the inputs of a node; `None` for those it leaves out.
pub(super) type Shapes<'a> = [Option<&'a [usize]>];

/// What a node says of itself, verified.
#[derive(Debug)]
pub(super) enum Layer {
    Windows(Windows),
    /// One window as large as the input.
    Global,
    Recurrent(Recurrent),
}

/// What one run of a node takes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Needs {
    /// Shapes of all outputs that the operator has.
    pub outputs: Vec<Vec<usize>>,
    /// Elementary operations of the run.
    pub operations: u64,
    /// Elements of the outputs and of all copies that are made on the way.
    pub elements: u64,
    /// Entries of the tables that say which elements each window meets.
    pub offsets: u64,
}

impl Layer {
    /// Verifies the attributes and the number of inputs.
    pub fn read(node: &Node<'_>) -> Result<Layer, String> {
        Ok(match node.operator() {
            "GlobalAveragePool" | "GlobalMaxPool" => {
                node.expect_inputs(1, 1)?;
                Layer::Global
            }
            "GRU" | "LSTM" | "RNN" => Layer::Recurrent(Recurrent::read(node)?),
            _ => Layer::Windows(Windows::read(node)?),
        })
    }

    /// What tract's analysis takes whatever the shapes are, in steps of the run.
    pub fn analysis_steps(&self) -> u64 {
        match self {
            Layer::Windows(_) | Layer::Global => 16,
            Layer::Recurrent(recurrent) => recurrent.analysis_steps(),
        }
    }

    /// Elements of the weights as tract keeps them, packed into panels; of those weights alone whose
    /// shapes are given.
    pub fn packed(&self, shapes: &Shapes<'_>) -> u64 {
        match self {
            Layer::Windows(windows) => windows.packed(shapes),
            Layer::Recurrent(_) => Recurrent::packed(shapes),
            Layer::Global => 0,
        }
    }

    /// Verifies the shapes, and computes from them what the run will take.
    pub fn needs(&self, shapes: &Shapes<'_>) -> Result<Needs, String> {
        match self {
            Layer::Windows(windows) => windows.needs(shapes),
            Layer::Recurrent(recurrent) => recurrent.needs(shapes),
            Layer::Global => {
                let input = shape_of(shapes, 0)?;
                if input.len() < 3 {
                    return Err(format!("input 0 has shape {input:?}, expected [N, C, …]"));
                }
                let mut output = vec![1; input.len()];
                output[..2].copy_from_slice(&input[..2]);
                let elements = operations(input);
                Ok(Needs {
                    outputs: vec![output],
                    operations: elements.saturating_mul(4),
                    elements: elements.saturating_mul(2),
                    ..Needs::default()
                })
            }
        }
    }
}

/// The shape of a required input.
pub(super) fn shape_of<'a>(shapes: &Shapes<'a>, index: usize) -> Result<&'a [usize], String> {
    let shape = shapes.get(index).copied().flatten();
    shape.ok_or_else(|| format!("input {index} is missing"))
}

/// Elements of a number of matrices when their rows are filled up to whole panels.
pub(super) fn packed(count: usize, rows: u64, inner: usize) -> u64 {
    operations(&[count, inner]).saturating_mul(filled(rows, MOST_PANEL_ROWS))
}

/// The next multiple.
pub(super) fn filled(count: u64, panel: u64) -> u64 {
    count.checked_next_multiple_of(panel).unwrap_or(u64::MAX)
}

/// The sum of what may be too large for a sum.
pub(super) fn total(parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(0, |sum: u64, part| sum.saturating_add(*part))
}
