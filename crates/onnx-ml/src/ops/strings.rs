//! Operators of text: `StringConcat`, `StringNormalizer`, `StringSplit`.

use std::collections::HashSet;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::layout::{self, View};
use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one};
use crate::tensor::{DataType, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("StringConcat", string_concat),
    ("StringNormalizer", string_normalizer),
    ("StringSplit", string_split),
];

#[derive(Debug)]
struct StringConcat;

fn string_concat(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(StringConcat))
}

impl Operator for StringConcat {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        args.slice::<CompactString>(0)?;
        args.slice::<CompactString>(1)?;
        let (first, second) = (args.get(0)?, args.get(1)?);
        let shape = broadcast(first.shape(), second.shape())?;
        let context = args.context;
        let expanded;
        let second = if second.shape() == shape.as_slice() {
            second
        } else {
            expanded = expand(second, &shape, context)?;
            &expanded
        };
        let tails = second.as_slice::<CompactString>().unwrap_or_default();
        let tail_bytes: u64 = tails.iter().map(|tail| tail.len() as u64).sum();
        context.reserve_bytes(tail_bytes)?;
        let mut result = if first.shape() == shape.as_slice() {
            // Room for the joined texts, which may be longer than either.
            layout::reserve_copies(context, first.data(), first.len())?;
            first.clone()
        } else {
            expand(first, &shape, context)?
        };
        let texts = result.as_mut_slice::<CompactString>().unwrap_or_default();
        for (text, tail) in texts.iter_mut().zip(tails) {
            text.push_str(tail);
        }
        one(result)
    }
}

/// The shape that both shapes can be expanded to.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Shape, OpError> {
    let rank = a.len().max(b.len());
    let mut shape = Shape::new();
    for place in 0..rank {
        let size = |of: &[usize]| {
            let place = (place + of.len()).checked_sub(rank);
            place.and_then(|place| of.get(place).copied()).unwrap_or(1)
        };
        shape.push(match (size(a), size(b)) {
            (a_size, b_size) if a_size == b_size => a_size,
            (1, b_size) => b_size,
            (a_size, 1) => a_size,
            _ => {
                return Err(OpError::Value(format!(
                    "shapes {a:?} and {b:?} do not fit each other"
                )));
            }
        });
    }
    Ok(shape)
}

fn expand(tensor: &Tensor, shape: &[usize], context: &Context<'_>) -> Result<Tensor, OpError> {
    let own = layout::strides(tensor.shape());
    let added = shape.len() - tensor.rank();
    let mut strides: SmallVec<[isize; 4]> = SmallVec::from_elem(0, added);
    for (stride, size) in own.iter().zip(tensor.shape()) {
        strides.push(if *size == 1 { 0 } else { *stride });
    }
    let view = View {
        shape: Shape::from_slice(shape),
        strides,
        start: 0,
    };
    layout::copy(tensor, &view, shape, context)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    Keep,
    Lower,
    Upper,
}

#[derive(Debug)]
struct StringNormalizer {
    case: Case,
    /// Words left out; in lower case unless case matters.
    stopwords: HashSet<CompactString>,
    case_matters: bool,
}

fn string_normalizer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let case = match node.string("case_change_action")?.unwrap_or("NONE") {
        "NONE" => Case::Keep,
        "LOWER" => Case::Lower,
        "UPPER" => Case::Upper,
        other => return Err(format!("`case_change_action` `{other}` is not known")),
    };
    let case_matters = node.flag("is_case_sensitive", false)?;
    // Case is changed letter by letter, as every locale but the Turkic ones has it.
    node.ignore(&["locale"]);
    let mut stopwords = HashSet::new();
    for word in node.strings("stopwords")?.unwrap_or_default() {
        stopwords.insert(if case_matters {
            CompactString::from(word)
        } else {
            changed(word, Case::Lower)
        });
    }
    Ok(Box::new(StringNormalizer {
        case,
        stopwords,
        case_matters,
    }))
}

/// The text with each letter's case changed. A letter stays one letter: `ß` has no upper case.
fn changed(text: &str, case: Case) -> CompactString {
    let mut result = CompactString::with_capacity(text.len());
    for letter in text.chars() {
        let (mut letters, fallback) = match case {
            Case::Keep => {
                result.push(letter);
                continue;
            }
            Case::Lower if letter.is_ascii() => {
                result.push(letter.to_ascii_lowercase());
                continue;
            }
            Case::Upper if letter.is_ascii() => {
                result.push(letter.to_ascii_uppercase());
                continue;
            }
            Case::Upper => {
                let mut upper = letter.to_uppercase();
                result.push(match (upper.next(), upper.next()) {
                    (Some(single), None) => single,
                    _ => letter,
                });
                continue;
            }
            Case::Lower => (letter.to_lowercase(), letter),
        };
        // The only letter whose lower case is two is İ: i and a dot above, which is left out.
        result.push(letters.next().unwrap_or(fallback));
    }
    result
}

impl Operator for StringNormalizer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        args.slice::<CompactString>(0)?;
        let tensor = args.take(0)?;
        let mut shape = Shape::from_slice(tensor.shape());
        if !matches!(shape.as_slice(), [_] | [1, _]) {
            return Err(OpError::Value(format!(
                "the input has shape {shape:?}, expected [C] or [1, C]"
            )));
        }
        // Lower and upper case may take up to three times the bytes.
        if self.case != Case::Keep {
            let bytes = crate::graph::bytes(&tensor);
            args.context.reserve_bytes(bytes.saturating_mul(3))?;
        }
        let given = tensor.len();
        let crate::tensor::Data::String(mut texts) = tensor.into_data() else {
            return Err(OpError::Type("the input is no text".to_string()));
        };
        if !self.stopwords.is_empty() {
            texts.retain(|text| {
                if self.case_matters {
                    !self.stopwords.contains(text)
                } else {
                    !self.stopwords.contains(&changed(text, Case::Lower))
                }
            });
        }
        if self.case != Case::Keep {
            for text in &mut texts {
                *text = changed(text, self.case);
            }
        }
        if texts.is_empty() && given > 0 {
            texts.push(CompactString::default());
        }
        if let Some(last) = shape.last_mut() {
            *last = texts.len();
        }
        one(Tensor::new(&shape, texts)?)
    }
}

#[derive(Debug)]
struct StringSplit {
    /// Runs of spaces when empty.
    delimiter: String,
    /// The largest number of cuts.
    most: usize,
}

fn string_split(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let most = match node.int("maxsplit")? {
        Some(most) => usize::try_from(most).unwrap_or(0),
        None => usize::MAX,
    };
    Ok(Box::new(StringSplit {
        delimiter: node.string("delimiter")?.unwrap_or_default().to_string(),
        most,
    }))
}

impl StringSplit {
    /// Adds the parts of the text; none of an empty one.
    fn split<'a>(&self, text: &'a str, parts: &mut Vec<&'a str>) {
        let first = parts.len();
        let mut rest = text;
        if self.delimiter.is_empty() {
            rest = rest.trim_matches(' ');
        }
        if rest.is_empty() {
            return;
        }
        while parts.len() - first < self.most {
            let cut = if self.delimiter.is_empty() {
                rest.split_once(' ')
                    .map(|(part, after)| (part, after.trim_start_matches(' ')))
            } else {
                rest.split_once(self.delimiter.as_str())
            };
            let Some((part, after)) = cut else {
                break;
            };
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
    }
}

impl Operator for StringSplit {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let texts = args.slice::<CompactString>(0)?;
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        let places = bytes.saturating_mul(size_of::<&str>() as u64);
        args.context.reserve_bytes(places)?;
        let mut parts: Vec<&str> = Vec::new();
        let mut counts = Vec::with_capacity(texts.len());
        for text in texts {
            let before = parts.len();
            self.split(text, &mut parts);
            counts.push((parts.len() - before) as i64);
        }
        let width = counts.iter().copied().max().unwrap_or(0) as usize;
        let shape = args.get(0)?.shape();
        let mut wide_shape = Shape::from_slice(shape);
        wide_shape.push(width);
        let elements = layout::count(&wide_shape)?;
        args.context.reserve(elements, DataType::String)?;
        let mut result = Vec::with_capacity(elements);
        let mut parts = parts.into_iter();
        for count in &counts {
            let count = *count as usize;
            result.extend(parts.by_ref().take(count).map(CompactString::from));
            result.resize(result.len() + width - count, CompactString::default());
        }
        let mut outputs = Outputs::new();
        outputs.push(Tensor::new(&wide_shape, result)?);
        outputs.push(Tensor::new(shape, counts)?);
        Ok(outputs)
    }
}
