//! The gate: how many run and wait, in one number, and the line of those who wait.
//!
//! Whoever takes or frees a place without the lock changes that number only. Everything that seats
//! or unseats somebody happens under the lock, which is never held while a permit is dropped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::queue::{Queue, Waiter};
use super::{Limits, Permit, Priority, Turned, deadline};

/// The number of running requests is in the low half of the state, of waiting ones in the high
/// half. They are one number so that whoever releases a place learns in the same instant whether
/// somebody waits for it: neither can a waiter be overlooked, nor a newcomer push in.
const ONE_RUNNING: u64 = 1;
const ONE_WAITING: u64 = 1 << 32;

fn running_in(state: u64) -> usize {
    (state % ONE_WAITING) as usize
}

fn waiting_in(state: u64) -> usize {
    (state / ONE_WAITING) as usize
}

#[derive(Debug)]
pub(super) struct Gate {
    state: AtomicU64,
    /// Requests that only entered.
    pub(super) entered: AtomicUsize,
    pub(super) limits: Limits,
    queue: Mutex<Queue>,
}

/// What became of a request that asked for a seat in the line.
pub(super) enum Joined {
    Admitted(Permit),
    Waits(Seat),
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Gate {
        // Each half of the state holds 32 bits; nobody has so many requests.
        let most = (u32::MAX / 2) as usize;
        Gate {
            state: AtomicU64::new(0),
            entered: AtomicUsize::new(0),
            limits: Limits {
                concurrency: limits.concurrency.clamp(1, most),
                queue: limits.queue.min(most),
            },
            queue: Mutex::new(Queue::new()),
        }
    }

    pub(super) fn running(&self) -> usize {
        running_in(self.state.load(Ordering::Acquire))
    }

    pub(super) fn waiting(&self) -> usize {
        waiting_in(self.state.load(Ordering::Acquire))
    }

    /// Takes a place if one is free and nobody waits.
    pub(super) fn take_free_place(self: &Arc<Gate>, priority: Priority) -> Option<Permit> {
        let places = self.places_for(priority);
        let taken = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                let free = waiting_in(state) == 0 && running_in(state) < places;
                free.then_some(state + ONE_RUNNING)
            });
        taken.is_ok().then(|| self.permit())
    }

    /// Frees the place of a permit and hands it to the next in line, if there is one.
    pub(super) fn release_place(self: &Arc<Gate>) {
        let before = self.state.fetch_sub(ONE_RUNNING, Ordering::AcqRel);
        if waiting_in(before) > 0 {
            let mut queue = self.lock();
            let unclaimed = self.fill_places(&mut queue);
            drop(queue);
            drop(unclaimed);
        }
    }

    /// How many places requests of this priority may fill.
    fn places_for(&self, priority: Priority) -> usize {
        match priority {
            Priority::Online => self.limits.concurrency,
            Priority::Batch => (self.limits.concurrency - 1).max(1),
        }
    }

    /// A permit for a place that is already counted as taken.
    fn permit(self: &Arc<Gate>) -> Permit {
        Permit {
            gate: Arc::clone(self),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while holding it; and a line is better than none.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place if one is free now, and otherwise a seat.
    pub(super) fn join(
        self: &Arc<Gate>,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<Joined, Turned> {
        let mut queue = self.lock();
        // A place may have been released whose releaser waits for the lock behind us.
        let unclaimed = self.fill_places(&mut queue);
        let outcome = self.place_or_seat(&mut queue, priority, deadline);
        drop(queue);
        // A permit takes the lock when it is dropped.
        drop(unclaimed);
        outcome
    }

    fn place_or_seat(
        self: &Arc<Gate>,
        queue: &mut Queue,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<Joined, Turned> {
        let limit = self.limits.queue;
        let full = queue.len() >= limit;
        let nobody_before = queue.nobody_before(priority);
        let places = self.places_for(priority);
        let mut got_place = false;
        // One step, so that a place released meanwhile is either seen here, or its releaser sees us.
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                got_place = nobody_before && running_in(state) < places;
                if got_place {
                    Some(state + ONE_RUNNING)
                } else {
                    (!full).then_some(state + ONE_WAITING)
                }
            });
        if got_place {
            return Ok(Joined::Admitted(self.permit()));
        }
        if full {
            let refusal = Turned::Full {
                waiting: queue.len(),
                limit,
                retry_after_s: queue.retry_after_s(),
            };
            match queue.make_room(priority) {
                // Its seat changes hands, so the number of those who wait stays the same.
                Some(youngest) => youngest.turn_away(refusal),
                None => return Err(refusal),
            }
        }
        let (answer, answered) = oneshot::channel();
        let ticket = queue.push(priority, deadline, answer);
        Ok(Joined::Waits(Seat {
            gate: Arc::clone(self),
            priority,
            ticket,
            answered,
        }))
    }

    /// Gives free places to those who are next, dropping the expired. What comes back are permits
    /// that nobody took; they are to be dropped without the lock.
    fn fill_places(self: &Arc<Gate>, queue: &mut Queue) -> Vec<Permit> {
        let mut unclaimed = Vec::new();
        if queue.len() == 0 {
            return unclaimed;
        }
        let now = deadline::now();
        while let Some(priority) = queue.next_priority() {
            if queue.next_is_expired(priority, now) {
                if let Some(waiter) = self.unseat(queue, priority) {
                    waiter.turn_away(Turned::Expired);
                }
                continue;
            }
            // While somebody waits, only the holder of the lock takes places.
            if self.running() >= self.places_for(priority) {
                break;
            }
            self.state.fetch_add(ONE_RUNNING, Ordering::AcqRel);
            let permit = self.permit();
            queue.handed_over(now);
            match self.unseat(queue, priority) {
                Some(waiter) => unclaimed.extend(waiter.hand(permit)),
                None => unclaimed.push(permit),
            }
        }
        unclaimed
    }

    /// Takes the next waiter out of the line.
    fn unseat(&self, queue: &mut Queue, priority: Priority) -> Option<Waiter> {
        let waiter = queue.pop(priority)?;
        self.state.fetch_sub(ONE_WAITING, Ordering::AcqRel);
        Some(waiter)
    }
}

/// A seat in the line; dropping it leaves the line.
pub(super) struct Seat {
    gate: Arc<Gate>,
    priority: Priority,
    ticket: u64,
    answered: oneshot::Receiver<Result<Permit, Turned>>,
}

impl Seat {
    /// Waits until it is this request's turn, at most until the deadline.
    pub(super) async fn turn(mut self, deadline: Option<Instant>) -> Result<Permit, Turned> {
        let answer = match deadline {
            None => (&mut self.answered).await,
            Some(at) => match tokio::time::timeout_at(at.into(), &mut self.answered).await {
                Ok(answer) => answer,
                Err(_) => return Err(Turned::Expired),
            },
        };
        // The sender is in the line or has answered; it is never just dropped.
        let permit = answer.unwrap_or(Err(Turned::Expired))?;
        if deadline::has_passed(deadline) {
            return Err(Turned::Expired);
        }
        Ok(permit)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut queue = self.gate.lock();
        if queue.remove(self.priority, self.ticket) {
            self.gate.state.fetch_sub(ONE_WAITING, Ordering::AcqRel);
        }
        // Otherwise it was answered; a permit that was not taken is dropped with `answered`.
    }
}
