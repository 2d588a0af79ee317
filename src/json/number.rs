//! Numbers: from digits to the nearest float64, eight characters at a time where they come in lists.

/// A number as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Number<'a> {
    /// The first 19 digits, decimal point left out.
    pub(super) digits: u64,
    /// Power of ten to multiply them with.
    pub(super) exponent: i32,
    pub(super) negative: bool,
    /// All digits are in `digits`.
    pub(super) exact: bool,
    /// Written without decimal point and exponent.
    pub(super) integer: bool,
    pub(super) text: &'a [u8],
}

/// Powers of ten that a float64 holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// How many of eight characters are digits before the first that is none, and the number these
/// digits stand for. `text` is as it lies in memory, the first character in the lowest byte.
///
/// All eight are looked at at once and without a branch: how many digits a number has differs from
/// one to the next, and a branch on it would be guessed wrongly every other time, which takes longer
/// than all of this.
#[inline(always)]
fn leading_digits(text: u64) -> (usize, u64) {
    // A digit becomes 0 to 9; adding 0x76 takes everything else above 0x7f. A carry reaches later
    // characters only.
    let values = text ^ 0x3030_3030_3030_3030;
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() / 8;
    // The digits move to the end and zeros stand before them: by 64 bits when there is no digit, which
    // takes two steps.
    let half = 32 - 4 * count;
    let padded = values << half << half;
    // Neighbours are added up first, then pairs, then fours.
    let pairs = (padded.wrapping_mul(10 << 8 | 1) >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_FFFF_0000_FFFF;
    (count as usize, fours.wrapping_mul(10_000 << 32 | 1) >> 32)
}

/// Powers of ten by which digits are moved to make room for up to eight more.
const POWERS: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// How many characters [`decimal`] looks at.
pub const DECIMAL_BYTES: usize = 24;

/// The number at the beginning of `text`, and how long it is, in its most common form: up to six
/// digits, perhaps a point and up to fifteen digits more, and a comma behind it. `None` when it is
/// written in any other form.
#[inline(always)]
pub fn decimal(text: &[u8; DECIMAL_BYTES]) -> Option<(f64, usize)> {
    let eight = |at: usize| Some(u64::from_le_bytes(*text.get(at..)?.first_chunk::<8>()?));
    let negative = text[0] == b'-';
    let first = usize::from(negative);
    // A single digit before the point is most common by far.
    let (whole, mut digits) = match (text[first], text[first + 1]) {
        (digit @ b'0'..=b'9', b'.') => (1, u64::from(digit - b'0')),
        _ => leading_digits(eight(first)?),
    };
    if whole == 0 || whole > 6 || (whole > 1 && text[first] == b'0') {
        return None;
    }
    let mut at = first + whole;
    let mut places = 0;
    if text[at] == b'.' {
        let (some, fraction) = leading_digits(eight(at + 1)?);
        let (more, rest) = leading_digits(eight(at + 9)?);
        let (more, rest) = if some == 8 { (more, rest) } else { (0, 0) };
        places = some + more;
        if places == 0 || places > 15 {
            return None;
        }
        // At most 6 + 15 digits; those over 2^53 are refused before they are used.
        digits = digits * POWERS[some] + fraction;
        digits = digits.checked_mul(POWERS[more])?.checked_add(rest)?;
        at += 1 + places;
    }
    if text.get(at) != Some(&b',') || digits > 1 << 53 {
        return None;
    }
    let value = digits as i64 as f64 / EXACT_POWERS[places];
    let sign = u64::from(negative) << 63;
    Some((f64::from_bits(value.to_bits() | sign), at))
}

impl Number<'_> {
    /// The nearest float64; `None` when the number is beyond all of them.
    ///
    /// Up to 2^53 and 10^22 both factors are exact, and one multiplication or division rounds once:
    /// the method of Clinger, "How to read floating point numbers accurately" (1990). Everything
    /// else is left to the standard library.
    pub fn to_f64(self) -> Option<f64> {
        if self.exact && self.digits <= 1 << 53 && self.exponent.unsigned_abs() <= 22 {
            let power = EXACT_POWERS[self.exponent.unsigned_abs() as usize];
            let digits = self.digits as f64;
            let value = if self.exponent < 0 {
                digits / power
            } else {
                digits * power
            };
            return Some(if self.negative { -value } else { value });
        }
        let text = std::str::from_utf8(self.text).ok()?;
        let value: f64 = text.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The whole number from 0, when it is written as one.
    pub fn to_unsigned(self) -> Option<u64> {
        // A zero with a sign is taken for a number with a fraction, as other readers do.
        let whole = (self.integer && !self.negative).then(|| self.to_integer())??;
        u64::try_from(whole).ok()
    }

    /// The whole number, when it is one: `3`, and also `3.0` and `3e2` below 10^18.
    pub fn to_integer(self) -> Option<i128> {
        if self.integer && self.exact {
            let value = i128::from(self.digits);
            return Some(if self.negative { -value } else { value });
        }
        if self.integer {
            // Twenty digits: the largest unsigned 64-bit numbers have that many.
            let value: i128 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
            return Some(value);
        }
        let value = self.to_f64()?;
        (value.fract() == 0.0 && value.abs() < 1e18).then_some(value as i128)
    }
}
