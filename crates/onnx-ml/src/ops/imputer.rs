//! `Imputer`: replaces one value, usually NaN, by a constant of its column.
//!
//! As ONNX Runtime: NaN as replaced value matches every NaN; without the attribute the replaced
//! value is 0; one imputed value serves every column; beyond two dimensions the columns are counted
//! along the second. Beyond it: double and int32 input. Unlike it: a number of imputed values that is
//! neither 1 nor the number of columns is refused, where ONNX Runtime uses the first for all.

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{Data, DataType, Tensor};

use super::rows::column_count;

pub(crate) const OPERATORS: &[(&str, Build)] = &[("Imputer", imputer)];

/// The values for each type of elements, all made when the file is loaded.
#[derive(Debug)]
enum Imputer {
    Floats {
        narrow: Columns<f32>,
        wide: Columns<f64>,
    },
    Integers {
        wide: Columns<i64>,
        /// Unless some value does not fit.
        narrow: Option<Columns<i32>>,
    },
}

#[derive(Debug)]
struct Columns<T> {
    imputed: Vec<T>,
    replaced: T,
}

fn imputer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let floats = node.floats("imputed_value_floats")?.unwrap_or_default();
    let integers = node.ints("imputed_value_int64s")?.unwrap_or_default();
    let replaced_float = node.float("replaced_value_float")?.unwrap_or(0.0);
    let replaced_integer = node.int("replaced_value_int64")?.unwrap_or(0);
    if floats.is_empty() == integers.is_empty() {
        return Err(format!(
            "imputed_value_floats has {} values and imputed_value_int64s {}, expected values in \
             one of them",
            floats.len(),
            integers.len()
        ));
    }
    if integers.is_empty() {
        return Ok(Box::new(Imputer::Floats {
            narrow: Columns {
                imputed: floats.to_vec(),
                replaced: replaced_float,
            },
            wide: Columns {
                imputed: floats.iter().map(|x| f64::from(*x)).collect(),
                replaced: f64::from(replaced_float),
            },
        }));
    }
    let small: Result<Vec<i32>, _> = integers.iter().map(|x| i32::try_from(*x)).collect();
    let narrow = match (small, i32::try_from(replaced_integer)) {
        (Ok(imputed), Ok(replaced)) => Some(Columns { imputed, replaced }),
        _ => None,
    };
    Ok(Box::new(Imputer::Integers {
        wide: Columns {
            imputed: integers.to_vec(),
            replaced: replaced_integer,
        },
        narrow,
    }))
}

impl<T: Copy + PartialEq> Columns<T> {
    /// Replaces the elements that are the replaced value. A value that differs from itself is NaN.
    #[allow(clippy::eq_op)]
    fn impute(&self, elements: &mut [T], columns: usize) -> Result<(), OpError> {
        let found = self.imputed.len();
        if found != 1 && found != columns {
            return Err(OpError::Value(format!(
                "{found} imputed values for an input of {columns} columns, expected one each or a \
                 single one"
            )));
        }
        if self.replaced != self.replaced {
            self.replace(elements, |x| x != x);
        } else {
            self.replace(elements, |x| x == self.replaced);
        }
        Ok(())
    }

    fn replace(&self, elements: &mut [T], is_replaced: impl Fn(T) -> bool) {
        if let [imputed] = self.imputed[..] {
            for x in elements {
                *x = if is_replaced(*x) { imputed } else { *x };
            }
            return;
        }
        for row in elements.chunks_mut(self.imputed.len()) {
            for (x, imputed) in row.iter_mut().zip(&self.imputed) {
                *x = if is_replaced(*x) { *imputed } else { *x };
            }
        }
    }
}

impl Operator for Imputer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.take(0)?;
        let columns = column_count(&input)?;
        let shape = crate::tensor::Shape::from_slice(input.shape());
        let data_type = input.data_type();
        let mut data = input.into_data();
        match (self, &mut data) {
            (Imputer::Floats { narrow, .. }, Data::F32(elements)) => {
                narrow.impute(elements, columns)?;
            }
            (Imputer::Floats { wide, .. }, Data::F64(elements)) => {
                wide.impute(elements, columns)?;
            }
            (Imputer::Integers { wide, .. }, Data::I64(elements)) => {
                wide.impute(elements, columns)?;
            }
            (
                Imputer::Integers {
                    narrow: Some(narrow),
                    ..
                },
                Data::I32(elements),
            ) => narrow.impute(elements, columns)?,
            _ => return Err(self.refusal(data_type)),
        }
        one(Tensor::from_data(&shape, data)?)
    }
}

impl Imputer {
    fn refusal(&self, found: DataType) -> OpError {
        match self {
            Imputer::Floats { .. } => OpError::data_type(
                0,
                found,
                "float or double, as the values are in imputed_value_floats",
            ),
            Imputer::Integers { .. } if found == DataType::I32 => OpError::Type(
                "the input is int32, and a value in imputed_value_int64s or replaced_value_int64 \
                 does not fit that"
                    .to_string(),
            ),
            Imputer::Integers { .. } => OpError::data_type(
                0,
                found,
                "int64 or int32, as the values are in imputed_value_int64s",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{floats, int, ints, model, refusal};
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn a_value_that_int32_cannot_hold_is_refused_for_int32_only() {
        let attributes = || {
            vec![
                ints("imputed_value_int64s", &[1 << 40]),
                int("replaced_value_int64", 0),
            ]
        };
        let reason = refusal("Imputer", attributes(), &[DataType::I32]);
        assert!(reason.contains("does not fit"), "{reason}");
        let model = model("Imputer", attributes(), &[DataType::I64]).unwrap();
        let imputed = model.run(vec![Tensor::vector(vec![0_i64, 3])]).unwrap();
        assert_eq!(imputed[0], Tensor::vector(vec![1_i64 << 40, 3]));
    }

    #[test]
    fn a_number_of_values_that_is_not_that_of_the_columns_is_an_error() {
        let attributes = vec![floats("imputed_value_floats", &[1.0, 2.0])];
        let model = model("Imputer", attributes, &[DataType::F64]).unwrap();
        let error = model.run(vec![Tensor::vector(vec![0.0, 1.0, 2.0])]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("2 imputed values"), "{error}");
        let imputed = model.run(vec![Tensor::vector(vec![0.0, 0.0])]).unwrap();
        assert_eq!(imputed[0], Tensor::vector(vec![1.0, 2.0]));
    }
}
