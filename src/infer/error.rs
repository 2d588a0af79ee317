//! Why an inference was refused, in kinds that every protocol has a code for.

use crate::admission::Turned;
use crate::ledger::AppendError;
use crate::models::catalog::FindError;

/// What a refusal is about; HTTP makes a status of it, gRPC a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong; the message names the field.
    Invalid,
    /// No such model or version.
    NotFound,
    /// The version is there and not served: refused at load, or unloaded.
    NotReady,
    /// Over a bound of size or rows.
    TooLarge,
    /// Part of the protocol that this server does not have.
    Unsupported,
    /// Nothing is wrong with the request; the server cannot take it at the moment.
    Unavailable { retry_after_s: u32 },
    /// More requests than are taken at once.
    Overloaded { retry_after_s: u32 },
    /// The deadline passed before the work was begun.
    Expired,
    /// A defect of the server or of the model's file.
    Internal,
}

/// A refusal: its kind, and a message that says what was wrong, where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InferError {
    pub kind: Kind,
    pub message: String,
}

impl InferError {
    pub fn new(kind: Kind, message: impl Into<String>) -> InferError {
        InferError {
            kind,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> InferError {
        InferError::new(Kind::Invalid, message)
    }

    pub fn too_large(message: impl Into<String>) -> InferError {
        InferError::new(Kind::TooLarge, message)
    }

    pub fn internal(message: impl Into<String>) -> InferError {
        InferError::new(Kind::Internal, message)
    }
}

impl From<FindError> for InferError {
    fn from(error: FindError) -> InferError {
        let kind = match error {
            FindError::UnknownModel { .. } | FindError::UnknownVersion { .. } => Kind::NotFound,
            FindError::NotReady { .. } => Kind::NotReady,
        };
        InferError::new(kind, error.to_string())
    }
}

impl From<Turned> for InferError {
    fn from(turned: Turned) -> InferError {
        let kind = match turned {
            Turned::Full { retry_after_s, .. } => Kind::Overloaded { retry_after_s },
            Turned::Expired => Kind::Expired,
        };
        InferError::new(kind, turned.to_string())
    }
}

impl From<AppendError> for InferError {
    fn from(error: AppendError) -> InferError {
        let kind = match error {
            AppendError::Full { .. } => Kind::Unavailable { retry_after_s: 1 },
            AppendError::Unavailable | AppendError::Closed => {
                Kind::Unavailable { retry_after_s: 5 }
            }
            AppendError::TooLarge { .. } => Kind::TooLarge,
            AppendError::Invalid { .. } => Kind::Internal,
        };
        let message = format!("the inference cannot be recorded now: {error}");
        InferError::new(kind, message)
    }
}
