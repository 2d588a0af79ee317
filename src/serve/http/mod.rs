//! The HTTP interface: one file per group of routes, handlers that parse, call one function and
//! render.
//!
//! * [`stack`] – a request's way in and its answer's way out.
//! * [`protected`], [`guard`] – who may use which route, and what is recorded.
//! * [`error`] – what every refusal looks like.
//! * [`body`], [`path`], [`call`] – reading request bodies within limits, path parameters, deadlines.
//! * [`leftover`] – what is left of a body that is refused.
//! * [`compression`], [`multipart`] – bodies in gzip and deflate, and in parts.
//! * [`score`], [`score_batch`], [`outcomes`], [`customers`], [`events`], [`features`], [`entities`],
//!   [`push`], [`models`], [`deploy`], [`rollout`] – `/v1`.
//! * [`inference`], [`infer`], [`repository`] – `/v2`, the Open Inference Protocol.
//! * [`invocations`] – `/invocations`, as MLflow's scoring server has it.
//! * [`operation`] – health, metrics, documentation.
//! * [`audit`] – the last administrative acts.

pub mod aside;
pub mod audit;
pub mod backfill;
pub mod body;
pub mod call;
pub mod compression;
pub mod customers;
pub mod deploy;
pub mod entities;
pub mod error;
pub mod events;
pub mod features;
pub mod guard;
pub mod infer;
pub mod inference;
pub mod invocations;
pub mod leftover;
pub mod models;
pub mod multipart;
pub mod operation;
pub mod outcomes;
pub mod path;
pub mod protected;
pub mod push;
pub mod reload;
pub mod repository;
pub mod rollout;
pub mod score;
pub mod score_batch;
pub mod stack;
pub mod training_sets;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use self::error::ApiError;
use self::guard::Guard;
use self::protected::Routes;
use super::App;
use super::auth::{Access, Scope};
use crate::features::value::shorten;

const PUBLIC: Access = Access::Public;
const SCORE: Access = Access::Needs(Scope::Score);
const FEEDBACK: Access = Access::Needs(Scope::Feedback);
const DATA: Access = Access::Needs(Scope::Data);
const DEPLOY: Access = Access::Needs(Scope::Deploy);
const METRICS: Access = Access::Needs(Scope::Metrics);
const ADMIN: Access = Access::Needs(Scope::Admin);

/// What an inference asks for, whichever lane of [`stack`] it takes.
pub const INFERENCE: Access = SCORE;

#[derive(OpenApi)]
#[openapi(info(
    title = "Bellwether",
    description = "Scores customers with ONNX models, says why, and records what happened. \
                   Every error is a JSON object {\"error\": \"…\"} that names the field.",
    license(name = "MIT OR Apache-2.0")
))]
struct ApiDoc;

/// The routes together with their description and with what they ask for; a route cannot be in one and
/// not in the others.
fn protected_routes() -> Routes {
    // What composite keys need, which no single path of the description covers.
    let with_composite_keys = get(features::get_features)
        .put(features::put_features)
        .delete(features::delete_features);
    Routes::new(ApiDoc::openapi())
        .add(SCORE, routes!(score::score))
        .add(SCORE, routes!(score_batch::score_batch))
        .add(FEEDBACK, routes!(outcomes::record_outcome))
        .add(
            DATA,
            routes!(
                customers::get_customer,
                customers::put_customer,
                customers::delete_customer
            ),
        )
        .add(DATA, routes!(events::post_events))
        .add(DATA, routes!(push::push_features))
        .add(DATA, routes!(entities::list_entities))
        .add(
            DATA,
            routes!(
                features::get_features,
                features::put_features,
                features::delete_features
            ),
        )
        .add_undocumented(
            DATA,
            "/v1/features/{view}/{key}/{*more}",
            &[Method::GET, Method::PUT, Method::DELETE],
            with_composite_keys,
        )
        .add(DATA, routes!(training_sets::make_training_set))
        .add(DEPLOY, routes!(backfill::backfill))
        .add(DEPLOY, routes!(reload::reload))
        .add(DEPLOY, routes!(models::list_models))
        .add(DEPLOY, routes!(models::show_model))
        .add(DEPLOY, routes!(rollout::roll_out))
        .add(DEPLOY, routes!(deploy::deploy_version))
        .add(SCORE, routes!(inference::server_metadata))
        .add(PUBLIC, routes!(inference::server_live))
        .add(PUBLIC, routes!(inference::server_ready))
        .add_read_only(
            DEPLOY,
            routes!(
                repository::repository_index,
                repository::show_repository_index
            ),
        )
        .add(DEPLOY, routes!(repository::load_model))
        .add(DEPLOY, routes!(repository::unload_model))
        .add(SCORE, routes!(inference::model_metadata))
        .add(SCORE, routes!(inference::model_version_metadata))
        .add(SCORE, routes!(inference::model_ready))
        .add(SCORE, routes!(inference::model_version_ready))
        .add(SCORE, routes!(inference::model_config))
        .add(SCORE, routes!(inference::model_version_config))
        .add(SCORE, routes!(inference::all_statistics))
        .add(SCORE, routes!(inference::model_statistics))
        .add(SCORE, routes!(inference::model_version_statistics))
        .add(INFERENCE, routes!(infer::model_infer))
        .add(INFERENCE, routes!(infer::model_version_infer))
        .add(SCORE, routes!(invocations::invocations))
        .add(PUBLIC, routes!(invocations::ping))
        .add(PUBLIC, routes!(invocations::health))
        .add(SCORE, routes!(invocations::version))
        .add(PUBLIC, routes!(operation::livez))
        .add(PUBLIC, routes!(operation::readyz))
        .add(METRICS, routes!(operation::metrics))
        .add(ADMIN, routes!(audit::last_acts))
}

/// The OpenAPI description of all routes, as pretty JSON.
///
/// # Errors
/// When the description cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    let (_, openapi, _) = protected_routes().finish();
    serde_json::to_string_pretty(&openapi)
}

/// Whether it is said of every route which scope it needs.
///
/// # Errors
/// The route of which it is not.
pub fn check_routes() -> Result<(), String> {
    let (_, openapi, table) = protected_routes().finish();
    protected::check(&openapi, &table)
}

/// All routes; [`stack::Stack`] is what stands before them.
pub fn router(app: Arc<App>) -> Router {
    let (routes, openapi, mut table) = protected_routes().finish();
    for path in ["/docs", "/docs/", "/docs/{*rest}", "/openapi.json"] {
        table.open(path);
    }
    let guarded = Arc::new(Guard {
        app: Arc::clone(&app),
        table,
    });
    routes
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        // Outermost, so that every answer is counted, refusals included.
        .layer(middleware::from_fn_with_state(guarded, guard::guard))
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
