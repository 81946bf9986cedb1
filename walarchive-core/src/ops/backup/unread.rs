//! Pages that need not be read: the server's WAL summaries say that nothing has changed them since the last backup.
//!
//! The last backup copied every page after its start, so what it has differs from the page at its start only by what the WAL
//! says from there on. What no summary names, from that start to this one, is therefore still good: replay begins here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Run;
use super::base::{Base, BaseFile, Reason};
use super::copy::Copy;
use super::increment::history;
use super::state::{Look, Remembered};
use crate::archive::{Extent, PAGE};
use crate::crossing::blocking;
use crate::error::Result;
use crate::postgres::changes::{Changes, Unchanged};
use crate::postgres::page::RelationFile;
use crate::postgres::session::{BackupSession, Started};
use crate::postgres::summaries::{Summary, Uncovered, covering};
use crate::wal::{Lsn, TimelineHistory, TimelineId};

/// The server may pause so long in summarizing its WAL.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// From the start of the last backup to the start of this one.
struct Since {
    history: TimelineHistory,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
}

impl Run {
    /// What the WAL has changed since the last backup began; `None` where that is not known.
    pub(super) async fn changes(
        &self,
        mut session: BackupSession,
        base: Option<&Base>,
        started: &Started,
        timeline: TimelineId,
    ) -> Result<(Option<Arc<Changes>>, BackupSession)> {
        let Some(base) = base.filter(|_| self.server.summarize_wal) else { return Ok((None, session)) };
        let gathered = match self.since(base, started.start, timeline) {
            Err(reason) => Err(reason),
            Ok(since) => {
                let gathered;
                (gathered, session) = blocking(move || {
                    let gathered = since.gather(&mut session);
                    Ok((gathered.unwrap_or_else(|error| Err(error.story())), session))
                })
                .await?;
                gathered
            }
        };
        match gathered {
            Ok(changes) => Ok((Some(Arc::new(changes)), session)),
            Err(reason) => {
                self.request
                    .progress
                    .note(&format!("WAL summaries are not used, unchanged pages are read: {reason}"));
                Ok((None, session))
            }
        }
    }

    fn since(&self, base: &Base, to: Lsn, timeline: TimelineId) -> Result<Since, Reason> {
        let Some((last, stop)) = base.last() else { return Err("the last backup was cut off".to_owned()) };
        if last.page_checksums != Some(self.server.page_checksums) {
            return Err("page checksums were switched since the last backup, or that is not known".to_owned());
        }
        // Else the files could be taken over as they are later than this backup ends.
        if stop > to {
            return Err(format!("the last backup ended at {stop}, and this one begins at {to}"));
        }
        let own = TimelineId::new(last.timeline).map_err(|error| error.story())?;
        let history = match own == timeline {
            true => TimelineHistory::alone(timeline),
            false => history(&self.data_dir, timeline.get())
                .ok_or_else(|| format!("the server has no history of timeline {timeline}"))?,
        };
        Ok(Since { history, timeline: own, from: last.start, to })
    }
}

impl Since {
    fn gather(&self, session: &mut BackupSession) -> Result<Result<Changes, Reason>> {
        let needed = match self.wait(session)? {
            Ok(needed) => needed,
            Err(Uncovered { timeline, lsn }) => {
                return Ok(Err(format!("none tells of the WAL at {lsn} on timeline {timeline}")));
            }
        };
        let mut changes = Changes::default();
        needed.iter().try_for_each(|summary| session.read_summary(summary, &mut changes))?;
        Ok(Ok(changes))
    }

    /// Waits as long as the server goes on summarizing.
    fn wait(&self, session: &mut BackupSession) -> Result<Result<Vec<Summary>, Uncovered>> {
        let (mut last, mut moved) = (session.summarized()?, Instant::now());
        loop {
            let all = session.summaries()?;
            let uncovered = match covering(&all, &self.history, self.timeline, self.from, self.to) {
                Ok(needed) => return Ok(Ok(needed)),
                Err(uncovered) => uncovered,
            };
            // Summaries are made in order: none will be put in between.
            let is_gap = all.iter().any(|summary| summary.start > uncovered.lsn);
            let now = session.summarized()?;
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            if is_gap || moved.elapsed() >= PATIENCE {
                return Ok(Err(uncovered));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// What of a file need not be read.
pub(super) struct Unread<'a> {
    base: &'a Base,
    known: &'a BaseFile,
    unchanged: Unchanged<'a>,
    relation: RelationFile,
    pages_per_file: u32,
}

/// A page as the base has it: its sum, and where it is, unless it is zeros.
struct Same {
    crc: u32,
    extent: Option<Extent>,
}

impl<'a> Unread<'a> {
    /// `None` if all of the file must be read. `look` is how it looks now.
    pub(super) fn of(
        copy: &'a Copy,
        relation: Option<&RelationFile>,
        earlier: Option<(&'a Base, &'a BaseFile)>,
        look: &Look,
    ) -> Option<Unread<'a>> {
        let (relation, (base, known)) = (*relation?, earlier?);
        let unchanged = copy.changes.as_deref()?.of(&relation)?;
        let pages_per_file = copy.pages_per_file;
        known.goes_on_as(look).then_some(Unread { base, known, unchanged, relation, pages_per_file })
    }

    fn page(&self, number: u32) -> Option<Same> {
        let record = &self.known.record;
        let is_whole = u64::from(number) < record.size / PAGE as u64;
        let block = self.relation.block_no(number, self.pages_per_file)?;
        if !is_whole || !self.unchanged.has(block) || record.damaged.contains(&number) {
            return None;
        }
        let crc = self.known.sums.crc_of(number)?;
        let extent = match record.extents.find(number) {
            Some(extent) => Some(self.base.offer(extent)?),
            None => None,
        };
        Some(Same { crc, extent })
    }

    fn page_at(&self, offset: u64, to: u64) -> Option<Same> {
        let is_whole = to - offset >= PAGE as u64;
        self.page(u32::try_from(offset / PAGE as u64).ok()?).filter(|_| is_whole)
    }

    /// Takes pages over from the base, from byte `from` on, as long as they are unchanged; gives how many bytes.
    pub(super) fn take(&self, from: u64, to: u64, copied: &mut Remembered) -> u64 {
        let mut at = from;
        while at < to
            && let Some(same) = self.page_at(at, to)
        {
            let record = &mut copied.record;
            record.crc32c = copied.sums.add_known(same.crc, record.crc32c);
            if let Some(extent) = same.extent {
                record.extents.push_part(extent);
            }
            at += PAGE as u64;
        }
        at - from
    }

    /// Where the next page is, from byte `from` to byte `to`, that need not be read.
    pub(super) fn next(&self, from: u64, to: u64) -> u64 {
        let mut offsets = (from..to).step_by(PAGE);
        offsets.find(|offset| self.page_at(*offset, to).is_some()).unwrap_or(to)
    }
}
