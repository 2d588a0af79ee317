//! `MatMul` and `Gemm`: products of matrices. A right matrix that the file fixes is packed when the
//! file is loaded.

use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one, operations};
use crate::ops::arithmetic::{Number, pair_error, with_number_pair};
use crate::ops::broadcast::{Broadcast, product as elements_of};
use crate::ops::matrix::{Addend, Factor, Packed, Product};
use crate::ops::{einsum, float16};
use crate::tensor::{Data, DataType, Element, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("MatMul", matmul),
    ("Gemm", gemm),
    ("Einsum", einsum::build),
];

/// A packed right matrix this much larger than before, for its columns fill no panel, is left for
/// the run.
const MOST_PADDED_BYTES: u64 = 16 << 20;

/// The right matrix, if the file fixes it.
#[derive(Debug)]
enum Fixed {
    No,
    Float(Packed<f32>),
    Double(Packed<f64>),
}

impl Fixed {
    fn new(node: &Node<'_>, transposed: bool) -> Fixed {
        let Some(right) = node.constant(1) else {
            return Fixed::No;
        };
        let [rows, columns] = *right.shape() else {
            return Fixed::No;
        };
        let (inner, columns) = if transposed {
            (columns, rows)
        } else {
            (rows, columns)
        };
        if Packed::<f64>::bytes(inner, columns) > MOST_PADDED_BYTES && columns < 8 {
            return Fixed::No;
        }
        let bytes = match right.data() {
            Data::F32(_) => Packed::<f32>::bytes(inner, columns),
            Data::F64(_) => Packed::<f64>::bytes(inner, columns),
            _ => return Fixed::No,
        };
        if !node.prepare(bytes) {
            return Fixed::No;
        }
        match right.data() {
            Data::F32(values) => Fixed::Float(Packed::new(values, inner, columns, transposed)),
            Data::F64(values) => Fixed::Double(Packed::new(values, inner, columns, transposed)),
            _ => Fixed::No,
        }
    }
}

/// A product with a right matrix that the file fixes, and with the left one as it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedProduct<'a> {
    pub right: &'a Packed<f32>,
    pub scale: f64,
    /// What input 2, if there is one, is multiplied by before it is added.
    pub addend_scale: f64,
}

impl<'a> FixedProduct<'a> {
    /// The product that the operator computes, if it is of float32 numbers and such a one.
    pub fn computed_by(operator: &'a dyn Operator) -> Option<FixedProduct<'a>> {
        let (right, scale, addend_scale) = match operator.downcast_ref::<Gemm>() {
            Some(gemm) if gemm.transpose_left => return None,
            Some(gemm) => (&gemm.right, gemm.alpha, gemm.beta),
            None => (&operator.downcast_ref::<MatMul>()?.right, 1.0, 1.0),
        };
        Some(FixedProduct {
            right: f32::fixed(right)?,
            scale: f64::from(scale),
            addend_scale: f64::from(addend_scale),
        })
    }
}

/// Types of floating point with their packed matrix.
trait Dense: Factor {
    fn fixed(fixed: &Fixed) -> Option<&Packed<Self>>;
}

impl Dense for f32 {
    fn fixed(fixed: &Fixed) -> Option<&Packed<f32>> {
        match fixed {
            Fixed::Float(packed) => Some(packed),
            _ => None,
        }
    }
}

impl Dense for f64 {
    fn fixed(fixed: &Fixed) -> Option<&Packed<f64>> {
        match fixed {
            Fixed::Double(packed) => Some(packed),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct MatMul {
    right: Fixed,
}

fn matmul(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let right = Fixed::new(node, false);
    Ok(Box::new(MatMul { right }))
}

impl Operator for MatMul {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let (left, right) = (args.get(0)?, args.get(1)?);
        let shapes = Stacks::new(left.shape(), right.shape())?;
        one(match (left.data(), right.data()) {
            (Data::F32(lefts), Data::F32(rights)) => floats(
                &shapes,
                lefts,
                rights,
                f32::fixed(&self.right),
                args.context,
            )?,
            (Data::F64(lefts), Data::F64(rights)) => floats(
                &shapes,
                lefts,
                rights,
                f64::fixed(&self.right),
                args.context,
            )?,
            pair => with_number_pair!(
                pair,
                (lefts, rights) => numbers(&shapes, lefts, rights, args.context)?,
                return Err(pair_error(left, right))
            ),
        })
    }
}

/// The product of two stacks of matrices.
pub(crate) fn stacked_product<T: Factor>(
    left: (&[usize], &[T]),
    right: (&[usize], &[T]),
    context: &Context<'_>,
) -> Result<Tensor, OpError> {
    let shapes = Stacks::new(left.0, right.0)?;
    floats(&shapes, left.1, right.1, None, context)
}

/// The shapes of a product: matrices in the last two dimensions, the others broadcast.
struct Stacks {
    rows: usize,
    inner: usize,
    columns: usize,
    /// The matrices that meet.
    pairs: Broadcast<2>,
    shape: Shape,
}

impl Stacks {
    fn new(left: &[usize], right: &[usize]) -> Result<Stacks, OpError> {
        let (left_stack, rows, inner) = match left {
            [] => return Err(no_dimensions()),
            [inner] => (&left[..0], None, *inner),
            [stack @ .., rows, inner] => (stack, Some(*rows), *inner),
        };
        let (right_stack, right_rows, columns) = match right {
            [] => return Err(no_dimensions()),
            [rows] => (&right[..0], *rows, None),
            [stack @ .., rows, columns] => (stack, *rows, Some(*columns)),
        };
        if inner != right_rows {
            return Err(OpError::Value(format!(
                "matrices of shapes {left:?} and {right:?} cannot be multiplied"
            )));
        }
        let pairs;
        let mut shape;
        let mut stacked_rows = rows.unwrap_or(1);
        if right_stack.is_empty() {
            // All matrices of the left stack meet one: together they are a single matrix.
            shape = Shape::from_slice(left_stack);
            pairs = Broadcast::new([&[], &[]])?;
            if rows.is_some() {
                stacked_rows = elements_of(&left[..left.len() - 1])?;
            }
        } else {
            pairs = Broadcast::new([left_stack, right_stack])?;
            shape = pairs.shape.clone();
        }
        shape.extend(rows);
        shape.extend(columns);
        elements_of(&shape)?;
        Ok(Stacks {
            rows: stacked_rows,
            inner,
            columns: columns.unwrap_or(1),
            pairs,
            shape,
        })
    }

    /// Calls `work` for each pair of matrices with their numbers.
    fn for_each_pair(
        &self,
        mut work: impl FnMut(usize, usize) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        let mut result = Ok(());
        self.pairs.for_each_run(|run| {
            let [left_step, right_step] = run.moves.map(usize::from);
            for offset in 0..run.length {
                if result.is_ok() {
                    let left = run.starts[0] + offset * left_step;
                    result = work(left, run.starts[1] + offset * right_step);
                }
            }
        });
        result
    }
}

fn no_dimensions() -> OpError {
    OpError::Value("an input has no dimensions, expected a vector or matrices".to_string())
}

fn floats<T: Factor>(
    shapes: &Stacks,
    lefts: &[T],
    rights: &[T],
    fixed: Option<&Packed<T>>,
    context: &Context<'_>,
) -> Result<Tensor, OpError> {
    let (rows, inner, columns) = (shapes.rows, shapes.inner, shapes.columns);
    let product = |left: &[T], right: &Packed<T>| {
        let product = Product {
            left,
            rows,
            right,
            scale: 1.0,
            addend: None,
        };
        product.compute(context)
    };
    // Sizes of zero may hide that the others multiply to no number.
    let size = |a: usize, b: usize| elements_of(&[a, b]);
    let (left_size, right_size) = (size(rows, inner)?, size(inner, columns)?);
    let packed = |values: &[T]| {
        context.reserve_bytes(Packed::<T>::bytes(inner, columns))?;
        Ok::<_, OpError>(Packed::new(values, inner, columns, false))
    };
    if let Some(right) = fixed {
        let results = product(lefts, right)?;
        return Ok(Tensor::new(&shapes.shape, results)?);
    }
    if shapes.pairs.elements == 1 {
        let results = product(lefts, &packed(rights)?)?;
        return Ok(Tensor::new(&shapes.shape, results)?);
    }
    let elements = elements_of(&shapes.shape)?;
    context.reserve(elements, T::DATA_TYPE)?;
    let mut results = Vec::with_capacity(elements);
    if elements > 0 {
        // Each matrix of the right is packed anew for each of the left.
        let padded = columns.next_multiple_of(8);
        context.work(operations(&[shapes.pairs.elements, inner, padded]))?;
        shapes.for_each_pair(|left, right| {
            let left = &lefts[left * left_size..(left + 1) * left_size];
            let right = &rights[right * right_size..(right + 1) * right_size];
            results.extend(product(left, &packed(right)?)?);
            Ok(())
        })?;
    }
    Ok(Tensor::new(&shapes.shape, results)?)
}

/// As [`floats`], for integers, which wrap.
fn numbers<T: Number>(
    shapes: &Stacks,
    lefts: &[T],
    rights: &[T],
    context: &Context<'_>,
) -> Result<Tensor, OpError> {
    let (rows, inner, columns) = (shapes.rows, shapes.inner, shapes.columns);
    let elements = elements_of(&shapes.shape)?;
    context.reserve(elements, T::DATA_TYPE)?;
    let mut results = vec![T::ZERO; elements];
    if elements == 0 || inner == 0 {
        return Ok(Tensor::new(&shapes.shape, results)?);
    }
    context.work(operations(&[elements, inner]))?;
    let mut targets = results.chunks_mut(columns);
    shapes.for_each_pair(|left, right| {
        let left = &lefts[left * rows * inner..(left + 1) * rows * inner];
        let right = &rights[right * inner * columns..(right + 1) * inner * columns];
        for (values, sums) in left.chunks(inner).zip(&mut targets) {
            for (value, weights) in values.iter().zip(right.chunks(columns)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.add(value.mul(*weight));
                }
            }
        }
        Ok(())
    })?;
    Ok(Tensor::new(&shapes.shape, results)?)
}

/// `alpha * A * B + beta * C`, with `A` and `B` transposed on demand.
#[derive(Debug)]
struct Gemm {
    alpha: f32,
    beta: f32,
    transpose_left: bool,
    transpose_right: bool,
    right: Fixed,
}

fn gemm(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 3)?;
    let transpose_right = node.flag("transB", false)?;
    Ok(Box::new(Gemm {
        alpha: node.float("alpha")?.unwrap_or(1.0),
        beta: node.float("beta")?.unwrap_or(1.0),
        transpose_left: node.flag("transA", false)?,
        transpose_right,
        right: Fixed::new(node, transpose_right),
    }))
}

impl Operator for Gemm {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        match args.get(0)?.data_type() {
            DataType::F32 => one(self.compute::<f32>(args)?),
            DataType::F64 => one(self.compute::<f64>(args)?),
            other => Err(OpError::data_type(0, other, "floating point numbers")),
        }
    }
}

impl Gemm {
    fn compute<T: Dense>(&self, args: &Args<'_>) -> Result<Tensor, OpError> {
        let (left, right) = (args.slice::<T>(0)?, args.slice::<T>(1)?);
        let (rows, inner) = matrix(args, 0, self.transpose_left)?;
        let (right_rows, columns) = matrix(args, 1, self.transpose_right)?;
        if inner != right_rows {
            return Err(OpError::Value(format!(
                "a matrix of {inner} columns cannot be multiplied with one of {right_rows} rows"
            )));
        }
        let transposed;
        let left = if self.transpose_left {
            args.context.reserve(left.len(), T::DATA_TYPE)?;
            transposed = transpose(left, inner, rows);
            &transposed
        } else {
            left
        };
        let packed;
        let right = match T::fixed(&self.right) {
            Some(fixed) => fixed,
            None => {
                let bytes = Packed::<T>::bytes(inner, columns);
                args.context.reserve_bytes(bytes)?;
                packed = Packed::new(right, inner, columns, self.transpose_right);
                &packed
            }
        };
        // ONNX Runtime forgets `beta` where there is nothing to multiply.
        let beta = if inner == 0 { 1.0 } else { self.beta };
        let product = Product {
            left,
            rows,
            right,
            scale: f64::from(self.alpha),
            addend: addend::<T>(args.optional(2), rows, columns, f64::from(beta))?,
        };
        let results = product.compute(args.context)?;
        Ok(Tensor::new(&[rows, columns], results)?)
    }
}

/// What `tensor` adds to every element of a matrix of `rows` and `columns`, `scale` times.
pub(crate) fn addend<T: Element>(
    tensor: Option<&Tensor>,
    rows: usize,
    columns: usize,
    scale: f64,
) -> Result<Option<Addend<'_, T>>, OpError> {
    let Some(tensor) = tensor else {
        return Ok(None);
    };
    let values = tensor
        .as_slice::<T>()
        .ok_or_else(|| OpError::data_type(2, tensor.data_type(), T::DATA_TYPE.name()))?;
    let (own_rows, own_columns) = match tensor.shape() {
        [] => (1, 1),
        [columns] => (1, *columns),
        [rows, columns] => (*rows, *columns),
        _ => (usize::MAX, usize::MAX),
    };
    let fits = |own: usize, size: usize| own == 1 || own == size;
    if !fits(own_rows, rows) || !fits(own_columns, columns) {
        return Err(OpError::Value(format!(
            "input 2 has shape {:?}, which cannot be broadcast to [{rows}, {columns}]",
            tensor.shape()
        )));
    }
    Ok(Some(Addend {
        values,
        row_step: if own_rows == 1 { 0 } else { own_columns },
        column_step: usize::from(own_columns != 1),
        scale,
    }))
}

/// The rows and columns of an input.
fn matrix(args: &Args<'_>, index: usize, transposed: bool) -> Result<(usize, usize), OpError> {
    match args.get(index)?.shape() {
        [rows, columns] if transposed => Ok((*columns, *rows)),
        [rows, columns] => Ok((*rows, *columns)),
        other => Err(OpError::Value(format!(
            "input {index} has {} dimensions, expected 2",
            other.len()
        ))),
    }
}

fn transpose<T: Element + Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut results = Vec::with_capacity(values.len());
    for column in 0..columns {
        for row in 0..rows {
            results.push(values[row * columns + column]);
        }
    }
    results
}
