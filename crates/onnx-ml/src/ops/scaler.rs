//! `Scaler`, `Normalizer` and `Binarizer`.
//!
//! `Scaler`: `(x - offset) * scale`, per column or with one pair for all. As ONNX Runtime the output
//! is float32; double input is computed in float64 and rounded once, integers are rounded to float32
//! first; beyond two dimensions the columns are counted along the second.
//!
//! `Normalizer`: divides each row by its largest value, or its L1 or L2 norm. As ONNX Runtime `MAX`
//! divides by the largest value, not the largest absolute value, so a row of negative numbers
//! changes sign; a norm of zero leaves the row as it is; sums are taken in float32 from left to
//! right, and what overflows or vanishes there does so here.
//!
//! `Binarizer`: 1 above the threshold, else 0. As ONNX Runtime NaN is an error. Beyond it: double,
//! int64 and int32, which the specification has.

use super::rows::{column_count, floats};
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{Data, Element, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Scaler", scaler),
    ("Normalizer", normalizer),
    ("Binarizer", binarizer),
];

#[derive(Debug)]
struct Scaler {
    offsets: Vec<f32>,
    scales: Vec<f32>,
}

fn scaler(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let offsets = node.floats("offset")?.unwrap_or_default().to_vec();
    let scales = node.floats("scale")?.unwrap_or_default().to_vec();
    if scales.is_empty() || scales.len() != offsets.len() {
        return Err(format!(
            "offset has {} values and scale {}, expected as many of both and at least one",
            offsets.len(),
            scales.len()
        ));
    }
    Ok(Box::new(Scaler { offsets, scales }))
}

impl Scaler {
    /// Calls `compute` with each element and the offset and scale of its column.
    fn scale<T: Copy>(&self, elements: &[T], compute: impl Fn(T, f32, f32) -> f32) -> Vec<f32> {
        let mut scaled = Vec::with_capacity(elements.len());
        if let ([offset], [scale]) = (&self.offsets[..], &self.scales[..]) {
            scaled.extend(elements.iter().map(|x| compute(*x, *offset, *scale)));
            return scaled;
        }
        for row in elements.chunks(self.scales.len()) {
            let columns = row.iter().zip(&self.offsets).zip(&self.scales);
            scaled.extend(columns.map(|((x, offset), scale)| compute(*x, *offset, *scale)));
        }
        scaled
    }

    /// As [`Scaler::scale`], for float32.
    fn scale_in_place(&self, elements: &mut [f32]) {
        if let ([offset], [scale]) = (&self.offsets[..], &self.scales[..]) {
            for x in elements {
                *x = (*x - offset) * scale;
            }
            return;
        }
        for row in elements.chunks_mut(self.scales.len()) {
            for ((x, offset), scale) in row.iter_mut().zip(&self.offsets).zip(&self.scales) {
                *x = (*x - offset) * scale;
            }
        }
    }
}

impl Operator for Scaler {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let mut input = args.take(0)?;
        let columns = column_count(&input)?;
        if self.scales.len() != 1 && self.scales.len() != columns {
            return Err(OpError::Value(format!(
                "{} offsets and scales for an input of {columns} columns, expected one each or a \
                 single one",
                self.scales.len()
            )));
        }
        if let Some(elements) = input.as_mut_slice::<f32>() {
            self.scale_in_place(elements);
            return one(input);
        }
        let scaled = match input.data() {
            Data::F64(elements) => self.scale(elements, |x, offset, scale| {
                ((x - f64::from(offset)) * f64::from(scale)) as f32
            }),
            Data::I64(elements) => {
                self.scale(elements, |x, offset, scale| (x as f32 - offset) * scale)
            }
            Data::I32(elements) => {
                self.scale(elements, |x, offset, scale| (x as f32 - offset) * scale)
            }
            other => {
                return Err(OpError::data_type(
                    0,
                    other.data_type(),
                    "float, double, int64 or int32",
                ));
            }
        };
        one(Tensor::new(input.shape(), scaled)?)
    }
}

#[derive(Debug, Clone, Copy)]
enum Normalizer {
    Max,
    L1,
    L2,
}

fn normalizer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(match node.string("norm")?.unwrap_or("MAX") {
        "MAX" => Normalizer::Max,
        "L1" => Normalizer::L1,
        "L2" => Normalizer::L2,
        other => return Err(format!("norm `{other}` is none of MAX, L1 and L2")),
    }))
}

impl Normalizer {
    fn normalize(self, row: &mut [f32]) {
        match self {
            Normalizer::Max => {
                let mut largest = f32::MIN;
                for x in row.iter() {
                    if largest < *x {
                        largest = *x;
                    }
                }
                divide(row, largest);
            }
            Normalizer::L1 => {
                let mut sum = 0.0;
                for x in row.iter() {
                    sum += x.abs();
                }
                divide(row, sum);
            }
            Normalizer::L2 => {
                let mut sum = 0.0;
                for x in row.iter() {
                    sum += *x * *x;
                }
                if sum == 0.0 {
                    return;
                }
                for x in row {
                    let magnitude = (*x * *x / sum).sqrt();
                    *x = if *x < 0.0 { -magnitude } else { magnitude };
                }
            }
        }
    }
}

fn divide(row: &mut [f32], norm: f32) {
    if norm == 0.0 {
        return;
    }
    for x in row {
        *x /= norm;
    }
}

impl Operator for Normalizer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let mut input = args.take(0)?;
        let columns = match *input.shape() {
            [columns] | [_, columns] => columns,
            _ => {
                return Err(OpError::Value(format!(
                    "the input has {} dimensions, expected 1 or 2",
                    input.rank()
                )));
            }
        };
        if input.as_slice::<f32>().is_none() {
            let rounded = floats(&input)?.into_owned();
            input = Tensor::new(input.shape(), rounded)?;
        }
        if let Some(elements) = input.as_mut_slice::<f32>() {
            for row in elements.chunks_mut(columns.max(1)) {
                self.normalize(row);
            }
        }
        one(input)
    }
}

#[derive(Debug)]
struct Binarizer {
    threshold: f32,
}

fn binarizer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Binarizer {
        threshold: node.float("threshold")?.unwrap_or(0.0),
    }))
}

impl Binarizer {
    /// One where `is_above` of the element and the threshold holds.
    fn binarize<T: Element + Copy>(
        &self,
        input: &Tensor,
        elements: &[T],
        one: T,
        to_number: impl Fn(T) -> f64,
    ) -> Result<Tensor, OpError> {
        let threshold = f64::from(self.threshold);
        let mut binary = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let number = to_number(*element);
            if number.is_nan() {
                return Err(OpError::Value(format!("element {index} is NaN")));
            }
            binary.push(if number > threshold {
                one
            } else {
                T::default()
            });
        }
        Ok(Tensor::new(input.shape(), binary)?)
    }
}

impl Operator for Binarizer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        one(match input.data() {
            Data::F32(elements) => self.binarize(input, elements, 1.0, f64::from)?,
            Data::F64(elements) => self.binarize(input, elements, 1.0, |x| x)?,
            Data::I64(elements) => self.binarize(input, elements, 1, |x| x as f64)?,
            Data::I32(elements) => self.binarize(input, elements, 1, f64::from)?,
            other => {
                return Err(OpError::data_type(
                    0,
                    other.data_type(),
                    "float, double, int64 or int32",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{floats, model, refusal, string};
    use crate::tensor::{DataType, Tensor};

    const FLOAT: &[DataType] = &[DataType::F32];

    #[test]
    fn a_row_of_no_columns_is_no_error() {
        let model = model("Normalizer", vec![string("norm", "L2")], FLOAT).unwrap();
        let empty = Tensor::new::<f32>(&[3, 0], Vec::new()).unwrap();
        assert_eq!(model.run(vec![empty]).unwrap()[0].shape(), [3, 0]);
    }

    #[test]
    fn nan_has_no_side_of_a_threshold() {
        let model = model("Binarizer", Vec::new(), FLOAT).unwrap();
        let input = Tensor::vector(vec![1.0, f32::NAN]);
        let error = model.run(vec![input]).unwrap_err().to_string();
        assert!(error.contains("element 1 is NaN"), "{error}");
    }

    #[test]
    fn offsets_need_a_scale_each() {
        let attributes = vec![floats("offset", &[1.0, 2.0]), floats("scale", &[1.0])];
        let reason = refusal("Scaler", attributes, FLOAT);
        assert!(reason.contains("offset has 2 values"), "{reason}");
        let reason = refusal("Scaler", Vec::new(), &[DataType::String]);
        assert!(reason.contains("at least one"), "{reason}");
    }
}
