//! Edits of valid bytes, drawn by bolero's generator.
//!
//! Random bytes alone are refused by the first check of any format. A valid file with a few edits
//! passes most checks and reaches the ones behind them. The generator chooses the seed and the
//! edits; this file only applies them, so that the same choices always give the same bytes and a
//! failure can be shrunk.

use bolero::TypeGenerator;
use bolero::generator::produce;

/// No input grows beyond this, whatever the edits repeat.
const MAX_BYTES: usize = 256 * 1024;

/// One edit. A position is taken modulo what it can be, so that every number is valid.
#[derive(Debug, Clone, TypeGenerator)]
pub enum Edit {
    FlipBit {
        at: u32,
        bit: u8,
    },
    Overwrite {
        at: u32,
        #[generator(produce::<Vec<u8>>().with().len(1usize..=8))]
        bytes: Vec<u8>,
    },
    Insert {
        at: u32,
        #[generator(produce::<Vec<u8>>().with().len(1usize..=8))]
        bytes: Vec<u8>,
    },
    /// Inserts a word of the format.
    InsertWord {
        at: u32,
        word: u8,
    },
    /// Replaces a run of letters and digits by a word of the format.
    ReplaceWord {
        at: u32,
        word: u8,
    },
    Delete {
        at: u32,
        length: u8,
    },
    Truncate {
        at: u32,
    },
    /// Inserts a part of another seed.
    Splice {
        at: u32,
        seed: u8,
        from: u32,
        length: u16,
    },
    /// Writes a part several times.
    Repeat {
        at: u32,
        length: u8,
        times: u8,
    },
}

/// A seed and the edits to make.
#[derive(Debug, Clone, TypeGenerator)]
pub struct Mutation {
    seed: u8,
    #[generator(produce::<Vec<Edit>>().with().len(0usize..=4))]
    edits: Vec<Edit>,
}

impl Mutation {
    /// The chosen seed before the edits.
    pub fn seed<'a>(&self, seeds: &'a [Vec<u8>]) -> &'a [u8] {
        &seeds[usize::from(self.seed) % seeds.len()]
    }

    /// The chosen seed with the edits made; `words` are tokens that mean something in the format.
    pub fn apply(&self, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let bytes = self.seed(seeds).to_vec();
        apply_edits(bytes, &self.edits, seeds, words)
    }

    /// As [`Mutation::apply`], with what is no UTF-8 replaced.
    pub fn apply_text(&self, seeds: &[Vec<u8>], words: &[&str]) -> String {
        String::from_utf8_lossy(&self.apply(seeds, words)).into_owned()
    }
}

/// Makes the edits one after the other.
pub fn apply_edits(
    mut bytes: Vec<u8>,
    edits: &[Edit],
    seeds: &[Vec<u8>],
    words: &[&str],
) -> Vec<u8> {
    for edit in edits {
        apply_edit(&mut bytes, edit, seeds, words);
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn apply_edit(bytes: &mut Vec<u8>, edit: &Edit, seeds: &[Vec<u8>], words: &[&str]) {
    match edit {
        Edit::FlipBit { at, bit } => {
            let at = position(bytes, *at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Edit::Overwrite { at, bytes: new } => {
            let at = position(bytes, *at);
            let end = bytes.len().min(at + new.len());
            bytes.splice(at..end, new.iter().copied());
        }
        Edit::Insert { at, bytes: new } => {
            let at = position(bytes, *at);
            bytes.splice(at..at, new.iter().copied());
        }
        Edit::InsertWord { at, word } => {
            let at = position(bytes, *at);
            bytes.splice(at..at, pick(words, *word).bytes());
        }
        Edit::ReplaceWord { at, word } => {
            let at = position(bytes, *at);
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let start = bytes[..at]
                .iter()
                .rposition(|byte| !is_word(byte))
                .map_or(0, |before| before + 1);
            let end = bytes[at..]
                .iter()
                .position(|byte| !is_word(byte))
                .map_or(bytes.len(), |length| at + length);
            bytes.splice(start..end, pick(words, *word).bytes());
        }
        Edit::Delete { at, length } => {
            let at = position(bytes, *at);
            let end = bytes.len().min(at + usize::from(*length));
            bytes.drain(at..end);
        }
        Edit::Truncate { at } => {
            let at = position(bytes, *at);
            bytes.truncate(at);
        }
        Edit::Splice {
            at,
            seed,
            from,
            length,
        } => {
            let other = &seeds[usize::from(*seed) % seeds.len()];
            let from = position(other, *from);
            let end = other.len().min(from + usize::from(*length));
            let at = position(bytes, *at);
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        Edit::Repeat { at, length, times } => {
            let at = position(bytes, *at);
            let end = bytes.len().min(at + usize::from(*length));
            let part = bytes[at..end].repeat(usize::from(*times));
            bytes.splice(end..end, part);
        }
    }
}

/// A position from the first byte to behind the last one.
fn position(bytes: &[u8], at: u32) -> usize {
    at as usize % (bytes.len() + 1)
}

fn pick<'a>(words: &[&'a str], index: u8) -> &'a str {
    match words {
        [] => "",
        words => words[usize::from(index) % words.len()],
    }
}
