//! Records of files that wait for the manifest, outside of memory: a cluster may have millions.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::{Extents, FileRecord};
use crate::error::{Error, Result};

/// A temporary file of records. It has no name, and is gone with the process.
pub(super) struct Spool(BufWriter<File>);

#[derive(Serialize, Deserialize)]
struct Record {
    /// Its bytes: a path need not be text.
    path: OsString,
    mode: u32,
    mtime: Timestamp,
    size: u64,
    crc32c: u32,
    extents: Extents,
    damaged: Vec<u32>,
}

fn failed(error: impl Into<std::io::Error>) -> Error {
    Error::io("cannot use a temporary file for the backup's list of files", error.into())
        .hint("TMPDIR names another place for it")
}

impl Spool {
    pub(super) fn new() -> Result<Spool> {
        Ok(Spool(BufWriter::new(tempfile::tempfile().map_err(failed)?)))
    }

    pub(super) fn add(&mut self, record: FileRecord) -> Result<()> {
        let FileRecord { path, mode, mtime, size, crc32c, extents, damaged } = record;
        let record = Record { path: path.into(), mode, mtime, size, crc32c, extents, damaged };
        serde_json::to_writer(&mut self.0, &record).map_err(failed)?;
        self.0.write_all(b"\n").map_err(failed)
    }

    /// Gives all records back, in the order in which they came.
    pub(super) fn replay(mut self, mut each: impl FnMut(FileRecord) -> Result<()>) -> Result<()> {
        self.0.flush().map_err(failed)?;
        let mut file = self.0.into_inner().map_err(|error| failed(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        for line in BufReader::new(file).split(b'\n') {
            let record: Record = serde_json::from_slice(&line.map_err(failed)?).map_err(failed)?;
            let Record { path, mode, mtime, size, crc32c, extents, damaged } = record;
            each(FileRecord { path: path.into(), mode, mtime, size, crc32c, extents, damaged })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn names_that_are_not_utf8_come_back() {
        let names = [OsString::from_vec(b"base/\xff\n".to_vec()), OsString::from("base/1")];
        let mut spool = Spool::new().unwrap();
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
            spool.add(record).unwrap();
        }
        let mut replayed = Vec::new();
        spool
            .replay(|record| {
                replayed.push(record.path.into_os_string());
                Ok(())
            })
            .unwrap();
        assert_eq!(replayed, names);
    }
}
