//! Who may do what: API keys with scopes, rates, and the record of administrative calls.
//!
//! Every route and every gRPC call says what it asks for ([`Access`]); nothing is registered without.
//! A caller shows a key in the header `Authorization: Bearer bw_…`, and [`Auth::admit`] says whether
//! it may. A server that has no keys grants everything, and refuses to listen where other machines
//! reach it, unless it is told to.
//!
//! A server that has had keys never opens again while it runs: a file that is gone, empty or broken
//! leaves the keys that were in force, and the log says so.
//!
//! * [`scope`] – what can be asked for and allowed.
//! * [`secret`] – keys as text, digests, comparison.
//! * [`key_file`] – the file of keys.
//! * [`ring`], [`bucket`] – the keys in force and their rates.
//! * [`audit`] – rows about administrative calls; [`record`] – what they have said of the keys.
//! * [`site`] – pages of other sites, whose requests a server without keys refuses.
//! * [`watch`] – changed files of keys and certificates, taken while the server runs.

pub mod audit;
pub mod bucket;
pub mod key_file;
pub mod record;
pub mod ring;
pub mod scope;
pub mod secret;
mod site;
pub mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, header};
use metrics::counter;
use tokio::sync::Semaphore;

use self::bucket::Bucket;
use self::key_file::KeyFile;
pub use self::ring::Denial;
use self::ring::{Holder, Ring};
pub use self::scope::{Access, Scope};
use self::site::other_site;
use crate::clock;
use crate::config::Config;
use crate::features::value::shorten;

/// Who may do what, on one server.
pub struct Auth {
    file: PathBuf,
    /// `None` while there are no keys: everything is granted.
    ring: ArcSwapOption<Ring>,
    /// Whether there is a ring; what a server without keys looks at.
    has_keys: AtomicBool,
    /// Held by whoever reads the audit rows: one at a time.
    pub reading_audit: Arc<Semaphore>,
    /// Whether pages of any site may use a server without keys.
    takes_other_sites: bool,
    /// The rows about refused keys that may be written.
    refused_rows: Bucket,
}

/// Who makes a call. In the extensions of every request that goes through the routes.
#[derive(Clone)]
pub enum Caller {
    /// Nobody asked for a key.
    Anonymous,
    Holder(Holder),
}

/// As it stands in audit rows.
impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Caller::Anonymous => f.write_str("anonymous"),
            Caller::Holder(holder) => write!(f, "key:{}", holder.id),
        }
    }
}

impl Auth {
    /// Reads the keys of the configuration, and refuses addresses that must not be listened on without
    /// any.
    ///
    /// # Errors
    /// What is wrong with the file, or which address it is.
    pub fn open(config: &Config) -> Result<(Auth, KeyFile), String> {
        let file = config.security.keys_file(&config.data_dir);
        let keys = key_file::read(&file)?;
        if keys.keys.is_empty() {
            refuse_remote(config, &file)?;
        }
        let auth = Auth {
            ring: ArcSwapOption::empty(),
            has_keys: AtomicBool::new(false),
            reading_audit: Arc::new(Semaphore::new(1)),
            takes_other_sites: config.allow_remote_without_keys,
            refused_rows: Bucket::new(audit::REFUSED_ROWS_PER_SECOND, audit::REFUSED_ROWS_AT_ONCE),
            file,
        };
        if !keys.keys.is_empty() {
            auth.put_in_force(Ring::new(&keys, None));
        }
        Ok((auth, keys))
    }

    /// The file of keys.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Says in the log who may use the server.
    pub fn announce(&self, config: &Config, has_tls: bool) {
        let file = self.file.display();
        match &*self.ring.load() {
            Some(ring) => {
                let usable = ring.usable(clock::now_us());
                tracing::info!(file = %file, usable, "API keys are asked for");
                if !has_tls && is_remote(config) {
                    tracing::warn!(
                        "API keys and data travel in plain text to other machines: there is no TLS \
                         here; fine behind a proxy that has it"
                    );
                }
                if usable == 0 {
                    tracing::warn!(file = %file, "every key is revoked or expired: nobody is let in");
                }
            }
            None => {
                let remote = config.allow_remote_without_keys;
                tracing::warn!(
                    file = %file,
                    remote,
                    "no API keys: every scope is granted to everyone who can reach this server"
                );
            }
        }
    }

    /// Puts other keys in force. No keys leave those that are.
    ///
    /// # Errors
    /// When there are keys in force and none in the file.
    pub fn replace(&self, keys: &KeyFile) -> Result<(), String> {
        let before = self.ring.load_full();
        if keys.keys.is_empty() {
            return match before {
                Some(_) => Err("it holds no keys any more".to_owned()),
                None => Ok(()),
            };
        }
        self.put_in_force(Ring::new(keys, before.as_deref()));
        Ok(())
    }

    fn put_in_force(&self, ring: Ring) {
        self.ring.store(Some(Arc::new(ring)));
        self.has_keys.store(true, Ordering::Release);
    }

    /// Whether whoever sends these headers may do what asks for `access`.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, headers: &HeaderMap, access: Access) -> Result<Caller, Denial> {
        let Access::Needs(scope) = access else {
            return Ok(Caller::Anonymous);
        };
        if !self.has_keys.load(Ordering::Acquire) {
            return self.admit_nobody(headers).inspect_err(count);
        }
        let ring = self.ring.load();
        let Some(ring) = &*ring else {
            return self.admit_nobody(headers).inspect_err(count);
        };
        let admitted =
            shown_key(headers).and_then(|shown| ring.admit(shown, scope, &clock::now_us));
        admitted.map(Caller::Holder).inspect_err(count)
    }

    /// Who is on the machine may do everything, and so a page of any site could, in the browser of
    /// somebody who is. Browsers say for which site they ask.
    fn admit_nobody(&self, headers: &HeaderMap) -> Result<Caller, Denial> {
        match other_site(headers) {
            Some(origin) if !self.takes_other_sites => Err(Denial::OtherSite {
                origin: shorten(&origin, 100),
            }),
            _ => Ok(Caller::Anonymous),
        }
    }

    /// Whether a caller that was admitted may do it once more: for streams, whose messages are requests.
    ///
    /// # Errors
    /// Why not any more.
    pub fn admit_again(&self, caller: &Caller, scope: Scope) -> Result<(), Denial> {
        self.look_again(caller, |ring, holder| {
            ring.admit_again(holder, scope, &clock::now_us)
        })
    }

    /// Whether a caller that was admitted still may do it: for calls whose message comes long after. It
    /// counts as the same request.
    ///
    /// # Errors
    /// Why not any more.
    pub fn still_admits(&self, caller: &Caller, scope: Scope) -> Result<(), Denial> {
        self.look_again(caller, |ring, holder| {
            ring.still_admits(holder, scope, &clock::now_us)
        })
    }

    fn look_again(
        &self,
        caller: &Caller,
        look: impl FnOnce(&Ring, &Holder) -> Result<(), Denial>,
    ) -> Result<(), Denial> {
        let ring = self.ring.load();
        let admitted = match (&*ring, caller) {
            (None, _) => Ok(()),
            // There were no keys when it came.
            (Some(_), Caller::Anonymous) => Err(Denial::Missing),
            (Some(ring), Caller::Holder(holder)) => look(ring, holder),
        };
        admitted.inspect_err(count)
    }
}

fn count(denial: &Denial) {
    counter!("bellwether_denied_total", "reason" => denial.word()).increment(1);
}

/// The key in the header `Authorization`.
fn shown_key(headers: &HeaderMap) -> Result<&str, Denial> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Denial::Missing),
        (Some(value), None) => value.to_str().map_err(|_| Denial::Unreadable)?,
        // Two could be meant for two different readers.
        (Some(_), Some(_)) => return Err(Denial::Unreadable),
    };
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
        _ => Err(Denial::Unreadable),
    }
}

/// Whether other machines can reach it.
fn is_remote(config: &Config) -> bool {
    let http = config.listen_address().ok();
    let grpc = config.grpc_listen_address().ok().flatten();
    let addresses = http.into_iter().chain(grpc);
    addresses
        .into_iter()
        .any(|address| !address.ip().is_loopback())
}

/// Refuses to listen where other machines can reach a server that has no keys.
fn refuse_remote(config: &Config, file: &Path) -> Result<(), String> {
    if config.allow_remote_without_keys {
        return Ok(());
    }
    let refuse = |setting: &str, address: SocketAddr| {
        format!(
            "{setting}: {address} can be reached from other machines, and there are no API keys in \
             {}, so everyone who reaches it may read and write; make one with `bellwether keys \
             create`, listen on 127.0.0.1, or say --allow-remote-without-keys",
            file.display()
        )
    };
    let http = ("listen", Some(config.listen_address()?));
    let grpc = ("grpc_listen", config.grpc_listen_address()?);
    for (setting, address) in [http, grpc] {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            return Err(refuse(setting, address));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(header::AUTHORIZATION, value);
        }
        headers
    }

    #[test]
    fn a_key_is_read_from_one_bearer_header_only() {
        for (values, shown) in [
            (&["Bearer k"][..], Ok("k")),
            (&["bearer  k "], Ok("k")),
            (&[], Err(Denial::Missing)),
            (&["k"], Err(Denial::Unreadable)),
            (&["Basic k"], Err(Denial::Unreadable)),
            (&["Bearer ä"], Err(Denial::Unreadable)),
            (&["Bearer k", "Bearer k"], Err(Denial::Unreadable)),
        ] {
            assert_eq!(shown_key(&headers(values)), shown, "{values:?}");
        }
    }

    #[test]
    fn an_address_that_others_reach_is_refused_without_keys() {
        let dir = tempfile::tempdir().unwrap();
        let with = |listen: &str, grpc: Option<&str>, allowed| Config {
            listen: listen.to_owned(),
            grpc_listen: grpc.map(str::to_owned),
            allow_remote_without_keys: allowed,
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let refused = |config: &Config| Auth::open(config).err();
        assert_eq!(refused(&with("127.0.0.1:0", Some("[::1]:0"), false)), None);
        for (listen, grpc) in [("0.0.0.0:0", None), ("127.0.0.1:0", Some("[::]:0"))] {
            let said = refused(&with(listen, grpc, false)).unwrap();
            assert!(said.contains("--allow-remote-without-keys"), "{said}");
            assert_eq!(refused(&with(listen, grpc, true)), None);
        }
        // And a key opens the way
        let key = secret::new_key("a1").unwrap();
        let text = format!(
            "[[key]]\nid = \"a1\"\nname = \"\"\nsha256 = {}\nscopes = [\"score\"]\n\
             created = \"2026-01-31T12:00:00Z\"\n",
            serde_json::to_string(&key.digest).unwrap()
        );
        std::fs::write(dir.path().join("keys.toml"), text).unwrap();
        let remote = with("0.0.0.0:0", None, false);
        let (auth, keys) = Auth::open(&remote).unwrap();
        assert_eq!(keys.keys.len(), 1);
        // And there is no way back to none
        assert!(auth.replace(&KeyFile::default()).is_err());
        let needs = Access::Needs(Scope::Score);
        assert!(auth.admit(&headers(&[]), needs).is_err());
        let shown = headers(&[&format!("Bearer {}", key.text)]);
        let caller = auth.admit(&shown, needs).unwrap();
        assert_eq!(caller.to_string(), "key:a1");
        assert_eq!(auth.admit_again(&caller, Scope::Score), Ok(()));
        // Who came before there were keys has none
        let anonymous = auth.still_admits(&Caller::Anonymous, Scope::Score);
        assert_eq!(anonymous, Err(Denial::Missing));
        assert!(auth.admit(&headers(&[]), Access::Public).is_ok());
    }
}
