//! Connections: accepting, spreading, bounding and ending them.
//!
//! Each core has a thread with a runtime of its own, and a connection stays on the thread it was
//! given to: no task moves between cores, no core wakes another for a request, and what a thread
//! keeps is in its core's cache. A new connection goes to the thread that has the fewest. (With one
//! runtime over all cores, the same requests took about a third more time.)
//!
//! At most `max_connections` are served at once; of further ones one for each listening socket is taken
//! and waits for a place, the others wait in the kernel's queue. What holds a place and does nothing is
//! closed: who does not agree on keys or does not begin to speak within `handshake_timeout`, who sends no
//! complete request head within `idle_timeout`, who takes nothing of an answer for `write_timeout` (over
//! HTTP/2 that answer alone is given up, when the client takes others). On stop the listening sockets are
//! closed first; then every connection finishes the requests it is in and is closed, within
//! `shutdown_timeout`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::http::stack::Stack;
use super::patience::Patient;
use super::tls::Tls;
use super::window::Streams;
use crate::admission::turn;
use crate::config::Config;
use crate::priority;

/// What every HTTP/2 client sends first.
const PREFACE_BYTES: usize = 24;

/// Bounds on connections.
#[derive(Clone, Copy)]
pub struct Limits {
    max_connections: usize,
    /// How long a client may take to agree on keys, and then to begin HTTP/2.
    handshake_timeout: Duration,
    /// How long a connection may wait for its next request head.
    idle_timeout: Duration,
    /// How long a client may take nothing of what waits for it.
    write_timeout: Duration,
    shutdown_timeout: Duration,
}

impl Limits {
    /// Those of the configuration.
    ///
    /// # Errors
    /// The setting that lets nobody in.
    pub fn of(config: &Config) -> Result<Limits, String> {
        for (setting, time) in [
            ("handshake_timeout", config.handshake_timeout),
            ("idle_timeout", config.idle_timeout),
            ("write_timeout", config.write_timeout),
        ] {
            if time.is_zero() {
                return Err(format!(
                    "{setting}: expected a time greater than zero, like 30s, found 0s"
                ));
            }
        }
        if config.max_connections == 0 {
            return Err("max_connections: expected at least 1, found 0".to_owned());
        }
        Ok(Limits {
            max_connections: config.max_connections,
            handshake_timeout: config.handshake_timeout,
            idle_timeout: config.idle_timeout,
            write_timeout: config.write_timeout,
            shutdown_timeout: config.shutdown_timeout,
        })
    }
}

/// What is spoken on a listening socket.
#[derive(Clone)]
pub enum Protocol {
    /// HTTP/1.1.
    Http(Stack),
    /// gRPC: HTTP/2, known beforehand.
    Grpc(Router),
}

impl Protocol {
    fn acceptor(&self, tls: &Tls) -> TlsAcceptor {
        match self {
            Protocol::Http(_) => tls.http(),
            Protocol::Grpc(_) => tls.grpc(),
        }
    }
}

/// An accepted connection on its way to a thread.
struct Connection {
    stream: std::net::TcpStream,
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    place: OwnedSemaphorePermit,
}

/// The threads that serve connections.
pub struct Threads {
    threads: Vec<Thread>,
    places: Arc<Semaphore>,
    /// Set to true when connections have to end.
    stop: watch::Sender<bool>,
}

struct Thread {
    connections: mpsc::UnboundedSender<Connection>,
    /// How many it serves.
    count: Arc<AtomicUsize>,
    handle: std::thread::JoinHandle<usize>,
}

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system refuses a thread or a runtime.
    pub fn start(count: usize, limits: Limits) -> std::io::Result<Threads> {
        let (stop, _) = watch::channel(false);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (connections, incoming) = mpsc::unbounded_channel();
            let served = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let work = serve_connections(incoming, Arc::clone(&served), limits, stop.subscribe());
            let handle = std::thread::Builder::new()
                .name(format!("serve-{number}"))
                .spawn(move || {
                    priority::prompt();
                    runtime.block_on(work)
                })?;
            threads.push(Thread {
                connections,
                count: served,
                handle,
            });
        }
        Ok(Threads {
            threads,
            places: Arc::new(Semaphore::new(limits.max_connections)),
            stop,
        })
    }

    /// Accepts connections and hands them on, until the future is dropped.
    pub async fn accept(&self, listener: &TcpListener, protocol: Protocol, tls: Option<&Arc<Tls>>) {
        loop {
            let accepted = match self.accept_one(listener).await {
                Ok((stream, place)) => Connection {
                    stream,
                    protocol: protocol.clone(),
                    tls: tls.map(|tls| protocol.acceptor(tls)),
                    place,
                },
                Err(error) => {
                    // Out of file descriptors, mostly: let connections end before trying again.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let least = self
                .threads
                .iter()
                .min_by_key(|thread| thread.count.load(Ordering::Relaxed));
            if let Some(thread) = least {
                thread.count.fetch_add(1, Ordering::Relaxed);
                // A thread only ends when the server does; the connection is closed then.
                let _ = thread.connections.send(accepted);
            }
        }
    }

    async fn accept_one(
        &self,
        listener: &TcpListener,
    ) -> std::io::Result<(std::net::TcpStream, OwnedSemaphorePermit)> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // After it is here: a socket on which nobody comes must not keep a place from the others.
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(std::io::Error::other)?;
        Ok((stream.into_std()?, place))
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        let counts = self.threads.iter();
        counts
            .map(|thread| thread.count.load(Ordering::Relaxed))
            .sum()
    }

    /// Lets every connection finish the requests it is in, and ends the threads. Blocks; returns how
    /// many connections had to be cut off.
    pub fn finish(self) -> usize {
        self.stop.send_replace(true);
        let mut cut_off = 0;
        for thread in self.threads {
            drop(thread.connections);
            cut_off += thread.handle.join().unwrap_or(0);
        }
        cut_off
    }
}

/// Counts a connection for as long as it lives. It is dropped on the thread it was made on, which is
/// the one that serves the connection.
struct Counted {
    connections: Arc<AtomicUsize>,
    /// How many it may have under way at once.
    requests: usize,
}

impl Counted {
    fn new(connections: &Arc<AtomicUsize>, protocol: &Protocol) -> Counted {
        let requests = match protocol {
            Protocol::Http(_) => 1,
            Protocol::Grpc(_) => MAX_STREAMS as usize,
        };
        turn::opened(requests);
        Counted {
            connections: Arc::clone(connections),
            requests,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        turn::closed(self.requests);
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one thread does: it serves the connections it is given until it has to stop. Returns how many
/// had to be cut off.
async fn serve_connections(
    mut incoming: mpsc::UnboundedReceiver<Connection>,
    count: Arc<AtomicUsize>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) -> usize {
    let graceful = GracefulShutdown::new();
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut stopping = false;
    loop {
        let connection = tokio::select! {
            // Those that are on their way here still come; then there are no more.
            _ = stop.changed(), if !stopping => {
                stopping = true;
                incoming.close();
                continue;
            }
            connection = incoming.recv() => connection,
            // Finished tasks are collected as they end, so that the set does not grow.
            Some(_) = connections.join_next() => continue,
        };
        let Some(connection) = connection else { break };
        let Connection {
            stream,
            protocol,
            tls,
            place,
        } = connection;
        let counted = Counted::new(&count, &protocol);
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was lost on its way to a thread");
                continue;
            }
        };
        // It has to be told of the end from here on, also while it is not yet served.
        let watcher = graceful.watcher();
        // Below TLS, where bytes that are on their way can be told from those that are not.
        let stream = Patient::new(stream).writes_within(limits.write_timeout);
        let stop = stop.clone();
        match tls {
            None => {
                connections.spawn(async move {
                    serve(stream, protocol, limits, stop, watcher).await;
                    drop((counted, place));
                });
            }
            Some(acceptor) => {
                connections.spawn(async move {
                    let within = limits.handshake_timeout;
                    let shaken = shake_hands(&acceptor, stream, within, stop.clone()).await;
                    if let Some(stream) = shaken {
                        serve(stream, protocol, limits, stop, watcher).await;
                    }
                    drop((counted, place));
                });
            }
        }
    }
    // Requests that have arrived are begun first: a connection without one is closed.
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
    let finished = tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await;
    let cut_off = if finished.is_err() {
        connections.len()
    } else {
        0
    };
    connections.shutdown().await;
    cut_off
}

/// Requests that one gRPC connection may have under way.
const MAX_STREAMS: u32 = 200;

/// Headers of one gRPC request, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Agrees on keys with a client. `None` when it cannot or takes too long, and when the server stops: no
/// request has been made by then.
async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: Patient<TcpStream>,
    within: Duration,
    mut stop: watch::Receiver<bool>,
) -> Option<TlsStream<Patient<TcpStream>>> {
    let accepted = tokio::time::timeout(within, acceptor.accept(stream));
    let accepted = tokio::select! {
        accepted = accepted => accepted,
        _ = stop.wait_for(|stopping| *stopping) => return None,
    };
    match accepted {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            metrics::counter!("bellwether_tls_handshakes_failed_total").increment(1);
            tracing::debug!(%error, "no TLS with a client");
            None
        }
        Err(_) => {
            metrics::counter!("bellwether_tls_handshakes_failed_total").increment(1);
            tracing::debug!("a client took too long for TLS");
            None
        }
    }
}

/// Serves a connection to its end.
async fn serve<S>(
    stream: S,
    protocol: Protocol,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle_timeout = limits.idle_timeout;
    let ended = match protocol {
        Protocol::Http(stack) => {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(idle_timeout)
                .serve_connection(TokioIo::new(stream), stack);
            watcher.watch(served).await
        }
        Protocol::Grpc(router) => {
            // hyper waits for the preface as long as it takes, also when the server stops.
            let given_up = async move {
                tokio::select! {
                    () = tokio::time::sleep(limits.handshake_timeout) => {}
                    _ = stop.wait_for(|stopping| *stopping) => {}
                }
            };
            let stream = Patient::new(stream).opens_with(PREFACE_BYTES, given_up);
            let streams = Streams {
                write_timeout: limits.write_timeout,
            };
            let served = hyper::server::conn::http2::Builder::new(streams)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_BYTES)
                .keep_alive_interval(Some(idle_timeout / 2))
                .keep_alive_timeout(idle_timeout / 2)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            watcher.watch(served).await
        }
    };
    // An error here is the client's: it closed early or did not speak HTTP.
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
