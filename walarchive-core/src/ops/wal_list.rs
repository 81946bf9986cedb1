//! What WAL is stored, and what is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::archive::{Backup, Catalog, ObjectKind, StoredWal};
use crate::error::{Error, Kind, Result};
use crate::wal::coverage::{self, Stored};
use crate::wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalName, last_segno_before};

/// The WAL of one cluster.
#[derive(Debug, Clone, Default, Serialize)]
pub struct WalList {
    /// Timelines, ascending.
    pub timelines: Vec<TimelineSummary>,
    /// Bytes of a segment; absent while nothing is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<u64>,
    /// Stored bytes of all WAL files.
    pub stored_bytes: u64,
    /// What could not be told, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The WAL of one timeline.
#[derive(Debug, Clone, Serialize)]
pub struct TimelineSummary {
    /// Its number.
    pub timeline: u32,
    /// First stored segment.
    pub first: Option<String>,
    /// Last stored segment.
    pub last: Option<String>,
    /// How many segments are stored.
    pub segments: u64,
    /// Segments that are missing between the first that should be there and the last that is.
    pub missing: Vec<String>,
    /// How many are missing; the list stops at some thousands.
    pub missing_count: u64,
    /// The timeline it branched off from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Where it branched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_lsn: Option<Lsn>,
    /// Whether its history file is stored; timeline 1 has none.
    pub history: bool,
    /// Partial segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
}

/// Lists the WAL of the cluster. Needs one listing, one look at a segment, and the timeline history files.
pub async fn list(catalog: &Catalog) -> Result<WalList> {
    let wal = catalog.wal().await?;
    let mut problems = Vec::new();
    let size = segment_size(catalog, &wal).await?;
    let histories = histories(catalog, &wal, &mut problems).await;
    problems.extend(wal.without_history().map(no_history));
    let timelines = match size {
        Some(size) => {
            let stored = continuous(catalog, &wal, &histories, size).await?;
            summaries(&wal, &stored, &histories, size)?
        }
        None => Vec::new(),
    };
    let segment_size = size.map(SegmentSize::bytes);
    Ok(WalList { timelines, segment_size, stored_bytes: wal.stored_bytes, problems })
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
fn no_history(timeline: TimelineId) -> String {
    let name = WalName::History(timeline);
    format!(
        "timeline {timeline} has WAL, but {name} is not in the archive: no restore finds its way there; \
         on the server that made it, 'walarchive wal push pg_wal/{name}'"
    )
}

type Histories = BTreeMap<TimelineId, TimelineHistory>;

async fn histories(catalog: &Catalog, wal: &StoredWal, problems: &mut Vec<String>) -> Histories {
    let mut histories = Histories::new();
    for timeline in &wal.histories {
        match catalog.history(*timeline).await {
            Ok(history) => drop(histories.insert(*timeline, history)),
            Err(error) if error.kind() == Kind::Key => {
                problems.push(
                    "branch points are not shown: reading timeline histories needs an identity".to_owned(),
                );
                break;
            }
            Err(error) => problems.push(error.story()),
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

fn summaries(
    wal: &StoredWal,
    stored: &Stored,
    histories: &Histories,
    size: SegmentSize,
) -> Result<Vec<TimelineSummary>> {
    let ranges = coverage::timeline_ranges(stored, histories, size);
    let all: BTreeSet<TimelineId> = wal.segments.keys().chain(&wal.histories).copied().collect();
    let names = |names: &[SegmentName]| names.iter().map(SegmentName::to_string).collect::<Vec<_>>();
    let summary = |timeline: &TimelineId| {
        let range = ranges.iter().find(|range| range.timeline == *timeline);
        let branch = histories.get(timeline).and_then(TimelineHistory::parent);
        let segments = wal.segments.get(timeline);
        TimelineSummary {
            timeline: timeline.get(),
            first: segments.and_then(|s| s.first()).map(SegmentName::to_string),
            last: segments.and_then(|s| s.last()).map(SegmentName::to_string),
            segments: segments.map_or(0, |s| s.len() as u64),
            missing_count: range.map_or(0, |range| range.missing_count),
            missing: range.map(|range| names(&range.missing)).unwrap_or_default(),
            parent: branch.as_ref().map(|entry| entry.timeline.get()),
            branch_lsn: branch.as_ref().map(|entry| entry.end),
            history: wal.histories.contains(timeline),
            partial: wal
                .partials
                .iter()
                .filter(|s| s.timeline == *timeline)
                .map(|s| format!("{s}.partial"))
                .collect(),
        }
    };
    Ok(all.iter().map(summary).collect())
}

/// What is known of one stored WAL file, without opening it.
#[derive(Debug, Clone, Serialize)]
pub struct WalFacts {
    /// Its name.
    pub name: String,
    /// `segment`, `partial`, `history` or `backup`.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Its timeline.
    pub timeline: u32,
    /// First byte of WAL in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_lsn: Option<Lsn>,
    /// One past its last byte of WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<Lsn>,
    /// Its length in bytes.
    pub data_bytes: Option<u64>,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// The codec it was stored with.
    pub codec: String,
    /// Digest of its content.
    pub digest: Option<String>,
}

/// Shows one stored WAL file. Needs no identity.
pub async fn show(catalog: &Catalog, name: &WalName) -> Result<WalFacts> {
    let key = catalog.place.wal(name);
    let outside =
        catalog.archive.look_at(&key, ObjectKind::Wal).await.map_err(|error| match error.kind() {
            Kind::Absent => Error::new(Kind::Absent, format!("{name} is not in the archive")).on(&key),
            _ => error,
        })?;
    let (timeline, segment) = match name {
        WalName::History(timeline) => (*timeline, None),
        WalName::Segment(segment) | WalName::Partial(segment) => (segment.timeline, Some(segment)),
        WalName::Backup { segment, .. } => (segment.timeline, None),
    };
    let size = outside.binding.plain.and_then(|bytes| SegmentSize::new(bytes).ok());
    let start = segment.zip(size).and_then(|(segment, size)| segment.start(size).ok());
    Ok(WalFacts {
        name: name.to_string(),
        kind: name.kind_name().to_owned(),
        key,
        timeline: timeline.get(),
        start_lsn: start,
        end_lsn: start.zip(size).map(|(start, size)| Lsn(start.0.saturating_add(size.bytes()))),
        data_bytes: outside.binding.plain,
        stored_bytes: outside.object_size,
        codec: outside.binding.codec()?.name().to_owned(),
        digest: outside.binding.digest,
    })
}
