//! The way of a request into the routes, and of its answer out.
//!
//! Nearly all requests of a busy server are inferences, so these take a lane of their own: their path
//! is looked at here, once, and [`super::infer::infer`] answers them on the spot. Everything else goes
//! through the router. Both lanes end in the same function for the same request: an inference whose
//! path is written in an unusual way (percent signs, a query) takes the router's lane, with the same
//! answer. (The router's lane costs an inference a tenth of its time: its layers box the request's
//! future and move it around several times.)
//!
//! Whatever the lane, an answer is counted and timed, what its client still sends is read
//! ([`super::leftover`]), and it says `Connection: close` while the server
//! stops, so that clients open their next connection to a server that stays.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use metrics::{Counter, Histogram};
use tower_service::Service as _;

use super::infer::infer;
use super::leftover::{Tracked, lend, returned, settle, waits};
use super::{INFERENCE, guard};
use crate::serve::App;

/// Serves the requests of a connection; clones share everything.
#[derive(Clone)]
pub struct Stack {
    app: Arc<App>,
    routes: Router,
    metrics: Arc<LaneMetrics>,
}

/// Looked up once: to find a metric by its labels takes longer than to count.
struct LaneMetrics {
    champion: RouteMetrics,
    version: RouteMetrics,
}

struct RouteMetrics {
    route: &'static str,
    seconds: Histogram,
    succeeded: Counter,
}

impl RouteMetrics {
    fn new(route: &'static str) -> RouteMetrics {
        RouteMetrics {
            route,
            seconds: metrics::histogram!("bellwether_http_seconds", "route" => route),
            succeeded: counter(route, StatusCode::OK),
        }
    }

    fn count(&self, started: Instant, status: StatusCode) {
        self.seconds.record(started.elapsed());
        match status {
            StatusCode::OK => self.succeeded.increment(1),
            status => counter(self.route, status).increment(1),
        }
    }
}

fn counter(route: &'static str, status: StatusCode) -> Counter {
    let status = status.as_str().to_owned();
    metrics::counter!("bellwether_http_requests_total", "route" => route, "status" => status)
}

impl Stack {
    /// The stack around the routes of `app`.
    pub fn new(app: Arc<App>) -> Stack {
        Stack {
            routes: super::router(Arc::clone(&app)),
            app,
            metrics: Arc::new(LaneMetrics {
                champion: RouteMetrics::new("/v2/models/{name}/infer"),
                version: RouteMetrics::new("/v2/models/{name}/versions/{version}/infer"),
            }),
        }
    }
}

/// The model, and the version if one is named, of a path `/v2/models/…/infer`. `None` for any other
/// path, and for one whose names the router has to decode.
pub fn inference_path(path: &str) -> Option<(&str, Option<&str>)> {
    let inner = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let (name, version) = match inner.split_once('/') {
        None => (inner, None),
        Some((name, rest)) => (name, Some(rest.strip_prefix("versions/")?)),
    };
    let plain = |text: &str| !text.is_empty() && !text.contains(['/', '%']);
    (plain(name) && version.is_none_or(plain)).then_some((name, version))
}

impl hyper::service::Service<Request<Incoming>> for Stack {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let app = Arc::clone(&self.app);
        let is_inference =
            request.method() == Method::POST && inference_path(request.uri().path()).is_some();
        if !is_inference {
            let mut routes = self.routes.clone();
            return Box::pin(async move {
                let waits = waits(request.headers());
                let (head, body) = request.into_parts();
                let (body, left) = lend(body);
                let Ok(response) = routes.call(Request::from_parts(head, body)).await;
                let response = match returned(left) {
                    Some(left) => settle(response, waits, left).await,
                    None => response,
                };
                Ok(part(&app, response))
            });
        }
        let metrics = Arc::clone(&self.metrics);
        Box::pin(async move {
            let started = Instant::now();
            let (head, body) = request.into_parts();
            let mut body = Tracked::new(body);
            // It was one a moment ago.
            let (name, version) = inference_path(head.uri.path()).unwrap_or_default();
            let route = match version {
                None => &metrics.champion,
                Some(_) => &metrics.version,
            };
            let response = match app.auth.admit(&head.headers, INFERENCE) {
                Ok(_) => infer(&app, name, version, started, &head.headers, &mut body)
                    .await
                    .unwrap_or_else(IntoResponse::into_response),
                Err(denial) => guard::refusal(&denial),
            };
            route.count(started, response.status());
            let response = settle(response, waits(&head.headers), body).await;
            Ok(part(&app, response))
        })
    }
}

/// Lets the client go while the server stops.
fn part(app: &App, mut response: Response) -> Response {
    if app.stopping.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::inference_path;

    #[test]
    fn plain_paths_of_inferences_are_told_from_all_others() {
        assert_eq!(
            inference_path("/v2/models/churn/infer"),
            Some(("churn", None))
        );
        assert_eq!(
            inference_path("/v2/models/a.b-c_d/versions/12/infer"),
            Some(("a.b-c_d", Some("12")))
        );
        for path in [
            "/v2/models//infer",
            "/v2/models/infer",
            "/v2/models/churn",
            "/v2/models/churn/infer/",
            "/v2/models/ch%75rn/infer",
            "/v2/models/churn/versions/infer",
            "/v2/models/churn/versions//infer",
            "/v2/models/churn/versions/1/2/infer",
            "/v2/models/churn/other/1/infer",
            "/v1/models/churn/infer",
            "",
        ] {
            assert_eq!(inference_path(path), None, "{path}");
        }
    }
}
