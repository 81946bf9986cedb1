//! `walarchive`: everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    walarchive_cli::main()
}
