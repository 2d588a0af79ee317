//! Conversions between numbers as ONNX Runtime does them on x86-64, where Rust's `as` differs.

/// Cuts the fraction off; NaN and what does not fit become the smallest value, as the conversion
/// instruction of x86-64 has it. (Rust's `as` would make 0 of NaN, which is a category like any
/// other, and clamp the rest.)
pub(super) fn truncate_to_i64(value: f64) -> i64 {
    // -2^63 fits and 2^63 does not; both are exact in f64.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// As [`truncate_to_i64`], for 32 bits.
pub(super) fn truncate_to_i32(value: f64) -> i32 {
    if value > -2_147_483_649.0 && value < 2_147_483_648.0 {
        value as i32
    } else {
        i32::MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_becomes_the_smallest_value() {
        assert_eq!(truncate_to_i64(f64::NAN), i64::MIN);
        assert_eq!(truncate_to_i64(f64::INFINITY), i64::MIN);
        assert_eq!(truncate_to_i64(1e30), i64::MIN);
        assert_eq!(truncate_to_i32(3e9), i32::MIN);
        assert_eq!(truncate_to_i32(f64::NAN), i32::MIN);
    }

    #[test]
    fn fractions_are_cut_towards_zero() {
        assert_eq!(truncate_to_i64(1.7), 1);
        assert_eq!(truncate_to_i64(-1.7), -1);
        assert_eq!(truncate_to_i64(-0.5), 0);
        assert_eq!(truncate_to_i32(-2_147_483_648.5), i32::MIN);
        assert_eq!(truncate_to_i32(2_147_483_647.5), i32::MAX);
    }
}
