//! The filters of the newest files, in memory: chunks of one size that go from file to file.
//!
//! Files come, are merged and go, and with them filters from 1 KB to many MB. Were each an allocation of
//! its own, memory would grow for minutes and then have holes. Here it is taken once, when the server
//! begins to take many events, and what a file lets go of is what the next one gets.

use super::run::FILTER_BYTES;

/// Filters of a chunk.
const CHUNK_FILTERS: usize = 64;
const CHUNK_BYTES: usize = CHUNK_FILTERS * FILTER_BYTES;

type Chunk = Box<[u8]>;

/// The filters of one file, group by group.
#[derive(Default)]
pub struct Filters {
    chunks: Vec<Chunk>,
}

/// The chunks that no file has.
pub struct Pool {
    free: Vec<Chunk>,
    /// How many chunks there are, here and with files.
    made: usize,
    /// How many there may be.
    limit: usize,
}

/// How many chunks the filters of `groups` take.
pub fn chunks_for(groups: usize) -> usize {
    groups.div_ceil(CHUNK_FILTERS)
}

impl Filters {
    /// The filter of a group.
    pub fn of(&self, group: usize) -> &[u8] {
        let at = group % CHUNK_FILTERS * FILTER_BYTES;
        &self.chunks[group / CHUNK_FILTERS][at..at + FILTER_BYTES]
    }

    /// The filters of the groups from the first on, to be written.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let chunks = self.chunks.iter_mut();
        chunks.flat_map(|chunk| chunk.chunks_exact_mut(FILTER_BYTES))
    }
}

impl Pool {
    /// A pool that takes at most `bytes`, when they are needed.
    pub fn new(bytes: usize) -> Pool {
        Pool {
            free: Vec::new(),
            made: 0,
            limit: bytes / CHUNK_BYTES,
        }
    }

    /// How many chunks there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes of all chunks there are.
    pub fn bytes(&self) -> usize {
        self.made * CHUNK_BYTES
    }

    /// Room for the filters of `groups`; `None` when others have it.
    pub fn take(&mut self, groups: usize) -> Option<Filters> {
        let count = chunks_for(groups);
        if count > self.free.len() + (self.limit - self.made) {
            return None;
        }
        while self.free.len() < count {
            self.make();
        }
        let chunks = self.free.split_off(self.free.len() - count);
        Some(Filters { chunks })
    }

    /// Takes back what a file does not need any more.
    pub fn give(&mut self, filters: Filters) {
        self.free.extend(filters.chunks);
    }

    /// Takes all the memory at once.
    pub fn fill(&mut self) {
        while self.made < self.limit {
            self.make();
        }
    }

    fn make(&mut self) {
        // Written, so that the operating system gives the memory now.
        self.free.push(vec![u8::MAX; CHUNK_BYTES].into());
        self.made += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_never_has_more_than_its_limit_and_what_is_given_back_is_taken_again() {
        let mut pool = Pool::new(10 * CHUNK_BYTES + 5);
        assert_eq!((pool.limit(), pool.bytes()), (10, 0));
        let first = pool.take(3 * CHUNK_FILTERS + 1).unwrap();
        assert_eq!(first.chunks.len(), 4);
        assert_eq!(pool.bytes(), 4 * CHUNK_BYTES);
        assert!(pool.take(7 * CHUNK_FILTERS).is_none());
        let second = pool.take(6 * CHUNK_FILTERS).unwrap();
        assert!(pool.take(1).is_none());
        pool.give(first);
        assert!(pool.take(4 * CHUNK_FILTERS).is_some());
        pool.give(second);
        assert_eq!(pool.bytes(), 10 * CHUNK_BYTES);
    }

    #[test]
    fn a_pool_that_was_filled_takes_no_more() {
        let mut pool = Pool::new(3 * CHUNK_BYTES);
        let filters = pool.take(1).unwrap();
        pool.fill();
        assert_eq!(pool.bytes(), 3 * CHUNK_BYTES);
        pool.give(filters);
        assert!(pool.take(3 * CHUNK_FILTERS).is_some());
        assert_eq!(pool.bytes(), 3 * CHUNK_BYTES);
    }

    #[test]
    fn every_group_has_a_filter_of_its_own() {
        let mut filters = Pool::new(4 * CHUNK_BYTES).take(130).unwrap();
        for (group, filter) in filters.iter_mut().take(130).enumerate() {
            filter.fill(group as u8);
        }
        for group in 0..130 {
            assert!(filters.of(group).iter().all(|byte| *byte == group as u8));
        }
    }
}
