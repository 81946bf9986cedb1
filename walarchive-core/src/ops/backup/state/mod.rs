//! What this machine remembers of a backup, in its state directory: every file with where its pages are stored and what
//! they are recognised by. The next backup needs it to tell what has changed; when it is lost, that one is full.
//! Nothing else depends on it, and nothing secret is in it.

mod frame;
mod read;
mod sums;
mod write;

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(super) use self::read::State;
pub(super) use self::sums::Sums;
pub(super) use self::write::Spool;
use crate::archive::{BackupId, Extents, FileRecord, PackRecord};
use crate::error::{Error, Result};
use crate::wal::Lsn;

/// The version that this program writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;
/// The state of the last backup that was committed.
const COMMITTED: &str = "last";
/// The state of a backup that is running, or was cut off: with the backup's id behind it.
const RUNNING: &str = "running.";

/// What is known of a backup when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Changes whenever older programs could misread a state.
    pub(super) version: u32,
    /// The backup.
    pub(super) id: String,
    /// The archive's own id.
    pub(super) archive: String,
    /// The cluster's place in it.
    pub(super) place: String,
    pub(super) timeline: u32,
    pub(super) start: Lsn,
    /// When it began, by this machine's clock.
    pub(super) began: Timestamp,
    /// When the last backup began that stored everything anew.
    pub(super) full_since: Timestamp,
    /// Who can open the packs.
    pub(super) readers: String,
    /// Bytes of a page of the server.
    pub(super) block_size: u32,
    /// Whether pages had checksums; `None` in older states. `pg_checksums` changes every page without a word in the WAL.
    #[serde(default)]
    pub(super) page_checksums: Option<bool>,
}

impl Header {
    pub(super) fn backup(&self) -> Result<BackupId> {
        self.id.parse()
    }
}

/// How a file looked when it was opened: as long as it looks the same, nobody has written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Look {
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    changed: i128,
    status_changed: i128,
}

impl Look {
    pub(super) fn of(facts: &Metadata) -> Look {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Look {
            inode: facts.ino(),
            size: facts.len(),
            changed: nanos(facts.mtime(), facts.mtime_nsec()),
            status_changed: nanos(facts.ctime(), facts.ctime_nsec()),
        }
    }

    /// The look of a file of which two stretches were read, and which may have been written to in between: it is known
    /// by its place alone. `None` if they are of two files.
    pub(super) fn joined(self, later: Option<Look>) -> Option<Look> {
        let later = later.filter(|later| later.inode == self.inode)?;
        let unsettled = Look { changed: i128::from(i64::MAX), ..later };
        Some(if later == self { self } else { unsettled })
    }

    /// Whether it is the same file, whoever has written to it.
    pub(super) fn is_in_place_of(&self, other: &Look) -> bool {
        self.inode == other.inode
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the last change was well before `moment`: a later one cannot carry the same time.
    pub(super) fn is_settled_before(&self, moment: Timestamp) -> bool {
        const MARGIN: i128 = 10_000_000_000;
        self.changed.max(self.status_changed) + MARGIN < moment.as_nanosecond()
    }
}

/// A file as a backup has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remembered {
    pub(super) record: FileRecord,
    /// `None` when it changed while it was copied.
    pub(super) look: Option<Look>,
    /// Of every page.
    pub(super) sums: Sums,
}

/// A file's part of a frame that is text.
#[derive(Serialize, Deserialize)]
struct Text {
    /// Its bytes: a path need not be text.
    path: OsString,
    mode: u32,
    mtime: Timestamp,
    size: u64,
    crc32c: u32,
    extents: Extents,
    damaged: Vec<u32>,
    look: Option<Look>,
}

/// A pack and the number that extents have for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Numbered {
    number: u32,
    pack: PackRecord,
}

/// What is known when a backup has ended.
#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    stop: Lsn,
}

fn failed(path: Option<&std::path::Path>, error: impl Into<std::io::Error>) -> Error {
    let place = path.map_or("a temporary file".to_owned(), |path| path.display().to_string());
    Error::io(format!("cannot use {place} for the backup's list of files"), error.into())
        .hint("WALARCHIVE_STATE_DIR (or TMPDIR, where that cannot be used) names another place for it")
}

/// The directory of a cluster's states.
pub(super) fn dir_of(state_dir: &std::path::Path, archive: &str, place: &str) -> PathBuf {
    state_dir.join("backups").join(archive).join(place)
}
