//! The `netns-monitor` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    monitor::cli::main()
}
