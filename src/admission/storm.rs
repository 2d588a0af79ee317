//! Many requests of every kind at once, and all of them counted.

use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::task::JoinSet;

use super::*;

/// Longer than any test takes: what has not happened by then never will.
const NEVER: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    running: AtomicUsize,
    most_running: AtomicUsize,
    batch_running: AtomicUsize,
    most_batch_running: AtomicUsize,
    done: AtomicUsize,
    full: AtomicUsize,
    expired: AtomicUsize,
    gone: AtomicUsize,
}

/// A request that runs now; counted until it is dropped, which is before its permit is.
struct Running<'a> {
    counts: &'a Counts,
    priority: Priority,
    _permit: Permit,
}

impl Running<'_> {
    fn start(counts: &Counts, priority: Priority, permit: Permit) -> Running<'_> {
        let count_in = |now: &AtomicUsize, most: &AtomicUsize| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        };
        count_in(&counts.running, &counts.most_running);
        if priority == Priority::Batch {
            count_in(&counts.batch_running, &counts.most_batch_running);
        }
        Running {
            counts,
            priority,
            _permit: permit,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.priority == Priority::Batch {
            self.counts.batch_running.fetch_sub(1, Ordering::SeqCst);
        }
        self.counts.running.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Request {
    priority: Priority,
    deadline: Option<Instant>,
    /// How often it lets others go first while it runs.
    steps: u32,
    /// How often it is looked after before its client goes away.
    patience: Option<u32>,
}

impl Request {
    fn any(random: &mut fastrand::Rng) -> Request {
        let deadline_us = match random.u8(..4) {
            0 => Some(random.u64(..300)),
            1 => Some(NEVER.as_micros() as u64),
            _ => None,
        };
        Request {
            priority: if random.u8(..3) == 0 {
                Priority::Batch
            } else {
                Priority::Online
            },
            deadline: deadline_us.map(|us| Instant::now() + Duration::from_micros(us)),
            steps: random.u32(..4),
            patience: (random.u8(..5) == 0).then(|| random.u32(..5)),
        }
    }

    async fn send(&self, gate: &Admission, counts: &Counts) {
        let outcome = match gate.admit(self.priority, self.deadline).await {
            Ok(permit) => {
                let _running = Running::start(counts, self.priority, permit);
                for _ in 0..self.steps {
                    tokio::task::yield_now().await;
                }
                &counts.done
            }
            Err(Turned::Full { .. }) => &counts.full,
            Err(Turned::Expired) => &counts.expired,
        };
        outcome.fetch_add(1, Ordering::SeqCst);
    }

    /// Sends it, and goes away before the answer when patience ends: before its turn, at it, or
    /// while it runs.
    async fn live(self, gate: Admission, counts: Arc<Counts>) {
        let Some(patience) = self.patience else {
            return self.send(&gate, &counts).await;
        };
        let mut request = Box::pin(self.send(&gate, &counts));
        for _ in 0..patience {
            if is_answered(request.as_mut()) {
                return;
            }
            tokio::task::yield_now().await;
        }
        drop(request);
        counts.gone.fetch_add(1, Ordering::SeqCst);
    }
}

fn is_answered(request: Pin<&mut impl Future<Output = ()>>) -> bool {
    let context = &mut Context::from_waker(Waker::noop());
    request.poll(context).is_ready()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_storm_the_bounds_hold_and_nobody_is_lost_or_stuck() {
    const CONCURRENCY: usize = 3;
    const REQUESTS: usize = 20_000;
    let gate = Admission::new(Limits {
        concurrency: CONCURRENCY,
        queue: 16,
    });
    let counts = Arc::new(Counts::default());
    let mut random = fastrand::Rng::with_seed(4);
    let mut storm = JoinSet::new();
    for _ in 0..REQUESTS {
        let request = Request::any(&mut random);
        storm.spawn(request.live(gate.clone(), Arc::clone(&counts)));
        // Enough at once to overflow the line, and moments in which it empties.
        while storm.len() > random.usize(1..80) {
            storm.join_next().await.expect("one").expect("no panic");
        }
    }
    tokio::time::timeout(NEVER, storm.join_all())
        .await
        .expect("nobody is stuck");

    let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    assert_eq!(read(&counts.most_running), CONCURRENCY);
    assert_eq!(read(&counts.most_batch_running), CONCURRENCY - 1);
    let outcomes = [&counts.done, &counts.full, &counts.expired, &counts.gone].map(read);
    assert_eq!(outcomes.iter().sum::<usize>(), REQUESTS);
    assert!(
        outcomes.iter().all(|count| *count > 0),
        "a storm has all of them: {outcomes:?}"
    );
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
    let places: Vec<Permit> = std::iter::from_fn(|| gate.try_admit(Priority::Online)).collect();
    assert_eq!(places.len(), CONCURRENCY, "every place is free again");
}

#[test]
fn many_threads_share_the_places_without_going_over() {
    let gate = Admission::new(Limits {
        concurrency: 2,
        queue: 0,
    });
    let running = AtomicUsize::new(0);
    let admitted = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..20_000 {
                    if let Some(permit) = gate.try_admit(Priority::Online) {
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                        admitted.fetch_add(1, Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                }
            });
        }
    });
    assert!(admitted.into_inner() > 0);
    assert_eq!(gate.in_flight(), 0);
}
