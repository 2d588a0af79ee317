//! Bands of scores: what people speak of when they say that a customer is "high".
//!
//! A score at an edge belongs to the band above it. Every score is in exactly one band: the first and the
//! last one have no end.

use serde::{Deserialize, Serialize};

use super::statistics::Distribution;

/// The most edges of `--bands`: the matrix of migration has a cell for each pair of bands.
const MOST_EDGES: usize = 19;

/// The edges between bands, ascending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bands {
    edges: Vec<f64>,
}

/// How many rows of a run are in a band.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BandCount {
    /// The band in words.
    pub band: String,
    /// The lowest score of the band; none of the first.
    pub from: Option<f64>,
    /// The lowest score of the next band; none of the last.
    pub to: Option<f64>,
    pub rows: u64,
    /// Of all rows with a score, from 0 to 1.
    pub share: f64,
}

impl Bands {
    /// Fifths of the range from 0 to 1.
    pub fn of_shares() -> Bands {
        Bands {
            edges: vec![0.2, 0.4, 0.6, 0.8],
        }
    }

    /// Bands that hold a fifth of some scores each, as far as scores differ. The edges are rounded to
    /// three digits, so that they can be read.
    pub fn quintiles(scores: &Distribution) -> Bands {
        let quantiles = [0.2, 0.4, 0.6, 0.8].into_iter();
        let mut edges: Vec<f64> = quantiles
            .filter_map(|q| scores.quantile(q))
            .map(rounded)
            .collect();
        edges.dedup();
        Bands { edges }
    }

    /// Reads `--bands`: the edges, ascending, separated by commas.
    ///
    /// # Errors
    /// What was expected.
    pub fn read(text: &str) -> Result<Bands, String> {
        let problem = || {
            format!(
                "expected ascending numbers like 0.1,0.3,0.5, at most {MOST_EDGES}, found {text:?}"
            )
        };
        let numbers = text.split(',').map(|number| number.trim().parse::<f64>());
        let edges: Vec<f64> = numbers.collect::<Result<_, _>>().map_err(|_| problem())?;
        let is_ascending = edges.windows(2).all(|pair| pair[0] < pair[1]);
        let is_finite = edges.iter().all(|edge| edge.is_finite());
        match is_ascending && is_finite && edges.len() <= MOST_EDGES {
            true => Ok(Bands { edges }),
            false => Err(problem()),
        }
    }

    /// The band of a score.
    pub fn of(&self, score: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= score)
    }

    /// How many bands there are.
    pub fn count(&self) -> usize {
        self.edges.len() + 1
    }

    /// The bands in words, from the lowest on.
    pub fn labels(&self) -> Vec<String> {
        (0..self.count())
            .map(|band| match self.ends(band) {
                (None, None) => "all".to_owned(),
                (None, Some(to)) => format!("below {to}"),
                (Some(from), Some(to)) => format!("{from} to {to}"),
                (Some(from), None) => format!("from {from}"),
            })
            .collect()
    }

    /// Where a band begins and ends.
    fn ends(&self, band: usize) -> (Option<f64>, Option<f64>) {
        let from = band.checked_sub(1).and_then(|edge| self.edges.get(edge));
        (from.copied(), self.edges.get(band).copied())
    }

    /// The counts of rows with what there is to say of each band.
    pub fn counted(&self, counts: &[u64]) -> Vec<BandCount> {
        let all: u64 = counts.iter().sum();
        let labels = self.labels().into_iter();
        let counts = counts.iter().copied().chain(std::iter::repeat(0));
        let each = labels.zip(counts).enumerate();
        each.map(|(index, (band, rows))| {
            let (from, to) = self.ends(index);
            BandCount {
                band,
                from,
                to,
                rows,
                share: rows as f64 / all.max(1) as f64,
            }
        })
        .collect()
    }
}

impl std::fmt::Display for Bands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let edges: Vec<String> = self.edges.iter().map(f64::to_string).collect();
        f.write_str(&edges.join(","))
    }
}

/// A number to three digits.
fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_at_an_edge_is_in_the_band_above_and_every_score_is_in_one() {
        let bands = Bands::of_shares();
        let scores = [-1.0, 0.0, 0.19, 0.2, 0.79, 0.8, 1.0, 7.0];
        assert_eq!(
            scores.map(|score| bands.of(score)),
            [0, 0, 0, 1, 3, 4, 4, 4]
        );
        assert_eq!(bands.labels()[..2], ["below 0.2", "0.2 to 0.4"]);
        assert_eq!(bands.labels()[4], "from 0.8");
        let counted = bands.counted(&[1, 0, 0, 0, 3]);
        assert_eq!((counted[4].rows, counted[4].share), (3, 0.75));
        assert_eq!((counted[4].from, counted[4].to), (Some(0.8), None));
        assert!(bands.counted(&[]).iter().all(|band| band.share == 0.0));
    }

    #[test]
    fn edges_are_ascending_numbers() {
        let bands = Bands::read("0.1, 0.3,0.5").unwrap();
        assert_eq!(
            (bands.count(), bands.to_string()),
            (4, "0.1,0.3,0.5".to_owned())
        );
        for text in ["", "x", "0.3,0.1", "0.1,0.1", "NaN", "inf", "1,,2"] {
            let problem = Bands::read(text).unwrap_err();
            assert!(problem.contains("ascending numbers"), "{text}: {problem}");
        }
    }

    #[test]
    fn quintiles_hold_a_fifth_each_and_are_fewer_where_scores_are_the_same() {
        let mut scores = Distribution::default();
        scores.add((1..=1000).map(|n| f64::from(n) * 1000.0));
        let bands = Bands::quintiles(&scores);
        let mut counts = [0_u32; 5];
        for n in 1..=1000 {
            counts[bands.of(f64::from(n) * 1000.0)] += 1;
        }
        assert!(
            counts.iter().all(|count| (180..=220).contains(count)),
            "{counts:?}"
        );
        let mut same = Distribution::default();
        same.add([3.0; 10].into_iter());
        assert_eq!(Bands::quintiles(&same).count(), 2);
        assert_eq!(Bands::quintiles(&Distribution::default()).labels(), ["all"]);
    }
}
