//! [`Pool`]: the threads a caller lends to a run.

/// Threads that work on the parts of one batch. The crate starts none of its own: a server brings
/// the pool that its other work shares.
pub trait Pool: Sync {
    /// How many parts are worked on at the same time.
    fn threads(&self) -> usize;

    /// Calls `part` once for each number below `parts`, on any threads and in any order, and
    /// returns when all have returned.
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync));
}

/// Threads started for each run and ended with it; costs some tens of microseconds a run. For
/// programs that have no pool.
#[derive(Debug, Clone, Copy)]
pub struct ScopedThreads(pub usize);

impl Pool for ScopedThreads {
    fn threads(&self) -> usize {
        self.0.max(1)
    }

    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if index >= parts {
                    return;
                }
                part(index);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads().min(parts) {
                scope.spawn(work);
            }
            work();
        });
    }
}
