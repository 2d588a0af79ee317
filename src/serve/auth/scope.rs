//! Scopes: what a key may be allowed to do, and what a route asks for.

use serde::{Deserialize, Serialize};

/// A part of what the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for predictions, and what the models are like.
    Score,
    /// Tell what came of them.
    Feedback,
    /// Read and write events, customers, features; make training sets.
    Data,
    /// Put models and views into service and take them out.
    Deploy,
    /// Read the metrics.
    Metrics,
    /// Everything, also what only an operator should see.
    Admin,
}

/// Who may use a route or a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone who can reach the server.
    Public,
    /// Whoever shows a key with this scope.
    Needs(Scope),
}

impl Scope {
    pub const ALL: [Scope; 6] = [
        Scope::Score,
        Scope::Feedback,
        Scope::Data,
        Scope::Deploy,
        Scope::Metrics,
        Scope::Admin,
    ];

    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Score => "score",
            Scope::Feedback => "feedback",
            Scope::Data => "data",
            Scope::Deploy => "deploy",
            Scope::Metrics => "metrics",
            Scope::Admin => "admin",
        }
    }

    /// Reads it as it is written.
    ///
    /// # Errors
    /// What was found, and what the scopes are.
    pub fn parse(text: &str) -> Result<Scope, String> {
        let known = Scope::ALL.into_iter().find(|scope| scope.name() == text);
        known.ok_or_else(|| {
            let names = Scope::ALL.map(Scope::name).join(", ");
            format!("expected one of {names}, found {text:?}")
        })
    }

    /// Whether calls that need it and change something leave a row in the audit log.
    pub fn is_administrative(self) -> bool {
        matches!(self, Scope::Deploy | Scope::Admin)
    }
}

/// The scopes of one key, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub fn of(scopes: &[Scope]) -> Scopes {
        let bits = scopes.iter().map(|scope| bit(*scope));
        Scopes(bits.fold(0, |all, one| all | one))
    }

    /// Whether a key with these may do what needs `scope`.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (bit(scope) | bit(Scope::Admin)) != 0
    }

    /// The names, with commas between.
    pub fn names(self) -> String {
        let held = Scope::ALL.into_iter().filter(|s| self.0 & bit(*s) != 0);
        held.map(Scope::name).collect::<Vec<_>>().join(", ")
    }
}

fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_and_admin_allows_everything() {
        for held in Scope::ALL {
            for asked in Scope::ALL {
                let allowed = Scopes::of(&[held]).allow(asked);
                assert_eq!(allowed, held == asked || held == Scope::Admin);
            }
        }
        assert!(!Scopes::of(&[]).allow(Scope::Score));
        let two = Scopes::of(&[Scope::Deploy, Scope::Score]);
        assert_eq!(two.names(), "score, deploy");
    }

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.name()), Ok(scope));
        }
        assert!(Scope::parse("Score").is_err_and(|said| said.contains("feedback")));
    }
}
