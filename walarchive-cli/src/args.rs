//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use walarchive_core::archive::BackupId;
use walarchive_core::config::Flags;
use walarchive_core::ops::restore::{Action, TablespaceMapping, Target, TimelineChoice};
use walarchive_core::wal::WalName;

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
    /// The command works without anybody's settings
    #[arg(skip)]
    pub without_settings: bool,
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
    /// Remove what retention does not keep, and what dead programs left; without --yes only says what would go
    Prune(PruneArgs),
    /// One line for Nagios and the like, then the details; exit 0 (OK), 1 (warning), 2 (critical), 3 (unknown)
    #[command(subcommand)]
    Check(CheckCommand),
    /// Bring the cluster back, at any moment that the archive leads to
    Restore(RestoreArgs),
    /// What can be restored, where it is stored, and what stands in the way
    Status,
    /// Copy to each mirror what it lacks and another has
    CatchUp,
    /// The whole circle on a throw-away cluster: archive, back up, destroy, restore to a moment, compare
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Do not encrypt, ever
    #[arg(long, conflicts_with_all = ["recipient", "generate_identity"])]
    pub no_encryption: bool,
    /// Who can read what is written (age1…); also WALARCHIVE_RECIPIENTS
    // Not parsed here: clap repeats what it refuses, and this might be a secret key by mistake.
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Vec<String>,
    /// Make a key, keep its secret half in FILE and use its public half
    #[arg(long, value_name = "FILE")]
    pub generate_identity: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; its secret half goes to FILE (or standard output), its public half is printed
    Generate {
        /// Where the secret half goes
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the public half of the keys in FILE
    Show {
        /// A file with secret keys
        file: PathBuf,
    },
}

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

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up the running cluster
    Create(CreateArgs),
    /// All backups, oldest first
    List,
    /// Facts about one backup
    Show {
        /// Its id, as 'backup list' shows it
        #[arg(value_parser = backup_id)]
        id: BackupId,
    },
    /// Take files, directories or relations out of a backup, reading only what they consist of
    Extract(ExtractArgs),
    /// Keep a backup whatever retention says
    Pin {
        /// Its id, as 'backup list' shows it
        #[arg(value_parser = backup_id)]
        id: BackupId,
    },
    /// Take the pin away
    Unpin {
        /// Its id, as 'backup list' shows it
        #[arg(value_parser = backup_id)]
        id: BackupId,
    },
    /// Delete a backup; without --yes only says what would go
    Delete {
        /// Its id, as 'backup list' shows it
        #[arg(value_parser = backup_id)]
        id: BackupId,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Even when no other backup can be restored
        #[arg(long)]
        even_the_last: bool,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Store everything anew
    #[arg(long)]
    pub full: bool,
    /// How many files are read at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// A note that is kept with the backup
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Pin it from the beginning
    #[arg(long)]
    pub pin: bool,
    /// Let the server spread its checkpoint over time, instead of making it at once
    #[arg(long)]
    pub spread_checkpoint: bool,
}

#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Its id, as 'backup list' shows it
    #[arg(value_parser = backup_id)]
    pub id: BackupId,
    /// Paths relative to the data directory; a relation's, as pg_relation_filepath() gives it, stands for all its files
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Where they go, by their paths
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub target_dir: PathBuf,
    /// How many stretches of files are written at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && text.len() <= 1024 => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE, at most 1024 bytes".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Only say what would go, as without --yes
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do it
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Prove on the live store, with objects of its own, that it keeps what archives depend on
    Store {
        /// How many objects listings are proven with
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=100_000))]
        objects: u32,
    },
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The data directory: absent or empty, or, with --delta, the cluster's own
    #[arg(long, value_name = "DIR")]
    pub target_dir: PathBuf,
    /// Make the cluster in the target directory the one of the backup: rewrite what differs, remove what the backup does
    /// not have. Its pg_control must prove that it is this cluster, and its server be stopped
    #[arg(long)]
    pub delta: bool,
    /// With --delta: the directory is this cluster's although nothing in it proves that, and no other cluster uses the
    /// tablespaces that it links to
    #[arg(long, requires = "delta")]
    pub yes: bool,
    /// Bring back only this database (and postgres, template0, template1); can be said several times. The others can only
    /// be dropped afterwards
    #[arg(long, value_name = "DATABASE")]
    pub only_database: Vec<String>,
    /// Which backup to start from; by default the newest that leads to the target
    #[arg(long, value_name = "ID|latest", default_value = "latest")]
    pub backup: String,
    /// latest, immediate, a time with offset, lsn:X/Y, xid:N or name:LABEL
    #[arg(long, value_name = "WHEN", default_value = "latest", value_parser = target)]
    pub to: Target,
    /// latest, current (the backup's) or a number
    #[arg(long, default_value = "latest", value_parser = timeline)]
    pub timeline: TimelineChoice,
    /// Stop before the target instead of behind it
    #[arg(long)]
    pub exclusive: bool,
    /// What the server does at the target: pause, promote or shutdown
    #[arg(long, default_value = "promote", value_parser = action)]
    pub action: Action,
    /// Make a standby that goes on following
    #[arg(long)]
    pub standby: bool,
    /// Put the tablespace that was at OLD to NEW
    #[arg(long, value_name = "OLD=NEW", value_parser = mapping)]
    pub tablespace: Vec<TablespaceMapping>,
    /// How many stretches of files are written at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Only print the plan
    #[arg(long)]
    pub dry_run: bool,
}

fn story<T>(parsed: walarchive_core::Result<T>) -> Result<T, String> {
    parsed.map_err(|error| error.story())
}

fn backup_id(text: &str) -> Result<BackupId, String> {
    story(text.parse())
}

fn target(text: &str) -> Result<Target, String> {
    story(text.parse())
}

fn timeline(text: &str) -> Result<TimelineChoice, String> {
    story(text.parse())
}

fn action(text: &str) -> Result<Action, String> {
    story(text.parse())
}

fn mapping(text: &str) -> Result<TablespaceMapping, String> {
    story(text.parse())
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the clusters and the archive where they are
    #[arg(long)]
    pub keep: bool,
    /// Where to work: an absent or empty directory; a temporary one by default
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where PostgreSQL's programs are; by default the newest that are found
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// The directory that this program, running as root, made for itself running as somebody else
    #[arg(long, value_name = "DIR", hide = true)]
    pub inside: Option<PathBuf>,
}
