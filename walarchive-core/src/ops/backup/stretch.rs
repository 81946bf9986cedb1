//! One stretch of a file of a live data directory, into a pack.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use jiff::Timestamp;

use super::at;
use super::base::{Base, BaseFile};
use super::copy::{Copy, Piece, READ, Task};
use super::state::{Look, Remembered, Sums};
use super::unread::Unread;
use crate::archive::{Extent, Extents, FRAME_PAGES, FileRecord, PAGE, PackWriter, is_zero};
use crate::error::{Error, Result};
use crate::postgres::datadir::Item;
use crate::postgres::page::{self, Fork, PageState, RelationFile, page_lsn, relation_file};

/// A page that does not hold is read again: the server may have been in the middle of writing it.
const READ_AGAIN: u32 = 5;
/// So many damaged pages of a file are told one by one; the manifest has them all.
const NOTES: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// One stretch of a file being copied.
pub(super) struct Stretch<'a> {
    copy: &'a Copy,
    item: &'a Item,
    task: &'a Task,
    relation: Option<RelationFile>,
    earlier: Option<(&'a Base, &'a BaseFile)>,
}

/// The pages of the server's main forks say where their last change is in the WAL.
fn has_positions(relation: Option<&RelationFile>) -> bool {
    relation.is_some_and(|relation| relation.fork == Fork::Main)
}

impl<'a> Stretch<'a> {
    /// `earlier` is the file as an earlier backup has it.
    pub(super) fn new(
        copy: &'a Copy,
        item: &'a Item,
        task: &'a Task,
        earlier: Option<&'a BaseFile>,
    ) -> Stretch<'a> {
        let relation = item.path.to_str().and_then(relation_file);
        let earlier = copy.base.as_deref().zip(earlier);
        Stretch { copy, item, task, relation, earlier }
    }

    fn piece(&self, vanished: bool) -> Piece {
        let record = FileRecord {
            path: self.item.path.clone(),
            mode: self.item.mode,
            mtime: Timestamp::UNIX_EPOCH,
            size: 0,
            crc32c: 0,
            extents: Extents::default(),
            damaged: Vec::new(),
        };
        let sums = Sums::new(has_positions(self.relation.as_ref()));
        let file = Remembered { record, look: None, sums };
        Piece { file: self.task.file, from: self.task.from, copied: file, read: 0, vanished }
    }

    pub(super) fn copy(&self, packs: &mut PackWriter, buffer: &mut [u8]) -> Result<Piece> {
        let path = self.copy.data_dir.join(&self.item.path);
        let failed = |error: std::io::Error| {
            Error::io(format!("cannot read {}", at(&path)), error)
                .on(at(&path))
                .hint("every file must be in a backup")
        };
        let (file, facts) =
            match File::open(&path).and_then(|file| file.metadata().map(|facts| (file, facts))) {
                Ok(opened) => opened,
                Err(error) if error.kind() == ErrorKind::NotFound => return self.gone(),
                Err(error) => return Err(failed(error)),
            };
        let mut piece = self.piece(false);
        let look = Look::of(&facts);
        piece.copied.look = Some(look);
        let record = &mut piece.copied.record;
        record.mtime = Timestamp::from_microsecond(facts.mtime() * 1_000_000 + facts.mtime_nsec() / 1000)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        // A small file counts as long as it is when it is opened; of a large one all stretches must agree.
        let to =
            if self.task.whole { facts.len().min(u64::from(u32::MAX) * PAGE as u64) } else { self.task.to };
        record.size = to.saturating_sub(self.task.from);
        if self.take_over(&look, &mut piece.copied) {
            self.copy.progress.advance(piece.copied.record.size)?;
            return Ok(piece);
        }
        let unread = Unread::of(self.copy, self.relation.as_ref(), self.earlier, &look);
        let mut from = self.task.from;
        while from < to {
            if let Some(unread) = &unread {
                let taken = unread.take(from, to, &mut piece.copied);
                self.copy.progress.advance(taken)?;
                from += taken;
            }
            let until = unread.as_ref().map_or(to, |unread| unread.next(from, to.min(from + READ as u64)));
            let want = usize::try_from(until - from).unwrap_or(READ).min(READ);
            let got = read_at(&file, &mut buffer[..want], from).map_err(failed)?;
            // What was cut off meanwhile is zeros: the WAL cuts it off again.
            buffer[got..want].fill(0);
            self.pages(&file, packs, &mut buffer[..want], from, &mut piece.copied)
                .map_err(|error| error.on(at(&path)))?;
            self.copy.progress.advance(want as u64)?;
            piece.read += want as u64;
            from += want as u64;
        }
        Ok(piece)
    }

    /// Takes the whole stretch from the base, unread, if nobody has written to the file since.
    fn take_over(&self, look: &Look, copied: &mut Remembered) -> bool {
        let Some((base, known)) = self.earlier.filter(|(_, known)| known.looks_like(look)) else {
            return false;
        };
        let record = &mut copied.record;
        let first = (self.task.from / PAGE as u64) as u32;
        let end = first + record.size.div_ceil(PAGE as u64) as u32;
        let Some((sums, crc)) = known.sums.part(first..end, record.size) else { return false };
        let whole = record.size == known.record.size;
        let Some(crc) = crc.or(whole.then_some(known.record.crc32c)) else { return false };
        let mut extents = Extents::default();
        for (part, offset) in known.record.extents.within(first, end) {
            let Some(first) = part.first.checked_add(offset) else { return false };
            let Some(part) = base.offer(Extent { first, ..part }) else { return false };
            extents.push_part(part);
        }
        let damaged = known.record.damaged.iter().copied().filter(|page| (first..end).contains(page));
        record.damaged = damaged.collect();
        (record.crc32c, record.extents, copied.sums) = (crc, extents, sums);
        true
    }

    /// A file that is gone leaves zeros in its place if other stretches of it were read.
    fn gone(&self) -> Result<Piece> {
        let mut piece = self.piece(true);
        let len = self.task.to - self.task.from;
        self.copy.progress.advance(len)?;
        if !self.task.whole {
            let copied = &mut piece.copied;
            copied.record.size = len;
            let zeros = [0u8; PAGE];
            let mut left = len as usize;
            while left > 0 {
                let now = left.min(PAGE);
                copied.record.crc32c = copied.sums.add(&zeros[..now], copied.record.crc32c);
                left -= now;
            }
        }
        Ok(piece)
    }

    fn pages(
        &self,
        file: &File,
        packs: &mut PackWriter,
        bytes: &mut [u8],
        from: u64,
        copied: &mut Remembered,
    ) -> Result<()> {
        let first = (from / PAGE as u64) as u32;
        for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
            let number = first + n as u32;
            let zero = is_zero(page);
            if !zero && page.len() == PAGE && !self.holds(file, page, number)? {
                self.damaged(number, &mut copied.record);
            }
            copied.record.crc32c = copied.sums.add(page, copied.record.crc32c);
            if zero {
                continue;
            }
            match self.stored(number, page, &copied.sums) {
                Some(part) => copied.record.extents.push_part(part),
                None => copied.record.extents.push_page(packs.append(number, page)?, FRAME_PAGES),
            }
        }
        Ok(())
    }

    fn damaged(&self, number: u32, record: &mut FileRecord) {
        record.damaged.push(number);
        if record.damaged.len() <= NOTES {
            let file = at(&self.item.path);
            self.copy.progress.note(&format!("page checksum does not hold: file {file}, block {number}"));
        }
    }

    /// Where an earlier backup has the page as it is, whose sum was added last. A page that says where it was changed
    /// must have been changed before that backup began; its sum tells what was changed without WAL since, such as hint
    /// bits, or a file that was put in the place of another.
    fn stored(&self, number: u32, page: &[u8], sums: &Sums) -> Option<Extent> {
        let (base, known) = self.earlier?;
        let before = match sums {
            Sums::Crc(_) => page.len() == PAGE && page_lsn(page) < known.start,
            Sums::Digest(_) => true,
        };
        if !before || !known.sums.has_at(number, sums) {
            return None;
        }
        base.offer(known.record.extents.find(number)?)
    }

    /// Whether a page's checksum holds, or need not: then the page is as it was when it was last read.
    fn holds(&self, file: &File, page: &mut [u8], number: u32) -> Result<bool> {
        let Some(relation) = self.relation.as_ref().filter(|_| self.copy.verify) else { return Ok(true) };
        let Some(block) = relation.block_no(number, self.copy.pages_per_file) else { return Ok(true) };
        for attempt in 0..=READ_AGAIN {
            if !matches!(page::verify(page, block, self.copy.start), PageState::Bad { .. }) {
                return Ok(true);
            }
            if attempt < READ_AGAIN {
                std::thread::sleep(PAUSE);
                let got = read_at(file, page, u64::from(number) * PAGE as u64)
                    .map_err(|error| Error::io("cannot read a page again", error))?;
                page[got..].fill(0);
            }
        }
        Ok(false)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
