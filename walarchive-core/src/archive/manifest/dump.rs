//! The first line of a dump's manifest (FORMAT.md §9).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::facts::{FirstLine, Named};
use super::line::Line;
use crate::archive::{BackupId, Place};
use crate::error::{Error, Result};

/// What a dump is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpContent {
    /// One database.
    Database,
    /// Roles and tablespaces, which are no database's.
    Globals,
}

/// In which of pg_dump's formats a dump is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpFormat {
    /// For `pg_restore`.
    Custom,
    /// SQL, for `psql`.
    Plain,
    /// For `pg_restore`, a file for each table: what several connections dump at once.
    Directory,
}

impl DumpFormat {
    /// The name in settings and results.
    pub fn name(self) -> &'static str {
        match self {
            DumpFormat::Custom => "custom",
            DumpFormat::Plain => "plain",
            DumpFormat::Directory => "directory",
        }
    }
}

impl fmt::Display for DumpFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DumpFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "custom" => Ok(DumpFormat::Custom),
            "plain" => Ok(DumpFormat::Plain),
            _ => Err(Error::usage(format!("{text:?} is not a format of dumps")).hint("use custom or plain")),
        }
    }
}

/// The first line of a dump's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpFacts {
    /// Version of the manifest, 1.
    pub format: u32,
    /// What is described: `dump`.
    #[serde(rename = "type")]
    pub kind_of: String,
    /// The dump.
    pub id: String,
    /// The run that made it, which may have made others.
    pub run: String,
    /// One more than the dump of the same content before it, as far as its host knew: the order that no clock disturbs.
    pub number: u64,
    /// The user's name for the cluster.
    pub cluster: String,
    /// The server's system identifier, decimal, where the role that dumped may ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// The database, or `globals`.
    pub database: String,
    /// Which of both.
    pub content: DumpContent,
    /// In which of pg_dump's formats.
    pub dump_format: DumpFormat,
    /// Whether a plain dump makes its database itself.
    pub with_create: bool,
    /// Whether it is one pack, in the order of its content.
    pub as_file: bool,
    /// Major version of the server.
    pub pg_major: u32,
    /// Its full version.
    pub server_version: String,
    /// What made the dump, as it says itself.
    pub dump_version: String,
    /// When it began, by the clock of the machine that made it.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The day that its run began on, where it was made.
    pub date: Date,
    /// Bytes that pg_dump wrote.
    pub data_bytes: u64,
    /// Stored bytes of the packs that this dump wrote.
    pub stored_bytes: u64,
    /// What the dump itself does not say of its database: encoding, locale, owner, settings, who may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<serde_json::Value>,
    /// More arguments that pg_dump was given: they may have left something out, see [`is_partial`](DumpFacts::is_partial).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// What pg_dump warned of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Program and version.
    pub created_by: String,
}

/// Options that leave something out which a restore would miss. pg_dump takes any beginning of theirs, too.
const PARTIAL: [&str; 24] = [
    "--data-only",
    "--schema-only",
    "--statistics-only",
    "--section",
    "--no-data",
    "--no-schema",
    "--no-blobs",
    "--no-large-objects",
    "--schema",
    "--table",
    "--table-and-children",
    "--extension",
    "--filter",
    "--exclude-schema",
    "--exclude-table",
    "--exclude-table-and-children",
    "--exclude-table-data",
    "--exclude-table-data-and-children",
    "--exclude-extension",
    "--no-unlogged-table-data",
    "--enable-row-security",
    "--no-publications",
    "--no-subscriptions",
    "--no-policies",
];
const PARTIAL_SHORT: &str = "asnNtTeB";
/// The rest of a word behind one of these is its value.
const WITH_VALUE: &str = "ESUZdfhjpF";
const PARTIAL_GLOBALS: [&str; 2] = ["--roles-only", "--tablespaces-only"];
const PARTIAL_GLOBALS_SHORT: &str = "rt";

impl DumpFacts {
    /// Whether its arguments have left something out: it does not bring all of its database back.
    pub fn is_partial(&self) -> bool {
        let (long, short): (&[&str], &str) = match self.content {
            DumpContent::Database => (&PARTIAL, PARTIAL_SHORT),
            DumpContent::Globals => (&PARTIAL_GLOBALS, PARTIAL_GLOBALS_SHORT),
        };
        self.arguments.iter().any(|argument| leaves_out(argument, long, short))
    }
}

fn leaves_out(argument: &str, long: &[&str], short: &str) -> bool {
    if let Some(name) = argument.strip_prefix("--") {
        let name = name.split('=').next().unwrap_or_default();
        let begins = |option: &&str| option.get(2..).is_some_and(|option| option.starts_with(name));
        return !name.is_empty() && long.iter().any(begins);
    }
    let letters = argument.strip_prefix('-').unwrap_or_default();
    letters.chars().take_while(|c| !WITH_VALUE.contains(*c)).any(|c| short.contains(c))
}

impl FirstLine for DumpFacts {
    fn has(line: &Line) -> bool {
        matches!(line, Line::Pack(_) | Line::Stream(_) | Line::Bytes(_))
    }

    fn check(&self, key: &str, id: &BackupId, place: &Place) -> Result<()> {
        let DumpFacts { format, kind_of, id: own, .. } = self.clone();
        Named { format, kind_of, id: own }.check(key, id, place)?;
        match self.cluster == place.cluster.to_string() {
            true => Ok(()),
            false => {
                Err(Error::damaged("the manifest describes a dump of another cluster than its key says")
                    .on(key))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_leave_something_out_are_known() {
        let of_database = |argument| leaves_out(argument, &PARTIAL, PARTIAL_SHORT);
        for argument in [
            "--schema-only",
            "--schema-o",
            "-s",
            "-Os",
            "-tfoo",
            "-T",
            "--exclude-table-data=x",
            "--section=data",
        ] {
            assert!(of_database(argument), "{argument}");
        }
        for argument in [
            "--no-owner",
            "--inserts",
            "-xO",
            "-EUTF8",
            "-E",
            "latin1",
            "--",
            "-",
            "--lock-wait-timeout=5",
            "--no-sync",
        ] {
            assert!(!of_database(argument), "{argument}");
        }
        let of_globals = |argument| leaves_out(argument, &PARTIAL_GLOBALS, PARTIAL_GLOBALS_SHORT);
        assert!(of_globals("-r") && of_globals("--tablespaces-only") && !of_globals("--no-role-passwords"));
    }
}
