//! `GET /v1/models`: what is loaded, what each version is for, and how it does.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::aside::aside;
use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use super::rollout::{RolesReply, roles_reply};
use super::score::task_word;
use crate::clock;
use crate::models::catalog::{Entry, Model};
use crate::models::comparison::canary::CanaryReport;
use crate::models::comparison::guardrails::Limits;
use crate::models::comparison::shadow::ShadowReport;
use crate::models::rollout::Role;
use crate::models::version::{FileDigest, hexadecimal};
use crate::serve::App;

/// Every model version.
#[derive(Serialize, ToSchema)]
pub struct ModelsReply {
    models: Vec<ModelReply>,
}

/// One version folder.
#[derive(Serialize, ToSchema)]
pub struct ModelReply {
    name: String,
    version: String,
    /// What it is for: "champion" answers whoever names no version, "canary" some of the customers in
    /// its place, "shadow" is scored beside it and answers nobody, "candidate" answers when it is
    /// named, "retired" is not loaded. "unavailable", whatever its role, cannot answer.
    state: &'static str,
    /// The role alone, whether it can answer or not.
    role: &'static str,
    /// Of the canary: its share of the customers.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    /// Of the canary and of a shadow: since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Whether a rollback would make it the champion.
    before: bool,
    scores: ScoresReply,
    /// Of a version in shadow: how it compares with those that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<ShadowReport>,
    /// Of the canary: how it and the champion do beside each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<CanaryReport>,
    /// What is wrong with a version in shadow or in canary, why the server has taken it back as canary, why
    /// it was refused or is not served as its files are now, or why it is served under /v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'static str>,
    /// The feature view it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    /// The features its inputs are bound to.
    features: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    /// SHA-256 over model.onnx and model.toml, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// The files it was built from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileDigest>,
}

/// Scores of customers by one version since the server started; of one in shadow, since it is.
#[derive(Serialize, ToSchema)]
pub struct ScoresReply {
    /// Those that answered, and those that failed: another version answered, or nobody.
    requests: u64,
    errors: u64,
    /// Milliseconds that the model took, reasons included, to an eighth.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastErrorReply>,
}

#[derive(Serialize, ToSchema)]
pub struct LastErrorReply {
    message: String,
    /// RFC 3339.
    at: String,
}

/// One model.
#[derive(Serialize, ToSchema)]
pub struct ModelDetailReply {
    name: String,
    /// The version that answers whoever names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    champion: Option<String>,
    /// Why that is not the version that was said to, or why none answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    stand_in: Option<String>,
    /// What was said of its versions, and what follows from their numbers where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<RolesReply>,
    versions: Vec<ModelReply>,
}

/// List every model version with its state.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "Every version folder", body = ModelsReply))
)]
pub async fn list_models(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    aside(move || {
        let catalog = app.scorer.repository.catalog();
        let names = catalog.names().into_iter();
        let models = names
            .filter_map(|name| catalog.model(name))
            .flat_map(|model| describe_all(&app, model, false))
            .collect();
        Json(ModelsReply { models }).into_response()
    })
    .await
}

/// One model: its versions, their roles, and how they do.
#[utoipa::path(
    get, path = "/v1/models/{name}", tag = "models",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "The model", body = ModelDetailReply),
        (status = 404, description = "Unknown model", body = ErrorBody),
    )
)]
pub async fn show_model(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<Response, ApiError> {
    aside(move || {
        let catalog = app.scorer.repository.catalog();
        let model = catalog.known(&name)?;
        let roles = model.roles_or_unsaid();
        let reply = ModelDetailReply {
            champion: model.champion().map(|version| version.version.clone()),
            stand_in: model.stand_in(),
            roles: roles.map(|roles| roles_reply(&name, &roles)),
            versions: describe_all(&app, model, true),
            name,
        };
        Ok(Json(reply).into_response())
    })
    .await?
}

/// Every version of a model, with all figures of the comparisons or only what follows from them.
fn describe_all(app: &App, model: &Model, with_figures: bool) -> Vec<ModelReply> {
    let limits = app.config.rollout.guardrails();
    let described = |(number, entry)| {
        let mut reply = describe(model, number, entry);
        add_comparisons(&mut reply, model, number, entry, &limits);
        if !with_figures {
            reply.shadow = None;
            reply.canary = None;
        }
        reply
    };
    model.numbered().map(described).collect()
}

/// Adds how a version does beside the one that answers, and what is wrong with it.
fn add_comparisons(
    reply: &mut ModelReply,
    model: &Model,
    number: u64,
    entry: &Entry,
    limits: &Limits,
) {
    let shadow = entry.statistics.watched.shadow();
    reply.shadow = shadow.map(|comparison| comparison.report(limits));
    let is_canary = model.role(number) == Role::Canary;
    let watch = model.watch().filter(|_| is_canary);
    reply.canary = watch.map(|watch| watch.report());
    let mut problems = Vec::new();
    if let Some(report) = &reply.shadow {
        reply.scores = ScoresReply {
            requests: report.pairs + report.errors,
            errors: report.errors,
            p50_ms: (report.pairs > 0).then_some(report.latency.p50_ms),
            p99_ms: (report.pairs > 0).then_some(report.latency.p99_ms),
            last_error: report
                .last_error
                .clone()
                .zip(report.last_error_at.clone())
                .map(|(message, at)| LastErrorReply { message, at }),
        };
        problems.extend(report.faults.iter().cloned());
    }
    if let Some(report) = &reply.canary {
        problems.extend(report.breach.clone());
    }
    let taken_back = model.roles().and_then(|roles| roles.taken_back(number));
    problems.extend(taken_back.map(|canary| {
        let at = clock::to_rfc3339(canary.at_us);
        format!("taken back as canary at {at}: {}", canary.reason)
    }));
    problems.extend(reply.reason.take());
    reply.reason = (!problems.is_empty()).then(|| problems.join("; "));
}

fn describe(model: &Model, number: u64, entry: &Entry) -> ModelReply {
    let role = model.role(number);
    let said = model.roles();
    let canary = said
        .and_then(|roles| roles.canary.as_ref())
        .filter(|canary| canary.version == number);
    let shadow = said.and_then(|roles| {
        let mut shadows = roles.shadows.iter();
        shadows.find(|shadow| shadow.version == number)
    });
    let since_us = canary.map(|canary| canary.since_us);
    let since_us = since_us.or(shadow.map(|shadow| shadow.since_us));
    let mut reply = ModelReply {
        name: entry.name.clone(),
        version: entry.version.clone(),
        state: match &entry.state {
            Err(_) if role != Role::Retired => "unavailable",
            _ => role.word(),
        },
        role: role.word(),
        percent: canary.map(|canary| canary.share.percent()),
        since: since_us.map(clock::to_rfc3339),
        before: said.is_some_and(|roles| roles.before.first() == Some(&number)),
        scores: scores(entry),
        shadow: None,
        canary: None,
        reason: None,
        task: None,
        view: None,
        features: Vec::new(),
        description: String::new(),
        digest: None,
        files: Vec::new(),
    };
    let version = match &entry.state {
        Ok(version) => version,
        Err(reason) => {
            reply.reason = Some(reason.clone());
            return reply;
        }
    };
    let not_reloaded = entry.not_reloaded.as_ref();
    let mut reasons: Vec<String> = not_reloaded
        .map(|problem| format!("served as it was before: {problem}"))
        .into_iter()
        .collect();
    reply.files = version.files.to_vec();
    reply.digest = Some(hexadecimal(&version.digest));
    if let Some(manifest) = &version.manifest {
        reply.description.clone_from(&manifest.model.description);
    }
    match &version.scoring {
        Ok(scoring) => {
            reply.task = Some(task_word(scoring.task));
            reply.view = Some(scoring.view.name.clone());
            let names = scoring.input_features.iter();
            reply.features = names
                .map(|&column| scoring.view.features()[column].name.clone())
                .collect();
        }
        Err(problems) => {
            reasons.push(format!("served under /v2 only: {}", problems.join("; ")));
        }
    }
    if role == Role::Champion {
        reasons.extend(model.stand_in());
    }
    reply.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    reply
}

fn scores(entry: &Entry) -> ScoresReply {
    let scores = &entry.statistics.scores;
    let counts = scores.read();
    let milliseconds = |share| {
        let latency = counts.quantile(share);
        latency.map(|latency| latency.as_secs_f64() * 1e3)
    };
    ScoresReply {
        requests: counts.answered + counts.failed,
        errors: counts.failed,
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        last_error: scores.last_failure().map(|failure| LastErrorReply {
            message: failure.message,
            at: clock::to_rfc3339(failure.at_us),
        }),
    }
}
