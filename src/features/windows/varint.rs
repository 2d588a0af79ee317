//! Numbers as few bytes, and reading them from bytes that may be anything.

/// Appends `number` in groups of 7 bits, the lowest first.
pub fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends a number that may be negative: small ones of either sign are short.
pub fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put(bytes, ((number << 1) ^ (number >> 63)) as u64);
}

pub fn put_float(bytes: &mut Vec<u8>, number: f64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

pub fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, String>;

fn too_short() -> String {
    "they end too early".to_owned()
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> Read<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(too_short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(too_short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn number(&mut self) -> Read<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }

    pub fn small(&mut self) -> Read<u32> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| format!("{number} is above what 32 bits hold"))
    }

    pub fn signed(&mut self) -> Read<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// How many things follow, each of which takes at least one byte.
    pub fn length(&mut self, limit: usize) -> Read<usize> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > limit {
            return Err(format!("{length} entries, at most {limit} are kept"));
        }
        if length > self.rest.len() {
            return Err(too_short());
        }
        Ok(length)
    }

    pub fn fixed(&mut self) -> Read<[u8; 8]> {
        let taken = self.take(8)?;
        <[u8; 8]>::try_from(taken).map_err(|_| too_short())
    }

    /// A float that is a number.
    pub fn float(&mut self) -> Read<f64> {
        let number = f64::from_le_bytes(self.fixed()?);
        if number.is_nan() {
            return Err("a number is not one".to_owned());
        }
        Ok(number)
    }

    pub fn text(&mut self, limit: usize) -> Read<&'a str> {
        let length = self.length(limit)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| "a text is no UTF-8".to_owned())
    }

    /// The next bytes, led by their length.
    pub fn part(&mut self) -> Read<Reader<'a>> {
        let length = self.length(usize::MAX)?;
        Ok(Reader::new(self.take(length)?))
    }

    pub fn finish(self) -> Read<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(format!("{} bytes are left over", self.rest.len()))
    }
}
