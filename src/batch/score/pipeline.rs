//! The threads of a job. Each takes the next chunk, scores it, and has it written in its turn.
//!
//! One thread at a time reads and one writes, while the others score, so that as many threads as there
//! are cores keep them all busy and none waits for another kind of work. What is kept in memory is one
//! chunk for each thread and a few scored ones that wait for an earlier one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::inputs::InputFile;
use super::plan::Plan;
use super::rows::score;
use super::sink::{Done, Sink};
use super::source::{Item, Position, Source};
use crate::priority;

/// Scored chunks that may wait for an earlier one, for each thread.
const AHEAD: u64 = 2;

/// `'p` is how long plan and sink live, `'r` how long the run takes.
struct Shared<'r, 'p> {
    plan: &'p Plan,
    files: &'p [InputFile],
    source: Mutex<Source<'p>>,
    sink: Mutex<Sink<'p>>,
    /// Told when a chunk was written, or the job stops.
    written: Condvar,
    is_stopping: AtomicBool,
    problem: Mutex<Option<String>>,
    most_ahead: u64,
    progress: &'r (dyn Fn(u64, Position) + Sync),
}

/// Stops the other threads when one ends, whatever it ends by: none is to wait for what never comes.
struct StopOthers<'s, 'r, 'p> {
    shared: &'s Shared<'r, 'p>,
    has_ended: bool,
}

impl Drop for StopOthers<'_, '_, '_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.shared.stop();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_, '_> {
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        // Under the lock, so that no thread is between looking and waiting.
        let _sink = lock(&self.sink);
        self.written.notify_all();
    }

    fn work(&self) {
        // A server on the same machine goes before it; without one nobody is in its way.
        priority::lowest();
        let mut guard = StopOthers {
            shared: self,
            has_ended: false,
        };
        match self.try_work() {
            Ok(()) => guard.has_ended = true,
            Err(problem) => {
                lock(&self.problem).get_or_insert(problem);
            }
        }
    }

    fn try_work(&self) -> Result<(), String> {
        while !self.is_stopping.load(Ordering::Acquire) {
            let Some((sequence, item)) = lock(&self.source).next_item()? else {
                return Ok(());
            };
            let done = match item {
                Item::Chunk(chunk) => Done::Scored(Box::new(score(self.plan, self.files, chunk)?)),
                Item::EndOfPart(position) => Done::EndOfPart(position),
            };
            let mut sink = lock(&self.sink);
            if self.is_stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            while sink.is_ahead(sequence, self.most_ahead) {
                if self.is_stopping.load(Ordering::Acquire) {
                    return Ok(());
                }
                sink = self
                    .written
                    .wait(sink)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            sink.put(sequence, done)?;
            (self.progress)(sink.rows, sink.at);
            self.written.notify_all();
        }
        Ok(())
    }
}

/// Reads `source` to its end into `sink` with `threads` threads; `progress` is told the rows so far, and
/// where the input goes on.
/// The sink is given back also when it fails.
///
/// # Errors
/// The first problem of any thread; the parts that were completed before are kept.
pub fn run<'p>(
    plan: &'p Plan,
    files: &'p [InputFile],
    source: Source<'p>,
    sink: Sink<'p>,
    threads: usize,
    progress: &(dyn Fn(u64, Position) + Sync),
) -> (Sink<'p>, Result<(), String>) {
    let shared = Shared {
        plan,
        files,
        source: Mutex::new(source),
        sink: Mutex::new(sink),
        written: Condvar::new(),
        is_stopping: AtomicBool::new(false),
        problem: Mutex::new(None),
        most_ahead: AHEAD * threads as u64,
        progress,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| shared.work());
        }
        shared.work();
    });
    let problem = shared
        .problem
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let sink = shared
        .sink
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    (sink, problem.map_or(Ok(()), Err))
}
