//! Who may run now, who waits, and who is turned away.
//!
//! At most `concurrency` requests hold a [`Permit`] at once. When all places are taken, up to
//! `queue` further ones wait; beyond that they are turned away at once, with a hint when to come
//! back. The promises:
//!
//! * **First come, first served** within a [`Priority`]. Batch requests run only while no online
//!   request waits, and leave one place free for the next online request (where there is more than
//!   one). When the queue is full, an online request takes the seat of the youngest batch request,
//!   which is turned away. Batch may starve; its deadline bounds how long.
//! * **Expired work never runs.** A request whose deadline passes while it waits is answered at
//!   that moment, and a free place goes to the next request that is not expired.
//! * **The wait is bounded** by the length of the line: whoever is let in waits for at most
//!   `queue / concurrency` others, one after another. With a line twice as long as there are places
//!   a request takes about three times its own time at most, however many more come.
//! * **No place is lost.** A permit gives its place to the next in line when it is dropped, also by
//!   a panic; a request whose future is dropped leaves the queue.
//! * **No lock while there is room.** With a free place and nobody waiting, admitting and releasing
//!   are atomic operations, without allocation. The queue's lock is taken only by those who wait,
//!   are turned away, or hand their place to someone.
//!
//! Requests too short to wait for a place only [`Admission::enter`]: they are counted, and turned
//! away when too many are in flight.
//!
//! * [`deadline`] – until when a caller waits, as the protocols say it.
//! * [`turn`] – letting short requests be counted before the first of them runs.
//! * `gate` – places and seats: taking, freeing, handing over.
//! * `queue` – the line of those who wait.
//!
//! It does not know what a request is or which protocol it came by, and it starts no tasks.
//!
//! Two ways to treat lasting overload were considered and left out. Serving the newest first helps
//! only where lines are much longer than patience, and leaves the oldest to be turned away after the
//! longest wait. Keeping the line short once it has overflowed was tried: it falls back to a long
//! line at every lull. A line that is short from the start does better than both, and says so in
//! the configuration.

pub mod deadline;
mod gate;
mod queue;
pub mod turn;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use self::gate::{Gate, Joined};

/// How many short requests may be in flight for each request that may run or wait: they take a
/// fraction of the time, and a server has more connections than it has places.
const SHORT_PER_SEAT: usize = 16;

/// A thread that can have no more short requests than this, for each request that may run or wait,
/// has few.
const FEW_PER_SEAT: usize = 2;

/// How many may run, and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Places; 0 is taken as 1.
    pub concurrency: usize,
    /// Seats in the waiting line; with 0 nobody waits.
    pub queue: usize,
}

/// Whom a request may keep waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the answer.
    Online,
    /// Work that may wait for a quiet moment.
    Batch,
}

impl Priority {
    /// Reads the word a caller gives; without one a request is online.
    ///
    /// # Errors
    /// What was found and which words there are.
    pub fn parse(word: Option<&str>) -> Result<Priority, String> {
        match word.map(str::trim) {
            None | Some("online") => Ok(Priority::Online),
            Some("batch") => Ok(Priority::Batch),
            Some(other) => Err(format!(
                "expected online or batch, found {:?}",
                crate::features::value::shorten(other, 40)
            )),
        }
    }
}

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// Too many are here already.
    #[error(
        "too many requests: {waiting} are here already, at most {limit} may be (max_queue); try again \
         in {retry_after_s} s"
    )]
    Full {
        /// How many wait; for those who only enter, how many are in flight.
        waiting: usize,
        limit: usize,
        /// Whole seconds until the line will be gone, as far as one can tell: 1 to 30.
        retry_after_s: u32,
    },
    /// The deadline passed first; the request was not executed.
    #[error("the deadline passed before the request could run; it was not executed")]
    Expired,
}

/// The gate; clones are the same gate.
#[derive(Debug, Clone)]
pub struct Admission {
    gate: Arc<Gate>,
}

impl Admission {
    pub fn new(limits: Limits) -> Admission {
        Admission {
            gate: Arc::new(Gate::new(limits)),
        }
    }

    /// A permit if there is a free place and nobody waits; never blocks, takes no lock.
    ///
    /// `None` does not mean that there is no room: whether a request may pass those who wait is
    /// for [`Admission::admit`] to find out.
    pub fn try_admit(&self, priority: Priority) -> Option<Permit> {
        self.gate.take_free_place(priority)
    }

    /// A permit, as soon as it is this request's turn.
    ///
    /// Dropping the future leaves the line.
    ///
    /// # Errors
    /// [`Turned::Full`] at once when the line is full, or later when a batch request has to make
    /// room for an online one; [`Turned::Expired`] when the deadline passes first.
    pub async fn admit(
        &self,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<Permit, Turned> {
        if deadline::has_passed(deadline) {
            return Err(Turned::Expired);
        }
        if let Some(permit) = self.try_admit(priority) {
            return Ok(permit);
        }
        match self.gate.join(priority, deadline)? {
            Joined::Admitted(permit) => Ok(permit),
            Joined::Waits(seat) => seat.turn(deadline).await,
        }
    }

    /// Counts a request in without giving it a place: for those that run where they are, at once.
    ///
    /// # Errors
    /// [`Turned::Full`] when [`SHORT_PER_SEAT`] times as many are in flight as may run and wait
    /// together; for batch requests half of that, so that they leave room for online ones.
    pub fn enter(&self, priority: Priority) -> Result<InFlight, Turned> {
        let Limits { concurrency, queue } = self.gate.limits;
        let limit = SHORT_PER_SEAT * (concurrency + queue);
        let limit = match priority {
            Priority::Online => limit,
            Priority::Batch => limit / 2,
        };
        let entered =
            self.gate
                .entered
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |entered| {
                    (entered < limit).then_some(entered + 1)
                });
        match entered {
            Ok(_) => Ok(InFlight {
                gate: Arc::clone(&self.gate),
            }),
            // Such requests are gone in milliseconds: the smallest hint is the right one.
            Err(waiting) => Err(Turned::Full {
                waiting,
                limit,
                retry_after_s: 1,
            }),
        }
    }

    /// [`enter`](Admission::enter), and then lets others of this thread be counted as well when there
    /// may be many; see [`turn`].
    ///
    /// # Errors
    /// As [`enter`](Admission::enter).
    pub async fn enter_in_turn(&self, priority: Priority) -> Result<InFlight, Turned> {
        let in_flight = self.enter(priority)?;
        let Limits { concurrency, queue } = self.gate.limits;
        turn::wait(FEW_PER_SEAT * (concurrency + queue)).await;
        Ok(in_flight)
    }

    /// How many run: those with a permit and those that only entered.
    pub fn in_flight(&self) -> usize {
        self.gate.running() + self.gate.entered.load(Ordering::Acquire)
    }

    /// How many wait for a place.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }
}

/// The right to run; dropping it hands the place to the next in line.
///
/// Work that cannot be stopped, such as a model run on a blocking thread, takes the permit with it,
/// so that the place stays taken until the work is over, also when its caller has gone.
#[must_use = "the place is free again as soon as the permit is dropped"]
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.release_place();
    }
}

/// A request that is counted as in flight until this is dropped.
#[must_use = "the request is counted out as soon as this is dropped"]
#[derive(Debug)]
pub struct InFlight {
    gate: Arc<Gate>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gate.entered.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
