//! The `bellwether` command; see `bellwether --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bellwether::cli::main()
}
