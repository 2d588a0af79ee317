//! `POST /v1/features/{view}/training-set`: observations in, the same with features out.
//!
//! One is made at a time, by a thread of its own, within the memory and rows that the configuration
//! gives it; further requests are told to come back. Observations and result lie in the data directory
//! meanwhile.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::sync::oneshot;

use super::body::{SizeLimit, read_decoded};
use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use crate::features::value::shorten;
use crate::features::view::{View, suggestion};
use crate::history::log::ChangeLog;
use crate::history::{Bounds, HistoryError, TrainingSet};
use crate::priority;
use crate::serve::App;

/// Bytes of the answer that are read from disk at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the observations are called in messages.
const CALLED: &str = "observations";

/// How to read the observations, and what to add.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The column with the time of the observation.
    #[serde(default = "observed_at")]
    observed_at: String,
    /// Names of features with commas between them; all of the view when left out.
    features: Option<String>,
}

fn observed_at() -> String {
    "observed_at".to_owned()
}

/// Join observations with the features that were known at their time.
///
/// The body is a table with the view's key columns, a time, and whatever else is to be carried through.
#[utoipa::path(
    post, path = "/v1/features/{view}/training-set", tag = "features",
    params(
        ("view" = String, Path, description = "The feature view"),
        ("observed_at" = Option<String>, Query, description = "The column with the time of the observation; observed_at when left out"),
        ("features" = Option<String>, Query, description = "The features wanted, with commas between them; all when left out"),
    ),
    request_body(content(
        (String = "application/vnd.apache.parquet"),
        (String = "application/vnd.apache.arrow.file"),
        (String = "text/csv"),
    )),
    responses(
        (status = 200, description = "The observations in their order, with features, as Parquet", content_type = "application/vnd.apache.parquet"),
        (status = 400, description = "The body cannot be read, or a parameter is wrong", body = ErrorBody),
        (status = 404, description = "Unknown view", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 422, description = "A column or row of the observations is wrong; it is named", body = ErrorBody),
        (status = 429, description = "Another training set is being made", body = ErrorBody),
        (status = 503, description = "The log cannot be read now", body = ErrorBody),
    )
)]
pub async fn make_training_set(
    State(app): State<Arc<App>>,
    PathParams(view): PathParams<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Ok(place) = Arc::clone(&app.history).try_acquire_owned() else {
        return Err(ApiError::busy(
            "another training set is being made; try again later",
            30,
        ));
    };
    // Read before anything is refused: a client that is still sending would not hear it.
    let (head, body) = request.into_parts();
    let limit = SizeLimit::observations(&app);
    let bytes = read_decoded(&head.headers, body, &app, limit).await?;
    let Query(parameters) = parameters.map_err(|rejection| {
        let problem = shorten(&rejection.body_text(), 200);
        ApiError::bad_request(format!("query: {problem}"))
    })?;
    let found = view_called(&app, &view)?;
    let temp_dir = app.config.data_dir.join("tmp");
    let set = TrainingSet {
        log: ChangeLog::Directories(vec![app.config.data_dir.clone()]),
        view: found,
        observations: std::path::PathBuf::new(),
        called: CALLED.to_owned(),
        time_column: parameters.observed_at,
        max_rows: app.config.history.max_rows,
        features: parameters.features.map(|names| {
            names
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect()
        }),
        bounds: Bounds {
            temp_bytes: app.config.history.temp_bytes,
            memory_bytes: app.config.history.memory_bytes,
            temp_dir: temp_dir.clone(),
        },
    };
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("training-set".to_owned())
        .spawn(move || {
            priority::lower();
            let made = make(set, &bytes, &temp_dir);
            // Held until it is done, also when the client is gone by then; free when it is told.
            drop(place);
            // Nobody waits any more when this fails.
            let _ = reply.send(made);
        })
        .map_err(|error| ApiError::unavailable(format!("no thread: {error}"), 5))?;
    let made = answer.await.map_err(|_| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the training set was not made; the log of the server says why",
        )
    })?;
    let file = made.map_err(refusal)?;
    let content_type = (header::CONTENT_TYPE, "application/vnd.apache.parquet");
    Ok(([content_type], streamed(file)).into_response())
}

/// Makes the training set of the observations in `bytes`; the file goes when it is dropped.
fn make(
    mut set: TrainingSet,
    bytes: &[u8],
    temp_dir: &Path,
) -> Result<NamedTempFile, HistoryError> {
    let failed = |error: std::io::Error| {
        HistoryError::Plan(format!("the data directory cannot be written: {error}"))
    };
    std::fs::create_dir_all(temp_dir).map_err(failed)?;
    let named = |extension: &str| {
        let mut builder = tempfile::Builder::new();
        builder
            .suffix(extension)
            .tempfile_in(temp_dir)
            .map_err(failed)
    };
    let mut observations = named(match bytes {
        [b'P', b'A', b'R', b'1', ..] => ".parquet",
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => ".arrow",
        _ => ".csv",
    })?;
    observations.write_all(bytes).map_err(failed)?;
    set.observations = observations.path().to_owned();
    // The result takes the place of this file, and of its duty to be removed.
    let output = named(".parquet")?;
    set.write(output.path())?;
    let path = output.into_temp_path();
    let file = std::fs::File::open(&path).map_err(failed)?;
    Ok(NamedTempFile::from_parts(file, path))
}

/// The bytes of a file, chunk by chunk.
fn streamed(file: NamedTempFile) -> Body {
    Body::from_stream(stream::unfold(Some(file), |file| async {
        let mut file = file?;
        // The disk may take its time; the thread that serves has others to serve.
        let reading = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = file.as_file_mut().read(&mut chunk);
            (file, chunk, read)
        });
        match reading.await {
            Ok((_, _, Ok(0))) => None,
            Ok((file, mut chunk, Ok(bytes))) => {
                chunk.truncate(bytes);
                Some((Ok(Bytes::from(chunk)), Some(file)))
            }
            Ok((_, _, Err(error))) => Some((Err(error), None)),
            Err(error) => Some((Err(std::io::Error::other(error)), None)),
        }
    }))
}

/// The view of this name.
///
/// # Errors
/// 404 when there is none.
pub fn view_called(app: &App, name: &str) -> Result<Arc<View>, ApiError> {
    let views = app.scorer.views();
    views.get(name).cloned().ok_or_else(|| {
        let names = views.all().iter().map(|view| view.name.as_str());
        let shown = shorten(name, 64);
        ApiError::not_found(format!(
            "view {shown:?}: no such view{}",
            suggestion(name, names)
        ))
    })
}

/// What a caller is told of an error.
pub fn refusal(error: HistoryError) -> ApiError {
    match error {
        HistoryError::Problem(problem) => ApiError::unprocessable(problem),
        HistoryError::Ledger(error) => ApiError::unavailable(error.to_string(), 30),
        HistoryError::Plan(problem) => ApiError::unavailable(problem, 30),
    }
}
