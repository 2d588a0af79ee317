//! The bounds that keep a hostile or mistaken file from taking the machine.

/// Bounds on what a file and a call may take. The defaults suit a server that loads files of
/// people it knows and must survive those of people it does not.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of the file in bytes. Default 512 MiB.
    pub file_bytes: u64,
    /// Estimated size of the decoded file in memory, in bytes. A few bytes of protobuf can stand for
    /// hundreds in memory; an honest file stays below ten times its size. Default 4 GiB, and in any
    /// case at most 64 MiB more than 24 times the file.
    pub decoded_bytes: u64,
    /// Number of nodes of the graph, inner graphs included. Default 16,384.
    pub nodes: u64,
    /// Bytes of all tensors together that are computed at load time, beyond those of the file.
    /// Default 256 MiB.
    pub tensor_bytes: u64,
    /// Bytes of all tensors of a run together. Default 4 GiB.
    pub run_bytes: u64,
    /// Operators run in one call, those of loops counted each time, and once more for every 2^18
    /// elementary operations, so that this bounds the time of a call. Default 1,000,000: some minutes
    /// of work for one processor.
    pub steps: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            file_bytes: 512 << 20,
            decoded_bytes: 4 << 30,
            nodes: 16_384,
            tensor_bytes: 256 << 20,
            run_bytes: 4 << 30,
            steps: 1_000_000,
        }
    }
}
