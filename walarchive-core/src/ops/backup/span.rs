//! Between the start and the end of the server's backup mode.

use super::copy::Copy;
use super::increment::Beginning;
use super::{Parts, Run, at};
use crate::archive::PackSink;
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::postgres::control::ControlFile;
use crate::postgres::datadir::{self, Contents};
use crate::postgres::session::{BackupSession, Started, Stopped};
use crate::wal::TimelineId;

impl Run {
    /// Copies everything that changes while the server is in backup mode, pg_control last: on a standby it says how far
    /// recovery must come before the files fit together.
    pub(super) async fn copy(&self, session: BackupSession) -> Result<(BackupSession, Parts)> {
        let (started, session) = self.start(session).await?;
        let timeline = TimelineId::new(started.timeline)?;
        self.stays_on(timeline).await?;
        let Beginning { spool, base } = self.begin(&started, timeline).await?;
        let (changes, session) = self.changes(session, base.as_deref(), &started, timeline).await?;
        let mut contents = self.contents().await?;
        for link in &contents.skipped {
            self.request.progress.note(&format!(
                "{} is a link to a directory and is left out, as pg_basebackup does",
                at(link)
            ));
        }
        let copy = Copy {
            sink: self.sink()?,
            data_dir: self.data_dir.clone(),
            start: started.start,
            verify: self.server.page_checksums && self.control.block_size as usize == crate::archive::PAGE,
            pages_per_file: self.control.relseg_size,
            jobs: self.request.jobs.max(1),
            progress: self.request.progress.clone(),
            base: base.clone(),
            changes,
        };
        let copied = copy.run(std::mem::take(&mut contents.files), spool).await?;
        let (_, control) = self.read_control().await?;
        let (stopped, session) = stop(session).await?;
        self.stays_on(timeline).await?;
        proves(&stopped, &started)?;
        let copied = copy.texts(copied, &stopped, control).await?;
        Ok((session, Parts { copied, contents, base, start: started.start, timeline, stopped }))
    }

    async fn start(&self, mut session: BackupSession) -> Result<(Started, BackupSession)> {
        let (label, fast) = (format!("walarchive {}", self.id), self.request.fast_checkpoint);
        blocking(move || {
            let started = session.start(&label, fast)?;
            Ok((started, session))
        })
        .await
    }

    async fn read_control(&self) -> Result<(ControlFile, Vec<u8>)> {
        let data_dir = self.data_dir.clone();
        blocking(move || datadir::read_control(&data_dir)).await
    }

    /// A standby may follow its primary to another timeline; a backup is of one alone.
    async fn stays_on(&self, timeline: TimelineId) -> Result<()> {
        if !self.server.in_recovery {
            return Ok(());
        }
        let (control, _) = self.read_control().await?;
        match control.min_recovery_point_timeline {
            0 => Ok(()),
            now if now == timeline.get() => Ok(()),
            now => Err(Error::new(
                Kind::Busy,
                format!("the standby went on to timeline {now}, and the backup began on timeline {timeline}"),
            )
            .hint("nothing was stored as a backup; start again when the new primary has made a checkpoint")),
        }
    }

    async fn contents(&self) -> Result<Contents> {
        let version_dir = format!("PG_{}_{}", self.server.major, self.control.catalog_version);
        let data_dir = self.data_dir.clone();
        blocking(move || datadir::contents(&data_dir, &version_dir)).await
    }

    fn sink(&self) -> Result<PackSink> {
        let (archive, place) = (self.request.archive.clone(), self.place.clone());
        PackSink::new(archive, place, self.id.clone(), self.request.codec.clone())
    }
}

async fn stop(mut session: BackupSession) -> Result<(Stopped, BackupSession)> {
    blocking(move || {
        let stopped = session.stop()?;
        Ok((stopped, session))
    })
    .await
}

/// Proves that the WAL which the server's label names is the WAL that the backup is taken to need.
fn proves(stopped: &Stopped, started: &Started) -> Result<()> {
    let timeline = stopped.start_timeline();
    if timeline.is_some_and(|timeline| timeline != started.timeline) || stopped.stop_lsn <= started.start {
        return Err(Error::new(
            Kind::Busy,
            format!(
                "the backup began at {} on timeline {}, and the server says that it ended at {} and began on timeline {}",
                started.start,
                started.timeline,
                stopped.stop_lsn,
                timeline.unwrap_or(started.timeline)
            ),
        )
        .hint("nothing was stored as a backup; was there a promotion just now? Start again"));
    }
    Ok(())
}
