//! `OneHotEncoder`: each element becomes a row of zeros with a one at its category.
//!
//! As ONNX Runtime on x86-64: numbers are compared after cutting them to integers, where NaN and
//! what does not fit become the smallest one; of a category listed twice the last place counts; an
//! unknown category gives zeros, or an error when `zeros` is 0. Beyond it: int32 input, which the
//! specification has. Unlike it: a file whose categories are strings while its input is a number (or
//! the reverse) is refused, since nothing could ever match.

use compact_str::CompactString;

use super::lookup::{IntegerLookup, Repeated};
use super::text_lookup::TextLookup;
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{Data, DataType, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[("OneHotEncoder", one_hot_encoder)];

#[derive(Debug)]
enum Categories {
    Strings(TextLookup),
    Integers(IntegerLookup),
}

#[derive(Debug)]
pub(crate) struct OneHotEncoder {
    categories: Categories,
    /// How many categories the file lists, those listed twice counted twice.
    pub width: usize,
    pub unknown_is_zeros: bool,
}

fn one_hot_encoder(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let strings = node.strings("cats_strings")?.unwrap_or_default();
    let integers = node.ints("cats_int64s")?.unwrap_or_default();
    let unknown_is_zeros = node.flag("zeros", true)?;
    if strings.is_empty() == integers.is_empty() {
        return Err(format!(
            "cats_strings lists {} categories and cats_int64s {}, expected categories in one of \
             them",
            strings.len(),
            integers.len()
        ));
    }
    let width = strings.len() + integers.len();
    let categories = if integers.is_empty() {
        let places = strings.into_iter().map(CompactString::from).zip(0..);
        Categories::Strings(TextLookup::new(places, Repeated::Last))
    } else {
        let places: Vec<(i64, usize)> = integers.iter().copied().zip(0..).collect();
        Categories::Integers(IntegerLookup::new(&places, Repeated::Last))
    };
    Ok(Box::new(OneHotEncoder {
        categories,
        width,
        unknown_is_zeros,
    }))
}

/// Cuts the fraction off; NaN and what does not fit become the smallest integer, as the conversion
/// instruction of x86-64 has it. (Rust's `as` would make 0 of NaN, which is a category like any
/// other, and clamp the rest.)
fn truncate(value: f64) -> i64 {
    // -2^63 fits and 2^63 does not; both are exact in float64.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

impl OneHotEncoder {
    /// The places of the categories, if they are texts.
    pub fn texts(&self) -> Option<&TextLookup> {
        match &self.categories {
            Categories::Strings(places) => Some(places),
            Categories::Integers(_) => None,
        }
    }

    /// Sets the ones for every element; `place` finds an element's category.
    fn encode<T: std::fmt::Debug>(
        &self,
        elements: &[T],
        shape: &[usize],
        place: impl Fn(&T) -> Option<usize>,
    ) -> Result<Tensor, OpError> {
        let mut shape = Shape::from_slice(shape);
        shape.push(self.width);
        let mut cells = vec![0.0_f32; elements.len().saturating_mul(self.width)];
        for (index, (element, row)) in elements
            .iter()
            .zip(cells.chunks_exact_mut(self.width))
            .enumerate()
        {
            match place(element).and_then(|category| row.get_mut(category)) {
                Some(cell) => *cell = 1.0,
                None if self.unknown_is_zeros => {}
                None => {
                    return Err(OpError::Value(format!(
                        "unknown category {element:?} at element {index}, and the attribute \
                         `zeros` is 0, which forbids unknown categories"
                    )));
                }
            }
        }
        Ok(Tensor::new(&shape, cells)?)
    }
}

impl Operator for OneHotEncoder {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        let shape = input.shape();
        args.context
            .reserve(input.len().saturating_mul(self.width), DataType::F32)?;
        one(match (&self.categories, input.data()) {
            (Categories::Strings(places), Data::String(elements)) => {
                self.encode(elements, shape, |x| places.find(x))?
            }
            (Categories::Integers(places), Data::I64(elements)) => {
                self.encode(elements, shape, |x| places.find(*x))?
            }
            (Categories::Integers(places), Data::I32(elements)) => {
                self.encode(elements, shape, |x| places.find(i64::from(*x)))?
            }
            (Categories::Integers(places), Data::F32(elements)) => {
                self.encode(elements, shape, |x| places.find(truncate(f64::from(*x))))?
            }
            (Categories::Integers(places), Data::F64(elements)) => {
                self.encode(elements, shape, |x| places.find(truncate(*x)))?
            }
            (Categories::Strings(_), other) => {
                return Err(OpError::data_type(
                    0,
                    other.data_type(),
                    "string, as cats_strings is",
                ));
            }
            (Categories::Integers(_), other) => {
                return Err(OpError::data_type(
                    0,
                    other.data_type(),
                    "int64, int32, float or double, to compare with cats_int64s",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{int, ints, model, refusal, strings};
    use super::truncate;
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn unknown_categories_are_named_when_they_are_forbidden() {
        let attributes = vec![ints("cats_int64s", &[0, 1]), int("zeros", 0)];
        let model = model("OneHotEncoder", attributes, &[DataType::I32]).unwrap();
        let known = model.run(vec![Tensor::vector(vec![1, 0])]).unwrap();
        let expected = Tensor::new(&[2, 2], vec![0.0_f32, 1.0, 1.0, 0.0]).unwrap();
        assert_eq!(known[0], expected);
        let unknown = model.run(vec![Tensor::vector(vec![1, 7])]).unwrap_err();
        assert!(unknown.to_string().contains("category 7"), "{unknown}");
    }

    #[test]
    fn categories_that_could_never_match_are_refused() {
        let attributes = vec![strings("cats_strings", &["a"])];
        let reason = refusal("OneHotEncoder", attributes, &[DataType::F32]);
        assert!(reason.contains("cats_strings"), "{reason}");
    }

    #[test]
    fn numbers_are_cut_as_the_processor_cuts_them() {
        assert_eq!(truncate(1.7), 1);
        assert_eq!(truncate(-1.7), -1);
        assert_eq!(truncate(f64::NAN), i64::MIN);
        assert_eq!(truncate(f64::INFINITY), i64::MIN);
        assert_eq!(truncate(9_223_372_036_854_775_808.0), i64::MIN);
    }
}
