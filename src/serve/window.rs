//! How long an HTTP/2 client may take nothing of an answer while its connection lives.
//!
//! Over HTTP/2 each answer is a stream of its own, and of each so much is sent as the client has allowed. For
//! the next allowance hyper waits as long as there is a connection, and that lives as long as the client
//! answers pings: it could keep as many answers in memory as it may have requests under way, for ever.
//!
//! So [`paced`] hands an answer to hyper in small pieces, each when there is room for it, and notes whose
//! turn it is; and [`Streams`], which runs what hyper does for a stream, gives it up when it has been the
//! client's turn for too long. What was kept of the answer is dropped and the client is told by
//! RST_STREAM; its connection and its other streams go on.
//!
//! What it does not do: what hyper has taken for the end of an answer, one piece at most, waits for as long
//! as the connection lives.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::time::Sleep;

/// The most that is handed over at once, in bytes: as much as one frame of HTTP/2 usually has. A client
/// that takes that much within its time is slow and no more.
const PIECE_BYTES: usize = 16 * 1024;

tokio::task_local! {
    /// That of the stream for which the task runs.
    static TURNS: Arc<Turns>;
}

/// Whose turn it is, and how often it has changed: even while something is to be done here, odd while a
/// piece waits for the client.
#[derive(Default)]
struct Turns(AtomicU64);

impl Turns {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn is_clients(&self) -> bool {
        !self.count().is_multiple_of(2)
    }

    fn change(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the streams of a connection.
#[derive(Clone, Copy)]
pub struct Streams {
    /// How long one may wait for its client to take a piece.
    pub write_timeout: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        let turns = Arc::new(Turns::default());
        let watched = watch(stream, Arc::clone(&turns), self.write_timeout);
        // Its connection waits for it, as for every stream.
        TokioExecutor::new().execute(TURNS.scope(turns, watched));
    }
}

/// Runs a stream to its end, or until its client has taken nothing for too long. No clock is read while
/// the client keeps up.
async fn watch(stream: impl Future, turns: Arc<Turns>, patience: Duration) {
    let mut stream = pin!(stream);
    let mut waiting: Option<(u64, Pin<Box<Sleep>>)> = None;
    let ended = poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !turns.is_clients() {
            waiting = None;
            return Poll::Pending;
        }
        let count = turns.count();
        let timer = match waiting.take() {
            Some((since, timer)) if since == count => timer,
            _ => Box::pin(tokio::time::sleep(patience)),
        };
        let (_, timer) = waiting.insert((count, timer));
        ready!(timer.as_mut().poll(context));
        metrics::counter!("bellwether_grpc_streams_given_up_total").increment(1);
        tracing::debug!("a stream was given up: its client takes nothing of the answer");
        Poll::Ready(())
    });
    ended.await;
}

/// An answer in pieces, for the stream that the task runs for.
pub fn paced<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    Body::new(Paced {
        body,
        rest: Bytes::new(),
        turns: TURNS.try_with(Arc::clone).unwrap_or_default(),
    })
}

struct Paced<B> {
    body: B,
    /// What was made and is not handed over yet.
    rest: Bytes,
    turns: Arc<Turns>,
}

impl<B> HttpBody for Paced<B>
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
        if me.turns.is_clients() {
            me.turns.change();
        }
        if me.rest.is_empty() {
            let frame = ready!(Pin::new(&mut me.body).poll_frame(context));
            me.rest = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
        }
        let bytes = me.rest.len().min(PIECE_BYTES);
        let piece = me.rest.split_to(bytes);
        me.turns.change();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // It is asked for before the first piece.
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_handed_over_whole_and_in_small_pieces() {
        let whole: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let mut body = paced(Full::from(whole.clone()));
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let mut received = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!((1..=PIECE_BYTES).contains(&piece.len()));
            received.extend_from_slice(&piece);
        }
        assert!(received == whole && body.is_end_stream());
    }

    /// What hyper does for a stream: an answer of two pieces, of which the client takes the first `taken`,
    /// each after a while that is not too long.
    async fn answer(taken: usize, patience: Duration) {
        let mut body = paced(Full::from(vec![0; 2 * PIECE_BYTES]));
        for _ in 0..taken {
            tokio::time::sleep(patience * 2 / 3).await;
            body.frame().await;
        }
        if taken < 3 {
            pending::<()>().await;
        }
    }

    /// Whether a stream is given up, before anything that lasts much longer.
    async fn is_given_up(stream: impl Future, patience: Duration) -> bool {
        let turns = Arc::new(Turns::default());
        let watched = TURNS.scope(Arc::clone(&turns), watch(stream, turns, patience));
        tokio::time::timeout(patience * 100, watched).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_more_is_given_up_and_who_is_slow_is_not() {
        let patience = Duration::from_secs(30);
        // Given that it has taken the first piece, or both and not the end
        for taken in [1, 2] {
            assert!(is_given_up(answer(taken, patience), patience).await);
        }
        // Whose turn it is not yet is waited for, as long as it takes
        assert!(!is_given_up(answer(0, patience), patience).await);
        assert!(!is_given_up(pending::<()>(), patience).await);
        // And who takes its time, but takes all, has it all
        let begun = tokio::time::Instant::now();
        assert!(is_given_up(answer(3, patience), patience).await);
        assert_eq!(begun.elapsed(), patience * 2 / 3 * 3);
    }
}
