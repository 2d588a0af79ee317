//! `GET /v1/audit`: the last administrative acts, as the ledger has them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::{ApiError, ErrorBody};
use crate::clock;
use crate::features::value::shorten;
use crate::ledger::{Audit, LastAudits, last_audits};
use crate::serve::App;

/// Rows in an answer when nobody says how many.
const DEFAULT_LIMIT: usize = 100;

/// The most rows in one answer; the whole table comes with `bellwether ledger export`.
const MAX_LIMIT: usize = 10_000;

#[derive(Deserialize)]
struct AuditQuery {
    limit: Option<usize>,
}

/// The last administrative acts.
#[derive(Serialize, ToSchema)]
pub struct AuditReply {
    /// The newest first.
    acts: Vec<ActReply>,
    /// Whether there are no others before these.
    complete: bool,
}

/// One administrative act.
#[derive(Serialize, ToSchema)]
pub struct ActReply {
    audit_id: String,
    at: String,
    /// `key:<id>`, `anonymous` on a server without keys, `command line`, or `server` when it acted by
    /// itself.
    actor: String,
    /// What was done: a name like `model.promote`, or the method and route of a call.
    action: String,
    /// To what.
    subject: String,
    /// Why, in the words of whoever did it.
    reason: String,
    /// `done`, or what was wrong.
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

/// The last administrative acts, the newest first.
///
/// Every call that needs the scope `deploy` or `admin` and changes something is one, whatever came of
/// it, and so is every step of a model's rollout and every change of API keys.
#[utoipa::path(
    get, path = "/v1/audit", tag = "operation",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 10_000, description = "How many at most; 100 when left out")),
    responses(
        (status = 200, description = "The acts", body = AuditReply),
        (status = 400, description = "The limit is wrong", body = ErrorBody),
        (status = 429, description = "Somebody else is reading them", body = ErrorBody),
        (status = 503, description = "The ledger cannot be read now", body = ErrorBody),
    )
)]
pub async fn last_acts(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<AuditReply>, ApiError> {
    let limit = limit_of(&request)?;
    let Ok(place) = Arc::clone(&app.auth.reading_audit).try_acquire_owned() else {
        return Err(ApiError::busy("somebody else is reading the audit rows", 1));
    };
    let data_dir = app.config.data_dir.clone();
    let read = tokio::task::spawn_blocking(move || {
        let _place = place;
        last_audits(&data_dir, limit)
    })
    .await;
    let read =
        read.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let LastAudits { newest, complete } = read.map_err(|error| ApiError::unavailable(error, 5))?;
    Ok(Json(AuditReply {
        acts: newest.into_iter().map(act).collect(),
        complete,
    }))
}

fn limit_of(request: &Request) -> Result<usize, ApiError> {
    let expected = format!("query limit: expected a whole number from 1 to {MAX_LIMIT}");
    let query = Query::<AuditQuery>::try_from_uri(request.uri()).map_err(|rejection| {
        let found = shorten(&rejection.body_text(), 200);
        ApiError::bad_request(format!("{expected}: {found}"))
    })?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    match (1..=MAX_LIMIT).contains(&limit) {
        true => Ok(limit),
        false => Err(ApiError::bad_request(format!("{expected}, found {limit}"))),
    }
}

fn act(audit: Audit) -> ActReply {
    let id = Uuid::from_slice(&audit.audit_id).unwrap_or_default();
    ActReply {
        audit_id: id.to_string(),
        at: clock::to_rfc3339(audit.at_us),
        actor: audit.actor,
        action: audit.action,
        subject: audit.subject,
        reason: audit.reason,
        outcome: audit.outcome,
        details: serde_json::from_str(&audit.details).ok(),
    }
}
