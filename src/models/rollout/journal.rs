//! Where roles are kept: every transition is an audit row of the ledger, and the state file says what
//! follows from all of them.
//!
//! The row comes first: it is durable before anything changes. The file is a short cut. It names the
//! segment of the ledger from which on there may be rows that it does not know yet; whoever opens the
//! state reads those and takes the roles with the higher revision. So a crash between row and file
//! loses nothing, and neither does the loss of the file: without it the whole ledger is read.
//!
//! The file also has the highest number that each model has had, and the rows of versions that were sent
//! say theirs. Only the numbers of folders that came and went by hand are known to the file alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::roles::{AllRoles, Roles};
use crate::ledger::{Audit, ledger_directory, read_audits};
use crate::models::catalog::version_number;
use crate::models::repository::numbers::{Numbers, raise};

/// The state file's name in the data directory.
pub const FILE: &str = "rollout.json";

/// What the actions of audit rows begin with.
const ACTION: &str = "model.";

/// The only format there is so far.
const FORMAT: u32 = 1;

/// The largest state file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The state: what was said of every model, and from which segment on there may be more.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct State {
    pub roles: AllRoles,
    /// The highest number that each model's versions have had.
    pub numbers: Numbers,
    /// Of models of which nothing was said: the version that answered at last.
    pub by_number: BTreeMap<String, u64>,
    pub segment: u64,
}

/// The state file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    format: u32,
    segment: u64,
    models: BTreeMap<String, Roles>,
    #[serde(default)]
    numbers: Numbers,
    #[serde(default)]
    by_number: BTreeMap<String, u64>,
}

/// The details of a transition's audit row: the roles that it led to.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    pub model: String,
    pub roles: Roles,
}

impl State {
    /// Reads the state file of a data directory, and the audit rows that it does not know.
    ///
    /// # Errors
    /// A file that cannot be read or is none, and what to do; a ledger that cannot be read.
    pub fn read(data_dir: &Path) -> Result<State, String> {
        let mut state = State::from_file(data_dir)?.unwrap_or_default();
        if ledger_directory(data_dir).is_dir() {
            let from_segment = state.segment;
            read_audits(data_dir, from_segment, |_, audit| state.take(&audit))?;
        }
        Ok(state)
    }

    fn from_file(data_dir: &Path) -> Result<Option<State>, String> {
        let path = data_dir.join(FILE);
        let wrong = |problem: String| {
            format!(
                "{}: {problem}; the file says which version of each model answers. Put it right or \
                 move it away: without it all of that is read from the ledger",
                path.display()
            )
        };
        let size = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if size > MAX_BYTES {
            return Err(wrong(format!(
                "is {size} bytes; at most {MAX_BYTES} are read"
            )));
        }
        let text = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let file: StateFile =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if file.format != FORMAT {
            return Err(wrong(format!(
                "is of format {}, and this version of bellwether knows format {FORMAT}",
                file.format
            )));
        }
        let models = file.models.into_iter();
        Ok(Some(State {
            roles: models
                .map(|(name, roles)| (name, Arc::new(roles)))
                .collect(),
            numbers: file.numbers,
            by_number: file.by_number,
            segment: file.segment,
        }))
    }

    /// Takes the number of the version that an audit row is about, and the roles, if it is a
    /// transition's and they are newer. Of two with the same revision, the first of which nobody was
    /// told of, the later one counts.
    fn take(&mut self, audit: &Audit) -> Result<(), String> {
        if !audit.action.starts_with(ACTION) {
            return Ok(());
        }
        if let Some((name, version)) = audit.subject.rsplit_once('/')
            && let Some(number) = version_number(version)
        {
            raise(&mut self.numbers, name, number);
        }
        // A version that was sent, or answers by its number, has other details.
        let Ok(Details { model, roles }) = serde_json::from_str(&audit.details) else {
            return Ok(());
        };
        let known = self.roles.get(&model).map(|roles| roles.revision);
        if known.is_none_or(|known| roles.revision >= known) {
            self.roles.insert(model, Arc::new(roles));
        }
        Ok(())
    }

    /// A version of that number was sent or got a role.
    pub fn note(&mut self, model: &str, number: u64) {
        raise(&mut self.numbers, model, number);
    }

    /// Replaces the state file, durably.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let models = self.roles.iter();
        let file = StateFile {
            format: FORMAT,
            segment: self.segment,
            models: models
                .map(|(name, roles)| (name.clone(), Roles::clone(roles)))
                .collect(),
            numbers: self.numbers.clone(),
            by_number: self.by_number.clone(),
        };
        let path: PathBuf = data_dir.join(FILE);
        let mut temporary = tempfile::Builder::new()
            .prefix(".rollout-")
            .tempfile_in(data_dir)?;
        serde_json::to_writer_pretty(temporary.as_file_mut(), &file)?;
        temporary.as_file_mut().write_all(b"\n")?;
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        std::fs::File::open(data_dir)?.sync_all()
    }
}

/// What audit rows are about: a version of a model.
pub fn subject(model: &str, version: u64) -> String {
    format!("{model}/{version}")
}

/// The audit row's action of a transition, or of a version that was sent.
pub fn action(word: &str) -> String {
    format!("{ACTION}{word}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, LedgerOptions};

    fn roles(champion: u64, revision: u64) -> Roles {
        Roles {
            revision,
            ..Roles::unsaid(champion, Vec::new())
        }
    }

    fn audit(action_word: &str, model: &str, roles: &Roles) -> Audit {
        let details = Details {
            model: model.to_owned(),
            roles: roles.clone(),
        };
        Audit {
            action: action(action_word),
            subject: subject(model, roles.champion),
            details: serde_json::to_string(&details).unwrap(),
            ..Audit::default()
        }
    }

    /// Has the rows in the ledger of `data_dir`, durably; returns the segment of each.
    fn log(data_dir: &Path, audits: &[Audit]) -> Vec<u64> {
        let options = LedgerOptions {
            segment_bytes: 512,
            ..LedgerOptions::default()
        };
        let ledger = Ledger::open(data_dir, options).unwrap();
        let log_one = |audit| ledger.submit_audit(audit).unwrap().blocking_recv().unwrap();
        let segments = audits.iter().map(log_one).collect();
        ledger.close().unwrap();
        segments
    }

    fn champions(state: &State) -> Vec<(&str, u64, u64)> {
        let models = state.roles.iter();
        models
            .map(|(name, roles)| (name.as_str(), roles.champion, roles.revision))
            .collect()
    }

    #[test]
    fn nothing_was_said_where_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), State::default());
        assert_eq!(
            State::read(&dir.path().join("no such")).unwrap(),
            State::default()
        );
    }

    #[test]
    fn rows_that_the_file_does_not_know_count_and_older_ones_do_not() {
        // Given a file of revision 2, and the rows of revisions 1 to 3 in the log
        let dir = tempfile::tempdir().unwrap();
        let rows = [1, 2, 3].map(|revision| audit("promote", "churn", &roles(revision, revision)));
        let segments = log(dir.path(), &rows);
        let state = State {
            roles: AllRoles::from([("churn".to_owned(), Arc::new(roles(2, 2)))]),
            segment: segments[1],
            ..State::default()
        };
        state.write(dir.path()).unwrap();
        // When the state is read, then the third counts
        assert_eq!(
            champions(&State::read(dir.path()).unwrap()),
            [("churn", 3, 3)]
        );

        // And a file that is ahead of the rows is believed
        let ahead = State {
            roles: AllRoles::from([("churn".to_owned(), Arc::new(roles(9, 9)))]),
            ..State::default()
        };
        ahead.write(dir.path()).unwrap();
        assert_eq!(
            champions(&State::read(dir.path()).unwrap()),
            [("churn", 9, 9)]
        );
    }

    #[test]
    fn without_the_file_everything_is_read_from_the_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let other = Audit {
            action: "POST /v1/features/reload".to_owned(),
            details: "{\"changed\":1}".to_owned(),
            ..Audit::default()
        };
        let deploy = Audit {
            action: "model.deploy".to_owned(),
            subject: "churn/9".to_owned(),
            details: "{\"digest\":\"00\"}".to_owned(),
            ..Audit::default()
        };
        let rows = [
            audit("shadow", "churn", &roles(1, 1)),
            other,
            audit("promote", "upsell", &roles(4, 1)),
            deploy,
            audit("promote", "churn", &roles(2, 2)),
            // One that nobody was told of, and the one that was made instead.
            audit("promote", "churn", &roles(7, 3)),
            audit("rollback", "churn", &roles(1, 3)),
        ];
        let segments = log(dir.path(), &rows);
        assert!(segments.last() > segments.first(), "over several segments");
        let state = State::read(dir.path()).unwrap();
        assert_eq!(champions(&state), [("churn", 1, 3), ("upsell", 4, 1)]);
        // And no number is forgotten that a version had.
        let numbers = [("churn".to_owned(), 9), ("upsell".to_owned(), 4)];
        assert_eq!(state.numbers, Numbers::from(numbers));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let full = r#"{"champion":3,"before":[2,1],"canary":{"version":4,"percent":12.5,
            "since_us":5,"guardrails":{"max_error_rate":0.1}},
            "shadows":[{"version":5,"since_us":6}],"retired":[7],"candidates":[8],
            "taken_back":[{"version":9,"at_us":7,"reason":"drifts"}],"revision":8}"#;
        let full: Roles = serde_json::from_str(full).unwrap();
        let state = State {
            roles: AllRoles::from([("churn".to_owned(), Arc::new(full))]),
            numbers: Numbers::from([("churn".to_owned(), 12), ("other".to_owned(), 3)]),
            by_number: BTreeMap::from([("other".to_owned(), 3)]),
            segment: 11,
        };
        state.write(dir.path()).unwrap();
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), state);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for (text, problem) in [
            ("", "EOF"),
            ("{\"format\":1,", "line 1"),
            (
                "{\"format\":2,\"segment\":1,\"models\":{}}",
                "is of format 2",
            ),
            (
                "{\"format\":1,\"segment\":1,\"models\":{\"churn\":{\"champion\":1}}}",
                "revision",
            ),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let found = State::read(dir.path()).unwrap_err();
            assert!(
                found.contains("rollout.json") && found.contains(problem),
                "{found}"
            );
            assert!(found.contains("move it away"), "{found}");
        }
    }
}
