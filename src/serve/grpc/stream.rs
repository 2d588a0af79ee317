//! ModelStreamInfer: requests in a stream, an answer for each in a stream back, in their order.
//!
//! A stream has one request under way at a time: the next is read when the answer before it has been
//! handed to the connection. So what a stream can pile up here is bounded by the windows of HTTP/2,
//! and a client that does not read its answers is not read from either. Several requests at a time
//! are several streams, or calls of ModelInfer.
//!
//! A request that is refused is answered with its `error_message`, and the stream goes on. It ends
//! when the client ends it, when its API key may not have another answer, when a message is over the
//! limit, and, soon after the server has begun to stop, when no request has arrived for a moment: with
//! UNAVAILABLE then, so that the client opens another one elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use prost::bytes::Bytes;
use tonic::{Code, Status, Streaming};

use super::call::Asked;
use super::codec::{decode, encode};
use super::messages::{
    ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, Parameter, ParameterValue,
};
use super::{bounds, infer, service, status};
use crate::serve::App;
use crate::serve::auth::{Caller, Denial, Scope};

/// Messages on their way to the client.
pub type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// How often a stream without requests looks whether the server is stopping.
pub const LOOK: Duration = Duration::from_millis(250);

/// The server's end of a stream.
pub struct InferStream {
    app: Arc<App>,
    requests: Streaming<Bytes>,
    /// Of the stream as a whole.
    asked: Asked,
    caller: Caller,
    /// Whether a request has been answered: the first was counted with the call.
    has_answered: bool,
}

impl InferStream {
    pub fn new(
        app: Arc<App>,
        requests: Streaming<Bytes>,
        asked: Asked,
        caller: Caller,
    ) -> InferStream {
        InferStream {
            app,
            requests,
            asked,
            caller,
            has_answered: false,
        }
    }

    /// The answers, each made when it is asked for.
    pub fn answers(self) -> Answers {
        Box::pin(unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            match stream.next_request().await {
                Ok(Some(message)) => {
                    if let Err(denial) = stream.admit() {
                        return Some((Err(status::denied(&denial)), None));
                    }
                    let answer = encode(&stream.answer(message).await);
                    Some((Ok(answer), Some(stream)))
                }
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// Whether the caller may have another answer: each is a request like any other. The first was
    /// counted with the call, which may be long ago.
    fn admit(&mut self) -> Result<(), Denial> {
        let auth = &self.app.auth;
        if !self.has_answered {
            self.has_answered = true;
            return auth.still_admits(&self.caller, Scope::Score);
        }
        auth.admit_again(&self.caller, Scope::Score)
    }

    async fn next_request(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            // A look that comes too early loses nothing: what has arrived is kept.
            match tokio::time::timeout(LOOK, self.requests.message()).await {
                Ok(Err(status)) if status.code() == Code::OutOfRange => {
                    let limit = service::Limit::tensors(&self.app);
                    return Err(service::too_large(limit));
                }
                Ok(received) => return received,
                Err(_) if self.app.stopping.load(Ordering::Relaxed) => {
                    return Err(Status::unavailable(
                        "the server is stopping; every request of this stream is answered, open \
                         another one",
                    ));
                }
                Err(_) => {}
            }
        }
    }

    async fn answer(&self, message: Bytes) -> ModelStreamInferResponse {
        let max_bytes = self.app.config.max_body_bytes;
        let size = message.len();
        let checked = bounds::check_infer_request(&message, max_bytes);
        let request: ModelInferRequest = match checked.and_then(|()| decode(message)) {
            Ok(request) => request,
            Err(status) => return refusal(&status, ModelInferResponse::default()),
        };
        let whose = ModelInferResponse {
            model_name: request.model_name.clone(),
            model_version: request.model_version.clone(),
            id: request.id.clone(),
            ..ModelInferResponse::default()
        };
        match infer::infer(&self.app, request, size, self.asked).await {
            Ok(mut response) => {
                mark_final(&mut response);
                ModelStreamInferResponse {
                    error_message: String::new(),
                    infer_response: Some(response),
                }
            }
            Err(error) => refusal(&status::of(error), whose),
        }
    }
}

/// The protocol has a text here and no code.
fn refusal(status: &Status, whose: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse {
        error_message: status.message().to_owned(),
        infer_response: Some(whose),
    }
}

/// Triton's models may answer a request more than once, and its clients look at this parameter to
/// see which answer is the last. Here each is.
fn mark_final(response: &mut ModelInferResponse) {
    let last = Parameter {
        value: Some(ParameterValue::Bool(true)),
    };
    let name = "triton_final_response".to_owned();
    response.parameters.insert(name, last);
}
