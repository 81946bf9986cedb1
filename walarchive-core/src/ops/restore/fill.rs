//! Workers: they fetch frames ahead, put regions together in memory and write them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::buffer::Buffer;
use super::file::{mismatch, pages};
use super::give::Tasks;
use super::reads::{self, Read};
use super::region::{self, FrameId, Piece, REGION, Use, Uses};
use crate::archive::{FileRecord, Flight, OpenPacks, PAGE};
use crate::codec::Framer;
use crate::crossing::blocking;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Reads that a worker has under way.
const AHEAD: usize = 3;
/// Each job unpacks while another worker of it waits for the disk.
const WORKERS_PER_JOB: usize = 2;
const TASKS_WAITING: usize = 4;

/// Pieces of files for one worker.
pub(super) type Task = Vec<Piece>;

/// What all workers of a restore share.
struct Shared {
    packs: Arc<OpenPacks>,
    tasks: Mutex<Receiver<Task>>,
    stop: Arc<AtomicBool>,
    progress: Arc<dyn Progress>,
}

/// Fills the files that `give` puts among the tasks. Gives the bytes that were written.
pub(super) async fn fill<F: Future<Output = Result<()>>>(
    packs: Arc<OpenPacks>,
    jobs: usize,
    progress: Arc<dyn Progress>,
    give: impl FnOnce(Tasks) -> F,
) -> Result<u64> {
    let (sender, receiver) = sync_channel(TASKS_WAITING);
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Arc::new(Shared { packs, tasks: Mutex::new(receiver), stop: stop.clone(), progress });
    let worker = |_| {
        let worker = Worker::new(shared.clone());
        blocking(move || worker.run())
    };
    let workers: Vec<_> = (0..jobs * WORKERS_PER_JOB).map(worker).collect();
    // When all workers are gone, nobody is to wait for one.
    drop(shared);
    let (given, written) = futures::join!(give(Tasks::new(sender, stop)), futures::future::join_all(workers));
    // A worker that fails stops the giver: its error is the cause.
    let written = written.into_iter().collect::<Result<Vec<u64>>>()?;
    given?;
    Ok(written.into_iter().sum())
}

/// The content of a small file.
pub(super) fn read_small(packs: &OpenPacks, record: &FileRecord) -> Result<Vec<u8>> {
    let (pages, mut uses) = (pages(record), Uses::new());
    add_uses(&mut uses, packs, record, 0..pages, 0)?;
    let mut bytes = vec![0; pages as usize * PAGE];
    for (id, wanted) in &uses {
        let mut flight = Flight::default();
        flight.begin(packs, id.0, id.1..id.1 + 1)?;
        let (stored, pack) = (flight.next(packs)?, packs.get(id.0)?);
        let entry = pack.frames().get(id.1).ok_or_else(|| Error::bug("a frame went missing"))?;
        let mut data = Vec::new();
        entry.unpack(&stored, pack.framer()?.as_mut(), &mut data).map_err(|error| error.on(pack.key()))?;
        copy_pages(wanted, &data, &mut bytes)?;
    }
    bytes.truncate(record.size as usize);
    if crc32c::crc32c(&bytes) != record.crc32c {
        return Err(mismatch(&record.path));
    }
    Ok(bytes)
}

fn copy_pages(uses: &[Use], data: &[u8], bytes: &mut [u8]) -> Result<()> {
    for wanted in uses {
        let len = wanted.count as usize * PAGE;
        let (from, to) = (wanted.first as usize * PAGE, wanted.to as usize * PAGE);
        let (from, to) = (data.get(from..from + len), bytes.get_mut(to..to + len));
        let (from, to) = from.zip(to).ok_or_else(|| Error::bug("a frame does not fit its region"))?;
        to.copy_from_slice(from);
    }
    Ok(())
}

/// Fills files with what their packs hold.
struct Worker {
    shared: Arc<Shared>,
    buffer: Buffer,
    framers: BTreeMap<&'static str, Box<dyn Framer>>,
    /// Frames of the last region that this one needs as well.
    held: BTreeMap<FrameId, Vec<u8>>,
    spare: Vec<u8>,
    written: u64,
}

/// A region, where its pages are, and how they are fetched.
struct Planned {
    pieces: Vec<Piece>,
    uses: Uses,
    /// The frames that it did not get from the region before it.
    wanted: BTreeSet<FrameId>,
    /// Those that nothing before it needed.
    reads: Vec<Read>,
    /// The frames that the next region needs.
    keep: BTreeSet<FrameId>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Worker {
        let buffer = Buffer::new(REGION as usize * PAGE);
        Worker {
            shared,
            buffer,
            framers: BTreeMap::new(),
            held: BTreeMap::new(),
            spare: Vec::new(),
            written: 0,
        }
    }

    /// Works until there are no more tasks; gives how many bytes it wrote.
    fn run(mut self) -> Result<u64> {
        loop {
            let task = match self.shared.tasks.lock() {
                Ok(tasks) => tasks.recv(),
                Err(_) => return Err(Error::bug("a worker died")),
            };
            let Ok(task) = task else { return Ok(self.written) };
            if self.shared.stop.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.task(task) {
                self.shared.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    fn task(&mut self, mut task: Task) -> Result<()> {
        let mut differing = Vec::with_capacity(task.len());
        for piece in task.drain(..) {
            if piece.file.is_over && piece.file.is_there()? {
                self.shared.progress.advance(stored(&piece))?;
            } else if piece.file.record.extents.is_empty() {
                piece.file.clear()?;
            } else {
                differing.push(piece);
            }
        }
        self.held.clear();
        let regions = self.plan(&differing)?;
        let reads: Vec<Read> = regions.iter().flat_map(|region| region.reads.iter().cloned()).collect();
        let (mut flight, mut begun) = (Flight::default(), reads.iter());
        let mut kept: Vec<(&Read, Bytes)> = Vec::new();
        for (number, region) in regions.iter().enumerate() {
            let held = std::mem::take(&mut self.held);
            for (id, data) in held {
                self.place(region, id, data)?;
            }
            kept.retain(|(read, _)| read.last >= number);
            for (read, stored) in &kept {
                self.unpack(region, read, stored)?;
            }
            for read in &region.reads {
                while flight.len() < AHEAD
                    && let Some(Read { pack, frames, .. }) = begun.next()
                {
                    flight.begin(&self.shared.packs, *pack, frames.clone())?;
                }
                let stored = flight.next(&self.shared.packs)?;
                self.unpack(region, read, &stored)?;
                if read.last > number {
                    kept.push((read, stored));
                }
            }
            self.write(region)?;
        }
        Ok(())
    }

    fn plan(&self, pieces: &[Piece]) -> Result<Vec<Planned>> {
        let packs = &self.shared.packs;
        let regions = region::regions(pieces);
        let uses = regions.iter().map(|pieces| uses(packs, pieces)).collect::<Result<Vec<_>>>()?;
        let none = Uses::new();
        let nexts = uses.iter().skip(1).chain([&none]);
        let keeps: Vec<_> = uses.iter().zip(nexts).map(|(uses, next)| region::held(uses, next)).collect();
        let helds = [BTreeSet::new()].into_iter().chain(keeps.iter().cloned());
        let wants = |(uses, held): (&Uses, BTreeSet<FrameId>)| {
            uses.keys().filter(|id| !held.contains(id)).copied().collect()
        };
        let wanted: Vec<BTreeSet<FrameId>> = uses.iter().zip(helds).map(wants).collect();
        let reads = reads::plan(&wanted, |pack| packs.frames(pack))?;
        let planned = regions.into_iter().zip(uses).zip(wanted).zip(reads).zip(keeps);
        let region =
            |((((pieces, uses), wanted), reads), keep)| Planned { pieces, uses, wanted, reads, keep };
        Ok(planned.map(region).collect())
    }

    fn unpack(&mut self, region: &Planned, read: &Read, stored: &Bytes) -> Result<()> {
        let shared = self.shared.clone();
        let pack = shared.packs.get(read.pack)?;
        let base = pack.frames().get(read.frames.start).map_or(0, |entry| entry.at);
        for number in read.frames.clone() {
            let id = (read.pack, number);
            let Some(entry) = pack.frames().get(number).filter(|_| region.wanted.contains(&id)) else {
                continue;
            };
            let from = (entry.at - base) as usize;
            let bytes = stored.get(from..from + entry.stored as usize);
            let bytes =
                bytes.ok_or_else(|| Error::damaged("a pack is shorter than its index").on(pack.key()))?;
            let framer = match self.framers.entry(pack.codec().name()) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => new.insert(pack.framer()?),
            };
            let mut data = std::mem::take(&mut self.spare);
            data.clear();
            entry.unpack(bytes, framer.as_mut(), &mut data).map_err(|error| error.on(pack.key()))?;
            self.place(region, id, data)?;
        }
        Ok(())
    }

    /// Puts the pages of a frame where the region wants them, and keeps the frame if the next one wants it, too.
    fn place(&mut self, region: &Planned, id: FrameId, data: Vec<u8>) -> Result<()> {
        let uses = region.uses.get(&id).map_or(&[][..], Vec::as_slice);
        copy_pages(uses, &data, self.buffer.bytes_mut())?;
        if region.keep.contains(&id) {
            self.held.insert(id, data);
        } else {
            self.spare = data;
        }
        Ok(())
    }

    fn write(&mut self, region: &Planned) -> Result<()> {
        let mut at = 0;
        for piece in &region.pieces {
            let end = at + piece.pages() as usize * PAGE;
            let bytes = &mut self.buffer.bytes_mut()[at..end];
            let filled = filled(&piece.file.record, piece.from..piece.to);
            clear_holes(bytes, piece.from, &filled);
            self.written += piece.file.write(piece.from, bytes, &filled)?;
            self.shared.progress.advance(stored(piece))?;
            at = end;
        }
        Ok(())
    }
}

/// Bytes of a piece that the backup holds.
fn stored(piece: &Piece) -> u64 {
    let extents = piece.file.record.extents.within(piece.from, piece.to);
    extents.map(|(extent, _)| u64::from(extent.count) * PAGE as u64).sum()
}

fn uses(packs: &OpenPacks, pieces: &[Piece]) -> Result<Uses> {
    let (mut uses, mut at) = (Uses::new(), 0);
    for piece in pieces {
        add_uses(&mut uses, packs, &piece.file.record, piece.from..piece.to, at)?;
        at += piece.pages();
    }
    Ok(uses)
}

/// Adds where pages of a file are found, the first of which goes to page `at` of a region.
fn add_uses(
    uses: &mut Uses,
    packs: &OpenPacks,
    record: &FileRecord,
    pages: Range<u32>,
    at: u32,
) -> Result<()> {
    record.extents.within(pages.start, pages.end).try_for_each(|(extent, skipped)| {
        let to = at + (extent.page - pages.start);
        region::add_uses(uses, &extent, skipped, to, packs.frames(extent.pack)?)
    })
}

/// The pages of a file that its extents name, neighbours joined.
fn filled(record: &FileRecord, pages: Range<u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (extent, _) in record.extents.within(pages.start, pages.end) {
        let end = extent.page + extent.count;
        match runs.last_mut() {
            Some(last) if last.end == extent.page => last.end = end,
            _ => runs.push(extent.page..end),
        }
    }
    runs
}

/// Makes zeros of the pages from page `from` on that are not in `filled`: the memory was another region's before.
fn clear_holes(bytes: &mut [u8], from: u32, filled: &[Range<u32>]) {
    let at = |page: u32| (page - from) as usize * PAGE;
    let mut next = 0;
    for run in filled {
        bytes[next..at(run.start)].fill(0);
        next = at(run.end);
    }
    bytes[next..].fill(0);
}
