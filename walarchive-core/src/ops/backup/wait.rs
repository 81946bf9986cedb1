//! The WAL that a backup needs, on its way to the archive.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::archive::{Catalog, ContentDigest, ObjectKind};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::postgres::session::BackupSession;
use crate::progress::Progress;
use crate::wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalName, check_segment, last_segno_before};

const READ: usize = 256 * 1024;
const FIRST_PAGE: u64 = 8192;
const POLL: Duration = Duration::from_millis(200);
const SAY_AFTER: Duration = Duration::from_secs(5);
/// A segment that the primary has archived is nearly at its standbys, too.
const RECEIVING: Duration = Duration::from_secs(5);
const FROM_PRIMARY: &str =
    "does archive_command push to this archive and this cluster name? See pg_stat_archiver";
const FROM_STANDBY: &str = "does the primary's archive_command push to this archive and this cluster name? It archives a \
    segment that is not full only after SELECT pg_switch_wal() there, or archive_timeout";

pub(super) struct WalWait<'a> {
    pub(super) catalog: Catalog,
    pub(super) data_dir: &'a Path,
    pub(super) size: SegmentSize,
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    /// Somebody else archives the WAL then, and completes its segments.
    pub(super) is_standby: bool,
    pub(super) budget: Duration,
    pub(super) progress: &'a dyn Progress,
}

impl WalWait<'_> {
    /// Waits until every segment from the start to the end of the backup is stored.
    pub(super) async fn run(&self, mut session: BackupSession) -> Result<BackupSession> {
        let began = Instant::now();
        let mut said = false;
        for segno in self.start.segno(self.size)..=last_segno_before(self.stop, self.size) {
            let segment = SegmentName::from_segno(self.timeline, segno, self.size)?;
            while !self.is_stored(&segment).await? {
                self.progress.advance(0)?;
                let archiver;
                (session, archiver) = blocking(move || {
                    let state = session.archiver();
                    Ok((session, state))
                })
                .await?;
                if began.elapsed() >= self.budget {
                    return Err(self.timed_out(&segment, archiver.failing.as_deref()));
                }
                if !said && (began.elapsed() >= SAY_AFTER || archiver.failing.is_some()) {
                    said = true;
                    self.say(&segment, archiver.failing.as_deref());
                }
                tokio::time::sleep(POLL).await;
            }
            let is_whole;
            (session, is_whole) = self.is_received(session, segno).await?;
            if is_whole {
                self.is_ours(&segment).await?;
            }
        }
        Ok(session)
    }

    fn say(&self, segment: &SegmentName, failing: Option<&str>) {
        let seconds = self.budget.as_secs();
        let primary = match self.is_standby {
            true => {
                " by the primary, once it is full, or after SELECT pg_switch_wal() there, or archive_timeout"
            }
            false => "",
        };
        let failing = failing.map(|name| format!("; the server's archiver fails at {name}"));
        self.progress.note(&format!(
            "waiting up to {seconds} s for WAL segment {segment} to be archived{primary}{}",
            failing.unwrap_or_default()
        ));
    }

    /// Whether the server has all of the segment. A standby may have the last one in part only; it is given some time.
    async fn is_received(&self, mut session: BackupSession, segno: u64) -> Result<(BackupSession, bool)> {
        let end = Lsn(segno.saturating_add(1).saturating_mul(self.size.bytes()));
        let began = Instant::now();
        loop {
            self.progress.advance(0)?;
            let received;
            (session, received) = blocking(move || {
                let received = session.received()?;
                Ok((session, received))
            })
            .await?;
            let is_whole = received.is_none_or(|received| received >= end);
            if is_whole || began.elapsed() >= RECEIVING {
                return Ok((session, is_whole));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_stored(&self, segment: &SegmentName) -> Result<bool> {
        let key = self.catalog.place.wal(&WalName::Segment(*segment));
        self.catalog.archive.is_stored(&key).await
    }

    /// Proves that the stored segment is this server's own, as long as the server still has it: a copy of the cluster
    /// that archives to the same place would have stored another one under its name.
    async fn is_ours(&self, segment: &SegmentName) -> Result<()> {
        let path = self.data_dir.join("pg_wal").join(segment.to_string());
        let mut digest = ContentDigest::new(self.catalog.archive.info().id());
        let own = blocking(move || {
            let Ok(mut file) = std::fs::File::open(&path) else { return Ok(None) };
            let mut buffer = vec![0; READ];
            loop {
                match file
                    .read(&mut buffer)
                    .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?
                {
                    0 => return Ok(Some(digest.hex())),
                    count => digest.update(&buffer[..count]),
                }
            }
        })
        .await?;
        let key = self.catalog.place.wal(&WalName::Segment(*segment));
        let stored = self.catalog.archive.look_at(&key, ObjectKind::Wal).await?.binding.digest;
        // A segment that the server has recycled since is gone under this name, or another one's by now.
        if own.is_none() || own == stored || self.is_recycled(segment).await? {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!("the backup was not committed: the archive holds a segment {segment} that is not this server's"),
        )
        .on(key)
        .hint("does a copy of this cluster archive to the same place? Give one of them another cluster name or archive"))
    }

    /// Whether the file of that name does not begin as the segment does.
    async fn is_recycled(&self, segment: &SegmentName) -> Result<bool> {
        let (path, segment) = (self.data_dir.join("pg_wal").join(segment.to_string()), *segment);
        blocking(move || {
            let mut page = Vec::new();
            let read = std::fs::File::open(&path).and_then(|file| {
                let len = file.metadata()?.len();
                file.take(FIRST_PAGE).read_to_end(&mut page).map(|_| len)
            });
            Ok(read.map_or(true, |len| check_segment(&segment, &page, len).is_err()))
        })
        .await
    }

    fn timed_out(&self, segment: &SegmentName, failing: Option<&str>) -> Error {
        let seconds = self.budget.as_secs();
        let archiver = match failing {
            Some(name) => format!("; PostgreSQL's archiver fails at {name}, its log says why"),
            None => String::new(),
        };
        Error::new(
            Kind::Unrestorable,
            format!(
                "the backup was not committed: WAL segment {segment}, which it needs, is not in this archive after {seconds} s{archiver}"
            ),
        )
        .on(self.catalog.place.wal(&WalName::Segment(*segment)))
        .hint(if self.is_standby { FROM_STANDBY } else { FROM_PRIMARY })
    }
}
