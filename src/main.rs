//! The `bellwether` command; see `bellwether --help`.

use std::process::ExitCode;

/// A request makes hundreds of small, short-lived allocations, many of them aligned for vector
/// instructions; the C library's allocator spends a quarter of a score's time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bellwether::cli::main()
}
