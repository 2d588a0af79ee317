//! The rows that wait for the writer, kept apart by the thread that brought them.
//!
//! Every request appends a row, so one lock for all of them would be where the request threads meet,
//! fifty thousand times a second. Here each thread has a shard of its own (up to [`SHARDS`] threads;
//! further ones share): it copies its finished frame to the end of the shard's buffer under a lock
//! that otherwise only the writer takes, once every few milliseconds. What is left between the threads
//! is two counters.
//!
//! Promises: the rows of one thread stay in their order; rows of different threads have none. After
//! [`Shards::close`] has returned nothing more gets in, and what got in is there to be taken.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::AppendError;

/// More than the threads that answer requests on most machines; each costs the writer one free lock
/// per look.
const SHARDS: usize = 16;
/// The largest room made ahead in a shard, in bytes.
const ROOM_KEPT_BYTES: usize = 1024 * 1024;

/// The rows that wait, and how much may wait.
pub struct Shards {
    shards: [Shard; SHARDS],
    /// Rows and bytes that are accepted and not yet in the file, outcomes included.
    room: Room,
    available: AtomicBool,
}

/// Aligned so that no two shards share a cache line, nor the pairs of lines that processors fetch.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Whole frames, one after the other.
    frames: Vec<u8>,
    /// Since when the first of them waits.
    oldest: Option<Instant>,
    closed: bool,
}

/// What may wait and what does.
#[repr(align(128))]
struct Room {
    rows: AtomicUsize,
    bytes: AtomicUsize,
    max_rows: usize,
    max_bytes: usize,
}

impl Shards {
    /// Empty shards that together take so many rows and bytes.
    pub fn new(max_rows: usize, max_bytes: usize) -> Shards {
        Shards {
            shards: std::array::from_fn(|_| Shard::default()),
            room: Room {
                rows: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                max_rows,
                max_bytes,
            },
            available: AtomicBool::new(true),
        }
    }

    /// Adds a frame to the calling thread's shard. Returns how long the first row there has waited.
    pub fn push(&self, frame: &[u8]) -> Result<Duration, AppendError> {
        let now = Instant::now();
        let mut waiting = self.of_this_thread().lock();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        self.admit(frame.len())?;
        waiting.frames.extend_from_slice(frame);
        let oldest = *waiting.oldest.get_or_insert(now);
        Ok(now.saturating_duration_since(oldest))
    }

    /// How long the first row in the calling thread's shard has waited.
    pub fn waited_here(&self) -> Duration {
        let oldest = self.of_this_thread().lock().oldest;
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Counts one row of `bytes` against the bounds, or says why it cannot be taken.
    pub fn admit(&self, bytes: usize) -> Result<(), AppendError> {
        if !self.available.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable);
        }
        self.room.admit(bytes)
    }

    /// Takes rows off the count once they are in the file (or need not go there).
    pub fn release(&self, rows: usize, bytes: usize) {
        self.room.rows.fetch_sub(rows, Ordering::Relaxed);
        self.room.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Rows that are accepted and not yet in the file.
    pub fn depth(&self) -> usize {
        self.room.rows.load(Ordering::Relaxed)
    }

    /// Whether the disk takes writes.
    pub fn available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// Says whether the disk takes writes.
    pub fn set_available(&self, available: bool) {
        self.available.store(available, Ordering::Relaxed);
    }

    /// Everything that waits: for each shard that holds something, its frames.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let mut waiting = shard.lock();
            if waiting.frames.is_empty() {
                continue;
            }
            // The next rows find as much room as these took, so that a caller seldom has to grow it.
            let room = waiting.frames.len().min(ROOM_KEPT_BYTES);
            taken.push(std::mem::replace(
                &mut waiting.frames,
                Vec::with_capacity(room),
            ));
            waiting.oldest = None;
        }
        taken
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.shards
            .iter()
            .all(|shard| shard.lock().frames.is_empty())
    }

    /// Refuses further rows. Whoever sees the effects of this call finds all accepted ones in place.
    pub fn close(&self) {
        for shard in &self.shards {
            shard.lock().closed = true;
        }
    }

    /// Threads take the shards in turn, in the order in which they first ask.
    fn of_this_thread(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let mine = MINE.get().unwrap_or_else(|| {
            let mine = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            MINE.set(Some(mine));
            mine
        });
        &self.shards[mine]
    }
}

impl Shard {
    /// A panic elsewhere cannot leave the rows half changed (every change is a few assignments), so
    /// a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Counts first and looks then, so that the bounds hold whatever the others do meanwhile. A row
    /// that is refused has counted for a moment: next to the bound another one may be refused for it.
    fn admit(&self, bytes: usize) -> Result<(), AppendError> {
        let rows_before = self.rows.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single row larger than the byte bound is let into an empty queue; its own size is
        // bounded elsewhere.
        let over_bytes = bytes_before.saturating_add(bytes) > self.max_bytes && rows_before > 0;
        if rows_before < self.max_rows && !over_bytes {
            return Ok(());
        }
        self.rows.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Err(AppendError::Full {
            rows: rows_before.min(self.max_rows),
            bytes: bytes_before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold_over_all_shards_together() {
        // Given shards that take 100 rows or 1,000 bytes, and eight threads, each with its own
        for (row_bytes, fits) in [(4, 100), (25, 40)] {
            let shards = Shards::new(100, 1_000);
            let accepted = AtomicUsize::new(0);
            // When all of them push more than there is room for
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let frame = vec![1; row_bytes];
                        for _ in 0..50 {
                            match shards.push(&frame) {
                                Ok(_) => accepted.fetch_add(1, Ordering::Relaxed),
                                Err(AppendError::Full { rows, bytes }) => {
                                    assert!(rows <= 100 && bytes < 1_000 + 8 * row_bytes);
                                    0
                                }
                                Err(other) => panic!("{other}"),
                            };
                        }
                    });
                }
            });
            // Then never more than the bound got in, and, pushed one by one, all of it does
            let accepted = accepted.into_inner();
            assert!(accepted <= fits, "{accepted} of {fits}");
            for _ in accepted..fits {
                shards.push(&vec![1; row_bytes]).unwrap();
            }
            let refused = shards.push(&vec![1; row_bytes]);
            let full = AppendError::Full {
                rows: fits,
                bytes: fits * row_bytes,
            };
            assert_eq!(refused, Err(full));
            // And what is released can be used again
            let taken: usize = shards.take().iter().map(Vec::len).sum();
            assert_eq!(taken, fits * row_bytes);
            assert!(
                shards.push(&vec![1; row_bytes]).is_err(),
                "taken is not written"
            );
            shards.release(1, row_bytes);
            shards.push(&vec![1; row_bytes]).unwrap();
            assert_eq!(shards.depth(), fits);
        }
    }

    #[test]
    fn one_row_larger_than_the_bound_is_let_into_an_empty_queue_only() {
        let shards = Shards::new(10, 100);
        shards.push(&[1; 500]).unwrap();
        assert!(matches!(
            shards.push(&[1; 1]),
            Err(AppendError::Full {
                rows: 1,
                bytes: 500
            })
        ));
    }

    #[test]
    fn a_thread_finds_its_rows_in_order_and_knows_how_long_they_wait() {
        let shards = Shards::new(10, 100);
        assert_eq!(shards.waited_here(), Duration::ZERO);
        assert_eq!(shards.push(b"first "), Ok(Duration::ZERO));
        shards.push(b"second").unwrap();
        assert_eq!(shards.take(), [b"first second".to_vec()]);
        assert!(shards.is_empty());
        assert_eq!(shards.waited_here(), Duration::ZERO);
        assert_eq!(shards.push(b"third"), Ok(Duration::ZERO));
    }

    #[test]
    fn whatever_was_accepted_before_closing_is_there_to_be_taken() {
        for _ in 0..20 {
            // Room for what comes while nobody takes, but not for all that a machine can make.
            let shards = Shards::new(1_000_000, usize::MAX);
            let accepted = AtomicUsize::new(0);
            let taken = std::thread::scope(|scope| {
                // Given four threads that push until they are refused
                for _ in 0..4 {
                    scope.spawn(|| {
                        while shards.push(&[1; 30]).is_ok() {
                            accepted.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                while shards.depth() < 100 {
                    std::thread::yield_now();
                }
                // When the shards are closed meanwhile, and taken right after
                shards.close();
                shards.take()
            });
            // Then nothing came later
            let taken: usize = taken.iter().map(Vec::len).sum();
            assert_eq!(taken, accepted.into_inner() * 30);
            assert!(shards.is_empty());
            assert_eq!(shards.push(&[1]), Err(AppendError::Closed));
        }
    }
}
