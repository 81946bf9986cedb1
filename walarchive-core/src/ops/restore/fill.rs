//! Files, filled by several workers at once and proven by their checksums.

use std::collections::BTreeMap;
use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::packs::{Framers, LastFrame, Packs};
use crate::archive::{Extent, FileRecord, PAGE};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// A worker takes so much of a large file at once, in pages.
pub(super) const STRETCH: u32 = (64 << 20) / PAGE as u32;

pub(super) fn mismatch(path: &Path) -> Error {
    Error::damaged(format!("the restored content of {} does not match its checksum", path.display()))
}

/// A stretch of a file to be written.
pub(super) struct Task {
    pub(super) file: Arc<OpenFile>,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// A file that several workers may be writing.
pub(super) struct OpenFile {
    record: FileRecord,
    file: File,
    path: PathBuf,
    /// CRC-32C of each stretch that is written, by its first page, and how many are missing.
    parts: Mutex<BTreeMap<u32, (u32, u64)>>,
    missing: AtomicU64,
}

impl OpenFile {
    pub(super) fn create(path: PathBuf, record: FileRecord) -> Result<OpenFile> {
        let failed = |error| Error::io(format!("cannot write {}", path.display()), error).on(path.display());
        let file =
            OpenOptions::new().write(true).create_new(true).mode(record.mode).open(&path).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(record.mode)).map_err(failed)?;
        file.set_len(record.size).map_err(failed)?;
        let stretches = u64::from(pages(&record)).div_ceil(u64::from(STRETCH)).max(1);
        Ok(OpenFile { record, file, path, parts: Mutex::default(), missing: AtomicU64::new(stretches) })
    }

    /// A stretch is written; the last one proves the whole.
    fn done(&self, from: u32, crc: u32, len: u64) -> Result<()> {
        let poisoned = |_| Error::bug("a worker died with a file");
        self.parts.lock().map_err(poisoned)?.insert(from, (crc, len));
        if self.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let parts = self.parts.lock().map_err(poisoned)?;
        let all = parts.values().fold(0, |all, (crc, len)| crc32c::crc32c_combine(all, *crc, *len as usize));
        if all != self.record.crc32c {
            return Err(mismatch(&self.record.path).on(self.path.display()));
        }
        let times = FileTimes::new().set_modified(SystemTime::from(self.record.mtime));
        self.file
            .set_times(times)
            .map_err(|error| Error::io(format!("cannot set the time of {}", self.path.display()), error))
    }
}

pub(super) fn pages(record: &FileRecord) -> u32 {
    u32::try_from(record.size.div_ceil(PAGE as u64)).unwrap_or(u32::MAX)
}

/// Fills files with what their packs hold.
pub(super) struct Worker {
    pub(super) packs: Arc<Packs>,
    pub(super) tasks: Arc<Mutex<Receiver<Task>>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) framers: Framers,
    pub(super) last: LastFrame,
    pub(super) written: u64,
}

impl Worker {
    pub(super) fn run(mut self) -> Result<u64> {
        loop {
            let task = match self.tasks.lock() {
                Ok(tasks) => tasks.recv(),
                Err(_) => return Err(Error::bug("a worker died")),
            };
            let Ok(task) = task else { return Ok(self.written) };
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.fill(&task) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    fn fill(&mut self, task: &Task) -> Result<()> {
        let record = &task.file.record;
        let (start, end) =
            (u64::from(task.from) * PAGE as u64, (u64::from(task.to) * PAGE as u64).min(record.size));
        let mut writing =
            Writing { file: &task.file, at: start, crc: 0, pending: Vec::new(), pending_at: start };
        for (extent, skipped) in record.extents.within(task.from, task.to) {
            let extent = Extent { first: extent.first + skipped, ..extent };
            self.packs.pages(&extent, &mut self.framers, &mut self.last, &mut |page, bytes| {
                writing.page(u64::from(page) * PAGE as u64, bytes)
            })?;
            let bytes = u64::from(extent.count) * PAGE as u64;
            self.progress.advance(bytes);
            self.written += bytes;
        }
        writing.zeros(end);
        writing.flush()?;
        task.file.done(task.from, writing.crc, end - start)
    }
}

/// A stretch of a file being written in order, with holes for zeros.
struct Writing<'a> {
    file: &'a OpenFile,
    at: u64,
    crc: u32,
    pending: Vec<u8>,
    pending_at: u64,
}

const WRITE: usize = 1 << 20;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Writing<'_> {
    fn page(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.zeros(at);
        let len = (self.file.record.size - at).min(bytes.len() as u64) as usize;
        let bytes = &bytes[..len];
        if self.pending_at + self.pending.len() as u64 != at || self.pending.len() + len > WRITE {
            self.flush()?;
            self.pending_at = at;
        }
        self.pending.extend_from_slice(bytes);
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at += len as u64;
        Ok(())
    }

    /// Counts zeros up to `to`; they are holes already.
    fn zeros(&mut self, to: u64) {
        while self.at < to {
            let len = (to - self.at).min(ZEROS.len() as u64);
            self.crc = crc32c::crc32c_append(self.crc, &ZEROS[..len as usize]);
            self.at += len;
        }
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.file.file.write_all_at(&self.pending, self.pending_at);
        written.map_err(|error| {
            Error::io(format!("cannot write {}", self.file.path.display()), error)
                .on(self.file.path.display())
        })?;
        self.pending.clear();
        Ok(())
    }
}
