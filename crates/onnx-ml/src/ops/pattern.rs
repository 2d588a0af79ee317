//! [`Pattern`]: the small part of regular expressions that exporters write for tokens.
//!
//! A pattern is a sequence of characters and sets of characters (`.`, `[a-z_]`, `[^ ]`, `\w`, `\d`,
//! `\s` and their opposites), of which the last may be repeated (`+`, `{2,}`, `{2,5}`), with a word
//! boundary `\b` before and after. That is enough for `[a-zA-Z0-9_]+`, `\b\w\w+\b`, `.` and
//! separators, and every text is searched in time proportional to its length, whatever the pattern.
//! `\w`, `\d` and `\s` are those of ASCII; `.` is any character, line breaks too.

/// A set of characters.
#[derive(Debug, Clone, PartialEq)]
struct Set {
    ranges: Vec<(char, char)>,
    /// Everything else instead.
    negated: bool,
}

impl Set {
    fn contains(&self, letter: char) -> bool {
        let inside = self
            .ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&letter));
        inside != self.negated
    }

    fn single(letter: char) -> Set {
        Set {
            ranges: vec![(letter, letter)],
            negated: false,
        }
    }

    /// The set that an escaped letter stands for.
    fn escaped(letter: char) -> Option<Set> {
        let ranges: &[(char, char)] = match letter.to_ascii_lowercase() {
            'w' => &WORD,
            'd' => &[('0', '9')],
            's' => &[('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')],
            _ => match letter {
                'n' => return Some(Set::single('\n')),
                't' => return Some(Set::single('\t')),
                'r' => return Some(Set::single('\r')),
                _ if letter.is_ascii_alphanumeric() => return None,
                _ => return Some(Set::single(letter)),
            },
        };
        // `\n`, `\t` and `\r` have no opposites; `\W`, `\D` and `\S` have.
        Some(Set {
            ranges: ranges.to_vec(),
            negated: letter.is_ascii_uppercase(),
        })
    }
}

const WORD: [(char, char); 4] = [('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

fn is_word(letter: Option<char>) -> bool {
    letter.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The longest sequence and the largest repetition.
const LONGEST: usize = 64;
/// Bytes of a pattern: the time to look at a letter grows with it.
const LONGEST_TEXT: usize = 1024;

/// A pattern, ready to search with.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// One character each.
    fixed: Vec<Set>,
    /// Up to so many more characters.
    tail: Option<(Set, usize)>,
    boundary_before: bool,
    boundary_after: bool,
}

impl Pattern {
    /// Reads a pattern; the error says what in it is not supported.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let refuse = |what: &str| {
            Err(format!(
                "the pattern `{text}` is not supported ({what}): expected a sequence of characters \
                 and sets like `[a-z]`, `\\w` or `.`, the last perhaps with `+` or `{{2,5}}`"
            ))
        };
        if text.len() > LONGEST_TEXT {
            return Err(format!(
                "a pattern has {} bytes, at most {LONGEST_TEXT} are supported",
                text.len()
            ));
        }
        let mut pattern = Pattern {
            fixed: Vec::new(),
            tail: None,
            boundary_before: false,
            boundary_after: false,
        };
        let mut rest = text;
        if let Some(after) = rest.strip_prefix("\\b") {
            pattern.boundary_before = true;
            rest = after;
        }
        while !rest.is_empty() {
            if rest == "\\b" {
                pattern.boundary_after = true;
                break;
            }
            if pattern.tail.is_some() {
                return refuse("something follows a repetition");
            }
            let (set, after) = match read_set(rest) {
                Ok(read) => read,
                Err(what) => return refuse(what),
            };
            let (least, most, after) = match read_repetition(after) {
                Ok(read) => read,
                Err(what) => return refuse(what),
            };
            for _ in 0..least {
                pattern.fixed.push(set.clone());
            }
            if most > least {
                let more = if most == usize::MAX {
                    usize::MAX
                } else {
                    most - least
                };
                pattern.tail = Some((set, more));
            }
            if pattern.fixed.len() > LONGEST {
                return refuse("it is too long");
            }
            rest = after;
        }
        if pattern.fixed.is_empty() {
            return refuse("it matches nothing at all");
        }
        if let (true, Some((set, most))) = (pattern.boundary_after, &pattern.tail)
            && (set.ranges != WORD || set.negated || *most != usize::MAX)
        {
            return refuse("a `\\b` follows a repetition other than `\\w+`");
        }
        Ok(pattern)
    }

    /// The first match at or after byte `from`, as bytes.
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let mut before = text[..from].chars().next_back();
        for (offset, letter) in text[from..].char_indices() {
            let start = from + offset;
            let may_start = !self.boundary_before || is_word(before) != is_word(Some(letter));
            if may_start && let Some(length) = self.match_length(&text[start..]) {
                return Some((start, start + length));
            }
            before = Some(letter);
        }
        None
    }

    /// The bytes of the match at the beginning of the text.
    fn match_length(&self, text: &str) -> Option<usize> {
        let mut letters = text.chars();
        let mut last = None;
        for set in &self.fixed {
            let letter = letters.next()?;
            if !set.contains(letter) {
                return None;
            }
            last = Some(letter);
        }
        if let Some((set, most)) = &self.tail {
            for _ in 0..*most {
                match letters.clone().next() {
                    Some(letter) if set.contains(letter) => {
                        letters.next();
                        last = Some(letter);
                    }
                    _ => break,
                }
            }
        }
        if self.boundary_after && is_word(last) == is_word(letters.clone().next()) {
            return None;
        }
        Some(text.len() - letters.as_str().len())
    }
}

fn read_set(text: &str) -> Result<(Set, &str), &'static str> {
    let mut letters = text.chars();
    let letter = letters.next().ok_or("it ends early")?;
    let set = match letter {
        '\\' => {
            let letter = letters.next().ok_or("it ends with a backslash")?;
            Set::escaped(letter).ok_or("an escape")?
        }
        '[' => return read_brackets(letters.as_str()),
        '.' => Set {
            ranges: Vec::new(),
            negated: true,
        },
        '(' | ')' | '|' | '^' | '$' | '*' | '+' | '?' | '{' => {
            return Err("a group, a choice, an anchor or a repetition of nothing");
        }
        letter => Set::single(letter),
    };
    Ok((set, letters.as_str()))
}

/// The set in brackets, after the opening one.
fn read_brackets(text: &str) -> Result<(Set, &str), &'static str> {
    const OPEN: &str = "a bracket is not closed";
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        let mut letters = rest.chars();
        let letter = letters.next().ok_or(OPEN)?;
        if letter == ']' && !first {
            return Ok((Set { ranges, negated }, letters.as_str()));
        }
        first = false;
        if letter == '[' && letters.as_str().starts_with(':') {
            return Err("a named set");
        }
        let mut start = letter;
        if letter == '\\' {
            let escaped = Set::escaped(letters.next().ok_or(OPEN)?).ok_or("an escape")?;
            match escaped.ranges.as_slice() {
                [(one, same)] if one == same && !escaped.negated => start = *one,
                _ if escaped.negated => return Err("an opposite in brackets"),
                _ => {
                    ranges.extend(escaped.ranges);
                    rest = letters.as_str();
                    continue;
                }
            }
        }
        let mut end = start;
        let mut ahead = letters.clone();
        if ahead.next() == Some('-')
            && let Some(letter) = ahead.next()
            && letter != ']'
        {
            end = letter;
            if letter == '\\' {
                let escaped = Set::escaped(ahead.next().ok_or(OPEN)?).ok_or("an escape")?;
                match escaped.ranges.as_slice() {
                    [(one, same)] if one == same => end = *one,
                    _ => return Err("a range to a set"),
                }
            }
            letters = ahead;
        }
        if end < start {
            return Err("a range backwards");
        }
        ranges.push((start, end));
        rest = letters.as_str();
    }
}

/// How often at least and at most, and what follows.
fn read_repetition(text: &str) -> Result<(usize, usize, &str), &'static str> {
    let lazy = |rest: &str| rest.starts_with(['?', '+', '*']);
    let (least, most, rest) = if let Some(rest) = text.strip_prefix('+') {
        (1, usize::MAX, rest)
    } else if let Some(rest) = text.strip_prefix('*') {
        (0, usize::MAX, rest)
    } else if let Some(rest) = text.strip_prefix('?') {
        (0, 1, rest)
    } else if let Some(inside) = text.strip_prefix('{') {
        const WRONG: &str = "numbers in braces";
        let (numbers, rest) = inside.split_once('}').ok_or(WRONG)?;
        let (least, most) = match numbers.split_once(',') {
            None => (numbers, numbers),
            Some(parts) => parts,
        };
        let least: usize = least.parse().map_err(|_| WRONG)?;
        let most = if most.is_empty() {
            usize::MAX
        } else {
            most.parse().map_err(|_| WRONG)?
        };
        if least > LONGEST || most < least {
            return Err(WRONG);
        }
        (least, most, rest)
    } else {
        return Ok((1, 1, text));
    };
    if lazy(rest) {
        return Err("a repetition that is not greedy");
    }
    Ok((least, most, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
        let pattern = Pattern::new(pattern).unwrap();
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((start, end)) = pattern.find(text, from) {
            found.push(&text[start..end]);
            from = end;
        }
        found
    }

    #[test]
    fn patterns_of_exporters_find_their_tokens() {
        assert_eq!(
            all("[a-zA-Z0-9_]+", "a dog's b_2!"),
            ["a", "dog", "s", "b_2"]
        );
        assert_eq!(all(r"\b\w\w+\b", "a1 über22, x"), ["a1", "ber22"]);
        assert_eq!(all(".", "ü\n"), ["ü", "\n"]);
        assert_eq!(all("[ab]{2}", "ababa"), ["ab", "ab"]);
        assert_eq!(all(r"\w\w\b", "abba abc"), ["ba", "bc"]);
        assert_eq!(all(r"[^\s]+", "a-b 12"), ["a-b", "12"]);
        assert_eq!(all("a[b-]c", "a-c abc a]c"), ["a-c", "abc"]);
        assert_eq!(all(r"[.]", "a.b"), ["."]);
        assert_eq!(all(r"\.\d{1,2}", "x.123"), [".12"]);
    }

    #[test]
    fn what_is_beyond_the_small_part_is_refused() {
        for pattern in [
            "",
            "a*",
            "(a)",
            "a|b",
            "^a",
            "a+b",
            "a+?",
            r"[a-c]+\b",
            r"\pL",
            "[a",
            "a{2,1}",
            "[[:alpha:]]",
            "(?i)a",
            r"\",
            "a{99}",
            r"\b",
            "[z-a]",
        ] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
