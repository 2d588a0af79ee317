//! Rows that the ledger did not take when they were made: kept until it does.
//!
//! They are about changes that were made beside the server, which nobody could refuse, so they wait here
//! instead. What is here is lost when the process is killed; the log has it then.

use std::collections::VecDeque;

use crate::ledger::{AppendError, Audit};

/// The most rows that wait.
const MOST: usize = 1000;

/// Rows that wait, in their order.
#[derive(Default)]
pub struct Unrecorded {
    rows: VecDeque<Audit>,
    /// Whether it has been said that they wait.
    is_told: bool,
}

impl Unrecorded {
    /// Adds a row; with too many the oldest goes.
    pub fn push(&mut self, row: Audit) {
        if self.rows.len() == MOST {
            let lost = self.rows.pop_front().map(|row| row.details);
            tracing::error!(
                lost,
                "too many audit rows wait for the ledger; the oldest is lost"
            );
        }
        self.rows.push_back(row);
    }

    /// Hands over what waits, as far as it is taken; returns how many still wait.
    pub fn hand_over(&mut self, mut take: impl FnMut(&Audit) -> Result<(), AppendError>) -> usize {
        while let Some(row) = self.rows.front() {
            match take(row) {
                Ok(()) => {
                    self.rows.pop_front();
                }
                Err(error) => {
                    if !self.is_told {
                        tracing::warn!(%error, "audit rows about changed keys wait for the ledger");
                    }
                    self.is_told = true;
                    return self.rows.len();
                }
            }
        }
        self.is_told = false;
        0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::serve::auth::audit::keys_changed;

    #[test]
    fn rows_wait_until_they_are_taken_and_are_taken_once_and_in_order() {
        let mut waiting = Unrecorded::default();
        for number in 0..3 {
            waiting.push(keys_changed(&json!({ "added": [number] })));
            assert_eq!(waiting.hand_over(|_| Err(AppendError::Closed)), number + 1);
        }
        let mut taken = Vec::new();
        // One is taken, then no more; later the others
        let left = waiting.hand_over(|row| match taken.is_empty() {
            true => {
                taken.push(row.details.clone());
                Ok(())
            }
            false => Err(AppendError::Closed),
        });
        assert_eq!(left, 2);
        let left = waiting.hand_over(|row| {
            taken.push(row.details.clone());
            Ok(())
        });
        assert_eq!(left, 0);
        let expected = [0, 1, 2].map(|number| json!({ "added": [number] }).to_string());
        assert_eq!(taken, expected);
    }

    #[test]
    fn only_so_many_wait() {
        let mut waiting = Unrecorded::default();
        for number in 0..MOST + 2 {
            waiting.push(keys_changed(&json!(number)));
        }
        let mut taken = Vec::new();
        waiting.hand_over(|row| {
            taken.push(row.details.clone());
            Ok(())
        });
        assert_eq!((taken.len(), taken[0].as_str()), (MOST, "2"));
    }
}
