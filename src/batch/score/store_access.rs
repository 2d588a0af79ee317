//! The online store as a job reads and writes it: one that this process has open, or that of a running
//! server.
//!
//! An embedded store is open in one process, so that a job opens it when no server runs, and asks the server
//! otherwise. A shared store is read beside the servers that use it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::inputs::InputFile;
use super::plan::Plan;
use crate::batch::patience::patiently;
use crate::batch::push_remote::ANSWER_TIMEOUT;
use crate::clock;
use crate::features::view::View;
use crate::ingest::Ingest;
use crate::remote::Remote;
use crate::score::ScoreError;
use crate::score::given::{Given, given_of};
use crate::score::given_page::{ARROW_STREAM, GivenPage};
use crate::store::{OnlineStore, Snapshot, StoreError};

/// How often a shared store that is out of reach is asked again, and the longest pause before that.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The store of a job.
pub struct StoreAccess {
    /// What it is called in messages; never with a password.
    name: String,
    place: Place,
}

enum Place {
    Open {
        store: Arc<dyn OnlineStore>,
        /// Where changes go; none when the store is only read.
        ingest: Option<Ingest>,
        runtime: Runtime,
    },
    Server(Remote),
}

/// Some entities, as far as they are read.
pub struct Entities {
    pub content: Known,
    /// Where the next ones begin; `None` at the end.
    pub next: Option<String>,
    /// They come in the order of their keys, each once.
    pub in_order: bool,
}

/// What is known of some entities.
pub enum Known {
    /// As the store of this process has them.
    Snapshots(Vec<(String, Snapshot)>),
    /// As a server gives them.
    Values(Vec<String>, Given),
}

impl std::fmt::Debug for StoreAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreAccess").field(&self.name).finish()
    }
}

impl StoreAccess {
    /// A store that is open in this process. `ingest` takes the changes to it.
    pub fn open(
        name: String,
        store: Arc<dyn OnlineStore>,
        ingest: Option<Ingest>,
        runtime: Runtime,
    ) -> StoreAccess {
        let place = Place::Open {
            store,
            ingest,
            runtime,
        };
        StoreAccess { name, place }
    }

    /// The store of a running server.
    pub fn server(server: Remote) -> StoreAccess {
        StoreAccess {
            name: server.url().to_owned(),
            place: Place::Server(server.within(ANSWER_TIMEOUT)),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// It as an input of a job: it has no digest, because it changes all the time.
    pub fn as_input(&self, view: &View) -> InputFile {
        InputFile {
            path: format!("store {}, view {}", self.name, view.name).into(),
            bytes: 0,
            xxh3: String::new(),
        }
    }

    /// Whether a server has the view that the job has.
    ///
    /// # Errors
    /// That it does not, or cannot be asked.
    pub fn check_view(&self, view: &View) -> Result<(), String> {
        match &self.place {
            Place::Open { .. } => Ok(()),
            Place::Server(server) => {
                let path = path_of(view, None, 1, clock::now_us());
                // A server that is not there is told at once.
                let bytes = patiently(|| match server.get_bytes(&path, ARROW_STREAM) {
                    Ok(answered) => Ok(answered.map(Ok)),
                    Err(problem) => Ok(Ok(Err(problem))),
                })??;
                read_page(server, &bytes, view).map(drop)
            }
        }
    }

    /// The next entities behind `after`, about `limit` of them.
    ///
    /// # Errors
    /// Why they cannot be read; what may pass was waited for.
    pub fn entities(
        &self,
        plan: &Plan,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Entities, String> {
        let (view, at_us) = (&plan.view, plan.at_us);
        let in_store = |problem: String| format!("{}: {problem}", self.name);
        match &self.place {
            Place::Open { store, runtime, .. } => {
                let read = || runtime.block_on(store.scan(view, after, limit, at_us));
                let page = while_away(read).map_err(|error| in_store(error.to_string()))?;
                Ok(Entities {
                    content: Known::Snapshots(page.entities),
                    next: page.next,
                    in_order: store.scans_in_order(),
                })
            }
            Place::Server(server) => {
                let page = page_of(server, view, after, limit, at_us)?;
                Ok(Entities {
                    content: Known::Values(page.keys, page.given),
                    next: page.next,
                    in_order: page.in_order,
                })
            }
        }
    }

    /// The keys and values of entities that were read; those related to them are read now.
    ///
    /// # Errors
    /// As [`StoreAccess::entities`].
    pub fn values(&self, plan: &Plan, known: Known) -> Result<(Vec<String>, Given), String> {
        match (known, &self.place) {
            (Known::Values(keys, given), _) => Ok((keys, given)),
            (Known::Snapshots(entities), Place::Open { store, runtime, .. }) => {
                let (view, at_us) = (&plan.view, plan.at_us);
                let read = || {
                    let given = given_of(&**store, view, &entities, &plan.needed, at_us);
                    runtime.block_on(given)
                };
                let given = while_away(read).map_err(|error| format!("{}: {error}", self.name))?;
                Ok((entities.into_iter().map(|(key, _)| key).collect(), given))
            }
            (Known::Snapshots(_), Place::Server(_)) => {
                Err(format!("{}: gives values, not entities", self.name))
            }
        }
    }

    /// The server that changes are sent to, or else who takes them here.
    ///
    /// # Errors
    /// When the store was opened only to be read.
    pub fn target(&self) -> Result<Target<'_>, String> {
        match &self.place {
            Place::Server(server) => Ok(Target::Server(server)),
            Place::Open {
                ingest: Some(ingest),
                runtime,
                ..
            } => Ok(Target::Open(runtime, ingest)),
            Place::Open { ingest: None, .. } => {
                Err(format!("{}: it was opened only to be read", self.name))
            }
        }
    }
}

/// Where changes go.
pub enum Target<'a> {
    Open(&'a Runtime, &'a Ingest),
    Server(&'a Remote),
}

/// One page of a server's entities.
fn page_of(
    server: &Remote,
    view: &View,
    after: Option<&str>,
    limit: usize,
    at_us: i64,
) -> Result<GivenPage, String> {
    let path = path_of(view, after, limit, at_us);
    let bytes = patiently(|| server.get_bytes(&path, ARROW_STREAM))?;
    read_page(server, &bytes, view)
}

fn read_page(server: &Remote, bytes: &[u8], view: &View) -> Result<GivenPage, String> {
    GivenPage::from_arrow(bytes, view).map_err(|problem| format!("{}: {problem}", server.url()))
}

fn path_of(view: &View, after: Option<&str>, limit: usize, at_us: i64) -> String {
    let at = clock::to_rfc3339(at_us);
    let mut path = format!("/v1/features/{}?limit={limit}&at={at}", view.name);
    if let Some(after) = after {
        path.push_str("&after=");
        path.push_str(after);
    }
    path
}

/// An error of a store, perhaps one that passes.
trait MayPass {
    fn may_pass(&self) -> bool;
}

impl MayPass for StoreError {
    fn may_pass(&self) -> bool {
        StoreError::may_pass(self)
    }
}

impl MayPass for ScoreError {
    fn may_pass(&self) -> bool {
        matches!(self, ScoreError::Store(error) if error.may_pass())
    }
}

/// Reads, again after a while when the store is out of reach.
fn while_away<T, E: MayPass>(read: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match read() {
            Err(error) if error.may_pass() => {}
            done => return done,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    read()
}
