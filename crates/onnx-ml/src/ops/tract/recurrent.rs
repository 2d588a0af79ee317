//! [`Recurrent`]: `LSTM`, `GRU` and `RNN`, verified.
//!
//! tract knows the usual activations only, and runs forwards or both ways; it would take no notice of
//! anything else, so anything else is refused here.

use super::needs::{Needs, Shapes, packed, shape_of, total};
use crate::node::Node;
use crate::operator::operations;

/// Elementary operations that a step of the series takes whatever its size: tract runs a small graph
/// for each.
const OPERATIONS_OF_A_STEP: u64 = 1 << 15;

/// What the node says.
#[derive(Debug)]
pub(super) struct Recurrent {
    /// Matrices of weights that stand above each other in one.
    gates: usize,
    directions: usize,
    hidden: Option<usize>,
    /// Whether rows come first and steps of the series second, instead of the other way round.
    rows_first: bool,
    /// Whether there is a cell beside the hidden state.
    cell: bool,
}

impl Recurrent {
    pub fn read(node: &Node<'_>) -> Result<Recurrent, String> {
        let (gates, inputs, activations): (_, _, &[&str]) = match node.operator() {
            "LSTM" => (4, 8, &["Sigmoid", "Tanh", "Tanh"]),
            "GRU" => (3, 6, &["Sigmoid", "Tanh"]),
            _ => (1, 6, &["Tanh"]),
        };
        node.expect_inputs(3, inputs)?;
        let directions = match node.string("direction")?.unwrap_or("forward") {
            "forward" => 1,
            "bidirectional" => 2,
            other => {
                return Err(format!(
                    "direction `{other}` is not supported, expected `forward` or `bidirectional`"
                ));
            }
        };
        if let Some(found) = node.strings("activations")? {
            let usual = |(place, name): (usize, &&str)| {
                name.eq_ignore_ascii_case(activations[place % activations.len()])
            };
            if found.len() != directions * activations.len() || !found.iter().enumerate().all(usual)
            {
                return Err(format!(
                    "activations {found:?} are not supported, expected {activations:?}"
                ));
            }
        }
        // They belong to activations other than those.
        node.ignore(&["activation_alpha", "activation_beta"]);
        if node.float("clip")?.is_some() {
            return Err("attribute `clip` is not supported".to_string());
        }
        if node.operator() == "LSTM" && node.flag("input_forget", false)? {
            return Err("attribute `input_forget` is not supported".to_string());
        }
        if node.operator() == "GRU" {
            node.flag("linear_before_reset", false)?;
        }
        let rows_first = node.flag("layout", false)?;
        if rows_first && directions == 2 {
            return Err("layout 1 is not supported in both directions".to_string());
        }
        let hidden = match node.int("hidden_size")? {
            None => None,
            Some(size) => {
                let hidden = usize::try_from(size).ok().filter(|size| *size > 0);
                Some(hidden.ok_or_else(|| format!("hidden_size is {size}, expected 1 or more"))?)
            }
        };
        Ok(Recurrent {
            gates,
            directions,
            hidden,
            rows_first,
            cell: node.operator() == "LSTM",
        })
    }

    pub fn needs(&self, shapes: &Shapes<'_>) -> Result<Needs, String> {
        let series = shape_of(shapes, 0)?;
        let weights = shape_of(shapes, 1)?;
        let recurrence = shape_of(shapes, 2)?;
        let [first, second, columns] = *series else {
            return Err(format!(
                "input 0 has shape {series:?}, expected three dimensions"
            ));
        };
        let (steps, rows) = if self.rows_first {
            (second, first)
        } else {
            (first, second)
        };
        let hidden = match self.hidden {
            Some(hidden) => hidden,
            None => recurrence.last().copied().unwrap_or_default(),
        };
        let directions = self.directions;
        let gates = self.gates.saturating_mul(hidden);
        for (index, found, inner) in [(1, weights, columns), (2, recurrence, hidden)] {
            let expected = [directions, gates, inner];
            if found != expected || found.contains(&0) {
                return Err(format!(
                    "input {index} has shape {found:?}, expected {expected:?}"
                ));
            }
        }
        let (every, last) = if self.rows_first {
            let every = vec![rows, steps, directions, hidden];
            (every, vec![rows, directions, hidden])
        } else {
            let every = vec![steps, directions, rows, hidden];
            (every, vec![directions, rows, hidden])
        };
        let one_row = operations(&[directions, steps, gates]);
        let inner = (columns as u64).saturating_add(hidden as u64);
        let products = one_row
            .saturating_mul(inner)
            .saturating_mul((rows as u64).saturating_add(1));
        let sums = one_row.saturating_mul(rows as u64);
        Ok(Needs {
            operations: total(&[
                products,
                sums.saturating_mul(16),
                operations(&[directions, steps]).saturating_mul(OPERATIONS_OF_A_STEP),
            ]),
            elements: total(&[
                operations(series).saturating_mul(2),
                sums.saturating_mul(4),
                operations(&every).saturating_mul(2),
                operations(&last).saturating_mul(4),
            ]),
            offsets: 0,
            outputs: match self.cell {
                true => vec![every, last.clone(), last],
                false => vec![every, last],
            },
        })
    }

    /// The graphs of gates are larger than others, and that of a GRU is made in more ways.
    pub fn analysis_steps(&self) -> u64 {
        let one = if self.gates == 3 { 256 } else { 64 };
        one * self.directions as u64
    }

    pub fn packed(shapes: &Shapes<'_>) -> u64 {
        let each = [1, 2].map(|index| match shapes.get(index).copied().flatten() {
            Some([directions, rows, inner]) => packed(*directions, *rows as u64, *inner),
            _ => 0,
        });
        total(&each)
    }
}
