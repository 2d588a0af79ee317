//! Section `[store]`: where current values are kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Section `[store]`: where current values are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `embedded` or `redis`; when left out, `redis` if there is a `url`.
    pub kind: Option<StoreKind>,
    /// The Redis or Valkey server: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS,
    /// `redis+cluster://` or `rediss+cluster://` for a cluster.
    pub url: Option<SecretUrl>,
    /// PEM file with the authorities that the Redis server's certificate is checked against, instead of
    /// those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub key_prefix: String,
    /// How long opening a connection may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a read may take; a batch of writes may take ten times that.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// What a score is answered with while the shared store is lost.
    pub on_failure: OnFailure,
    /// The Redis server is a node of a cluster.
    pub cluster: bool,
    /// Memory for the entities that the embedded store keeps at hand; when left out, a quarter of what
    /// the process may use.
    pub cache_bytes: Option<u64>,
}

/// The kinds of online store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Embedded,
    Redis,
}

/// What a score is answered with while the shared store is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// 503 with Retry-After.
    #[default]
    Unavailable,
    /// A prediction from the declared defaults, which says so.
    Defaults,
}

/// A URL that may hold a password: it is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The text, for connecting only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> SecretUrl {
        SecretUrl(url.to_owned())
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            kind: None,
            url: None,
            tls_ca_file: None,
            key_prefix: "bw:".to_owned(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_millis(250),
            on_failure: OnFailure::default(),
            cluster: false,
            cache_bytes: None,
        }
    }
}

impl StoreConfig {
    /// The kind that is meant.
    ///
    /// # Errors
    /// When kind and URL contradict each other, or a time is nothing.
    pub fn checked_kind(&self) -> Result<StoreKind, String> {
        for (name, time) in [
            ("connect_timeout", self.connect_timeout),
            ("timeout", self.timeout),
        ] {
            if time.is_zero() {
                return Err(format!("store.{name}: expected a time greater than zero"));
            }
        }
        match (self.kind, &self.url) {
            (Some(StoreKind::Embedded), Some(_)) => Err(
                "store.kind is embedded, but there is a store.url; leave one of them out"
                    .to_owned(),
            ),
            (Some(StoreKind::Redis), None) => Err(
                "store.kind is redis, but there is no store.url; write for example \
                 redis://localhost:6379"
                    .to_owned(),
            ),
            (Some(StoreKind::Redis) | None, Some(_)) => Ok(StoreKind::Redis),
            (Some(StoreKind::Embedded) | None, None) => Ok(StoreKind::Embedded),
        }
    }
}

/// `text` without the user and password of any URL in it.
pub fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let authority_ends = after.find(['/', '\n', '"', '\'']).unwrap_or(after.len());
        let user_ends = after[..authority_ends].rfind('@');
        clean.push_str(before);
        clean.push_str("://");
        rest = match user_ends {
            Some(end) => {
                clean.push_str("***");
                &after[end..]
            }
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_line_does_not_repeat_its_password() {
        for (text, clean) in [
            (
                "url = redis://u:p@ss@host/1 x",
                "url = redis://***@host/1 x",
            ),
            ("url = 'redis://host' # a@b", "url = 'redis://host' # a@b"),
            ("a://b@c d://e@f", "a://***@c d://***@f"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_passwords(text), clean);
        }
        let config = StoreConfig {
            url: Some("redis://u:hunter2@host".into()),
            ..StoreConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_url_is_enough_to_choose_redis_and_contradictions_are_refused() {
        let with = |kind, url: Option<&str>| {
            let url = url.map(SecretUrl::from);
            StoreConfig {
                kind,
                url,
                ..StoreConfig::default()
            }
            .checked_kind()
        };
        assert_eq!(with(None, None), Ok(StoreKind::Embedded));
        assert_eq!(with(None, Some("redis://a")), Ok(StoreKind::Redis));
        assert!(with(Some(StoreKind::Embedded), Some("redis://a")).is_err());
        assert!(with(Some(StoreKind::Redis), None).is_err());
    }
}
