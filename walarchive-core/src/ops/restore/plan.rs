//! Which backup, which timelines, which WAL: decided, and proven to be there, before anything is written. Pure.

use jiff::Timestamp;
use serde::Serialize;

use super::target::{Target, TimelineChoice};
use crate::archive::{Backup, BackupId, Inventory};
use crate::error::{Error, Kind, Result};
use crate::wal::coverage::{self, ChainCoverage};
use crate::wal::{Lsn, SegmentSize, TimelineHistory, TimelineId, last_segno_before};

/// What the WAL was found to say about a target; positions and times that only the WAL's records tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where the record is that recovery stops at (`xid`, `name`): one past it.
    pub at: Option<Lsn>,
    /// When the last transaction ended (`time`).
    pub last_time: Option<Timestamp>,
    /// A position up to which records are known to begin (`lsn`): recovery stops only where one does.
    pub last_record: Option<Lsn>,
    /// WAL segments behind it that are damaged.
    pub passed_over: Vec<String>,
}

impl Found {
    /// Whether it proves that recovery stops at the target, whatever comes behind.
    pub fn reaches(&self, target: &Target) -> bool {
        match target {
            Target::Time(time) => self.last_time.is_some_and(|last| last > *time),
            Target::Lsn(lsn) => self.last_record.is_some_and(|last| last >= *lsn),
            Target::Xid(_) | Target::Name(_) => self.at.is_some(),
            Target::Latest | Target::Immediate => false,
        }
    }
}

/// A restore, before it is carried out.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The backup to start from.
    pub backup: String,
    /// What the restore aims at.
    pub to: String,
    /// The timeline that recovery follows.
    pub timeline: u32,
    /// The timelines that recovery passes through, oldest first.
    pub timelines: Vec<u32>,
    /// The first WAL segment that recovery needs.
    pub first_segment: String,
    /// The last WAL segment that is stored without a gap from there, if recovery may read so far.
    pub last_segment: String,
    /// Where the stored WAL ends.
    pub wal_end: Lsn,
    /// When the backup was complete: no earlier moment can be reached from it.
    pub backup_finished_at: Timestamp,
    /// Things to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The timeline's history.
    #[serde(skip)]
    pub history: TimelineHistory,
    /// The backup's name.
    #[serde(skip)]
    pub id: BackupId,
    /// WAL segments behind the target that are damaged, as far as they were looked at.
    #[serde(skip)]
    pub passed_over: Vec<String>,
}

/// What a restore was asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Where recovery ends.
    pub target: Target,
    /// Which backup, if not the best one.
    pub backup: Option<BackupId>,
    /// Which timeline.
    pub timeline: TimelineChoice,
}

/// A backup that a target may be reached from, and the WAL behind it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The line of timelines that recovery follows.
    pub history: TimelineHistory,
    /// The WAL of that line from the backup's start on.
    pub chain: ChainCoverage,
    /// The cluster's segment size.
    pub size: SegmentSize,
}

fn unrestorable(message: String) -> Error {
    Error::new(Kind::Unrestorable, message)
}

fn start_of(backup: &Backup) -> Result<TimelineId> {
    TimelineId::new(backup.facts.timeline)
        .map_err(|error| Error::damaged("a manifest names timeline 0").because(error).on(&backup.id))
}

/// The newest timeline, as PostgreSQL finds it: by asking for the next one until there is none.
fn newest_timeline(inventory: &Inventory, from: TimelineId) -> TimelineId {
    let mut newest = from;
    while let Ok(next) = TimelineId::new(newest.get().saturating_add(1))
        && next != newest
        && (inventory.histories.contains_key(&next) || inventory.damaged_histories.contains_key(&next))
    {
        newest = next;
    }
    newest
}

fn line_of(inventory: &Inventory, wish: &Wish, own: TimelineId) -> Result<TimelineHistory> {
    let timeline = match wish.timeline {
        TimelineChoice::Latest => newest_timeline(inventory, own),
        TimelineChoice::Current => own,
        TimelineChoice::Is(timeline) => timeline,
    };
    match inventory.histories.get(&timeline) {
        Some(history) => Ok(history.clone()),
        None if inventory.damaged_histories.contains_key(&timeline) => {
            let story = &inventory.damaged_histories[&timeline];
            Err(Error::damaged(format!("the history of timeline {timeline} is damaged: {story}"))
                .hint("--timeline with another number, or 'current', does without it"))
        }
        None if timeline == own => Ok(TimelineHistory::alone(timeline)),
        None => Err(unrestorable(format!(
            "timeline {timeline} is unknown: the archive has no {}.history",
            timeline.hex8()
        ))
        .hint("'walarchive wal list' shows the timelines")),
    }
}

/// How near a backup comes to what is wished; of several that will not do, the nearest says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    /// It is of another line of timelines.
    Elsewhere,
    /// It ends behind the target.
    Later,
    /// It would do, but for WAL that is missing.
    WalMissing,
}

/// Why a backup will not do.
struct Refusal {
    near: Near,
    error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { near: Near::Elsewhere, error }
    }
}

/// The backups that the wish allows, newest first, each with its WAL.
///
/// # Errors
/// `Unrestorable` when none will do, with the reason of the one that comes nearest; `Absent` when there is none;
/// `Damaged` for a manifest that names the impossible.
pub fn candidates<'a>(inventory: &'a Inventory, wish: &Wish) -> Result<Vec<Candidate<'a>>> {
    let mut found = Vec::new();
    let mut refused: Option<Refusal> = None;
    for backup in inventory.backups.iter().rev() {
        if wish.backup.as_ref().is_some_and(|id| *id != backup.id) {
            continue;
        }
        match candidate(inventory, wish, backup) {
            Ok(candidate) => found.push(candidate),
            Err(refusal) if refusal.error.kind() != Kind::Unrestorable => return Err(refusal.error),
            Err(refusal) if refused.as_ref().is_none_or(|best| best.near < refusal.near) => {
                refused = Some(refusal);
            }
            Err(_) => {}
        }
    }
    let mut damaged = inventory.damaged.iter().rev();
    let damaged = damaged.find(|(id, _)| wish.backup.as_ref().is_none_or(|wanted| wanted == *id));
    if let (true, None, Some((id, story))) = (found.is_empty(), &refused, damaged) {
        return Err(Error::damaged(format!("backup {id} is damaged: {story}")).on(id));
    }
    match (found.is_empty(), refused, &wish.backup) {
        (false, _, _) => Ok(found),
        (true, Some(Refusal { near: Near::Later, error }), _) => Err(error.hint(earliest(inventory, wish))),
        (true, Some(refusal), _) => Err(refusal.error),
        (true, None, Some(id)) => Err(Error::new(Kind::Absent, format!("there is no backup {id}"))
            .hint("'walarchive backup list' shows what there is")),
        (true, None, None) => Err(Error::new(Kind::Absent, "the archive holds no backup of this cluster")
            .hint("'walarchive backup create' makes one")),
    }
}

fn candidate<'a>(
    inventory: &'a Inventory,
    wish: &Wish,
    backup: &'a Backup,
) -> std::result::Result<Candidate<'a>, Refusal> {
    let facts = &backup.facts;
    let own = start_of(backup)?;
    let history = line_of(inventory, wish, own)?;
    if !history.is_ancestor_position(own, facts.stop_lsn) {
        return Err(unrestorable(format!(
            "backup {} ends at {} on timeline {own}, which is not part of the past of timeline {}",
            backup.id, facts.stop_lsn, history.timeline
        ))
        .hint("choose another backup, or another --timeline")
        .into());
    }
    if let Some(error) = later_than(&wish.target, backup) {
        return Err(Refusal { near: Near::Later, error });
    }
    let size = SegmentSize::new(facts.segment_size).map_err(|error| {
        Error::damaged("a manifest names an impossible segment size").because(error).on(&backup.id)
    })?;
    let chain = coverage::chain(&history, &inventory.segments, facts.start_lsn.segno(size), size);
    let last = last_segno_before(facts.stop_lsn, size);
    if !chain.covers(chain.from_segno, last) {
        let error = unrestorable(format!(
            "backup {} cannot be restored: WAL segment {} is not in the archive",
            backup.id,
            chain.name(chain.end_segno)?
        ));
        return Err(Refusal { near: Near::WalMissing, error });
    }
    Ok(Candidate { backup, history, chain, size })
}

fn later_than(target: &Target, backup: &Backup) -> Option<Error> {
    let facts = &backup.facts;
    let (target, end) = match target {
        Target::Time(time) if facts.finished_at > *time => (time.to_string(), facts.finished_at.to_string()),
        Target::Lsn(lsn) if facts.stop_lsn > *lsn => (lsn.to_string(), facts.stop_lsn.to_string()),
        _ => return None,
    };
    Some(unrestorable(format!("the target {target} is before the end of backup {} ({end})", backup.id)))
}

/// The earliest moment of the wished line for which backup and WAL are there.
fn earliest(inventory: &Inventory, wish: &Wish) -> String {
    let any = Wish { target: Target::Immediate, backup: None, timeline: wish.timeline };
    match inventory.backups.iter().find(|backup| candidate(inventory, &any, backup).is_ok()) {
        Some(first) => format!(
            "the earliest moment that can be restored is {} ({}), with backup {}",
            first.facts.finished_at, first.facts.stop_lsn, first.id
        ),
        None => "no backup can be restored, as WAL is missing; 'walarchive wal list' shows what is stored"
            .to_owned(),
    }
}

impl Candidate<'_> {
    /// One past the last byte of the WAL segments that are stored without a gap.
    fn stored_end(&self) -> Lsn {
        Lsn(self.chain.end_segno.saturating_mul(self.size.bytes()))
    }

    fn gap(&self) -> Result<Option<String>> {
        match self.chain.missing.first() {
            Some(missing) => Ok(Some(missing.to_string())),
            None => Ok(None),
        }
    }

    fn no_further(&self, target: &str, because: &str) -> Result<Error> {
        let end = match self.gap()? {
            Some(missing) => format!("WAL segment {missing} is missing from the archive"),
            None => because.to_owned(),
        };
        Ok(unrestorable(format!("the target {target} cannot be reached: {end}")).hint(match self.gap()? {
            Some(_) => format!("--to lsn:{} restores all before the gap", self.stored_end()),
            None => "--to latest restores all that is stored".to_owned(),
        }))
    }

    /// Whether the WAL that is stored leads to the target, given what was found in it.
    pub fn check(&self, target: &Target, found: &Found) -> Result<()> {
        let stop = self.backup.facts.stop_lsn;
        match target {
            Target::Immediate => Ok(()),
            Target::Latest => match self.gap()? {
                None => Ok(()),
                Some(missing) => Err(unrestorable(format!(
                    "the latest state cannot be reached: WAL segment {missing} is missing, and later segments are stored"
                ))
                .hint(format!("--to lsn:{} restores all before the gap", self.stored_end()))),
            },
            Target::Time(time) => match found.last_time {
                Some(last) if last > *time => Ok(()),
                Some(last) => Err(self.no_further(&time.to_string(), &format!("the last transaction in the archive is of {last}"))?),
                None => Err(self.no_further(&time.to_string(), "the archive holds no transaction after the backup")?),
            },
            Target::Lsn(lsn) => match found.last_record {
                Some(last) if last >= *lsn => Ok(()),
                Some(last) => Err(self.no_further(&lsn.to_string(), &format!("the last record of the WAL in the archive begins at {last}"))?),
                None => Err(self.no_further(&lsn.to_string(), &format!("the WAL in the archive ends before {}", self.stored_end()))?),
            },
            Target::Xid(_) | Target::Name(_) => match found.at {
                Some(at) if at > stop => Ok(()),
                Some(at) => Err(unrestorable(format!(
                    "the target {target} (at {at}) is before the end of backup {} ({stop})",
                    self.backup.id
                ))),
                None => Err(self.no_further(&target.to_string(), "it is not in the WAL in the archive")?),
            },
        }
    }

    /// The plan.
    pub fn plan(&self, wish: &Wish) -> Result<Plan> {
        let facts = &self.backup.facts;
        let own = start_of(self.backup)?;
        let mut timelines: Vec<u32> =
            self.history.newest_first().map(|(timeline, _)| timeline.get()).collect();
        timelines.reverse();
        timelines.retain(|timeline| *timeline >= own.get());
        let mut notes = Vec::new();
        if facts.damaged_pages > 0 {
            notes.push(format!(
                "{} pages of this backup failed their checksum when it was taken",
                facts.damaged_pages
            ));
        }
        Ok(Plan {
            backup: self.backup.id.to_string(),
            to: wish.target.to_string(),
            timeline: self.history.timeline.get(),
            timelines,
            first_segment: self.chain.name(self.chain.from_segno)?.to_string(),
            last_segment: self.chain.name(self.chain.end_segno.saturating_sub(1))?.to_string(),
            wal_end: self.stored_end(),
            backup_finished_at: facts.finished_at,
            notes,
            history: self.history.clone(),
            id: self.backup.id.clone(),
            passed_over: Vec::new(),
        })
    }
}
