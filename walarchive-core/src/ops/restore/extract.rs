//! Single files and relations of a backup.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::file::TargetFile;
use super::fill::fill;
use super::give::Tasks;
use super::survey::stored_bytes;
use crate::archive::{BackupId, Catalog, Facts, FileRecord, Line, OpenPacks, PackRecord, Visitor, scan};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::page::relation_file;
use crate::progress::Progress;

/// What to take out of a backup.
pub struct ExtractRequest {
    /// Where from.
    pub catalog: Catalog,
    /// The backup.
    pub id: BackupId,
    /// What: paths relative to the data directory, of files, of directories, or of relations as `pg_relation_filepath`
    /// gives them, which stand for all segments and forks.
    pub paths: Vec<PathBuf>,
    /// The directory below which they go, by their paths. Files that are there already are not touched: that is
    /// `UnsafeTarget`.
    pub target_dir: PathBuf,
    /// How many stretches of files are written at once.
    pub jobs: usize,
    /// Hears how it goes.
    pub progress: Arc<dyn Progress>,
}

/// What was taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// The files, by their paths in the backup.
    pub files: Vec<PathBuf>,
    /// Sum of their lengths.
    pub bytes: u64,
}

/// Takes files out of a backup, each proven by its checksum and durable. Reads only what they consist of. They are as they
/// were while the backup was made: relations in them may lack changes that only the WAL has.
pub async fn extract(request: ExtractRequest) -> Result<Extracted> {
    let ExtractRequest { catalog, id, paths, target_dir, jobs, progress } = request;
    let wanted = Wanted { found: vec![false; paths.len()], paths, ..Wanted::default() };
    let (manifest, wanted) = scan(&catalog.archive, &catalog.place, &id, wanted).await?;
    if let Some((missing, _)) = wanted.paths.iter().zip(&wanted.found).find(|(_, found)| !**found) {
        return Err(Error::new(Kind::Absent, format!("backup {id} has no {}", missing.display()))
            .hint("paths are relative to the data directory, as pg_relation_filepath() gives them"));
    }
    let packs = wanted.records.iter().flat_map(|record| record.extents.iter()).map(|extent| extent.pack);
    let packs = Arc::new(OpenPacks::open(&catalog, &manifest.packs, &packs.collect()).await?);
    let done = Extracted {
        files: wanted.records.iter().map(|record| record.path.clone()).collect(),
        bytes: wanted.records.iter().map(|record| record.size).sum(),
    };
    progress.begin("extracting", wanted.records.iter().map(stored_bytes).sum());
    let (dir, files) = (target_dir.clone(), done.files.clone());
    let aside = blocking(move || Aside::new(&dir, &files)).await?;
    let dir = aside.dir.clone();
    let give = |tasks| blocking(move || give(tasks, &dir, wanted.records));
    let written = fill(packs, jobs.max(1), progress.clone(), give).await;
    progress.end();
    written?;
    let files = done.files.clone();
    blocking(move || aside.publish(&files)).await?;
    Ok(done)
}

/// Where files are until all are whole: beside their places, under a name of its own. Dropped before, it leaves nothing.
struct Aside {
    target: PathBuf,
    dir: PathBuf,
}

impl Aside {
    fn new(target: &Path, files: &[PathBuf]) -> Result<Aside> {
        if let Some(there) =
            files.iter().map(|file| target.join(file)).find(|place| place.is_symlink() || place.exists())
        {
            return Err(is_there(&there));
        }
        files::make_dirs(target, 0o700)?;
        let number = getrandom::u32()
            .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))?;
        let dir = target.join(format!(".walarchive.{number:08x}"));
        files::make_dir(&dir, 0o700)?;
        Ok(Aside { target: target.to_owned(), dir })
    }

    fn publish(self, files: &[PathBuf]) -> Result<()> {
        files::sync_file_system(&self.dir)?;
        for file in files {
            let place = self.target.join(file);
            files::make_dirs(place.parent().unwrap_or(&self.target), 0o700)?;
            let moved = renameat_with(CWD, self.dir.join(file), CWD, &place, RenameFlags::NOREPLACE);
            moved.map_err(|error| match error {
                Errno::EXIST => is_there(&place),
                _ => Error::io(format!("cannot put {} in its place", place.display()), error.into()),
            })?;
        }
        files::sync_file_system(&self.target)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn is_there(place: &Path) -> Error {
    let message = format!("{} is there already; nothing was changed", place.display());
    Error::new(Kind::UnsafeTarget, message).on(place.display()).hint("choose another --target-dir")
}

#[derive(Default)]
struct Wanted {
    paths: Vec<PathBuf>,
    found: Vec<bool>,
    records: Vec<FileRecord>,
}

impl Visitor for Wanted {
    fn line(&mut self, _: &Facts, _: &[PackRecord], line: Line) -> Result<()> {
        let Line::File(record) = line else { return Ok(()) };
        let mut is_wanted = false;
        for (path, found) in self.paths.iter().zip(&mut self.found) {
            if stands_for(path, &record.path) {
                (*found, is_wanted) = (true, true);
            }
        }
        if is_wanted {
            self.records.push(record);
        }
        Ok(())
    }
}

/// Whether a path that was asked for means a file: itself, what is below it, or the relation that it belongs to.
fn stands_for(asked: &Path, file: &Path) -> bool {
    if file.starts_with(asked) {
        return true;
    }
    let relation = |path: &Path| {
        let text = path.to_str()?;
        let number = relation_file(text)?.filenode.to_string();
        Some((path.parent()?.to_owned(), number))
    };
    let is_whole = |(_, number): &(PathBuf, String)| asked.file_name().is_some_and(|name| *name == **number);
    relation(asked).filter(is_whole).is_some_and(|asked| relation(file) == Some(asked))
}

fn give(mut tasks: Tasks, dir: &Path, records: Vec<FileRecord>) -> Result<()> {
    for record in records {
        tasks.check()?;
        let path = dir.join(&record.path);
        let parent = path.parent().unwrap_or(dir);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| Error::io(format!("cannot make the directory {}", parent.display()), error))?;
        tasks.add(TargetFile::new(path, record, false))?;
    }
    tasks.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_stands_for_its_segments_and_forks() {
        let stands = |asked: &str, file: &str| stands_for(Path::new(asked), Path::new(file));
        for file in ["base/5/16384", "base/5/16384.1", "base/5/16384_fsm", "base/5/16384_vm.1"] {
            assert!(stands("base/5/16384", file), "{file}");
            assert!(stands("base/5", file), "{file}");
        }
        for file in ["base/5/163840", "base/6/16384", "base/5/1638", "base/51/16384"] {
            assert!(!stands("base/5/16384", file), "{file}");
        }
        assert!(stands("base/5/16384.1", "base/5/16384.1"));
        assert!(!stands("base/5/16384.1", "base/5/16384.2"), "a segment is a file");
        assert!(!stands("base/5/16384_fsm", "base/5/16384"));
        assert!(stands("PG_VERSION", "PG_VERSION") && !stands("PG_VERSION", "base/5/PG_VERSION"));
    }
}
