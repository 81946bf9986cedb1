//! Everything that plans are made from: what an archive holds of one cluster, as far as they need to know.

use std::collections::{BTreeMap, BTreeSet};

use super::{Backup, BackupId, Catalog};
use crate::error::{Kind, Result};
use crate::wal::coverage;
use crate::wal::{SegmentSize, TimelineHistory, TimelineId, last_segno_before};

/// What is stored of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Backups, oldest first.
    pub backups: Vec<Backup>,
    /// Segments by timeline and number.
    pub segments: BTreeMap<TimelineId, BTreeSet<u64>>,
    /// Timeline histories, timeline 1's included.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Backups whose manifests are damaged, and what is wrong with them.
    pub damaged: BTreeMap<BackupId, String>,
    /// Timelines whose history files are damaged, and what is wrong with them.
    pub damaged_histories: BTreeMap<TimelineId, String>,
}

impl Inventory {
    /// The past of a timeline; of one whose history is not known, that it has none.
    pub fn line(&self, timeline: TimelineId) -> TimelineHistory {
        let known = self.histories.get(&timeline).cloned();
        known.unwrap_or_else(|| TimelineHistory::alone(timeline))
    }

    /// The newest backup, whether it holds or not: one that cannot be read is not passed over.
    pub fn newest(&self) -> Option<&BackupId> {
        let sound = self.backups.last().map(|backup| &backup.id);
        let doubtful = self.damaged.keys().rev().find(|id| sound.is_none_or(|sound| id.may_follow(sound)));
        doubtful.or(sound)
    }

    /// Whether the WAL is stored that makes a backup consistent.
    pub fn is_restorable(&self, backup: &Backup) -> bool {
        let facts = &backup.facts;
        let (Ok(own), Ok(size)) = (TimelineId::new(facts.timeline), SegmentSize::new(facts.segment_size))
        else {
            return false;
        };
        let (first, last) = (facts.start_lsn.segno(size), last_segno_before(facts.stop_lsn, size));
        coverage::chain(&self.line(own), &self.segments, first, size).covers(first, last)
    }
}

impl Catalog {
    /// Looks at all of it. Several small reads. Needs an identity in an encrypted archive.
    pub async fn inventory(&self) -> Result<Inventory> {
        let (backups, damaged) = self.sound_backups().await?;
        let damaged = damaged.into_iter().map(|(id, error)| (id, error.story())).collect();
        let wal = self.wal().await?;
        let mut histories = BTreeMap::new();
        let mut damaged_histories = BTreeMap::new();
        for timeline in &wal.histories {
            match self.history(*timeline).await {
                Ok(history) => drop(histories.insert(*timeline, history)),
                Err(error) if error.kind() == Kind::Damaged => {
                    damaged_histories.insert(*timeline, error.story());
                }
                Err(error) => return Err(error),
            }
        }
        histories.entry(TimelineId::FIRST).or_insert_with(TimelineHistory::initial);
        let segments = match backups.last() {
            Some(Backup { facts, .. }) => wal.by_number(SegmentSize::new(facts.segment_size)?),
            None => Default::default(),
        };
        Ok(Inventory { backups, segments, histories, damaged, damaged_histories })
    }
}
