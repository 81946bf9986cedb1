//! A data directory: what a base backup takes of it, and what it leaves out, exactly as PostgreSQL's own does.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::control::ControlFile;
use super::page::{Fork, relation_file};
use crate::error::{Error, Kind, Result};
use crate::files;

/// Where pg_control lies in a data directory.
pub const CONTROL_FILE: &str = "global/pg_control";
/// The server notes its start twice: in its file at once, for SQL when its memory is set up, in seconds.
const START_SLACK: u64 = 60;
const CONTROL_MAX: u64 = 64 * 1024;
/// Contents that are not copied; the directories are.
const EMPTY_DIRS: [&str; 8] = [
    "pg_wal",
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];
/// Files of the data directory itself that are not copied.
const TOP_FILES: [&str; 10] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "recovery.signal",
    "standby.signal",
    RESTORE_MARKER,
];
/// Stands in a data directory that a restore has not completed.
pub const RESTORE_MARKER: &str = "walarchive.restoring";
/// Names beginning so are not copied, wherever they are.
const PREFIXES: [&str; 2] = ["pg_internal.init", "pgsql_tmp"];
const ESSENTIAL: [&str; 8] =
    ["base", "global", "pg_commit_ts", "pg_logical", "pg_multixact", "pg_stat", "pg_twophase", "pg_xact"];
/// Where the links to tablespaces are.
pub const TABLESPACES: &str = "pg_tblspc";

/// Reads pg_control, again and again while the server is in the middle of writing it.
pub fn read_control(data_dir: &Path) -> Result<(ControlFile, Vec<u8>)> {
    let path = data_dir.join(CONTROL_FILE);
    let mut tries = 0;
    loop {
        let bytes = files::read(&path, CONTROL_MAX)?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) if tries >= 50 => return Err(error.on(path.display())),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        tries += 1;
    }
}

/// The system identifier of the cluster whose data directory this is; `None` if it is none (no pg_control).
pub fn system_id_of(data_dir: &Path) -> Result<Option<u64>> {
    match data_dir.join(CONTROL_FILE).try_exists() {
        Ok(true) => read_control(data_dir).map(|(control, _)| Some(control.system_id)),
        Ok(false) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
        Err(error) => {
            Err(Error::io(format!("cannot look at {}", data_dir.join(CONTROL_FILE).display()), error))
        }
    }
}

/// Whether the server that was started at that time (Unix seconds) runs in this data directory: copies of a cluster have
/// its system identifier too.
pub fn runs_server_started_at(data_dir: &Path, started: i64) -> bool {
    let Ok(text) = files::read(&data_dir.join("postmaster.pid"), CONTROL_MAX) else { return false };
    let text = String::from_utf8_lossy(&text).into_owned();
    let noted = text.lines().nth(2).and_then(|line| line.trim().parse::<i64>().ok());
    noted.is_some_and(|noted| noted.abs_diff(started) <= START_SLACK)
}

/// A process of a server that may be running in a data directory: the one that its `postmaster.pid` names, if there is such a
/// process, or one called `postgres` that works there. Backends outlive a postmaster that was killed.
pub fn running_server(data_dir: &Path) -> Result<Option<i32>> {
    let noted = noted_server(data_dir)?;
    Ok(noted.filter(|pid| is_alive(*pid)).or_else(|| working_in(data_dir)))
}

fn noted_server(data_dir: &Path) -> Result<Option<i32>> {
    let path = data_dir.join("postmaster.pid");
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read(&path, CONTROL_MAX)?;
    let first =
        String::from_utf8_lossy(&text).lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    // A server that runs for a single user notes its number below zero.
    Ok(first.and_then(i32::checked_abs))
}

fn is_alive(pid: i32) -> bool {
    let test = rustix::process::Pid::from_raw(pid).map(rustix::process::test_kill_process);
    test.is_some_and(|test| test != Err(rustix::io::Errno::SRCH))
}

fn working_in(data_dir: &Path) -> Option<i32> {
    let place = fs::canonicalize(data_dir).ok()?;
    servers_where(|cwd| cwd == place).next()
}

/// Processes called `postgres` that work in a directory, or below it.
pub fn servers_below(dir: &Path) -> Vec<i32> {
    fs::canonicalize(dir).map(|dir| servers_where(|cwd| cwd.starts_with(&dir)).collect()).unwrap_or_default()
}

/// What of other users' processes cannot be seen is passed over.
fn servers_where(works_there: impl Fn(&Path) -> bool) -> impl Iterator<Item = i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter_map(move |process| {
        let pid: i32 = process.file_name()?.to_str()?.parse().ok()?;
        let is_postgres = fs::read(process.join("comm")).is_ok_and(|name| name.starts_with(b"postgres"));
        let works = is_postgres && fs::read_link(process.join("cwd")).is_ok_and(|cwd| works_there(&cwd));
        works.then_some(pid)
    })
}

/// A directory or file to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Path relative to the data directory.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Length when it was looked at; 0 for directories.
    pub size: u64,
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceLink {
    /// The name of its link in pg_tblspc.
    pub oid: u32,
    /// Where the link points to.
    pub location: PathBuf,
}

/// What is to be copied of a data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Directories, parents first.
    pub dirs: Vec<Item>,
    /// Files, without pg_control.
    pub files: Vec<Item>,
    /// Tablespaces.
    pub tablespaces: Vec<TablespaceLink>,
    /// Links to directories, which are not followed.
    pub skipped: Vec<PathBuf>,
}

/// Lists what a base backup of `data_dir` takes. `version_dir` is the name of the server's own directory in
/// tablespaces, `PG_<major>_<catalog version>`: other servers may use the same tablespaces. What vanishes meanwhile is
/// passed over; what cannot be read is an error that names it.
pub fn contents(data_dir: &Path, version_dir: &str) -> Result<Contents> {
    let mut contents = Contents::default();
    walk(data_dir, Path::new(""), version_dir, &mut contents)?;
    contents.dirs.sort_by(|a, b| a.path.cmp(&b.path));
    contents.files.sort_by(|a, b| a.path.cmp(&b.path));
    contents.tablespaces.sort_by_key(|link| link.oid);
    Ok(contents)
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot read {}", path.display()), error)
        .on(path.display())
        .hint("a backup must hold every file; run it as the user that PostgreSQL runs as")
}

fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_read(path, error)),
    }
}

fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot_read(dir, error)),
    };
    list.collect::<Result<_, _>>().map_err(|error| cannot_read(dir, error))
}

fn walk(root: &Path, dir: &Path, version_dir: &str, contents: &mut Contents) -> Result<()> {
    let list = entries(&root.join(dir))?;
    let unlogged = unlogged_relations(dir, &list);
    for entry in list {
        let path = dir.join(entry.file_name());
        if left_out(&path, &unlogged) {
            continue;
        }
        let kind = entry.file_type().map_err(|error| cannot_read(&root.join(&path), error))?;
        if kind.is_symlink() && dir == Path::new(TABLESPACES) {
            tablespace(root, &path, version_dir, contents)?;
            continue;
        }
        let Some(facts) = look(&root.join(&path))? else { continue };
        // PostgreSQL's own backup follows no other links, but for pg_wal and the like. A link to a file, such as a
        // postgresql.conf that lies in /etc, is worth its content; one to a directory could lead anywhere.
        if kind.is_symlink() && facts.is_dir() && !stays_empty(&path) && !is_essential(&path) {
            contents.skipped.push(path);
            continue;
        }
        if facts.is_dir() {
            directory(root, path, &facts, version_dir, contents)?;
        } else if facts.is_file() && path != Path::new(CONTROL_FILE) {
            contents.files.push(Item { path, mode: facts.mode() & 0o777, size: facts.len() });
        }
    }
    Ok(())
}

fn directory(
    root: &Path,
    path: PathBuf,
    facts: &Metadata,
    version_dir: &str,
    contents: &mut Contents,
) -> Result<()> {
    let mode = facts.mode() & 0o777;
    contents.dirs.push(Item { path: path.clone(), mode, size: 0 });
    if !stays_empty(&path) {
        return walk(root, &path, version_dir, contents);
    }
    if path == Path::new("pg_wal") {
        for name in ["archive_status", "summaries"] {
            if look(&root.join(&path).join(name))?.is_some() {
                contents.dirs.push(Item { path: path.join(name), mode, size: 0 });
            }
        }
    }
    Ok(())
}

/// Directories without which no cluster starts are copied even where somebody put a link in their place.
fn is_essential(path: &Path) -> bool {
    let first = path.components().next().map(|part| part.as_os_str());
    let below = path.components().count();
    below <= 2 && first.is_some_and(|first| ESSENTIAL.iter().any(|name| first == *name))
}

fn stays_empty(path: &Path) -> bool {
    EMPTY_DIRS.iter().any(|name| path == Path::new(name))
}

fn tablespace(root: &Path, path: &Path, version_dir: &str, contents: &mut Contents) -> Result<()> {
    let location = match fs::read_link(root.join(path)) {
        Ok(location) => location,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_read(&root.join(path), error)),
    };
    let oid = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
    let Some(oid) = oid else { return Ok(()) };
    contents.tablespaces.push(TablespaceLink { oid, location });
    let own = path.join(version_dir);
    if let Some(facts) = look(&root.join(&own))? {
        directory(root, own, &facts, version_dir, contents)?;
    }
    Ok(())
}

/// The files of relations that have an `_init` fork: unlogged, so that only that fork is worth keeping.
fn unlogged_relations(dir: &Path, list: &[DirEntry]) -> BTreeSet<u32> {
    let file = |entry: &DirEntry| relation_file(dir.join(entry.file_name()).to_str()?);
    let forks = list.iter().filter_map(file);
    forks.filter(|file| file.fork == Fork::Init).map(|file| file.filenode).collect()
}

fn left_out(path: &Path, unlogged: &BTreeSet<u32>) -> bool {
    let name = path.file_name().unwrap_or_default();
    let top = path.parent() == Some(Path::new(""));
    if PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes())) || name == ".DS_Store" {
        return true;
    }
    if top && TOP_FILES.iter().any(|file| name == *file) {
        return true;
    }
    let Some(text) = path.to_str() else { return false };
    match relation_file(text) {
        Some(file) => file.fork != Fork::Init && unlogged.contains(&file.filenode),
        None => is_temporary_relation(text),
    }
}

/// Files of temporary relations: `t<backend>_<filenode>…` where relations of a database are.
fn is_temporary_relation(path: &str) -> bool {
    let Some((dir, name)) = path.rsplit_once('/') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some((backend, file)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let number: String = file.chars().take_while(char::is_ascii_digit).collect();
    digits(backend) && relation_file(&format!("{dir}/{file}")).is_some() && digits(&number)
}

/// Why a directory cannot be restored to.
pub fn refuse_unless_empty(dir: &Path) -> Result<()> {
    let unsafe_target = |what: String| {
        Error::new(Kind::UnsafeTarget, what)
            .on(dir.display())
            .hint("nothing was changed there; choose an empty or new directory")
    };
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at {}", dir.display()), error)),
        Ok(_) if !dir.is_dir() => return Err(unsafe_target(format!("{} is not a directory", dir.display()))),
        Ok(_) => {}
    }
    let first = fs::read_dir(dir)
        .and_then(|mut list| list.next().transpose())
        .map_err(|error| Error::io(format!("cannot look into {}", dir.display()), error))?;
    match first {
        None => Ok(()),
        Some(entry) => Err(unsafe_target(format!(
            "{} is not empty: it holds {}",
            dir.display(),
            entry.file_name().display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_leaves_out_is_left_out() {
        let unlogged = BTreeSet::from([16_390]);
        let out = |path: &str| left_out(Path::new(path), &unlogged);
        for path in [
            "postmaster.pid",
            "backup_label",
            "base/pgsql_tmp",
            "base/5/pg_internal.init",
            "global/pg_internal.init.17",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm",
            "base/5/t12_16384.1",
            "base/5/16390",
            "base/5/16390_vm",
            "base/5/16390.2",
            "pg_tblspc/16400/PG_15_202209061/5/t3_16384",
            ".DS_Store",
            "current_logfiles.tmp",
        ] {
            assert!(out(path), "{path}");
        }
        for path in [
            "base/5/16390_init",
            "base/5/16391",
            "postgresql.conf",
            "current_logfiles",
            "base/5/tbl_1",
            "base/5/t_1",
            "sub/postmaster.pid",
            "pg_xact/0000",
            "global/1262",
            "base/5/t3_x",
        ] {
            assert!(!out(path), "{path}");
        }
    }
}
