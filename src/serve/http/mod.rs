//! The HTTP interface: one file per group of routes, handlers that parse, call one function and
//! render.
//!
//! * [`stack`] – a request's way in and its answer's way out.
//! * [`error`] – what every refusal looks like.
//! * [`body`], [`path`], [`call`] – reading request bodies within limits, path parameters, deadlines.
//! * [`compression`] – bodies in gzip and deflate.
//! * [`score`], [`outcomes`], [`customers`], [`events`], [`features`], [`push`], [`models`] – `/v1`.
//! * [`inference`], [`infer`], [`repository`] – `/v2`, the Open Inference Protocol.
//! * [`invocations`] – `/invocations`, as MLflow's scoring server has it.
//! * [`operation`] – health, metrics, documentation.

pub mod backfill;
pub mod body;
pub mod call;
pub mod compression;
pub mod customers;
pub mod error;
pub mod events;
pub mod features;
pub mod infer;
pub mod inference;
pub mod invocations;
pub mod models;
pub mod operation;
pub mod outcomes;
pub mod path;
pub mod push;
pub mod reload;
pub mod repository;
pub mod score;
pub mod stack;
pub mod training_sets;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use self::error::ApiError;
use super::App;
use crate::features::value::shorten;

#[derive(OpenApi)]
#[openapi(info(
    title = "Bellwether",
    description = "Scores customers with ONNX models, says why, and records what happened. \
                   Every error is a JSON object {\"error\": \"…\"} that names the field.",
    license(name = "MIT OR Apache-2.0")
))]
struct ApiDoc;

/// The routes together with their description; a route cannot be in one and not in the other.
fn documented_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(score::score))
        .routes(routes!(outcomes::record_outcome))
        .routes(routes!(
            customers::get_customer,
            customers::put_customer,
            customers::delete_customer
        ))
        .routes(routes!(events::post_events))
        .routes(routes!(push::push_features))
        .routes(routes!(
            features::get_features,
            features::put_features,
            features::delete_features
        ))
        // The same for composite keys, which no single path of the description covers.
        .route(
            "/v1/features/{view}/{key}/{*more}",
            get(features::get_features)
                .put(features::put_features)
                .delete(features::delete_features),
        )
        .routes(routes!(training_sets::make_training_set))
        .routes(routes!(backfill::backfill))
        .routes(routes!(reload::reload))
        .routes(routes!(models::list_models))
        .routes(routes!(inference::server_metadata))
        .routes(routes!(inference::server_live))
        .routes(routes!(inference::server_ready))
        .routes(routes!(
            repository::repository_index,
            repository::show_repository_index
        ))
        .routes(routes!(repository::load_model))
        .routes(routes!(repository::unload_model))
        .routes(routes!(inference::model_metadata))
        .routes(routes!(inference::model_version_metadata))
        .routes(routes!(inference::model_ready))
        .routes(routes!(inference::model_version_ready))
        .routes(routes!(inference::model_config))
        .routes(routes!(inference::model_version_config))
        .routes(routes!(inference::all_statistics))
        .routes(routes!(inference::model_statistics))
        .routes(routes!(inference::model_version_statistics))
        .routes(routes!(infer::model_infer))
        .routes(routes!(infer::model_version_infer))
        .routes(routes!(invocations::invocations))
        .routes(routes!(invocations::ping))
        .routes(routes!(invocations::health))
        .routes(routes!(invocations::version))
        .routes(routes!(operation::livez))
        .routes(routes!(operation::readyz))
        .routes(routes!(operation::metrics))
}

/// The OpenAPI description of all routes, as pretty JSON.
///
/// # Errors
/// When the description cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    let (_, openapi) = documented_routes().split_for_parts();
    serde_json::to_string_pretty(&openapi)
}

/// All routes; [`stack::Stack`] is what stands before them.
pub fn router(app: Arc<App>) -> Router {
    let (routes, openapi) = documented_routes().split_for_parts();
    routes
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        // Outermost, so that every answer is counted, refusals included.
        .layer(middleware::from_fn(measure))
        .with_state(app)
}

async fn no_such_route(request: Request) -> ApiError {
    let method = shorten(request.method().as_str(), 20);
    let path = shorten(request.uri().path(), 100);
    ApiError::not_found(format!("no route {method} {path}; see /docs"))
}

async fn wrong_method(State(_): State<Arc<App>>, method: Method) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "the method {} is not allowed here; see /docs",
            shorten(method.as_str(), 20)
        ),
    )
}

/// Counts and times every request by its route, never by its path.
async fn measure(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
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
