//! How long a client may do nothing, where HTTP itself sets no bound.
//!
//! hyper ends a connection whose next request head does not come, and one whose HTTP/2 client answers no
//! ping. Two kinds it waits for without an end, and each holds a place among `max_connections`: a
//! connection over which HTTP/2 is never begun, and a client that takes nothing of what is written for it.
//! [`Patient`] stands between hyper and the stream and ends both.
//!
//! A client that takes a little now and then is slow and no more: it is waited for. Nothing is allocated
//! and no clock is read while a client keeps up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream that is given up when its client does nothing for too long.
pub struct Patient<S> {
    stream: S,
    /// How long a write may wait; `None` for ever.
    write_timeout: Option<Duration>,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    opening: Option<Opening>,
}

/// The first bytes of a connection, until they have come.
struct Opening {
    bytes_left: usize,
    /// Resolves when they are not waited for any more.
    given_up: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S> Patient<S> {
    /// As patient as the stream itself.
    pub fn new(stream: S) -> Patient<S> {
        Patient {
            stream,
            write_timeout: None,
            stalled: None,
            opening: None,
        }
    }

    /// Ends the stream when the client takes nothing of what waits for it for so long.
    pub fn writes_within(mut self, timeout: Duration) -> Patient<S> {
        self.write_timeout = Some(timeout);
        self
    }

    /// Ends the stream when `given_up` resolves before so many bytes have come.
    pub fn opens_with(
        mut self,
        bytes: usize,
        given_up: impl Future<Output = ()> + Send + 'static,
    ) -> Patient<S> {
        self.opening = Some(Opening {
            bytes_left: bytes,
            given_up: Box::pin(given_up),
        });
        self
    }

    /// What becomes of a write whose outcome is `written`.
    fn after_write(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(timeout) = self.write_timeout else {
            return written;
        };
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timer = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(given_up(
            "write",
            "the client takes nothing of its answer",
        )))
    }
}

/// Counts a connection that is given up.
fn given_up(reason: &'static str, message: &'static str) -> io::Error {
    metrics::counter!("bellwether_connections_given_up_total", "reason" => reason).increment(1);
    io::Error::new(io::ErrorKind::TimedOut, message)
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut me.stream).poll_read(context, buffer);
        let Some(opening) = &mut me.opening else {
            return read;
        };
        if read.is_ready() {
            let bytes = buffer.filled().len() - before;
            opening.bytes_left = opening.bytes_left.saturating_sub(bytes);
            if opening.bytes_left == 0 {
                me.opening = None;
            }
            return read;
        }
        ready!(opening.given_up.as_mut().poll(context));
        Poll::Ready(Err(given_up(
            "opening",
            "the client does not begin to speak",
        )))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.stream).poll_write(context, bytes);
        me.after_write(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.stream).poll_write_vectored(context, slices);
        me.after_write(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use tokio::io::duplex;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await
    }

    async fn read<S: AsyncRead + Unpin>(stream: &mut S, most: usize) -> io::Result<usize> {
        let mut bytes = vec![0; most];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await?;
        Ok(buffer.filled().len())
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        let (stream, mut client) = duplex(4);
        let mut stream = Patient::new(stream).writes_within(SOON);
        assert_eq!(write(&mut stream, b"answer").await.unwrap(), 4);
        // A byte at a time goes on for as long as it goes on
        for _ in 0..3 {
            assert_eq!(read(&mut client, 1).await.unwrap(), 1);
            assert_eq!(write(&mut stream, b"answer").await.unwrap(), 1);
        }
        let refused = write(&mut stream, b"answer").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_does_not_begin_is_given_up_however_slowly_the_bytes_come() {
        // Nothing is to come that never comes
        let (stream, _client) = duplex(64);
        let mut stream = Patient::new(stream).opens_with(3, ready(()));
        let refused = read(&mut stream, 8).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        // Two bytes are not three
        let (stream, mut client) = duplex(64);
        let mut stream = Patient::new(stream).opens_with(3, ready(()));
        write(&mut client, b"ab").await.unwrap();
        assert_eq!(read(&mut stream, 8).await.unwrap(), 2);
        assert!(read(&mut stream, 8).await.is_err());
        // And who has begun is waited for
        let (stream, mut client) = duplex(64);
        let mut stream = Patient::new(stream).opens_with(3, ready(()));
        write(&mut client, b"abc").await.unwrap();
        assert_eq!(read(&mut stream, 8).await.unwrap(), 3);
        assert!(futures_util::poll!(Box::pin(read(&mut stream, 8))).is_pending());
        let (stream, _client) = duplex(64);
        let mut stream = Patient::new(stream).opens_with(3, pending());
        assert!(futures_util::poll!(Box::pin(read(&mut stream, 8))).is_pending());
    }
}
