//! A cluster that is there already is made the one of the backup: what must be proven before, and what has to go.

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::survey::Paths;
use crate::archive::{Facts, Tablespace};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::datadir::{
    RESTORE_MARKER, TABLESPACES, refuse_unless_empty, running_server, system_id_of,
};
use crate::wal::WalName;

const WAL_DIR: &str = "pg_wal";
/// WAL that was there before a restore is kept in a directory of this name and the backup's.
const ASIDE: &str = "before-";
/// So many of the files that were removed are told by name.
const TOLD: usize = 5;
const SMALL: u64 = 64 * 1024;

/// Proves that the directory is the cluster's, and that no server runs in it. Changes nothing.
pub(super) fn check(layout: &Layout, facts: &Facts, is_confirmed: bool) -> Result<()> {
    let target = &layout.target;
    let refused = |kind, what: String| Error::new(kind, what).on(target.display());
    if let Some(pid) = running_server(target)? {
        let what = format!("a server may be running in {}: process {pid}", target.display());
        return Err(refused(Kind::UnsafeTarget, what).hint("stop it first; nothing was changed"));
    }
    let told = |found: u64| {
        let (target, wanted) = (target.display(), &facts.system_id);
        format!("{target} belongs to the cluster with system identifier {found}, the backup to {wanted}")
    };
    match system_id_of(target).map(|known| known.or_else(|| marked_system_id(target))) {
        Ok(Some(known)) if known.to_string() == facts.system_id => {}
        Ok(Some(other)) => {
            return Err(refused(Kind::WrongCluster, told(other)).hint("nothing was changed there"));
        }
        _ if is_confirmed => {}
        Ok(None) => {
            let what = format!(
                "nothing proves that {} is this cluster's: it has no global/pg_control",
                target.display()
            );
            return Err(refused(Kind::UnsafeTarget, what).hint(CONFIRM));
        }
        Err(error) => return Err(error.hint(CONFIRM)),
    }
    let wal = target.join(WAL_DIR);
    if wal.is_symlink() && !wal.is_dir() {
        let what = format!("{} is a link to a directory that is not there", wal.display());
        return Err(
            refused(Kind::UnsafeTarget, what).hint("is that file system not mounted? Or remove the link")
        );
    }
    layout.tablespaces.iter().try_for_each(|tablespace| check_tablespace(layout, tablespace, is_confirmed))
}

/// A link proves little: a copy of the cluster has it, too, while the cluster goes on in the same place.
fn check_tablespace(layout: &Layout, tablespace: &Tablespace, is_confirmed: bool) -> Result<()> {
    let (target, place) = (&layout.target, &tablespace.location);
    let linked = fs::read_link(target.join(TABLESPACES).join(tablespace.oid.to_string())).ok();
    let is_linked = linked.as_ref() == Some(place);
    if (is_linked && is_confirmed) || is_marked(target, &layout.told(tablespace)) {
        return Ok(());
    }
    refuse_unless_empty(place).map_err(|error| match linked {
        Some(_) if is_linked => error.hint(
            "it would be rewritten as well; if no other cluster uses it, a copy of this one for example, say so with --yes",
        ),
        Some(other) => error.during(format!(
            "tablespace {}, which is at {} in {}",
            tablespace.oid,
            other.display(),
            target.display()
        )),
        None => error.during(format!("tablespace {}, which {} does not link to", tablespace.oid, target.display())),
    })
}

const CONFIRM: &str = "if it is, and all that does not belong to the backup may go, say so with --yes";

fn marker(target: &Path) -> Option<String> {
    let text = files::read(&target.join(RESTORE_MARKER), SMALL).ok()?;
    String::from_utf8(text).ok()
}

fn is_marked(target: &Path, line: &str) -> bool {
    marker(target).is_some_and(|text| text.lines().any(|marked| marked == line))
}

/// What an interrupted restore was restoring here.
fn marked_system_id(target: &Path) -> Option<u64> {
    let text = marker(target)?;
    text.lines().find_map(|line| line.strip_prefix("system identifier ")?.parse().ok())
}

/// Removes what the backup does not have. The WAL that is there may be the only copy of the last changes: it is put aside.
/// Gives what people should know.
pub(super) fn sweep(layout: &Layout, facts: &Facts, paths: &Paths) -> Result<Vec<String>> {
    let wal = layout.target.join(WAL_DIR);
    put_wal_aside(&wal, &facts.id)?;
    let mut sweep = Sweep { layout, paths, removed: Vec::new() };
    sweep.dir(Path::new(""))?;
    for tablespace in &layout.tablespaces {
        let version = format!("PG_{}_{}", facts.pg_major, facts.catalog_version);
        let own = Path::new(TABLESPACES).join(tablespace.oid.to_string()).join(version);
        if layout.place(&own).exists() {
            sweep.dir(&own)?;
        }
    }
    Ok(kept_wal(&wal)?.into_iter().chain(sweep.told()).collect())
}

/// What is kept of WAL that was there, by this restore or one that was interrupted.
fn kept_wal(dir: &Path) -> Result<Option<String>> {
    let mut kept: Vec<String> = files::list(dir)?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ASIDE)))
        .map(|path| path.display().to_string())
        .collect();
    kept.sort();
    let told = |kept: &[String]| {
        format!(
            "WAL that was there is kept in {}: the archive may lack the end of it ('walarchive wal push' stores single segments); remove it when the cluster is well",
            kept.join(", ")
        )
    };
    Ok((!kept.is_empty()).then(|| told(&kept)))
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot remove {}", path.display()), error).on(path.display())
}

fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    let list = fs::read_dir(dir).and_then(|list| list.collect());
    list.map_err(|error| Error::io(format!("cannot list {}", dir.display()), error))
}

fn remove(path: &Path) -> Result<()> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| failed(path, error))
}

struct Sweep<'a> {
    layout: &'a Layout,
    paths: &'a Paths,
    removed: Vec<PathBuf>,
}

impl Sweep<'_> {
    fn told(self) -> Option<String> {
        let first: Vec<_> = self.removed.iter().take(TOLD).map(|path| path.display().to_string()).collect();
        let more = if self.removed.len() > TOLD { " …" } else { "" };
        let count = self.removed.len();
        (count > 0)
            .then(|| format!("removed {count} that the backup does not have: {}{more}", first.join(", ")))
    }

    /// Removes what the backup does not have of the directory that is `dir` in the backup.
    fn dir(&mut self, dir: &Path) -> Result<()> {
        for entry in entries(&self.layout.place(dir))? {
            let path = dir.join(entry.file_name());
            if spared(&path) {
                continue;
            }
            let kind = entry.file_type().map_err(|error| failed(&entry.path(), error))?;
            match self.paths.get(&path) {
                Some(true) if kind.is_dir() => self.dir(&path)?,
                Some(false) if kind.is_file() => {}
                _ => {
                    remove(&entry.path())?;
                    self.removed.push(path);
                }
            }
        }
        Ok(())
    }
}

/// What stays although no backup has it.
fn spared(path: &Path) -> bool {
    path == Path::new(RESTORE_MARKER) || path == Path::new(WAL_DIR) || path == Path::new("lost+found")
}

/// Empties the directory of the WAL, and keeps the segments that were in it.
fn put_wal_aside(dir: &Path, backup: &str) -> Result<()> {
    if !dir.is_dir() {
        return if fs::symlink_metadata(dir).is_ok() { remove(dir) } else { Ok(()) };
    }
    let name = |entry: &DirEntry| entry.file_name().into_string().unwrap_or_default();
    let mut found = entries(dir)?;
    found.retain(|entry| !name(entry).starts_with(ASIDE));
    if !found.iter().any(|entry| name(entry).parse::<WalName>().is_ok()) {
        return found.iter().try_for_each(|entry| remove(&entry.path()));
    }
    let aside = new_dir(dir, backup)?;
    for entry in found {
        let (from, to) = (entry.path(), aside.join(entry.file_name()));
        fs::rename(&from, to).map_err(|error| {
            Error::io(format!("cannot move {} to {}", from.display(), aside.display()), error)
        })?;
    }
    files::sync_dir(dir)
}

fn new_dir(dir: &Path, backup: &str) -> Result<PathBuf> {
    for n in 1.. {
        let suffix = if n == 1 { String::new() } else { format!(".{n}") };
        let aside = dir.join(format!("{ASIDE}{backup}{suffix}"));
        match fs::create_dir(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(Error::io(format!("cannot make the directory {}", aside.display()), error));
            }
        }
    }
    Err(Error::bug("there is no end of numbers"))
}
