//! `FeatureVectorizer` and `ArrayFeatureExtractor`: columns joined and picked.
//!
//! As ONNX Runtime: of an input with more columns than `inputdimensions` says the first are taken,
//! and missing ones are zeros; dimensions after the first are columns. `ArrayFeatureExtractor` of one
//! dimension gives two; it takes no negative indices, and at least one.

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{Data, DataType, Element, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("FeatureVectorizer", feature_vectorizer),
    ("ArrayFeatureExtractor", array_feature_extractor),
];

#[derive(Debug)]
struct FeatureVectorizer {
    /// The columns of each input in the output.
    widths: Vec<usize>,
    total: usize,
}

fn feature_vectorizer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let dimensions = node.ints("inputdimensions")?.unwrap_or_default();
    node.expect_inputs(dimensions.len(), dimensions.len())?;
    let mut widths = Vec::with_capacity(dimensions.len());
    let mut total: usize = 0;
    for dimension in dimensions {
        let width = usize::try_from(*dimension).ok();
        let sum = width.and_then(|width| total.checked_add(width));
        let (Some(width), Some(sum)) = (width, sum) else {
            return Err(format!("inputdimensions has the number {dimension}"));
        };
        widths.push(width);
        total = sum;
    }
    if widths.is_empty() {
        return Err("inputdimensions is missing".to_string());
    }
    Ok(Box::new(FeatureVectorizer { widths, total }))
}

/// The numbers of rows and columns, all dimensions after the first taken together.
fn rows_and_columns(tensor: &Tensor) -> Result<(usize, usize), OpError> {
    match tensor.shape() {
        [] => Err(OpError::Value(
            "an input is a scalar, expected at least one dimension".to_string(),
        )),
        [columns] => Ok((1, *columns)),
        // The product is that of a tensor with one row: it overflows for no tensor with rows.
        [rows, columns @ ..] => Ok((*rows, columns.iter().fold(1, |n, c| n.saturating_mul(*c)))),
    }
}

/// Copies the first `width` columns to those of the output from `first` on.
fn copy_columns<T: Copy>(
    elements: &[T],
    columns: usize,
    joined: &mut [f32],
    total: usize,
    first: usize,
    width: usize,
    to_float: impl Fn(T) -> f32,
) {
    let taken = width.min(columns);
    if taken == 0 {
        return;
    }
    for (row, joined_row) in elements
        .chunks_exact(columns)
        .zip(joined.chunks_exact_mut(total))
    {
        for (from, to) in row[..taken].iter().zip(joined_row[first..].iter_mut()) {
            *to = to_float(*from);
        }
    }
}

impl Operator for FeatureVectorizer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let (rows, _) = rows_and_columns(args.get(0)?)?;
        let size = rows.saturating_mul(self.total);
        args.context.reserve(size, DataType::F32)?;
        let mut joined = vec![0.0_f32; size];
        let total = self.total;
        let mut first = 0;
        for (index, width) in self.widths.iter().enumerate() {
            let input = args.get(index)?;
            let (found, columns) = rows_and_columns(input)?;
            if found != rows {
                return Err(OpError::Value(format!(
                    "input {index} has {found} rows, the first has {rows}"
                )));
            }
            let joined = &mut joined[..];
            match input.data() {
                Data::F32(elements) => {
                    copy_columns(elements, columns, joined, total, first, *width, |x| x);
                }
                Data::F64(elements) => {
                    copy_columns(elements, columns, joined, total, first, *width, |x| {
                        x as f32
                    });
                }
                Data::I64(elements) => {
                    copy_columns(elements, columns, joined, total, first, *width, |x| {
                        x as f32
                    });
                }
                Data::I32(elements) => {
                    copy_columns(elements, columns, joined, total, first, *width, |x| {
                        x as f32
                    });
                }
                other => {
                    return Err(OpError::data_type(
                        index,
                        other.data_type(),
                        "float, double, int64 or int32",
                    ));
                }
            }
            first += width;
        }
        one(Tensor::new(&[rows, total], joined)?)
    }
}

#[derive(Debug)]
struct ArrayFeatureExtractor;

fn array_feature_extractor(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(ArrayFeatureExtractor))
}

fn extract<T: Element>(
    elements: &[T],
    columns: usize,
    places: &[usize],
    size: usize,
    shape: &[usize],
) -> Result<Tensor, OpError> {
    let mut picked = Vec::with_capacity(size);
    for row in elements.chunks_exact(columns.max(1)) {
        for place in places {
            picked.extend(row.get(*place).cloned());
        }
    }
    Ok(Tensor::new(shape, picked)?)
}

impl Operator for ArrayFeatureExtractor {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        let indices = args.slice::<i64>(1)?;
        let Some(columns) = input.shape().last().copied() else {
            return Err(OpError::Value(
                "the input is a scalar, expected at least one dimension".to_string(),
            ));
        };
        let mut places: smallvec::SmallVec<[usize; 16]> = smallvec::SmallVec::new();
        for index in indices {
            match usize::try_from(*index) {
                Ok(place) if place < columns => places.push(place),
                _ => {
                    return Err(OpError::Value(format!(
                        "index {index} is outside of 0 to {columns}, the number of columns"
                    )));
                }
            }
        }
        let mut shape = Shape::from_slice(input.shape());
        if let Some(last) = shape.last_mut() {
            *last = places.len();
        }
        if input.rank() == 1 {
            shape.insert(0, 1);
        }
        // There is at least one column: an index is below their number.
        let size = (input.len() / columns.max(1)).saturating_mul(places.len());
        super::layout::reserve_copies(args.context, input.data(), size)?;
        one(match input.data() {
            Data::F32(elements) => extract(elements, columns, &places, size, &shape)?,
            Data::F64(elements) => extract(elements, columns, &places, size, &shape)?,
            Data::I64(elements) => extract(elements, columns, &places, size, &shape)?,
            Data::I32(elements) => extract(elements, columns, &places, size, &shape)?,
            Data::String(elements) => extract(elements, columns, &places, size, &shape)?,
            other => {
                return Err(OpError::data_type(
                    0,
                    other.data_type(),
                    "float, double, int64, int32 or string",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{ints, model, refusal};
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn no_rows_and_no_columns_are_fine() {
        let attributes = vec![ints("inputdimensions", &[0, 2])];
        let inputs = [DataType::F32, DataType::I64];
        let model = model("FeatureVectorizer", attributes, &inputs).unwrap();
        for (rows, columns) in [(0, 3), (2, 0)] {
            let first = Tensor::new(&[rows, columns], vec![1.0_f32; rows * columns]).unwrap();
            let second = Tensor::new(&[rows, 1], vec![3_i64; rows]).unwrap();
            let joined = model.run(vec![first, second]).unwrap();
            let expected = [3.0_f32, 0.0].repeat(rows);
            assert_eq!(joined[0], Tensor::new(&[rows, 2], expected).unwrap());
        }
    }

    #[test]
    fn inputs_need_a_width_each() {
        for widths in [&[1][..], &[1, -1], &[1, 1, 1], &[]] {
            let attributes = vec![ints("inputdimensions", widths)];
            refusal("FeatureVectorizer", attributes, &[DataType::F32; 2]);
        }
    }

    #[test]
    fn indices_outside_are_errors() {
        let inputs = [DataType::String, DataType::I64];
        let model = model("ArrayFeatureExtractor", Vec::new(), &inputs).unwrap();
        for index in [-1, 2, i64::MIN, i64::MAX] {
            let input = Tensor::vector(vec!["a".into(), compact_str::CompactString::from("b")]);
            let error = model.run(vec![input, Tensor::vector(vec![index])]);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("outside"), "{error}");
        }
    }
}
