//! Changed files of keys and certificates, taken while the server serves.
//!
//! One thread looks every second. What cannot be taken leaves what is in force, is said once in the
//! log and counted; it is looked at again when it changes. A change of keys leaves an audit row; one that
//! the ledger does not take is offered again at every look.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::counter;

use super::key_file::{self, KeyFile};
use super::unrecorded::Unrecorded;
use super::{Auth, audit, changes_between};
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
    /// Starts it. `keys` are those that are in force.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        auth: Arc<Auth>,
        keys: KeyFile,
        tls: Option<Arc<Tls>>,
        ledger: Arc<Ledger>,
    ) -> std::io::Result<Watch> {
        let (stop, stopped) = channel();
        let mut keys = Keys {
            auth,
            in_force: keys,
            seen: None,
            ledger,
            unrecorded: Unrecorded::default(),
        };
        let mut certificate = tls.map(|tls| Certificate { tls, problem: None });
        let watch = move || {
            while is_running(&stopped) {
                keys.look();
                if let Some(certificate) = &mut certificate {
                    certificate.look();
                }
            }
            keys.end();
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
    in_force: KeyFile,
    /// What the file was found to be, or why it could not be read; `None` before the first look.
    seen: Option<Result<Option<String>, String>>,
    ledger: Arc<Ledger>,
    unrecorded: Unrecorded,
}

impl Keys {
    fn look(&mut self) {
        self.look_at_file();
        self.record();
    }

    /// Hands the rows that wait to the ledger; returns how many still wait.
    fn record(&mut self) -> usize {
        let ledger = &self.ledger;
        // Nobody waits for the disk: what the ledger has taken it writes.
        self.unrecorded
            .hand_over(|row| ledger.submit_audit(row).map(drop))
    }

    fn end(&mut self) {
        let lost = self.record();
        if lost > 0 {
            tracing::error!(
                lost,
                "audit rows about changed keys were not taken by the ledger to the end"
            );
        }
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
        let changes = changes_between(&self.in_force, &keys);
        self.in_force = keys;
        if changes == super::KeyChanges::default() {
            return Ok(());
        }
        tracing::info!(
            added = changes.added.join(", "),
            changed = changes.changed.join(", "),
            removed = changes.removed.join(", "),
            "API keys changed"
        );
        let details = serde_json::to_value(&changes).map_err(|error| error.to_string())?;
        self.unrecorded.push(audit::keys_changed(&details));
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
