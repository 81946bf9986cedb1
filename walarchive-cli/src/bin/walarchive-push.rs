//! `walarchive-push PATH`: `walarchive wal push`, for `archive_command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    walarchive_cli::push_main()
}
