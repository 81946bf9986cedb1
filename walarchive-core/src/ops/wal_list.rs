//! What WAL is stored, and what is missing.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::archive::{Catalog, Histories, ObjectKind, StoredWal};
use crate::error::{Error, Kind, Result};
use crate::wal::coverage::{self, Stored};
use crate::wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalName};

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
    let past = catalog.past().await?;
    let timelines = match past.size {
        Some(size) => summaries(&past.wal, &past.continuous, &past.histories, size)?,
        None => Vec::new(),
    };
    Ok(WalList {
        timelines,
        segment_size: past.size.map(SegmentSize::bytes),
        stored_bytes: past.wal.stored_bytes,
        problems: past.problems.iter().map(Error::story).collect(),
    })
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
