//! Copies, and proof of what is stored.

use clap::{Args, ValueEnum};
use walarchive_core::ops::verify::Share;

use super::parse::{age, share};

/// A part of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CopyKind {
    /// WAL
    Wal,
    /// Base backups
    Backups,
    /// Logical dumps
    Dumps,
}

#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The archive that is read; by default the one of the settings
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Where the copy is; an empty place becomes one. By default the archive of the settings
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Seal what is copied for this recipient (age1…) instead of copying it as it is; can be said several times
    // Not parsed here: clap repeats what it refuses, and this might be a secret key by mistake.
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Vec<String>,
    /// Only this part of it; can be said several times
    #[arg(long, value_enum, value_name = "KIND")]
    pub only: Vec<CopyKind>,
    /// Only backups and dumps that are not older, and the WAL from the first of them on, for example 30d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub since: Option<std::time::Duration>,
    /// Only the newest backup with the WAL from it on, and the newest dump of each database
    #[arg(long)]
    pub newest: bool,
    /// Only what the rules of retention that are set here keep: what `prune` has removed from the copy does not come again
    #[arg(long)]
    pub kept: bool,
    /// How many objects are copied at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Only say how much would be copied
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Read, open and prove every byte
    #[arg(long)]
    pub deep: bool,
    /// Only this backup or dump, and what it needs; latest is the newest backup
    #[arg(long, value_name = "ID|latest")]
    pub backup: Option<String>,
    /// Of every byte only a part, that which was not proven for longest: with 1/7 every night, all of them once a week
    #[arg(long, value_name = "N/M", value_parser = share, conflicts_with = "backup")]
    pub fraction: Option<Share>,
    /// Replace what is missing or damaged by what this copy of the archive has
    #[arg(long, value_name = "URL")]
    pub repair_from: Option<String>,
    /// How many objects are read at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
}
