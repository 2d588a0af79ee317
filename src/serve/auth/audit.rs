//! Rows about administrative calls: who did what to what, and what came of it.
//!
//! A call that needs the scope `deploy` or `admin` and changes something is answered after its row is
//! on the disk. It is not begun while the ledger takes no rows, and it is finished and recorded also
//! when the caller has gone. One that is given up, because the server stops or by a panic, leaves a row
//! that says so ([`UnderWay`]). A handler that writes a row of its own, with more in it, says so with
//! [`Recorded`] in the extensions of its response.
//!
//! A call that is refused because of its key leaves a row when the key is known; nobody waits for that
//! one, and only so many of them are written ([`refused`]).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{Auth, Denial};
use crate::clock;
use crate::features::value::shorten;
use crate::ledger::{Audit, Ledger};

/// In the extensions of a response: the handler has written the row itself.
#[derive(Clone, Copy)]
pub struct Recorded;

/// How long a row may take to the disk before the caller is told that it is not known to be there.
const DURABLE_WITHIN: Duration = Duration::from_secs(5);

/// How much of a subject and of a refusal a row holds, in characters.
const MAX_SUBJECT_CHARS: usize = 200;
const MAX_OUTCOME_CHARS: usize = 1000;

/// What came of a call that ended without an answer.
const GIVEN_UP: &str =
    "given up: the server stopped or failed before it was done; it may be done in part";

/// Rows about refused keys that are written in a second, and at once: whoever holds a key without rights
/// could fill the ledger otherwise. The others are counted by `bellwether_denied_total`.
pub const REFUSED_ROWS_PER_SECOND: f64 = 1.0;
pub const REFUSED_ROWS_AT_ONCE: u32 = 100;

/// An administrative call.
pub struct Act {
    pub actor: String,
    /// Method and route, or the name of the call.
    pub action: String,
    /// What it is about: the parameters of the route. Over gRPC it is known once the message is here.
    pub subject: Arc<OnceLock<String>>,
}

/// A call that has begun. However it ends, it leaves a row.
pub struct UnderWay {
    act: Act,
    ledger: Arc<Ledger>,
    /// It has a row: this one's own or a richer one.
    is_recorded: bool,
}

impl Act {
    /// From here on it leaves a row.
    pub fn begin(self, ledger: &Arc<Ledger>) -> UnderWay {
        UnderWay {
            act: self,
            ledger: Arc::clone(ledger),
            is_recorded: false,
        }
    }

    fn row(&self, outcome: &str, details: &Json) -> Audit {
        let subject = self.subject.get().map_or("", String::as_str);
        Audit {
            audit_id: clock::new_id().into_bytes().to_vec().into(),
            at_us: clock::now_us(),
            actor: self.actor.clone(),
            action: self.action.clone(),
            subject: shorten(subject, MAX_SUBJECT_CHARS),
            reason: String::new(),
            outcome: shorten(outcome, MAX_OUTCOME_CHARS),
            details: match details {
                Json::Null => String::new(),
                details => details.to_string(),
            },
        }
    }
}

impl UnderWay {
    /// Writes the row; it is on the disk when this returns.
    ///
    /// # Errors
    /// Why it is not, or not known to be.
    pub async fn record(mut self, outcome: &str, details: &Json) -> Result<(), String> {
        self.is_recorded = true;
        let durable = self.ledger.submit_audit(&self.act.row(outcome, details));
        let durable = durable.map_err(|error| error.to_string())?;
        match tokio::time::timeout(DURABLE_WITHIN, durable).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the ledger was closed before it was written".to_owned()),
            Err(_) => Err(format!("it is not on the disk after {DURABLE_WITHIN:?}")),
        }
    }

    /// Somebody else has written a row about it.
    pub fn recorded_elsewhere(mut self) {
        self.is_recorded = true;
    }
}

impl Drop for UnderWay {
    /// Nobody waits for the row; a ledger that is closed after this writes it.
    fn drop(&mut self) {
        if self.is_recorded {
            return;
        }
        let row = self.act.row(GIVEN_UP, &Json::Null);
        if let Err(error) = self.ledger.submit_audit(&row) {
            let action = &self.act.action;
            tracing::error!(%error, action, "no audit row about a call that was given up");
        }
    }
}

/// Hands a row about a call that its key may not make to the ledger: of a key that is known, and not of
/// one that only was too fast.
pub fn refused(auth: &Auth, ledger: &Ledger, act: &Act, denial: &Denial) {
    let is_over_bound = auth.refused_rows.take().is_err();
    if is_over_bound {
        return;
    }
    let details = json!({"refused": denial.word()});
    if let Err(error) = ledger.submit_audit(&act.row(&denial.to_string(), &details)) {
        tracing::error!(%error, action = act.action, "no audit row about a refused call");
    }
}

/// A row about keys that were changed beside the server.
pub fn about_keys(id: Uuid, at_us: i64, actor: &str, action: &str, details: &Json) -> Audit {
    Audit {
        audit_id: id.into_bytes().to_vec().into(),
        at_us,
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: "keys".to_owned(),
        reason: String::new(),
        outcome: "done".to_owned(),
        details: details.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::ledger::{LedgerOptions, last_audits};
    use crate::serve::finishing::Finishing;

    fn act(action: &str) -> Act {
        Act {
            actor: "key:a1".to_owned(),
            action: action.to_owned(),
            subject: Arc::new(OnceLock::from("churn".to_owned())),
        }
    }

    /// Action, subject and outcome of every row, the oldest first.
    fn rows(data_dir: &Path) -> Vec<(String, String, String)> {
        let newest = last_audits(data_dir, 100).unwrap().newest;
        let rows = newest.into_iter().rev();
        rows.map(|row| (row.action, row.subject, row.outcome))
            .collect()
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_at_the_stop_leaves_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(dir.path(), LedgerOptions::default()).unwrap());
        // Given a call that is done, one whose handler has a row of its own, and one that does not end
        let finishing = Finishing::default();
        let done = act("done").begin(&ledger);
        finishing
            .finish(async move { done.record("done", &Json::Null).await })
            .await
            .unwrap()
            .unwrap();
        act("elsewhere").begin(&ledger).recorded_elsewhere();
        let stuck = act("stuck").begin(&ledger);
        let waiting = finishing.finish(async move {
            std::future::pending::<()>().await;
            stuck.record("done", &Json::Null).await
        });
        assert!(futures_util::poll!(Box::pin(waiting)).is_pending());
        // When the server stops
        assert_eq!(finishing.wait(Instant::now()).await, 1);
        ledger.close().unwrap();
        // Then the first and the last have a row each
        let row = |action: &str, outcome: &str| {
            (action.to_owned(), "churn".to_owned(), outcome.to_owned())
        };
        assert_eq!(
            rows(dir.path()),
            [row("done", "done"), row("stuck", GIVEN_UP)]
        );
    }
}
