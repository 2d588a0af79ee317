//! How many bad rows are too many.

/// How many rows may be rejected before a job stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RejectLimit {
    /// One row in a hundred, and 100 in any case.
    Usual,
    Rows(u64),
    /// A share of the rows that were read, from 0 to 1.
    Share(f64),
}

/// A share is not judged by fewer rows than this before the end.
const FEWEST_ROWS: u64 = 10_000;

impl RejectLimit {
    /// Reads `--max-rejects`: a number of rows, or a percentage.
    ///
    /// # Errors
    /// What was expected.
    pub fn read(text: &str) -> Result<RejectLimit, String> {
        let found = match text.strip_suffix('%') {
            Some(share) => share
                .parse::<f64>()
                .ok()
                .filter(|share| (0.0..=100.0).contains(share))
                .map(|share| RejectLimit::Share(share / 100.0)),
            None => text.parse().ok().map(RejectLimit::Rows),
        };
        found.ok_or_else(|| {
            format!("expected a number of rows or a percentage like 1%, found {text:?}")
        })
    }

    /// Whether `rejected` of `rows` are too many.
    pub fn is_exceeded(self, rejected: u64, rows: u64, is_all: bool) -> bool {
        match self {
            RejectLimit::Usual => rejected > 100 && rejected > rows / 100,
            RejectLimit::Rows(most) => rejected > most,
            RejectLimit::Share(share) => {
                let rows = if is_all { rows } else { rows.max(FEWEST_ROWS) };
                rejected as f64 > share * rows as f64
            }
        }
    }
}

impl std::fmt::Display for RejectLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RejectLimit::Usual => f.write_str("100 rows and 1% of those read"),
            RejectLimit::Rows(rows) => write!(f, "{rows} rows"),
            RejectLimit::Share(share) => write!(f, "{}% of those read", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_rows_or_a_share_of_them() {
        assert_eq!(RejectLimit::read("5"), Ok(RejectLimit::Rows(5)));
        assert_eq!(RejectLimit::read("2.5%"), Ok(RejectLimit::Share(0.025)));
        for text in ["", "-1", "x%", "101%", "1.5"] {
            assert!(
                RejectLimit::read(text)
                    .unwrap_err()
                    .contains("a percentage"),
                "{text}"
            );
        }
        let share = RejectLimit::Share(0.01);
        assert!(!share.is_exceeded(50, 60, false) && share.is_exceeded(50, 60, true));
        assert!(share.is_exceeded(101, 10_000, false));
        assert!(!RejectLimit::Usual.is_exceeded(100, 101, true));
        assert!(RejectLimit::Usual.is_exceeded(101, 102, false));
        assert!(!RejectLimit::Usual.is_exceeded(101, 20_000, true));
        assert!(RejectLimit::Rows(0).is_exceeded(1, 1_000_000, false));
    }
}
