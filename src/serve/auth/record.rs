//! What the audit rows have said of the keys so far.
//!
//! Keys are changed beside the server, also while none runs. A file in the data directory, beside the
//! ledger that has the rows, keeps what they have said; where the keys are not as it says, one more row
//! says which. It makes no difference to that whether they were changed a second ago or before the start.
//!
//! A change is in one row, whatever ends the process: the row is in the file before it goes to the
//! ledger, and is looked for in the ledger at the next start. While one of the two takes nothing, changes
//! wait where they are, in the file of keys, and are one row together when it does. What was changed
//! back in between leaves none, which is so of changes between two looks as well.
//!
//! A row names keys by their ids. The file has a digest for each of everything that is kept of the key,
//! so that it can be told from another one; neither says anything of a secret.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;
use uuid::Uuid;

use super::audit;
use super::key_file::KeyFile;
use super::secret::text_digest;
use crate::clock;
use crate::ledger::{Audit, Ledger, newest_segment, read_audits};

/// The file's name in the data directory.
pub const FILE: &str = "keys-recorded.json";

/// The only format there is so far.
const FORMAT: u32 = 1;

/// The largest file that is read, in bytes: several times that of the largest file of keys.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Every key as it is, without saying how: by id a digest of what is kept of it.
pub type Fingerprints = BTreeMap<String, String>;

/// The fingerprints of the keys of a file.
pub fn fingerprints(file: &KeyFile) -> Fingerprints {
    let keys = file.keys.iter();
    // As text, which says everything that is kept of a key.
    let text = |key| toml::to_string(key).unwrap_or_default();
    keys.map(|key| (key.id.clone(), text_digest(&text(key))))
        .collect()
}

/// Which keys are not as they were.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct KeyChanges {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

impl KeyChanges {
    pub fn between(before: &Fingerprints, after: &Fingerprints) -> KeyChanges {
        let mut changes = KeyChanges::default();
        for (id, fingerprint) in after {
            match before.get(id) {
                None => changes.added.push(id.clone()),
                Some(other) if other != fingerprint => changes.changed.push(id.clone()),
                Some(_) => {}
            }
        }
        let removed = before.keys().filter(|id| !after.contains_key(*id));
        changes.removed = removed.cloned().collect();
        changes
    }

    pub fn are_none(&self) -> bool {
        *self == KeyChanges::default()
    }
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    keys: Fingerprints,
    /// The row that says so, until it is known to be in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
}

/// A row that may be in the ledger and may not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    id: String,
    at_us: i64,
    actor: String,
    action: String,
    details: Json,
    /// The segment of the ledger from which on it may be there.
    segment: u64,
}

/// Writes the rows about keys of one server.
pub struct KeyRecord {
    data_dir: PathBuf,
    ledger: Arc<Ledger>,
    /// As in the file; `None` before there is one.
    state: Option<State>,
    /// Of the row that waits, when the ledger has taken it: resolves when it is durable.
    taken: Option<Receiver<u64>>,
    /// No look has got to its end yet.
    at_start: bool,
    /// What kept the last look from recording.
    problem: Option<String>,
}

impl KeyRecord {
    /// Goes on from the file in `data_dir`, whose ledger is open. A file that is no such one is said in
    /// the log and begun anew: there is nothing in it that the keys and the ledger have not.
    pub fn open(data_dir: &Path, ledger: Arc<Ledger>) -> KeyRecord {
        let state = State::read(data_dir).unwrap_or_else(|problem| {
            tracing::warn!(problem, "which keys are in audit rows is recorded anew");
            None
        });
        let mut record = KeyRecord {
            data_dir: data_dir.to_owned(),
            ledger,
            state,
            taken: None,
            at_start: true,
            problem: None,
        };
        record.look_for_waiting();
        record
    }

    /// Whether the row that the last process left is in the ledger: then nothing waits any more.
    fn look_for_waiting(&mut self) {
        let Some(state) = &mut self.state else { return };
        let Some(waiting) = &state.waiting else {
            return;
        };
        let id = waiting.id.parse::<Uuid>().unwrap_or_default();
        let mut is_there = false;
        let read = read_audits(&self.data_dir, waiting.segment, |_, row| {
            is_there |= row.audit_id == id.as_bytes().as_slice();
            Ok(())
        });
        if let Err(problem) = read {
            // Rather twice than not at all.
            tracing::warn!(problem, "an audit row about keys is written once more");
        }
        if is_there {
            state.waiting = None;
        }
    }

    /// Records what is new of the keys, as far as that is possible now. Never waits for the ledger.
    pub fn look(&mut self, keys: &Fingerprints) {
        let problem = self.advance(keys).err();
        if let Some(problem) = &problem
            && self.problem.is_none()
        {
            tracing::warn!(problem, "audit rows about changed keys wait");
        }
        self.problem = problem;
    }

    fn advance(&mut self, keys: &Fingerprints) -> Result<(), String> {
        if !self.is_settled()? {
            return Ok(());
        }
        let Some((actor, action, details)) = self.news(keys) else {
            self.at_start = false;
            return match self.state {
                // From now on it is known that there were none.
                None => self.put(keys.clone(), None),
                Some(_) => Ok(()),
            };
        };
        let segment = newest_segment(&self.data_dir).map_err(|error| error.to_string())?;
        let waiting = Waiting {
            id: clock::new_id().to_string(),
            at_us: clock::now_us(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            details,
            segment: segment.unwrap_or_default(),
        };
        self.put(keys.clone(), Some(waiting))?;
        self.at_start = false;
        self.hand_over()
    }

    /// Whether no row waits any more.
    fn is_settled(&mut self) -> Result<bool, String> {
        let Some(state) = &self.state else {
            return Ok(true);
        };
        if state.waiting.is_none() {
            return Ok(true);
        }
        match self.taken.as_mut().map(Receiver::try_recv) {
            Some(Ok(_)) => {
                self.taken = None;
                self.put(state.keys.clone(), None)?;
                Ok(true)
            }
            Some(Err(TryRecvError::Empty)) => Ok(false),
            Some(Err(TryRecvError::Closed)) | None => {
                self.hand_over()?;
                Ok(false)
            }
        }
    }

    /// Who did what that no row says yet, if anything.
    fn news(&self, keys: &Fingerprints) -> Option<(&'static str, &'static str, Json)> {
        let changes = match &self.state {
            // Nobody knows since when each of them has been there.
            None if self.at_start && keys.is_empty() => return None,
            None if self.at_start => {
                let ids: Vec<&String> = keys.keys().collect();
                return Some(("server", "keys.found", json!({ "keys": ids })));
            }
            None => KeyChanges::between(&Fingerprints::new(), keys),
            Some(state) => KeyChanges::between(&state.keys, keys),
        };
        if changes.are_none() {
            return None;
        }
        let mut details = json!({
            "added": changes.added,
            "changed": changes.changed,
            "removed": changes.removed,
        });
        if self.at_start {
            tracing::info!(
                added = changes.added.join(", "),
                changed = changes.changed.join(", "),
                removed = changes.removed.join(", "),
                "API keys were changed since a server looked last"
            );
            details["found"] = "at the start".into();
        }
        Some(("command line", "keys.change", details))
    }

    /// Gives the row that waits to the ledger, which says when it is durable.
    fn hand_over(&mut self) -> Result<(), String> {
        let waiting = self.state.as_ref().and_then(|state| state.waiting.as_ref());
        if let Some(waiting) = waiting {
            let taken = self.ledger.submit_audit(&waiting.row());
            self.taken = Some(taken.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Replaces the file.
    fn put(&mut self, keys: Fingerprints, waiting: Option<Waiting>) -> Result<(), String> {
        let state = State {
            format: FORMAT,
            keys,
            waiting,
        };
        let written = state.write(&self.data_dir);
        written.map_err(|error| format!("{}: {error}", self.data_dir.join(FILE).display()))?;
        self.state = Some(state);
        Ok(())
    }
}

impl Waiting {
    fn row(&self) -> Audit {
        let id = self.id.parse::<Uuid>().unwrap_or_default();
        audit::about_keys(id, self.at_us, &self.actor, &self.action, &self.details)
    }
}

impl State {
    fn read(data_dir: &Path) -> Result<Option<State>, String> {
        let path = data_dir.join(FILE);
        let wrong = |problem: String| format!("{}: {problem}", path.display());
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut text = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(format!("over {MAX_BYTES} bytes")));
        }
        let state: State =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        match state.format {
            FORMAT => Ok(Some(state)),
            other => Err(wrong(format!(
                "of format {other}; this version of bellwether knows format {FORMAT}"
            ))),
        }
    }

    /// Replaces the file, durably; only its owner may read it.
    fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new()
            .prefix(".keys-recorded-")
            .tempfile_in(data_dir)?;
        serde_json::to_writer(temporary.as_file_mut(), self)?;
        temporary.as_file_mut().write_all(b"\n")?;
        temporary.as_file().sync_all()?;
        let path = data_dir.join(FILE);
        temporary.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(data_dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests;
