//! What happened to one version's requests in a stretch of time that ends now.
//!
//! The stretch is cut into sixty slots. A slot counts every request and keeps a sample of those that
//! succeeded, chosen so that each had the same chance; a sample stands for as many requests as its slot
//! had for each. So a slot with much traffic weighs as much as it should and takes no more memory than
//! one with little: 2 KiB, 120 KiB for the whole stretch.
//!
//! Times are of requests; scores are of customers. Who is scored a hundred times counts once, with the
//! last score: a hundred equal scores say no more of a distribution than one.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;

use super::drift::Weighted;

const SLOTS: usize = 60;

/// The most samples of one slot.
const SAMPLES: usize = 128;

/// The requests of one version, lately.
#[derive(Debug, Clone)]
pub struct Window {
    slot_us: u64,
    slots: Vec<Slot>,
    random: Rng,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    /// Which slot of time this is, counted from the beginning.
    number: u64,
    succeeded: u64,
    failed: u64,
    run_us: u64,
    samples: Vec<Sample>,
}

/// A request that succeeded.
#[derive(Debug, Clone, Copy)]
struct Sample {
    score: f64,
    micros: u32,
    /// A hash of the customer's key.
    customer: u32,
}

/// What a window holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct Period {
    pub requests: u64,
    pub failed: u64,
    /// How long the requests that succeeded took together, in microseconds.
    pub run_us: u64,
    /// The last score of each customer among the samples; all weigh the same.
    pub scores: Vec<Weighted>,
    /// Times in microseconds and how many requests each stands for, ascending.
    times: Vec<Weighted>,
}

impl Window {
    /// An empty window of that length.
    pub fn new(length: Duration) -> Window {
        let slot_us = length.as_micros() / SLOTS as u128;
        Window {
            slot_us: u64::try_from(slot_us).unwrap_or(u64::MAX).max(1),
            slots: vec![Slot::default(); SLOTS],
            // Which requests are samples need not be unforeseeable.
            random: Rng::with_seed(0),
        }
    }

    /// A request that was answered with `score` after `took`, for the customer with that hash of the key.
    /// `at` is the time since the beginning, as for all others; it never goes back by more than a slot.
    pub fn success(&mut self, at: Duration, score: f64, took: Duration, customer: u32) {
        let micros = took.as_micros();
        let sample = Sample {
            score,
            micros: u32::try_from(micros).unwrap_or(u32::MAX),
            customer,
        };
        let slot = self.slot(at);
        slot.succeeded += 1;
        slot.run_us = slot.run_us.saturating_add(u64::from(sample.micros));
        if slot.samples.len() < SAMPLES {
            slot.samples.push(sample);
            return;
        }
        // Each of those so far stays with the same chance.
        let succeeded = slot.succeeded;
        let place = usize::try_from(self.random.u64(0..succeeded)).unwrap_or(usize::MAX);
        if let Some(kept) = self.slot(at).samples.get_mut(place) {
            *kept = sample;
        }
    }

    /// A request that failed.
    pub fn failure(&mut self, at: Duration) {
        self.slot(at).failed += 1;
    }

    fn slot(&mut self, at: Duration) -> &mut Slot {
        let number = self.number(at);
        let slot = &mut self.slots[Self::place(number)];
        if slot.number != number {
            slot.number = number;
            slot.succeeded = 0;
            slot.failed = 0;
            slot.run_us = 0;
            slot.samples.clear();
        }
        slot
    }

    fn number(&self, at: Duration) -> u64 {
        u64::try_from(at.as_micros()).unwrap_or(u64::MAX) / self.slot_us
    }

    fn place(number: u64) -> usize {
        usize::try_from(number % SLOTS as u64).unwrap_or(0)
    }

    /// What the window holds at `now`.
    pub fn period(&self, now: Duration) -> Period {
        let last = self.number(now);
        let mut period = Period::default();
        let slots = self.slots.iter();
        let mut slots: Vec<&Slot> = slots
            .filter(|slot| slot.number <= last && slot.number + SLOTS as u64 > last)
            .collect();
        slots.sort_unstable_by_key(|slot| slot.number);
        let mut scores: HashMap<u32, f64> = HashMap::new();
        for slot in slots {
            period.requests += slot.succeeded + slot.failed;
            period.failed += slot.failed;
            period.run_us = period.run_us.saturating_add(slot.run_us);
            let weight = slot.succeeded as f64 / slot.samples.len().max(1) as f64;
            for sample in &slot.samples {
                scores.insert(sample.customer, sample.score);
                period.times.push((f64::from(sample.micros), weight));
            }
        }
        period.scores = scores.into_values().map(|score| (score, 1.0)).collect();
        let times = &mut period.times;
        times.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
        period
    }
}

impl Period {
    /// Requests that were answered.
    pub fn succeeded(&self) -> u64 {
        self.requests - self.failed
    }

    /// The share of the requests that failed; 0 of none.
    pub fn error_rate(&self) -> f64 {
        self.failed as f64 / self.requests.max(1) as f64
    }

    /// The time in microseconds that the share `quantile` of the requests did not exceed; 0 of none.
    pub fn time(&self, quantile: f64) -> f64 {
        let total: f64 = self.times.iter().map(|(_, weight)| weight).sum();
        let rank = quantile * total;
        let mut passed = 0.0;
        let found = self.times.iter().find(|(_, weight)| {
            passed += weight;
            passed >= rank - 1e-9 * total
        });
        found
            .or(self.times.last())
            .map_or(0.0, |(micros, _)| *micros)
    }

    /// The share of the requests that took more than `micros` microseconds; 0 of none.
    pub fn share_over(&self, micros: f64) -> f64 {
        let total: f64 = self.times.iter().map(|(_, weight)| weight).sum();
        let over = self.times.iter().filter(|(time, _)| *time > micros);
        let over: f64 = over.map(|(_, weight)| weight).sum();
        match total > 0.0 {
            true => over / total,
            false => 0.0,
        }
    }

    /// How many times are known.
    pub fn timed(&self) -> usize {
        self.times.len()
    }

    /// The mean score of the customers; 0 of none.
    pub fn mean_score(&self) -> f64 {
        let total: f64 = self.scores.iter().map(|(_, weight)| weight).sum();
        let sum: f64 = self
            .scores
            .iter()
            .map(|(score, weight)| score * weight)
            .sum();
        match total > 0.0 {
            true => sum / total,
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::new(seconds(60));
        for second in 0..200 {
            window.success(seconds(second), 0.5, micros(100), 1);
            if second < 100 {
                window.failure(seconds(second));
            }
        }
        let period = window.period(seconds(199));
        assert_eq!((period.requests, period.failed), (60, 0));
        let period = window.period(seconds(230));
        assert_eq!((period.requests, period.run_us), (29, 2900));
        // Time stands still while nobody asks.
        let period = window.period(seconds(100_000));
        assert_eq!((period.requests, period.error_rate()), (0, 0.0));
        assert_eq!((period.time(0.95), period.mean_score()), (0.0, 0.0));
    }

    #[test]
    fn every_request_counts_and_samples_stand_for_all_of_them() {
        let mut window = Window::new(seconds(60));
        // Given a second with a hundred times the traffic of the next
        for number in 0..10_000_u32 {
            let took = micros(1000 + u64::from(number % 100));
            window.success(seconds(1), 0.2, took, number);
        }
        for _ in 0..100 {
            window.success(seconds(2), 0.8, micros(50_000), 0);
            window.failure(seconds(2));
        }
        let period = window.period(seconds(3));
        assert_eq!((period.requests, period.failed), (10_200, 100));
        assert!((1000.0..1100.0).contains(&period.time(0.98)));
        assert_eq!(period.time(0.995), 50_000.0);
        assert!((period.share_over(20_000.0) - 100.0 / 10_100.0).abs() < 1e-9);
        // A hundred requests of one customer are one score, the last.
        assert!((SAMPLES..=SAMPLES + 1).contains(&period.scores.len()));
        let of_that_one = period.scores.iter().filter(|(score, _)| *score == 0.8);
        assert_eq!(of_that_one.count(), 1);
        // And the samples are of all the second, not of its beginning.
        let times = period.times.iter().filter(|(time, _)| *time < 2000.0);
        let mean = times.map(|(time, _)| time).sum::<f64>() / SAMPLES as f64;
        assert!((1040.0..1060.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_short_window_has_short_slots() {
        let mut window = Window::new(seconds(1));
        window.failure(Duration::from_millis(10));
        window.success(Duration::from_millis(900), 0.5, micros(1), 1);
        assert_eq!(window.period(Duration::from_millis(950)).requests, 2);
        assert_eq!(window.period(Duration::from_millis(1500)).requests, 1);
        assert_eq!(window.period(seconds(3)).requests, 0);
    }
}
