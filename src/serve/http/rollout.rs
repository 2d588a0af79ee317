//! `POST /v1/models/{name}/rollout`: who answers whom, changed while requests run.

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::JsonBody;
use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use crate::clock;
use crate::features::value::shorten;
use crate::models::catalog::version_number;
use crate::models::comparison::guardrails::Limits;
use crate::models::rollout::{Change, Guardrails, Roles, RolloutError, Share, Transition};
use crate::serve::App;
use crate::serve::auth::Caller;
use crate::serve::auth::audit::Recorded;

/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

/// A transition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutBody {
    action: Action,
    /// The version that it is about; of a rollback none, or the one that is expected to be taken back:
    /// another one is refused.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "3")]
    version: Option<VersionName>,
    /// Of a canary: its share of the customers, from 0.01 to 100 in steps of 0.01.
    #[serde(default)]
    #[schema(example = 5.0)]
    percent: Option<f64>,
    /// Why, for the audit row.
    #[serde(default)]
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Of a canary: where it is to be judged otherwise than the configuration says.
    #[serde(default)]
    guardrails: Option<GuardrailsBody>,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Score it beside the champion; its scores answer nobody.
    Shadow,
    /// Have it answer a share of the customers, or change that share.
    Canary,
    /// Have it answer everyone who names no version.
    Promote,
    /// End the canary; without one go back to the champion before this one.
    Rollback,
    /// Take it out of memory; its files stay.
    Retire,
    /// End its shadow, canary or retirement, and keep it loaded whatever the policy.
    Candidate,
}

/// A version, written as text or as a number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a version like \"3\"")]
enum VersionName {
    Number(u64),
    Text(String),
}

/// Bounds over which a canary is taken back; those that are left out are the configuration's.
#[derive(Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardrailsBody {
    /// By how much its share of failed requests may exceed the champion's, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.02)]
    max_error_rate: Option<f64>,
    /// How many times the champion's p95 its own may be, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 2.0)]
    max_latency_ratio: Option<f64>,
    /// The largest population stability index of its scores against the champion's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.25)]
    max_score_drift: Option<f64>,
}

/// The roles of a model's versions. Versions that are not in it are candidates.
#[derive(Serialize, ToSchema)]
pub struct RolesReply {
    model: String,
    /// Counts the transitions of the model; 0 when nothing was said of its versions, which go by their
    /// numbers then.
    revision: u64,
    #[schema(example = "2")]
    champion: String,
    /// The champions before it, newest first: a rollback returns to the first.
    before: Vec<String>,
    canary: Option<CanaryReply>,
    shadows: Vec<ShadowReply>,
    retired: Vec<String>,
    /// Candidates that are loaded whatever the policy, because somebody asked for them.
    candidates: Vec<String>,
    /// Canaries that the server has taken back by itself, until they get another role.
    taken_back: Vec<TakenBackReply>,
}

/// A canary that broke a limit.
#[derive(Serialize, ToSchema)]
pub struct TakenBackReply {
    version: String,
    /// RFC 3339.
    at: String,
    /// Which limit, what was found and what the champion did.
    reason: String,
}

/// A version that answers some of the customers.
#[derive(Serialize, ToSchema)]
pub struct CanaryReply {
    version: String,
    percent: f64,
    /// RFC 3339.
    since: String,
    guardrails: GuardrailsBody,
}

/// A version that is scored beside the champion.
#[derive(Serialize, ToSchema)]
pub struct ShadowReply {
    version: String,
    /// RFC 3339.
    since: String,
}

/// Change the role of a version.
///
/// The answer comes when the transition is recorded and in force: in the ledger's audit rows, with who
/// and why, and for every request from then on. Requests in flight are answered by the version that
/// they have begun with.
#[utoipa::path(
    post, path = "/v1/models/{name}/rollout", tag = "models",
    params(("name" = String, Path, description = "Model")),
    request_body = RolloutBody,
    responses(
        (status = 200, description = "The roles from now on", body = RolesReply),
        (status = 400, description = "Not JSON", body = ErrorBody),
        (status = 404, description = "Unknown model or version", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 409, description = "Not possible now; the reason says what is in the way", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "A field is wrong; it is named", body = ErrorBody),
        (status = 503, description = "The transition cannot be recorded now", body = ErrorBody),
    )
)]
pub async fn roll_out(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let actor = actor(&request);
    let JsonBody(body) = JsonBody::<RolloutBody>::from_request(request, &app).await?;
    let change = body.into_change(actor)?;
    let roles = app.rollouts.change_aside(name.clone(), change).await?;
    // The transition has left its own row.
    Ok((Extension(Recorded), Json(roles_reply(&name, &roles))).into_response())
}

/// Who makes the call, as audit rows say it.
pub fn actor(request: &Request) -> String {
    let caller = request.extensions().get::<Caller>();
    caller.unwrap_or(&Caller::Anonymous).to_string()
}

impl RolloutBody {
    fn into_change(self, actor: String) -> Result<Change, ApiError> {
        let reason = self.reason.unwrap_or_default();
        if reason.chars().count() > MAX_REASON {
            return Err(ApiError::unprocessable(format!(
                "reason: more than {MAX_REASON} characters"
            )));
        }
        let version = self.version.map(|version| version.number()).transpose()?;
        let is_canary = self.action == Action::Canary;
        for (field, is_given) in [
            ("percent", self.percent.is_some()),
            ("guardrails", self.guardrails.is_some()),
        ] {
            if is_given && !is_canary {
                return Err(ApiError::unprocessable(format!(
                    "{field}: only a canary has it"
                )));
            }
        }
        let named = || version.ok_or_else(|| ApiError::unprocessable("version: missing"));
        let transition = match self.action {
            Action::Shadow => Transition::Shadow { version: named()? },
            Action::Canary => Transition::Canary {
                version: named()?,
                share: share(self.percent)?,
                guardrails: self.guardrails.map(GuardrailsBody::checked).transpose()?,
            },
            Action::Promote => Transition::Promote { version: named()? },
            Action::Rollback => Transition::Rollback { from: version },
            Action::Retire => Transition::Retire { version: named()? },
            Action::Candidate => Transition::Candidate { version: named()? },
        };
        Ok(Change {
            transition,
            actor,
            reason,
        })
    }
}

fn share(percent: Option<f64>) -> Result<Share, ApiError> {
    let missing = "percent: missing; a canary answers a share of the customers, for example 5";
    let percent = percent.ok_or_else(|| ApiError::unprocessable(missing))?;
    Share::from_percent(percent).map_err(ApiError::unprocessable)
}

impl VersionName {
    fn number(&self) -> Result<u64, ApiError> {
        match self {
            VersionName::Number(number) => Ok(*number),
            VersionName::Text(text) => version_number(text).ok_or_else(|| {
                ApiError::unprocessable(format!(
                    "version: expected a version like \"3\", found {:?}",
                    shorten(text, 64)
                ))
            }),
        }
    }
}

impl GuardrailsBody {
    fn checked(self) -> Result<Guardrails, ApiError> {
        let guardrails = Guardrails {
            max_error_rate: self.max_error_rate,
            max_latency_ratio: self.max_latency_ratio,
            max_score_drift: self.max_score_drift,
        };
        let checked = Limits::default().with(&guardrails);
        checked
            .map(|_| guardrails)
            .map_err(|problem| ApiError::unprocessable(format!("guardrails.{problem}")))
    }
}

/// Roles as they are answered.
pub fn roles_reply(model: &str, roles: &Roles) -> RolesReply {
    let text = |versions: &[u64]| versions.iter().map(u64::to_string).collect();
    let canary = roles.canary.as_ref().map(|canary| CanaryReply {
        version: canary.version.to_string(),
        percent: canary.share.percent(),
        since: clock::to_rfc3339(canary.since_us),
        guardrails: GuardrailsBody {
            max_error_rate: canary.guardrails.max_error_rate,
            max_latency_ratio: canary.guardrails.max_latency_ratio,
            max_score_drift: canary.guardrails.max_score_drift,
        },
    });
    let shadows = roles.shadows.iter().map(|shadow| ShadowReply {
        version: shadow.version.to_string(),
        since: clock::to_rfc3339(shadow.since_us),
    });
    let taken_back = roles.taken_back.iter().map(|canary| TakenBackReply {
        version: canary.version.to_string(),
        at: clock::to_rfc3339(canary.at_us),
        reason: canary.reason.clone(),
    });
    RolesReply {
        model: model.to_owned(),
        revision: roles.revision,
        champion: roles.champion.to_string(),
        before: text(&roles.before),
        canary,
        shadows: shadows.collect(),
        retired: text(&roles.retired),
        candidates: text(&roles.candidates),
        taken_back: taken_back.collect(),
    }
}

impl From<RolloutError> for ApiError {
    fn from(error: RolloutError) -> ApiError {
        let message = error.to_string();
        match error {
            RolloutError::Unknown(problem) => problem.into(),
            RolloutError::Refused { .. }
            | RolloutError::Unfit { .. }
            | RolloutError::LeftOut { .. } => ApiError::new(StatusCode::CONFLICT, message),
            RolloutError::Ledger(_) => ApiError::unavailable(message, 1),
            RolloutError::Unconfirmed => ApiError::unavailable(message, 5),
        }
    }
}
