//! The online store: the current feature values of every entity, read on each score.
//!
//! [`OnlineStore`] is what the rest of the server sees; [`embedded::EmbeddedStore`] keeps the
//! data in the server's own directory, [`redis::RedisStore`] on a Redis or Valkey server that several
//! servers share. A store keeps values as they were written, by feature
//! name: it knows nothing of types, defaults or ranges (see `crate::features`), so a changed view
//! never makes stored data unreadable.

pub mod embedded;
pub mod entity;
pub mod memory;
mod packed;
mod profile;
pub mod redis;
mod row;
pub mod scan;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use self::entity::{Action, Applied};
use self::scan::Page;
use crate::features::value::Value;
use crate::features::view::View;
use crate::features::windows::WindowState;

pub use self::profile::{Profile, StoredValue};

/// What a reader sees of one entity at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub profile: Profile,
    /// One value for each of the view's window features.
    pub windows: Vec<Value>,
    /// The number of the last change that went into it.
    pub applied: u64,
}

impl Snapshot {
    /// What is known of an entity while the store is lost: nothing, not even what windows without events
    /// would say.
    pub fn without_values(view: &View) -> Snapshot {
        Snapshot {
            windows: vec![Value::Null; view.windows().aggregates().len()],
            ..Snapshot::default()
        }
    }
}

/// A batch of changes that is in the log, and what each does to which entity.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The number of its first change; the others follow without gaps.
    pub sequence: u64,
    /// How many changes it has.
    pub changes: usize,
    /// The segment of the log it is in: where a replay has to begin reading.
    pub segment: u64,
    /// When it was learned, microseconds since the Unix epoch. Never less than that of an earlier batch.
    pub known_at_us: i64,
    pub views: Vec<ViewWork<'a>>,
}

/// What a batch does to the entities of one view, in the order of the changes.
#[derive(Debug)]
pub struct ViewWork<'a> {
    pub view: Arc<View>,
    pub work: Vec<Work<'a>>,
}

/// What one change does to one entity.
#[derive(Debug)]
pub struct Work<'a> {
    /// Index of the change in its batch.
    pub change: usize,
    pub key: String,
    pub action: Action<'a>,
}

/// Up to where a store has the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// The number of the first change that has to be applied again after a restart; some of those
    /// behind it may be applied already, which the store knows by itself.
    pub sequence: u64,
    /// A segment of the log at or before that change.
    pub segment: u64,
}

/// Why the store could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory open.
    #[error(
        "the store in {0} is in use by another process; stop that server or use another --data-dir"
    )]
    InUse(String),
    /// Reading or writing failed; the data on disk is as it was.
    #[error("the online store failed: {0}")]
    Io(String),
    /// A shared store does not answer now, or not in time. What was to be applied may have been; to
    /// apply it again does no harm.
    #[error("the online store is out of reach: {0}; try again shortly")]
    Unavailable(String),
    /// A setting of the store is wrong.
    #[error("{0}")]
    Settings(String),
    /// A scan is to go on at a place that this store cannot have named.
    #[error("after: {0:?} is no place that this store has given")]
    Place(String),
    /// A stored row cannot be decoded.
    #[error("the stored profile of view {view} is damaged: {problem}")]
    Damaged { view: String, problem: String },
}

impl StoreError {
    /// Whether the same call may work later: the store is out of reach.
    pub fn may_pass(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }

    /// Whether reading or writing failed: a full disk, say, that somebody may make room on.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, StoreError::Io(_))
    }
}

/// What a store operation returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The current state of every entity, by view and key: a fold over the changes in the log.
///
/// Changes are applied by one caller, in the order of the log. A change that was applied is seen by
/// every read that begins later.
pub trait OnlineStore: Send + Sync {
    /// What is known at `at_us` of the entities `wanted`; `None` for one that nothing is known of. At
    /// most one round trip.
    fn read<'a>(
        &'a self,
        wanted: &'a [(&'a Arc<View>, &'a str)],
        at_us: i64,
    ) -> StoreFuture<'a, Vec<Option<Snapshot>>>;

    /// Applies a batch, entity by entity as a whole or not at all, and says for each piece of work,
    /// view by view in order, what became of it. What was applied before (after a restart) is not
    /// applied again.
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> StoreFuture<'a, Vec<Vec<Applied>>>;

    /// From where on the log has to be replayed before the store is read.
    fn watermark(&self) -> Watermark;

    /// Writes everything that was applied, so that the next start replays nothing.
    fn checkpoint(&self) -> StoreFuture<'_, ()>;

    /// The next entities of a view, at most about `limit`, as they are at `at_us`; see [`scan`]. `after` is
    /// where the page before said that the next one begins. Takes as long as reading so many from disk.
    fn scan<'a>(
        &'a self,
        view: &'a Arc<View>,
        after: Option<&'a str>,
        limit: usize,
        at_us: i64,
    ) -> StoreFuture<'a, Page> {
        let _ = (view, after, limit, at_us);
        Box::pin(std::future::ready(Err(StoreError::Io(
            "this store cannot be read as a whole".to_owned(),
        ))))
    }

    /// Whether a scan goes in the order of the keys. Then no entity comes twice, and where it goes on is
    /// the last key, which holds for as long as the store does.
    fn scans_in_order(&self) -> bool {
        true
    }

    /// Hands to `each` the entities of a view whose windows lack earlier events, because they were
    /// declared later than these came: the key, and the number of the last change that is lacking. An
    /// entity comes once for each such number. Blocks; entities are read and changed meanwhile.
    ///
    /// # Errors
    /// When the store fails, or cannot be filled.
    fn for_each_late(
        &self,
        view: &Arc<View>,
        each: &mut dyn FnMut(&str, u64),
    ) -> Result<(), StoreError> {
        let _ = (view, each);
        Err(StoreError::Io(
            "this store cannot fill windows from history; new ones fill as events come".to_owned(),
        ))
    }

    /// Fills the windows of an entity that lack the events up to change number `after` with `earlier`,
    /// the state after these. An entity that is gone, or lacks nothing, stays as it is. Blocks.
    ///
    /// # Errors
    /// As [`OnlineStore::for_each_late`].
    fn fill_windows(
        &self,
        view: &Arc<View>,
        key: &str,
        earlier: &WindowState,
        after: u64,
    ) -> Result<(), StoreError> {
        let _ = (key, earlier, after);
        self.for_each_late(view, &mut |_, _| {})
    }
}

/// Reads one entity.
///
/// # Errors
/// When the store fails.
pub async fn read_one(
    store: &dyn OnlineStore,
    view: &Arc<View>,
    key: &str,
    at_us: i64,
) -> Result<Option<Snapshot>, StoreError> {
    let mut found = store.read(&[(view, key)], at_us).await?;
    Ok(found.pop().flatten())
}
