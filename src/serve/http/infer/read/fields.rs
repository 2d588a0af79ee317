//! What all objects of a request have in common: every field once, some that must be there, some that may
//! be null.

use serde_json::Value;

use crate::json::{Cursor, Unexpected};

/// Which fields an object has had.
#[derive(Default)]
pub(super) struct Seen(u8);

impl Seen {
    pub(super) fn once(&mut self, field: u8, cursor: &Cursor<'_>) -> Result<(), Unexpected> {
        let bit = 1 << field;
        if self.0 & bit != 0 {
            return Err(cursor.unexpected("every field once"));
        }
        self.0 |= bit;
        Ok(())
    }

    pub(super) fn require(
        &self,
        field: u8,
        cursor: &Cursor<'_>,
        name: &'static str,
    ) -> Result<(), Unexpected> {
        match self.0 & (1 << field) {
            0 => Err(cursor.unexpected(name)),
            _ => Ok(()),
        }
    }
}

/// Reads what may also be null.
pub(super) fn optional<'a, T>(
    cursor: &mut Cursor<'a>,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Unexpected>,
) -> Result<Option<T>, Unexpected> {
    match cursor.null()? {
        true => Ok(None),
        false => read(cursor).map(Some),
    }
}

/// Reads a whole number from 0, written as such.
pub(super) fn unsigned(cursor: &mut Cursor<'_>) -> Result<u64, Unexpected> {
    let expected = cursor.unexpected("a whole number");
    let number = cursor.number()?;
    number.to_unsigned().ok_or(expected)
}

/// Reads a value of any kind, for saying what it is.
pub(super) fn value(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<Value, Unexpected> {
    let range = cursor.skip()?;
    let found = serde_json::from_slice(&body[range.clone()]);
    found.map_err(|_| Unexpected {
        at: range.start,
        expected: "a value",
    })
}
