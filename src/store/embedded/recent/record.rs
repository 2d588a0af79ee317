//! How an event is remembered.

use crate::features::change::REMEMBERED_US;

/// An event that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub identity: u128,
    /// The number of its change.
    pub sequence: u64,
    /// Microseconds since the Unix epoch.
    pub known_at_us: i64,
}

impl Record {
    pub const BYTES: usize = 32;

    pub fn encode(&self) -> [u8; Record::BYTES] {
        let mut bytes = [0; Record::BYTES];
        bytes[..16].copy_from_slice(&self.identity.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..].copy_from_slice(&self.known_at_us.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Record::BYTES]) -> Record {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(number)
        };
        Record {
            identity: Record::identity_of(bytes),
            sequence: number(16),
            known_at_us: number(24) as i64,
        }
    }

    pub fn identity_of(bytes: &[u8; Record::BYTES]) -> u128 {
        let mut identity = [0; 16];
        identity.copy_from_slice(&bytes[..16]);
        u128::from_be_bytes(identity)
    }

    /// Whether an event with the same identity, `later`, is this one sent again.
    pub fn makes_duplicate(&self, later: &Record) -> bool {
        let age_us = later.known_at_us.saturating_sub(self.known_at_us);
        self.sequence < later.sequence && age_us < REMEMBERED_US
    }
}
