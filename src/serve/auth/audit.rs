//! Rows about administrative calls: who did what to what, and what came of it.
//!
//! A call that needs the scope `deploy` or `admin` and changes something is answered after its row is
//! on the disk. It is not begun while the ledger takes no rows, and it is finished and recorded also
//! when the caller has gone. A handler that writes a row of its own, with more in it, says so with
//! [`Recorded`] in the extensions of its response.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

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

/// An administrative call.
pub struct Act {
    pub actor: String,
    /// Method and route, or the name of the call.
    pub action: String,
    /// What it is about: the parameters of the route.
    pub subject: String,
}

impl Act {
    /// Writes the row; it is on the disk when this returns.
    ///
    /// # Errors
    /// Why it is not, or not known to be.
    pub async fn record(
        self,
        ledger: &Ledger,
        outcome: &str,
        details: &Json,
    ) -> Result<(), String> {
        let audit = Audit {
            audit_id: clock::new_id().into_bytes().to_vec().into(),
            at_us: clock::now_us(),
            actor: self.actor,
            action: self.action,
            subject: shorten(&self.subject, MAX_SUBJECT_CHARS),
            reason: String::new(),
            outcome: shorten(outcome, MAX_OUTCOME_CHARS),
            details: match details {
                Json::Null => String::new(),
                details => details.to_string(),
            },
        };
        let durable = ledger.submit_audit(&audit);
        let durable = durable.map_err(|error| error.to_string())?;
        match tokio::time::timeout(DURABLE_WITHIN, durable).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the ledger was closed before it was written".to_owned()),
            Err(_) => Err(format!("it is not on the disk after {DURABLE_WITHIN:?}")),
        }
    }
}

/// Hands a row about keys that were changed beside the server to the ledger; nobody waits for it.
pub fn keys_changed(ledger: &Arc<Ledger>, details: &Json) {
    let audit = Audit {
        audit_id: clock::new_id().into_bytes().to_vec().into(),
        at_us: clock::now_us(),
        actor: "command line".to_owned(),
        action: "keys.change".to_owned(),
        subject: "keys".to_owned(),
        reason: String::new(),
        outcome: "done".to_owned(),
        details: details.to_string(),
    };
    if let Err(error) = ledger.submit_audit(&audit) {
        tracing::error!(%error, "no audit row about changed keys");
    }
}
