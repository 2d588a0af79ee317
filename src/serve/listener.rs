//! Connections: accepting, bounding and ending them.
//!
//! One task per connection, all owned by the accept loop. At most `max_connections` are served at
//! once; further ones wait in the kernel's queue. A connection that sends no complete request
//! head within `idle_timeout` is closed. On stop the listening socket is closed first; then every
//! connection finishes the request it is in and is closed, within `shutdown_timeout`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a connection may wait for its next request head.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Bounds on connections.
pub struct Limits {
    pub max_connections: usize,
    pub idle_timeout: Duration,
    pub shutdown_timeout: Duration,
}

/// Serves `router` until `stop` resolves; returns how many connections had to be cut off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> usize {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
            // Finished tasks are collected as they end, so that the set does not grow.
            Some(_) = connections.join_next() => continue,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: let connections end before trying again.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        let watched = graceful.watch(connection);
        connections.spawn(async move {
            // An error here is the client's: it closed early or did not speak HTTP.
            if let Err(error) = watched.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    let finished = tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await;
    let cut_off = if finished.is_err() {
        connections.len()
    } else {
        0
    };
    connections.shutdown().await;
    cut_off
}

type Accepted = (tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}
