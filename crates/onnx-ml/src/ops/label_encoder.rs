//! `LabelEncoder` and `CategoryMapper`: one value for another.
//!
//! As ONNX Runtime: of equal keys the first counts (in `CategoryMapper` and the first version of
//! `LabelEncoder` the last); -0 and 0 are the same key; every NaN is the same key from version 4 on,
//! and before that NaN is never found. Of the defaults, `default_float`, `default_int64` and
//! `default_string` count for values of exactly these types, others have `default_tensor`, or -1 and
//! -0. Beyond it: every pair of types that the specification has.

use compact_str::CompactString;
use smallvec::SmallVec;

use super::lookup::{IntegerLookup, NumberLookup, Repeated};
use super::text_lookup::TextLookup;
use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one};
use crate::tensor::{Data, DataType, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("LabelEncoder", label_encoder),
    ("CategoryMapper", category_mapper),
];

/// Where each key is among the values.
#[derive(Debug)]
enum Keys {
    Strings(TextLookup),
    Integers(IntegerLookup),
    /// By [`float_key`].
    Floats(NumberLookup<u64>),
}

/// Keys of one type and the values for them.
#[derive(Debug)]
struct Encoder {
    key_type: DataType,
    keys: Keys,
    /// One more than there are keys: the last is for what is not found.
    values: Data,
}

/// Bits that are equal for numbers that are the same key.
fn float_key(number: f64) -> u64 {
    if number.is_nan() {
        f64::NAN.to_bits()
    } else if number == 0.0 {
        0
    } else {
        number.to_bits()
    }
}

fn numbered<T, K>(keys: &[T], convert: impl Fn(&T) -> K) -> impl Iterator<Item = (K, usize)> {
    keys.iter()
        .enumerate()
        .map(move |(place, key)| (convert(key), place))
}

impl Encoder {
    fn new(
        keys: &Data,
        mut values: Data,
        default: Data,
        repeated: Repeated,
        nan_is_key: bool,
    ) -> Result<Encoder, String> {
        if keys.len() != values.len() {
            return Err(format!(
                "{} keys and {} values, expected one for each",
                keys.len(),
                values.len()
            ));
        }
        append(&mut values, default)?;
        let integers =
            |keys: Vec<(i64, usize)>| Keys::Integers(IntegerLookup::new(&keys, repeated));
        let floats = |mut keys: Vec<(u64, usize)>| {
            keys.retain(|(key, _)| nan_is_key || *key != float_key(f64::NAN));
            Keys::Floats(NumberLookup::new(keys, repeated))
        };
        let key_type = keys.data_type();
        let keys = match keys {
            Data::String(keys) => Keys::Strings(TextLookup::new(
                numbered(keys, CompactString::clone),
                repeated,
            )),
            Data::I64(keys) => integers(numbered(keys, |key| *key).collect()),
            Data::I32(keys) => integers(numbered(keys, |key| i64::from(*key)).collect()),
            Data::I16(keys) => integers(numbered(keys, |key| i64::from(*key)).collect()),
            Data::F32(keys) => floats(numbered(keys, |key| float_key(f64::from(*key))).collect()),
            Data::F64(keys) => floats(numbered(keys, |key| float_key(*key)).collect()),
            _ => return Err(format!("keys cannot be of type {key_type}")),
        };
        Ok(Encoder {
            key_type,
            keys,
            values,
        })
    }

    /// The value for each element.
    fn encode(&self, input: &Tensor, context: &Context<'_>) -> Result<Tensor, OpError> {
        let mut places: SmallVec<[usize; 16]> = SmallVec::new();
        let absent = self.values.len().saturating_sub(1);
        match (&self.keys, input.data()) {
            (Keys::Strings(keys), Data::String(elements)) => {
                places.extend(elements.iter().map(|x| keys.find(x).unwrap_or(absent)));
            }
            (Keys::Integers(keys), Data::I64(elements)) => {
                places.extend(elements.iter().map(|x| keys.find(*x).unwrap_or(absent)));
            }
            (Keys::Integers(keys), Data::I32(elements)) => {
                let find = |x: &i32| keys.find(i64::from(*x)).unwrap_or(absent);
                places.extend(elements.iter().map(find));
            }
            (Keys::Integers(keys), Data::I16(elements)) => {
                let find = |x: &i16| keys.find(i64::from(*x)).unwrap_or(absent);
                places.extend(elements.iter().map(find));
            }
            (Keys::Floats(keys), Data::F32(elements)) => {
                let find = |x: &f32| keys.find(&float_key(f64::from(*x))).unwrap_or(absent);
                places.extend(elements.iter().map(find));
            }
            (Keys::Floats(keys), Data::F64(elements)) => {
                let find = |x: &f64| keys.find(&float_key(*x)).unwrap_or(absent);
                places.extend(elements.iter().map(find));
            }
            _ => {}
        }
        // A long text may stand for many keys.
        let mut bytes = (places.len() * self.values.data_type().size()) as u64;
        if let Data::String(texts) = &self.values {
            let long = places.iter().filter_map(|place| texts.get(*place));
            let long = long.filter(|text| text.is_heap_allocated());
            bytes += long.map(|text| text.len() as u64).sum::<u64>();
        }
        context.reserve_bytes(bytes)?;
        with_data!(&self.values, values => {
            let mut encoded = Vec::with_capacity(places.len());
            for place in places {
                // Places are those of values, whatever the keys are.
                encoded.extend(values.get(place).cloned());
            }
            Ok(Tensor::new(input.shape(), encoded)?)
        })
    }
}

/// Appends the only element of `last`.
fn append(values: &mut Data, last: Data) -> Result<(), String> {
    let (found, expected) = (last.data_type(), values.data_type());
    match (values, last) {
        (Data::String(values), Data::String(last)) => values.extend(last),
        (Data::I64(values), Data::I64(last)) => values.extend(last),
        (Data::I32(values), Data::I32(last)) => values.extend(last),
        (Data::I16(values), Data::I16(last)) => values.extend(last),
        (Data::F32(values), Data::F32(last)) => values.extend(last),
        (Data::F64(values), Data::F64(last)) => values.extend(last),
        _ => {
            return Err(format!(
                "values of type {expected} with a default of type {found} are not supported"
            ));
        }
    }
    Ok(())
}

/// Encoders, one per element type that the operator takes.
#[derive(Debug)]
struct LabelEncoder {
    encoders: SmallVec<[Encoder; 2]>,
}

impl Operator for LabelEncoder {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        for encoder in &self.encoders {
            if encoder.key_type == input.data_type() {
                args.context
                    .reserve(input.len(), encoder.values.data_type())?;
                return one(encoder.encode(input, args.context)?);
            }
        }
        let types: Vec<&str> = self.encoders.iter().map(|e| e.key_type.name()).collect();
        Err(OpError::data_type(
            0,
            input.data_type(),
            &types.join(" or "),
        ))
    }
}

fn texts(values: Vec<&str>) -> Data {
    Data::String(values.into_iter().map(CompactString::from).collect())
}

fn label_encoder(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    if node.version < 2 {
        let classes = node.strings("classes_strings")?.unwrap_or_default();
        let places = (0_i64..).take(classes.len()).collect();
        return both_ways(node, classes, places);
    }
    let keys = attribute(node, "keys")?;
    let values = attribute(node, "values")?;
    let default = default(node, values.data_type())?;
    Ok(Box::new(LabelEncoder {
        encoders: SmallVec::from_iter([Encoder::new(
            &keys,
            values,
            default,
            Repeated::First,
            node.version >= 4,
        )?]),
    }))
}

fn category_mapper(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let strings = node.strings("cats_strings")?.unwrap_or_default();
    let integers = node.ints("cats_int64s")?.unwrap_or_default();
    both_ways(node, strings, integers.to_vec())
}

/// Strings become integers, and integers strings.
fn both_ways(
    node: &Node<'_>,
    strings: Vec<&str>,
    integers: Vec<i64>,
) -> Result<Box<dyn Operator>, String> {
    let default_string = node.string("default_string")?.unwrap_or("_Unused");
    let default_integer = node.int("default_int64")?.unwrap_or(-1);
    let strings = texts(strings);
    let integers = Data::I64(integers);
    let to_integers = Encoder::new(
        &strings,
        integers.clone(),
        Data::I64(vec![default_integer]),
        Repeated::Last,
        true,
    )?;
    let to_strings = Encoder::new(
        &integers,
        strings,
        texts(vec![default_string]),
        Repeated::Last,
        true,
    )?;
    Ok(Box::new(LabelEncoder {
        encoders: SmallVec::from_iter([to_integers, to_strings]),
    }))
}

/// The only one of `<role>_strings`, `<role>_int64s`, `<role>_floats` and `<role>_tensor`.
fn attribute(node: &Node<'_>, role: &str) -> Result<Data, String> {
    let mut found = Vec::new();
    if let Some(values) = node.strings(&format!("{role}_strings"))? {
        found.push(texts(values));
    }
    if let Some(values) = node.ints(&format!("{role}_int64s"))? {
        found.push(Data::I64(values.to_vec()));
    }
    if let Some(values) = node.floats(&format!("{role}_floats"))? {
        found.push(Data::F32(values.to_vec()));
    }
    if node.version >= 4
        && let Some(tensor) = node.tensor(&format!("{role}_tensor"))?
    {
        found.push(tensor.into_data());
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(values), 1) => Ok(values),
        _ => Err(format!(
            "it has {count} attributes with {role}, expected one"
        )),
    }
}

/// The value for keys that are not found.
fn default(node: &Node<'_>, value_type: DataType) -> Result<Data, String> {
    let string = node.string("default_string")?.unwrap_or("_Unused");
    let integer = node.int("default_int64")?.unwrap_or(-1);
    let float = node.float("default_float")?.unwrap_or(-0.0);
    if node.version >= 4
        && let Some(tensor) = node.tensor("default_tensor")?
    {
        if tensor.len() != 1 {
            return Err(format!(
                "default_tensor has {} elements, expected one",
                tensor.len()
            ));
        }
        return Ok(tensor.into_data());
    }
    match value_type {
        DataType::String => Ok(texts(vec![string])),
        DataType::I64 => Ok(Data::I64(vec![integer])),
        DataType::I32 => Ok(Data::I32(vec![-1])),
        DataType::I16 => Ok(Data::I16(vec![-1])),
        DataType::F32 => Ok(Data::F32(vec![float])),
        DataType::F64 => Ok(Data::F64(vec![-0.0])),
        other => Err(format!("values cannot be of type {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{floats, ints, model, refusal, strings};
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn category_mapper_works_both_ways() {
        let attributes = || {
            vec![
                strings("cats_strings", &["a", "b"]),
                ints("cats_int64s", &[7, 9]),
            ]
        };
        let to_strings = model("CategoryMapper", attributes(), &[DataType::I64]).unwrap();
        let texts = to_strings
            .run(vec![Tensor::vector(vec![9_i64, 8])])
            .unwrap();
        let expected = ["b", "_Unused"].map(compact_str::CompactString::from);
        assert_eq!(texts[0], Tensor::vector(expected.to_vec()));
        let to_integers = model("CategoryMapper", attributes(), &[DataType::String]).unwrap();
        let numbers = to_integers.run(texts).unwrap();
        assert_eq!(numbers[0], Tensor::vector(vec![9_i64, -1]));
    }

    #[test]
    fn other_than_one_value_for_each_key_is_refused() {
        let attributes = vec![
            strings("keys_strings", &["a", "b"]),
            ints("values_int64s", &[1]),
        ];
        let reason = refusal("LabelEncoder", attributes, &[DataType::String]);
        assert!(reason.contains("2 keys and 1 values"), "{reason}");
        let attributes = vec![
            strings("keys_strings", &["a"]),
            floats("keys_floats", &[1.0]),
            ints("values_int64s", &[1]),
        ];
        let reason = refusal("LabelEncoder", attributes, &[DataType::String]);
        assert!(reason.contains("2 attributes with keys"), "{reason}");
    }

    #[test]
    fn an_input_of_another_type_than_the_keys_is_refused() {
        let attributes = vec![strings("keys_strings", &["a"]), ints("values_int64s", &[1])];
        let reason = refusal("LabelEncoder", attributes, &[DataType::F32]);
        assert!(reason.contains("expected string"), "{reason}");
    }
}
