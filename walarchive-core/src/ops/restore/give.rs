//! From the lines of a manifest to directories, and tasks for the workers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use super::choice::Choice;
use super::file::{TargetFile, pages};
use super::fill::Task;
use super::layout::Layout;
use super::pg_manifest::PgManifest;
use super::region::Piece;
use crate::archive::{Facts, FileRecord, Line, PAGE, PackRecord, Visitor};
use crate::error::{Error, Result};
use crate::files;
use crate::postgres::datadir::CONTROL_FILE;

/// A worker is given so many pages at once.
const STRETCH: u32 = (32 << 20) / PAGE as u32;
const TABLESPACE_MAP: &str = "tablespace_map";

/// Collects pieces of files until they are worth a worker's while.
pub(super) struct Tasks {
    sender: SyncSender<Task>,
    stop: Arc<AtomicBool>,
    task: Task,
    pages: u32,
}

impl Tasks {
    pub(super) fn new(sender: SyncSender<Task>, stop: Arc<AtomicBool>) -> Tasks {
        Tasks { sender, stop, task: Vec::new(), pages: 0 }
    }

    /// Fails when a worker has failed.
    pub(super) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::bug("a worker failed")) } else { Ok(()) }
    }

    /// Gives a file to the workers: a long one in stretches, unless it is to be compared with one that is there.
    pub(super) fn add(&mut self, file: TargetFile) -> Result<()> {
        let (file, mut from) = (Arc::new(file), 0);
        // Holes take no time.
        let end = if file.record.extents.is_empty() { 0 } else { pages(&file.record) };
        loop {
            let to = if file.is_over { end } else { end.min(from + (STRETCH - self.pages)) };
            self.task.push(Piece { file: file.clone(), from, to });
            // A file of no pages costs something, too.
            self.pages = self.pages.saturating_add((to - from).max(1));
            if self.pages >= STRETCH {
                self.send()?;
            }
            from = to;
            if from >= end {
                return Ok(());
            }
        }
    }

    fn send(&mut self) -> Result<()> {
        self.pages = 0;
        let task = std::mem::take(&mut self.task);
        self.sender.send(task).map_err(|_| Error::bug("the workers are gone"))
    }

    /// No more files come: the workers end when they have done what they were given.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.task.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Reads the manifest again, makes directories, and gives the files to the workers.
pub(super) struct Giver {
    pub(super) layout: Layout,
    pub(super) choice: Choice,
    pub(super) pg_manifest: Option<PgManifest>,
    pub(super) tasks: Tasks,
}

impl Visitor for Giver {
    fn line(&mut self, facts: &Facts, _: &[PackRecord], line: Line) -> Result<()> {
        self.tasks.check()?;
        match line {
            Line::Pack(_) | Line::Stream(_) | Line::Bytes(_) => Ok(()),
            Line::Dir(path, mode) => files::make_dir(&self.layout.place(&path), mode),
            Line::File(record) => self.file(facts, self.choice.apply(record)),
        }
    }
}

impl Giver {
    fn file(&mut self, facts: &Facts, record: FileRecord) -> Result<()> {
        let map = self.moved_map(&record.path);
        let (size, crc) = match &map {
            Some(map) => (map.len() as u64, crc32c::crc32c(map)),
            None => (record.size, record.crc32c),
        };
        self.pg_manifest(facts)?.file(&record.path, size, record.mtime, crc)?;
        let path = self.layout.place(&record.path);
        match map {
            // It is written last of all.
            _ if record.path == Path::new(CONTROL_FILE) => Ok(()),
            Some(map) => files::write(&path, record.mode, &map),
            None => self.tasks.add(TargetFile::new(path, record, self.layout.is_over)),
        }
    }

    /// The tablespaces as they are now, if this is the file that says where they were.
    fn moved_map(&self, path: &Path) -> Option<Vec<u8>> {
        (path == Path::new(TABLESPACE_MAP) && self.layout.moved).then(|| self.layout.tablespace_map())
    }

    fn pg_manifest(&mut self, facts: &Facts) -> Result<&mut PgManifest> {
        if self.pg_manifest.is_none() {
            let path: PathBuf = self.layout.target.join("backup_manifest");
            self.pg_manifest = Some(PgManifest::create(&path, 0o600, facts)?);
        }
        self.pg_manifest.as_mut().ok_or_else(|| Error::bug("a manifest was begun and is not there"))
    }

    /// No more files come.
    pub(super) fn finish(self, facts: &Facts) -> Result<()> {
        let Giver { pg_manifest, tasks, .. } = self;
        tasks.finish()?;
        let manifest = pg_manifest.ok_or_else(|| Error::damaged("the backup has no files"))?;
        manifest.finish(facts)
    }
}
