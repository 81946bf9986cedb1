//! Which files consist of data pages.

/// Where relations are that nobody placed elsewhere: `base`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// Where relations are that all databases share: `global`.
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// One of the files that together store a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map; not exact, and rebuilt by the server as it goes.
    Fsm,
    /// The visibility map.
    Vm,
    /// The empty state to which an unlogged relation returns after a crash.
    Init,
}

/// What the path of a relation's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelationFile {
    /// The tablespace; PostgreSQL's own are [`DEFAULT_TABLESPACE`] and [`GLOBAL_TABLESPACE`].
    pub tablespace_oid: u32,
    /// The database; 0 for relations that all databases share.
    pub database_oid: u32,
    /// The relation's file number.
    pub filenode: u32,
    /// The fork.
    pub fork: Fork,
    /// The number of the file in the fork; the first is 0 and has no suffix.
    pub segment: u32,
}

impl RelationFile {
    /// The number within the relation of the page at index `page` of this file, for files of
    /// `pages_per_file` pages; `None` beyond what PostgreSQL can number.
    #[must_use]
    pub fn block_no(&self, page: u32, pages_per_file: u32) -> Option<u32> {
        self.segment.checked_mul(pages_per_file)?.checked_add(page)
    }
}

/// Recognises a relation's file by its path in the data directory, with `/` between the parts.
///
/// Known are `base/<database>/<file>`, `global/<file>` and `pg_tblspc/<oid>/PG_<version>/<database>/<file>`,
/// with `<file>` as `<number>[_fsm|_vm|_init][.<segment>]`. Files of temporary relations are not recognised.
#[must_use]
pub fn relation_file(path: &str) -> Option<RelationFile> {
    let parts: Vec<&str> = path.split('/').collect();
    let (tablespace_oid, database_oid, file) = match parts[..] {
        ["base", database, file] => (DEFAULT_TABLESPACE, oid(database)?, file),
        ["global", file] => (GLOBAL_TABLESPACE, 0, file),
        ["pg_tblspc", tablespace, version, database, file] => {
            version.strip_prefix("PG_").filter(|rest| !rest.is_empty())?;
            (oid(tablespace)?, oid(database)?, file)
        }
        _ => return None,
    };
    let (name, segment) = match file.split_once('.') {
        Some((name, segment)) => (name, oid(segment)?),
        None => (file, 0),
    };
    let (number, fork) = match name.split_once('_') {
        None => (name, Fork::Main),
        Some((number, "fsm")) => (number, Fork::Fsm),
        Some((number, "vm")) => (number, Fork::Vm),
        Some((number, "init")) => (number, Fork::Init),
        Some(_) => return None,
    };
    Some(RelationFile { tablespace_oid, database_oid, filenode: oid(number)?, fork, segment })
}

/// A positive number as PostgreSQL writes it: digits, the first of which is not zero.
fn oid(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(database_oid: u32, filenode: u32, fork: Fork, segment: u32) -> Option<RelationFile> {
        let tablespace_oid = if database_oid == 0 { GLOBAL_TABLESPACE } else { DEFAULT_TABLESPACE };
        Some(RelationFile { tablespace_oid, database_oid, filenode, fork, segment })
    }

    #[test]
    fn relations_are_recognised() {
        assert_eq!(relation_file("base/5/1259"), file(5, 1259, Fork::Main, 0));
        assert_eq!(relation_file("base/5/16384.12"), file(5, 16384, Fork::Main, 12));
        assert_eq!(relation_file("base/5/16384_fsm"), file(5, 16384, Fork::Fsm, 0));
        assert_eq!(relation_file("base/5/16384_vm.1"), file(5, 16384, Fork::Vm, 1));
        assert_eq!(relation_file("base/5/16384_init"), file(5, 16384, Fork::Init, 0));
        assert_eq!(relation_file("global/1262"), file(0, 1262, Fork::Main, 0));
        let elsewhere =
            file(5, 16391, Fork::Main, 2).map(|file| RelationFile { tablespace_oid: 16390, ..file });
        assert_eq!(relation_file("pg_tblspc/16390/PG_15_202209061/5/16391.2"), elsewhere);
    }

    #[test]
    fn other_files_are_not() {
        for path in [
            "",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/pg_internal.init",
            "base/5/t3_16384",
            "base/5/16384_xyz",
            "base/5/16384.",
            "base/5/16384.0",
            "base/5/016384",
            "base/5/4294967296",
            "base/5/16384.1.2",
            "base/5/_fsm",
            "base/5",
            "base/pgsql_tmp/5",
            "global/pg_control",
            "global/5/1262",
            "pg_tblspc/16390/5/16391",
            "pg_tblspc/16390/PG_/5/16391",
            "/base/5/1259",
            "./base/5/1259",
            "pg_xact/0000",
            "pg_wal/000000010000000000000001",
        ] {
            assert_eq!(relation_file(path), None, "{path}");
        }
    }

    #[test]
    fn pages_are_numbered_through_all_files() {
        let file = relation_file("base/5/16384.3").unwrap();
        assert_eq!(file.block_no(5, 131_072), Some(3 * 131_072 + 5));
        assert_eq!(relation_file("base/5/16384.40000").unwrap().block_no(0, 131_072), None);
    }

    proptest! {
        #[test]
        fn any_path_is_recognised_or_not(path in "(base|global|pg_tblspc)?/?[0-9/._a-z]{0,20}") {
            let _ = relation_file(&path);
        }
    }
}
