//! The whole request stack in this process: routes, limits, store, models and ledger, without a
//! socket.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, Uri, header};
use bellwether::config::Config;
use bellwether::serve::http::router;
use bellwether::serve::{App, Server};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::repository_path;

/// The longest error message that an answer may hold, in bytes: a refusal must not echo what a
/// caller sent at length.
const MAX_ERROR_BYTES: usize = 4096;

/// A server on a data directory of its own, with the committed models and views.
pub struct InProcess {
    // Dropped in this order: the server lets go of the directory before it is removed.
    router: Router,
    app: Arc<App>,
    runtime: tokio::runtime::Runtime,
    _data_dir: tempfile::TempDir,
}

/// What the server answered.
pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: Vec<u8>,
}

impl InProcess {
    pub fn start() -> InProcess {
        let data_dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: data_dir.path().to_owned(),
            models: repository_path("models"),
            features: repository_path("features"),
            strict: true,
            ..Config::default()
        };
        let server = Server::open(config).unwrap();
        let app = Arc::clone(server.app());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        InProcess {
            router: router(Arc::clone(&app)),
            app,
            runtime,
            _data_dir: data_dir,
        }
    }

    /// Writes the customer `C-1`, so that requests about a known one get further.
    pub fn with_customer(self) -> InProcess {
        let features = json!({"features": {
            "tenure": 12, "contract": "One year", "monthly_charges": 70.5,
            "total_charges": null, "internet_service": "DSL", "online_backup": "Yes",
        }});
        let answer = self.send_json(Method::PUT, "/v1/customers/C-1", &features);
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        self
    }

    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    pub fn send(&self, method: Method, uri: Uri, body: Vec<u8>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json");
        self.answer(request.body(Body::from(body)).unwrap())
    }

    pub fn send_with(
        &self,
        method: Method,
        path: &'static str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request.body(Body::from(body)).unwrap())
    }

    fn answer(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let header_of = |name| {
                let value = response.headers().get(name)?;
                Some(value.to_str().unwrap().to_owned())
            };
            let content_type = header_of(header::CONTENT_TYPE);
            let retry_after = header_of(header::RETRY_AFTER);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Answer {
                status,
                content_type: content_type.unwrap_or_default(),
                retry_after,
                body: body.to_vec(),
            }
        })
    }

    pub fn send_json(&self, method: Method, path: &'static str, body: &Value) -> Answer {
        self.send(
            method,
            Uri::from_static(path),
            body.to_string().into_bytes(),
        )
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let closed = self.app.scorer.ledger.close();
        if !std::thread::panicking() {
            closed.unwrap();
        }
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.status, self.text()))
    }

    /// What holds for every answer to every request: the server does not fail, and a refusal says
    /// why as `{"error": "…"}`.
    pub fn assert_sound(&self) {
        let status = self.status;
        // Busy, not supported, and too late are no failures.
        let refusals = [503, 501, 504];
        assert!(
            !status.is_server_error() || refusals.contains(&status.as_u16()),
            "{status}: {}",
            self.text()
        );
        if status.is_redirection() || status == StatusCode::NO_CONTENT {
            return;
        }
        if status.is_success() {
            if self.content_type.starts_with("application/json") {
                self.json();
            }
            return;
        }
        assert!(
            self.content_type.starts_with("application/json"),
            "{status} as {:?}: {}",
            self.content_type,
            self.text()
        );
        let body = self.json();
        let message = body.get("error").and_then(Value::as_str);
        let message = message.unwrap_or_else(|| panic!("{status} without an error: {body}"));
        assert!(!message.is_empty(), "{status} with an empty message");
        assert!(
            message.len() <= MAX_ERROR_BYTES,
            "{status} with a message of {} bytes: {:.300}",
            message.len(),
            message
        );
        // What became of each event or row may stand beside it.
        let fields = body.as_object().map_or(0, serde_json::Map::len);
        assert!(fields == 1 || body["refused"].is_array(), "{body}");
    }
}
