//! `Tokenizer` of the com.microsoft domain, as exporters of text vectorizers write it: cuts each
//! text into tokens, found by a pattern or left between separators.

use compact_str::CompactString;

use super::layout;
use super::pattern::Pattern;
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::{DataType, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[("Tokenizer", tokenizer)];

/// What marks the beginning and the end of a text.
/// Each goes over the whole text.
const MOST_SEPARATORS: usize = 256;

const START: &str = "\u{2}";
const END: &str = "\u{3}";

#[derive(Debug)]
enum Cut {
    /// Tokens are what the pattern matches.
    Tokens(Pattern),
    /// Tokens are what the separators leave, the separators applied one after another.
    Separators(Vec<Pattern>),
    /// Every character is a token.
    Characters,
}

#[derive(Debug)]
struct Tokenizer {
    cut: Cut,
    mark: bool,
    padding: CompactString,
    /// Shorter tokens are left out.
    least_characters: usize,
}

fn tokenizer(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let cut = match (node.string("tokenexp")?, node.strings("separators")?) {
        (Some("."), None) => Cut::Characters,
        (Some(pattern), None) => Cut::Tokens(Pattern::new(pattern)?),
        (None, Some(separators)) if separators == [""] => Cut::Characters,
        (None, Some(separators)) if separators.len() > MOST_SEPARATORS => {
            return Err(format!(
                "attribute `separators` has {} patterns, at most {MOST_SEPARATORS} are supported",
                separators.len()
            ));
        }
        (None, Some(separators)) => {
            let patterns = separators.into_iter().map(Pattern::new);
            Cut::Separators(patterns.collect::<Result<_, _>>()?)
        }
        _ => return Err("expected one of `tokenexp` and `separators`".to_string()),
    };
    let least = node.int("mincharnum")?.unwrap_or(1);
    let least_characters = usize::try_from(least).unwrap_or(0);
    if least_characters == 0 || (matches!(cut, Cut::Characters) && least != 1) {
        return Err(format!("`mincharnum` is {least}, which does not fit"));
    }
    Ok(Box::new(Tokenizer {
        cut,
        mark: node.flag("mark", false)?,
        padding: CompactString::from(node.string("pad_value")?.unwrap_or_default()),
        least_characters,
    }))
}

impl Tokenizer {
    fn tokens<'a>(&self, text: &'a str, tokens: &mut Vec<&'a str>) {
        match &self.cut {
            Cut::Characters => {
                for (start, letter) in text.char_indices() {
                    tokens.push(&text[start..start + letter.len_utf8()]);
                }
            }
            Cut::Tokens(pattern) => {
                let mut from = 0;
                while let Some((start, end)) = pattern.find(text, from) {
                    self.keep(&text[start..end], tokens);
                    from = end;
                }
            }
            Cut::Separators(separators) => {
                let mut pieces = vec![text];
                for separator in separators {
                    let mut smaller = Vec::new();
                    for piece in pieces {
                        let mut from = 0;
                        while let Some((start, end)) = separator.find(piece, from) {
                            smaller.push(&piece[from..start]);
                            from = end;
                        }
                        smaller.push(&piece[from..]);
                    }
                    smaller.retain(|piece| !piece.is_empty());
                    pieces = smaller;
                }
                for piece in pieces {
                    self.keep(piece, tokens);
                }
            }
        }
    }

    fn keep<'a>(&self, token: &'a str, tokens: &mut Vec<&'a str>) {
        let least = self.least_characters;
        if token.len() >= least && (least <= 1 || token.chars().nth(least - 1).is_some()) {
            tokens.push(token);
        }
    }
}

impl Operator for Tokenizer {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let texts = args.slice::<CompactString>(0)?;
        let found = args.get(0)?.shape();
        if !matches!(found, [_] | [_, _]) {
            return Err(OpError::Value(format!(
                "the input has shape {found:?}, expected [C] or [N, C]"
            )));
        }
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        let places = bytes.saturating_mul(size_of::<&str>() as u64);
        args.context.reserve_bytes(places)?;
        let patterns = match &self.cut {
            Cut::Separators(separators) => separators.len() as u64,
            Cut::Tokens(_) | Cut::Characters => 1,
        };
        args.context.work(bytes.saturating_mul(8 * patterns))?;
        let mut tokens: Vec<&str> = Vec::new();
        let mut ends = Vec::with_capacity(texts.len());
        let mut most = 0;
        for text in texts {
            let before = tokens.len();
            self.tokens(text, &mut tokens);
            most = most.max(tokens.len() - before);
            ends.push(tokens.len());
        }
        // Marks are for texts among which at least one has a token.
        let marks = self.mark && most > 0;
        let width = if marks { most + 2 } else { most };
        let mut shape = Shape::from_slice(found);
        shape.push(width);
        let elements = layout::count(&shape)?;
        args.context.reserve(elements, DataType::String)?;
        let longest_padding = elements.saturating_mul(self.padding.len()) as u64;
        if self.padding.is_heap_allocated() {
            args.context.reserve_bytes(longest_padding)?;
        }
        let mut result = Vec::with_capacity(elements);
        let mut first = 0;
        for (number, end) in ends.into_iter().enumerate() {
            if marks {
                result.push(CompactString::const_new(START));
            }
            result.extend(
                tokens[first..end]
                    .iter()
                    .map(|token| CompactString::from(*token)),
            );
            if marks {
                result.push(CompactString::const_new(END));
            }
            result.resize((number + 1) * width, self.padding.clone());
            first = end;
        }
        one(Tensor::new(&shape, result)?)
    }
}
