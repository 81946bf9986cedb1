//! A file that several workers may be writing, proven by its checksum when all of it is there.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::buffer::ALIGN;
use crate::archive::{FileRecord, PAGE};
use crate::error::{Error, Kind, Result};

/// Files that are longer are written past the page cache, where the file system lets us: it would only be flushed again.
const UNBUFFERED: u64 = 1 << 20;
/// What is read at once of a file that is there already.
const LOOK: usize = 1 << 20;

pub(super) fn mismatch(path: &Path) -> Error {
    Error::damaged(format!("the restored content of {} does not match its checksum", path.display()))
}

/// Pages of a file.
pub(super) fn pages(record: &FileRecord) -> u32 {
    u32::try_from(record.size.div_ceil(PAGE as u64)).unwrap_or(u32::MAX)
}

/// The CRC-32C of so many zeros.
pub(super) fn crc_of_zeros(mut len: u64) -> u32 {
    let (mut all, mut block, mut block_len) = (0, crc32c::crc32c(&[0]), 1);
    while len > 0 {
        if len % 2 == 1 {
            all = crc32c::crc32c_combine(all, block, block_len);
        }
        (block, block_len) = (crc32c::crc32c_combine(block, block, block_len), block_len.wrapping_mul(2));
        len /= 2;
    }
    all
}

/// A file to be written.
pub(super) struct TargetFile {
    pub(super) record: FileRecord,
    path: PathBuf,
    /// Whether a file that is there already is to become the one of the backup.
    pub(super) is_over: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Opened>>,
    /// CRC-32C and length of each piece that is written, by its first page.
    parts: BTreeMap<u32, (u32, u64)>,
    written: u64,
}

struct Opened {
    file: File,
    /// The same, for writes past the page cache.
    direct: Option<File>,
    /// Whether it may hold anything but zeros.
    was_there: bool,
}

impl TargetFile {
    pub(super) fn new(path: PathBuf, record: FileRecord, is_over: bool) -> TargetFile {
        TargetFile { record, path, is_over, state: Mutex::default() }
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            ErrorKind::AlreadyExists => {
                let message = format!("{} is there already, and was not changed", self.path.display());
                Error::new(Kind::UnsafeTarget, message).on(self.path.display())
            }
            _ => Error::io(format!("cannot write {}", self.path.display()), error).on(self.path.display()),
        }
    }

    /// Whether the file is there as the backup has it: in its length, with its checksum. It gets its mode and time then.
    pub(super) fn is_there(&self) -> Result<bool> {
        let failed = |error| self.failed(error);
        let Some(file) = self.existing().map_err(failed)? else { return Ok(false) };
        let is_same = file.metadata().map_err(failed)?.len() == self.record.size
            && checksum(&file).map_err(failed)? == self.record.crc32c;
        if is_same {
            self.dress(&file).map_err(failed)?;
        }
        Ok(is_same)
    }

    /// The file that is there, if it is one that can be written to without changing another one as well.
    fn existing(&self) -> io::Result<Option<File>> {
        let nofollow = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(nofollow).open(&self.path);
        match opened.and_then(|file| file.metadata().map(|facts| (file, facts))) {
            Ok((file, facts)) if facts.is_file() && facts.nlink() == 1 => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => fs::remove_file(&self.path).map(|()| None),
        }
    }

    /// The file, made when the first piece of it is written.
    fn opened(&self) -> Result<Arc<Opened>> {
        let mut state = self.state.lock().map_err(|_| Error::bug("a worker died with a file"))?;
        if let Some(opened) = &state.open {
            return Ok(opened.clone());
        }
        let opened = Arc::new(self.open().map_err(|error| self.failed(error))?);
        state.open = Some(opened.clone());
        Ok(opened)
    }

    fn open(&self) -> io::Result<Opened> {
        let existing = if self.is_over { self.existing()? } else { None };
        let was_there = existing.is_some();
        let file = match existing {
            Some(file) => file,
            None => {
                OpenOptions::new().write(true).create_new(true).mode(self.record.mode).open(&self.path)?
            }
        };
        file.set_len(self.record.size)?;
        let is_long = self.record.size >= UNBUFFERED && self.record.size.is_multiple_of(ALIGN as u64);
        let direct = (is_long && !was_there).then(|| self.unbuffered()).flatten();
        Ok(Opened { file, direct, was_there })
    }

    /// Not every file system has unbuffered writes.
    fn unbuffered(&self) -> Option<File> {
        let flags = (OFlags::DIRECT | OFlags::NOFOLLOW).bits() as i32;
        OpenOptions::new().write(true).custom_flags(flags).open(&self.path).ok()
    }

    /// Writes pages from page `from` on; `filled` are those that the backup holds, all others are zeros. The last piece
    /// proves the whole file. Gives how many bytes were written.
    pub(super) fn write(&self, from: u32, bytes: &[u8], filled: &[Range<u32>]) -> Result<u64> {
        let opened = self.opened()?;
        let start = u64::from(from) * PAGE as u64;
        let bytes = &bytes[..(self.record.size - start).min(bytes.len() as u64) as usize];
        let written = match opened.was_there {
            true => opened.write_changes(bytes, start),
            false => opened.write_filled(from, bytes, filled),
        };
        let written = written.map_err(|error| self.failed(error))?;
        self.done(&opened, from, crc32c::crc32c(bytes), bytes.len() as u64)?;
        Ok(written)
    }

    /// Makes zeros of the whole file.
    pub(super) fn clear(&self) -> Result<()> {
        let opened = self.opened()?;
        let cleared = opened.file.set_len(0).and_then(|()| opened.file.set_len(self.record.size));
        cleared.map_err(|error| self.failed(error))?;
        self.done(&opened, 0, crc_of_zeros(self.record.size), self.record.size)
    }

    /// A piece is written; the last one proves the whole.
    fn done(&self, opened: &Opened, from: u32, crc: u32, len: u64) -> Result<()> {
        let mut state = self.state.lock().map_err(|_| Error::bug("a worker died with a file"))?;
        state.parts.insert(from, (crc, len));
        state.written += len;
        if state.written >= self.record.size {
            self.prove(&state)?;
            self.dress(&opened.file).map_err(|error| self.failed(error))?;
            state.open = None;
        }
        Ok(())
    }

    fn prove(&self, state: &State) -> Result<()> {
        let join = |all, (crc, len): &(u32, u64)| crc32c::crc32c_combine(all, *crc, *len as usize);
        if state.parts.values().fold(0, join) != self.record.crc32c {
            return Err(mismatch(&self.record.path).on(self.path.display()));
        }
        Ok(())
    }

    fn dress(&self, file: &File) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(self.record.mode))?;
        file.set_times(FileTimes::new().set_modified(SystemTime::from(self.record.mtime)))
    }
}

impl Opened {
    fn write_filled(&self, from: u32, bytes: &[u8], filled: &[Range<u32>]) -> io::Result<u64> {
        let mut written = 0;
        for run in filled {
            let at = |page: u32| ((page - from) as usize * PAGE).min(bytes.len());
            let run_bytes = &bytes[at(run.start)..at(run.end)];
            self.write_at(run_bytes, u64::from(run.start) * PAGE as u64)?;
            written += run_bytes.len() as u64;
        }
        Ok(written)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match &self.direct {
            // A file system may take the flag and refuse the write.
            Some(direct) if direct.write_all_at(bytes, at).is_ok() => Ok(()),
            _ => self.file.write_all_at(bytes, at),
        }
    }

    /// Writes the pages that differ from what is there.
    fn write_changes(&self, bytes: &[u8], start: u64) -> io::Result<u64> {
        let (mut there, mut written) = (vec![0; LOOK.min(bytes.len())], 0);
        for (n, wanted) in bytes.chunks(LOOK).enumerate() {
            let at = start + (n * LOOK) as u64;
            let there = &mut there[..wanted.len()];
            self.file.read_exact_at(there, at)?;
            for run in changes(wanted, there) {
                self.file.write_all_at(&wanted[run.clone()], at + run.start as u64)?;
                written += run.len() as u64;
            }
        }
        Ok(written)
    }
}

/// Where two strings of bytes of the same length differ, in runs of whole pages.
fn changes(wanted: &[u8], there: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for (wanted, there) in wanted.chunks(PAGE).zip(there.chunks(PAGE)) {
        let end = at + wanted.len();
        match runs.last_mut() {
            _ if wanted == there => {}
            Some(last) if last.end == at => last.end = end,
            _ => runs.push(at..end),
        }
        at = end;
    }
    runs
}

fn checksum(file: &File) -> io::Result<u32> {
    let (mut buffer, mut at, mut crc) = (vec![0; LOOK], 0u64, 0);
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(crc),
            Ok(count) => {
                crc = crc32c::crc32c_append(crc, &buffer[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_a_checksum() {
        for len in [0usize, 1, 2, 3, 8192, 100_001] {
            assert_eq!(crc_of_zeros(len as u64), crc32c::crc32c(&vec![0; len]), "{len}");
        }
    }

    #[test]
    fn only_pages_that_differ_are_written() {
        let there = vec![7u8; 4 * PAGE + 100];
        let mut wanted = there.clone();
        assert_eq!(changes(&wanted, &there), []);
        for byte in [0, 2 * PAGE, 3 * PAGE + 5, 4 * PAGE + 99] {
            wanted[byte] ^= 1;
        }
        assert_eq!(changes(&wanted, &there), [0..PAGE, 2 * PAGE..4 * PAGE + 100]);
    }
}
