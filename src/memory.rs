//! Memory that nobody uses, back to the system.
//!
//! The allocator keeps what is freed for a second or more, in case it is wanted again, and looks at it only
//! when somebody asks for memory. Behind work that took much for a moment and is not soon done again it is
//! told to look now.

/// Gives back what the calling thread has freed and what lies about unused. Takes some milliseconds; not
/// for threads that serve. Does nothing in a process that has another allocator.
#[expect(unsafe_code, reason = "the library has no safe call for it")]
pub fn give_back() {
    // SAFETY: it may be called by any thread at any time; it only touches memory that is not in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
