//! Files of a live data directory, into packs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use jiff::Timestamp;

use super::base::{Base, BaseFile, EARLIER};
use super::state::{Remembered, Spool, Sums};
use super::stretch::Stretch;
use crate::archive::{Extents, FRAME_PAGES, FileRecord, PAGE, PackRecord, PackSink, PackWriter, is_zero};
use crate::crossing::blocking;
use crate::error::{Error, Result};
use crate::postgres::changes::Changes;
use crate::postgres::datadir::{CONTROL_FILE, Item};
use crate::postgres::session::Stopped;
use crate::progress::Progress;
use crate::wal::Lsn;

/// A worker takes so much of a large file at once.
const STRETCH: u64 = 64 << 20;
pub(super) const READ: usize = 512 * 1024;
const DAMAGED_LISTED: usize = 10_000;

/// How files are copied.
#[derive(Clone)]
pub(super) struct Copy {
    pub(super) sink: PackSink,
    pub(super) data_dir: PathBuf,
    pub(super) start: Lsn,
    pub(super) verify: bool,
    pub(super) pages_per_file: u32,
    pub(super) jobs: usize,
    pub(super) progress: Arc<dyn Progress>,
    /// What earlier backups have stored.
    pub(super) base: Option<Arc<Base>>,
    /// What the WAL has changed since the last one began, if that is known.
    pub(super) changes: Option<Arc<Changes>>,
}

/// What was copied.
pub(super) struct Copied {
    pub(super) spool: Spool,
    /// The packs that this backup wrote, in order.
    pub(super) packs: Vec<PackRecord>,
    /// The earlier packs that files are in, by their numbers in the base.
    pub(super) earlier: BTreeSet<u32>,
    /// Bytes that were read.
    pub(super) read_bytes: u64,
    pub(super) files: u64,
    pub(super) data_bytes: u64,
    pub(super) damaged_pages: u64,
    pub(super) damaged: Vec<(PathBuf, u32)>,
}

/// A stretch of a file: all of it, unless it is large.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) file: usize,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) whole: bool,
}

/// One stretch that was copied.
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) from: u64,
    pub(super) copied: Remembered,
    pub(super) read: u64,
    /// The file was gone when it was opened.
    pub(super) vanished: bool,
}

fn tasks(files: &[Item]) -> Vec<Task> {
    let mut tasks = Vec::with_capacity(files.len());
    for (file, item) in files.iter().enumerate() {
        if item.size <= STRETCH {
            tasks.push(Task { file, from: 0, to: item.size, whole: true });
            continue;
        }
        let stretches = item.size.div_ceil(STRETCH);
        tasks.extend((0..stretches).map(|n| Task {
            file,
            from: n * STRETCH,
            to: item.size.min((n + 1) * STRETCH),
            whole: false,
        }));
    }
    tasks
}

impl Copy {
    /// Copies `files`, several at once, and lists them in `spool`.
    pub(super) async fn run(&self, files: Vec<Item>, spool: Spool) -> Result<Copied> {
        let total = files.iter().map(|item| item.size).sum();
        self.progress.begin("copying", total);
        let result = self.copy_all(files, spool).await;
        self.progress.end();
        result
    }

    async fn copy_all(&self, files: Vec<Item>, spool: Spool) -> Result<Copied> {
        let tasks = Arc::new(tasks(&files));
        let files = Arc::new(files);
        let (next, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (sender, receiver) = sync_channel::<Done>(256);
        let mut workers = Vec::new();
        for _ in 0..self.jobs {
            let worker = Worker {
                copy: self.clone(),
                files: files.clone(),
                tasks: tasks.clone(),
                next: next.clone(),
                stop: stop.clone(),
                sender: sender.clone(),
            };
            workers.push(blocking(move || worker.run()));
        }
        drop(sender);
        let collecting = blocking(move || collect(receiver.into_iter(), &files, spool));
        let (workers, copied) = futures::join!(futures::future::join_all(workers), collecting);
        // A worker that found nobody to tell stopped for the collector's reason.
        let copied = copied?;
        workers.into_iter().collect::<Result<()>>()?;
        Ok(copied)
    }

    /// Adds what is known only at the end: the bytes of pg_control, and the texts that the server returned.
    pub(super) async fn texts(
        &self,
        mut copied: Copied,
        stopped: &Stopped,
        control: Vec<u8>,
    ) -> Result<Copied> {
        let (copy, stopped) = (self.clone(), stopped.clone());
        blocking(move || {
            let mut packs = PackWriter::new(copy.sink.clone())?;
            let now = stopped.finished_at;
            let mut add = |path: &str, mode, mtime, bytes: &[u8]| -> Result<()> {
                copied.add(whole(&mut packs, Path::new(path), mode, mtime, bytes)?)
            };
            let mode = std::fs::metadata(copy.data_dir.join(CONTROL_FILE))
                .map_or(0o600, |facts| facts.mode() & 0o777);
            add("backup_label", mode, now, stopped.backup_label.as_bytes())?;
            if !stopped.tablespace_map.is_empty() {
                add("tablespace_map", mode, now, stopped.tablespace_map.as_bytes())?;
            }
            add(CONTROL_FILE, mode, now, &control)?;
            for pack in packs.finish()? {
                copied.stored(pack)?;
            }
            copied.packs.sort_by(|a, b| a.name.cmp(&b.name));
            let gapless = copied.packs.iter().enumerate().all(|(n, pack)| pack.name.number as usize == n);
            if gapless {
                Ok(copied)
            } else {
                Err(Error::bug("the packs of a backup are not numbered without gaps"))
            }
        })
        .await
    }
}

fn whole(
    packs: &mut PackWriter,
    path: &Path,
    mode: u32,
    mtime: Timestamp,
    bytes: &[u8],
) -> Result<Remembered> {
    let mut extents = Extents::default();
    let mut sums = Sums::new(false);
    for (n, page) in bytes.chunks(PAGE).enumerate() {
        sums.add(page, 0);
        if !is_zero(page) {
            extents.push_page(packs.append(n as u32, page)?, FRAME_PAGES);
        }
    }
    let record = FileRecord {
        path: path.to_owned(),
        mode,
        mtime,
        size: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
        extents,
        damaged: Vec::new(),
    };
    Ok(Remembered { record, look: None, sums })
}

/// What workers have done.
enum Done {
    Piece(Box<Piece>),
    Pack(PackRecord),
}

/// Puts the pieces of files together, and counts.
fn collect(done: impl Iterator<Item = Done>, files: &[Item], spool: Spool) -> Result<Copied> {
    let mut copied = Copied {
        spool,
        packs: Vec::new(),
        earlier: BTreeSet::new(),
        read_bytes: 0,
        files: 0,
        data_bytes: 0,
        damaged_pages: 0,
        damaged: Vec::new(),
    };
    let mut parts: BTreeMap<usize, BTreeMap<u64, Piece>> = BTreeMap::new();
    for done in done {
        let piece = match done {
            Done::Pack(pack) => {
                copied.stored(pack)?;
                continue;
            }
            Done::Piece(piece) => *piece,
        };
        copied.read_bytes += piece.read;
        let item = &files[piece.file];
        if item.size <= STRETCH {
            if !piece.vanished {
                copied.add(piece.copied)?;
            }
            continue;
        }
        let file = piece.file;
        let waiting = parts.entry(file).or_default();
        waiting.insert(piece.from, piece);
        if waiting.len() as u64 == item.size.div_ceil(STRETCH)
            && let Some(file) = parts.remove(&file).and_then(join)
        {
            copied.add(file)?;
        }
    }
    copied.spool.flush()?;
    Ok(copied)
}

/// One record from the pieces of a file. A file that vanished half way is kept: the WAL removes it.
fn join(pieces: BTreeMap<u64, Piece>) -> Option<Remembered> {
    if pieces.values().all(|piece| piece.vanished) {
        return None;
    }
    pieces.into_values().map(|piece| piece.copied).reduce(|mut all, next| {
        let (record, later) = (&mut all.record, next.record);
        record.crc32c = crc32c::crc32c_combine(record.crc32c, later.crc32c, later.size as usize);
        record.size += later.size;
        record.mtime = record.mtime.max(later.mtime);
        record.extents.append(later.extents);
        record.damaged.extend(later.damaged);
        all.sums.append(next.sums);
        all.look = all.look.and_then(|look| look.joined(next.look));
        all
    })
}

impl Copied {
    fn add(&mut self, file: Remembered) -> Result<()> {
        let record = &file.record;
        self.files += 1;
        self.data_bytes += record.size;
        self.damaged_pages += record.damaged.len() as u64;
        let room = DAMAGED_LISTED.saturating_sub(self.damaged.len());
        self.damaged.extend(record.damaged.iter().take(room).map(|block| (record.path.clone(), *block)));
        let earlier = record.extents.iter().filter(|extent| extent.pack & EARLIER != 0);
        self.earlier.extend(earlier.map(|extent| extent.pack & !EARLIER));
        self.spool.file(&file)
    }

    fn stored(&mut self, pack: PackRecord) -> Result<()> {
        self.spool.pack(pack.name.number, &pack)?;
        self.packs.push(pack);
        Ok(())
    }
}

struct Worker {
    copy: Copy,
    files: Arc<Vec<Item>>,
    tasks: Arc<Vec<Task>>,
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    sender: SyncSender<Done>,
}

impl Worker {
    fn run(self) -> Result<()> {
        let result = self.work();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn work(&self) -> Result<()> {
        let mut packs = PackWriter::new(self.copy.sink.clone())?;
        let mut buffer = vec![0; READ];
        let mut earlier: Option<(usize, Option<BaseFile>)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(task) = self.tasks.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            let item = &self.files[task.file];
            if earlier.as_ref().is_none_or(|(file, _)| *file != task.file) {
                earlier = Some((task.file, self.copy.base.as_ref().and_then(|base| base.find(&item.path))));
            }
            let known = earlier.as_ref().and_then(|(_, known)| known.as_ref());
            let piece = Stretch::new(&self.copy, item, task, known).copy(&mut packs, &mut buffer)?;
            let closed = packs.take_closed().into_iter().map(Done::Pack);
            if closed.chain([Done::Piece(Box::new(piece))]).any(|done| self.sender.send(done).is_err()) {
                return Ok(());
            }
        }
        packs.finish()?.into_iter().for_each(|pack| drop(self.sender.send(Done::Pack(pack))));
        Ok(())
    }
}
