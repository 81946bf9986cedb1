//! One stretch of a file of a live data directory, into a pack.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use jiff::Timestamp;

use super::at;
use super::copy::{Copy, Piece, READ, Task};
use crate::archive::{Extents, FRAME_PAGES, FileRecord, PAGE, PackWriter, is_zero};
use crate::error::{Error, Result};
use crate::postgres::datadir::Item;
use crate::postgres::page::{self, PageState, RelationFile, relation_file};

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
}

impl<'a> Stretch<'a> {
    pub(super) fn new(copy: &'a Copy, item: &'a Item, task: &'a Task) -> Stretch<'a> {
        let relation = item.path.to_str().and_then(relation_file).filter(|_| copy.verify);
        Stretch { copy, item, task, relation }
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
        Piece { file: self.task.file, from: self.task.from, record, vanished }
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
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self.gone()),
                Err(error) => return Err(failed(error)),
            };
        let mut piece = self.piece(false);
        piece.record.mtime =
            Timestamp::from_microsecond(facts.mtime() * 1_000_000 + facts.mtime_nsec() / 1000)
                .unwrap_or(Timestamp::UNIX_EPOCH);
        // A small file counts as long as it is when it is opened; of a large one all stretches must agree.
        let to =
            if self.task.whole { facts.len().min(u64::from(u32::MAX) * PAGE as u64) } else { self.task.to };
        let mut from = self.task.from;
        while from < to {
            let want = usize::try_from(to - from).unwrap_or(READ).min(READ);
            let got = read_at(&file, &mut buffer[..want], from).map_err(failed)?;
            // What was cut off meanwhile is zeros: the WAL cuts it off again.
            buffer[got..want].fill(0);
            self.pages(&file, packs, &mut buffer[..want], from, &mut piece.record)
                .map_err(|error| error.on(at(&path)))?;
            self.copy.progress.advance(want as u64);
            from += want as u64;
        }
        piece.record.size = to - self.task.from;
        Ok(piece)
    }

    /// A file that is gone leaves zeros in its place if other stretches of it were read.
    fn gone(&self) -> Piece {
        let mut piece = self.piece(true);
        let len = self.task.to - self.task.from;
        self.copy.progress.advance(len);
        if !self.task.whole {
            piece.record.size = len;
            let zeros = vec![0u8; READ];
            let mut left = len as usize;
            while left > 0 {
                let now = left.min(READ);
                piece.record.crc32c = crc32c::crc32c_append(piece.record.crc32c, &zeros[..now]);
                left -= now;
            }
        }
        piece
    }

    fn pages(
        &self,
        file: &File,
        packs: &mut PackWriter,
        bytes: &mut [u8],
        from: u64,
        record: &mut FileRecord,
    ) -> Result<()> {
        let first = (from / PAGE as u64) as u32;
        for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
            let number = first + n as u32;
            if is_zero(page) {
                continue;
            }
            if page.len() == PAGE && !self.holds(file, page, number)? {
                record.damaged.push(number);
                if record.damaged.len() <= NOTES {
                    let file = at(&self.item.path);
                    self.copy
                        .progress
                        .note(&format!("page checksum does not hold: file {file}, block {number}"));
                }
            }
            record.extents.push_page(packs.append(number, page)?, FRAME_PAGES);
        }
        record.crc32c = crc32c::crc32c_append(record.crc32c, bytes);
        Ok(())
    }

    /// Whether a page's checksum holds, or need not: then the page is as it was when it was last read.
    fn holds(&self, file: &File, page: &mut [u8], number: u32) -> Result<bool> {
        let Some(relation) = &self.relation else { return Ok(true) };
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
