//! A cursor over JSON text, for what is read too often for anything slower: inference requests and
//! events.
//!
//! It reads what RFC 8259 allows and nothing else, once from front to back, and makes values of no
//! kind: the caller asks for a string, a number or an array where it expects one, so that numbers
//! go straight into a tensor. It borrows what needs no unescaping. It says where and what it
//! expected; sentences for people are made by whoever reads the body again with a slower reader.

use std::borrow::Cow;
use std::ops::Range;

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 128;

/// The text is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected {
    /// Byte at which it was found.
    pub at: usize,
    pub expected: &'static str,
}

/// A number as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Number<'a> {
    /// The first 19 digits, decimal point left out.
    digits: u64,
    /// Power of ten to multiply them with.
    exponent: i32,
    negative: bool,
    /// All digits are in `digits`.
    exact: bool,
    /// Written without decimal point and exponent.
    integer: bool,
    text: &'a [u8],
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
const DECIMAL_BYTES: usize = 24;

/// The number at the beginning of `text`, and how long it is, in its most common form: up to six
/// digits, perhaps a point and up to fifteen digits more, and a comma behind it. `None` when it is
/// written in any other form.
#[inline(always)]
fn decimal(text: &[u8; DECIMAL_BYTES]) -> Option<(f64, usize)> {
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

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Where the cursor is.
    pub fn position(&self) -> usize {
        self.at
    }

    /// A refusal at this place.
    pub fn unexpected(&self, expected: &'static str) -> Unexpected {
        Unexpected {
            at: self.at,
            expected,
        }
    }

    /// The first byte of what comes next, which is not read yet.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                _ => return Some(*byte),
            }
        }
        None
    }

    /// Reads `byte` when it comes next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A part of the text.
    pub fn slice(&self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Result<(), Unexpected> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the body")),
        }
    }

    /// Reads an object; `member` is called with each name and reads the value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Cursor<'a>, &str) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        if !self.take(b'{') {
            return Err(self.unexpected("an object"));
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            if !self.take(b':') {
                return Err(self.unexpected("a colon"));
            }
            member(self, &name)?;
            if self.take(b',') {
                continue;
            }
            return match self.take(b'}') {
                true => Ok(()),
                false => Err(self.unexpected("a comma or the end of the object")),
            };
        }
    }

    /// Reads an array; `element` is called once for each element and reads it.
    #[inline]
    pub fn array(
        &mut self,
        mut element: impl FnMut(&mut Cursor<'a>) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        if !self.take(b'[') {
            return Err(self.unexpected("an array"));
        }
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            // Most often the comma or bracket follows without white space.
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("a comma or the end of the array")),
            }
        }
    }

    /// Reads `null` when it comes next.
    pub fn null(&mut self) -> Result<bool, Unexpected> {
        match self.peek() {
            Some(b'n') => self.word(b"null").map(|()| true),
            _ => Ok(false),
        }
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool, Unexpected> {
        match self.peek() {
            Some(b't') => self.word(b"true").map(|()| true),
            Some(b'f') => self.word(b"false").map(|()| false),
            _ => Err(self.unexpected("a boolean")),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Unexpected> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) != Some(word) {
            return Err(self.unexpected("null, true or false"));
        }
        self.at = end;
        Ok(())
    }

    /// Reads elements of an array, each with the comma behind it, for as long as they are numbers in
    /// their most common form; the next element is read by other means. `take` is given what
    /// [`Number::to_f64`] would give.
    #[inline(always)]
    pub fn decimals(&mut self, mut take: impl FnMut(f64)) {
        // The place is kept in a register here: where the next number begins is what everything
        // waits for.
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        while let Some(text) = rest.first_chunk::<DECIMAL_BYTES>()
            && let Some((value, length)) = decimal(text)
        {
            take(value);
            // Some writers put a space behind every comma.
            let space = usize::from(rest.get(length + 1) == Some(&b' '));
            rest = rest.get(length + 1 + space..).unwrap_or_default();
        }
        self.at = self.bytes.len() - rest.len();
    }

    /// Reads a number.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, Unexpected> {
        self.peek();
        let start = self.at;
        let negative = self.bytes.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let mut digits: u64 = 0;
        let first = self.at;
        let mut exact = self.digits(&mut digits, first);
        let whole = self.at - first;
        if whole == 0 || (whole > 1 && self.bytes[first] == b'0') {
            return Err(Unexpected {
                at: first,
                expected: "a number",
            });
        }
        let mut exponent = 0_i32;
        let mut integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            integer = false;
            let point = self.at;
            // The zeros of 0.001 are no digits that count.
            exact &= self.digits(&mut digits, first);
            let places = self.at - point;
            if places == 0 {
                return Err(self.unexpected("a digit"));
            }
            exponent = -i32::try_from(places).unwrap_or(i32::MAX);
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            integer = false;
            let negative = match self.bytes.get(self.at) {
                Some(b'-') => true,
                Some(b'+') => false,
                _ => {
                    self.at -= 1;
                    false
                }
            };
            self.at += 1;
            let start = self.at;
            let mut power: u64 = 0;
            exact &= self.digits(&mut power, start);
            if self.at == start {
                return Err(self.unexpected("a digit"));
            }
            let power = i32::try_from(power).unwrap_or(i32::MAX);
            exponent = exponent.saturating_add(if negative { -power } else { power });
        }
        Ok(Number {
            digits,
            exponent,
            negative,
            exact,
            integer,
            text: &self.bytes[start..self.at],
        })
    }

    /// Adds the digits that come next to `value`; whether all of them, with those since `first`,
    /// fit. There are at most 19 then, and 19 nines are below 2^64.
    #[inline]
    fn digits(&mut self, value: &mut u64, first: usize) -> bool {
        while let Some(byte) = self.bytes.get(self.at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        // The decimal point may be among them.
        self.at - first <= 19
    }

    /// Reads a string.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>, Unexpected> {
        if !self.take(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => return self.unescape(start).map(Cow::Owned),
                Some(0..0x20) | None => return Err(self.unexpected("the end of the string")),
                Some(_) => self.at += 1,
            }
        }
        let text = self.text(start)?;
        self.at += 1;
        Ok(Cow::Borrowed(text))
    }

    /// What lies between `start` and the cursor, as text.
    fn text(&self, start: usize) -> Result<&'a str, Unexpected> {
        std::str::from_utf8(&self.bytes[start..self.at]).map_err(|error| Unexpected {
            at: start + error.valid_up_to(),
            expected: "UTF-8",
        })
    }

    /// Reads the rest of a string whose first backslash is at the cursor.
    fn unescape(&mut self, start: usize) -> Result<String, Unexpected> {
        let mut text = self.text(start)?.to_owned();
        let mut plain = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    text.push_str(self.text(plain)?);
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    text.push_str(self.text(plain)?);
                    self.at += 1;
                    text.push(self.escape()?);
                    plain = self.at;
                }
                Some(0..0x20) | None => return Err(self.unexpected("the end of the string")),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char, Unexpected> {
        let letter = self.bytes.get(self.at).copied();
        self.at += 1;
        Ok(match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.code_unit()?;
                let code = match unit {
                    // The first half of a character beyond the 65,536 of one unit.
                    0xD800..0xDC00 => {
                        if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(self.unexpected("the second half of a surrogate pair"));
                        }
                        self.at += 2;
                        let low = self.code_unit()?;
                        if !(0xDC00..0xE000).contains(&low) {
                            return Err(self.unexpected("the second half of a surrogate pair"));
                        }
                        0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    unit => unit,
                };
                char::from_u32(code).ok_or_else(|| self.unexpected("a character"))?
            }
            _ => return Err(self.unexpected("an escape")),
        })
    }

    fn code_unit(&mut self) -> Result<u32, Unexpected> {
        let end = self.at + 4;
        let digits = self.bytes.get(self.at..end);
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = text
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or_else(|| self.unexpected("four hexadecimal digits"))?;
        self.at = end;
        Ok(value)
    }

    /// Reads any value and says where it was.
    pub fn skip(&mut self) -> Result<Range<usize>, Unexpected> {
        self.peek();
        let start = self.at;
        self.skip_value(MAX_DEPTH)?;
        Ok(start..self.at)
    }

    /// Reads any value and gives its text.
    pub fn skip_text(&mut self) -> Result<&'a str, Unexpected> {
        let range = self.skip()?;
        let start = range.start;
        std::str::from_utf8(&self.bytes[range]).map_err(|error| Unexpected {
            at: start + error.valid_up_to(),
            expected: "UTF-8",
        })
    }

    fn skip_value(&mut self, depth: usize) -> Result<(), Unexpected> {
        if depth == 0 {
            return Err(self.unexpected("less nesting"));
        }
        match self.peek() {
            Some(b'{') => self.object(|cursor, _| cursor.skip_value(depth - 1)),
            Some(b'[') => self.array(|cursor| cursor.skip_value(depth - 1)),
            Some(b'"') => self.string().map(|_| ()),
            Some(b't' | b'f') => self.boolean().map(|_| ()),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                match number.to_f64() {
                    Some(_) => Ok(()),
                    None => Err(self.unexpected("a number within the range of float64")),
                }
            }
            _ => Err(self.unexpected("a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Reads a number that is all of the text, in both ways.
    fn read_number(text: &str) -> Option<f64> {
        let slow = read_number_slowly(text);
        for separator in [",", ", "] {
            let elements = [text, text, "", "                        "].join(separator);
            let mut cursor = Cursor::new(elements.as_bytes());
            let mut quick = Vec::new();
            cursor.decimals(|value| quick.push(value.to_bits()));
            assert!(quick.is_empty() || quick.len() == 2, "{text}");
            assert!(
                quick
                    .iter()
                    .all(|bits| slow.map(f64::to_bits) == Some(*bits)),
                "{text}"
            );
            assert_eq!(
                cursor.position(),
                quick.len() * (text.len() + separator.len())
            );
        }
        slow
    }

    fn read_number_slowly(text: &str) -> Option<f64> {
        let mut cursor = Cursor::new(text.as_bytes());
        let number = cursor.number().ok()?;
        cursor.end().ok()?;
        number.to_f64()
    }

    /// Whether the whole text is one JSON value.
    fn is_json(bytes: &[u8]) -> bool {
        let mut cursor = Cursor::new(bytes);
        cursor.skip().is_ok() && cursor.end().is_ok()
    }

    #[test]
    fn numbers_are_the_nearest_float64() {
        for text in [
            "0",
            "-0",
            "0.1",
            "-12.5e-3",
            "1e22",
            "1e23",
            "9007199254740993",
            "123456789012345678",
            "12345678901234567890",
            "0.000000000000000000000001",
            "4.9e-324",
            "1.7976931348623157e308",
            "18446744073709551615",
            "18446744073709551616",
            "0.30000000000000004",
            "1E+2",
            "1e-400",
            "3.4028235e38",
            "0.1234567890123456789",
            "99999999999999999999999999999999",
        ] {
            let expected: f64 = text.parse().unwrap();
            let found = read_number(text).unwrap();
            assert_eq!(found.to_bits(), expected.to_bits(), "{text}");
        }
        assert_eq!(read_number("1e400"), None);
        assert_eq!(read_number("1e99999999999999999999"), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "", "-", "01", "-01", ".5", "1.", "1.e3", "1e", "1e+", "+1", "NaN", "Infinity", "0x1",
            "1_000", "--1", "1 2",
        ] {
            assert_eq!(read_number(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_to_the_ends_of_64_bits() {
        let integer = |text: &str| Cursor::new(text.as_bytes()).number().unwrap().to_integer();
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN.into()));
        assert_eq!(integer("18446744073709551615"), Some(u64::MAX.into()));
        assert_eq!(integer("9007199254740993"), Some(9_007_199_254_740_993));
        assert_eq!(integer("3.0"), Some(3));
        assert_eq!(integer("3e2"), Some(300));
        assert_eq!(integer("3.5"), None);
        assert_eq!(integer("1e30"), None);
    }

    #[test]
    fn strings_are_unescaped() {
        for text in [
            r#""plain""#,
            r#""""#,
            r#""a\"b\\c\/d\b\f\n\r\t""#,
            r#""\u00e4\uD83D\uDE00x""#,
            "\"äöü\"",
        ] {
            let expected: String = serde_json::from_str(text).unwrap();
            assert_eq!(Cursor::new(text.as_bytes()).string().unwrap(), expected);
        }
        for text in [
            r#""\x""#,
            r#""\uD83D""#,
            r#""\uDE00""#,
            "\"a\nb\"",
            "\"open",
            r#""\u12g4""#,
        ] {
            assert!(Cursor::new(text.as_bytes()).string().is_err(), "{text}");
        }
        assert!(Cursor::new(b"\"\xff\"").string().is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(deep(100).as_bytes()));
        assert!(!is_json(deep(100_000).as_bytes()));
    }

    /// Any JSON value, small.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_float_is_read_to_the_last_bit(value in any::<f64>()) {
            prop_assume!(value.is_finite());
            for text in [format!("{value:?}"), format!("{value:e}"), format!("{value}")] {
                prop_assert_eq!(read_number(&text).unwrap().to_bits(), value.to_bits());
            }
        }

        #[test]
        fn decimal_texts_are_read_as_the_standard_library_reads_them(
            text in r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?(e[-+]?[0-9]{1,3})?"
        ) {
            let expected: f64 = text.parse().unwrap();
            let expected = expected.is_finite().then_some(expected.to_bits());
            prop_assert_eq!(read_number(&text).map(f64::to_bits), expected);
        }

        #[test]
        fn everything_another_writer_wrote_is_read(value in values(), pretty in any::<bool>()) {
            let text = match pretty {
                true => serde_json::to_vec_pretty(&value).unwrap(),
                false => serde_json::to_vec(&value).unwrap(),
            };
            prop_assert!(is_json(&text));
        }

        #[test]
        fn changed_texts_are_json_here_when_they_are_elsewhere(
            value in values(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut text = serde_json::to_vec(&value).unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            let elsewhere = serde_json::from_slice::<Value>(&text).is_ok();
            prop_assert_eq!(is_json(&text), elsewhere, "{}", String::from_utf8_lossy(&text));
        }
    }
}
