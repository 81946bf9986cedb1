//! One place of the cluster: WAL and backups, or dumps, and what needs what there.

use std::collections::BTreeSet;

use super::VerifyRequest;
use crate::archive::{
    Archive, Backup, BackupId, Catalog, Facts, Past, Place, Recoverable, Written, WrittenContent,
    recoverable, wal_of,
};
use crate::error::Result;
use crate::wal::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalName, last_segno_before};

/// What was found in one place.
pub(super) struct Room {
    pub(super) catalog: Catalog,
    pub(super) past: Option<Past>,
    pub(super) manifests: Vec<Written>,
    /// Manifests that are listed, whether they can be read or not.
    pub(super) listed: BTreeSet<BackupId>,
}

impl Room {
    /// The keys of all that a backup or dump needs.
    pub(super) fn needs(&self, written: &Written) -> BTreeSet<String> {
        let place = &self.catalog.place;
        let packs = written.packs.iter().map(|pack| place.pack(&pack.name));
        packs.chain(self.wal_of(written)).chain([place.manifest(&written.id)]).collect()
    }

    /// The keys of the segments that make a backup consistent.
    pub(super) fn wal_of(&self, written: &Written) -> Vec<String> {
        let WrittenContent::Backup(facts) = &written.content else { return Vec::new() };
        let (Ok(timeline), Ok(size)) =
            (TimelineId::new(facts.timeline), SegmentSize::new(facts.segment_size))
        else {
            return Vec::new();
        };
        let line = self.line(timeline);
        let segments = facts.start_lsn.segno(size)..=last_segno_before(facts.stop_lsn, size);
        let name = |segno| SegmentName::from_segno(line.owner_of(segno, size), segno, size).ok();
        segments.filter_map(name).map(|name| self.catalog.place.wal(&WalName::Segment(name))).collect()
    }

    fn line(&self, timeline: TimelineId) -> TimelineHistory {
        let known = self.past.as_ref().and_then(|past| past.histories.get(&timeline)).cloned();
        known.unwrap_or_else(|| TimelineHistory::alone(timeline))
    }

    /// The moments that cannot be reached without an object of the WAL.
    pub(super) fn after(&self, key: &str) -> Option<String> {
        let (name, _) = wal_of(key)?;
        let size = self.past.as_ref()?.size?;
        match name {
            WalName::Segment(segment) => {
                let start = segment.start(size).ok()?;
                Some(format!(
                    "everything on timeline {} from {start} on, but with backups that begin after it",
                    segment.timeline
                ))
            }
            WalName::History(timeline) => Some(format!("all moments on timeline {timeline}")),
            WalName::Partial(_) | WalName::Backup { .. } => None,
        }
    }

    /// The stretches that a backup leads to over WAL that holds.
    pub(super) fn leads_to(
        &self,
        written: &Written,
        facts: &Facts,
        bad: &BTreeSet<&str>,
    ) -> Vec<Recoverable> {
        let (Some(past), Ok(size)) = (&self.past, SegmentSize::new(facts.segment_size)) else {
            return Vec::new();
        };
        let mut stored = past.wal.by_number(size);
        for (name, _) in
            bad.iter().filter(|key| self.catalog.place.contains(key)).filter_map(|key| wal_of(key))
        {
            if let (WalName::Segment(segment), Some(segments)) = (name, stored.get_mut(&name.timeline()))
                && let Ok(segno) = segment.segno(size)
            {
                segments.remove(&segno);
            }
        }
        let backup = Backup { id: written.id.clone(), facts: facts.clone(), pinned: false };
        recoverable(std::slice::from_ref(&backup), &stored, &past.histories, size).unwrap_or_default()
    }
}

/// The cluster's places: for each system identifier one, and that of dumps.
pub(super) async fn catalogs(archive: &Archive, request: &VerifyRequest) -> Result<Vec<Catalog>> {
    let cluster = &request.cluster;
    let place_of = |system| Place::of_system(cluster.clone(), system);
    let catalog = |place| Catalog { archive: archive.clone(), place };
    if let Some(system) = request.system {
        return Ok(vec![catalog(place_of(system)), Catalog::of_dumps(archive, cluster.clone())]);
    }
    let rooms = archive.storage().list_dirs(&cluster.to_string()).await?;
    let mut systems: Vec<_> = rooms.iter().filter_map(|room| room.parse().ok()).collect();
    systems.sort();
    let mut catalogs: Vec<Catalog> = systems.into_iter().map(|system| catalog(place_of(system))).collect();
    let dumps = Catalog::of_dumps(archive, cluster.clone());
    if rooms.contains(&dumps.place.room.to_string()) {
        catalogs.push(dumps);
    }
    if catalogs.is_empty() {
        catalogs.push(Catalog::find(archive, cluster).await?);
    }
    Ok(catalogs)
}
