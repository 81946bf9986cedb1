//! One WAL file into the archive.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::{Archive, ClusterName, ObjectKind, Place, Stored, SystemId};
use crate::codec::{Codec, PlainSink};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::postgres::datadir;
use crate::source::WalFile;
use crate::storage::Created;
use crate::wal::{SegmentName, TimelineHistory, WalName, check_segment};

const FIRST_PAGE: usize = 8192;
/// Times of change are no finer than this on any kernel.
const TICK: Duration = Duration::from_millis(10);
const CHUNK: usize = 256 * 1024;
/// History files and backup history files are a few lines.
const TEXT_MAX: u64 = 1 << 20;

/// How WAL is pushed.
#[derive(Debug, Clone)]
pub struct Push {
    /// Where to.
    pub archive: Archive,
    /// Under whose name.
    pub cluster: ClusterName,
    /// How it is compressed.
    pub codec: Arc<dyn Codec>,
    /// The system identifier that the caller expects; a segment of any other is refused. Without it, the one of the
    /// data directory that the file lies in counts.
    pub system: Option<SystemId>,
}

/// A WAL file that is durable in the archive.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Its key.
    pub key: String,
    /// The cluster it belongs to.
    pub system: SystemId,
    /// What became of it.
    pub stored: Stored,
}

impl Push {
    /// Checks the file, and stores it. Success means that the archive holds exactly this content durably, whether it
    /// was stored now or before. One request in the common case.
    ///
    /// A server that was promoted with archiving off has never offered its timeline's history file; it goes first, as
    /// nobody finds the way to the segment without it.
    pub async fn run(&self, file: &WalFile) -> Result<Pushed> {
        let segment = file.clone();
        if let Some(history) = blocking(move || forgotten_history(&segment)).await? {
            self.push(&history).await?;
        }
        self.push(file).await
    }

    async fn push(&self, file: &WalFile) -> Result<Pushed> {
        let (wal, expected) = (file.clone(), self.system);
        let checked = blocking(move || Checked::look(&wal, expected))
            .await
            .map_err(|error| error.on(file.path.display()))?;
        let system = checked.system;
        let place = Place::of_system(self.cluster.clone(), system);
        let key = place.wal(&file.name);
        match self.store(&key, checked.reopen()?).await {
            Ok(stored) => Ok(Pushed { key, system, stored }),
            Err(error) if error.kind() == Kind::Conflict && matches!(file.name, WalName::Partial(_)) => {
                self.store_beside(&place, &file.name, checked).await
            }
            Err(error) => Err(error.during(format!("storing {}", file.path.display()))),
        }
    }

    async fn store(&self, key: &str, checked: Checked) -> Result<Stored> {
        let content = move |sink: PlainSink<'_>| checked.read(sink);
        self.archive.put(key, ObjectKind::Wal, self.codec.clone(), content).await
    }

    /// Two servers promoted at the same place leave partial segments that differ behind their last record. Both are
    /// kept.
    async fn store_beside(&self, place: &Place, name: &WalName, checked: Checked) -> Result<Pushed> {
        let system = checked.system;
        let again = checked.reopen()?;
        let archive = self.archive.clone();
        let digest = blocking(move || {
            let mut digest = crate::archive::ContentDigest::new(archive.info().id());
            again.read(&mut |bytes| {
                digest.update(bytes);
                Ok(())
            })?;
            Ok(digest.hex())
        })
        .await?;
        let key = place.other_partial(name, &digest);
        let stored = self.store(&key, checked).await?;
        Ok(Pushed { key, system, stored })
    }
}

impl Pushed {
    /// Whether the same content was stored before.
    pub fn was_there(&self) -> bool {
        self.stored.created == Created::Exists
    }
}

/// A WAL file that was looked at and found to be what its name says.
struct Checked {
    file: File,
    path: std::path::PathBuf,
    len: u64,
    changed: (i64, i64),
    system: SystemId,
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
    fn look(wal: &WalFile, expected: Option<SystemId>) -> Result<Checked> {
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
        Ok(Checked {
            file,
            path: wal.path.clone(),
            len,
            changed: (facts.mtime(), facts.mtime_nsec()),
            system,
        })
    }

    fn reopen(&self) -> Result<Checked> {
        Ok(Checked { file: open(&self.path)?, path: self.path.clone(), ..*self })
    }

    /// Gives the whole file, and fails if it changed since it was looked at.
    fn read(mut self, sink: PlainSink<'_>) -> Result<()> {
        // Looking at the first page moved on in the file.
        self.file.rewind().map_err(|error| cannot_read(&self.path, error))?;
        let mut buffer = vec![0; CHUNK];
        let mut total = 0u64;
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    total += count as u64;
                    sink(&buffer[..count])?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot_read(&self.path, error)),
            }
        }
        let now = self.file.metadata().map_err(|error| cannot_read(&self.path, error))?;
        if total != self.len || (now.mtime(), now.mtime_nsec()) != self.changed {
            return Err(Error::new(
                Kind::Local,
                format!("{} changed while it was read; nothing was stored", self.path.display()),
            )
            .on(self.path.display())
            .hint("only completed WAL files may be pushed; is something else writing to it?"));
        }
        Ok(())
    }
}

/// The history file beside a segment that the server neither has archived nor will: it has no note about it.
fn forgotten_history(file: &WalFile) -> Result<Option<WalFile>> {
    let (WalName::Segment(segment), Some(dir)) = (&file.name, file.path.parent()) else { return Ok(None) };
    if segment.timeline.get() == 1 || dir.file_name().is_none_or(|name| name != "pg_wal") {
        return Ok(None);
    }
    let name = WalName::History(segment.timeline);
    let path = dir.join(name.to_string());
    let exists = |path: &Path| path.try_exists().map_err(|error| cannot_read(path, error));
    for note in ["ready", "done"] {
        if exists(&dir.join("archive_status").join(format!("{name}.{note}")))? {
            return Ok(None);
        }
    }
    Ok(exists(&path)?.then_some(WalFile { name, path }))
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
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
