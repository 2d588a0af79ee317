//! The stored features of one entity, packed: what the store keeps in memory of a profile.
//!
//! One allocation without gaps, some ten bytes for a number, because a server keeps as many entities
//! in memory as fit. A name is the number of the view's column, so packed features belong to the view
//! they were packed for; what a reader gets is [`Profile`].
//!
//! Feature by feature, by name: its column plus one as a varint, or zero, the length of the name and the
//! name where the view has no such feature; how much later it was written than the one before, as a
//! zigzag varint; a byte for the kind of value; the value. These bytes live as long as the process; they
//! are no format.

use std::sync::Arc;

use prost::encoding::{decode_varint, encode_varint};

use super::profile::{Profile, StoredValue};
use crate::features::change::Scalar;
use crate::features::value::Value;
use crate::features::view::View;

/// Packed features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Box<[u8]>,
}

/// One stored feature, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    pub name: &'a str,
    /// Microseconds since the Unix epoch.
    pub as_of_us: i64,
    pub value: Datum<'a>,
}

/// A value, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Datum<'a> {
    Null,
    Bool(bool),
    Int64(i64),
    Float64(f64),
    Text(&'a str),
}

/// The kinds of value.
mod kind {
    pub const NULL: u8 = 0;
    pub const FALSE: u8 = 1;
    pub const TRUE: u8 = 2;
    pub const INT64: u8 = 3;
    pub const FLOAT64: u8 = 4;
    pub const TEXT: u8 = 5;
}

impl<'a> Datum<'a> {
    /// A value of a change.
    pub fn of(scalar: Option<&'a Scalar>) -> Datum<'a> {
        match scalar {
            None => Datum::Null,
            Some(Scalar::Bool(flag)) => Datum::Bool(*flag),
            Some(Scalar::Int64(integer)) => Datum::Int64(*integer),
            Some(Scalar::Float64(float)) => Datum::Float64(*float),
            Some(Scalar::String(text)) => Datum::Text(text),
        }
    }

    pub fn to_value(self) -> Value {
        match self {
            Datum::Null => Value::Null,
            Datum::Bool(flag) => Value::Bool(flag),
            Datum::Int64(integer) => Value::Int64(integer),
            Datum::Float64(float) => Value::Float64(float),
            Datum::Text(text) => Value::String(text.to_owned()),
        }
    }
}

impl Packed {
    /// Packs features that are sorted by name, each once.
    pub fn pack(view: &View, entries: &[Entry<'_>]) -> Packed {
        let mut bytes = Vec::with_capacity(12 * entries.len() + 8);
        let mut before_us = 0_i64;
        for entry in entries {
            match view.index_of(entry.name) {
                Some(column) => encode_varint(column as u64 + 1, &mut bytes),
                None => {
                    bytes.push(0);
                    put_text(entry.name, &mut bytes);
                }
            }
            put_signed(entry.as_of_us.wrapping_sub(before_us), &mut bytes);
            before_us = entry.as_of_us;
            match entry.value {
                Datum::Null => bytes.push(kind::NULL),
                Datum::Bool(false) => bytes.push(kind::FALSE),
                Datum::Bool(true) => bytes.push(kind::TRUE),
                Datum::Int64(integer) => {
                    bytes.push(kind::INT64);
                    put_signed(integer, &mut bytes);
                }
                Datum::Float64(float) => {
                    bytes.push(kind::FLOAT64);
                    bytes.extend_from_slice(&float.to_le_bytes());
                }
                Datum::Text(text) => {
                    bytes.push(kind::TEXT);
                    put_text(text, &mut bytes);
                }
            }
        }
        Packed {
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// The features by name.
    pub fn entries<'a>(&'a self, view: &'a View) -> impl Iterator<Item = Entry<'a>> {
        let named = move |feature: Unpacked<'a>| {
            Some(Entry {
                name: match feature.name {
                    PackedName::Column(column) => &view.features().get(column)?.name,
                    PackedName::Other(name) => name,
                },
                as_of_us: feature.as_of_us,
                value: feature.value,
            })
        };
        self.unpack().filter_map(named)
    }

    /// The features as a reader gets them.
    pub fn profile(&self, view: &Arc<View>) -> Profile {
        if self.bytes.is_empty() {
            return Profile::default();
        }
        let mut profile = Profile::of(view, view.stored_features().len());
        for feature in self.unpack() {
            let stored = StoredValue {
                value: feature.value.to_value(),
                as_of_us: feature.as_of_us,
            };
            match feature.name {
                PackedName::Column(column) => profile.push_column(column as u32, stored),
                PackedName::Other(name) => profile.push_other(name, stored),
            }
        }
        profile
    }

    /// Bytes on the heap.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    fn unpack(&self) -> Unpack<'_> {
        Unpack {
            rest: &self.bytes,
            before_us: 0,
        }
    }
}

/// A feature as it is packed.
struct Unpacked<'a> {
    name: PackedName<'a>,
    as_of_us: i64,
    value: Datum<'a>,
}

enum PackedName<'a> {
    Column(usize),
    Other(&'a str),
}

/// Reads what [`Packed::pack`] wrote. It would end early, should the bytes be wrong.
struct Unpack<'a> {
    rest: &'a [u8],
    before_us: i64,
}

impl<'a> Iterator for Unpack<'a> {
    type Item = Unpacked<'a>;

    fn next(&mut self) -> Option<Unpacked<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let name = match usize::try_from(self.number()?).ok()?.checked_sub(1) {
            Some(column) => PackedName::Column(column),
            None => PackedName::Other(self.text()?),
        };
        let as_of_us = self.before_us.wrapping_add(self.signed()?);
        self.before_us = as_of_us;
        let value = match self.take(1)?[0] {
            kind::NULL => Datum::Null,
            kind::FALSE => Datum::Bool(false),
            kind::TRUE => Datum::Bool(true),
            kind::INT64 => Datum::Int64(self.signed()?),
            kind::FLOAT64 => Datum::Float64(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            kind::TEXT => Datum::Text(self.text()?),
            _ => return None,
        };
        Some(Unpacked {
            name,
            as_of_us,
            value,
        })
    }
}

impl<'a> Unpack<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        decode_varint(&mut self.rest).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

fn put_signed(number: i64, bytes: &mut Vec<u8>) {
    encode_varint(((number << 1) ^ (number >> 63)) as u64, bytes);
}

fn put_text(text: &str, bytes: &mut Vec<u8>) {
    encode_varint(text.len() as u64, bytes);
    bytes.extend_from_slice(text.as_bytes());
}
