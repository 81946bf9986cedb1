//! Whether a backup stores everything anew, or what has changed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::Run;
use super::base::{Base, EARLIER, Fit, Reason};
use super::state::{self, Header, Spool};
use crate::crossing::blocking;
use crate::error::{Kind, Result};
use crate::files;
use crate::postgres::session::Started;
use crate::wal::{Lsn, TimelineHistory, TimelineId, WalName};

const HISTORY_MAX: u64 = 1 << 20;

/// How a backup is begun.
pub(super) struct Beginning {
    pub(super) spool: Spool,
    pub(super) base: Option<Arc<Base>>,
}

impl Run {
    /// Chooses the base, and begins the list of files. The lease must be there.
    pub(super) async fn begin(&self, started: &Started, timeline: TimelineId) -> Result<Beginning> {
        let header = self.header(started.start, timeline);
        let base = match self.base(&header, started.reached).await? {
            Ok(base) => Some(Arc::new(base)),
            Err(reason) => {
                self.request.progress.note(&format!("everything is stored anew: {reason}"));
                None
            }
        };
        let full_since = base.as_ref().and_then(|base| base.full_since).unwrap_or(header.began);
        let spool = self.spool(Header { full_since, ..header }, base.clone()).await?;
        Ok(Beginning { spool, base })
    }

    fn header(&self, start: Lsn, timeline: TimelineId) -> Header {
        let now = Timestamp::now();
        Header {
            version: state::VERSION,
            id: self.id.to_string(),
            archive: self.request.archive.info().id().to_owned(),
            place: format!("{}/{}", self.place.cluster, self.place.room),
            timeline: timeline.get(),
            start,
            began: now,
            full_since: now,
            readers: self.request.archive.readers(),
            block_size: self.control.block_size,
            page_checksums: Some(self.server.page_checksums),
        }
    }

    async fn base(&self, header: &Header, reached: Lsn) -> Result<Result<Base, Reason>> {
        let Some(state_dir) = self.request.state_dir.clone() else {
            return Ok(Err("no state directory is named".to_owned()));
        };
        if self.request.full {
            return Ok(Err("as asked for".to_owned()));
        }
        let dir = state::dir_of(&state_dir, &header.archive, &header.place);
        // What a backup that was cut off has stored may be gone, and what the last one needs is there all the same.
        match self.base_in(&dir, header, reached, true).await? {
            Err(_) => self.base_in(&dir, header, reached, false).await,
            found => Ok(found),
        }
    }

    async fn base_in(
        &self,
        dir: &Path,
        header: &Header,
        reached: Lsn,
        cut_off: bool,
    ) -> Result<Result<Base, Reason>> {
        let (data_dir, full_every, wanted) = (self.data_dir.clone(), self.request.full_every, header.clone());
        let dir = dir.to_owned();
        let chosen = blocking(move || {
            let history = history(&data_dir, wanted.timeline);
            let fit = Fit { header: &wanted, reached, full_every, history: history.as_ref() };
            Base::choose(&dir, &fit, cut_off)
        })
        .await;
        let base = match chosen {
            Ok(Ok(base)) => base,
            Ok(Err(reason)) => return Ok(Err(reason)),
            Err(error) => return Ok(Err(error.story())),
        };
        match base.is_stored(&self.catalog()).await {
            Ok(Ok(())) => Ok(Ok(base)),
            Ok(Err(reason)) => Ok(Err(reason)),
            Err(error) if error.kind() == Kind::Denied => Ok(Err(error.story())),
            Err(error) => Err(error),
        }
    }

    async fn spool(&self, header: Header, base: Option<Arc<Base>>) -> Result<Spool> {
        let (state_dir, progress) = (self.request.state_dir.clone(), self.request.progress.clone());
        let begun = blocking(move || {
            let mut remembered = false;
            let begun = match &state_dir {
                Some(dir) => Spool::begin(&state::dir_of(dir, &header.archive, &header.place), &header),
                None => Spool::nameless(&header),
            };
            let mut spool = match begun {
                Ok(spool) => {
                    remembered = state_dir.is_some();
                    spool
                }
                Err(error) => {
                    progress.note(&format!("the next backup will store everything anew: {}", error.story()));
                    Spool::nameless(&header)?
                }
            };
            for (number, pack) in base.iter().flat_map(|base| base.packs()).enumerate() {
                spool.pack(EARLIER | number as u32, pack)?;
            }
            Ok((spool, remembered))
        });
        let (spool, remembered) = begun.await?;
        self.is_remembered.store(remembered, Ordering::Relaxed);
        Ok(spool)
    }
}

/// The timelines that the server has come along, as far as it has the file that says so.
pub(super) fn history(data_dir: &Path, timeline: u32) -> Option<TimelineHistory> {
    let timeline = TimelineId::new(timeline).ok()?;
    let path = data_dir.join("pg_wal").join(WalName::History(timeline).to_string());
    TimelineHistory::parse(timeline, &files::read(&path, HISTORY_MAX).ok()?).ok()
}
