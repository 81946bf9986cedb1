//! Which stretches of the past backups and WAL lead to.

use jiff::Timestamp;
use serde::Serialize;

use super::{Backup, Histories};
use crate::error::{Error, Result};
use crate::wal::coverage::{self, Stored};
use crate::wal::{Lsn, SegmentSize, TimelineHistory, TimelineId, last_segno_before};

/// A stretch of the past that can be restored, on the line of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recoverable {
    /// The timeline; the stretch may begin on one of its ancestors.
    pub timeline: u32,
    /// The first moment.
    pub from: Option<Timestamp>,
    /// The last moment; unknown, as only the WAL itself tells.
    pub to: Option<Timestamp>,
    /// The first position.
    pub from_lsn: Lsn,
    /// Where the stored WAL ends, or has a gap.
    pub to_lsn: Lsn,
}

/// The stretches of each timeline's line that can be restored: from each backup's end as far as the WAL goes without a
/// gap. Stretches that meet are one.
///
/// # Errors
/// `Damaged` for a backup that names the impossible.
pub fn recoverable(
    backups: &[Backup],
    stored: &Stored,
    histories: &Histories,
    size: SegmentSize,
) -> Result<Vec<Recoverable>> {
    let mut lines = histories.clone();
    for timeline in stored.keys() {
        lines.entry(*timeline).or_insert_with(|| TimelineHistory::alone(*timeline));
    }
    let mut all = Vec::new();
    for (timeline, line) in &lines {
        // An ancestor's stretch up to the branch is part of the child's; the ancestor's own goes on elsewhere.
        if !stored.contains_key(timeline) {
            continue;
        }
        let mut stretches: Vec<Recoverable> = Vec::new();
        for backup in backups {
            let Some(stretch) = stretch(backup, stored, line, size)? else { continue };
            match stretches.iter_mut().find(|known| known.to_lsn == stretch.to_lsn) {
                Some(known) if known.from_lsn <= stretch.from_lsn => {}
                Some(known) => *known = stretch,
                None => stretches.push(stretch),
            }
        }
        stretches.sort_by_key(|stretch| stretch.from_lsn);
        all.extend(stretches);
    }
    Ok(all)
}

/// What can be restored with one backup along a line.
fn stretch(
    backup: &Backup,
    stored: &Stored,
    line: &TimelineHistory,
    size: SegmentSize,
) -> Result<Option<Recoverable>> {
    let facts = &backup.facts;
    let own = TimelineId::new(facts.timeline)
        .map_err(|error| Error::damaged("a manifest names timeline 0").because(error).on(&backup.id))?;
    if facts.segment_size != size.bytes() || !line.is_ancestor_position(own, facts.stop_lsn) {
        return Ok(None);
    }
    let chain = coverage::chain(line, stored, facts.start_lsn.segno(size), size);
    if !chain.covers(chain.from_segno, last_segno_before(facts.stop_lsn, size)) {
        return Ok(None);
    }
    Ok(Some(Recoverable {
        timeline: line.timeline.get(),
        from: Some(facts.finished_at),
        to: None,
        from_lsn: facts.stop_lsn,
        to_lsn: Lsn(chain.end_segno.saturating_mul(size.bytes())),
    }))
}

/// Backups that the stored WAL does not make consistent.
pub fn without_wal<'a>(backups: &'a [Backup], stored: &Stored, size: SegmentSize) -> Vec<&'a Backup> {
    let lacks = |backup: &&Backup| {
        let facts = &backup.facts;
        let Ok(own) = TimelineId::new(facts.timeline) else { return true };
        let (first, last) = (facts.start_lsn.segno(size), last_segno_before(facts.stop_lsn, size));
        let chain = coverage::chain(&TimelineHistory::alone(own), stored, first, size);
        facts.segment_size != size.bytes() || !chain.covers(first, last)
    };
    backups.iter().filter(lacks).collect()
}
