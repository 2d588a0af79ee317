//! `TfIdfVectorizer`: counts which n-grams of a pool occur in each row of tokens.
//!
//! The pool is a tree of tokens, so that all n-grams from one place of the row are found in one
//! walk.

use std::collections::HashMap;

use compact_str::CompactString;

use super::layout;
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one, operations};
use crate::tensor::{Data, DataType, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[("TfIdfVectorizer", tfidf_vectorizer)];

/// Each skip walks over the row again, so a file must not ask for any number of them.
const MOST_SKIPS: i64 = 255;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// How often the n-gram occurs.
    Count,
    /// Its weight, if it occurs.
    Weight,
    /// How often, times its weight.
    WeightedCount,
}

#[derive(Debug, Default)]
struct Pool {
    integers: HashMap<i64, u32>,
    strings: HashMap<CompactString, u32>,
    /// From a place in the tree by a token to the next; the root is 0.
    edges: HashMap<(u32, u32), u32>,
    /// For each place in the tree the n-gram that ends there: its column and weight.
    ends: Vec<Option<(usize, f32)>>,
}

#[derive(Debug)]
struct TfIdfVectorizer {
    mode: Mode,
    shortest: usize,
    longest: usize,
    skips: usize,
    columns: usize,
    of_strings: bool,
    pool: Pool,
}

fn tfidf_vectorizer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let mode = match node.string("mode")? {
        Some("TF") => Mode::Count,
        Some("IDF") => Mode::Weight,
        Some("TFIDF") => Mode::WeightedCount,
        other => return Err(format!("`mode` {other:?} is not known")),
    };
    let number = |name: &str, least: i64, most: i64| match node.int(name)? {
        Some(number) if (least..=most).contains(&number) => Ok(number as usize),
        Some(number) => Err(format!("`{name}` is {number}, expected {least} to {most}")),
        None => Err(format!("attribute `{name}` is missing")),
    };
    let skips = number("max_skip_count", 0, MOST_SKIPS)?;
    let longest = number("max_gram_length", 1, i64::from(u32::MAX))?;
    let shortest = number("min_gram_length", 1, longest as i64)?;
    let starts = node.ints("ngram_counts")?.unwrap_or_default();
    let columns_of = node.ints("ngram_indexes")?.unwrap_or_default();
    let weights = node
        .floats("weights")?
        .filter(|weights| !weights.is_empty());
    if weights.is_some_and(|weights| weights.len() != columns_of.len()) {
        return Err("`weights` and `ngram_indexes` have different lengths".to_string());
    }
    if starts.len() < longest {
        return Err(format!(
            "`ngram_counts` has {} numbers, fewer than `max_gram_length`",
            starts.len()
        ));
    }
    let mut pool = Pool::default();
    let integers = node.ints("pool_int64s")?.filter(|pool| !pool.is_empty());
    let strings = node
        .strings("pool_strings")?
        .filter(|pool| !pool.is_empty());
    let (of_strings, tokens): (bool, Vec<u32>) = match (integers, strings) {
        (Some(integers), None) => {
            let numbers = integers.iter().map(|token| {
                let next = pool.integers.len() as u32;
                *pool.integers.entry(*token).or_insert(next)
            });
            (false, numbers.collect())
        }
        (None, Some(strings)) => {
            let numbers = strings.into_iter().map(|token| {
                let next = pool.strings.len() as u32;
                *pool.strings.entry(token.into()).or_insert(next)
            });
            (true, numbers.collect())
        }
        _ => return Err("expected one of `pool_int64s` and `pool_strings`".to_string()),
    };
    let mut columns = 0;
    for column in columns_of {
        let column = usize::try_from(*column)
            .map_err(|_| format!("`ngram_indexes` holds {column}, expected 0 or more"))?;
        columns = columns.max(column.saturating_add(1));
    }
    pool.ends.push(None);
    let mut number = 0;
    for (place, start) in starts.iter().enumerate() {
        let length = place + 1;
        let end = starts.get(length).copied().unwrap_or(tokens.len() as i64);
        let bounds = usize::try_from(*start).ok().zip(usize::try_from(end).ok());
        let part = bounds.and_then(|(start, end)| tokens.get(start..end));
        let part = part.filter(|part| part.len().is_multiple_of(length));
        let part = part.ok_or_else(|| {
            format!(
                "`ngram_counts` {starts:?} does not fit a pool of {}",
                tokens.len()
            )
        })?;
        for gram in part.chunks_exact(length) {
            let column = columns_of.get(number).ok_or_else(|| {
                format!("`ngram_indexes` has {number} numbers, fewer than there are n-grams")
            })?;
            let weight = weights.and_then(|weights| weights.get(number).copied());
            number += 1;
            if length > longest {
                continue;
            }
            let end = pool.place_of(gram);
            let end = pool.ends.get_mut(end as usize);
            match end {
                Some(end @ None) => *end = Some((*column as usize, weight.unwrap_or(1.0))),
                _ => return Err(format!("n-gram {number} of the pool is there twice")),
            }
        }
    }
    Ok(Box::new(TfIdfVectorizer {
        mode,
        shortest,
        longest,
        skips,
        columns,
        of_strings,
        pool,
    }))
}

impl Pool {
    /// The place in the tree where the n-gram ends, made if it is not there.
    fn place_of(&mut self, gram: &[u32]) -> u32 {
        let mut place = 0;
        for token in gram {
            let next = self.ends.len() as u32;
            let found = *self.edges.entry((place, *token)).or_insert(next);
            if found == next {
                self.ends.push(None);
            }
            place = found;
        }
        place
    }
}

impl TfIdfVectorizer {
    /// Adds what a row of tokens holds to the columns of its result. A token that the pool does not
    /// know is `None`.
    fn count(&self, tokens: &[Option<u32>], columns: &mut [f32]) {
        for skip in 0..=self.skips {
            let step = skip + 1;
            // Single tokens have nothing between them to skip.
            let shortest = if skip == 0 {
                self.shortest
            } else {
                self.shortest.max(2)
            };
            if (shortest - 1).saturating_mul(step) >= tokens.len() || shortest > self.longest {
                return;
            }
            for start in 0..tokens.len() {
                let mut place = 0;
                let gram = tokens[start..].iter().step_by(step).take(self.longest);
                for (number, token) in gram.enumerate() {
                    let next = token.and_then(|token| self.pool.edges.get(&(place, token)));
                    let Some(next) = next else {
                        break;
                    };
                    place = *next;
                    if number + 1 < shortest {
                        continue;
                    }
                    if let Some(Some((column, weight))) = self.pool.ends.get(place as usize) {
                        let target = &mut columns[*column];
                        match self.mode {
                            Mode::Count => *target += 1.0,
                            Mode::WeightedCount => *target += weight,
                            Mode::Weight if *target == 0.0 => *target = *weight,
                            Mode::Weight => {}
                        }
                    }
                }
            }
        }
    }
}

impl Operator for TfIdfVectorizer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let (rows, width) = match tensor.shape() {
            [] => (1, 1),
            [width] => (1, *width),
            [rows, width] => (*rows, *width),
            shape => {
                return Err(OpError::Value(format!(
                    "the input has shape {shape:?}, expected [C] or [N, C]"
                )));
            }
        };
        let shape = match tensor.rank() {
            2 => Shape::from_slice(&[rows, self.columns]),
            _ => Shape::from_slice(&[self.columns]),
        };
        let elements = layout::count(&shape)?;
        args.context.reserve(elements, DataType::F32)?;
        args.context.reserve(width, DataType::I64)?;
        let longest = self.longest.min(width);
        args.context
            .work(operations(&[rows, width, self.skips + 1, longest]))?;
        let fits = match tensor.data_type() {
            DataType::String => self.of_strings,
            DataType::I32 | DataType::I64 => !self.of_strings,
            _ => false,
        };
        if !fits {
            let expected = if self.of_strings {
                "string"
            } else {
                "int64 or int32"
            };
            return Err(OpError::data_type(0, tensor.data_type(), expected));
        }
        let mut result = vec![0.0; elements];
        if elements == 0 {
            return one(Tensor::new(&shape, result)?);
        }
        let pool = &self.pool;
        let mut tokens: Vec<Option<u32>> = Vec::with_capacity(width);
        for number in 0..rows {
            let row = number * width..(number + 1) * width;
            tokens.clear();
            match tensor.data() {
                Data::String(values) => {
                    let each = values[row].iter();
                    tokens.extend(each.map(|value| pool.strings.get(value).copied()));
                }
                Data::I64(values) => {
                    let each = values[row].iter();
                    tokens.extend(each.map(|value| pool.integers.get(value).copied()));
                }
                Data::I32(values) => {
                    let each = values[row].iter().map(|value| i64::from(*value));
                    tokens.extend(each.map(|value| pool.integers.get(&value).copied()));
                }
                _ => {}
            }
            let columns = number * self.columns..(number + 1) * self.columns;
            self.count(&tokens, &mut result[columns]);
        }
        one(Tensor::new(&shape, result)?)
    }
}
