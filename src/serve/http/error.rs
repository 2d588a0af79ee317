//! What a refusal looks like: a status and `{"error": "…"}`.
//!
//! What the caller sees says what was wrong, where, and what to do. What only the operator should
//! see goes to the log instead, under a 5xx.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::infer::error::{InferError, Kind};
use crate::ingest::IngestError;
use crate::ingest::documents::BodyError;
use crate::ledger::{AppendError, OutcomeError};
use crate::models::catalog::FindError;
use crate::models::repository::ChangeError;
use crate::score::ScoreError;
use crate::store::StoreError;

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"error": "features.tenure: expected int64, found the string \"x\""}))]
pub struct ErrorBody {
    /// What was wrong, in which field, what was found and what was expected.
    pub error: String,
}

/// In the extensions of a refusal: its message, for whoever records it.
#[derive(Clone)]
pub struct Said(pub String);

/// A refusal.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// Seconds after which trying again makes sense.
    retry_after: Option<u32>,
    /// The connection cannot be used further: part of the request is still unread.
    close: bool,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            retry_after: None,
            close: false,
        }
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    pub fn unprocessable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    pub fn unavailable(message: impl Into<String>, retry_after: u32) -> ApiError {
        let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: what was asked for is done one at a time.
    pub fn busy(message: impl Into<String>, retry_after: u32) -> ApiError {
        let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
        error.retry_after = Some(retry_after);
        error
    }

    /// Whether it is the caller's to mend.
    pub fn is_callers(&self) -> bool {
        self.status.is_client_error()
    }

    /// What the caller is told.
    pub fn into_message(self) -> String {
        self.message
    }

    /// With 400 instead of 422: under `/v2` that is the status of every body that is wrong.
    pub fn as_bad_request(mut self) -> ApiError {
        if self.status == StatusCode::UNPROCESSABLE_ENTITY {
            self.status = StatusCode::BAD_REQUEST;
        }
        self
    }

    /// Says that the connection is closed after this answer.
    pub fn closing(mut self) -> ApiError {
        self.close = true;
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // What the operator should see; a deadline that has passed and a part of the protocol that is
        // not there are the caller's.
        let is_ours = matches!(
            self.status,
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE
        );
        if is_ours {
            tracing::error!(
                status = self.status.as_u16(),
                error = self.message,
                "request failed"
            );
        }
        let body = ErrorBody {
            error: self.message.clone(),
        };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(Said(self.message));
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<InferError> for ApiError {
    fn from(error: InferError) -> ApiError {
        let (status, retry_after) = match error.kind {
            Kind::Invalid => (StatusCode::BAD_REQUEST, None),
            Kind::NotFound | Kind::NotReady => (StatusCode::NOT_FOUND, None),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Kind::Unsupported => (StatusCode::NOT_IMPLEMENTED, None),
            Kind::Unavailable { retry_after_s } => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after_s))
            }
            Kind::Overloaded { retry_after_s } => {
                (StatusCode::TOO_MANY_REQUESTS, Some(retry_after_s))
            }
            Kind::Expired => (StatusCode::GATEWAY_TIMEOUT, None),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        ApiError {
            status,
            message: error.message,
            retry_after,
            close: false,
        }
    }
}

impl From<ScoreError> for ApiError {
    fn from(error: ScoreError) -> ApiError {
        let message = error.to_string();
        match error {
            ScoreError::UnknownCustomer { .. } | ScoreError::UnknownModel { .. } => {
                ApiError::not_found(message)
            }
            ScoreError::Unbound { .. } | ScoreError::Override(_) | ScoreError::Context(_) => {
                ApiError::unprocessable(message)
            }
            ScoreError::NoModels | ScoreError::NoView | ScoreError::Replacing => {
                ApiError::unavailable(message, 5)
            }
            ScoreError::Ledger(error) => error.into(),
            ScoreError::Store(error) => error.into(),
            // The model was given what its view allows and still gave no number: the features
            // are the caller's to mend, the reason is in the message.
            ScoreError::Model { .. } => ApiError::unprocessable(message),
            ScoreError::Assemble(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message),
        }
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> ApiError {
        ApiError::not_found(error.to_string())
    }
}

impl From<ChangeError> for ApiError {
    /// The repository extension has one status for every load that fails.
    fn from(error: ChangeError) -> ApiError {
        ApiError::bad_request(error.to_string())
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> ApiError {
        match error {
            IngestError::Log(error) => error.into(),
            IngestError::Busy { .. } => ApiError::unavailable(error.to_string(), 1),
            IngestError::Unconfirmed => ApiError::unavailable(error.to_string(), 5),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        let status = match error {
            BodyError::Syntax(_) => StatusCode::BAD_REQUEST,
            BodyError::Shape(_) => StatusCode::UNPROCESSABLE_ENTITY,
            BodyError::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        };
        ApiError::new(status, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Damaged { .. } => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            StoreError::Place(_) => ApiError::unprocessable(error.to_string()),
            StoreError::Unavailable(_) => ApiError::unavailable(error.to_string(), 1),
            StoreError::InUse(_) | StoreError::Io(_) | StoreError::Settings(_) => {
                ApiError::unavailable(error.to_string(), 5)
            }
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> ApiError {
        let message = error.to_string();
        match error {
            AppendError::Full { .. } => ApiError::unavailable(message, 1),
            AppendError::Unavailable | AppendError::Closed => ApiError::unavailable(message, 5),
            AppendError::TooLarge { .. } => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            AppendError::Invalid { .. } => ApiError::unprocessable(message),
        }
    }
}

impl From<OutcomeError> for ApiError {
    fn from(error: OutcomeError) -> ApiError {
        let message = error.to_string();
        match error {
            OutcomeError::Refused(refused) => refused.into(),
            OutcomeError::Conflict => ApiError::new(StatusCode::CONFLICT, message),
            OutcomeError::Unconfirmed { .. } => ApiError::unavailable(message, 1),
        }
    }
}
