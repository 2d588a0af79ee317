//! What a thread is worth beside others: its share of a core, and how soon it gets one when it wakes.
//!
//! A share says little about the second. Linux lets a thread that runs finish its turn, one to three
//! milliseconds long whatever its nice value, before one that wakes gets the core; only a thread whose
//! turns are shorter goes before it at once. A score takes a twentieth of that. So threads that serve take
//! the shortest turns there are, and threads whose work can wait take the longest and a smaller share. That
//! needs no privilege, and Linux 6.12; earlier ones know the share only, and other systems neither.
//!
//! Nothing here can fail in a way that matters: a thread that may not be changed stays as it is.

use std::path::Path;
use std::time::Duration;

/// The shortest and the longest turn that Linux takes.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(100);

/// The nice value of work that can wait. Not the lowest: on a machine that is busy for good it still gets
/// on.
const LOW: i32 = 10;

/// The nice value of work that takes all of a core for long.
const LOWEST: i32 = 19;

/// Where Linux says, and is told, what a session is worth beside others.
const SESSION: &str = "/proc/self/autogroup";

/// Has the calling thread get a core as soon as it wakes, though others are at it. For short work that
/// somebody waits for. Threads that it starts from then on are as if it had not.
pub fn prompt() {
    set(0, SHORTEST, Heirs::Usual);
}

/// Has the calling thread give way to those that wake, and take a smaller share of a core. Threads that it
/// starts do so, too; the same holds for the functions below.
pub fn lower() {
    set(LOW, LONGEST, Heirs::Alike);
}

/// As [`lower`], with the smallest share there is.
pub fn lowest() {
    set(LOWEST, LONGEST, Heirs::Alike);
}

/// Has the calling thread give way to those that wake. Its share stays. For a command whose work is done
/// elsewhere, perhaps by a server on the same machine.
pub fn give_way() {
    set(0, LONGEST, Heirs::Alike);
}

/// What threads have that the calling one starts.
#[derive(Clone, Copy, PartialEq)]
enum Heirs {
    /// What it has itself.
    Alike,
    /// The turns that Linux gives a thread that has asked for nothing.
    Usual,
}

/// Gives the calling thread at least that nice value, and turns of that length.
fn set(nice: i32, turn: Duration, heirs: Heirs) {
    if !system::set(nice, turn, heirs) {
        tracing::debug!("a thread keeps the priority that it has");
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr};

    use super::Heirs;

    /// Whether the system took it.
    #[expect(
        unsafe_code,
        reason = "no library has a safe call that sets the length of turns"
    )]
    pub fn set(nice: i32, turn: Duration, heirs: Heirs) -> bool {
        let Some(mut attributes) = get() else {
            return false;
        };
        // Real-time threads do not take turns with others, and their runtime means something else.
        let policy = i32::try_from(attributes.sched_policy);
        if !matches!(policy, Ok(libc::SCHED_OTHER | libc::SCHED_BATCH)) {
            return false;
        }
        // Going back up is not allowed, and whoever started the process knows why it is down.
        attributes.sched_nice = attributes.sched_nice.max(nice);
        if heirs == Heirs::Usual {
            attributes.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
        }
        attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the call reads `attributes`, which is as long as its field `size` says, and changes the
        // calling thread (0) only.
        let returned = unsafe { libc::syscall(SYS_sched_setattr, 0, &raw const attributes, 0) };
        returned == 0
    }

    /// What the calling thread has.
    #[expect(
        unsafe_code,
        reason = "no library has a safe call that gets the length of turns"
    )]
    pub fn get() -> Option<sched_attr> {
        let mut attributes = sched_attr {
            size: 0,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        let size = size_of::<sched_attr>();
        // SAFETY: the call writes at most `size` bytes, which `attributes` has, and asks for the calling
        // thread (0) only.
        let returned = unsafe { libc::syscall(SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        (returned == 0).then_some(attributes)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub fn set(_nice: i32, _turn: std::time::Duration, _heirs: super::Heirs) -> bool {
        false
    }
}

/// Lets other sessions go before this one, if it is this process's own.
///
/// Linux shares a core among sessions first and among the threads of each then, so that beside a server
/// that was started elsewhere a thread's own priority says nothing. A session that others share, such as
/// that of a terminal, is left as it is.
pub fn lower_session() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if !is_session_leader(&stat) || !Path::new(SESSION).exists() {
        return;
    }
    if let Err(error) = std::fs::write(SESSION, "19") {
        tracing::debug!(%error, "the session has the usual priority");
    }
}

/// Whether the process with that line of `/proc/PID/stat` is the first of its session.
fn is_session_leader(stat: &str) -> bool {
    // The name, in parentheses, may hold anything.
    let (Some((pid, _)), Some((_, behind))) = (stat.split_once(' '), stat.rsplit_once(") ")) else {
        return false;
    };
    // State, parent and process group come before the session.
    behind.split(' ').nth(3) == Some(pid)
}

#[cfg(test)]
mod tests {
    use super::is_session_leader;

    #[test]
    fn a_session_is_a_processs_own_when_it_is_its_first() {
        assert!(is_session_leader("71 (a) b) S 1 71 71 0 -1"));
        assert!(!is_session_leader("72 (bellwether) S 71 72 71 0 -1"));
        assert!(!is_session_leader(""));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_that_serve_take_shorter_turns_than_those_that_can_wait_and_than_those_they_start() {
        use super::{lower, lowest, prompt, system};

        let after = |change: fn()| {
            let changed = std::thread::spawn(move || {
                let before = system::get().expect("attributes");
                change();
                (before, system::get().expect("attributes"))
            });
            changed.join().expect("the thread ends")
        };
        let (before, serving) = after(prompt);
        assert_eq!(serving.sched_nice, before.sched_nice);
        let heir = std::thread::spawn(move || {
            prompt();
            after(|| {}).1
        });
        let heir = heir.join().expect("the thread ends");
        assert_eq!(
            (heir.sched_nice, heir.sched_runtime, heir.sched_flags),
            (before.sched_nice, before.sched_runtime, before.sched_flags)
        );
        let (_, low) = after(lower);
        assert_eq!(low.sched_nice, before.sched_nice.max(10));
        let (_, lowest) = after(lowest);
        assert_eq!(lowest.sched_nice, 19);
        if before.sched_runtime == 0 {
            println!("skipped: turns have no length before Linux 6.12");
        } else {
            assert_eq!(serving.sched_runtime, 100_000);
            assert_eq!(
                (low.sched_runtime, lowest.sched_runtime),
                (100_000_000, 100_000_000)
            );
        }
    }
}
