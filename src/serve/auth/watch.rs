//! Changed files of keys and certificates, taken while the server serves.
//!
//! One thread looks every second. What cannot be taken leaves what is in force, is said once in the
//! log and counted; it is looked at again when it changes. A change of keys leaves an audit row, also one
//! that was made before the start ([`super::record`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::counter;

use super::Auth;
use super::key_file::{self, KeyFile};
use super::record::{Fingerprints, KeyChanges, KeyRecord, fingerprints};
use crate::ledger::Ledger;
use crate::serve::tls::Tls;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The thread; it ends when this is dropped.
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it. `keys` are those that are in force, and `ledger` that of `data_dir`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        auth: Arc<Auth>,
        keys: KeyFile,
        tls: Option<Arc<Tls>>,
        ledger: Arc<Ledger>,
        data_dir: PathBuf,
    ) -> std::io::Result<Watch> {
        let (stop, stopped) = channel();
        let mut certificate = tls.map(|tls| Certificate { tls, problem: None });
        let watch = move || {
            let mut keys = Keys {
                auth,
                in_force: fingerprints(&keys),
                seen: None,
                record: KeyRecord::open(&data_dir, ledger),
            };
            // What was changed before the start.
            keys.record.look(&keys.in_force);
            while is_running(&stopped) {
                keys.look();
                if let Some(certificate) = &mut certificate {
                    certificate.look();
                }
            }
            // What does not get to the ledger any more is found at the next start.
            keys.record.look(&keys.in_force);
        };
        let thread = std::thread::Builder::new()
            .name("security".to_owned())
            .spawn(watch)?;
        Ok(Watch {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported.
            let _ = thread.join();
        }
    }
}

/// Waits until it is time for another look; false when there is none.
fn is_running(stopped: &Receiver<()>) -> bool {
    stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout)
}

struct Keys {
    auth: Arc<Auth>,
    in_force: Fingerprints,
    /// What the file was found to be, or why it could not be read; `None` before the first look.
    seen: Option<Result<Option<String>, String>>,
    record: KeyRecord,
}

impl Keys {
    fn look(&mut self) {
        self.look_at_file();
        self.record.look(&self.in_force);
    }

    fn look_at_file(&mut self) {
        let found = key_file::read_text(self.auth.file());
        if self.seen.as_ref() == Some(&found) {
            return;
        }
        let taken = self.take(&found);
        self.seen = Some(found);
        if let Err(problem) = taken {
            counter!("bellwether_security_reload_errors_total", "file" => "keys").increment(1);
            let file = self.auth.file().display();
            tracing::error!(file = %file, problem, "the API keys in force stay as they are");
        }
    }

    fn take(&mut self, found: &Result<Option<String>, String>) -> Result<(), String> {
        let keys = match found {
            Ok(Some(text)) => KeyFile::parse(text)?,
            Ok(None) => KeyFile::default(),
            Err(problem) => return Err(problem.clone()),
        };
        self.auth.replace(&keys)?;
        let before = std::mem::replace(&mut self.in_force, fingerprints(&keys));
        let changes = KeyChanges::between(&before, &self.in_force);
        if changes.are_none() {
            return Ok(());
        }
        tracing::info!(
            added = changes.added.join(", "),
            changed = changes.changed.join(", "),
            removed = changes.removed.join(", "),
            "API keys changed"
        );
        Ok(())
    }
}

struct Certificate {
    tls: Arc<Tls>,
    /// What was wrong at the last look.
    problem: Option<String>,
}

impl Certificate {
    fn look(&mut self) {
        match self.tls.reload() {
            Ok(false) => {}
            Ok(true) => {
                self.problem = None;
                tracing::info!("certificate and key changed; new connections get them");
            }
            Err(problem) => {
                if self.problem.as_ref() != Some(&problem) {
                    counter!("bellwether_security_reload_errors_total", "file" => "certificate")
                        .increment(1);
                    tracing::error!(problem, "the certificate in force stays as it is");
                }
                self.problem = Some(problem);
            }
        }
    }
}
