//! Refusals as gRPC says them: a code for programs, a message for people.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::features::value::shorten;
use crate::infer::error::{InferError, Kind};
use crate::serve::auth::Denial;

/// How long a message may be, in characters. It travels in a header, and clients cut a connection
/// off whose headers are over 8 KiB; a character can take twelve bytes there.
const MAX_MESSAGE_CHARS: usize = 600;

/// After how long asking again for a version that is not ready makes sense.
const NOT_READY_RETRY_S: u32 = 5;

/// Milliseconds after which trying again makes sense, as gRPC's clients look for them.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A message that fits into a header.
pub fn shortened(message: &str) -> String {
    shorten(message, MAX_MESSAGE_CHARS)
}

/// The status of a refusal.
pub fn of(error: InferError) -> Status {
    let message = shortened(&error.message);
    let (code, retry_after_s) = match error.kind {
        // A request over a bound is wrong however often it is sent. RESOURCE_EXHAUSTED is kept for
        // what another try can mend, and for messages that are not even read.
        Kind::Invalid | Kind::TooLarge => (Code::InvalidArgument, None),
        Kind::NotFound => (Code::NotFound, None),
        Kind::NotReady => (Code::Unavailable, Some(NOT_READY_RETRY_S)),
        Kind::Unsupported => (Code::Unimplemented, None),
        Kind::Unavailable { retry_after_s } => (Code::Unavailable, Some(retry_after_s)),
        Kind::Overloaded { retry_after_s } => (Code::ResourceExhausted, Some(retry_after_s)),
        Kind::Expired => (Code::DeadlineExceeded, None),
        Kind::Internal => {
            tracing::error!(error = error.message, "gRPC request failed");
            (Code::Internal, None)
        }
    };
    match retry_after_s {
        Some(seconds) => {
            let message = format!("{message}; try again in {seconds} s");
            Status::with_metadata(code, message, try_again_in(seconds))
        }
        None => Status::new(code, message),
    }
}

fn try_again_in(seconds: u32) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let milliseconds = MetadataValue::from(u64::from(seconds) * 1000);
    metadata.insert(RETRY_PUSHBACK, milliseconds);
    metadata
}

/// The status of a call that its caller may not make, or not now.
pub fn denied(denial: &Denial) -> Status {
    let message = denial.to_string();
    match denial {
        Denial::Missing
        | Denial::Unknown
        | Denial::Unreadable
        | Denial::Revoked { .. }
        | Denial::Expired { .. } => Status::unauthenticated(message),
        Denial::Scope { .. } | Denial::OtherSite { .. } => Status::permission_denied(message),
        Denial::Rate { .. } => {
            let seconds = denial.retry_after_s().unwrap_or(1);
            let metadata = try_again_in(seconds);
            Status::with_metadata(Code::ResourceExhausted, message, metadata)
        }
    }
}
