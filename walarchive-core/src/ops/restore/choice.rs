//! Which databases a restore brings back with their content.

use std::collections::BTreeSet;
use std::path::Path;

use super::file::crc_of_zeros;
use crate::archive::{Database, Extents, Facts, FileRecord};
use crate::error::{Error, Kind, Result};

/// Databases with smaller numbers come with every cluster.
const FIRST_USER_OID: u32 = 16_384;
/// Without them nobody could connect, or make a database. They may have been made anew.
const ALWAYS: [&str; 3] = ["postgres", "template0", "template1"];
/// Tells PostgreSQL that a database is there.
const VERSION_FILE: &str = "PG_VERSION";

/// Which databases come back. The files of the others are there in their length, as holes, so that WAL can be replayed
/// over them; they can only be dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// The databases that come back; `None`: all.
    wanted: Option<BTreeSet<u32>>,
    /// Those that do not, by name.
    pub(super) left_out: Vec<String>,
}

impl Choice {
    /// Chooses databases by their names, or by their numbers where the backup does not list its databases.
    pub(super) fn new(facts: &Facts, names: &[String]) -> Result<Choice> {
        if names.is_empty() {
            return Ok(Choice::default());
        }
        let asked = names.iter().map(|name| oid_of(facts, name)).collect::<Result<BTreeSet<u32>>>()?;
        let comes = |database: &&Database| {
            let is_everywhere = database.oid < FIRST_USER_OID || ALWAYS.contains(&database.name.as_str());
            is_everywhere || asked.contains(&database.oid)
        };
        let (coming, left_out): (Vec<_>, Vec<_>) = facts.databases.iter().partition(comes);
        let wanted = asked.iter().copied().chain(coming.iter().map(|database| database.oid)).collect();
        let left_out = left_out.iter().map(|database| database.name.clone()).collect();
        Ok(Choice { wanted: Some(wanted), left_out })
    }

    /// The file as it is to be restored.
    pub(super) fn apply(&self, record: FileRecord) -> FileRecord {
        if self.comes(&record.path) {
            return record;
        }
        let crc32c = crc_of_zeros(record.size);
        FileRecord { extents: Extents::default(), damaged: Vec::new(), crc32c, ..record }
    }

    fn comes(&self, path: &Path) -> bool {
        let Some(wanted) = &self.wanted else { return true };
        path.file_name().is_some_and(|name| name == VERSION_FILE)
            || database_of(path).is_none_or(|oid| oid < FIRST_USER_OID || wanted.contains(&oid))
    }
}

fn oid_of(facts: &Facts, name: &str) -> Result<u32> {
    if let Some(database) = facts.databases.iter().find(|database| database.name == name) {
        return Ok(database.oid);
    }
    if facts.databases.is_empty() {
        return name.parse().map_err(|_| {
            Error::usage(format!(
                "backup {} was made by a version that did not note the names of databases",
                facts.id
            ))
            .hint("say the database's number instead: the name of its directory below base")
        });
    }
    let known: Vec<_> = facts.databases.iter().map(|database| database.name.as_str()).collect();
    Err(Error::new(Kind::Absent, format!("backup {} has no database {name:?}", facts.id))
        .hint(format!("its databases are: {}", known.join(", "))))
}

/// The database that a file belongs to: `base/<oid>/…` or `pg_tblspc/<oid>/PG_…/<oid>/…`.
fn database_of(path: &Path) -> Option<u32> {
    let mut parts = path.components().map(|part| part.as_os_str().to_str());
    let oid = match parts.next()?? {
        "base" => parts.next()??,
        "pg_tblspc" => parts.nth(2)??,
        _ => return None,
    };
    parts.next()?;
    oid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_know_their_database() {
        let of = |path: &str| database_of(Path::new(path));
        assert_eq!(of("base/16384/2619_fsm"), Some(16_384));
        assert_eq!(of("pg_tblspc/16500/PG_15_202209061/5/16501"), Some(5));
        for path in ["global/1262", "base/16384", "pg_tblspc/16500/PG_15_202209061", "PG_VERSION", "base/x/1"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
