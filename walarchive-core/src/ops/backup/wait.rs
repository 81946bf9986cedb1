//! The WAL that a backup needs, on its way to the archive.

use std::time::{Duration, Instant};

use crate::archive::Catalog;
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::postgres::session::BackupSession;
use crate::progress::Progress;
use crate::wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalName, last_segno_before};

const POLL: Duration = Duration::from_millis(200);
const SAY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct WalWait<'a> {
    pub(super) catalog: Catalog,
    pub(super) size: SegmentSize,
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
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
                let archiver;
                (session, archiver) = blocking(move || {
                    let state = session.archiver();
                    Ok((session, state))
                })
                .await?;
                if began.elapsed() >= self.budget {
                    return Err(self.timed_out(&segment, archiver.failing.as_deref()));
                }
                if !said && began.elapsed() >= SAY_AFTER {
                    said = true;
                    self.progress.note(&format!("waiting for WAL segment {segment} to be archived"));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(session)
    }

    async fn is_stored(&self, segment: &SegmentName) -> Result<bool> {
        let key = self.catalog.place.wal(&WalName::Segment(*segment));
        match self.catalog.archive.storage().size(&key).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::Absent => Ok(false),
            Err(error) => Err(error),
        }
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
        .hint("does archive_command push to this archive and this cluster name? See pg_stat_archiver")
    }
}
