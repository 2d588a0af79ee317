//! The keys in force: from what a caller shows to what it may do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::bucket::Bucket;
use super::key_file::{KeyEntry, KeyFile};
use super::scope::{Scope, Scopes};
use super::secret::{Digest, Known, Shown, read_key};

/// Every key of a file, by id.
pub struct Ring {
    keys: HashMap<Arc<str>, Key>,
}

/// One key.
struct Key {
    id: Arc<str>,
    secret: Known,
    /// The secret before, and until when it is taken.
    previous: Option<(Known, i64)>,
    scopes: Scopes,
    expires_us: Option<i64>,
    is_revoked: bool,
    rate: Option<Rate>,
}

/// The rate of a key; it goes on as it is when the file is read again and says the same.
#[derive(Clone)]
struct Rate {
    per_second: f64,
    burst: u32,
    bucket: Arc<Bucket>,
}

/// Who asks: a key that was in force when the call came.
#[derive(Clone)]
pub struct Holder {
    pub id: Arc<str>,
    /// Of the secret that was shown.
    digest: Digest,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Denial {
    /// No key was shown.
    Missing,
    /// Not a key, an unknown id or a wrong secret: which of them is not told.
    Unknown,
    /// The header is no `Bearer` and a key, or there are two.
    Unreadable,
    /// Nobody asks for a key, and a page of another site makes the request in somebody's browser.
    OtherSite {
        origin: String,
    },
    Revoked {
        id: Arc<str>,
    },
    Expired {
        id: Arc<str>,
    },
    /// The key is right and lacks the scope.
    Scope {
        id: Arc<str>,
        needed: Scope,
        held: String,
    },
    /// The key has used up its rate.
    Rate {
        id: Arc<str>,
        per_second: f64,
        /// When there will be a token.
        wait: Duration,
    },
}

impl Denial {
    /// One word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Denial::Missing => "missing",
            Denial::Unknown | Denial::Unreadable => "unknown",
            Denial::OtherSite { .. } => "site",
            Denial::Revoked { .. } => "revoked",
            Denial::Expired { .. } => "expired",
            Denial::Scope { .. } => "scope",
            Denial::Rate { .. } => "rate",
        }
    }

    /// The id of the key, where it is right but may not do what it asks for.
    pub fn without_right(&self) -> Option<&str> {
        match self {
            Denial::Revoked { id } | Denial::Expired { id } | Denial::Scope { id, .. } => Some(id),
            Denial::Missing
            | Denial::Unknown
            | Denial::Unreadable
            | Denial::OtherSite { .. }
            | Denial::Rate { .. } => None,
        }
    }

    /// Seconds after which trying again makes sense, where it does.
    pub fn retry_after_s(&self) -> Option<u32> {
        let Denial::Rate { wait, .. } = self else {
            return None;
        };
        Some((wait.as_secs_f64().ceil() as u32).max(1))
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Denial::Missing => f.write_str(
                "an API key is needed: send the header `Authorization: Bearer bw_…`; `bellwether \
                 keys create` makes one",
            ),
            Denial::Unknown => f.write_str("the API key is not known here"),
            Denial::Unreadable => f.write_str(
                "the header Authorization cannot be read as a key: expected one, `Bearer bw_…`",
            ),
            Denial::OtherSite { origin } => write!(
                f,
                "header Origin: a page of {origin:?} asks, and a server without API keys answers no \
                 pages of other sites; make a key with `bellwether keys create`, or start it with \
                 --allow-remote-without-keys"
            ),
            Denial::Revoked { id } => write!(f, "the API key {id} has been revoked"),
            Denial::Expired { id } => {
                write!(
                    f,
                    "the API key {id} has expired or was replaced by a new one"
                )
            }
            Denial::Scope { id, needed, held } => write!(
                f,
                "the API key {id} has the scope {held} and this needs {}",
                needed.name()
            ),
            Denial::Rate { id, per_second, .. } => {
                let seconds = self.retry_after_s().unwrap_or(1);
                write!(
                    f,
                    "the API key {id} may make {per_second} requests a second and has made more; \
                     try again in {seconds} s"
                )
            }
        }
    }
}

impl Ring {
    /// The keys of `file`. Rates that `before` has as well go on where they are.
    pub fn new(file: &KeyFile, before: Option<&Ring>) -> Ring {
        let key = |entry: &KeyEntry| {
            let id: Arc<str> = entry.id.as_str().into();
            let same = before.and_then(|ring| ring.keys.get(&id));
            Key {
                secret: Known::new(entry.sha256),
                previous: entry
                    .previous
                    .as_ref()
                    .map(|previous| (Known::new(previous.sha256), previous.until.0)),
                scopes: Scopes::of(&entry.scopes),
                expires_us: entry.expires.map(|time| time.0),
                is_revoked: entry.revoked.is_some(),
                rate: rate_of(entry, same.and_then(|key| key.rate.as_ref())),
                id,
            }
        };
        let keys = file.keys.iter().map(key);
        Ring {
            keys: keys.map(|key| (Arc::clone(&key.id), key)).collect(),
        }
    }

    /// How many keys are neither revoked nor expired.
    pub fn usable(&self, now_us: i64) -> usize {
        let keys = self.keys.values();
        keys.filter(|key| !key.is_revoked && key.expires_us.is_none_or(|end| now_us < end))
            .count()
    }

    /// Whether who shows `text` may do what needs `scope`; takes a token of the key's rate. The time is
    /// asked for where it matters only.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(
        &self,
        text: &str,
        scope: Scope,
        now_us: &dyn Fn() -> i64,
    ) -> Result<Holder, Denial> {
        let shown = read_key(text).ok_or(Denial::Unknown)?;
        let key = self.keys.get(shown.id).ok_or(Denial::Unknown)?;
        let secret = key.secret_shown(&shown).ok_or(Denial::Unknown)?;
        key.admit(secret, scope, now_us)?;
        Ok(Holder {
            id: Arc::clone(&key.id),
            digest: secret.digest,
        })
    }

    /// Whether a caller that was admitted earlier still may; takes a token of the key's rate.
    ///
    /// # Errors
    /// Why not.
    pub fn admit_again(
        &self,
        holder: &Holder,
        scope: Scope,
        now_us: &dyn Fn() -> i64,
    ) -> Result<(), Denial> {
        let (key, secret) = self.of_holder(holder)?;
        key.admit(secret, scope, now_us)
    }

    /// The same, and takes no token.
    ///
    /// # Errors
    /// Why not.
    pub fn still_admits(
        &self,
        holder: &Holder,
        scope: Scope,
        now_us: &dyn Fn() -> i64,
    ) -> Result<(), Denial> {
        let (key, secret) = self.of_holder(holder)?;
        key.check(secret, scope, now_us)
    }

    fn of_holder(&self, holder: &Holder) -> Result<(&Key, &Known), Denial> {
        let key = self.keys.get(&holder.id).ok_or(Denial::Unknown)?;
        let mut secrets = key.secrets();
        let secret = secrets.find(|secret| secret.digest.same(&holder.digest).into());
        Ok((key, secret.ok_or(Denial::Unknown)?))
    }
}

impl Key {
    /// The current one first.
    fn secrets(&self) -> impl Iterator<Item = &Known> {
        let previous = self.previous.as_ref().map(|(secret, _)| secret);
        std::iter::once(&self.secret).chain(previous)
    }

    fn secret_shown(&self, shown: &Shown<'_>) -> Option<&Known> {
        self.secrets().find(|secret| secret.is(shown))
    }

    /// Whether whoever has shown `secret`, one of its own, may do what needs `scope`; takes a token.
    fn admit(&self, secret: &Known, scope: Scope, now_us: &dyn Fn() -> i64) -> Result<(), Denial> {
        self.check(secret, scope, now_us)?;
        if let Some(rate) = &self.rate {
            rate.bucket.take().map_err(|wait| Denial::Rate {
                id: Arc::clone(&self.id),
                per_second: rate.per_second,
                wait,
            })?;
        }
        Ok(())
    }

    /// The same but for the rate.
    fn check(&self, secret: &Known, scope: Scope, now_us: &dyn Fn() -> i64) -> Result<(), Denial> {
        let id = || Arc::clone(&self.id);
        if self.is_revoked {
            return Err(Denial::Revoked { id: id() });
        }
        let grace_ends = match &self.previous {
            Some((previous, until)) if std::ptr::eq(previous, secret) => Some(*until),
            _ => None,
        };
        let ends = [self.expires_us, grace_ends];
        if ends.iter().flatten().any(|end| now_us() >= *end) {
            return Err(Denial::Expired { id: id() });
        }
        if !self.scopes.allow(scope) {
            return Err(Denial::Scope {
                id: id(),
                needed: scope,
                held: self.scopes.names(),
            });
        }
        Ok(())
    }
}

fn rate_of(entry: &KeyEntry, before: Option<&Rate>) -> Option<Rate> {
    let per_second = entry.rate_per_second?;
    let burst = entry.burst();
    match before {
        Some(rate) if rate.per_second == per_second && rate.burst == burst => Some(rate.clone()),
        _ => Some(Rate {
            per_second,
            burst,
            bucket: Arc::new(Bucket::new(per_second, burst)),
        }),
    }
}

#[cfg(test)]
mod tests;
