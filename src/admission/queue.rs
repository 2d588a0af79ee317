//! The waiting line: one line for each priority, and what is known of how fast it moves.
//!
//! It is kept under one lock and knows nothing of places; [`super::gate::Gate`] moves the number of those
//! who wait in step with it.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Permit, Priority, Turned, deadline};

/// The bounds of the hint when to come back.
const MIN_RETRY_AFTER_S: f64 = 1.0;
const MAX_RETRY_AFTER_S: f64 = 30.0;

/// How much the newest interval between two turns counts in the average.
const NEWEST_WEIGHT: f64 = 1.0 / 8.0;

/// A request in the line.
pub(super) struct Waiter {
    ticket: u64,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<Permit, Turned>>,
}

impl Waiter {
    /// Hands the permit over; it comes back when nobody is there to take it.
    pub(super) fn hand(self, permit: Permit) -> Option<Permit> {
        match self.answer.send(Ok(permit)) {
            Ok(()) => None,
            Err(unclaimed) => unclaimed.ok(),
        }
    }

    pub(super) fn turn_away(self, why: Turned) {
        // Whoever has gone meanwhile need not be told.
        let _ = self.answer.send(Err(why));
    }
}

pub(super) struct Queue {
    online: VecDeque<Waiter>,
    batch: VecDeque<Waiter>,
    next_ticket: u64,
    /// When the last waiter got a place, since the line was last empty.
    last_turn: Option<Instant>,
    /// The average time between two turns while somebody waits.
    seconds_between_turns: Option<f64>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("online", &self.online.len())
            .field("batch", &self.batch.len())
            .finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            online: VecDeque::new(),
            batch: VecDeque::new(),
            next_ticket: 0,
            last_turn: None,
            seconds_between_turns: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.online.len() + self.batch.len()
    }

    /// Whether a newcomer would be the first whose turn it is.
    pub(super) fn nobody_before(&self, priority: Priority) -> bool {
        match priority {
            Priority::Online => self.online.is_empty(),
            Priority::Batch => self.len() == 0,
        }
    }

    /// Adds to the end of the line; the ticket is for [`Queue::remove`].
    pub(super) fn push(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        answer: oneshot::Sender<Result<Permit, Turned>>,
    ) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.line(priority).push_back(Waiter {
            ticket,
            deadline,
            answer,
        });
        ticket
    }

    /// Whose turn is next.
    pub(super) fn next_priority(&self) -> Option<Priority> {
        if !self.online.is_empty() {
            Some(Priority::Online)
        } else if !self.batch.is_empty() {
            Some(Priority::Batch)
        } else {
            None
        }
    }

    pub(super) fn next_is_expired(&self, priority: Priority, now: Instant) -> bool {
        let line = match priority {
            Priority::Online => &self.online,
            Priority::Batch => &self.batch,
        };
        line.front()
            .is_some_and(|waiter| deadline::has_passed_at(waiter.deadline, now))
    }

    pub(super) fn pop(&mut self, priority: Priority) -> Option<Waiter> {
        let waiter = self.line(priority).pop_front();
        self.forget_turn_when_empty();
        waiter
    }

    /// Takes the batch request out that has to make room for a newcomer, if one has to.
    pub(super) fn make_room(&mut self, newcomer: Priority) -> Option<Waiter> {
        match newcomer {
            Priority::Online => self.batch.pop_back(),
            Priority::Batch => None,
        }
    }

    /// Takes a waiter out wherever it stands; `false` when it has been answered already.
    pub(super) fn remove(&mut self, priority: Priority, ticket: u64) -> bool {
        let line = self.line(priority);
        // Tickets rise along the line, because everyone joins at its end.
        let Ok(position) = line.binary_search_by_key(&ticket, |waiter| waiter.ticket) else {
            return false;
        };
        line.remove(position);
        self.forget_turn_when_empty();
        true
    }

    fn line(&mut self, priority: Priority) -> &mut VecDeque<Waiter> {
        match priority {
            Priority::Online => &mut self.online,
            Priority::Batch => &mut self.batch,
        }
    }

    fn forget_turn_when_empty(&mut self) {
        if self.len() == 0 {
            self.last_turn = None;
        }
    }

    /// Notes that a waiter gets its place now. Call it before the waiter leaves the line, so that
    /// the last one does not start a new interval.
    pub(super) fn handed_over(&mut self, now: Instant) {
        if let Some(last) = self.last_turn.replace(now) {
            let interval = now.saturating_duration_since(last).as_secs_f64();
            let average = self.seconds_between_turns.get_or_insert(interval);
            *average += (interval - *average) * NEWEST_WEIGHT;
        }
    }

    /// In how many whole seconds the line will have moved past a newcomer, at its recent pace.
    pub(super) fn retry_after_s(&self) -> u32 {
        let pace = self.seconds_between_turns.unwrap_or(0.0);
        let seconds = pace * (self.len() + 1) as f64;
        seconds.ceil().clamp(MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seated(queue: &mut Queue, count: usize) {
        for _ in 0..count {
            let (answer, _) = oneshot::channel();
            queue.push(Priority::Online, None, answer);
        }
    }

    #[test]
    fn the_hint_is_the_length_of_the_line_at_its_pace() {
        let mut queue = Queue::new();
        seated(&mut queue, 19);
        assert_eq!(queue.retry_after_s(), 1, "nothing is known yet");
        let start = Instant::now();
        for turn in 0..4 {
            queue.handed_over(start + Duration::from_millis(250) * turn);
        }
        assert_eq!(
            queue.retry_after_s(),
            5,
            "20 turns of a quarter of a second"
        );
    }

    #[test]
    fn the_hint_is_never_over_half_a_minute() {
        let mut queue = Queue::new();
        seated(&mut queue, 200);
        let start = Instant::now();
        queue.handed_over(start);
        queue.handed_over(start + Duration::from_secs(3));
        assert_eq!(queue.retry_after_s(), 30);
    }

    #[test]
    fn the_time_an_empty_line_stood_still_is_not_its_pace() {
        let mut queue = Queue::new();
        let start = Instant::now();
        seated(&mut queue, 1);
        queue.handed_over(start);
        queue.pop(Priority::Online);
        seated(&mut queue, 1);
        queue.handed_over(start + Duration::from_secs(3600));
        assert_eq!(queue.retry_after_s(), 1);
    }
}
