//! What monitoring asks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::parse::age;

/// From which age on a check is not content.
#[derive(Debug, Args)]
pub struct Limits {
    /// A warning from this age on, for example 26h; by default there is none
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub warning: Option<std::time::Duration>,
    /// Critical from this age on; by default 15min for WAL, 28h for backups and dumps, 32h for copies, 8d for drills
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub critical: Option<std::time::Duration>,
}

/// Who else is told.
#[derive(Debug, Args)]
pub struct Reporting {
    /// Print the line that send_nsca takes, for this host
    #[arg(long, value_name = "HOST", conflicts_with = "json")]
    pub nsca: Option<String>,
    /// Write the numbers to this file, for Prometheus' textfile collector
    #[arg(long, value_name = "FILE.prom")]
    pub prometheus: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Prove on the live store, with objects of its own, that it keeps what archives depend on
    Store {
        /// How many objects listings are proven with
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=100_000))]
        objects: u32,
    },
    /// Gaps in the stored WAL, how long files have been waiting to be archived, and whether ever more of them wait
    Wal {
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        reporting: Reporting,
    },
    /// The age of the newest backup that can be restored
    Backup {
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        reporting: Reporting,
    },
    /// The age of the newest dump of each database
    Dump {
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        reporting: Reporting,
    },
    /// What a copy lacks, and for how long
    Copy {
        /// The archive that is copied; by default the one of the settings
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// The copy; by default the archive of the settings
        #[arg(long, value_name = "URL")]
        to: Option<String>,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        reporting: Reporting,
    },
    /// Whether what is stored is what the rules of retention want, and how long what they do not want has been there
    Retention {
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        reporting: Reporting,
    },
    /// The age of the last drill, and whether all came back
    Drill {
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        reporting: Reporting,
    },
}
