//! The command line.

mod backup;
mod bench;
mod check;
mod copies;
mod dump;
mod keys;
mod parse;
mod restore;
mod wal;

pub use self::backup::*;
pub use self::bench::*;
pub use self::check::*;
pub use self::copies::*;
pub use self::dump::*;
pub use self::keys::*;
pub use self::restore::*;
pub use self::wal::*;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use walarchive_core::config::Flags;

const EXIT_CODES: &str = "Exit codes: 0 done and durable, 1 proven absent, 2 usage or configuration, 3 refused, \
4 damaged or not authentic, 5 unreachable, 6 this machine, 70 a bug. Settings: flag, then environment \
(WALARCHIVE_ARCHIVE, WALARCHIVE_CLUSTER, WALARCHIVE_RECIPIENTS, WALARCHIVE_IDENTITY_FILE …), then \
/etc/walarchive/walarchive.toml.";

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Settings file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the archive is, for example file:///srv/archive; the urls of mirrors follow, separated by spaces
    #[arg(long, global = true, value_name = "URL")]
    pub archive: Option<String>,
    /// Name of the cluster in the archive
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// System identifier of the cluster, when it cannot be told otherwise
    #[arg(long, global = true, value_name = "NUMBER")]
    pub system_id: Option<String>,
    /// Take settings from the files of a daemontools directory
    #[arg(long, global = true, value_name = "DIR")]
    pub envdir: Option<PathBuf>,
    /// Results and errors as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How messages are written
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Why the command works without anybody's settings, if it does
    #[arg(skip)]
    pub without_settings: Option<&'static str>,
}

impl Global {
    /// What the library wants to know of it.
    pub fn flags(&self) -> Flags {
        Flags {
            config: self.config.clone(),
            archive: self.archive.clone(),
            cluster: self.cluster.clone(),
            system_id: self.system_id.clone(),
            envdir: self.envdir.clone(),
        }
    }
}

/// A verified, encrypted archive for PostgreSQL
#[derive(Debug, Parser)]
#[command(name = "walarchive", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Store one WAL file: archive_command = 'walarchive-push %p'
#[derive(Debug, Parser)]
#[command(name = "walarchive-push", version, after_help = EXIT_CODES)]
pub struct PushCli {
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub push: PushArgs,
}

/// Fetch one WAL file: restore_command = 'walarchive-fetch %f %p'
#[derive(Debug, Parser)]
#[command(name = "walarchive-fetch", version, after_help = EXIT_CODES)]
pub struct FetchCli {
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub fetch: FetchArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the archive; again on the same archive changes nothing
    Init(InitArgs),
    /// Keys: who can read the archive
    #[command(subcommand)]
    Key(KeyCommand),
    /// WAL files: store, fetch, list
    #[command(subcommand)]
    Wal(WalCommand),
    /// Base backups: make, list, show, pin, delete
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Logical dumps: make, list, restore, export, pin, delete
    #[command(subcommand)]
    Dump(DumpCommand),
    /// Remove what retention does not keep, and what dead programs left; without --yes only says what would go
    Prune(PruneArgs),
    /// One line for Nagios and the like, then the details; exit 0 (OK), 1 (warning), 2 (critical), 3 (unknown)
    #[command(subcommand)]
    Check(CheckCommand),
    /// Bring the cluster back, at any moment that the archive leads to
    Restore(RestoreArgs),
    /// Copy what is missing from one archive to another: the pull of a backup machine, the copy offsite
    Copy(CopyArgs),
    /// Prove what is stored: that nothing is missing, and with --deep that every byte holds
    Verify(VerifyArgs),
    /// Bring the cluster back into service: proven, stopped, restored beside, exchanged, started, checked; and all undone if it fails
    RestoreLatest(RestoreLatestArgs),
    /// Rehearse a restore in a scratch place: restore, recover, look through all of it, report, clean up
    Drill(DrillArgs),
    /// What can be restored, where it is stored, and what stands in the way
    Status,
    /// Copy to each mirror what it lacks and another has
    CatchUp,
    /// Which codec? Compresses, seals and opens your own WAL segments or files with each, and tells what it costs and spares
    Bench(BenchArgs),
    /// The whole circle on a throw-away cluster: archive, back up, destroy, restore to a moment, compare
    Demo(DemoArgs),
}
