//! What a request says of itself in headers: until when its answer is wanted, and whether somebody
//! waits for it.

use std::time::Instant;

use axum::http::HeaderMap;

use crate::admission::Priority;
use crate::admission::deadline::{self, PRIORITY_HEADER, TIMEOUT_HEADER};
use crate::infer::Call;
use crate::infer::error::InferError;
use crate::serve::App;

/// Reads `Bellwether-Timeout-Ms` and `Bellwether-Priority` of a request that has `arrived`.
///
/// # Errors
/// Which header is wrong, what was found and what was expected.
pub fn call(app: &App, arrived: Instant, headers: &HeaderMap) -> Result<Call, InferError> {
    let asked = match headers.get(TIMEOUT_HEADER) {
        Some(value) => Some(deadline::from_header(value.as_bytes()).map_err(InferError::invalid)?),
        None => None,
    };
    let priority = match headers.get(PRIORITY_HEADER) {
        Some(value) => {
            let word = String::from_utf8_lossy(value.as_bytes());
            Priority::parse(Some(&word)).map_err(|problem| {
                InferError::invalid(format!("header Bellwether-Priority: {problem}"))
            })?
        }
        None => Priority::Online,
    };
    Ok(Call {
        arrived,
        deadline: Some(deadline::deadline_of(
            arrived,
            app.config.request_deadline,
            [asked],
        )),
        priority,
    })
}
