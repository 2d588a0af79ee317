//! The exponential function and its relatives, for results that are rounded to float32.
//!
//! They are plain additions, multiplications and choices without branches, so that the compiler can
//! work on several elements at once, and the same on every processor. Arguments and results are
//! float64, exact to about 1e-12, so that the float32 rounded from them is right but for the rarest
//! ties.

use crate::processor::Simd;

/// `e^x`, relative error below 1e-12. What is too large for float64 is infinity, what is too small
/// for it some number below 1e-307.
///
/// `x` is split into a whole number of halvings or doublings and a rest of at most `ln(2) / 2`, for
/// which the first terms of the exponential series suffice.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    // ln(2) in two parts; multiples of the first are exact.
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Adding it moves the whole part of a number to the low bits of the result.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let x = if x < -708.0 { -708.0 } else { x };
    let x = if x > 710.0 { 710.0 } else { x };
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let mut series = 1.0 / 3_628_800.0;
    for coefficient in [
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * rest + coefficient;
    }
    // The power of two, from its exponent.
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    series * power
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f64) -> f64 {
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    // Near zero the difference above would keep few digits.
    let near = x - x * x * x * (1.0 / 3.0);
    if x.abs() < 1e-3 { near } else { far }
}

/// A function applied to float32 numbers one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    Exp,
    Sigmoid,
    Tanh,
}

impl Function {
    /// Applies the function, with the widest registers there are.
    pub fn apply(self, values: &mut [f32]) {
        match Simd::detect() {
            Simd::Portable => self.apply_here(values),
            #[cfg(target_arch = "x86_64")]
            #[expect(
                unsafe_code,
                reason = "the instructions are there only on some processors"
            )]
            // SAFETY: the processor has the instructions, as `detect` has found.
            Simd::Avx2 => unsafe { apply_avx2(self, values) },
            #[cfg(target_arch = "x86_64")]
            #[expect(
                unsafe_code,
                reason = "the instructions are there only on some processors"
            )]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { apply_avx512(self, values) },
        }
    }

    #[inline(always)]
    fn apply_here(self, values: &mut [f32]) {
        match self {
            Function::Exp => values
                .iter_mut()
                .for_each(|x| *x = exp(f64::from(*x)) as f32),
            Function::Sigmoid => values
                .iter_mut()
                .for_each(|x| *x = sigmoid(f64::from(*x)) as f32),
            Function::Tanh => values
                .iter_mut()
                .for_each(|x| *x = tanh(f64::from(*x)) as f32),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn apply_avx512(function: Function, values: &mut [f32]) {
    function.apply_here(values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn apply_avx2(function: Function, values: &mut [f32]) {
    function.apply_here(values);
}

/// The error function, `2 / sqrt(pi)` times the integral of `e^-t²` from 0 to `x`; absolute error
/// below 1e-15, relative below 1e-12.
///
/// For `x >= 0` and `t = 2 / (2 + x)`, `ln((1 - erf(x)) / t) + x²` is smooth on the whole of
/// `0 < t <= 1`; it is interpolated there by Chebyshev polynomials of `2t - 1`.
pub(crate) fn erf(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 25] = [
        -6.513_268_598_908_547e-1,
        6.419_697_923_564_904e-1,
        1.947_647_320_418_570_8e-2,
        -9.561_514_786_808_63e-3,
        -9.465_953_444_820_733e-4,
        3.668_394_978_528_078_5e-4,
        4.252_332_480_675_523_5e-5,
        -2.027_857_811_249_094_5e-5,
        -1.624_290_004_694_547_8e-6,
        1.303_655_835_720_129e-6,
        1.562_644_157_273_678e-8,
        -8.523_809_568_933_83e-8,
        6.529_054_286_476_926e-9,
        5.059_343_647_496_768e-9,
        -9.913_644_559_187_097e-10,
        -2.273_648_794_346_140_7e-10,
        9.646_743_957_736_206e-11,
        2.394_465_990_071_051e-12,
        -6.886_391_464_639_795e-12,
        8.948_019_378_875_956e-13,
        3.132_415_473_486_835_6e-13,
        -1.133_352_702_316_116_3e-13,
        1.141_248_655_377_991_2e-15,
        6.081_349_041_036_923e-15,
        -6.549_459_098_258_57e-16,
    ];
    let size = x.abs();
    if size < 0.1 {
        let square = x * x;
        let mut series = 1.0 / 216.0;
        for coefficient in [-1.0 / 42.0, 0.1, -1.0 / 3.0, 1.0] {
            series = series * square + coefficient;
        }
        return std::f64::consts::FRAC_2_SQRT_PI * x * series;
    }
    if size > 6.0 {
        return 1.0f64.copysign(x);
    }
    let t = 2.0 / (2.0 + size);
    let place = 2.0 * t - 1.0;
    let (mut next, mut after) = (0.0, 0.0);
    for coefficient in COEFFICIENTS[1..].iter().rev() {
        let current = 2.0 * place * next - after + coefficient;
        after = next;
        next = current;
    }
    let logarithm = place * next - after + COEFFICIENTS[0];
    (1.0 - t * (logarithm - size * size).exp()).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_exact_to_more_digits_than_float32_has() {
        let mut x = -100.0;
        while x < 100.0 {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "exp {x}");
            assert!((tanh(x) / x.tanh() - 1.0).abs() < 1e-11, "tanh {x}");
            x += 0.037;
        }
        for exponent in 0..300 {
            let x = 10f64.powi(-exponent);
            assert!((tanh(x) / x.tanh() - 1.0).abs() < 1e-11, "tanh {x}");
        }
        for (x, expected) in [
            (0.05, 0.056_371_977_797_016_62),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (-2.0, -0.995_322_265_018_952_7),
            (4.0, 0.999_999_984_582_742_1),
        ] {
            assert!((erf(x) - expected).abs() < 1e-14, "erf {x}");
        }
    }

    #[test]
    fn bits_are_the_same_with_any_instructions_and_in_any_place() {
        let numbers: Vec<f32> = (-999..1000).map(|x| x as f32 * 0.0931).collect();
        for function in [Function::Exp, Function::Sigmoid, Function::Tanh] {
            let mut plain = numbers.clone();
            function.apply_here(&mut plain);
            let mut detected = numbers.clone();
            function.apply(&mut detected);
            for (place, number) in numbers.iter().enumerate() {
                let mut alone = [*number];
                function.apply(&mut alone);
                assert_eq!(plain[place].to_bits(), detected[place].to_bits());
                assert_eq!(plain[place].to_bits(), alone[0].to_bits());
            }
        }
    }

    #[test]
    fn what_is_no_number_or_out_of_range_comes_out_as_such() {
        assert!(exp(f64::NAN).is_nan());
        assert!(sigmoid(f64::NAN).is_nan());
        assert!(tanh(f64::NAN).is_nan());
        assert!(erf(f64::NAN).is_nan());
        assert_eq!(exp(f64::NEG_INFINITY) as f32, 0.0);
        assert_eq!(exp(f64::INFINITY), f64::INFINITY);
        assert_eq!(sigmoid(f64::NEG_INFINITY) as f32, 0.0);
        assert_eq!(sigmoid(f64::INFINITY), 1.0);
        assert_eq!(tanh(f64::INFINITY), 1.0);
        assert_eq!(tanh(f64::NEG_INFINITY), -1.0);
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert_eq!(exp(0.0), 1.0);
    }
}
