//! What a tile keeps of numbers and of single events.

use std::cmp::Ordering;

use super::double::Double;
use super::evaluate::Input;
use super::tiles::{Content, Tile};
use crate::features::value::FeatureType;

/// The longest text that is kept of a value or a group, in bytes; longer text is cut.
pub const MAX_TEXT_BYTES: usize = 256;

/// `text`, cut to what is kept of it.
pub fn cut(text: &str) -> &str {
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    let mut end = MAX_TEXT_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count(pub u32);

impl Content for Count {
    type Merged = u64;

    fn merge(&mut self, other: &Count) {
        self.0 = self.0.saturating_add(other.0);
    }

    fn merged(tiles: &[Tile<Count>]) -> Option<u64> {
        Some(tiles.iter().map(|tile| u64::from(tile.content.0)).sum())
    }

    fn append(merged: &mut u64, next: &Count) -> bool {
        *merged += u64::from(next.0);
        true
    }
}

/// The least value. Packed, as next to it is the 32-bit number of its tile.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Least(pub f64);

impl Least {
    pub fn add(&mut self, value: f64) {
        self.0 = value.min(self.0);
    }
}

impl Content for Least {
    type Merged = Least;

    fn merge(&mut self, other: &Least) {
        self.add(other.0);
    }

    fn merged(tiles: &[Tile<Least>]) -> Option<Least> {
        let all = tiles.iter().map(|tile| tile.content.0);
        all.reduce(f64::min).map(Least)
    }

    fn append(merged: &mut Least, next: &Least) -> bool {
        merged.add(next.0);
        true
    }
}

/// The greatest value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Greatest(pub f64);

impl Greatest {
    pub fn add(&mut self, value: f64) {
        self.0 = value.max(self.0);
    }
}

impl Content for Greatest {
    type Merged = Greatest;

    fn merge(&mut self, other: &Greatest) {
        self.add(other.0);
    }

    fn merged(tiles: &[Tile<Greatest>]) -> Option<Greatest> {
        let all = tiles.iter().map(|tile| tile.content.0);
        all.reduce(f64::max).map(Greatest)
    }

    fn append(merged: &mut Greatest, next: &Greatest) -> bool {
        merged.add(next.0);
        true
    }
}

/// Sum and count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    pub count: u32,
    pub sum: Double,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.plus(value);
    }
}

impl Content for Sum {
    type Merged = Sum;
    const ROUNDS: bool = true;

    fn merge(&mut self, other: &Sum) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.plus_double(other.sum);
    }

    fn merged(tiles: &[Tile<Sum>]) -> Option<Sum> {
        let (first, others) = tiles.split_first()?;
        let mut sum = first.content;
        others.iter().for_each(|tile| sum.merge(&tile.content));
        Some(sum)
    }

    fn append(merged: &mut Sum, next: &Sum) -> bool {
        merged.merge(next);
        true
    }
}

/// Sum, sum of squares and count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    pub count: u32,
    pub sum: Double,
    pub squares: Double,
}

impl Moments {
    pub fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.plus(value);
        self.squares = self.squares.plus_square(value);
    }

    /// The standard deviation of a sample; none for fewer than two values.
    pub fn stddev(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let count = f64::from(self.count);
        let of_means = self.sum.squared().divided_by(count);
        let deviations = self.squares.minus(of_means).to_float()?;
        // What is left of equal values is rounding, not deviation.
        if deviations <= self.squares.high * count * 2f64.powi(-100) {
            return Some(0.0);
        }
        Some((deviations / (count - 1.0)).sqrt())
    }
}

impl Content for Moments {
    type Merged = Moments;
    const ROUNDS: bool = true;

    fn merge(&mut self, other: &Moments) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.plus_double(other.sum);
        self.squares = self.squares.plus_double(other.squares);
    }

    fn merged(tiles: &[Tile<Moments>]) -> Option<Moments> {
        let (first, others) = tiles.split_first()?;
        let mut moments = first.content;
        others.iter().for_each(|tile| moments.merge(&tile.content));
        Some(moments)
    }

    fn append(merged: &mut Moments, next: &Moments) -> bool {
        merged.merge(next);
        true
    }
}

/// A value that is kept as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Number(f64),
    Integer(i64),
    Flag(bool),
    Text(Box<str>),
    /// Of an event of which only the time counts.
    Nothing,
}

impl Kept {
    pub fn new(input: Input<'_>) -> Kept {
        match input {
            Input::Number(number) => Kept::Number(number),
            Input::Integer(integer) => Kept::Integer(integer),
            Input::Flag(flag) => Kept::Flag(flag),
            Input::Text(text) => Kept::Text(cut(text).into()),
            Input::Nothing => Kept::Nothing,
        }
    }

    pub fn as_input(&self) -> Input<'_> {
        match self {
            Kept::Number(number) => Input::Number(*number),
            Kept::Integer(integer) => Input::Integer(*integer),
            Kept::Flag(flag) => Input::Flag(*flag),
            Kept::Text(text) => Input::Text(text),
            Kept::Nothing => Input::Nothing,
        }
    }

    pub fn is_of(&self, kind: FeatureType) -> bool {
        matches!(
            (self, kind),
            (Kept::Number(_), FeatureType::Float64)
                | (Kept::Integer(_), FeatureType::Int64)
                | (Kept::Flag(_), FeatureType::Bool)
                | (Kept::Text(_), FeatureType::String)
        )
    }

    pub fn heap_bytes(&self) -> usize {
        match self {
            Kept::Text(text) => text.len(),
            _ => 0,
        }
    }
}

/// An event that was the first or the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    pub time_us: i64,
    /// Of the event's id: decides between events of the same time.
    pub id_hash: u64,
    pub value: Kept,
}

impl Occurrence {
    pub fn new(time_us: i64, id_hash: u64, input: Input<'_>) -> Occurrence {
        Occurrence {
            time_us,
            id_hash,
            value: Kept::new(input),
        }
    }

    /// Whether this one is before or after the one described: by time, then id, then value, so that
    /// no two differ only by which came first.
    pub fn order(&self, time_us: i64, id_hash: u64, input: Input<'_>) -> Ordering {
        (self.time_us, self.id_hash)
            .cmp(&(time_us, id_hash))
            .then_with(|| compare(self.value.as_input(), input))
    }
}

/// Of a window only the first one is looked at.
impl Content for Occurrence {
    type Merged = ();

    fn merge(&mut self, other: &Occurrence) {
        let order = self.order(other.time_us, other.id_hash, other.value.as_input());
        if order == Ordering::Greater {
            self.clone_from(other);
        }
    }

    fn merged(_: &[Tile<Occurrence>]) -> Option<()> {
        None
    }

    fn append(_: &mut (), _: &Occurrence) -> bool {
        false
    }

    fn heap_bytes(&self) -> usize {
        self.value.heap_bytes()
    }
}

fn compare(a: Input<'_>, b: Input<'_>) -> Ordering {
    match (a, b) {
        (Input::Number(a), Input::Number(b)) => a.total_cmp(&b),
        (Input::Integer(a), Input::Integer(b)) => a.cmp(&b),
        (Input::Flag(a), Input::Flag(b)) => a.cmp(&b),
        (Input::Text(a), Input::Text(b)) => cut(a).cmp(cut(b)),
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_of_a_sample() {
        let mut moments = Moments::default();
        moments.add(2.0);
        assert_eq!(moments.stddev(), None);
        moments.add(4.0);
        assert_eq!(moments.stddev(), Some(2f64.sqrt()));
        let mut equal = Moments::default();
        for _ in 0..1000 {
            equal.add(0.1);
        }
        assert_eq!(equal.stddev(), Some(0.0));
        // A float alone would lose the deviation beside the mean.
        let mut shifted = Moments::default();
        for value in [1e9, 1e9 + 1.0, 1e9 + 2.0] {
            shifted.add(value);
        }
        assert_eq!(shifted.stddev(), Some(1.0));
    }

    #[test]
    fn text_is_cut_between_characters() {
        let text = "ä".repeat(200);
        assert_eq!(cut(&text).len(), 256);
        let text = format!("a{text}");
        assert_eq!(cut(&text).len(), 255);
        assert_eq!(cut("short"), "short");
    }
}
