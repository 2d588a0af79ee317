//! Bodies of JSON: one document, a list of them, or one after another, a line each.

use crate::features::value::describe_json;
use crate::json::{Cursor, Unexpected};

/// Why nothing of a body was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is not what it says it is.
    #[error("body: {0}")]
    Syntax(String),
    /// It is right in form, but of something else.
    #[error("body: {0}")]
    Shape(String),
    #[error("body: more than {limit} {thing}s, the most in one request (events.max_batch_events)")]
    TooMany { limit: usize, thing: &'static str },
}

/// How the documents of a body are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    One,
    List,
    Lines,
}

/// Calls `one` at each document of a body, which reads it; `thing` says what the documents are.
///
/// # Errors
/// With the place when the body cannot be read, and when there are more than `limit`.
pub fn each<'b>(
    body: &'b [u8],
    limit: usize,
    thing: &'static str,
    mut one: impl FnMut(&mut Cursor<'b>) -> Result<(), Unexpected>,
) -> Result<Layout, BodyError> {
    let mut cursor = Cursor::new(body);
    let mut count = 0;
    let mut counted = |cursor: &mut Cursor<'b>| {
        count += 1;
        if count > limit {
            return Err(cursor.unexpected("no more"));
        }
        cursor.peek();
        one(cursor)
    };
    let (layout, read) = match cursor.peek() {
        None => {
            return Err(BodyError::Syntax(format!("empty, expected a JSON {thing}")));
        }
        Some(b'[') => {
            let read = cursor.array(&mut counted);
            (Layout::List, read.and_then(|()| cursor.end()))
        }
        Some(b'{') => (Layout::Lines, lines(&mut cursor, &mut counted)),
        Some(_) => match describe(&mut cursor) {
            Ok(found) => {
                return Err(BodyError::Shape(format!(
                    "expected {thing}s: an object, a list, or an object on each line; found {found}"
                )));
            }
            Err(unexpected) => (Layout::One, Err(unexpected)),
        },
    };
    match read {
        Ok(()) if layout == Layout::Lines && count == 1 => Ok(Layout::One),
        Ok(()) => Ok(layout),
        Err(_) if count > limit => Err(BodyError::TooMany { limit, thing }),
        Err(unexpected) => Err(BodyError::Syntax(locate(body, unexpected))),
    }
}

fn lines<'b>(
    cursor: &mut Cursor<'b>,
    one: &mut impl FnMut(&mut Cursor<'b>) -> Result<(), Unexpected>,
) -> Result<(), Unexpected> {
    while cursor.peek().is_some() {
        one(cursor)?;
    }
    Ok(())
}

/// The lines, from 1, of some places in a text, which are in order.
pub fn line_numbers(text: &[u8], places: &[usize]) -> Vec<usize> {
    let (mut line, mut counted) = (1, 0);
    let line_of = |place: &usize| {
        let between = text.get(counted..*place).unwrap_or_default();
        line += between.iter().filter(|byte| **byte == b'\n').count();
        counted = *place;
        line
    };
    places.iter().map(line_of).collect()
}

/// The value that comes next, for an error message; it is read.
///
/// # Errors
/// When it is no value.
pub fn describe(cursor: &mut Cursor<'_>) -> Result<String, Unexpected> {
    let range = cursor.skip()?;
    let json = serde_json::from_slice(cursor.slice(range));
    Ok(describe_json(&json.unwrap_or(serde_json::Value::Null)))
}

/// Line and column of a place in a text, and what was expected there.
pub fn locate(body: &[u8], unexpected: Unexpected) -> String {
    let before = body.get(..unexpected.at).unwrap_or(body);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count()
        + 1;
    let expected = unexpected.expected;
    let found = match body.get(unexpected.at) {
        Some(byte) if byte.is_ascii_graphic() => format!(", found {:?}", char::from(*byte)),
        Some(_) => String::new(),
        None => ", found the end of the body".to_owned(),
    };
    format!("line {line}, column {column}: expected {expected}{found}")
}
