//! Pasts of clusters, as tests tell them.

#![allow(dead_code)] // Each test uses a part.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use walarchive_core::archive::{Backup, BackupId, Facts, Inventory};
use walarchive_core::wal::{HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId};

pub const MIB: u64 = 1 << 20;

pub fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + second)
}

pub fn segment(timeline: u32, segno: u64) -> String {
    SegmentName::from_segno(tli(timeline), segno, size()).unwrap().to_string()
}

/// A backup as a test says it: its timeline, positions, and when it ended.
#[derive(Debug, Clone)]
pub struct Made {
    pub timeline: u32,
    pub start: u64,
    pub stop: u64,
    pub finished: i64,
}

impl Made {
    pub fn id(&self) -> BackupId {
        BackupId::new(at(self.finished - 10), self.finished as u32)
    }

    pub fn backup(&self) -> Backup {
        let facts = Facts {
            format: 1,
            kind_of: "base".into(),
            id: self.id().to_string(),
            kind: "full".into(),
            base: None,
            cluster: "main".into(),
            system_id: "7".into(),
            pg_major: 17,
            server_version: "17.2".into(),
            control_version: 1700,
            catalog_version: 202_406_281,
            timeline: self.timeline,
            start_lsn: Lsn(self.start),
            from_standby: false,
            stop_lsn: Lsn(self.stop),
            started_at: at(self.finished - 10),
            finished_at: at(self.finished),
            segment_size: MIB,
            page_checksums: true,
            data_bytes: 0,
            stored_bytes: 0,
            files: 0,
            damaged_pages: 0,
            tablespaces: vec![],
            databases: Vec::new(),
            labels: BTreeMap::new(),
            created_by: "test".into(),
        };
        Backup { id: self.id(), facts, pinned: false }
    }
}

/// A cluster's past: each timeline's parent and the position at which it branched off; what is stored.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Timeline n + 2: its parent and where it begins.
    pub branches: Vec<(u32, u64)>,
    pub backups: Vec<Made>,
    pub stored: BTreeSet<(u32, u64)>,
}

impl World {
    /// The timelines that lead to `timeline`, newest first, each with its begin, and its end on this line.
    pub fn line(&self, timeline: u32) -> Vec<(u32, u64, u64)> {
        let mut line = Vec::new();
        let (mut timeline, mut end) = (timeline, u64::MAX);
        loop {
            let branch = timeline.checked_sub(2).map(|nth| self.branches[nth as usize]);
            let begin = branch.map_or(0, |(_, begin)| begin);
            line.push((timeline, begin, end));
            let Some((parent, begin)) = branch else { return line };
            (timeline, end) = (parent, begin);
        }
    }

    /// The timeline whose file recovery reads for a segment.
    pub fn owner(&self, timeline: u32, segno: u64) -> u32 {
        self.line(timeline).into_iter().find(|(_, begin, _)| begin / MIB <= segno).unwrap().0
    }

    pub fn holds(&self, timeline: u32, segno: u64) -> bool {
        self.stored.contains(&(self.owner(timeline, segno), segno))
    }

    pub fn newest(&self) -> u32 {
        self.branches.len() as u32 + 1
    }

    pub fn inventory(&self) -> Inventory {
        let history = |timeline: u32| {
            let mut entries: Vec<_> = self
                .line(timeline)
                .into_iter()
                .skip(1)
                .map(|(id, _, end)| HistoryEntry { timeline: tli(id), end: Lsn(end), reason: String::new() })
                .collect();
            entries.reverse();
            (tli(timeline), TimelineHistory { timeline: tli(timeline), entries })
        };
        let mut segments: BTreeMap<TimelineId, BTreeSet<u64>> = BTreeMap::new();
        for (timeline, segno) in &self.stored {
            segments.entry(tli(*timeline)).or_default().insert(*segno);
        }
        Inventory {
            backups: self.backups.iter().map(Made::backup).collect(),
            segments,
            histories: (1..=self.newest()).map(history).collect(),
            damaged: BTreeMap::new(),
            damaged_histories: BTreeMap::new(),
        }
    }
}
