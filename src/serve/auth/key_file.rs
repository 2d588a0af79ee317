//! The file of API keys: what is in it, reading, checking, and replacing it.
//!
//! TOML, so that a person can read it and a deployment can make it; normally `bellwether keys` writes
//! it. It holds digests of secrets and no secret, and is made with mode 0600 all the same.
//!
//! It is replaced as a whole: a new file is written beside it, synced, and renamed over it, so that
//! whoever reads finds either the old or the new one. Changes by several commands at once wait for
//! each other.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scope::Scope;
use super::secret::{Digest, is_id};
use crate::clock;

/// The largest file that is read, in bytes: some 3,000 keys.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 100;

/// The highest rate that can be set.
const MAX_RATE: f64 = 1e6;

const HEADING: &str = "\
# API keys of Bellwether, written by `bellwether keys`. It holds digests, not secrets.
# A running server takes a changed file within two seconds.

";

/// A point in time, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&clock::to_rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What was found is not repeated: it may be a key.
        let wrong = |_| serde::de::Error::custom("expected a time like 2026-01-31T12:00:00Z");
        let time = clock::from_rfc3339(&text).map_err(wrong)?;
        Ok(Time(time))
    }
}

/// What the file holds.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    #[serde(default, rename = "key")]
    pub keys: Vec<KeyEntry>,
}

/// One key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Which key it is; part of the key's text and of audit rows.
    pub id: String,
    /// Whose it is, for people.
    pub name: String,
    /// SHA-256 of the secret's 32 bytes.
    pub sha256: Digest,
    pub scopes: Vec<Scope>,
    pub created: Time,
    /// From when on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// Requests a second that it may make; any number when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// How many of them may come at once; those of one second when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Since when it is refused for good. It stays in the file, so that its id keeps its name and is
    /// not given again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Time>,
    /// The secret before the last rotation, as long as it is still taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousSecret>,
}

/// A secret that was replaced.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousSecret {
    pub sha256: Digest,
    /// Until when it is taken beside the new one.
    pub until: Time,
}

impl KeyEntry {
    /// How many requests may come at once.
    pub fn burst(&self) -> u32 {
        let of_a_second = self.rate_per_second.unwrap_or(1.0).ceil().max(1.0);
        self.burst.unwrap_or(of_a_second as u32)
    }

    fn check(&self) -> Result<(), String> {
        if !is_id(&self.id) {
            // It may be a whole key, pasted into the wrong place.
            let found = self.id.chars().count();
            return Err(format!(
                "id: expected 1 to 32 lower-case letters and digits, found something else, of {found} \
                 characters"
            ));
        }
        let name_chars = self.name.chars().count();
        if name_chars > MAX_NAME_CHARS || self.name.chars().any(char::is_control) {
            return Err(format!(
                "name: expected at most {MAX_NAME_CHARS} printable characters, found {name_chars}"
            ));
        }
        if self.scopes.is_empty() {
            let names = Scope::ALL.map(Scope::name).join(", ");
            return Err(format!("scopes: expected at least one of {names}"));
        }
        let is_rate = |rate: f64| rate > 0.0 && rate <= MAX_RATE;
        if let Some(rate) = self.rate_per_second
            && !is_rate(rate)
        {
            return Err(format!(
                "rate_per_second: expected a number greater than 0 and at most {MAX_RATE}, found {rate}"
            ));
        }
        match (self.burst, self.rate_per_second) {
            (Some(0), _) => Err("burst: expected at least 1, found 0".to_owned()),
            (Some(_), None) => Err("burst: has no meaning without rate_per_second".to_owned()),
            _ => Ok(()),
        }
    }
}

impl KeyFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The line or the key that is wrong. Nothing of what stands there is repeated but names and
    /// numbers.
    pub fn parse(text: &str) -> Result<KeyFile, String> {
        let file: KeyFile = toml::from_str(text).map_err(|error| {
            // Its longer form shows the line, in which somebody may have put a secret.
            let line = error.span().map_or(1, |span| {
                let before = text.get(..span.start).unwrap_or_default();
                before.matches('\n').count() + 1
            });
            format!("line {line}: {}", error.message())
        })?;
        file.check()?;
        Ok(file)
    }

    /// Whether what it holds can be in force.
    ///
    /// # Errors
    /// The key and the field that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let mut ids = HashSet::new();
        for (index, key) in self.keys.iter().enumerate() {
            let number = index + 1;
            key.check()
                .map_err(|problem| format!("[[key]] number {number}: {problem}"))?;
            if !ids.insert(key.id.as_str()) {
                let id = &key.id;
                return Err(format!(
                    "[[key]] number {number}: a second one with id {id}"
                ));
            }
        }
        Ok(())
    }

    /// The key called `id`.
    pub fn find(&mut self, id: &str) -> Option<&mut KeyEntry> {
        self.keys.iter_mut().find(|key| key.id == id)
    }
}

/// The bytes of the file; `None` when there is none.
///
/// # Errors
/// When it cannot be read, or is larger than any file of keys.
pub fn read_text(path: &Path) -> Result<Option<String>, String> {
    let failed = |problem: String| format!("{}: {problem}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(format!(
            "expected a file of at most {MAX_FILE_BYTES} bytes, found more"
        )));
    }
    Ok(Some(text))
}

/// Reads the file; one that is not there holds no keys.
///
/// # Errors
/// The file and what is wrong with it.
pub fn read(path: &Path) -> Result<KeyFile, String> {
    match read_text(path)? {
        Some(text) => {
            KeyFile::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
        }
        None => Ok(KeyFile::default()),
    }
}

/// Changes the file while no other command does; returns what `change` returns.
///
/// # Errors
/// What is wrong with the file, what `change` says (nothing is written then), or why it cannot be
/// written.
pub fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut KeyFile) -> Result<T, String>,
) -> Result<T, String> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = |what: &Path, error: std::io::Error| {
        format!("{}: cannot be written: {error}", what.display())
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    // Held until the end: the folder stands for the file, which is another one after each change.
    let lock = File::open(folder).map_err(|error| failed(folder, error))?;
    lock.lock().map_err(|error| failed(folder, error))?;
    let mut file = read(path)?;
    let result = change(&mut file)?;
    file.check()?;
    let body = toml::to_string(&file).map_err(|error| format!("{}: {error}", path.display()))?;
    replace(path, format!("{HEADING}{body}").as_bytes()).map_err(|error| failed(path, error))?;
    lock.sync_all().map_err(|error| failed(folder, error))?;
    Ok(result)
}

fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // Behind a link it is the file that is replaced, and it stays its owner's: whoever runs the command
    // may be another than who runs the server.
    let (path, owner) = match std::fs::canonicalize(path) {
        Ok(path) => {
            let owner = std::fs::metadata(&path)?;
            (path, Some((owner.uid(), owner.gid())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (path.to_owned(), None),
        Err(error) => return Err(error),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // One that is left over could have another mode.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut new = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let made = new.metadata()?;
    if let Some((uid, gid)) = owner
        && (made.uid(), made.gid()) != (uid, gid)
    {
        std::os::unix::fs::fchown(&new, Some(uid), Some(gid))?;
    }
    new.write_all(content)?;
    new.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests;
