//! `Cast` and `CastLike` between numbers, booleans and strings, as ONNX Runtime does them on x86-64.
//!
//! From floating point to integers the fraction is cut off; NaN and what does not fit become what
//! the processor's instruction makes of them (Rust's `as` would make 0 of NaN, which is a category
//! like any other, and clamp the rest). Integers wrap. Everything but zero is true, NaN included. A
//! number is written as C's `%.8g` does, with `NaN`, `INF` and `-INF`. A string is read as C's
//! `strtod`, `strtoll` and `strtoull` read it: spaces before the number and whatever follows it are
//! passed over, so `1.5` is the integer 1. Hexadecimal numbers alone are refused.

use compact_str::{CompactString, ToCompactString, format_compact};
use half::f16;

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{Data, DataType, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] = &[("Cast", cast), ("CastLike", cast_like)];

/// Cuts the fraction off; NaN and what does not fit become the smallest value.
pub(crate) fn truncate_to_i64(value: f64) -> i64 {
    // -2^63 fits and 2^63 does not; both are exact in f64.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// As [`truncate_to_i64`], for 32 bits.
pub(crate) fn truncate_to_i32(value: f64) -> i32 {
    if value > -2_147_483_649.0 && value < 2_147_483_648.0 {
        value as i32
    } else {
        i32::MIN
    }
}

/// As [`truncate_to_i64`], for 64 bits without sign. There is no instruction for it: compilers use
/// that for signed numbers, with 2^63 taken off first where the number is not below it.
fn truncate_to_u64(value: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if value >= HALF {
        (truncate_to_i64(value - HALF) as u64) ^ (1 << 63)
    } else {
        truncate_to_i64(value) as u64
    }
}

/// What one element can be turned into. Only strings refuse anything.
trait Source {
    fn f64(&self) -> Result<f64, String>;
    /// Rounded once, which for large integers is not the same as by way of float64.
    fn f32(&self) -> Result<f32, String>;
    fn i64(&self) -> Result<i64, String>;
    fn u64(&self) -> Result<u64, String>;
    /// Also for what has a sign and is narrower, which gets the low bits.
    fn i32(&self) -> Result<i32, String>;
    fn u32(&self) -> Result<u32, String>;
    /// Also for what is narrower, which gets the low bits.
    fn u16(&self) -> Result<u16, String>;
    fn truth(&self) -> Result<bool, String>;
    fn text(&self) -> CompactString;
}

macro_rules! integer_source {
    ($($integer:ty),*) => {$(
        impl Source for $integer {
            fn f64(&self) -> Result<f64, String> {
                Ok(*self as f64)
            }
            fn f32(&self) -> Result<f32, String> {
                Ok(*self as f32)
            }
            fn i64(&self) -> Result<i64, String> {
                Ok(*self as i64)
            }
            fn u64(&self) -> Result<u64, String> {
                Ok(*self as u64)
            }
            fn i32(&self) -> Result<i32, String> {
                Ok(*self as i32)
            }
            fn u32(&self) -> Result<u32, String> {
                Ok(*self as u32)
            }
            fn u16(&self) -> Result<u16, String> {
                Ok(*self as u16)
            }
            fn truth(&self) -> Result<bool, String> {
                Ok(*self != 0)
            }
            fn text(&self) -> CompactString {
                self.to_compact_string()
            }
        }
    )*};
}

integer_source!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! float_source {
    ($float:ty, $value:ident => $wide:expr, $single:expr) => {
        impl Source for $float {
            fn f64(&self) -> Result<f64, String> {
                let $value = *self;
                Ok($wide)
            }
            fn f32(&self) -> Result<f32, String> {
                let $value = *self;
                Ok($single)
            }
            fn i64(&self) -> Result<i64, String> {
                let $value = *self;
                Ok(truncate_to_i64($wide))
            }
            fn u64(&self) -> Result<u64, String> {
                let $value = *self;
                Ok(truncate_to_u64($wide))
            }
            fn i32(&self) -> Result<i32, String> {
                let $value = *self;
                Ok(truncate_to_i32($wide))
            }
            fn u32(&self) -> Result<u32, String> {
                let $value = *self;
                Ok(truncate_to_i64($wide) as u32)
            }
            fn u16(&self) -> Result<u16, String> {
                let $value = *self;
                Ok(truncate_to_i32($wide) as u16)
            }
            fn truth(&self) -> Result<bool, String> {
                let $value = *self;
                Ok($wide != 0.0)
            }
            fn text(&self) -> CompactString {
                let $value = *self;
                eight_digits($wide)
            }
        }
    };
}

float_source!(f32, value => f64::from(value), value);
float_source!(f64, value => value, value as f32);
float_source!(f16, value => value.to_f64(), value.to_f32());

impl Source for bool {
    fn f64(&self) -> Result<f64, String> {
        Ok(f64::from(u8::from(*self)))
    }
    fn f32(&self) -> Result<f32, String> {
        Ok(f32::from(u8::from(*self)))
    }
    fn i64(&self) -> Result<i64, String> {
        Ok(i64::from(*self))
    }
    fn u64(&self) -> Result<u64, String> {
        Ok(u64::from(*self))
    }
    fn i32(&self) -> Result<i32, String> {
        Ok(i32::from(*self))
    }
    fn u32(&self) -> Result<u32, String> {
        Ok(u32::from(*self))
    }
    fn u16(&self) -> Result<u16, String> {
        Ok(u16::from(*self))
    }
    fn truth(&self) -> Result<bool, String> {
        Ok(*self)
    }
    fn text(&self) -> CompactString {
        CompactString::const_new(if *self { "1" } else { "0" })
    }
}

impl Source for CompactString {
    fn f64(&self) -> Result<f64, String> {
        read_float(self)
    }
    fn f32(&self) -> Result<f32, String> {
        Ok(read_float(self)? as f32)
    }
    fn i64(&self) -> Result<i64, String> {
        let (negative, magnitude) = read_integer(self)?;
        let value = i128::from(magnitude);
        let value = if negative { -value } else { value };
        i64::try_from(value).map_err(|_| format!("the integer {self:?} does not fit into 64 bits"))
    }
    fn u64(&self) -> Result<u64, String> {
        let (negative, magnitude) = read_integer(self)?;
        Ok(if negative {
            magnitude.wrapping_neg()
        } else {
            magnitude
        })
    }
    fn i32(&self) -> Result<i32, String> {
        Ok(Source::i64(self)? as i32)
    }
    fn u32(&self) -> Result<u32, String> {
        Ok(Source::u64(self)? as u32)
    }
    fn u16(&self) -> Result<u16, String> {
        Ok(Source::u64(self)? as u16)
    }
    fn truth(&self) -> Result<bool, String> {
        Ok(Source::u64(self)? != 0)
    }
    fn text(&self) -> CompactString {
        self.clone()
    }
}

/// The shorter of fixed and scientific notation with at most eight significant digits and without
/// trailing zeros: C's `%.8g`.
fn eight_digits(value: f64) -> CompactString {
    if value.is_nan() {
        return CompactString::const_new("NaN");
    }
    if value.is_infinite() {
        return CompactString::const_new(if value > 0.0 { "INF" } else { "-INF" });
    }
    // Whole numbers of up to eight digits are the most frequent, and are written as they are. Minus
    // zero keeps its sign below.
    if value.abs() < 1e8 && value.fract() == 0.0 && value != 0.0 {
        return (value as i64).to_compact_string();
    }
    let scientific = format_compact!("{value:.7e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..8).contains(&exponent) {
        let decimals = usize::try_from(7 - exponent).unwrap_or(0);
        return without_trailing_zeros(&format_compact!("{value:.decimals$}")).into();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    let digits = without_trailing_zeros(digits);
    let exponent = exponent.abs();
    format_compact!("{digits}e{sign}{exponent:02}")
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

/// The text without spaces before it, as C sees spaces.
fn trimmed(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// The floating point number at the beginning of the text.
fn read_float(text: &str) -> Result<f64, String> {
    let start = trimmed(text);
    let number = match start.parse::<f64>() {
        Ok(number) => number,
        Err(_) => {
            let beginning = float_prefix(start)?;
            let number = beginning.parse::<f64>();
            number.map_err(|_| format!("{text:?} is not a number"))?
        }
    };
    let is_spelled = start.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    let has_digit = || {
        let mantissa = start.split(['e', 'E']).next().unwrap_or_default();
        mantissa.contains(|c: char| ('1'..='9').contains(&c))
    };
    let too_large = number.is_infinite() && !is_spelled;
    let too_small = number.abs() < f64::MIN_POSITIVE && has_digit();
    if too_large || too_small {
        return Err(format!("the number {text:?} is out of range of float64"));
    }
    Ok(number)
}

/// The longest beginning of the text that is a number.
fn float_prefix(text: &str) -> Result<&str, String> {
    let bytes = text.as_bytes();
    let digits_from = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let signed = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let unsigned = bytes.get(signed..).unwrap_or_default();
    for word in ["infinity", "inf", "nan"] {
        let found = unsigned.get(..word.len());
        if found.is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes())) {
            return Ok(&text[..signed + word.len()]);
        }
    }
    if matches!(unsigned, [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit()) {
        return Err(format!(
            "{text:?} is a hexadecimal number, which is not supported"
        ));
    }
    let mut end = digits_from(signed);
    let mut digits = end - signed;
    if bytes.get(end) == Some(&b'.') {
        let after = digits_from(end + 1);
        digits += after - end - 1;
        end = after;
    }
    if digits == 0 {
        return Err(format!("{text:?} is not a number"));
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let after = digits_from(exponent);
        if after > exponent {
            end = after;
        }
    }
    Ok(&text[..end])
}

/// The integer at the beginning of the text: whether it is negative, and its magnitude.
fn read_integer(text: &str) -> Result<(bool, u64), String> {
    let start = trimmed(text);
    let unsigned = start.strip_prefix(['+', '-']).unwrap_or(start);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(unsigned.len());
    if end == 0 {
        return Err(format!("{text:?} is not an integer"));
    }
    let magnitude = unsigned[..end].parse::<u64>();
    let magnitude =
        magnitude.map_err(|_| format!("the integer {text:?} does not fit into 64 bits"))?;
    Ok((start.starts_with('-'), magnitude))
}

/// The elements in another type.
pub(crate) fn convert(data: &Data, to: DataType) -> Result<Data, String> {
    with_data!(data, values => convert_elements(values, to))
}

fn convert_elements<S: Source>(values: &[S], to: DataType) -> Result<Data, String> {
    fn each<S, T>(
        values: &[S],
        function: impl Fn(&S) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut results = Vec::with_capacity(values.len());
        for value in values {
            results.push(function(value)?);
        }
        Ok(results)
    }
    Ok(match to {
        DataType::F32 => Data::F32(each(values, S::f32)?),
        DataType::F64 => Data::F64(each(values, S::f64)?),
        DataType::F16 => Data::F16(each(values, |x| Ok(f16::from_f32(x.f32()?)))?),
        DataType::I64 => Data::I64(each(values, S::i64)?),
        DataType::I32 => Data::I32(each(values, S::i32)?),
        DataType::I16 => Data::I16(each(values, |x| Ok(x.i32()? as i16))?),
        DataType::I8 => Data::I8(each(values, |x| Ok(x.i32()? as i8))?),
        DataType::U64 => Data::U64(each(values, S::u64)?),
        DataType::U32 => Data::U32(each(values, S::u32)?),
        DataType::U16 => Data::U16(each(values, S::u16)?),
        DataType::U8 => Data::U8(each(values, |x| Ok(x.u16()? as u8))?),
        DataType::Bool => Data::Bool(each(values, S::truth)?),
        DataType::String => Data::String(each(values, |x| Ok(x.text()))?),
    })
}

#[derive(Debug)]
struct Cast {
    /// `None`: the type of the second input.
    to: Option<DataType>,
}

fn cast(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    // These concern 8-bit floating point alone.
    node.ignore(&["saturate", "round_mode"]);
    let number = node.int("to")?.ok_or("attribute `to` is missing")?;
    let number = i32::try_from(number).map_err(|_| "attribute `to` is no element type")?;
    let to = Some(DataType::from_onnx(number)?);
    Ok(Box::new(Cast { to }))
}

fn cast_like(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    node.ignore(&["saturate", "round_mode"]);
    Ok(Box::new(Cast { to: None }))
}

impl Operator for Cast {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let to = match self.to {
            Some(to) => to,
            None => args.get(1)?.data_type(),
        };
        let tensor = args.get(0)?;
        if tensor.data_type() == to {
            return one(args.take(0)?);
        }
        args.context.reserve(tensor.len(), to)?;
        let data = convert(tensor.data(), to)?;
        one(Tensor::from_data(tensor.shape(), data)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_becomes_what_the_processor_makes_of_it() {
        assert_eq!(truncate_to_i64(f64::NAN), i64::MIN);
        assert_eq!(truncate_to_i64(f64::INFINITY), i64::MIN);
        assert_eq!(truncate_to_i64(1e30), i64::MIN);
        assert_eq!(truncate_to_i32(3e9), i32::MIN);
        assert_eq!(truncate_to_i32(f64::NAN), i32::MIN);
        assert_eq!(truncate_to_i32(-2_147_483_648.5), i32::MIN);
        assert_eq!(truncate_to_i32(2_147_483_647.5), i32::MAX);
        assert_eq!(truncate_to_u64(1e19), 10_000_000_000_000_000_000);
        assert_eq!(truncate_to_u64(-1.5), u64::MAX);
        assert_eq!(truncate_to_u64(f64::INFINITY), 0);
    }

    #[test]
    fn numbers_are_written_with_eight_digits() {
        let cases = [
            (1.5, "1.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "INF"),
            (f64::NEG_INFINITY, "-INF"),
            (-0.0, "-0"),
            (0.0, "0"),
            (-3.0, "-3"),
            (1e10, "1e+10"),
            (99_999_999.0, "99999999"),
            (100_000_000.0, "1e+08"),
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

    #[test]
    fn the_number_at_the_beginning_of_a_string_is_read() {
        for (text, number) in [
            ("1.5", 1.5),
            (" \t1 x", 1.0),
            ("1,5", 1.0),
            ("5e", 5.0),
            ("1e3", 1000.0),
            ("  .5", 0.5),
            ("-INF", f64::NEG_INFINITY),
            ("infinity!", f64::INFINITY),
        ] {
            assert_eq!(read_float(text), Ok(number), "{text}");
        }
        assert!(read_float("nan(1)").unwrap().is_nan());
        for text in ["", "abc", ".", "-", "1e400", "1e-400", "0x10", "\u{661}"] {
            assert!(read_float(text).is_err(), "{text}");
        }
        assert_eq!(read_integer(" -12.7"), Ok((true, 12)));
        for text in ["", "-", "INF", ".5", "18446744073709551616"] {
            assert!(read_integer(text).is_err(), "{text}");
        }
    }
}
