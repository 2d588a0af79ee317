//! The normalizations of neural networks, which scale and shift what they have normalized.

use crate::node::Node;
use crate::operator::{Args, OpError, Operator, Outputs, one};
use crate::ops::broadcast::product;
use crate::ops::float16;
use crate::ops::matrix::Factor;
use crate::tensor::{DataType, Shape, Tensor};

/// Over the dimensions from an axis on: `LayerNormalization`, and `RMSNormalization`, which leaves
/// the mean where it is.
#[derive(Debug)]
struct Layer {
    axis: i64,
    epsilon: f64,
    centred: bool,
    outputs: usize,
}

pub(crate) fn layer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 3)?;
    build_layer(node, true)
}

pub(crate) fn root_mean_square(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    build_layer(node, false)
}

fn build_layer(node: &Node<'_>, centred: bool) -> Result<Box<dyn Operator>, String> {
    // In which type the first half is computed: here always in float64.
    node.ignore(&["stash_type"]);
    Ok(Box::new(Layer {
        axis: node.int("axis")?.unwrap_or(-1),
        epsilon: epsilon(node)?,
        centred,
        outputs: node.outputs(),
    }))
}

fn epsilon(node: &Node<'_>) -> Result<f64, String> {
    Ok(f64::from(node.float("epsilon")?.unwrap_or(1e-5)))
}

fn refuse(found: DataType) -> OpError {
    OpError::data_type(0, found, "floating point numbers")
}

impl Operator for Layer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        match args.get(0)?.data_type() {
            DataType::F32 => self.compute::<f32>(args),
            DataType::F64 => self.compute::<f64>(args),
            other => Err(refuse(other)),
        }
    }
}

/// The elements of a scale or a bias: one for all or one each.
fn parameters<'a, T: Factor>(
    args: &'a Args<'_>,
    index: usize,
    count: usize,
) -> Result<&'a [T], OpError> {
    let values = args.slice::<T>(index)?;
    if values.len() != 1 && values.len() != count {
        return Err(OpError::Value(format!(
            "input {index} has {} elements, expected {count}",
            values.len()
        )));
    }
    Ok(values)
}

/// The parameter of a place.
fn parameter<T: Factor>(values: &[T], place: usize) -> f64 {
    let value = if values.len() == 1 {
        values.first()
    } else {
        values.get(place)
    };
    value.map_or(0.0, |value| value.wide())
}

impl Layer {
    fn compute<T: Factor>(&self, args: &Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let shape = tensor.shape();
        let axis = crate::operator::axis(self.axis, shape.len())?;
        let (rows, length) = (product(&shape[..axis])?, product(&shape[axis..])?);
        let scale = parameters::<T>(args, 1, length)?;
        let bias = match args.optional(2) {
            Some(_) => parameters::<T>(args, 2, length)?,
            None => &[T::round(0.0)],
        };
        args.context.reserve(tensor.len(), T::DATA_TYPE)?;
        let mut results = Vec::with_capacity(tensor.len());
        let (mut means, mut factors) = (Vec::new(), Vec::new());
        if length > 0 {
            for row in args.slice::<T>(0)?.chunks(length) {
                let (mean, factor) = self.moments(row);
                for (place, value) in row.iter().enumerate() {
                    let normal = (value.wide() - mean) * factor;
                    let result = normal * parameter(scale, place) + parameter(bias, place);
                    results.push(T::round(result));
                }
                means.push(mean as f32);
                factors.push(factor as f32);
            }
        } else {
            args.context.reserve(rows, DataType::F64)?;
            means.resize(rows, 0.0);
            factors.resize(rows, 0.0);
        }
        let mut outputs = Outputs::new();
        outputs.push(Tensor::new(shape, results)?);
        if self.outputs > 1 {
            let mut moments_shape = Shape::from_slice(shape);
            moments_shape[axis..].fill(1);
            outputs.push(Tensor::new(&moments_shape, means)?);
            outputs.push(Tensor::new(&moments_shape, factors)?);
        }
        Ok(outputs)
    }

    /// The mean of a row and the factor that brings its deviation to one.
    fn moments<T: Factor>(&self, row: &[T]) -> (f64, f64) {
        let count = row.len() as f64;
        let mean = if self.centred {
            row.iter().fold(0.0, |sum, x| sum + x.wide()) / count
        } else {
            0.0
        };
        let square = |x: f64| x * x;
        let squares = row.iter().fold(0.0, |sum, x| sum + square(x.wide() - mean));
        (mean, 1.0 / (squares / count + self.epsilon).sqrt())
    }
}

/// By channel, the second dimension: with the file's means and variances (`BatchNormalization`), or
/// with those of each example (`InstanceNormalization`).
#[derive(Debug)]
struct Channels {
    epsilon: f64,
    own_moments: bool,
}

pub(crate) fn batch(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(5, 5)?;
    node.ignore(&["momentum"]);
    if node.version < 9 && !node.flag("spatial", true)? {
        return Err("statistics for every place (attribute `spatial` 0) are not supported".into());
    }
    if node.flag("training_mode", false)? || node.has_output(1) {
        return Err(
            "training (a further output, or attribute `training_mode`) is not supported".into(),
        );
    }
    Ok(Box::new(Channels {
        epsilon: epsilon(node)?,
        own_moments: false,
    }))
}

pub(crate) fn instance(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(3, 3)?;
    Ok(Box::new(Channels {
        epsilon: epsilon(node)?,
        own_moments: true,
    }))
}

impl Operator for Channels {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        match args.get(0)?.data_type() {
            DataType::F32 => one(self.compute::<f32>(args)?),
            DataType::F64 => one(self.compute::<f64>(args)?),
            other => Err(refuse(other)),
        }
    }
}

impl Channels {
    fn compute<T: Factor>(&self, args: &mut Args<'_>) -> Result<Tensor, OpError> {
        let found = args.get(0)?.data_type();
        let mut tensor = args.take(0)?;
        let [_, channels, rest @ ..] = tensor.shape() else {
            return Err(OpError::Value(format!(
                "input 0 has {} dimensions, expected examples and channels",
                tensor.rank()
            )));
        };
        let (channels, length) = (*channels, product(rest)?);
        let mut inputs: [&[T]; 4] = [&[]; 4];
        let given = if self.own_moments { 2 } else { 4 };
        for (index, input) in inputs[..given].iter_mut().enumerate() {
            *input = args.slice::<T>(index + 1)?;
            if input.len() != channels {
                return Err(OpError::Value(format!(
                    "input {} has {} elements for {channels} channels",
                    index + 1,
                    input.len()
                )));
            }
        }
        let [scales, biases, means, variances] = inputs;
        let values = tensor.as_mut_slice::<T>().ok_or_else(|| refuse(found))?;
        if values.is_empty() {
            return Ok(tensor);
        }
        // For each channel what its numbers are multiplied by, and what is then added.
        let line = |scale: T, bias: T, mean: f64, variance: f64| {
            let factor = scale.wide() / (variance + self.epsilon).sqrt();
            (factor, bias.wide() - mean * factor)
        };
        let mut lines = Vec::new();
        if !self.own_moments {
            for channel in 0..channels {
                let (mean, variance) = (means[channel].wide(), variances[channel].wide());
                lines.push(line(scales[channel], biases[channel], mean, variance));
            }
        }
        for example in values.chunks_mut(channels * length) {
            for (channel, values) in example.chunks_mut(length).enumerate() {
                let (factor, addend) = match lines.get(channel) {
                    Some(line) => *line,
                    None => {
                        let (mean, variance) = moments(values);
                        line(scales[channel], biases[channel], mean, variance)
                    }
                };
                for value in values {
                    *value = T::round(value.wide() * factor + addend);
                }
            }
        }
        Ok(tensor)
    }
}

/// The mean and the variance.
fn moments<T: Factor>(values: &[T]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().fold(0.0, |sum, x| sum + x.wide()) / count;
    let square = |x: f64| x * x;
    let squares = values
        .iter()
        .fold(0.0, |sum, x| sum + square(x.wide() - mean));
    (mean, squares / count)
}
