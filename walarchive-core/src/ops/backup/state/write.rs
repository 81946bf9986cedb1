//! The state of the backup that is being made.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::{COMMITTED, Header, Numbered, RUNNING, Remembered, Trailer, failed, frame};
use crate::archive::PackRecord;
use crate::error::{Error, Result};
use crate::files;
use crate::wal::Lsn;

/// The records of all files, in a file of the state directory, or in a temporary one where that cannot be used. What
/// is there when the program dies is what the next backup can go on with.
pub(in crate::ops::backup) struct Spool {
    out: BufWriter<File>,
    path: Option<PathBuf>,
}

impl Spool {
    /// Begins a state in the directory `dir`.
    pub(in crate::ops::backup) fn begin(dir: &Path, header: &Header) -> Result<Spool> {
        files::make_dirs(dir, 0o700).map_err(|error| {
            error.hint("make it for this user, or name another place: state_dir, WALARCHIVE_STATE_DIR")
        })?;
        let path = dir.join(format!("{RUNNING}{}", header.id));
        let failed = |error| failed(Some(&path), error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // Shows that its backup is running.
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        Spool { out: BufWriter::new(file), path: Some(path.clone()) }.headed(header)
    }

    /// A state that is gone with the process.
    pub(in crate::ops::backup) fn nameless(header: &Header) -> Result<Spool> {
        let file = tempfile::tempfile().map_err(|error| failed(None, error))?;
        Spool { out: BufWriter::new(file), path: None }.headed(header)
    }

    fn headed(mut self, header: &Header) -> Result<Spool> {
        self.text(frame::HEADER, header)?;
        Ok(self)
    }

    fn failed(&self, error: impl Into<std::io::Error>) -> Error {
        failed(self.path.as_deref(), error)
    }

    fn text(&mut self, tag: u8, text: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(text).map_err(|error| self.failed(error))?;
        self.frame(tag, &text)
    }

    fn frame(&mut self, tag: u8, payload: &[u8]) -> Result<()> {
        let head = frame::head(tag, payload);
        let written = self.out.write_all(&head).and_then(|()| self.out.write_all(payload));
        written.map_err(|error| self.failed(error))
    }

    /// Adds a pack that is stored.
    pub(in crate::ops::backup) fn pack(&mut self, number: u32, pack: &PackRecord) -> Result<()> {
        self.text(frame::PACK, &Numbered { number, pack: pack.clone() })?;
        self.flush()
    }

    /// What was added so far is there even if the program dies.
    pub(in crate::ops::backup) fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|error| self.failed(error))
    }

    /// Adds a file that was copied.
    pub(in crate::ops::backup) fn file(&mut self, file: &Remembered) -> Result<()> {
        let (tag, payload) = frame::of_file(file).map_err(|error| self.failed(error))?;
        self.frame(tag, &payload)
    }

    /// Gives all files back, in the order in which they came.
    pub(in crate::ops::backup) fn replay(
        &mut self,
        mut each: impl FnMut(Remembered) -> Result<()>,
    ) -> Result<()> {
        self.out.flush().map_err(|error| self.failed(error))?;
        let path = self.path.clone();
        let failed = |error: std::io::Error| failed(path.as_deref(), error);
        let file = self.out.get_mut();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut reader = BufReader::with_capacity(1 << 20, &mut *file);
        let (mut head, mut payload) = ([0; frame::HEAD], Vec::new());
        loop {
            match reader.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(failed(error)),
            }
            let broken = || failed(std::io::ErrorKind::InvalidData.into());
            let (tag, len) = frame::parse(&head).ok_or_else(broken)?;
            payload.resize(len as usize, 0);
            reader.read_exact(&mut payload).map_err(failed)?;
            if !frame::holds(&head, &payload) {
                return Err(broken());
            }
            if matches!(tag, frame::POSITIONED | frame::DIGESTED) {
                each(frame::file(tag, &payload).ok_or_else(broken)?)?;
            }
        }
        drop(reader);
        file.seek(SeekFrom::End(0)).map_err(failed).map(drop)
    }

    /// The backup is committed, and ended at `stop`: this is what the next one begins with.
    pub(in crate::ops::backup) fn publish(mut self, stop: Lsn) -> Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        self.text(frame::TRAILER, &Trailer { stop })?;
        self.out.flush().map_err(|error| self.failed(error))?;
        self.out.get_ref().sync_all().map_err(|error| self.failed(error))?;
        let done = fs::rename(&path, path.with_file_name(COMMITTED));
        done.map_err(|error| self.failed(error))?;
        files::sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use jiff::Timestamp;

    use super::*;
    use crate::archive::{Extents, FileRecord};
    use crate::ops::backup::state::{Sums, VERSION};

    #[test]
    fn names_that_are_not_utf8_come_back() {
        let names = [OsString::from_vec(b"base/\xff\n".to_vec()), OsString::from("base/1")];
        let header = Header {
            version: VERSION,
            id: "20260101T020000Z-0f3a9c2e".into(),
            archive: "0".repeat(32),
            place: "main/1".into(),
            timeline: 1,
            start: Lsn(1),
            began: Timestamp::UNIX_EPOCH,
            full_since: Timestamp::UNIX_EPOCH,
            readers: String::new(),
            block_size: 8192,
            page_checksums: Some(true),
        };
        let mut spool = Spool::nameless(&header).unwrap();
        for name in &names {
            let record = FileRecord {
                path: name.into(),
                mode: 0o600,
                mtime: Timestamp::UNIX_EPOCH,
                size: 0,
                crc32c: 0,
                extents: Extents::default(),
                damaged: Vec::new(),
            };
            spool.file(&Remembered { record, look: None, sums: Sums::new(true) }).unwrap();
        }
        let mut replayed = Vec::new();
        let each = |file: Remembered| {
            replayed.push(file.record.path.into_os_string());
            Ok(())
        };
        spool.replay(each).unwrap();
        assert_eq!(replayed, names);
    }
}
