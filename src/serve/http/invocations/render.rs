//! Outputs of a graph as MLflow's predictions.

use onnx_ml::{Data, Tensor};
use serde::ser::{Error, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::infer::error::InferError;
use crate::models::version::ModelVersion;

/// The body of the answer. `rows` is how many the inputs had.
///
/// # Errors
/// When the answer cannot be written.
pub fn predictions(
    model: &ModelVersion,
    rows: Option<usize>,
    outputs: &[Tensor],
) -> Result<Vec<u8>, InferError> {
    let infos = model.graph.outputs();
    let named: Vec<(&str, &Tensor)> = infos
        .iter()
        .map(|info| info.name.as_str())
        .zip(outputs)
        .collect();
    let answer = Answer {
        predictions: Predictions { rows, named },
    };
    serde_json::to_vec(&answer).map_err(|error| InferError::internal(error.to_string()))
}

#[derive(Serialize)]
struct Answer<'a> {
    predictions: Predictions<'a>,
}

struct Predictions<'a> {
    rows: Option<usize>,
    named: Vec<(&'a str, &'a Tensor)>,
}

impl Serialize for Predictions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let has_row =
            |tensor: &Tensor| self.rows.is_some() && tensor.shape().first() == self.rows.as_ref();
        match self.named.as_slice() {
            // Not a table: whole outputs, as they are.
            [(_, only)] if !has_row(only) => Values::all(only).serialize(serializer),
            named if !named.iter().all(|(_, tensor)| has_row(tensor)) => serializer.collect_map(
                named
                    .iter()
                    .map(|(name, tensor)| (name, Values::all(tensor))),
            ),
            named => {
                let rows = self.rows.unwrap_or_default();
                let mut entries = serializer.serialize_seq(Some(rows))?;
                for row in 0..rows {
                    match named {
                        [(_, only)] => entries.serialize_element(&Values::row(only, row))?,
                        _ => entries.serialize_element(&Record { named, row })?,
                    }
                }
                entries.end()
            }
        }
    }
}

/// One row of several outputs.
struct Record<'a> {
    named: &'a [(&'a str, &'a Tensor)],
    row: usize,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_map(Some(self.named.len()))?;
        for (name, tensor) in self.named {
            record.serialize_entry(name, &Values::row(tensor, self.row))?;
        }
        record.end()
    }
}

/// Values of a tensor from `start` on that fill `shape`, nested as it says.
struct Values<'a> {
    data: &'a Data,
    shape: &'a [usize],
    start: usize,
}

impl<'a> Values<'a> {
    fn all(tensor: &'a Tensor) -> Values<'a> {
        Values {
            data: tensor.data(),
            shape: tensor.shape(),
            start: 0,
        }
    }

    /// One row: the value itself where a row has one.
    fn row(tensor: &'a Tensor, row: usize) -> Values<'a> {
        let shape = tensor.shape().get(1..).unwrap_or_default();
        let width: usize = shape.iter().product();
        Values {
            data: tensor.data(),
            shape: if width == 1 { &[] } else { shape },
            start: row * width,
        }
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((length, inner)) = self.shape.split_first() else {
            return write_element(self.data, self.start, serializer);
        };
        let step: usize = inner.iter().product();
        let mut values = serializer.serialize_seq(Some(*length))?;
        for place in 0..*length {
            values.serialize_element(&Values {
                data: self.data,
                shape: inner,
                start: self.start + place * step,
            })?;
        }
        values.end()
    }
}

/// Numbers as the float64 they are exactly; NaN and infinities are null.
fn write_element<S: Serializer>(
    data: &Data,
    place: usize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    fn at<T, E: Error>(values: &[T], place: usize) -> Result<&T, E> {
        let missing = || E::custom("an output has fewer elements than its shape says");
        values.get(place).ok_or_else(missing)
    }
    match data {
        Data::Bool(values) => serializer.serialize_bool(*at(values, place)?),
        Data::U8(values) => serializer.serialize_u8(*at(values, place)?),
        Data::U16(values) => serializer.serialize_u16(*at(values, place)?),
        Data::U32(values) => serializer.serialize_u32(*at(values, place)?),
        Data::U64(values) => serializer.serialize_u64(*at(values, place)?),
        Data::I8(values) => serializer.serialize_i8(*at(values, place)?),
        Data::I16(values) => serializer.serialize_i16(*at(values, place)?),
        Data::I32(values) => serializer.serialize_i32(*at(values, place)?),
        Data::I64(values) => serializer.serialize_i64(*at(values, place)?),
        Data::F16(values) => serializer.serialize_f64(at(values, place)?.to_f64()),
        Data::F32(values) => serializer.serialize_f64(f64::from(*at(values, place)?)),
        Data::F64(values) => serializer.serialize_f64(*at(values, place)?),
        Data::String(values) => serializer.serialize_str(at(values, place)?.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use onnx_ml::CompactString;

    use super::*;

    fn rendered(rows: Option<usize>, named: Vec<(&str, &Tensor)>) -> String {
        serde_json::to_string(&Predictions { rows, named }).unwrap()
    }

    #[test]
    fn one_output_is_a_list_of_its_rows() {
        let label = Tensor::vector(vec![CompactString::from("yes"), CompactString::from("no")]);
        assert_eq!(
            rendered(Some(2), vec![("label", &label)]),
            r#"["yes","no"]"#
        );
        let column = Tensor::new(&[2, 1], vec![0.5_f32, f32::NAN]).unwrap();
        assert_eq!(rendered(Some(2), vec![("score", &column)]), "[0.5,null]");
        let matrix = Tensor::new(&[2, 2], vec![1_i64, 2, 3, 4]).unwrap();
        assert_eq!(rendered(Some(2), vec![("m", &matrix)]), "[[1,2],[3,4]]");
        let cube = Tensor::new(&[1, 2, 1], vec![true, false]).unwrap();
        assert_eq!(rendered(Some(1), vec![("c", &cube)]), "[[[true],[false]]]");
    }

    #[test]
    fn several_outputs_are_a_record_for_each_row() {
        let label = Tensor::vector(vec![0_i64, 1]);
        let probabilities = Tensor::new(&[2, 2], vec![0.75_f32, 0.25, 0.5, 0.5]).unwrap();
        assert_eq!(
            rendered(
                Some(2),
                vec![("label", &label), ("probabilities", &probabilities)]
            ),
            r#"[{"label":0,"probabilities":[0.75,0.25]},{"label":1,"probabilities":[0.5,0.5]}]"#
        );
        let none = Tensor::new(&[0, 2], Vec::<f32>::new()).unwrap();
        assert_eq!(rendered(Some(0), vec![("a", &none), ("b", &none)]), "[]");
    }

    #[test]
    fn what_has_no_rows_is_given_whole() {
        let total = Tensor::scalar(3_i64);
        let rows = Tensor::vector(vec![1_i64, 2]);
        assert_eq!(rendered(Some(2), vec![("total", &total)]), "3");
        assert_eq!(
            rendered(Some(2), vec![("total", &total), ("rows", &rows)]),
            r#"{"total":3,"rows":[1,2]}"#
        );
        assert_eq!(rendered(None, vec![("rows", &rows)]), "[1,2]");
    }
}
