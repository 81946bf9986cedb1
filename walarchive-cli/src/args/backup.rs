//! Backups: making them, and what becomes of them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use walarchive_core::archive::BackupId;

use super::parse::{backup_id, label};

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

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Only say what would go, as without --yes
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do it
    #[arg(long)]
    pub yes: bool,
}
