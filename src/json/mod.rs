//! A cursor over JSON text, for what is read too often for anything slower: inference requests and
//! events.
//!
//! It reads what RFC 8259 allows and nothing else, once from front to back, and makes values of no
//! kind: the caller asks for a string, a number or an array where it expects one, so that numbers
//! go straight into a tensor. It borrows what needs no unescaping. It says where and what it
//! expected; sentences for people are made by whoever reads the body again with a slower reader.

mod number;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

pub use self::number::Number;
use self::number::{DECIMAL_BYTES, decimal};

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 128;

/// The text is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected {
    /// Byte at which it was found.
    pub at: usize,
    pub expected: &'static str,
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
