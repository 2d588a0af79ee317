//! Reading every entity of a view, page by page, while entities are read and changed.
//!
//! An entity comes as it is when its page is read. One that is there from the first page to the last comes
//! at least once: exactly once from a store that scans in the order of the keys, perhaps again from one
//! that does not ([`OnlineStore::scans_in_order`](super::OnlineStore::scans_in_order)). Whoever scans
//! remembers where to go on; the store keeps nothing between two pages.

use super::Snapshot;

/// A page ends at the first entity beyond this many bytes as they are stored, so that wide entities
/// cannot fill the memory.
pub const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Some entities of a view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Keys, and what is known of them. There may be none although others follow.
    pub entities: Vec<(String, Snapshot)>,
    /// Where the next page begins; `None` at the end. It means something to this store only.
    pub next: Option<String>,
}
