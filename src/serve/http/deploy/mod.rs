//! `POST /v1/models/{name}/versions`: a new version of a model, sent to a running server.
//!
//! * [`receive`] – its files, on their way to the disk.

mod receive;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use utoipa::{IntoParams, ToSchema};

use self::receive::Received;
use super::body::SizeLimit;
use super::error::{ApiError, ErrorBody};
use super::guard::still_admitted;
use super::multipart::Parser;
use super::path::PathParams;
use super::rollout::actor;
use crate::features::value::shorten;
use crate::models::bundles::Incoming;
use crate::models::repository::deploy::{DeployError, Deployed};
use crate::models::rollout::accept::Sender;
use crate::models::rollout::{Change, RolloutError, Transition};
use crate::models::version::hexadecimal;
use crate::priority;
use crate::serve::App;
use crate::serve::auth::audit::Recorded;
use crate::serve::auth::{Caller, Scope};

/// How many uploads are received at a time; each has a thread that writes.
static UPLOADS: Semaphore = Semaphore::const_new(8);

/// How many pieces of an upload wait to be written.
const WAITING_PIECES: usize = 4;

/// How long an upload waits for a place among them.
const PLACE_WAIT: Duration = Duration::from_secs(10);

/// How long an upload may take as a whole.
const UPLOAD_TIME: Duration = Duration::from_secs(30 * 60);

/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

/// What is to become of the version.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Parameters {
    /// Make it the champion at once.
    promote: bool,
    /// Why, for the audit row.
    #[param(max_length = 1000)]
    reason: String,
}

impl Parameters {
    /// Takes what came as fields of the form.
    fn take(&mut self, promote: Option<String>, reason: Option<String>) -> Result<(), ApiError> {
        match promote.as_deref().map(str::trim) {
            Some("true") => self.promote = true,
            Some("false") => self.promote = false,
            Some(found) => {
                let found = shorten(found, 64);
                let problem =
                    format!("body: part promote: expected true or false, found {found:?}");
                return Err(ApiError::unprocessable(problem));
            }
            None => {}
        }
        self.reason = reason.unwrap_or_else(|| std::mem::take(&mut self.reason));
        self.check("body: part").map_err(ApiError::unprocessable)
    }

    fn check(&self, place: &str) -> Result<(), String> {
        match self.reason.chars().count() > MAX_REASON {
            true => Err(format!("{place} reason: more than {MAX_REASON} characters")),
            false => Ok(()),
        }
    }
}

/// The files, each a part of that name, or of any name when the file it is read from is called so.
#[derive(ToSchema)]
pub struct VersionForm {
    /// The graph.
    #[schema(rename = "model.onnx", value_type = String, format = Binary)]
    pub model: Vec<u8>,
    /// What the graph cannot say.
    #[schema(rename = "model.toml", value_type = Option<String>)]
    pub manifest: Option<String>,
    /// Rows with the outputs that the version must reproduce.
    #[schema(rename = "golden.json", value_type = Option<String>)]
    pub golden: Option<String>,
    /// As in the query, for those who would rather have it in the form: "true" or "false".
    pub promote: Option<bool>,
    /// As in the query.
    pub reason: Option<String>,
}

/// The version that is served.
#[derive(Serialize, ToSchema)]
pub struct DeployReply {
    #[schema(example = "churn")]
    model: String,
    /// The number it was given.
    #[schema(example = "3")]
    version: String,
    /// "champion" answers when no version is named; "candidate" answers when it is named.
    #[schema(example = "candidate")]
    state: &'static str,
    /// SHA-256 over model.onnx and model.toml, hexadecimal.
    digest: String,
    /// How long it took to build, check and warm it, in milliseconds.
    load_ms: f64,
    /// Who was the champion before, when this version has taken its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "2")]
    previous_champion: Option<String>,
    /// Why it is served under /v2 only and scores no customers: each input without a feature, and what
    /// else does not bind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unbound: Vec<String>,
}

/// Send a new version of a model. It is served when this answers.
///
/// It takes the next number. Its graph is loaded, bound to features and run on its golden rows first: a
/// version that is refused is not kept. The first version of a model is its champion, later ones are
/// candidates until they are promoted.
#[utoipa::path(
    post, path = "/v1/models/{name}/versions", tag = "models",
    params(("name" = String, Path, description = "Model; a new one when there is none of that name"), Parameters),
    request_body(content = VersionForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "It is kept and served", body = DeployReply),
        (status = 400, description = "The body cannot be read, or a parameter is wrong", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 409, description = "It would not stay loaded, and is not kept; or it is kept and served as a candidate, and was not promoted", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "The body is not multipart/form-data, or compressed", body = ErrorBody),
        (status = 422, description = "The version is refused: a file, an input without a feature, a golden row with what was expected and found", body = ErrorBody),
        (status = 429, description = "More uploads than are taken at once; see Retry-After", body = ErrorBody),
        (status = 503, description = "It cannot be kept or recorded now", body = ErrorBody),
    )
)]
pub async fn deploy_version(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<(StatusCode, Extension<Recorded>, Json<DeployReply>), ApiError> {
    let actor = actor(&request);
    let result = deploy(&app, &name, &actor, parameters, request).await;
    let word = match &result {
        Ok(_) => "served",
        Err(error) if error.is_callers() => "refused",
        Err(_) => "failed",
    };
    metrics::counter!("bellwether_model_deploys_total", "result" => word).increment(1);
    // What is served has its own row; a refusal gets one like any other call.
    Ok((StatusCode::CREATED, Extension(Recorded), Json(result?)))
}

async fn deploy(
    app: &Arc<App>,
    name: &str,
    actor: &str,
    parameters: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<DeployReply, ApiError> {
    let (head, body) = request.into_parts();
    let caller = head.extensions.get::<Caller>();
    let Ok(Ok(_place)) = tokio::time::timeout(PLACE_WAIT, UPLOADS.acquire()).await else {
        let problem = "other uploads are being received; try again shortly";
        return Err(ApiError::busy(problem, 5));
    };
    let prepared = prepare(app, name, parameters, &head.headers, &body);
    let (mut parameters, parser, incoming) = prepared?;
    let received = receive(app, body, parser, incoming).await?;
    parameters.take(received.promote, received.reason)?;
    let incoming = received.incoming;
    // It may have taken half an hour.
    still_admitted(app, caller.unwrap_or(&Caller::Anonymous), Scope::Deploy)?;
    let finishing = finish(
        Arc::clone(app),
        name.to_owned(),
        actor.to_owned(),
        parameters,
        incoming,
    );
    // Finished and recorded also when the caller goes away: the guard before the routes sees to that.
    finishing.await
}

/// Makes what was received a version that is served.
async fn finish(
    app: Arc<App>,
    name: String,
    actor: String,
    parameters: Parameters,
    incoming: Incoming,
) -> Result<DeployReply, ApiError> {
    let repository = &app.scorer.repository;
    let sender = Sender {
        model: name.clone(),
        actor: actor.clone(),
        reason: parameters.reason.clone(),
        promote: parameters.promote,
    };
    let rollouts = Arc::clone(&app.rollouts);
    let deployed = repository.deploy_aside(name.clone(), incoming, move |accepted| {
        let recorded = rollouts.accept(&sender, accepted);
        recorded.map_err(|error| not_recorded(sender.model.clone(), &error))
    });
    let deployed = deployed.await?;
    let reply = settle(&app, &name, &actor, &parameters, &deployed).await;
    // What the policy chooses has moved on by one.
    repository.release(&name);
    reply
}

/// What is known of the upload before its first byte is read.
fn prepare(
    app: &App,
    name: &str,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: &HeaderMap,
    body: &Body,
) -> Result<(Parameters, Parser, Incoming), ApiError> {
    let Query(parameters) = parameters.map_err(|rejection| {
        let problem = shorten(&rejection.body_text(), 200);
        ApiError::bad_request(format!("query: {problem}"))
    })?;
    parameters.check("query:").map_err(ApiError::bad_request)?;
    let unsupported = |problem| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem);
    if headers.contains_key(header::CONTENT_ENCODING) {
        let problem = "header Content-Encoding: send the files as they are";
        return Err(unsupported(problem.to_owned()));
    }
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map(|value| value.to_str().unwrap_or("unreadable"));
    let parser = Parser::new(content_type).map_err(unsupported)?;
    let limit = SizeLimit::upload(app);
    if body.size_hint().lower() > limit.bytes() as u64 {
        return Err(limit.exceeded("it is"));
    }
    let incoming = app.scorer.repository.receive(name)?;
    Ok((parameters, parser, incoming))
}

/// Brings the body to the disk.
async fn receive(
    app: &App,
    mut body: Body,
    parser: Parser,
    incoming: Incoming,
) -> Result<Received, ApiError> {
    let (pieces, waiting) = mpsc::channel(WAITING_PIECES);
    let (done, written) = oneshot::channel();
    let failed = |problem: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem);
    // A thread of its own, that can wait for those that serve.
    let writing = std::thread::Builder::new()
        .name("receive-version".to_owned())
        .spawn(move || {
            priority::lower();
            // Whoever sends may have gone.
            let _ = done.send(receive::write(parser, incoming, waiting));
        });
    writing.map_err(|error| failed(format!("no thread to receive the version: {error}")))?;
    let forwarded = tokio::time::timeout(UPLOAD_TIME, forward(app, &mut body, pieces)).await;
    let forwarded = forwarded.unwrap_or_else(|_| Err(late(UPLOAD_TIME)));
    let written = written.await;
    let written = written.map_err(|_| {
        failed("the version was not received, for a reason that the log has".to_owned())
    })?;
    // What kept the body from coming says more than that it is not whole.
    forwarded.and(written)
}

async fn forward(app: &App, body: &mut Body, pieces: mpsc::Sender<Bytes>) -> Result<(), ApiError> {
    let limit = SizeLimit::upload(app);
    let mut size = 0;
    loop {
        let frame = tokio::time::timeout(app.config.request_timeout, body.frame());
        let frame = frame.await.map_err(|_| late(app.config.request_timeout))?;
        let Some(frame) = frame else {
            return Ok(());
        };
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("body: could not be read: {error}")).closing()
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size += data.len();
        if size > limit.bytes() {
            return Err(limit.exceeded("it is"));
        }
        if pieces.send(data).await.is_err() {
            // Whoever writes has stopped and says why.
            return Ok(());
        }
    }
}

fn late(after: Duration) -> ApiError {
    let problem = format!("body: nothing more came for {after:?}, or it took that long as a whole");
    ApiError::new(StatusCode::REQUEST_TIMEOUT, problem).closing()
}

/// Why a version that can be served is not published after all.
fn not_recorded(name: String, error: &RolloutError) -> DeployError {
    let problem = error.to_string();
    match error {
        RolloutError::LeftOut { .. } => DeployError::NotKeptLoaded { name, problem },
        _ => DeployError::NotRecorded { name, problem },
    }
}

/// Gives the version the role that it is to have.
async fn settle(
    app: &App,
    name: &str,
    actor: &str,
    parameters: &Parameters,
    deployed: &Deployed,
) -> Result<DeployReply, ApiError> {
    let role = || {
        let catalog = app.scorer.repository.catalog();
        let model = catalog.model(name);
        model.map_or("candidate", |model| model.role(deployed.number).word())
    };
    // Nobody answers for the model: also when somebody was said to and is gone.
    let is_first = deployed.champion.is_none() && !deployed.version.is_candidate();
    if (parameters.promote || is_first) && role() != "champion" {
        let change = Change {
            transition: Transition::Promote {
                version: deployed.number,
            },
            actor: actor.to_owned(),
            reason: parameters.reason.clone(),
        };
        let promoted = app.rollouts.change_aside(name.to_owned(), change).await;
        promoted.map_err(|error| {
            let problem = format!(
                "version {} is kept and served as a candidate, and was not promoted: {error}",
                deployed.number
            );
            ApiError::new(StatusCode::CONFLICT, problem)
        })?;
    }
    let state = role();
    let unbound = deployed.version.scoring.as_ref().err();
    Ok(DeployReply {
        model: name.to_owned(),
        version: deployed.number.to_string(),
        state,
        digest: hexadecimal(&deployed.version.digest),
        load_ms: deployed.load_time.as_secs_f64() * 1e3,
        previous_champion: deployed.champion.clone().filter(|_| state == "champion"),
        unbound: unbound.cloned().unwrap_or_default(),
    })
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> ApiError {
        let message = error.to_string();
        match error {
            DeployError::Name(_) | DeployError::Refused { .. } => ApiError::unprocessable(message),
            DeployError::NotKept { .. } => ApiError::unavailable(message, 30),
            DeployError::NotRecorded { .. } => ApiError::unavailable(message, 5),
            DeployError::NotKeptLoaded { .. } => ApiError::new(StatusCode::CONFLICT, message),
        }
    }
}
