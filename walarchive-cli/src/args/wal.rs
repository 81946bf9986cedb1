//! WAL files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use walarchive_core::wal::WalName;

#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Store one WAL file, or everything that is ready
    Push(PushArgs),
    /// Fetch one WAL file; DEST appears only when every byte was verified
    Fetch(FetchArgs),
    /// Timelines, what is stored of them, what is missing
    List,
    /// Facts about one stored WAL file
    Show {
        /// Its name
        name: WalName,
    },
}

#[derive(Debug, Args)]
pub struct PushArgs {
    /// The file, whose name says what it is (%p of archive_command)
    #[arg(required_unless_present = "ready", conflicts_with = "ready")]
    pub path: Option<PathBuf>,
    /// Everything that waits in pg_wal of this data directory: for a server that is down
    #[arg(long, value_name = "DATA_DIR")]
    pub ready: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Name of the file (%f of restore_command)
    pub name: WalName,
    /// Where it goes (%p of restore_command)
    pub dest: PathBuf,
}
