//! `Cast` between numbers, booleans and strings.
//!
//! tract's own turns every cast to int64 into its type for shapes, saturates where ONNX Runtime
//! wraps, and knows few strings. Here: float to integer cuts the fraction off, and what does not fit
//! becomes what the processor instruction of x86-64 makes of it; integers wrap; everything but zero
//! is true, NaN included; a string is read as one whole number (with `INF`, `-INF` and `NaN`, spaces
//! around it allowed); a number is written with at most eight digits. Unlike ONNX Runtime, a string
//! that only starts like a number is an error. float16 and shapes go to tract.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

use super::kernel::{self, Built, Kernel, same_shape};
use super::numbers::{truncate_to_i32, truncate_to_i64};

pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let to: DatumType = node.get_attr("to")?;
    Ok((expand(Cast { to }), vec![]))
}

#[derive(Debug, Clone)]
struct Cast {
    to: DatumType,
}

impl Cast {
    /// tract keeps shapes in a type of their own, `TDim`; as int64 they stay what they are.
    fn output_type(&self, input: DatumType) -> DatumType {
        if input == DatumType::TDim && self.to == DatumType::I64 {
            DatumType::TDim
        } else {
            self.to
        }
    }
}

impl Expansion for Cast {
    fn name(&self) -> StaticName {
        "Cast".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)?;
        solver.given(&inputs[0].datum_type, move |solver, input| {
            solver.equals(&outputs[0].datum_type, self.output_type(input))
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let from = model.outlet_fact(inputs[0])?.datum_type;
        if from == self.output_type(from) {
            return Ok(inputs.into());
        }
        let is_tracts = |t| matches!(t, DatumType::TDim | DatumType::F16);
        if is_tracts(from) || is_tracts(self.to) {
            return model.wire_node(prefix, cast(self.to), inputs);
        }
        kernel::wire(CastKernel { to: self.to }, prefix, model, inputs)
    }
}

#[derive(Debug)]
struct CastKernel {
    to: DatumType,
}

impl Kernel for CastKernel {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn output_type(&self, _input: DatumType) -> TractResult<DatumType> {
        Ok(self.to)
    }

    fn output_shape(&self, input: &[TDim]) -> TractResult<TVec<TDim>> {
        same_shape(input)
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        match input.datum_type() {
            DatumType::F32 => convert::<f32>(input, self.to),
            DatumType::F64 => convert::<f64>(input, self.to),
            DatumType::I64 => convert::<i64>(input, self.to),
            DatumType::I32 => convert::<i32>(input, self.to),
            DatumType::I16 => convert::<i16>(input, self.to),
            DatumType::I8 => convert::<i8>(input, self.to),
            DatumType::U64 => convert::<u64>(input, self.to),
            DatumType::U32 => convert::<u32>(input, self.to),
            DatumType::U16 => convert::<u16>(input, self.to),
            DatumType::U8 => convert::<u8>(input, self.to),
            DatumType::Bool => convert::<bool>(input, self.to),
            DatumType::String => convert::<String>(input, self.to),
            other => bail!("a cast from {other:?} to {:?} is not supported", self.to),
        }
    }
}

/// What one element can be turned into.
trait Element: Datum {
    fn float64(&self) -> TractResult<f64>;
    /// Rounded once, which for integers is not the same as by way of float64.
    fn float32(&self) -> TractResult<f32>;
    /// For 64-bit integers and uint32: wraps.
    fn wide(&self) -> TractResult<i64>;
    /// For the other integers: wraps.
    fn narrow(&self) -> TractResult<i64>;
    fn truth(&self) -> TractResult<bool>;
    fn text(&self) -> String;
}

macro_rules! integer_element {
    ($($integer:ty),*) => {$(
        impl Element for $integer {
            fn float64(&self) -> TractResult<f64> {
                Ok(*self as f64)
            }
            fn float32(&self) -> TractResult<f32> {
                Ok(*self as f32)
            }
            fn wide(&self) -> TractResult<i64> {
                Ok(*self as i64)
            }
            fn narrow(&self) -> TractResult<i64> {
                Ok(*self as i64)
            }
            fn truth(&self) -> TractResult<bool> {
                Ok(*self != 0)
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

integer_element!(i64, i32, i16, i8, u64, u32, u16, u8);

impl Element for f64 {
    fn float64(&self) -> TractResult<f64> {
        Ok(*self)
    }
    fn float32(&self) -> TractResult<f32> {
        Ok(*self as f32)
    }
    fn wide(&self) -> TractResult<i64> {
        Ok(truncate_to_i64(*self))
    }
    fn narrow(&self) -> TractResult<i64> {
        Ok(i64::from(truncate_to_i32(*self)))
    }
    fn truth(&self) -> TractResult<bool> {
        Ok(*self != 0.0)
    }
    fn text(&self) -> String {
        eight_digits(*self)
    }
}

impl Element for f32 {
    fn float64(&self) -> TractResult<f64> {
        Ok(f64::from(*self))
    }
    fn float32(&self) -> TractResult<f32> {
        Ok(*self)
    }
    fn wide(&self) -> TractResult<i64> {
        Ok(truncate_to_i64(f64::from(*self)))
    }
    fn narrow(&self) -> TractResult<i64> {
        Ok(i64::from(truncate_to_i32(f64::from(*self))))
    }
    fn truth(&self) -> TractResult<bool> {
        Ok(*self != 0.0)
    }
    fn text(&self) -> String {
        eight_digits(f64::from(*self))
    }
}

impl Element for bool {
    fn float64(&self) -> TractResult<f64> {
        Ok(f64::from(u8::from(*self)))
    }
    fn float32(&self) -> TractResult<f32> {
        Ok(f32::from(u8::from(*self)))
    }
    fn wide(&self) -> TractResult<i64> {
        Ok(i64::from(*self))
    }
    fn narrow(&self) -> TractResult<i64> {
        Ok(i64::from(*self))
    }
    fn truth(&self) -> TractResult<bool> {
        Ok(*self)
    }
    fn text(&self) -> String {
        u8::from(*self).to_string()
    }
}

impl Element for String {
    fn float64(&self) -> TractResult<f64> {
        match self.trim().parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("the string {self:?} is no number"),
        }
    }
    fn float32(&self) -> TractResult<f32> {
        match self.trim().parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("the string {self:?} is no number"),
        }
    }
    fn wide(&self) -> TractResult<i64> {
        match self.trim().parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("the string {self:?} is no whole number of 64 bits"),
        }
    }
    fn narrow(&self) -> TractResult<i64> {
        self.wide()
    }
    fn truth(&self) -> TractResult<bool> {
        Ok(self.float64()? != 0.0)
    }
    fn text(&self) -> String {
        self.clone()
    }
}

fn convert<From: Element>(input: &Tensor, to: DatumType) -> TractResult<Tensor> {
    match to {
        DatumType::F32 => each(input, From::float32),
        DatumType::F64 => each(input, From::float64),
        DatumType::I64 => each(input, From::wide),
        DatumType::I32 => each(input, |x: &From| Ok(x.narrow()? as i32)),
        DatumType::I16 => each(input, |x: &From| Ok(x.narrow()? as i16)),
        DatumType::I8 => each(input, |x: &From| Ok(x.narrow()? as i8)),
        DatumType::U64 => each(input, |x: &From| Ok(x.wide()? as u64)),
        DatumType::U32 => each(input, |x: &From| Ok(x.wide()? as u32)),
        DatumType::U16 => each(input, |x: &From| Ok(x.narrow()? as u16)),
        DatumType::U8 => each(input, |x: &From| Ok(x.narrow()? as u8)),
        DatumType::Bool => each(input, From::truth),
        DatumType::String => each(input, |x: &From| Ok(x.text())),
        other => bail!(
            "a cast from {:?} to {other:?} is not supported",
            input.datum_type()
        ),
    }
}

fn each<From: Datum, To: Datum + Default>(
    input: &Tensor,
    function: impl Fn(&From) -> TractResult<To>,
) -> TractResult<Tensor> {
    let input_view = input.try_as_plain_ram()?;
    let elements = input_view.as_slice::<From>()?;
    let values: Vec<To> = elements.iter().map(function).collect::<TractResult<_>>()?;
    let array = tract_ndarray::ArrayD::from_shape_vec(input.shape(), values)?;
    Ok(array.into_tensor())
}

/// The shortest of fixed and scientific notation with at most eight significant digits and without
/// trailing zeros: C's `%.8g`, with ONNX Runtime's spelling of what is not finite.
fn eight_digits(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 {
            "INF".to_string()
        } else {
            "-INF".to_string()
        };
    }
    let scientific = format!("{value:.7e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..8).contains(&exponent) {
        let decimals = usize::try_from(7 - exponent).unwrap_or(0);
        return without_trailing_zeros(&format!("{value:.decimals$}")).to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!(
        "{}e{sign}{:02}",
        without_trailing_zeros(digits),
        exponent.abs()
    )
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::eight_digits;

    #[test]
    fn numbers_are_written_as_onnx_runtime_writes_them() {
        let cases = [
            (1.5, "1.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "INF"),
            (f64::NEG_INFINITY, "-INF"),
            (-0.0, "-0"),
            (1e10, "1e+10"),
            (f64::from(0.1f32), "0.1"),
            (f64::from(123_456.79_f32), "123456.79"),
            (1.0 / 3.0, "0.33333333"),
            (1e-7, "1e-07"),
            (1e-4, "0.0001"),
            (99_999_999.9, "1e+08"),
        ];
        for (value, text) in cases {
            assert_eq!(eight_digits(value), text);
        }
    }
}
