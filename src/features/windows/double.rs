//! Sums with twice the precision of a float.
//!
//! A [`Double`] is the unevaluated sum of two floats, about 106 bits. As long as the values summed
//! fit in 106 bits together (amounts in cents up to 10^20, say), the sum is exact, and so the same
//! in whatever order they are added. Beyond that the last of the 106 bits depends on the order,
//! which is far below what rounding to one float leaves.
//!
//! A sum that overflows stays overflowed; it has no value.

/// The sum of two floats, the first of which is the whole rounded to one. Packed, so that it fits
/// next to 32-bit numbers without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Double {
    pub high: f64,
    pub low: f64,
}

impl Double {
    const OVERFLOWED: Double = Double {
        high: f64::INFINITY,
        low: 0.0,
    };

    fn new(high: f64, low: f64) -> Double {
        if high.is_finite() {
            Double { high, low }
        } else {
            Double::OVERFLOWED
        }
    }

    pub fn plus(self, value: f64) -> Double {
        let (sum, lost) = two_sum(self.high, value);
        let (high, low) = quick_two_sum(sum, lost + self.low);
        Double::new(high, low)
    }

    /// Adds the square of `value`, computed without loss.
    pub fn plus_square(self, value: f64) -> Double {
        self.plus_double(product(value, value))
    }

    pub fn plus_double(self, other: Double) -> Double {
        let (high, high_lost) = two_sum(self.high, other.high);
        let (low, low_lost) = two_sum(self.low, other.low);
        let (high, rest) = quick_two_sum(high, high_lost + low);
        let (high, low) = quick_two_sum(high, low_lost + rest);
        Double::new(high, low)
    }

    pub fn minus(self, other: Double) -> Double {
        self.plus_double(Double {
            high: -other.high,
            low: -other.low,
        })
    }

    pub fn squared(self) -> Double {
        let square = product(self.high, self.high);
        let (high, low) = quick_two_sum(square.high, square.low + 2.0 * self.high * self.low);
        Double::new(high, low)
    }

    pub fn divided_by(self, divisor: f64) -> Double {
        let quotient = self.high / divisor;
        let rest = self.minus(product(quotient, divisor));
        let (high, low) = quick_two_sum(quotient, rest.high / divisor);
        Double::new(high, low)
    }

    /// The nearest float; none when the sum overflowed.
    pub fn to_float(self) -> Option<f64> {
        self.high.is_finite().then_some(self.high)
    }

    /// The nearest whole number (halves away from zero); none when it does not fit.
    pub fn to_integer(self) -> Option<i64> {
        // The low part of a large sum is worth whole numbers too.
        let whole = self.high.trunc();
        let rest = ((self.high - whole) + self.low).round();
        // 2^63 is a float; everything below it converts as it is.
        let limit = 9_223_372_036_854_775_808.0;
        if !(-limit..=limit).contains(&whole) {
            return None;
        }
        i64::try_from(whole as i128 + rest as i128).ok()
    }
}

/// The rounded sum and what rounding lost (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// As [`two_sum`] for an `a` that is not smaller than `b` (Dekker).
fn quick_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// The rounded product and what rounding lost.
fn product(a: f64, b: f64) -> Double {
    let rounded = a * b;
    Double::new(rounded, a.mul_add(b, -rounded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_float_loses_is_kept() {
        let sum = [1e16, 1.0, -1e16]
            .into_iter()
            .fold(Double::default(), Double::plus);
        assert_eq!(sum.to_float(), Some(1.0));
        let square = Double::default().plus_square(1e8 + 1.0);
        assert_eq!(
            square.minus(Double::default().plus(1e16)).to_float(),
            Some(2e8 + 1.0)
        );
    }

    #[test]
    fn whole_numbers_are_exact_to_the_last() {
        let large = 9_007_199_254_740_991.0;
        let sum = (0..1000).fold(Double::default(), |sum, _| sum.plus(large));
        assert_eq!(sum.to_integer(), Some(9_007_199_254_740_991_000));
        let beyond = (0..2000).fold(Double::default(), |sum, _| sum.plus(large));
        assert_eq!(beyond.to_integer(), None);
        assert_eq!(Double::default().plus(-2.5).to_integer(), Some(-3));
    }

    #[test]
    fn an_overflow_stays_one() {
        let sum = Double::default()
            .plus(f64::MAX)
            .plus(f64::MAX)
            .plus(-f64::MAX);
        assert_eq!(sum, Double::OVERFLOWED);
        assert_eq!(sum.to_float(), None);
        assert_eq!(sum.to_integer(), None);
    }

    #[test]
    fn division_keeps_the_precision() {
        let third = Double::default().plus(1.0).divided_by(3.0);
        let one = third.plus_double(third).plus_double(third);
        assert!((one.minus(Double::default().plus(1.0))).high.abs() < 1e-31);
    }
}
