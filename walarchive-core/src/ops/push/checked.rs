//! A WAL file looked at before it is read.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::receipts::{Facts, forget_pages};
use crate::archive::SystemId;
use crate::codec::PlainSink;
use crate::error::{Error, Kind, Result};
use crate::postgres::datadir;
use crate::source::WalFile;
use crate::wal::{SegmentName, SegmentSize, TimelineHistory, WalName, check_segment};

const FIRST_PAGE: usize = 8192;
/// Times of change are no finer than this on any kernel.
const TICK: Duration = Duration::from_millis(10);
const CHUNK: usize = 256 * 1024;
/// History files and backup history files are a few lines.
const TEXT_MAX: u64 = 1 << 20;

/// A WAL file that was looked at and found to be what its name says.
pub(super) struct Checked {
    file: File,
    path: PathBuf,
    pub(super) facts: Facts,
    pub(super) system: SystemId,
    sum: Option<Arc<OnceLock<u32>>>,
}

/// Looks at a file when its time of change is past: later writes within the same tick of the system's clock would not show.
fn settled(file: &File) -> std::io::Result<std::fs::Metadata> {
    let facts = file.metadata()?;
    let age = facts.modified()?.elapsed().unwrap_or(TICK);
    match TICK.checked_sub(age) {
        Some(rest) if !rest.is_zero() => {
            std::thread::sleep(rest);
            file.metadata()
        }
        _ => Ok(facts),
    }
}

impl Checked {
    pub(super) fn look(wal: &WalFile, expected: Option<SystemId>) -> Result<Checked> {
        let mut file = open(&wal.path)?;
        let facts = settled(&file).map_err(|error| cannot_read(&wal.path, error))?;
        let own = system_of_data_dir(&wal.path)?;
        let len = facts.len();
        let found = match &wal.name {
            WalName::Segment(segment) | WalName::Partial(segment) => {
                Some(check_first_page(segment, &mut file, &wal.path, len)?)
            }
            WalName::History(timeline) => {
                let text = read_text(&wal.path)?;
                TimelineHistory::parse(*timeline, &text).map_err(|error| {
                    error.during(format!("{} is not a timeline history", wal.path.display()))
                })?;
                None
            }
            WalName::Backup { .. } => {
                check_backup_history(&wal.path)?;
                None
            }
        };
        let system = decide_system(found, expected, own)?;
        if let WalName::Segment(segment) = &wal.name {
            refuse_unfinished(segment, &wal.path, len)?;
        }
        Ok(Checked { file, path: wal.path.clone(), facts: Facts::of(&facts), system, sum: None })
    }

    pub(super) fn reopen(&self) -> Result<Checked> {
        let (path, sum) = (self.path.clone(), self.sum.clone());
        Ok(Checked { file: open(&self.path)?, path, sum, ..*self })
    }

    /// The same, whose content is summed up as it is read.
    pub(super) fn summed(self) -> Checked {
        Checked { sum: Some(Arc::default()), ..self }
    }

    /// Where the CRC-32C of the content will be, once it was read.
    pub(super) fn sum(&self) -> Arc<OnceLock<u32>> {
        self.sum.clone().unwrap_or_default()
    }

    /// Gives the whole file, and fails if it changed since it was looked at.
    pub(super) fn read(mut self, sink: PlainSink<'_>) -> Result<()> {
        // Looking at the first page moved on in the file.
        self.file.rewind().map_err(|error| cannot_read(&self.path, error))?;
        let mut buffer = vec![0; CHUNK];
        let (mut total, mut sum) = (0u64, 0);
        let _ = fadvise(&self.file, 0, None, Advice::Sequential);
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    total += count as u64;
                    if self.sum.is_some() {
                        sum = crc32c::crc32c_append(sum, &buffer[..count]);
                    }
                    sink(&buffer[..count])?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot_read(&self.path, error)),
            }
        }
        let now = self.file.metadata().map_err(|error| cannot_read(&self.path, error))?;
        if total != self.facts.len || !self.facts.same_content(&Facts::of(&now)) {
            return Err(Error::new(
                Kind::Local,
                format!("{} changed while it was read; nothing was stored", self.path.display()),
            )
            .on(self.path.display())
            .hint("only completed WAL files may be pushed; is something else writing to it?"));
        }
        match self.sum {
            // Whoever asked for the sum reads the file once more.
            Some(place) => drop(place.set(sum)),
            None => forget_pages(&self.file),
        }
        Ok(())
    }
}

pub(super) fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot read {}", path.display()), error).on(path.display())
}

fn open(path: &Path) -> Result<File> {
    // Looked at first: opening a FIFO would wait for a writer.
    let facts = std::fs::metadata(path).map_err(|error| cannot_read(path, error))?;
    if !facts.is_file() {
        return Err(Error::usage(format!("{} is not a file", path.display())).on(path.display()));
    }
    File::open(path).map_err(|error| cannot_read(path, error))
}

fn check_first_page(segment: &SegmentName, file: &mut File, path: &Path, len: u64) -> Result<SystemId> {
    let mut page = Vec::with_capacity(FIRST_PAGE);
    let mut first = file.take(FIRST_PAGE as u64);
    first.read_to_end(&mut page).map_err(|error| cannot_read(path, error))?;
    let header = check_segment(segment, &page, len).map_err(|error| {
        error.during(format!("{} is not the WAL segment that its name says", path.display()))
    })?;
    Ok(SystemId(header.system_id))
}

/// Refuses the segment that the server is still writing to: in a `pg_wal` where it has noted what is complete, what it has no
/// note about is complete only if the next segment was begun.
fn refuse_unfinished(segment: &SegmentName, path: &Path, len: u64) -> Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    // A copy of a pg_wal is what its owner says that it is: nobody goes on writing to it.
    if !dir.parent().is_some_and(|data_dir| data_dir.join("PG_VERSION").exists()) {
        return Ok(());
    }
    let status = dir.join("archive_status");
    let noted = |end: &str| status.join(format!("{segment}.{end}")).exists();
    if !status.is_dir() || noted("ready") || noted("done") {
        return Ok(());
    }
    let next = segment.next(SegmentSize::new(len)?)?;
    // A file that waits to be used again begins with an older address.
    let begun = open(&dir.join(next.to_string()))
        .is_ok_and(|mut file| check_first_page(&next, &mut file, path, len).is_ok());
    if begun {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("{} is still being written, as far as its directory tells; nothing was stored", path.display()),
    )
    .on(path.display())
    .hint(format!(
        "the server has neither noted it as complete (archive_status/{segment}.ready) nor begun the next one; SELECT pg_switch_wal() completes it, \
         and archive_command is asked for it then; of a server that will never run again, push a copy in another directory"
    )))
}

fn read_text(path: &Path) -> Result<Vec<u8>> {
    crate::files::read(path, TEXT_MAX)
}

fn check_backup_history(path: &Path) -> Result<()> {
    let text = read_text(path)?;
    if !text.starts_with(b"START WAL LOCATION: ") || text.contains(&0) {
        return Err(Error::damaged(format!(
            "{} is not a backup history file: it does not begin with START WAL LOCATION",
            path.display()
        )));
    }
    Ok(())
}

/// The system identifier of the data directory around `…/pg_wal/NAME`, if it is one.
fn system_of_data_dir(path: &Path) -> Result<Option<SystemId>> {
    let pg_wal = path.parent().unwrap_or(Path::new(""));
    let data_dir = match pg_wal.parent() {
        Some(dir) if pg_wal.file_name().is_some_and(|name| name == "pg_wal") => dir,
        _ => return Ok(None),
    };
    datadir::system_id_of(data_dir).map(|system| system.map(SystemId))
}

fn decide_system(
    found: Option<SystemId>,
    expected: Option<SystemId>,
    own: Option<SystemId>,
) -> Result<SystemId> {
    let wanted = expected.or(own);
    match (found, wanted) {
        (Some(found), Some(wanted)) if found != wanted => Err(Error::new(
            Kind::WrongCluster,
            format!(
                "the segment belongs to the cluster with system identifier {found}, this one is {wanted}; nothing was stored"
            ),
        )),
        (Some(system), _) | (None, Some(system)) => Ok(system),
        (None, None) => Err(Error::usage("cannot tell which cluster the file belongs to")
            .hint("push it from its data directory (pg_wal/NAME), or set PGDATA, or --system-id")),
    }
}
