//! What is left of a request's body when its answer is there.
//!
//! Most clients send a body to its end before they listen. One that is refused before that would find its
//! connection closed, and never hear why. So what it still sends is read and thrown away before it is
//! answered: here, for all routes. Nothing of it is kept, and it is bounded by [`MAX_BYTES`] and
//! [`MAX_TIME`]; beyond them the connection is closed with the answer, which says so.
//!
//! A client that asks before it sends (`Expect: 100-continue`) and was not told to go on is answered at
//! once, and so is one whose answer closes the connection anyway: it has taken too long already.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// The most that is thrown away of one body: the files of a large model.
const MAX_BYTES: usize = 1024 * 1024 * 1024;

/// How long that may take.
const MAX_TIME: Duration = Duration::from_secs(5);

/// A body that knows how far it has been read.
pub struct Tracked<B> {
    body: B,
    /// Somebody has begun to read, so that the client was told to go on.
    is_begun: bool,
    is_over: bool,
}

impl<B: HttpBody> Tracked<B> {
    pub fn new(body: B) -> Tracked<B> {
        Tracked {
            is_begun: false,
            is_over: body.is_end_stream(),
            body,
        }
    }
}

impl<B> HttpBody for Tracked<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let me = self.get_mut();
        me.is_begun = true;
        let polled = Pin::new(&mut me.body).poll_frame(context);
        me.is_over |= match &polled {
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(_))) => me.body.is_end_stream(),
            Poll::Pending => false,
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body on its way through the routes: what is left of it when it is dropped comes back.
struct Lent<B> {
    body: Option<Tracked<B>>,
    owner: Option<oneshot::Sender<Tracked<B>>>,
}

/// Where it comes back; `None` of a body that is empty.
pub type Left<B> = Option<oneshot::Receiver<Tracked<B>>>;

impl<B> HttpBody for Lent<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.get_mut().body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(owner)) = (self.body.take(), self.owner.take())
            && !body.is_over
        {
            // The owner may have gone, and then the client too.
            let _ = owner.send(body);
        }
    }
}

/// A body to hand on, and where what is left of it comes back.
pub fn lend<B>(body: B) -> (Body, Left<B>)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    if body.is_end_stream() {
        return (Body::new(body), None);
    }
    let (owner, left) = oneshot::channel();
    let lent = Lent {
        body: Some(Tracked::new(body)),
        owner: Some(owner),
    };
    (Body::new(lent), Some(left))
}

/// What has come back by now. Nothing has while an answer is made of the body as it comes.
pub fn returned<B>(left: Left<B>) -> Option<Tracked<B>> {
    left.and_then(|mut left| left.try_recv().ok())
}

/// Makes an answer one that its client gets to see: reads what is left of the request with these
/// headers, or says that the connection is closed.
pub async fn settle<B>(mut response: Response, waits: bool, body: Tracked<B>) -> Response
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if body.is_over || response.headers().contains_key(header::CONNECTION) {
        return response;
    }
    let may_read = body.is_begun || !waits;
    if !(may_read && discard(body).await) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Whether a client asks before it sends its body.
pub fn waits(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Reads what is left of a body and throws it away, within limits; whether that was all of it.
pub async fn discard<B>(body: B) -> bool
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    discard_within(body, MAX_BYTES, MAX_TIME).await
}

async fn discard_within<B>(mut body: B, bytes: usize, time: Duration) -> bool
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let discard = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > bytes {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(time, discard).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    /// A body of so many pieces, of which none says how many there are.
    fn pieces(count: usize) -> Body {
        let pieces = (0..count).map(|_| Ok::<_, Infallible>(Bytes::from_static(b"piece")));
        Body::from_stream(stream::iter(pieces))
    }

    fn answer() -> Response {
        Response::new(Body::empty())
    }

    fn closes(response: &Response) -> bool {
        response.headers().contains_key(header::CONNECTION)
    }

    #[tokio::test]
    async fn what_nobody_has_read_comes_back_and_is_read() {
        let (mut lent, left) = lend(pieces(3));
        assert!(lent.frame().await.is_some());
        drop(lent);
        let left = returned(left).unwrap();
        assert!(!closes(&settle(answer(), true, left).await));
        // Nothing comes back of what was read to its end, of what is still read, and of nothing
        let (mut lent, left) = lend(pieces(1));
        while lent.frame().await.is_some() {}
        drop(lent);
        assert!(returned(left).is_none());
        let (lent, left) = lend(pieces(1));
        assert!(returned(left).is_none());
        drop(lent);
        assert!(lend(Body::empty()).1.is_none());
    }

    #[tokio::test]
    async fn who_waits_for_a_word_is_not_asked_for_a_body_that_nobody_wants() {
        let settled = settle(answer(), true, Tracked::new(pieces(1))).await;
        assert!(closes(&settled));
        assert!(!closes(
            &settle(answer(), false, Tracked::new(pieces(1))).await
        ));
    }

    #[tokio::test]
    async fn no_more_is_thrown_away_than_may_be() {
        let long = Duration::from_secs(60);
        assert!(discard_within(pieces(2), 10, long).await);
        assert!(!discard_within(pieces(3), 10, long).await);
        let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert!(!discard_within(endless, 10, Duration::from_millis(1)).await);
    }
}
