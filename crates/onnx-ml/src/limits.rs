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
    /// Number of nodes of the graph. Time to analyse a graph grows with its square. Default 4,096.
    pub nodes: u64,
    /// Bytes of any one tensor that can be computed at load time, and of any one tensor of a run
    /// with one row. Default 256 MiB.
    pub tensor_bytes: u64,
    /// Bytes of any one tensor of a run with many rows. Default 4 GiB.
    pub run_tensor_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            file_bytes: 512 << 20,
            decoded_bytes: 4 << 30,
            nodes: 4_096,
            tensor_bytes: 256 << 20,
            run_tensor_bytes: 4 << 30,
        }
    }
}
