//! The highest number that each model's versions have had, whatever became of them: the ledger knows a
//! version by its number, so that none is given twice.
//!
//! Here it is in memory, from the folders that were seen and the versions that were sent. Who keeps it
//! through a restart is [`crate::models::rollout::journal`].

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::Repository;
use crate::models::rollout::Roles;

/// The highest number of every model.
pub type Numbers = BTreeMap<String, u64>;

impl Repository {
    /// Takes in what is known from before: none of these numbers is given again.
    pub fn remember_numbers(&self, numbers: &Numbers) {
        for (name, number) in numbers {
            self.note_number(name, *number);
        }
    }

    /// The highest number that there is or was, of every model.
    pub fn numbers(&self) -> Numbers {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.clone()
    }

    /// A version of that number is there, or has been.
    pub(super) fn note_number(&self, name: &str, number: u64) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        raise(&mut numbers, name, number);
    }

    /// The highest number that a version of the model has or had, or that a role was given to.
    pub(super) fn highest_number(&self, name: &str) -> Option<u64> {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = numbers.get(name).copied();
        drop(numbers);
        noted.max(self.roles(name).and_then(|roles| highest_said(&roles)))
    }
}

/// Notes a number, if it is higher than the one before.
pub fn raise(numbers: &mut Numbers, name: &str, number: u64) {
    match numbers.get_mut(name) {
        Some(highest) => *highest = number.max(*highest),
        None => {
            numbers.insert(name.to_owned(), number);
        }
    }
}

fn highest_said(roles: &Roles) -> Option<u64> {
    let held = roles.held().into_iter();
    let others = roles.before.iter().chain(&roles.retired).copied();
    held.chain(others).max()
}
