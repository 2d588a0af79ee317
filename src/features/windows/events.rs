//! What a batch of events says to the windows: their properties read from JSON, and every condition,
//! value and group evaluated, column by column.
//!
//! Properties are read once per event, and only those that some expression needs. One that is
//! missing, of another type than it is read as, an array or an object is null; so are all of an
//! event whose properties are no JSON object.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use xxhash_rust::xxh3::xxh3_64;

use super::evaluate::{Column, Evaluation, text_of_flag, text_of_number};
use super::infer::Reading;
use crate::features::change::Event;

/// How events of one name are read.
#[derive(Debug, Default)]
pub struct Reader {
    pub event: String,
    properties: Vec<String>,
    /// The columns that expressions read: which property, and as what.
    columns: Vec<(usize, Reading)>,
    /// Every expression with the columns it reads.
    evaluations: Vec<(Evaluation, Vec<usize>)>,
}

/// An event of a batch.
#[derive(Debug)]
pub struct Row {
    pub time_us: i64,
    pub id_hash: u64,
    /// Its reader and its row there; none when nothing listens to it.
    pub read: Option<(usize, usize)>,
}

impl Reader {
    pub fn new(event: &str) -> Reader {
        Reader {
            event: event.to_owned(),
            ..Reader::default()
        }
    }

    /// The number of the expression `sql` read as `wanted`, compiled when it is new.
    pub fn expression(&mut self, sql: &str, wanted: Reading) -> Result<usize, String> {
        let known = self
            .evaluations
            .iter()
            .position(|(evaluation, _)| evaluation.sql == sql && evaluation.wanted == wanted);
        if let Some(known) = known {
            return Ok(known);
        }
        let evaluation = Evaluation::compile(sql, wanted)?;
        let inputs = evaluation.inputs.iter();
        let columns = inputs
            .map(|(name, reading)| self.column(name, *reading))
            .collect();
        self.evaluations.push((evaluation, columns));
        Ok(self.evaluations.len() - 1)
    }

    fn column(&mut self, name: &str, reading: Reading) -> usize {
        let known = self.properties.iter().position(|known| known == name);
        let property = known.unwrap_or_else(|| {
            self.properties.push(name.to_owned());
            self.properties.len() - 1
        });
        let wanted = (property, reading);
        let known = self.columns.iter().position(|known| *known == wanted);
        known.unwrap_or_else(|| {
            self.columns.push(wanted);
            self.columns.len() - 1
        })
    }

    /// The results of all expressions on `events`, by their numbers.
    pub fn read(&self, events: &[&Event]) -> Vec<Column> {
        if self.evaluations.is_empty() {
            return Vec::new();
        }
        let rows = events.len();
        let mut builders: Vec<Builder> = self
            .columns
            .iter()
            .map(|(_, reading)| Builder::new(*reading, rows))
            .collect();
        let mut found: Vec<Scalar<'_>> = Vec::new();
        for event in events {
            found.clear();
            found.resize(self.properties.len(), Scalar::Null);
            if !self.properties.is_empty() && !self.find(&event.properties, &mut found) {
                found.fill(Scalar::Null);
            }
            for ((property, _), builder) in self.columns.iter().zip(&mut builders) {
                builder.push(&found[*property]);
            }
        }
        let columns: Vec<ArrayRef> = builders.iter_mut().map(Builder::finish).collect();
        let results = self.evaluations.iter().map(|(evaluation, inputs)| {
            let inputs = inputs.iter().map(|input| Arc::clone(&columns[*input]));
            evaluation.evaluate(inputs.collect(), rows)
        });
        results.collect()
    }

    /// Reads the properties from a JSON text; whether it is an object.
    fn find<'a>(&self, json: &'a str, found: &mut [Scalar<'a>]) -> bool {
        let mut reader = serde_json::Deserializer::from_str(json);
        let names = &self.properties;
        let whole = (&mut reader).deserialize_map(Object { names, found });
        whole.is_ok() && reader.end().is_ok()
    }
}

/// The hash of an event's id, by which events of the same time are told apart.
pub fn id_hash(event: &Event) -> u64 {
    xxh3_64(event.event_id.as_bytes())
}

/// A property's value as far as it is of use.
#[derive(Clone, Debug)]
enum Scalar<'a> {
    Null,
    Flag(bool),
    Integer(i64),
    /// Above the largest `i64`.
    Large(u64),
    Float(f64),
    Text(Cow<'a, str>),
}

enum Builder {
    Numbers(Float64Builder),
    Integers(Int64Builder),
    Flags(BooleanBuilder),
    Texts(StringBuilder),
    AnyTexts(StringBuilder),
}

impl Builder {
    fn new(reading: Reading, rows: usize) -> Builder {
        match reading {
            Reading::Number => Builder::Numbers(Float64Builder::with_capacity(rows)),
            Reading::Integer => Builder::Integers(Int64Builder::with_capacity(rows)),
            Reading::Flag => Builder::Flags(BooleanBuilder::with_capacity(rows)),
            Reading::Text => Builder::Texts(StringBuilder::with_capacity(rows, rows * 8)),
            Reading::AnyText => Builder::AnyTexts(StringBuilder::with_capacity(rows, rows * 8)),
        }
    }

    fn push(&mut self, scalar: &Scalar<'_>) {
        match self {
            Builder::Numbers(builder) => builder.append_option(match scalar {
                Scalar::Integer(integer) => Some(*integer as f64),
                Scalar::Large(integer) => Some(*integer as f64),
                Scalar::Float(float) => Some(*float),
                _ => None,
            }),
            Builder::Integers(builder) => builder.append_option(match scalar {
                Scalar::Integer(integer) => Some(*integer),
                Scalar::Float(float) => whole(*float),
                _ => None,
            }),
            Builder::Flags(builder) => builder.append_option(match scalar {
                Scalar::Flag(flag) => Some(*flag),
                _ => None,
            }),
            Builder::Texts(builder) => builder.append_option(match scalar {
                Scalar::Text(text) => Some(text.as_ref()),
                _ => None,
            }),
            Builder::AnyTexts(builder) => match scalar {
                Scalar::Null => builder.append_null(),
                Scalar::Flag(flag) => builder.append_value(text_of_flag(*flag)),
                Scalar::Integer(integer) => builder.append_value(integer.to_string()),
                Scalar::Large(integer) => builder.append_value(integer.to_string()),
                Scalar::Float(float) => builder.append_value(text_of_number(*float)),
                Scalar::Text(text) => builder.append_value(text),
            },
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Numbers(builder) => Arc::new(builder.finish()),
            Builder::Integers(builder) => Arc::new(builder.finish()),
            Builder::Flags(builder) => Arc::new(builder.finish()),
            Builder::Texts(builder) | Builder::AnyTexts(builder) => Arc::new(builder.finish()),
        }
    }
}

fn whole(float: f64) -> Option<i64> {
    // 2^63 is a float; everything below it converts as it is.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    (fits && float.fract() == 0.0).then_some(float as i64)
}

/// The object of an event's properties.
struct Object<'n, 'f, 'a> {
    names: &'n [String],
    found: &'f mut [Scalar<'a>],
}

impl<'de> Visitor<'de> for Object<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(wanted) = map.next_key_seed(Name(self.names))? {
            match wanted.and_then(|index| self.found.get_mut(index)) {
                Some(slot) => *slot = map.next_value_seed(AnyScalar)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A property's name: the number of the wanted one that it is.
struct Name<'n>(&'n [String]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted == name))
    }
}

struct AnyScalar;

impl<'de> DeserializeSeed<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(integer))
    }

    fn visit_u64<E>(self, integer: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(integer).map_or(Scalar::Large(integer), Scalar::Integer))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Null)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Null)
    }
}
