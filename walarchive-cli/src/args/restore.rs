//! Ways back, and their rehearsal.

use std::path::PathBuf;

use clap::Args;
use walarchive_core::Result;
use walarchive_core::ops::restore::{Action, TablespaceMapping, Target, TimelineChoice, Wish};

use super::parse::{action, mapping, target, timeline};

/// What is to be restored, and how far recovery goes.
#[derive(Debug, Args)]
pub struct WantedArgs {
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
}

impl WantedArgs {
    pub fn wish(&self) -> Result<Wish> {
        let backup = match self.backup.as_str() {
            "latest" => None,
            id => Some(id.parse()?),
        };
        Ok(Wish { target: self.to.clone(), backup, timeline: self.timeline })
    }
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
    #[command(flatten)]
    pub wanted: WantedArgs,
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

#[derive(Debug, Args)]
pub struct RestoreLatestArgs {
    /// The data directory, absent or with the cluster that is replaced; by default postgres.data_dir (PGDATA)
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    #[command(flatten)]
    pub wanted: WantedArgs,
    /// Put the tablespace that was at OLD to NEW, which is absent or empty
    #[arg(long, value_name = "OLD=NEW", value_parser = mapping)]
    pub tablespace: Vec<TablespaceMapping>,
    /// Shell command that stops the server; by default pg_ctl
    #[arg(long, value_name = "CMD")]
    pub stop_command: Option<String>,
    /// Shell command that starts it; by default pg_ctl
    #[arg(long, value_name = "CMD")]
    pub start_command: Option<String>,
    /// SQL that must run without an error in the restored cluster
    #[arg(long, value_name = "SQL")]
    pub check_sql: Option<String>,
    /// Shell command that is run before anything is touched; if it fails, nothing is
    #[arg(long, value_name = "CMD")]
    pub pre_hook: Option<String>,
    /// Shell command that is run when all is over, with RESTORE_STATUS in its environment
    #[arg(long, value_name = "CMD")]
    pub post_hook: Option<String>,
    /// The name of this host, where restore_latest.production_name is set
    #[arg(long, value_name = "NAME")]
    pub production_name: Option<String>,
    /// How many stretches of files are written at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Undo one that was cut off
    #[arg(long, conflicts_with = "dry_run")]
    pub undo: bool,
    /// Only prove that it can be done, as without --yes
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do it
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct DrillArgs {
    /// Which backup: the newest, any one that can be restored, or this one
    #[arg(long, value_name = "ID|latest|random", default_value = "latest", conflicts_with = "dump")]
    pub backup: String,
    /// A logical dump instead, into a new server of its version
    #[arg(long, value_name = "ID|latest")]
    pub dump: Option<String>,
    /// With --dump latest, or with any id of the same run: of which database
    #[arg(long, value_name = "DATABASE", requires = "dump", allow_hyphen_values = true)]
    pub database: Option<String>,
    /// latest, immediate, a time with offset, lsn:X/Y, xid:N or name:LABEL
    #[arg(long, value_name = "WHEN", default_value = "latest", value_parser = target, conflicts_with = "dump")]
    pub to: Target,
    /// Where to work: a directory on a file system with space for all of it; that of temporary files by default
    #[arg(long, value_name = "DIR")]
    pub scratch_dir: Option<PathBuf>,
    /// SQL that must run without an error in what was restored (a cluster's database postgres); can be said several times
    #[arg(long, value_name = "FILE")]
    pub sql: Vec<PathBuf>,
    /// The superuser to connect as; postgres, or whoever this user is, by default
    #[arg(long, value_name = "NAME", conflicts_with = "dump")]
    pub role: Option<String>,
    /// How many stretches of files are written, and how many connections look through tables, at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Leave what was restored where it is, with its server stopped
    #[arg(long)]
    pub keep: bool,
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
