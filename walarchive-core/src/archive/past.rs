//! The WAL that is stored of a cluster: which stretches of the past it leads through, and what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Backup, Catalog, ObjectKind, Place, StoredWal};
use crate::error::{Error, Kind, Result};
use crate::wal::coverage::{self, Stored};
use crate::wal::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalName, last_segno_before};

/// Timeline histories by timeline.
pub type Histories = BTreeMap<TimelineId, TimelineHistory>;

/// The WAL of a cluster.
#[derive(Debug, Default)]
pub struct Past {
    /// All of it, by names.
    pub wal: StoredWal,
    /// The segment size; none while nothing is stored.
    pub size: Option<SegmentSize>,
    /// The histories that could be read.
    pub histories: Histories,
    /// The segments by number, without those that single backups alone need: retention has taken what was between, so
    /// nothing is missing there.
    pub continuous: Stored,
    /// Histories that are missing or cannot be read.
    pub problems: Vec<Error>,
}

impl Past {
    /// Segments that are missing between stored ones, at most [`MISSING_LISTED`](coverage::MISSING_LISTED) of each timeline.
    pub fn missing(&self) -> Vec<SegmentName> {
        let Some(size) = self.size else { return Vec::new() };
        let ranges = coverage::timeline_ranges(&self.continuous, &self.histories, size);
        ranges.into_iter().flat_map(|range| range.missing).collect()
    }
}

impl Catalog {
    /// Looks at the cluster's WAL: one listing, one look at a segment, and the timeline history files.
    pub async fn past(&self) -> Result<Past> {
        let wal = self.wal().await?;
        let mut problems = Vec::new();
        let size = segment_size(self, &wal).await?;
        let histories = histories(self, &wal, &mut problems).await;
        problems.extend(wal.without_history().map(|timeline| no_history(&self.place, timeline)));
        let continuous = match size {
            Some(size) => continuous(self, &wal, &histories, size).await?,
            None => Stored::default(),
        };
        Ok(Past { wal, size, histories, continuous, problems })
    }
}

/// Between two looks at what is missing.
const PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked at while more WAL is stored.
const LOOKS: usize = 8;

impl Catalog {
    /// What is [missing](Past::missing), and was still when it was looked for again: a server that catches up stores several segments at
    /// once, and any of them may be there first. Takes two seconds when something is missing, and a few more while segments come.
    pub async fn missing(&self, past: &Past) -> Result<Vec<SegmentName>> {
        let count = |wal: &StoredWal| wal.segments.values().map(BTreeSet::len).sum::<usize>();
        let (mut missing, mut before) = (past.missing(), count(&past.wal));
        for _ in 0..LOOKS {
            if missing.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let later = self.past().await?;
            let still: BTreeSet<SegmentName> = later.missing().into_iter().collect();
            missing.retain(|name| still.contains(name));
            let now = count(&later.wal);
            if now == before {
                break;
            }
            before = now;
        }
        Ok(missing)
    }
}

/// How many segments are asked for the segment size, when the newest ones are damaged.
const ASKED: usize = 5;

/// The segment size of the cluster, from the length of the newest stored segment that tells it.
pub async fn segment_size(catalog: &Catalog, wal: &StoredWal) -> Result<Option<SegmentSize>> {
    let mut segments: Vec<_> = wal.segments.values().flatten().chain(&wal.partials).collect();
    segments.sort();
    let mut damaged = None;
    for segment in segments.into_iter().rev().take(ASKED) {
        match length_of(catalog, wal, segment).await {
            Ok(size) => return Ok(Some(size)),
            Err(error) if error.kind() == Kind::Damaged => damaged = damaged.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    damaged.map_or(Ok(None), Err)
}

async fn length_of(catalog: &Catalog, wal: &StoredWal, segment: &SegmentName) -> Result<SegmentSize> {
    let name = match wal.partials.contains(segment) {
        true => WalName::Partial(*segment),
        false => WalName::Segment(*segment),
    };
    let key = catalog.place.wal(&name);
    let outside = catalog.archive.look_at(&key, ObjectKind::Wal).await?;
    let bytes =
        outside.binding.plain.ok_or_else(|| Error::damaged("a segment does not say its length").on(&key))?;
    SegmentSize::new(bytes)
        .map_err(|error| Error::damaged("a stored segment has an impossible length").because(error).on(&key))
}

/// What it means that the archive lacks a timeline's history file.
fn no_history(place: &Place, timeline: TimelineId) -> Error {
    let name = WalName::History(timeline);
    let message = format!(
        "timeline {timeline} has WAL, but {name} is not in the archive: no restore finds its way there"
    );
    Error::new(Kind::Absent, message)
        .on(place.wal(&WalName::History(timeline)))
        .hint(format!("on the server that made it, 'walarchive wal push pg_wal/{name}'"))
}

async fn histories(catalog: &Catalog, wal: &StoredWal, problems: &mut Vec<Error>) -> Histories {
    let mut histories = Histories::new();
    for timeline in &wal.histories {
        match catalog.history(*timeline).await {
            Ok(history) => drop(histories.insert(*timeline, history)),
            Err(error) if error.kind() == Kind::Key => {
                let message = "branch points are not shown: reading timeline histories needs an identity";
                problems.push(Error::new(Kind::Key, message));
                break;
            }
            Err(error) => problems.push(error),
        }
    }
    histories
}

/// What is stored, but for what single backups alone need: retention has taken what was behind it, and nothing is missing
/// there. Without an identity that cannot be told.
async fn continuous(
    catalog: &Catalog,
    wal: &StoredWal,
    histories: &Histories,
    size: SegmentSize,
) -> Result<Stored> {
    let stored = wal.by_number(size);
    let ranges = coverage::timeline_ranges(&stored, histories, size);
    if ranges.iter().all(|range| range.missing_count == 0) {
        return Ok(stored);
    }
    match catalog.sound_backups().await {
        Ok((backups, _)) => Ok(without_islands(stored, &backups, histories, size)),
        Err(error) if error.kind() == Kind::Key => Ok(stored),
        Err(error) => Err(error),
    }
}

fn without_islands(
    mut stored: Stored,
    backups: &[Backup],
    histories: &Histories,
    size: SegmentSize,
) -> Stored {
    let needed = |timeline: TimelineId, segno: u64| {
        backups.iter().any(|backup| {
            let facts = &backup.facts;
            let own = facts.timeline == timeline.get()
                || TimelineId::new(facts.timeline)
                    .ok()
                    .and_then(|own| histories.get(&own))
                    .is_some_and(|line| line.contains(timeline));
            own && (facts.start_lsn.segno(size)..=last_segno_before(facts.stop_lsn, size)).contains(&segno)
        })
    };
    let newest = stored.keys().max().copied();
    for (timeline, segments) in &mut stored {
        let mut runs: Vec<Vec<u64>> = Vec::new();
        for segno in segments.iter() {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|last| last + 1 == *segno) => run.push(*segno),
                _ => runs.push(vec![*segno]),
            }
        }
        // The WAL of today is never an island.
        let today = if Some(*timeline) == newest { runs.pop() } else { None };
        runs.retain(|run| !run.iter().all(|segno| needed(*timeline, *segno)));
        *segments = runs.into_iter().chain(today).flatten().collect();
    }
    stored
}
