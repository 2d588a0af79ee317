//! Before and after every request of the router: who may make it, how long it took, and the record of
//! administrative ones.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::{ApiError, Said};
use super::path::percent_decode;
use super::protected::AccessTable;
use crate::serve::App;
use crate::serve::auth::audit::{self, Act, Recorded};
use crate::serve::auth::{Caller, Denial, Scope};

/// What stands before the routes.
pub struct Guard {
    pub app: Arc<App>,
    pub table: AccessTable,
}

/// Lets a request through to its route or refuses it; counts and times it by its route, never by its
/// path.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = match &route {
        Some(route) => answer(&guard, route.as_str(), request, next).await,
        // There is no such route; to say so tells nobody anything.
        None => next.run(request).await,
    };
    let route = match route {
        Some(route) => metrics::SharedString::from(route.as_str().to_owned()),
        None => metrics::SharedString::const_str("none"),
    };
    metrics::histogram!("bellwether_http_seconds", "route" => route.clone())
        .record(started.elapsed());
    let status = metrics::SharedString::from(response.status().as_str().to_owned());
    metrics::counter!("bellwether_http_requests_total", "route" => route, "status" => status)
        .increment(1);
    response
}

async fn answer(guard: &Guard, route: &str, mut request: Request, next: Next) -> Response {
    let rule = guard.table.rule(route, request.method());
    let act = |actor: String, request: &Request| Act {
        actor,
        action: format!("{} {route}", request.method()),
        subject: Arc::new(subject(route, request.uri().path()).into()),
    };
    let caller = match guard.app.auth.admit(request.headers(), rule.access) {
        Ok(caller) => caller,
        Err(denial) => {
            if let (true, Some(id)) = (rule.is_recorded, denial.without_right()) {
                let act = act(format!("key:{id}"), &request);
                audit::refused(&guard.app.auth, &guard.app.scorer.ledger, &act, &denial);
            }
            return refusal(&denial);
        }
    };
    let act = rule.is_recorded.then(|| act(caller.to_string(), &request));
    request.extensions_mut().insert(caller);
    let Some(act) = act else {
        return next.run(request).await;
    };
    recorded(Arc::clone(&guard.app), act, request, next).await
}

/// Answers an administrative call once its row is on the disk.
async fn recorded(app: Arc<App>, act: Act, request: Request, next: Next) -> Response {
    if !app.scorer.ledger.healthy() {
        let problem = "nothing was done: the ledger takes no rows now, so it could not be recorded";
        return ApiError::unavailable(problem, 5).into_response();
    }
    let under_way = act.begin(&app.scorer.ledger);
    // It is recorded also when the caller goes away in the middle.
    let finished = app.finishing.finish(async move {
        let response = next.run(request).await;
        if response.extensions().get::<Recorded>().is_some() {
            under_way.recorded_elsewhere();
            return response;
        }
        let status = response.status();
        let said = response.extensions().get::<Said>();
        let outcome = match said {
            _ if status.is_success() => "done",
            Some(Said(message)) => message,
            None => status.canonical_reason().unwrap_or("refused"),
        };
        let details = json!({"status": status.as_u16()});
        match under_way.record(outcome, &details).await {
            Ok(()) => response,
            Err(problem) => ApiError::unavailable(
                format!("answered with {status} ({outcome}), but not recorded: {problem}"),
                5,
            )
            .into_response(),
        }
    });
    finished.await.unwrap_or_else(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, error.to_string()).into_response()
    })
}

/// Whether a caller still may do what it was let in for: after a body that may have taken long to come, and
/// while one comes that may not end.
///
/// # Errors
/// Why not any more.
pub fn still_admitted(app: &App, caller: &Caller, scope: Scope) -> Result<(), ApiError> {
    app.auth.still_admits(caller, scope).map_err(|denial| {
        let status = match denial {
            Denial::Scope { .. } | Denial::OtherSite { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        ApiError::new(status, format!("nothing more is done: {denial}"))
    })
}

/// What a call is about: the parts of its path that stand for the parameters of its route.
fn subject(route: &str, path: &str) -> String {
    let mut subject = Vec::new();
    let mut parts = path.split('/');
    for expected in route.split('/') {
        let part = parts.next().unwrap_or_default();
        if expected.starts_with('{') {
            subject.push(percent_decode(part).unwrap_or_else(|| part.to_owned()));
        }
    }
    subject.join("/")
}

/// A refusal as HTTP says it, with what a client needs to do better.
pub fn refusal(denial: &Denial) -> Response {
    let message = denial.to_string();
    let challenge = |text: &str| -> [(HeaderName, HeaderValue); 1] {
        let value = HeaderValue::from_str(text);
        let value = value.unwrap_or(HeaderValue::from_static("Bearer"));
        [(header::WWW_AUTHENTICATE, value)]
    };
    match denial {
        Denial::Missing => {
            let error = ApiError::new(StatusCode::UNAUTHORIZED, message);
            (challenge("Bearer"), error).into_response()
        }
        Denial::Unknown | Denial::Unreadable | Denial::Revoked { .. } | Denial::Expired { .. } => {
            let error = ApiError::new(StatusCode::UNAUTHORIZED, message);
            (challenge("Bearer error=\"invalid_token\""), error).into_response()
        }
        Denial::Scope { needed, .. } => {
            let error = ApiError::new(StatusCode::FORBIDDEN, message);
            let scope = needed.name();
            let text = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            (challenge(&text), error).into_response()
        }
        Denial::OtherSite { .. } => ApiError::new(StatusCode::FORBIDDEN, message).into_response(),
        Denial::Rate { .. } => {
            let seconds = denial.retry_after_s().unwrap_or(1);
            ApiError::busy(message, seconds).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn the_subject_is_what_stands_for_the_parameters() {
        let load = "/v2/repository/models/{name}/load";
        assert_eq!(subject(load, "/v2/repository/models/ch%75rn/load"), "churn");
        assert_eq!(subject(load, "/v2/repository/models/%FF/load"), "%FF");
        let version = "/v2/models/{name}/versions/{version}/infer";
        assert_eq!(subject(version, "/v2/models/a/versions/3/infer"), "a/3");
        assert_eq!(subject("/v1/features/reload", "/v1/features/reload"), "");
    }
}
