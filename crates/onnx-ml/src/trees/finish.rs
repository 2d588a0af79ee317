//! [`Finish`]: from the sums of the leaves to the outputs of the operator.
//!
//! The ONNX specification leaves much of this open, above all for two classes, so the rules here are
//! those that onnxruntime shows, corner cases included:
//!
//! - a score that no leaf gave anything is 0, even if the target has a base value, unless there is
//!   one target, or more than two classes;
//! - a single score of a regressor is changed by `PROBIT` alone;
//! - two classes of which the leaves name one only are one score, against 0.5 if no weight is
//!   negative, else against 0; two classes of which the leaves name both are decided by the sign of
//!   the second one's score, and numeric labels are then 0 and 1 whatever the file calls them;
//! - base values of two classes count as the comments below say.

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::node::Node;
use crate::ops::class_labels::longest;
use crate::tensor::Data;
use crate::trees::Sums;
use crate::trees::ensemble::{Aggregate, Ensemble};
use crate::trees::plain::Real;
use crate::trees::post::{Post, each, logistic, probit};

/// The names of the classes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Classes {
    Integers(Vec<i64>),
    Strings(Vec<CompactString>),
}

impl Classes {
    pub fn read(node: &Node<'_>) -> Result<Classes, String> {
        let integers = node.ints("classlabels_int64s")?.unwrap_or_default();
        let strings = node.strings("classlabels_strings")?.unwrap_or_default();
        if !strings.is_empty() {
            let strings = strings.into_iter().map(CompactString::new);
            return Ok(Classes::Strings(strings.collect()));
        }
        if integers.is_empty() {
            return Err("neither `classlabels_strings` nor `classlabels_int64s` is given".into());
        }
        Ok(Classes::Integers(integers.to_vec()))
    }

    pub fn len(&self) -> usize {
        match self {
            Classes::Integers(labels) => labels.len(),
            Classes::Strings(labels) => labels.len(),
        }
    }
}

/// The label of a row.
enum Label {
    /// The class at this place.
    Class(usize),
    /// The number 0 or 1, or the class at that place when classes are strings.
    Sign(bool),
}

/// What follows the sums of the leaves.
#[derive(Debug)]
pub(crate) struct Finish {
    base: Vec<f64>,
    post: Post,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scores {
        aggregate: Aggregate,
        /// The number of trees.
        trees: usize,
    },
    Classes {
        labels: Classes,
        /// There are two classes, and the one sum is of this one.
        only: Option<usize>,
        /// No weight is negative.
        all_positive: bool,
    },
}

/// How the score that is missing in a row of one for two classes is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    /// It is left 0.
    Zero,
    /// Both add up to 1. The logistic function sees to that itself.
    Complement,
    /// One is the negative of the other, before the logistic function if that is asked for.
    Opposite,
}

/// A score, and whether any leaf gave it something.
#[derive(Clone, Copy)]
struct Score<T> {
    raw: T,
    present: bool,
}

impl<T: Real> Score<T> {
    fn value(self) -> T {
        if self.present { self.raw } else { T::default() }
    }
}

impl Finish {
    /// For the operators whose output are the scores themselves.
    pub fn scores(ensemble: &Ensemble, base: Vec<f64>, post: Post) -> Finish {
        Finish {
            base,
            post,
            kind: Kind::Scores {
                aggregate: ensemble.aggregate,
                trees: ensemble.trees.len(),
            },
        }
    }

    /// For classifiers.
    pub fn classes(
        labels: Classes,
        base: Vec<f64>,
        post: Post,
        only: Option<usize>,
        all_positive: bool,
    ) -> Finish {
        let kind = Kind::Classes {
            labels,
            only,
            all_positive,
        };
        Finish { base, post, kind }
    }

    /// The columns of the scores, given the number of sums of a row.
    pub fn columns(&self, targets: usize) -> usize {
        match &self.kind {
            Kind::Scores { .. } => targets,
            Kind::Classes { labels, .. } => labels.len(),
        }
    }

    /// What the label of a row takes, at most.
    pub fn label_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Scores { .. } => 0,
            Kind::Classes { labels, .. } => match labels {
                Classes::Integers(_) => size_of::<i64>() as u64,
                Classes::Strings(labels) => longest(labels),
            },
        }
    }

    /// Whether it makes a difference if no leaf gave a score anything.
    pub fn reads_presence(&self, targets: usize) -> bool {
        match &self.kind {
            Kind::Scores { .. } => targets > 1 && !self.base.is_empty(),
            Kind::Classes { .. } => true,
        }
    }

    /// The scores, row by row, and for a classifier the labels.
    pub fn apply<T: Real>(
        &self,
        sums: Sums<T>,
        targets: usize,
    ) -> Result<(Option<Data>, Vec<T>), String> {
        match &self.kind {
            Kind::Scores { aggregate, trees } => {
                Ok((None, self.values(sums, targets, *aggregate, *trees)))
            }
            Kind::Classes {
                labels,
                only,
                all_positive,
            } => {
                let (labels, scores) =
                    self.classify(sums, targets, labels, *only, *all_positive)?;
                Ok((Some(labels), scores))
            }
        }
    }

    fn values<T: Real>(
        &self,
        sums: Sums<T>,
        targets: usize,
        aggregate: Aggregate,
        trees: usize,
    ) -> Vec<T> {
        let Sums {
            mut scores,
            present,
        } = sums;
        if targets == 0 {
            return scores;
        }
        let divisor = match aggregate {
            Aggregate::Average => Some(T::from_f64(trees as f64)),
            _ => None,
        };
        if let Some(divisor) = divisor {
            for score in &mut scores {
                *score = *score / divisor;
            }
        }
        if !self.base.is_empty() {
            let base: SmallVec<[T; 8]> = self.base.iter().map(|base| T::from_f64(*base)).collect();
            for row in scores.chunks_exact_mut(targets) {
                for (score, base) in row.iter_mut().zip(&base) {
                    *score = *score + *base;
                }
            }
        }
        if targets == 1 {
            if self.post == Post::Probit {
                each(&mut scores, probit);
            }
            return scores;
        }
        if let Some(present) = present {
            for (score, present) in scores.iter_mut().zip(present) {
                if !present {
                    *score = T::default();
                }
            }
        }
        if self.post != Post::None {
            for row in scores.chunks_exact_mut(targets) {
                self.post.apply(row);
            }
        }
        scores
    }

    fn classify<T: Real>(
        &self,
        sums: Sums<T>,
        targets: usize,
        labels: &Classes,
        only: Option<usize>,
        all_positive: bool,
    ) -> Result<(Data, Vec<T>), String> {
        let Sums { scores, present } = sums;
        let columns = labels.len();
        let count = scores.len() / targets.max(1);
        let present = |place: usize| present.as_ref().is_none_or(|present| present[place]);
        let mut chosen = Chosen::new(labels, count);
        let mut out = match columns {
            // The scores are changed where they are.
            1 | 3.. => scores,
            _ => {
                let mut out = Vec::with_capacity(count * 2);
                for row in 0..count {
                    let score = |target: usize| Score {
                        raw: scores[row * targets + target],
                        present: present(row * targets + target),
                    };
                    let nothing = Score {
                        raw: T::default(),
                        present: false,
                    };
                    let pair = match only {
                        None => [score(0), score(1)],
                        Some(0) => [score(0), nothing],
                        Some(_) => [nothing, score(0)],
                    };
                    let (label, pair) = self.two(pair, only.is_some(), all_positive);
                    chosen.push(label);
                    out.extend_from_slice(&pair);
                }
                return Ok((chosen.into_data(), out));
            }
        };
        let base: SmallVec<[T; 8]> = self.base.iter().map(|base| T::from_f64(*base)).collect();
        if columns == 1 {
            for score in &mut out {
                if let Some(base) = base.first() {
                    *score = *score + *base;
                }
                chosen.push(Label::Sign(*score > T::default()));
                if self.post == Post::Probit {
                    *score = T::from_f32(probit(score.to_f32()));
                }
            }
            return Ok((chosen.into_data(), out));
        }
        for (number, row) in out.chunks_exact_mut(columns).enumerate() {
            let mut best: Option<(usize, T)> = None;
            for (class, score) in row.iter_mut().enumerate() {
                let given = present(number * columns + class);
                if let Some(base) = base.get(class) {
                    *score = if given { *score + *base } else { *base };
                } else if !given {
                    *score = T::default();
                    continue;
                }
                if best.is_none_or(|(_, greatest)| *score > greatest) {
                    best = Some((class, *score));
                }
            }
            match best {
                Some((class, _)) => chosen.push(Label::Class(class)),
                None => return Err(format!("no tree gives row {number} a score for any class")),
            }
            self.post.apply(row);
        }
        Ok((chosen.into_data(), out))
    }

    /// The label and the scores of a row of two classes.
    fn two<T: Real>(
        &self,
        [mut first, mut second]: [Score<T>; 2],
        binary: bool,
        all_positive: bool,
    ) -> (Label, [T; 2]) {
        let zero = T::default();
        let mut single = false;
        let mut missing = Second::Zero;
        match *self.base {
            [] => {
                missing = Second::Opposite;
                single = !second.present;
            }
            // One base value is the first class's.
            [base] => {
                first.raw = first.raw + T::from_f64(base);
                single = !second.present;
            }
            [base, other, ..] => {
                if second.present {
                    // The second class is taken for the opposite of the first.
                    second.raw = T::from_f64(other) + first.raw;
                    first.raw = -second.raw;
                } else {
                    second.raw = second.raw + T::from_f64(other);
                    first.raw = first.raw + T::from_f64(base);
                }
            }
        }
        let decisive = if second.present { second } else { first }.value();
        let label = match (binary, all_positive) {
            (true, true) => {
                missing = Second::Complement;
                Label::Class(usize::from(decisive.to_f64() > 0.5))
            }
            (true, false) => {
                missing = Second::Opposite;
                Label::Class(usize::from(decisive > zero))
            }
            (false, _) => Label::Sign(decisive > zero),
        };
        if !single {
            let mut pair = [first.value(), second.value()];
            self.post.apply(&mut pair);
            return (label, pair);
        }
        let score = first.value();
        let pair = match (self.post, missing) {
            (Post::Probit, _) => [T::from_f32(probit(score.to_f32())), zero],
            (_, Second::Zero) => [score, zero],
            (Post::Logistic, _) => [
                T::from_f32(logistic((-score).to_f32())),
                T::from_f32(logistic(score.to_f32())),
            ],
            (_, Second::Complement) => [T::from_f32(1.0) - score, score],
            (_, Second::Opposite) => [-score, score],
        };
        (label, pair)
    }
}

/// The labels of the rows so far.
enum Chosen<'a> {
    Integers(&'a [i64], Vec<i64>),
    Strings(&'a [CompactString], Vec<CompactString>),
}

impl<'a> Chosen<'a> {
    fn new(labels: &'a Classes, count: usize) -> Chosen<'a> {
        match labels {
            Classes::Integers(labels) => Chosen::Integers(labels, Vec::with_capacity(count)),
            Classes::Strings(labels) => Chosen::Strings(labels, Vec::with_capacity(count)),
        }
    }

    fn push(&mut self, label: Label) {
        match self {
            Chosen::Integers(labels, rows) => rows.push(match label {
                Label::Class(place) => labels[place],
                Label::Sign(positive) => i64::from(positive),
            }),
            Chosen::Strings(labels, rows) => {
                let place = match label {
                    Label::Class(place) => place,
                    // A single class is the label whatever its score.
                    Label::Sign(positive) => usize::from(positive).min(labels.len() - 1),
                };
                rows.push(labels[place].clone());
            }
        }
    }

    fn into_data(self) -> Data {
        match self {
            Chosen::Integers(_, rows) => Data::I64(rows),
            Chosen::Strings(_, rows) => Data::String(rows),
        }
    }
}
