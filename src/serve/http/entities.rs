//! `GET /v1/features/{view}`: every entity of a view with its values, page by page.
//!
//! A page is read when it is asked for, and the server keeps nothing between two of them: who reads slowly
//! holds up nobody, and who stops reading has nothing to close. Each page takes a place among the requests
//! that are worked on at a time, behind those that somebody waits for.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::call::call;
use super::error::{ApiError, ErrorBody};
use super::features::view_of;
use super::path::PathParams;
use crate::admission::Priority;
use crate::clock;
use crate::features::value::shorten;
use crate::features::view::View;
use crate::infer::error::InferError;
use crate::score::given::given_of;
use crate::score::given_page::{ARROW_STREAM, GivenPage, MOST_ENTITIES};
use crate::serve::App;

/// Entities in a page where nothing is said.
const USUAL_LIMIT: usize = 1000;

/// The longest text that says where to go on, in bytes.
const MAX_AFTER_BYTES: usize = 2048;

/// Says where the next page begins.
const NEXT: HeaderName = HeaderName::from_static("bellwether-next");

/// Which page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    after: Option<String>,
    limit: Option<usize>,
    at: Option<String>,
}

/// Read every entity of a view with its stored, window and related features, page by page.
///
/// A feature without a value is null, also where a default is declared. Pages go on until one comes without
/// the header `bellwether-next`. An entity comes as it is when its page is read; entities that are there
/// from the first page to the last come exactly once. Only from a shared store on Redis, whose pages go in no
/// order, one may come twice.
#[utoipa::path(
    get, path = "/v1/features/{view}", tag = "features",
    params(
        ("view" = String, Path, description = "The feature view"),
        ("after" = Option<String>, Query, description = "What the header bellwether-next of the page before said; the first page when left out"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 10_000, description = "About how many entities at most; 1000 when left out"),
        ("at" = Option<String>, Query, description = "The time of windows, RFC 3339; now when left out. The windows of an entity that has changed since are as of that change"),
    ),
    responses(
        (status = 200, description = "Some entities: a line of JSON for each, or, for a caller that accepts it, an Arrow IPC stream",
            content((String = "application/x-ndjson"), (String = "application/vnd.apache.arrow.stream")),
            headers(("bellwether-next" = String, description = "Where the next page begins; absent at the end"))),
        (status = 400, description = "A parameter or header is wrong", body = ErrorBody),
        (status = 404, description = "Unknown view", body = ErrorBody),
        (status = 422, description = "`after` is no place that this server has given", body = ErrorBody),
        (status = 429, description = "More requests than are taken at once; see Retry-After", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
        (status = 504, description = "The deadline passed before the work was begun", body = ErrorBody),
    )
)]
pub async fn list_entities(
    State(app): State<Arc<App>>,
    PathParams(view): PathParams<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let call = call(&app, Instant::now(), &headers)?;
    let view = view_of(&app, &view)?;
    let Query(parameters) = parameters.map_err(|rejection| {
        let problem = shorten(&rejection.body_text(), 200);
        ApiError::bad_request(format!("query: {problem}"))
    })?;
    let asked = Asked::new(view, parameters)?;
    // Nobody waits for a page as for a score.
    let permit = app.admission.admit(Priority::Batch, call.deadline).await;
    let permit = permit.map_err(InferError::from)?;
    let is_arrow = accepts_arrow(&headers);
    let runtime = tokio::runtime::Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        // The place is taken until the work is over, also when the caller has gone.
        let _permit = permit;
        let page = runtime.block_on(asked.read(&app))?;
        let (body, content_type) = match is_arrow {
            true => (page.to_arrow(&asked.view).map_err(defect)?, ARROW_STREAM),
            false => (
                page.to_lines(&asked.view).into_bytes(),
                "application/x-ndjson",
            ),
        };
        Ok::<_, ApiError>((body, content_type, page.next))
    });
    let (body, content_type, next) = read.await.map_err(defect)??;
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    if let Some(next) = next {
        let value = HeaderValue::from_str(&next).map_err(defect)?;
        response.headers_mut().insert(NEXT, value);
    }
    Ok(response)
}

/// What is asked for, checked.
struct Asked {
    view: Arc<View>,
    after: Option<String>,
    limit: usize,
    at_us: i64,
}

impl Asked {
    fn new(view: Arc<View>, parameters: Parameters) -> Result<Asked, ApiError> {
        let limit = parameters.limit.unwrap_or(USUAL_LIMIT);
        if !(1..=MOST_ENTITIES).contains(&limit) {
            return Err(ApiError::bad_request(format!(
                "query: limit: expected 1 to {MOST_ENTITIES}, found {limit}"
            )));
        }
        let after = match &parameters.after {
            Some(text) => Some(from_hexadecimal(text).ok_or_else(|| {
                ApiError::unprocessable(format!(
                    "query: after: expected what the header bellwether-next of a page said, found {:?}",
                    shorten(text, 64)
                ))
            })?),
            None => None,
        };
        let at_us = match &parameters.at {
            Some(text) => clock::from_rfc3339(text)
                .map_err(|problem| ApiError::bad_request(format!("query: at: {problem}")))?,
            None => clock::now_us(),
        };
        Ok(Asked {
            view,
            after,
            limit,
            at_us,
        })
    }

    async fn read(&self, app: &App) -> Result<GivenPage, ApiError> {
        let (store, view) = (&*app.scorer.store, &self.view);
        let after = self.after.as_deref();
        let page = store.scan(view, after, self.limit, self.at_us).await?;
        let needed = vec![true; view.features().len()];
        let given = given_of(store, view, &page.entities, &needed, self.at_us).await?;
        let keys = page.entities.into_iter().map(|(key, _)| key);
        Ok(GivenPage {
            keys: keys.collect(),
            given,
            next: page.next.map(|place| to_hexadecimal(&place)),
            in_order: store.scans_in_order(),
        })
    }
}

fn defect(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Whether the caller names the Arrow stream among what it takes.
fn accepts_arrow(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.to_ascii_lowercase().contains(ARROW_STREAM))
}

/// A place as text that headers and URLs can hold, whatever is in a key.
fn to_hexadecimal(place: &str) -> String {
    place.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(text: &str) -> Option<String> {
    if text.len() > MAX_AFTER_BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>().filter(|_| rest.is_empty())?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_and_what_is_none_is_refused() {
        for place in ["C-1", "a\u{1f}b", "ключ", ""] {
            let text = to_hexadecimal(place);
            assert_eq!(from_hexadecimal(&text).as_deref(), Some(place));
        }
        for text in ["4", "zz", "ff", "+1", "4é"] {
            assert_eq!(from_hexadecimal(text), None, "{text}");
        }
        assert_eq!(from_hexadecimal(&"41".repeat(2000)), None);
    }
}
