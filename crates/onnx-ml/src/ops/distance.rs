//! `CDist` of the com.microsoft domain, as exporters of nearest neighbours write it: the distance of
//! each row of one matrix to each row of another.
//!
//! Sums of squared differences, in f64 for both element types and in the order of the columns. (The
//! usual shortcut through a matrix product loses digits where points are close to each other, which
//! is where neighbours are decided.) The second matrix, most often the training data, is laid out
//! once so that several of its rows are worked on at the same time.

use std::sync::{Mutex, PoisonError};

use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one, operations};
use crate::tensor::{DataType, Element, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[("CDist", cdist)];

/// Rows of the second matrix that are worked on together.
const LANES: usize = 8;
/// Squared differences that are worth a part of their own on another thread.
const WORTH_A_PART: usize = 1 << 18;

#[derive(Debug)]
struct CDist {
    /// Leaves out the square root.
    squared: bool,
    /// The second matrix, if the file fixes it.
    packed: Option<Result<Packed, OpError>>,
}

fn cdist(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let squared = match node.string("metric")? {
        Some("sqeuclidean") | None => true,
        Some("euclidean") => false,
        Some(other) => {
            return Err(format!(
                "metric `{other}` is not supported, expected `euclidean` or `sqeuclidean`"
            ));
        }
    };
    let packed = match node.constant(1) {
        Some(points) if node.prepare(Packed::bytes(points.shape())) => Some(Packed::new(points)),
        _ => None,
    };
    Ok(Box::new(CDist { squared, packed }))
}

/// A matrix in groups of [`LANES`] rows, of each group first the first column, then the second, …
/// The last group is filled up with zeros.
#[derive(Debug, Clone)]
struct Packed {
    data_type: DataType,
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Packed {
    /// What the packed form of a matrix takes.
    fn bytes(shape: &[usize]) -> u64 {
        match shape {
            [rows, columns] => {
                let groups = rows.div_ceil(LANES);
                operations(&[groups, LANES * size_of::<f64>(), *columns])
            }
            _ => 0,
        }
    }

    fn new(tensor: &Tensor) -> Result<Packed, OpError> {
        let [rows, columns] = matrix(tensor)?;
        let groups = if columns == 0 {
            0
        } else {
            rows.div_ceil(LANES)
        };
        let mut values = vec![0.0; groups * LANES * columns];
        let mut place = |row: usize, column: usize, value: f64| {
            values[(row / LANES * columns + column) * LANES + row % LANES] = value;
        };
        if let Some(source) = tensor.as_slice::<f32>() {
            for (number, value) in source.iter().enumerate() {
                place(number / columns, number % columns, f64::from(*value));
            }
        } else if let Some(source) = tensor.as_slice::<f64>() {
            for (number, value) in source.iter().enumerate() {
                place(number / columns, number % columns, *value);
            }
        } else {
            let expected = "float or double";
            return Err(OpError::data_type(1, tensor.data_type(), expected));
        }
        Ok(Packed {
            data_type: tensor.data_type(),
            rows,
            columns,
            values,
        })
    }

    /// The squared distances of a row to each row, handed out in order.
    fn squared_distances(&self, row: &[f64], mut each: impl FnMut(usize, f64)) {
        if self.columns == 0 {
            for number in 0..self.rows {
                each(number, 0.0);
            }
            return;
        }
        for (group, block) in self.values.chunks_exact(self.columns * LANES).enumerate() {
            let mut sums = [0.0f64; LANES];
            for (value, lanes) in row.iter().zip(block.as_chunks::<LANES>().0) {
                for (sum, lane) in sums.iter_mut().zip(lanes) {
                    let difference = value - lane;
                    *sum += difference * difference;
                }
            }
            let first = group * LANES;
            for (lane, sum) in sums.iter().take(self.rows - first).enumerate() {
                each(first + lane, *sum);
            }
        }
    }
}

fn matrix(tensor: &Tensor) -> Result<[usize; 2], OpError> {
    match tensor.shape() {
        [rows, columns] => Ok([*rows, *columns]),
        shape => Err(OpError::Value(format!(
            "an input has shape {shape:?}, expected a matrix"
        ))),
    }
}

impl Operator for CDist {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let packed_now;
        let packed = match &self.packed {
            Some(packed) => packed.as_ref().map_err(Clone::clone)?,
            None => {
                let second = args.get(1)?;
                args.context.reserve_bytes(Packed::bytes(second.shape()))?;
                packed_now = Packed::new(second)?;
                &packed_now
            }
        };
        let first = args.get(0)?;
        let [rows, columns] = matrix(first)?;
        if columns != packed.columns {
            return Err(OpError::Value(format!(
                "the rows of input 0 have {columns} columns, those of input 1 have {}",
                packed.columns
            )));
        }
        let expected = packed.data_type;
        if first.data_type() != expected {
            return Err(OpError::data_type(0, first.data_type(), expected.name()));
        }
        let elements = super::layout::count(&[rows, packed.rows])?;
        args.context.reserve(elements, expected)?;
        args.context.work(operations(&[elements, columns]))?;
        let shape = [rows, packed.rows];
        let squared = self.squared;
        if let Some(values) = first.as_slice::<f32>() {
            let finish = |sum: f64| {
                if squared {
                    sum as f32
                } else {
                    sum.sqrt() as f32
                }
            };
            let result = distances(values, packed, elements, args.context, f64::from, finish);
            return one(Tensor::new(&shape, result)?);
        }
        let values = args.slice::<f64>(0)?;
        let finish = |sum: f64| if squared { sum } else { sum.sqrt() };
        let result = distances(
            values,
            packed,
            elements,
            args.context,
            |value| value,
            finish,
        );
        one(Tensor::new(&shape, result)?)
    }
}

/// The distances of all rows of `values`, in parts on the threads of the pool if that is worth it.
fn distances<T: Element + Copy>(
    values: &[T],
    packed: &Packed,
    elements: usize,
    context: &Context<'_>,
    widen: impl Fn(T) -> f64 + Sync,
    finish: impl Fn(f64) -> T + Sync,
) -> Vec<T> {
    let mut result = vec![T::default(); elements];
    if elements == 0 {
        return result;
    }
    let columns = packed.columns;
    let some_rows = |first: usize, targets: &mut [T]| {
        let mut row = vec![0.0; columns];
        for (offset, target) in targets.chunks_exact_mut(packed.rows).enumerate() {
            let start = (first + offset) * columns;
            for (wide, value) in row.iter_mut().zip(&values[start..start + columns]) {
                *wide = widen(*value);
            }
            packed.squared_distances(&row, |place, sum| target[place] = finish(sum));
        }
    };
    let row_cost = packed.rows.saturating_mul(columns.max(1));
    let rows_per_part = WORTH_A_PART.div_ceil(row_cost);
    match context.pool {
        Some(pool) if pool.threads() > 1 && elements / packed.rows > rows_per_part => {
            let parts: Vec<Mutex<&mut [T]>> = result
                .chunks_mut(rows_per_part * packed.rows)
                .map(Mutex::new)
                .collect();
            pool.run(parts.len(), &|number| {
                let mut targets = parts[number].lock().unwrap_or_else(PoisonError::into_inner);
                some_rows(number * rows_per_part, &mut targets);
            });
        }
        _ => some_rows(0, &mut result),
    }
    result
}
