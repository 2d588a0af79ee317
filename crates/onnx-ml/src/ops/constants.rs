//! Operators that make tensors of given sizes: `Constant`, `ConstantOfShape`, `Range`, `EyeLike`.

use compact_str::CompactString;

use super::layout::{self, IntegersSource};
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{Data, DataType, Element, Shape, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Constant", constant),
    ("ConstantOfShape", constant_of_shape),
    ("Range", range),
    ("EyeLike", eye_like),
];

#[derive(Debug)]
struct Constant {
    value: Tensor,
}

fn constant(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(0, 0)?;
    if node.has_attribute("sparse_value") {
        return Err("sparse values are not supported".to_string());
    }
    let mut values = Vec::new();
    values.extend(node.tensor("value")?);
    values.extend(node.float("value_float")?.map(Tensor::scalar::<f32>));
    values.extend(node.int("value_int")?.map(Tensor::scalar::<i64>));
    let text = node.string("value_string")?;
    values.extend(text.map(|text| Tensor::scalar(CompactString::from(text))));
    let floats = node.floats("value_floats")?;
    values.extend(floats.map(|floats| Tensor::vector::<f32>(floats.to_vec())));
    let ints = node.ints("value_ints")?;
    values.extend(ints.map(|ints| Tensor::vector::<i64>(ints.to_vec())));
    if let Some(texts) = node.strings("value_strings")? {
        let texts = texts.into_iter().map(CompactString::from);
        values.push(Tensor::vector::<CompactString>(texts.collect()));
    }
    let found = values.len();
    match (values.pop(), found) {
        (Some(value), 1) => Ok(Box::new(Constant { value })),
        _ => Err(format!("it has {found} values, expected one")),
    }
}

impl Operator for Constant {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let elements = self.value.len();
        layout::reserve_copies(args.context, self.value.data(), elements)?;
        one(self.value.clone())
    }
}

#[derive(Debug)]
struct ConstantOfShape {
    sizes: IntegersSource,
    value: Tensor,
}

fn constant_of_shape(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let value = node.tensor("value")?;
    let value = value.unwrap_or_else(|| Tensor::vector::<f32>(vec![0.0]));
    if value.len() != 1 {
        return Err(format!(
            "attribute `value` has {} elements, expected one",
            value.len()
        ));
    }
    Ok(Box::new(ConstantOfShape {
        sizes: IntegersSource::input(node, 0)?,
        value,
    }))
}

impl Operator for ConstantOfShape {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let sizes = self.sizes.require(args, "shape")?;
        let mut shape = Shape::new();
        for size in &sizes {
            let size = usize::try_from(*size)
                .map_err(|_| OpError::Value(format!("shape {sizes:?} has a negative size")))?;
            shape.push(size);
        }
        let elements = layout::count(&shape)?;
        layout::reserve_copies(args.context, self.value.data(), elements)?;
        let data = with_data!(self.value.data(), values => {
            let value = values.first().cloned().unwrap_or_default();
            Element::into_data(vec![value; elements])
        });
        one(Tensor::from_data(&shape, data)?)
    }
}

#[derive(Debug)]
struct Range;

fn range(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(3, 3)?;
    Ok(Box::new(Range))
}

impl Operator for Range {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        /// The only element of input `index`.
        fn single<T: Element + Copy>(args: &Args<'_>, index: usize) -> Result<T, OpError> {
            match args.slice::<T>(index)? {
                [value] => Ok(*value),
                values => Err(OpError::Value(format!(
                    "input {index} has {} elements, expected one",
                    values.len()
                ))),
            }
        }
        macro_rules! floats {
            ($element:ty) => {{
                let (start, limit) = (single::<$element>(args, 0)?, single::<$element>(args, 1)?);
                let step = single::<$element>(args, 2)?;
                let steps = (f64::from(limit - start) / f64::from(step)).ceil();
                let elements = number_of_steps(steps, args)?;
                let mut values = Vec::with_capacity(elements);
                let mut value = start;
                // Added up, as onnxruntime does, and not multiplied.
                for _ in 0..elements {
                    values.push(value);
                    value += step;
                }
                Tensor::vector::<$element>(values)
            }};
        }
        macro_rules! integers {
            ($element:ty) => {{
                let (start, limit) = (single::<$element>(args, 0)?, single::<$element>(args, 1)?);
                let step = single::<$element>(args, 2)?;
                if step == 0 {
                    return Err(OpError::Value("the step is 0".to_string()));
                }
                let distance = i128::from(limit) - i128::from(start);
                let step_size = i128::from(step).abs();
                let forward = if step > 0 { distance } else { -distance };
                let steps = (forward.max(0) + step_size - 1) / step_size;
                let elements = number_of_steps(steps as f64, args)?;
                let mut values = Vec::with_capacity(elements);
                let mut value = start;
                for _ in 0..elements {
                    values.push(value);
                    value = value.wrapping_add(step);
                }
                Tensor::vector::<$element>(values)
            }};
        }
        let data_type = args.get(0)?.data_type();
        one(match data_type {
            DataType::F32 => floats!(f32),
            DataType::F64 => floats!(f64),
            DataType::I16 => integers!(i16),
            DataType::I32 => integers!(i32),
            DataType::I64 => integers!(i64),
            other => {
                let expected = "float, double, int16, int32 or int64";
                return Err(OpError::data_type(0, other, expected));
            }
        })
    }
}

/// The number of elements of a range, if it is one and not too large.
fn number_of_steps(steps: f64, args: &Args<'_>) -> Result<usize, OpError> {
    if !steps.is_finite() {
        return Err(OpError::Value("the range has no end".to_string()));
    }
    let elements = steps.max(0.0) as usize;
    args.context.reserve(elements, DataType::F64)?;
    Ok(elements)
}

#[derive(Debug)]
struct EyeLike {
    data_type: Option<DataType>,
    diagonal: i64,
}

fn eye_like(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let data_type = match node.int("dtype")? {
        Some(number) => Some(DataType::from_onnx(i32::try_from(number).unwrap_or(-1))?),
        None => None,
    };
    Ok(Box::new(EyeLike {
        data_type,
        diagonal: node.int("k")?.unwrap_or(0),
    }))
}

impl Operator for EyeLike {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let [rows, columns] = *tensor.shape() else {
            return Err(OpError::Value(format!(
                "the input has shape {:?}, expected a matrix",
                tensor.shape()
            )));
        };
        let data_type = self.data_type.unwrap_or(tensor.data_type());
        args.context.reserve(tensor.len(), data_type)?;
        let zeros = Tensor::zeros(data_type, &[rows, columns])?;
        if zeros.is_empty() {
            return one(zeros);
        }
        let mut data = zeros.into_data();
        macro_rules! mark {
            ($values:ident, $one:expr) => {
                for row in 0..rows {
                    let column = (row as i64).saturating_add(self.diagonal);
                    if let Ok(column) = usize::try_from(column)
                        && column < columns
                    {
                        $values[row * columns + column] = $one;
                    }
                }
            };
        }
        match &mut data {
            Data::F32(values) => mark!(values, 1.0),
            Data::F64(values) => mark!(values, 1.0),
            Data::F16(values) => mark!(values, half::f16::ONE),
            Data::I8(values) => mark!(values, 1),
            Data::I16(values) => mark!(values, 1),
            Data::I32(values) => mark!(values, 1),
            Data::I64(values) => mark!(values, 1),
            Data::U8(values) => mark!(values, 1),
            Data::U16(values) => mark!(values, 1),
            Data::U32(values) => mark!(values, 1),
            Data::U64(values) => mark!(values, 1),
            Data::Bool(values) => mark!(values, true),
            Data::String(_) => {
                return Err(OpError::data_type(0, DataType::String, "numbers or bool"));
            }
        }
        one(Tensor::from_data(&[rows, columns], data)?)
    }
}
