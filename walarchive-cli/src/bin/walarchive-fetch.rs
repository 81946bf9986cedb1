//! `walarchive-fetch NAME DEST`: `walarchive wal fetch`, for `restore_command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    walarchive_cli::fetch_main()
}
