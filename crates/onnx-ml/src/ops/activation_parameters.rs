//! Functions of one number and some parameters, which are attributes or further inputs.

use crate::node::Node;
use crate::operator::{Args, OpError, Operator, Outputs, one};
use crate::ops::arithmetic::{Number, pair_error, with_number_pair};
use crate::ops::broadcast::{Broadcast, binary};
use crate::ops::{float16, functions};
use crate::tensor::{Data, DataType, Tensor};

#[derive(Debug, Clone, Copy)]
enum Kind {
    LeakyRelu,
    Elu,
    Selu,
    Celu,
    HardSigmoid,
    ThresholdedRelu,
    Shrink,
    Swish,
    Gelu,
    GeluByTanh,
}

/// A function with up to two parameters.
#[derive(Debug)]
struct Parametric {
    kind: Kind,
    first: f32,
    second: f32,
}

/// Builds the operator that the node names.
pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let read = |name: &str, default: f32| Ok::<f32, String>(node.float(name)?.unwrap_or(default));
    let (kind, first, second) = match node.operator() {
        "LeakyRelu" => (Kind::LeakyRelu, read("alpha", 0.01)?, 0.0),
        "Elu" => (Kind::Elu, read("alpha", 1.0)?, 0.0),
        "Selu" => (
            Kind::Selu,
            read("alpha", 1.673_263_2)?,
            read("gamma", 1.050_701)?,
        ),
        "Celu" => (Kind::Celu, read("alpha", 1.0)?, 0.0),
        "HardSigmoid" => (Kind::HardSigmoid, read("alpha", 0.2)?, read("beta", 0.5)?),
        "ThresholdedRelu" => (Kind::ThresholdedRelu, read("alpha", 1.0)?, 0.0),
        "Shrink" => (Kind::Shrink, read("lambd", 0.5)?, read("bias", 0.0)?),
        "Swish" => (Kind::Swish, read("alpha", 1.0)?, 0.0),
        "Gelu" => match node.string("approximate")? {
            None | Some("none") => (Kind::Gelu, 0.0, 0.0),
            Some("tanh") => (Kind::GeluByTanh, 0.0, 0.0),
            Some(other) => {
                return Err(format!(
                    "attribute `approximate` is `{other}`, expected `none` or `tanh`"
                ));
            }
        },
        other => return Err(format!("{other} is not a known function")),
    };
    Ok(Box::new(Parametric {
        kind,
        first,
        second,
    }))
}

impl Parametric {
    /// Applies the function; `read` and `round` convert from and to the elements' type.
    fn apply<T: Copy>(&self, values: &mut [T], read: fn(T) -> f64, round: fn(f64) -> T) {
        let (a, b) = (f64::from(self.first), f64::from(self.second));
        let each = |values: &mut [T], function: &dyn Fn(f64) -> f64| {
            for value in values {
                *value = round(function(read(*value)));
            }
        };
        match self.kind {
            Kind::LeakyRelu => each(values, &|x| if x < 0.0 { a * x } else { x }),
            Kind::Elu => each(values, &|x| if x < 0.0 { a * x.exp_m1() } else { x }),
            Kind::Selu => each(values, &|x| b * if x > 0.0 { x } else { a * x.exp_m1() }),
            Kind::Celu => each(values, &|x| {
                if x > 0.0 { x } else { a * (x / a).exp_m1() }
            }),
            Kind::HardSigmoid => each(values, &|x| (a * x + b).clamp(0.0, 1.0)),
            Kind::ThresholdedRelu => each(values, &|x| if x > a { x } else { 0.0 }),
            Kind::Shrink => each(values, &|x| {
                if x < -a {
                    x + b
                } else if x > a {
                    x - b
                } else {
                    0.0
                }
            }),
            Kind::Swish => each(values, &|x| x * functions::sigmoid(a * x)),
            Kind::Gelu => each(values, &|x| {
                0.5 * x * (1.0 + functions::erf(x * std::f64::consts::FRAC_1_SQRT_2))
            }),
            Kind::GeluByTanh => each(values, &|x| {
                let scale = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + (scale * (x + 0.044_715 * x * x * x)).tanh())
            }),
        }
    }
}

impl Operator for Parametric {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let mut tensor = args.take(0)?;
        if let Some(values) = tensor.as_mut_slice::<f32>() {
            // The one that batches of neural networks spend time in.
            if let Kind::LeakyRelu = self.kind {
                let alpha = self.first;
                for x in values {
                    *x = if *x < 0.0 { alpha * *x } else { *x };
                }
            } else {
                self.apply(values, f64::from, |x| x as f32);
            }
        } else if let Some(values) = tensor.as_mut_slice::<f64>() {
            self.apply(values, |x| x, |x| x);
        } else {
            let expected = "floating point numbers";
            return Err(OpError::data_type(0, tensor.data_type(), expected));
        }
        one(tensor)
    }
}

/// `PRelu`: negative numbers times a slope of their own.
#[derive(Debug)]
struct Slopes;

pub(crate) fn prelu(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Slopes))
}

impl Operator for Slopes {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let (input, slope) = (args.get(0)?, args.get(1)?);
        let layout = Broadcast::new([input.shape(), slope.shape()])?;
        args.context.reserve(layout.elements, input.data_type())?;
        with_number_pair!(
            (input.data(), slope.data()),
            (values, slopes) => {
                let results = binary(&layout, values, slopes, |x, slope| sloped(*x, *slope));
                one(Tensor::new(&layout.shape, results)?)
            },
            Err(pair_error(input, slope))
        )
    }
}

fn sloped<T: Number>(x: T, slope: T) -> T {
    if x < T::ZERO { x.mul(slope) } else { x }
}

/// `Clip`: numbers brought between two bounds, either of which may be left out. Where the lower is
/// above the upper the upper wins.
#[derive(Debug)]
enum Clip {
    /// Bounds that the node fixes.
    Attributes { least: f32, most: f32 },
    /// Bounds in the second and the third input.
    Inputs,
}

pub(crate) fn clip(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    if node.version >= 11 {
        node.expect_inputs(1, 3)?;
        return Ok(Box::new(Clip::Inputs));
    }
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Clip::Attributes {
        least: node.float("min")?.unwrap_or(f32::MIN),
        most: node.float("max")?.unwrap_or(f32::MAX),
    }))
}

fn clipped<T: Number>(values: &mut [T], least: Option<T>, most: Option<T>) {
    match (least, most) {
        (Some(least), Some(most)) => {
            for value in values {
                let raised = if *value < least { least } else { *value };
                *value = if raised > most { most } else { raised };
            }
        }
        (Some(least), None) => {
            for value in values {
                *value = if *value < least { least } else { *value };
            }
        }
        (None, Some(most)) => {
            for value in values {
                *value = if *value > most { most } else { *value };
            }
        }
        (None, None) => {}
    }
}

/// The bound in an optional input.
fn bound<T: Number>(args: &Args<'_>, index: usize) -> Result<Option<T>, OpError> {
    if args.optional(index).is_none() {
        return Ok(None);
    }
    match args.slice::<T>(index)? {
        [value] => Ok(Some(*value)),
        other => Err(OpError::Value(format!(
            "input {index} has {} elements, expected one",
            other.len()
        ))),
    }
}

impl Operator for Clip {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let tensor = args.take(0)?;
        let shape = crate::tensor::Shape::from_slice(tensor.shape());
        let mut data = tensor.into_data();
        if let Clip::Attributes { least, most } = self {
            let (least, most) = (*least, *most);
            match &mut data {
                Data::F32(values) => clipped(values, Some(least), Some(most)),
                Data::F64(values) => {
                    clipped(values, Some(f64::from(least)), Some(f64::from(most)));
                }
                other => {
                    let expected = "floating point numbers";
                    return Err(OpError::data_type(0, other.data_type(), expected));
                }
            }
            return one(Tensor::from_data(&shape, data)?);
        }
        match &mut data {
            Data::F32(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::F64(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::I64(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::I32(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::I16(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::I8(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::U64(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::U32(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::U16(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            Data::U8(values) => clipped(values, bound(args, 1)?, bound(args, 2)?),
            other => return Err(OpError::data_type(0, other.data_type(), "numbers")),
        }
        one(Tensor::from_data(&shape, data)?)
    }
}

/// `Dropout` outside training, where it drops nothing.
#[derive(Debug)]
struct Dropout {
    mask: bool,
    /// What the mask says of an element that is kept depends on the version.
    version: i64,
}

pub(crate) fn dropout(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 3)?;
    node.ignore(&["ratio", "seed"]);
    Ok(Box::new(Dropout {
        mask: node.has_output(1),
        version: node.version,
    }))
}

impl Operator for Dropout {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if args.optional(2).is_some() && args.slice::<bool>(2)?.contains(&true) {
            let reason = "training is not supported: input 2 must be false";
            return Err(OpError::Value(reason.to_string()));
        }
        let tensor = args.take(0)?;
        let mut outputs = Outputs::new();
        if self.mask {
            args.context.reserve(tensor.len(), tensor.data_type())?;
            let mask = match self.version {
                ..10 => Tensor::zeros(tensor.data_type(), tensor.shape())?,
                10..12 => Tensor::zeros(DataType::Bool, tensor.shape())?,
                _ => Tensor::new(tensor.shape(), vec![true; tensor.len()])?,
            };
            outputs.push(tensor);
            outputs.push(mask);
        } else {
            outputs.push(tensor);
        }
        Ok(outputs)
    }
}
