//! Connections: one for each thread that asks, kept open.
//!
//! All requests of a thread share its connection, one behind the other without waiting for each other's
//! answers. No thread wakes another for a request. A task beside the requests keeps the connection:
//! it opens it, and opens it again after it broke, with pauses that grow to two seconds. While it is
//! broken requests fail at once, so that an outage costs no request its time.
//!
//! A connection is given up when it breaks, when the server says that it takes no writes any more, and
//! when several requests in a row had no answer in time: then the other end may be gone without a word.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use ::redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Script, ServerErrorKind,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::address::{Address, Connection, describe};
use crate::store::StoreError;

/// The most connections; further threads share.
const MAX_LINKS: usize = 64;

/// So many requests in a row without an answer, and the connection is given up.
const MAX_SILENCES: u32 = 3;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub connect: Duration,
    pub read: Duration,
    pub write: Duration,
}

/// The connections of a store.
pub struct Links {
    address: Arc<Address>,
    times: Times,
    by_thread: Mutex<HashMap<ThreadId, Arc<Link>>>,
    /// Its keepers end when it is dropped.
    open: watch::Sender<()>,
}

/// One connection over time.
struct Link {
    state: watch::Receiver<State>,
    /// The number of the last connection that a request found broken.
    broken: watch::Sender<u64>,
    /// Requests in a row that had no answer in time.
    silences: AtomicU32,
    keeper: JoinHandle<()>,
}

#[derive(Clone)]
enum State {
    /// The first connection is being opened.
    Starting,
    /// The connection, and its number.
    Open(Connection, u64),
    /// Why there is none.
    Lost(Arc<str>),
}

impl Links {
    pub fn new(address: Address, times: Times) -> Links {
        Links {
            address: Arc::new(address),
            times,
            by_thread: Mutex::default(),
            open: watch::Sender::new(()),
        }
    }

    /// Whether the keys are spread over several servers.
    pub fn is_cluster(&self) -> bool {
        self.address.is_cluster()
    }

    /// Sends one command that reads.
    ///
    /// # Errors
    /// `Unavailable` when there is no connection or no answer in time.
    pub async fn read_one<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let (link, mut connection, number) = self.connection().await?;
        let answer = connection.command(command);
        link.wait(number, self.times.read, answer).await
    }

    /// Sends one command that may take longer, in a cluster to the primary that has `slot`.
    ///
    /// # Errors
    /// As `read_one`.
    pub async fn read_at<T: FromRedisValue>(
        &self,
        slot: u16,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let (link, mut connection, number) = self.connection().await?;
        let answer = connection.command_at(slot, command);
        link.wait(number, self.times.write, answer).await
    }

    /// Sends commands that read, in one round trip.
    ///
    /// # Errors
    /// As `read_one`, also when only one of them failed.
    pub async fn read_many<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<T>, StoreError> {
        self.all(self.times.read, commands).await
    }

    /// The same as part of a write, which may take longer.
    ///
    /// # Errors
    /// As `read_many`.
    pub async fn read_to_write<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<T>, StoreError> {
        self.all(self.times.write, commands).await
    }

    /// Sends commands that write, in one round trip.
    ///
    /// # Errors
    /// As `read_one`; what was sent may have been done. What the server refuses is with its command, for
    /// [`Links::refused`].
    pub async fn write_many<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<RedisResult<T>>, StoreError> {
        let (link, mut connection, number) = self.connection().await?;
        let answer = connection.commands(commands);
        link.wait(number, self.times.write, answer).await
    }

    async fn all<T: FromRedisValue>(
        &self,
        limit: Duration,
        commands: &Pipeline,
    ) -> Result<Vec<T>, StoreError> {
        let (link, mut connection, number) = self.connection().await?;
        let answers = link
            .wait(number, limit, connection.commands(commands))
            .await?;
        let answers = answers
            .into_iter()
            .map(|answer| answer.map_err(|error| self.refused(&error)));
        answers.collect()
    }

    /// Makes a script known to the server, in a cluster to all of them.
    ///
    /// # Errors
    /// As `read_one`.
    pub async fn load(&self, script: &Script) -> Result<(), StoreError> {
        let (link, mut connection, number) = self.connection().await?;
        let answer = connection.load(script);
        link.wait(number, self.times.write, answer).await
    }

    /// What a server says to one command of many, as an error of the store. The connection is given up
    /// when it is no use any more.
    pub fn refused(&self, error: &RedisError) -> StoreError {
        if let Ok(link) = self.link() {
            let number = match &*link.state.borrow() {
                State::Open(_, number) => *number,
                State::Starting | State::Lost(_) => 0,
            };
            link.judge(number, error);
        }
        StoreError::Unavailable(describe(error))
    }

    async fn connection(&self) -> Result<(Arc<Link>, Connection, u64), StoreError> {
        let link = self.link()?;
        let mut state = link.state.clone();
        if matches!(*state.borrow(), State::Starting) {
            // Only the requests of the first moment wait.
            let started = state.wait_for(|state| !matches!(state, State::Starting));
            let _ = tokio::time::timeout(self.times.connect, started).await;
        }
        let state = state.borrow().clone();
        match state {
            State::Open(connection, number) => Ok((link, connection, number)),
            State::Starting => Err(StoreError::Unavailable("no connection yet".to_owned())),
            State::Lost(problem) => Err(StoreError::Unavailable(problem.to_string())),
        }
    }

    /// This thread's link.
    fn link(&self) -> Result<Arc<Link>, StoreError> {
        let thread = std::thread::current().id();
        let mut links = self
            .by_thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&thread)
            && !link.keeper.is_finished()
        {
            return Ok(Arc::clone(link));
        }
        // A keeper ends with its runtime.
        links.retain(|_, link| !link.keeper.is_finished());
        if links.len() >= MAX_LINKS
            && let Some(link) = links.values().next()
        {
            return Ok(Arc::clone(link));
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| StoreError::Io(error.to_string()))?;
        let link = Arc::new(self.start(&runtime));
        links.insert(thread, Arc::clone(&link));
        Ok(link)
    }

    fn start(&self, runtime: &tokio::runtime::Handle) -> Link {
        let (set_state, state) = watch::channel(State::Starting);
        let broken = watch::Sender::new(0);
        let keeper = Keeper {
            address: Arc::clone(&self.address),
            connect_limit: self.times.connect,
            state: set_state,
            broken: broken.subscribe(),
        };
        let mut store = self.open.subscribe();
        let keeper = runtime.spawn(async move {
            tokio::select! {
                () = keeper.keep() => {}
                // An error: the store is gone.
                _ = store.changed() => {}
            }
        });
        Link {
            state,
            broken,
            silences: AtomicU32::new(0),
            keeper,
        }
    }
}

impl Link {
    async fn wait<T>(
        &self,
        number: u64,
        limit: Duration,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(value)) => {
                self.silences.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => {
                self.judge(number, &error);
                Err(StoreError::Unavailable(describe(&error)))
            }
            Err(_) => {
                if self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_SILENCES {
                    self.give_up(number);
                }
                let limit = humantime::format_duration(limit);
                Err(StoreError::Unavailable(format!("no answer within {limit}")))
            }
        }
    }

    /// Gives the connection up if `error` says that it is no use any more.
    fn judge(&self, number: u64, error: &RedisError) {
        let is_replica = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        );
        if is_replica || error.is_unrecoverable_error() {
            self.give_up(number);
        }
    }

    fn give_up(&self, number: u64) {
        self.silences.store(0, Ordering::Relaxed);
        self.broken.send_if_modified(|broken| {
            let is_news = *broken < number;
            *broken = number.max(*broken);
            is_news
        });
    }
}

/// Keeps one connection open.
struct Keeper {
    address: Arc<Address>,
    connect_limit: Duration,
    state: watch::Sender<State>,
    broken: watch::Receiver<u64>,
}

impl Keeper {
    /// Ends when nobody holds the link any more.
    async fn keep(mut self) {
        let mut number = 0;
        let mut pause = FIRST_PAUSE;
        let mut is_lost = false;
        loop {
            match self.address.connect(self.connect_limit).await {
                Ok(connection) => {
                    if is_lost {
                        tracing::info!(store = self.address.name(), "the online store is back");
                        metrics::counter!("bellwether_store_reconnects_total").increment(1);
                    }
                    number += 1;
                    pause = FIRST_PAUSE;
                    self.state.send_replace(State::Open(connection, number));
                    if self
                        .broken
                        .wait_for(|broken| *broken >= number)
                        .await
                        .is_err()
                    {
                        return;
                    }
                    is_lost = true;
                    let problem = "the connection broke";
                    tracing::warn!(
                        store = self.address.name(),
                        problem,
                        "the online store is lost"
                    );
                    self.state.send_replace(State::Lost(problem.into()));
                }
                Err(problem) => {
                    if !is_lost {
                        let store = self.address.name();
                        tracing::warn!(store, problem, "the online store cannot be reached");
                    }
                    is_lost = true;
                    self.state.send_replace(State::Lost(problem.into()));
                    // Servers that lost it at the same time do not come back at the same time.
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
