//! `POST /invocations`: scoring as MLflow's scoring server offers it, for clients that know a model
//! as a table of features in and predictions out.
//!
//! The body is JSON with one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or
//! CSV with a header line. Its columns become the inputs of the graph as [`crate::infer::columns`]
//! says; missing values are NaN or empty text. MLflow serves one model, this server many: the query
//! `?model=NAME&version=V` or the header `Bellwether-Model` names it, and with exactly one model
//! loaded neither is needed.
//!
//! The answer is `{"predictions": […]}` with one entry for each row: the value of the model's one
//! output, or an object with the values of its several outputs by name. A value is a number or a
//! text where the output has one for each row, and an array where it has more.
//!
//! * [`read`], [`table`] – JSON and CSV as columns.
//! * [`render`] – outputs as predictions.

pub mod read;
pub mod render;
pub mod table;

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::body::SizeLimit;
use super::compression;
use super::error::{ApiError, ErrorBody};
use super::operation::HealthReply;
use crate::features::value::shorten;
use crate::infer::columns::{self, Column};
use crate::infer::error::InferError;
use crate::infer::{Inference, Turn};
use crate::models::version::ModelVersion;
use crate::serve::App;

/// Names the model where the query does not.
const MODEL: HeaderName = HeaderName::from_static("bellwether-model");

/// A table to make predictions for: exactly one of the four fields.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `read` reads")]
pub struct InvocationsBody {
    /// Rows of values and the names of their columns.
    #[schema(example = json!({"columns": ["tenure", "contract"], "data": [[12, "One year"]]}))]
    dataframe_split: Option<SplitFrame>,
    /// Rows with the names of their columns.
    dataframe_records: Option<Vec<Value>>,
    /// Rows with names, or a tensor for a model of one input.
    instances: Option<Vec<Value>>,
    /// Columns by name, or a tensor for a model of one input.
    inputs: Option<Value>,
    /// None are understood: left out, or empty.
    params: Option<Value>,
}

/// A data frame as pandas writes it with `orient="split"`.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `read` reads")]
pub struct SplitFrame {
    /// The names; numbers from 0 when left out.
    columns: Option<Vec<Value>>,
    /// Not looked at.
    index: Option<Vec<Value>>,
    data: Vec<Vec<Value>>,
}

/// One entry for each row.
#[derive(Serialize, ToSchema)]
pub struct InvocationsReply {
    #[schema(example = json!([{"label": 1, "probabilities": [0.25, 0.75]}]))]
    predictions: Value,
}

/// Which model is asked.
#[derive(Deserialize)]
struct Choice {
    model: Option<String>,
    version: Option<String>,
}

/// Predictions for the rows of a table, as MLflow's scoring server gives them.
#[utoipa::path(post, path = "/invocations", tag = "inference",
    params(
        ("model" = Option<String>, Query, description = "Model; may be left out when exactly one is loaded"),
        ("version" = Option<String>, Query, description = "Version; the champion when left out"),
        ("Bellwether-Model" = Option<String>, Header, description = "Model, where the query names none"),
    ),
    request_body(content(
        (InvocationsBody = "application/json"),
        (String = "text/csv", example = "tenure,contract\n12,One year\n"),
    )),
    responses(
        (status = 200, description = "Predictions, one for each row", body = InvocationsReply),
        (status = 400, description = "Not JSON or CSV, no model is named, or a value is wrong; row and column are named", body = ErrorBody),
        (status = 404, description = "No such model or version, or it is not ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or table too large", body = ErrorBody),
        (status = 415, description = "Neither JSON nor CSV, or an encoding that is not understood", body = ErrorBody),
        (status = 429, description = "More requests than are taken at once", body = ErrorBody),
        (status = 503, description = "Cannot be taken at the moment", body = ErrorBody),
        (status = 504, description = "The deadline has passed", body = ErrorBody),
    ))]
pub async fn invocations(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let call = super::call::call(&app, Instant::now(), &parts.headers)?;
    let limit = SizeLimit::ordinary(&app);
    let body = super::body::read_decoded(&parts.headers, body, &app, limit).await?;
    let form = Form::of(&parts.headers)?;
    let (name, version) = chosen_model(&app, &parts.uri, &parts.headers)?;
    let model = app.inference.find(&name, version.as_deref())?;
    let size = body.len();
    let accepted = compression::accepted_coding(&parts.headers);
    let work = move |inference: &Inference, model: &ModelVersion, turn: &mut Turn| {
        let columns = form.read(model, &body)?;
        // Parsed, a body takes many times its size; one of the two is enough.
        drop(body);
        let inputs = columns::bind(model, inference.max_rows, columns)?;
        let rows = inputs
            .first()
            .and_then(|input| input.shape().first().copied());
        let ran = inference.run(model, inputs, None, turn)?;
        let answer = render::predictions(model, rows, &ran.outputs)?;
        Ok(compression::encode(answer, accepted))
    };
    let (answer, coding) = app.inference.schedule(&model, size, &call, work).await?;
    let mut response = answer.into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    compression::set_headers(response.headers_mut(), coding);
    Ok(response)
}

/// Is the server ready? As `/readyz`, where MLflow's clients look for it.
#[utoipa::path(get, path = "/ping", tag = "operation",
    responses(
        (status = 200, description = "Ready", body = HealthReply),
        (status = 503, description = "Not ready; the reasons are listed", body = HealthReply),
    ))]
pub async fn ping(state: State<Arc<App>>) -> (StatusCode, Json<HealthReply>) {
    super::operation::readyz(state).await
}

/// Is the server ready? As `/readyz`, where MLflow's clients look for it.
#[utoipa::path(get, path = "/health", tag = "operation",
    responses(
        (status = 200, description = "Ready", body = HealthReply),
        (status = 503, description = "Not ready; the reasons are listed", body = HealthReply),
    ))]
pub async fn health(state: State<Arc<App>>) -> (StatusCode, Json<HealthReply>) {
    super::operation::readyz(state).await
}

/// The version of the server, as plain text.
#[utoipa::path(get, path = "/version", tag = "operation",
    responses((status = 200, description = "The version", body = String, content_type = "text/plain")))]
pub async fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// What the body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
}

impl Form {
    /// As the request's `Content-Type` says; JSON when it says nothing.
    fn of(headers: &HeaderMap) -> Result<Form, ApiError> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Ok(Form::Json);
        };
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let refuse = |expected: &str| {
            let found = shorten(&text, 80);
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let field = "header Content-Type";
            ApiError::new(
                status,
                format!("{field}: expected {expected}, found {found:?}"),
            )
        };
        let form = match parts.next() {
            Some("application/json") => Form::Json,
            Some("text/csv") => Form::Csv,
            _ => return Err(refuse("application/json or text/csv")),
        };
        let charset = parts.find_map(|part| part.strip_prefix("charset="));
        match charset.map(|charset| charset.trim_matches('"')) {
            None | Some("utf-8" | "utf8" | "us-ascii") => Ok(form),
            Some(_) => Err(refuse("charset=utf-8")),
        }
    }

    fn read(self, model: &ModelVersion, body: &Bytes) -> Result<Vec<Column>, InferError> {
        match self {
            Form::Json => read::columns(model, body),
            Form::Csv => table::columns(body),
        }
    }
}

/// The model that the request names, or the only one there is.
fn chosen_model(
    app: &App,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(String, Option<String>), ApiError> {
    let query = Query::<Choice>::try_from_uri(uri).map_err(|rejection| {
        let reason = shorten(&rejection.body_text(), 200);
        ApiError::bad_request(format!("query: {reason}"))
    })?;
    let Query(Choice { model, version }) = query;
    if let Some(model) = model {
        return Ok((model, version));
    }
    if let Some(model) = headers.get(MODEL) {
        let model = std::str::from_utf8(model.as_bytes()).map_err(|_| {
            ApiError::bad_request("header Bellwether-Model: expected the name of a model in UTF-8")
        })?;
        return Ok((model.to_owned(), version));
    }
    let catalog = app.scorer.repository.catalog();
    match catalog.champions() {
        [only] => Ok((only.name.clone(), version)),
        models => {
            let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
            Err(ApiError::bad_request(format!(
                "query: expected ?model=NAME or the header Bellwether-Model, found neither; the \
                 models are: {}",
                shorten(&names.join(", "), 1000)
            )))
        }
    }
}
