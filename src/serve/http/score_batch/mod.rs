//! `POST /v1/score/batch`: predictions for many customers, streamed in and out.
//!
//! What a request takes is bounded: a piece of the body that is read and scored, and the answers that wait
//! for the client. The body is read only as fast as there is room for its answers. It runs on threads of
//! the lowest priority ([`crate::serve::score_pool`]), a few requests at once; a request may take as long as it
//! gets on.
//!
//! * [`source`] – the bytes of the body; [`chunks`], [`messages`] – pieces of them; [`rows`] – their rows.
//! * [`run`] – from rows to answers; [`write`](mod@write) – in the form that was asked for; [`answers`] –
//!   until they are taken.

mod answers;
mod chunks;
mod messages;
mod rows;
mod run;
mod source;
mod write;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::oneshot;

use self::chunks::{CHUNK_ROWS, Chunks, EXPLAINED_ROWS};
use self::run::{Run, run};
use self::source::ByteSource;
use self::write::Writer;
use super::compression::request_coding;
use super::error::{ApiError, ErrorBody};
use super::score::check_models;
use crate::features::value::shorten;
use crate::score::bulk::Asked;
use crate::serve::App;
use crate::serve::auth::Caller;

/// After how many seconds a client that found no place may try again.
const RETRY_AFTER_S: u32 = 1;

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Ndjson,
    Arrow,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Form::Ndjson => "application/x-ndjson",
            Form::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// By the content type of a body, where JSON is lines of it; none when it is another.
    fn of_body(name: &str) -> Option<Form> {
        let essence = name.split(';').next().unwrap_or_default().trim();
        match essence.eq_ignore_ascii_case("application/json") {
            true => Some(Form::Ndjson),
            false => Form::of(name),
        }
    }

    /// By the name of a content type; none when it is another.
    fn of(name: &str) -> Option<Form> {
        let name = name.split(';').next().unwrap_or_default().trim();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is(Form::Arrow.content_type()) {
            return Some(Form::Arrow);
        }
        let is_lines =
            is(Form::Ndjson.content_type()) || is("application/ndjson") || is("application/jsonl");
        is_lines.then_some(Form::Ndjson)
    }
}

/// What is asked of every row.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    models: Option<String>,
    explain: Option<u16>,
    #[serde(default = "yes")]
    record: bool,
}

fn yes() -> bool {
    true
}

/// Score many customers.
///
/// A row of the body has `customer_id` and perhaps features by name, which are used instead of the stored
/// values for this row; null says that a value is missing. Each row has an answer, in order: what
/// `/v1/score` answers, or `{"row", "customer_id", "error"}`. Read answers while you send rows.
#[utoipa::path(
    post, path = "/v1/score/batch", tag = "score",
    params(
        ("models" = Option<String>, Query, description = "Names of models with commas between them; all that read the customer's view when left out"),
        ("explain" = Option<u16>, Query, description = "How many reasons to give with each prediction"),
        ("record" = Option<bool>, Query, description = "false for what-ifs, which leave nothing in the ledger; true when left out"),
    ),
    request_body(
        description = "Rows, a JSON object on each line or an Arrow IPC stream",
        content(
            (String = "application/x-ndjson"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (Object = "application/json", example = json!({"customer_id": "C-000001"})),
        )
    ),
    responses(
        (status = 200, description = "Answers as they come, in the form of Accept, by default that of the body. A last line with `error` and no `row`, or an Arrow stream that breaks off, says that not all rows were answered",
            content(
                (String = "application/x-ndjson"),
                (Vec<u8> = "application/vnd.apache.arrow.stream"),
            )),
        (status = 400, description = "The body cannot be read, or a parameter or header is wrong", body = ErrorBody),
        (status = 404, description = "Unknown model", body = ErrorBody),
        (status = 406, description = "Accept names no form of an answer that there is", body = ErrorBody),
        (status = 408, description = "No byte of the body came for too long", body = ErrorBody),
        (status = 413, description = "A line or an Arrow batch is too large", body = ErrorBody),
        (status = 415, description = "A form or an encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "A column is no feature, or a model does not bind; it is named", body = ErrorBody),
        (status = 429, description = "As many such requests run as may at once; see Retry-After", body = ErrorBody),
        (status = 503, description = "No model is ready, or the server is stopping; see Retry-After", body = ErrorBody),
    )
)]
pub async fn score_batch(
    State(app): State<Arc<App>>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = head.extensions.get::<Caller>().cloned();
    let (asked, form, writer) = prepare(&app, parameters, &head.headers).await?;
    let Some(place) = app.score_pool.place() else {
        metrics::counter!("bellwether_score_batch_requests_total", "outcome" => "busy")
            .increment(1);
        let most = app.config.score_batch.max_requests;
        let problem = format!(
            "{most} batches are being scored, which is as many as may at once (score_batch.max_requests)"
        );
        return Err(ApiError::busy(problem, RETRY_AFTER_S));
    };
    let config = &app.config.score_batch;
    let source = ByteSource::new(body, request_coding(&head.headers)?, config.stall_timeout);
    let most_rows = match asked.explain {
        Some(limit) if limit > 0 => EXPLAINED_ROWS,
        _ => CHUNK_ROWS,
    };
    let chunks = match form {
        Form::Ndjson => Chunks::of_lines(source, config.max_line_bytes, most_rows),
        Form::Arrow => Chunks::of_arrow(source, config.max_arrow_bytes, most_rows),
    };
    let content_type = match &writer {
        Writer::Ndjson => Form::Ndjson.content_type(),
        Writer::Arrow(_) => Form::Arrow.content_type(),
    };
    let (begin, begun) = oneshot::channel();
    let work = Run {
        app: Arc::clone(&app),
        asked,
        chunks,
        writer,
        rows: 0,
        place,
        caller: caller.unwrap_or(Caller::Anonymous),
    };
    app.score_pool.spawn(run(work, begin));
    let answers = begun.await.map_err(|_| {
        let problem = "the batch was not scored; the log of the server says why";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem)
    })??;
    let body = Body::from_stream(stream::unfold(answers, |mut answers| async {
        let next = answers.next().await?;
        Some((next, answers))
    }));
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

/// What a request asks for, the form of its body, and who writes its answer.
async fn prepare(
    app: &App,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: &HeaderMap,
) -> Result<(Asked, Form, Writer), ApiError> {
    let Query(parameters) = parameters.map_err(|rejection| {
        let problem = shorten(&rejection.body_text(), 200);
        ApiError::bad_request(format!("query: {problem}"))
    })?;
    let form = form_of(headers)?;
    let answer_form = answer_form(headers, form)?;
    request_coding(headers)?;
    let models: Option<Vec<String>> = parameters.models.map(|names| {
        let names = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    });
    if let Some(models) = &models {
        check_models(models)?;
    }
    let asked = Asked {
        models,
        explain: parameters.explain.map(usize::from),
        is_recorded: parameters.record,
    };
    let moment = app.scorer.moment(asked.models.as_deref()).await?;
    let writer = match answer_form {
        Form::Ndjson => Writer::Ndjson,
        Form::Arrow => {
            let is_explained = asked.explain.is_some_and(|limit| limit > 0);
            Writer::arrow(&moment.models, is_explained).map_err(ApiError::unprocessable)?
        }
    };
    Ok((asked, form, writer))
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn form_of(headers: &HeaderMap) -> Result<Form, ApiError> {
    let content_type = text_of(headers, &header::CONTENT_TYPE).unwrap_or_default();
    Form::of_body(&content_type).ok_or_else(|| {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "header Content-Type: expected application/x-ndjson or \
                 application/vnd.apache.arrow.stream, found {:?}",
                shorten(&content_type, 64)
            ),
        )
    })
}

/// The first form that the client takes; that of its body when it does not say.
fn answer_form(headers: &HeaderMap, body: Form) -> Result<Form, ApiError> {
    let Some(accept) = text_of(headers, &header::ACCEPT) else {
        return Ok(body);
    };
    for item in accept.split(',') {
        let name = item.split(';').next().unwrap_or_default().trim();
        if matches!(name, "*/*" | "application/*") {
            return Ok(body);
        }
        if let Some(form) = Form::of(name) {
            return Ok(form);
        }
    }
    Err(ApiError::new(
        StatusCode::NOT_ACCEPTABLE,
        format!(
            "header Accept: expected application/x-ndjson or application/vnd.apache.arrow.stream, \
             found {:?}",
            shorten(&accept, 64)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_answer_has_the_form_that_is_asked_for_or_that_of_the_body() {
        let answer = |accept: Option<&'static str>, body: Form| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            answer_form(&headers, body).map_err(ApiError::into_message)
        };
        let arrow = "application/vnd.apache.arrow.stream";
        assert_eq!(answer(None, Form::Arrow), Ok(Form::Arrow));
        assert_eq!(answer(Some("*/*"), Form::Arrow), Ok(Form::Arrow));
        assert_eq!(
            answer(Some("text/html, */*;q=0.1"), Form::Ndjson),
            Ok(Form::Ndjson)
        );
        assert_eq!(answer(Some(arrow), Form::Ndjson), Ok(Form::Arrow));
        assert_eq!(
            answer(Some("application/x-ndjson"), Form::Arrow),
            Ok(Form::Ndjson)
        );
        assert!(
            answer(Some("text/csv"), Form::Arrow)
                .unwrap_err()
                .contains("\"text/csv\"")
        );
    }
}
