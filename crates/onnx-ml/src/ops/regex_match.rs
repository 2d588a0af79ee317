//! `RegexFullMatch`: which texts are matched as a whole.
//!
//! Patterns are those of RE2 as far as the `regex` crate shares them; both run in time linear in the
//! text.

use compact_str::CompactString;
use regex::{Regex, RegexBuilder};

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::Tensor;

pub(crate) const OPERATORS: &[(&str, Build)] = &[("RegexFullMatch", build)];

/// Bytes of a pattern.
const LONGEST_PATTERN: usize = 1 << 16;
/// What a compiled pattern may take, in bytes: little is tried first, as few need more.
const SIZES: [usize; 3] = [1 << 16, 1 << 20, 8 << 20];

#[derive(Debug)]
struct RegexFullMatch {
    regex: Regex,
    /// What it may take, compiled.
    size: usize,
}

fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let pattern = node.string("pattern")?.unwrap_or_default();
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!(
            "attribute `pattern` has {} bytes, at most {LONGEST_PATTERN} are supported",
            pattern.len()
        ));
    }
    // The parentheses keep an alternative at the top inside the anchors.
    let anchored = format!(r"\A(?:{pattern})\z");
    let mut failure = String::new();
    for size in SIZES {
        if !node.prepare(2 * size as u64) {
            return Err("the file's patterns take too much memory together".to_string());
        }
        let built = RegexBuilder::new(&anchored)
            .size_limit(size)
            .dfa_size_limit(size)
            .build();
        match built {
            Ok(regex) => return Ok(Box::new(RegexFullMatch { regex, size })),
            Err(error) => failure = format!("attribute `pattern`: {error}"),
        }
    }
    Err(failure)
}

impl Operator for RegexFullMatch {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let texts = args.slice::<CompactString>(0)?;
        // At worst every letter meets every state of the pattern.
        let letters: u64 = texts.iter().map(|text| text.len() as u64).sum();
        let states = (self.size >> 10) as u64;
        args.context.work(letters.saturating_mul(states))?;
        let matches = texts.iter().map(|text| self.regex.is_match(text)).collect();
        one(Tensor::new::<bool>(args.get(0)?.shape(), matches)?)
    }
}
