//! Functions of one number: the activations of neural networks, roots, logarithms, angles and
//! rounding.
//!
//! float32 results of the exponential function and what is made of it are rounded once from
//! float64; float16 is computed in float32.

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::ops::functions;
use crate::ops::{activation_parameters, float16};
use crate::tensor::{Data, DataType};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Abs", simple),
    ("Neg", simple),
    ("Sign", simple),
    ("Relu", simple),
    ("Exp", simple),
    ("Log", simple),
    ("Sqrt", simple),
    ("Reciprocal", simple),
    ("Floor", simple),
    ("Ceil", simple),
    ("Round", simple),
    ("Sigmoid", simple),
    ("Tanh", simple),
    ("Softplus", simple),
    ("Softsign", simple),
    ("HardSwish", simple),
    ("Mish", simple),
    ("Erf", simple),
    ("Sin", simple),
    ("Cos", simple),
    ("Tan", simple),
    ("Asin", simple),
    ("Acos", simple),
    ("Atan", simple),
    ("Sinh", simple),
    ("Cosh", simple),
    ("Asinh", simple),
    ("Acosh", simple),
    ("Atanh", simple),
    ("LeakyRelu", activation_parameters::build),
    ("Elu", activation_parameters::build),
    ("Selu", activation_parameters::build),
    ("Celu", activation_parameters::build),
    ("HardSigmoid", activation_parameters::build),
    ("ThresholdedRelu", activation_parameters::build),
    ("Shrink", activation_parameters::build),
    ("Swish", activation_parameters::build),
    ("Gelu", activation_parameters::build),
    ("PRelu", activation_parameters::prelu),
    ("Clip", activation_parameters::clip),
    ("Dropout", activation_parameters::dropout),
];

/// A function applied to every element, for each width of floating point.
#[derive(Debug, Clone, Copy)]
struct Function {
    float32: fn(&mut [f32]),
    float64: fn(&mut [f64]),
}

/// A function of the expression, which must mean the same for both widths.
macro_rules! both {
    ($x:ident => $value:expr) => {
        separate!($x => $value, $value)
    };
}

/// A function of one expression for float32 and one for float64.
macro_rules! separate {
    ($x:ident => $single:expr, $double:expr) => {
        Function {
            float32: |values| {
                for value in values {
                    let $x: f32 = *value;
                    *value = $single;
                }
            },
            float64: |values| {
                for value in values {
                    let $x: f64 = *value;
                    *value = $double;
                }
            },
        }
    };
}

/// One of the functions that work on several float32 numbers at once, and an expression for float64.
macro_rules! vectored {
    ($function:ident, $x:ident => $double:expr) => {
        Function {
            float32: |values| functions::Function::$function.apply(values),
            float64: |values| {
                for value in values {
                    let $x: f64 = *value;
                    *value = $double;
                }
            },
        }
    };
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    let rest = (-x.abs()).exp().ln_1p();
    if x > 0.0 { x + rest } else { rest }
}

/// `x` times the hyperbolic tangent of its softplus.
fn mish(x: f64) -> f64 {
    // From here on the factor is 1 in float64.
    if x > 20.0 {
        return x;
    }
    let e = x.exp();
    x * ((e * e + 2.0 * e) / (e * e + 2.0 * e + 2.0))
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "Abs" => both!(x => x.abs()),
        "Neg" => both!(x => -x),
        // Zero and NaN are left, but minus zero has no sign either.
        "Sign" => both!(x => if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x + 0.0 }),
        "Relu" => both!(x => if x < 0.0 { 0.0 } else { x }),
        "Exp" => vectored!(Exp, x => x.exp()),
        "Log" => both!(x => x.ln()),
        "Sqrt" => both!(x => x.sqrt()),
        "Reciprocal" => both!(x => 1.0 / x),
        "Floor" => both!(x => x.floor()),
        "Ceil" => both!(x => x.ceil()),
        "Round" => both!(x => x.round_ties_even()),
        "Sigmoid" => vectored!(Sigmoid, x => 1.0 / (1.0 + (-x).exp())),
        "Tanh" => vectored!(Tanh, x => x.tanh()),
        "Softplus" => separate!(x => softplus(f64::from(x)) as f32, softplus(x)),
        "Softsign" => both!(x => x / (1.0 + x.abs())),
        "HardSwish" => both!(x => x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Mish" => separate!(x => mish(f64::from(x)) as f32, mish(x)),
        "Erf" => separate!(x => functions::erf(f64::from(x)) as f32, functions::erf(x)),
        "Sin" => both!(x => x.sin()),
        "Cos" => both!(x => x.cos()),
        "Tan" => both!(x => x.tan()),
        "Asin" => both!(x => x.asin()),
        "Acos" => both!(x => x.acos()),
        "Atan" => both!(x => x.atan()),
        "Sinh" => both!(x => x.sinh()),
        "Cosh" => both!(x => x.cosh()),
        "Asinh" => separate!(x => f64::from(x).asinh() as f32, x.asinh()),
        "Acosh" => separate!(x => f64::from(x).acosh() as f32, x.acosh()),
        "Atanh" => separate!(x => f64::from(x).atanh() as f32, x.atanh()),
        _ => return None,
    })
}

#[derive(Debug)]
struct Simple {
    function: Function,
    /// What it does to integers, if it takes them.
    integers: Option<IntegerFunction>,
}

#[derive(Debug, Clone, Copy)]
enum IntegerFunction {
    Abs,
    Neg,
    Sign,
    Relu,
}

fn simple(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let name = node.operator();
    let function = function(name).ok_or_else(|| format!("{name} is not a known function"))?;
    let integers = match name {
        "Abs" => Some(IntegerFunction::Abs),
        "Neg" => Some(IntegerFunction::Neg),
        "Sign" => Some(IntegerFunction::Sign),
        "Relu" => Some(IntegerFunction::Relu),
        _ => None,
    };
    Ok(Box::new(Simple { function, integers }))
}

macro_rules! apply_signed {
    ($function:expr, $values:expr) => {
        for value in $values {
            *value = match $function {
                IntegerFunction::Abs => value.wrapping_abs(),
                IntegerFunction::Neg => value.wrapping_neg(),
                IntegerFunction::Sign => value.signum(),
                IntegerFunction::Relu => (*value).max(0),
            };
        }
    };
}

macro_rules! apply_unsigned {
    ($function:expr, $values:expr) => {
        for value in $values {
            *value = match $function {
                IntegerFunction::Sign => (*value).min(1),
                IntegerFunction::Neg => value.wrapping_neg(),
                IntegerFunction::Abs | IntegerFunction::Relu => *value,
            };
        }
    };
}

impl Operator for Simple {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let tensor = args.take(0)?;
        let shape = crate::tensor::Shape::from_slice(tensor.shape());
        let found = tensor.data_type();
        let mut data = tensor.into_data();
        match (&mut data, self.integers) {
            (Data::F32(values), _) => (self.function.float32)(values),
            (Data::F64(values), _) => (self.function.float64)(values),
            (Data::I64(values), Some(function)) => apply_signed!(function, values),
            (Data::I32(values), Some(function)) => apply_signed!(function, values),
            (Data::I16(values), Some(function)) => apply_signed!(function, values),
            (Data::I8(values), Some(function)) => apply_signed!(function, values),
            (Data::U64(values), Some(function)) => apply_unsigned!(function, values),
            (Data::U32(values), Some(function)) => apply_unsigned!(function, values),
            (Data::U16(values), Some(function)) => apply_unsigned!(function, values),
            (Data::U8(values), Some(function)) => apply_unsigned!(function, values),
            _ => return Err(refuse(found, self.integers.is_some())),
        }
        one(crate::tensor::Tensor::from_data(&shape, data)?)
    }
}

fn refuse(found: DataType, integers: bool) -> OpError {
    let expected = if integers {
        "numbers"
    } else {
        "floating point numbers"
    };
    OpError::data_type(0, found, expected)
}
