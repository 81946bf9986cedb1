//! Logical dumps.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use walarchive_core::archive::DumpFormat;

use super::parse::{dump_format, label};

#[derive(Debug, Subcommand)]
pub enum DumpCommand {
    /// Dump all databases and the globals of the running server
    Create(DumpCreateArgs),
    /// All dumps, oldest first
    List {
        /// Only those of this database
        #[arg(long, value_name = "DATABASE", allow_hyphen_values = true)]
        database: Option<String>,
    },
    /// Facts about one dump
    Show(DumpArgs),
    /// Bring a database back: beside what is there, and in its place only when it is whole
    Restore(DumpRestoreArgs),
    /// Write a dump as pg_dump made it
    Export {
        #[command(flatten)]
        dump: DumpArgs,
        /// A file (or directory, where the dump is one) that is not there yet; standard output by default
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Keep a dump whatever retention says
    Pin(DumpArgs),
    /// Take the pin away
    Unpin(DumpArgs),
    /// Delete a dump; without --yes only says what would go
    Delete {
        #[command(flatten)]
        dump: DumpArgs,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Even when it is the only one of its database
        #[arg(long)]
        even_the_last: bool,
    },
}

/// Which dump is meant.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Its id, as 'dump list' shows it, or latest
    #[arg(value_name = "ID|latest")]
    pub id: String,
    /// With latest, or with any id of the same run: of which database
    #[arg(long, value_name = "DATABASE", allow_hyphen_values = true)]
    pub database: Option<String>,
}

#[derive(Debug, Args)]
pub struct DumpCreateArgs {
    /// Only this database, or those that fit a pattern with * and ?; can be said several times
    #[arg(long, value_name = "DATABASE", allow_hyphen_values = true)]
    pub database: Vec<String>,
    /// Not this database, or those that fit a pattern
    #[arg(long, value_name = "DATABASE", allow_hyphen_values = true)]
    pub exclude: Vec<String>,
    /// custom (for pg_restore) or plain (SQL)
    #[arg(long, value_name = "FORMAT", value_parser = dump_format)]
    pub format: Option<DumpFormat>,
    /// Leave roles and tablespaces out
    #[arg(long)]
    pub no_globals: bool,
    /// A plain dump makes its database itself
    #[arg(long)]
    pub create: bool,
    /// Each dump as one object that age, zstd and psql or pg_restore bring back without this program
    #[arg(long)]
    pub as_file: bool,
    /// How many connections at once: for several databases, or for one that outweighs the others; 1 by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Store everything anew
    #[arg(long)]
    pub full: bool,
    /// A note that is kept with the dumps
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Pin them from the beginning
    #[arg(long)]
    pub pin: bool,
    /// Refuse unless something is mounted at PATH (and, with =SOURCE, just that)
    #[arg(long, value_name = "PATH[=SOURCE]")]
    pub expect_mount: Option<String>,
    /// More arguments for pg_dump
    #[arg(last = true, value_name = "PG_DUMP_ARGS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub struct DumpRestoreArgs {
    #[command(flatten)]
    pub dump: DumpArgs,
    /// The name that the restored database gets; its own by default
    #[arg(long = "as", value_name = "NEW", conflicts_with = "globals", allow_hyphen_values = true)]
    pub name: Option<String>,
    /// Replace the database that has this name, in one moment, and keep it under another name
    #[arg(long, conflicts_with_all = ["overwrite", "add", "globals"])]
    pub swap: bool,
    /// Replace the database that has this name, in one moment, and drop it. With --globals: change roles that are there
    #[arg(long, conflicts_with = "add")]
    pub overwrite: bool,
    /// Add tables or schemas to the database that has this name, all or none of them
    #[arg(long, conflicts_with = "globals")]
    pub add: bool,
    /// Only this schema, by its name as it is or in double quotes; can be said several times
    #[arg(long, value_name = "SCHEMA", conflicts_with = "globals", allow_hyphen_values = true)]
    pub schema: Vec<String>,
    /// Only this table, with its data, as NAME or SCHEMA.NAME, names with dots in double quotes; can be said several times.
    /// Its indexes are not restored
    #[arg(long, value_name = "TABLE", conflicts_with = "globals", allow_hyphen_values = true)]
    pub table: Vec<String>,
    /// SQL that is run in the restored database before anybody sees it; commands of psql are refused
    #[arg(long, value_name = "FILE.sql", conflicts_with_all = ["add", "globals"])]
    pub transform: Option<PathBuf>,
    /// Leave owners and privileges out
    #[arg(long, conflicts_with = "globals")]
    pub no_owner: bool,
    /// Keep what could be restored when statements fail
    #[arg(long, conflicts_with = "globals")]
    pub allow_errors: bool,
    /// The roles and tablespaces of that run, those that the server lacks
    #[arg(long)]
    pub globals: bool,
    /// How many connections at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
}
