//! An entity as the bytes that a store keeps: a protobuf message, read and written without a detour over
//! an allocation for every name.
//!
//! ```proto
//! message Entity {
//!   repeated Feature features = 1;  // by name
//!   bytes windows = 2;
//!   uint64 applied = 3;
//! }
//! message Feature {
//!   string name = 1;
//!   sint64 as_of_us = 2;
//!   oneof value { bool flag = 3; sint64 integer = 4; double number = 5; string text = 6; }
//! }
//! ```
//!
//! Field numbers are the format: never reuse one. Fields of later releases are passed over.

use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, encode_key, encode_varint,
    skip_field,
};

use super::packed::{Datum, Entry};

/// What was read, or what is wrong with the bytes.
type Read<T> = Result<T, String>;

/// Room for so many features is made at once.
const USUAL_FEATURES: usize = 16;

/// What a row says of an entity.
#[derive(Debug, Default, PartialEq)]
pub struct Row<'a> {
    /// By name, each once.
    pub features: Vec<Entry<'a>>,
    pub windows: &'a [u8],
    /// The number of the last change that was applied.
    pub applied: u64,
}

impl<'a> Row<'a> {
    /// Reads a row.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(mut bytes: &'a [u8]) -> Read<Row<'a>> {
        let mut row = Row {
            features: Vec::with_capacity(USUAL_FEATURES),
            ..Row::default()
        };
        let rest = &mut bytes;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(rest).map_err(told)?;
            match tag {
                1 => {
                    let feature = take(wire_type, rest)?;
                    row.features.push(read_feature(feature)?);
                }
                2 => row.windows = take(wire_type, rest)?,
                3 => row.applied = varint(wire_type, rest)?,
                _ => skip(wire_type, tag, rest)?,
            }
        }
        let sorted = row.features.is_sorted_by(|a, b| a.name < b.name);
        if !sorted {
            // Never written so. What comes last holds, as always in this encoding.
            row.features.reverse();
            row.features.sort_by_key(|feature| feature.name);
            row.features.dedup_by_key(|feature| feature.name);
        }
        Ok(row)
    }

    /// The bytes of a row.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 * self.features.len() + self.windows.len() + 16);
        let mut body = Vec::with_capacity(64);
        for feature in &self.features {
            body.clear();
            write_feature(feature, &mut body);
            put(1, &body, &mut bytes);
        }
        if !self.windows.is_empty() {
            put(2, self.windows, &mut bytes);
        }
        if self.applied != 0 {
            encode_key(3, WireType::Varint, &mut bytes);
            encode_varint(self.applied, &mut bytes);
        }
        bytes
    }
}

fn read_feature(mut bytes: &[u8]) -> Read<Entry<'_>> {
    let mut feature = Entry {
        name: "",
        as_of_us: 0,
        value: Datum::Null,
    };
    let rest = &mut bytes;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(rest).map_err(told)?;
        match tag {
            1 => feature.name = text(wire_type, rest)?,
            2 => feature.as_of_us = unzigzag(varint(wire_type, rest)?),
            3 => feature.value = Datum::Bool(varint(wire_type, rest)? != 0),
            4 => feature.value = Datum::Int64(unzigzag(varint(wire_type, rest)?)),
            5 => feature.value = Datum::Float64(double(wire_type, rest)?),
            6 => feature.value = Datum::Text(text(wire_type, rest)?),
            _ => skip(wire_type, tag, rest)?,
        }
    }
    Ok(feature)
}

fn write_feature(feature: &Entry<'_>, bytes: &mut Vec<u8>) {
    if !feature.name.is_empty() {
        put(1, feature.name.as_bytes(), bytes);
    }
    if feature.as_of_us != 0 {
        encode_key(2, WireType::Varint, bytes);
        encode_varint(zigzag(feature.as_of_us), bytes);
    }
    match feature.value {
        Datum::Null => {}
        Datum::Bool(flag) => {
            encode_key(3, WireType::Varint, bytes);
            encode_varint(u64::from(flag), bytes);
        }
        Datum::Int64(integer) => {
            encode_key(4, WireType::Varint, bytes);
            encode_varint(zigzag(integer), bytes);
        }
        Datum::Float64(float) => {
            encode_key(5, WireType::SixtyFourBit, bytes);
            bytes.extend_from_slice(&float.to_le_bytes());
        }
        Datum::Text(text) => put(6, text.as_bytes(), bytes),
    }
}

/// Writes a field that is led by its length.
fn put(tag: u32, content: &[u8], bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(content.len() as u64, bytes);
    bytes.extend_from_slice(content);
}

/// Reads a field that is led by its length.
fn take<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Read<&'a [u8]> {
    check_wire_type(WireType::LengthDelimited, wire_type).map_err(told)?;
    let length = decode_varint(rest).map_err(told)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let Some((taken, after)) = rest.split_at_checked(length) else {
        return Err("a field ends after the row".to_owned());
    };
    *rest = after;
    Ok(taken)
}

fn text<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Read<&'a str> {
    let bytes = take(wire_type, rest)?;
    std::str::from_utf8(bytes).map_err(|_| "a name or text is not UTF-8".to_owned())
}

fn varint(wire_type: WireType, rest: &mut &[u8]) -> Read<u64> {
    check_wire_type(WireType::Varint, wire_type).map_err(told)?;
    decode_varint(rest).map_err(told)
}

fn double(wire_type: WireType, rest: &mut &[u8]) -> Read<f64> {
    check_wire_type(WireType::SixtyFourBit, wire_type).map_err(told)?;
    let Some((number, after)) = rest.split_first_chunk() else {
        return Err("a number ends after its feature".to_owned());
    };
    *rest = after;
    Ok(f64::from_le_bytes(*number))
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Passes over a field of a later release.
fn skip(wire_type: WireType, tag: u32, rest: &mut &[u8]) -> Read<()> {
    skip_field(wire_type, tag, rest, DecodeContext::default()).map_err(told)
}

fn told(error: prost::DecodeError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::features::change::Scalar;

    /// The same message as prost derives it.
    #[derive(Clone, PartialEq, Message)]
    struct EntityMessage {
        #[prost(message, repeated, tag = "1")]
        features: Vec<FeatureMessage>,
        #[prost(bytes = "vec", tag = "2")]
        windows: Vec<u8>,
        #[prost(uint64, tag = "3")]
        applied: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct FeatureMessage {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(sint64, tag = "2")]
        as_of_us: i64,
        #[prost(oneof = "Scalar", tags = "3, 4, 5, 6")]
        value: Option<Scalar>,
    }

    impl EntityMessage {
        /// As a row has it: sorted, the last of a name.
        fn row(&self) -> Row<'_> {
            let by_name: std::collections::BTreeMap<&str, Entry<'_>> = self
                .features
                .iter()
                .map(|feature| {
                    let entry = Entry {
                        name: &feature.name,
                        as_of_us: feature.as_of_us,
                        value: Datum::of(feature.value.as_ref()),
                    };
                    (entry.name, entry)
                })
                .collect();
            Row {
                features: by_name.into_values().collect(),
                windows: &self.windows,
                applied: self.applied,
            }
        }
    }

    fn any_scalar() -> impl Strategy<Value = Option<Scalar>> {
        prop_oneof![
            Just(None),
            any::<bool>().prop_map(|flag| Some(Scalar::Bool(flag))),
            any::<i64>().prop_map(|integer| Some(Scalar::Int64(integer))),
            any::<f64>().prop_map(|float| Some(Scalar::Float64(float))),
            any::<String>().prop_map(|text| Some(Scalar::String(text))),
        ]
    }

    fn any_message() -> impl Strategy<Value = EntityMessage> {
        let feature = ("[a-e]{0,2}", any::<i64>(), any_scalar());
        let feature = feature.prop_map(|(name, as_of_us, value)| FeatureMessage {
            name,
            as_of_us,
            value,
        });
        let features = prop::collection::vec(feature, 0..8);
        (features, any::<Vec<u8>>(), any::<u64>()).prop_map(|(features, windows, applied)| {
            EntityMessage {
                features,
                windows,
                applied,
            }
        })
    }

    /// Equal also where a number is none.
    fn text_of(row: &Row<'_>) -> String {
        format!("{row:?}")
    }

    proptest! {
        #[test]
        fn rows_are_read_as_the_derived_message_reads_them(message in any_message()) {
            let bytes = message.encode_to_vec();
            prop_assert_eq!(text_of(&Row::read(&bytes).unwrap()), text_of(&message.row()));
        }

        #[test]
        fn rows_are_written_as_the_derived_message_writes_them(mut message in any_message()) {
            message.features.sort_by(|a, b| a.name.cmp(&b.name));
            message.features.dedup_by(|a, b| a.name == b.name);
            prop_assert_eq!(message.row().write(), message.encode_to_vec());
        }

        #[test]
        fn damaged_rows_are_refused_where_the_derived_message_refuses_them(
            message in any_message(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut: prop::sample::Index,
        ) {
            let mut bytes = message.encode_to_vec();
            if bytes.is_empty() {
                return Ok(());
            }
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len()) / 4);
            match (Row::read(&bytes), EntityMessage::decode(&bytes[..])) {
                (Ok(row), Ok(message)) => prop_assert_eq!(text_of(&row), text_of(&message.row())),
                (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(false, "{:?} and {:?}", ours, theirs),
            }
        }
    }
}
