//! Retention, carried out: manifests first, then packs, then WAL.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::delete::{self, DeletePlan, Deleted};
use super::plan::Limits;
use crate::archive::{Catalog, StoredWal};
use crate::error::Result;
use crate::retention::{Retention, Rules, decide};
use crate::wal::{SegmentName, SegmentSize, TimelineId, WalName};

/// How many objects are removed at once.
const AT_ONCE: usize = 16;

/// What the rules of retention remove.
#[derive(Debug)]
pub struct Expiry {
    /// What stays and what goes.
    pub retention: Retention,
    /// The deletion of the backups that go; `None` if none does.
    pub backups: Option<DeletePlan>,
    /// The WAL files that go. Timeline histories always stay.
    pub wal: Vec<WalName>,
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Expired {
    /// What became of the packs.
    pub packs: Deleted,
    /// How many WAL files.
    pub wal: usize,
    /// Why WAL stays that was to go.
    pub spared: Option<String>,
}

/// Plans what the rules remove. Needs an identity in an encrypted archive.
pub async fn plan(catalog: &Catalog, rules: &Rules, now: Timestamp) -> Result<Expiry> {
    let inventory = catalog.inventory().await?;
    let retention = decide(&inventory, rules, now)?;
    let expire: BTreeSet<_> = retention.expire.iter().cloned().collect();
    let backups = if expire.is_empty() { None } else { Some(delete::plan(catalog, &expire).await?) };
    let size =
        inventory.backups.last().map(|backup| SegmentSize::new(backup.facts.segment_size)).transpose()?;
    let wal = match size {
        Some(size) => unneeded(&catalog.wal().await?, &retention, size),
        None => Vec::new(),
    };
    Ok(Expiry { retention, backups, wal })
}

/// The WAL files that nobody needs, oldest first. Files of another segment size than the cluster's are left alone.
fn unneeded(stored: &StoredWal, retention: &Retention, size: SegmentSize) -> Vec<WalName> {
    let goes = |segment: &SegmentName| {
        segment.segno(size).is_ok_and(|segno| !retention.wal.has(segment.timeline, segno))
    };
    let segments = stored.segments.values().flatten().filter(|segment| goes(segment));
    let partials = stored.partials.iter().filter(|segment| goes(segment));
    let backups = stored.backups.iter().filter(|name| match name {
        WalName::Backup { segment, .. } => goes(segment),
        _ => false,
    });
    let segments = segments.map(|segment| WalName::Segment(*segment));
    let partials = partials.map(|segment| WalName::Partial(*segment));
    let mut all: Vec<_> = segments.chain(partials).chain(backups.cloned()).collect();
    all.sort_by_key(|name| name.to_string());
    all
}

/// Removes what was planned. WAL goes oldest first, so that what is left when this is cut off has no gap; none goes while
/// a backup may be running, as nobody knows yet which it needs.
pub async fn run(catalog: &Catalog, expiry: &Expiry, limits: Limits) -> Result<Expired> {
    let mut expired = Expired::default();
    if let Some(backups) = &expiry.backups {
        expired.packs = delete::run(catalog, backups).await?;
    }
    if expiry.wal.is_empty() {
        return Ok(expired);
    }
    let marks = catalog.marks().await?;
    let kept = expiry.retention.keep.keys().cloned().collect();
    if let Some(new) = marks.manifests.difference(&kept).next() {
        expired.spared = Some(format!("backup {new} was made meanwhile"));
    } else if let Some(lease) = limits.first_alive(&marks.leases) {
        expired.spared = Some(format!("backup {} may be running until {}", lease.backup, lease.until));
    } else {
        for (_, names) in by_timeline(&expiry.wal) {
            remove(catalog, &names).await?;
            expired.wal += names.len();
        }
    }
    Ok(expired)
}

fn by_timeline(names: &[WalName]) -> BTreeMap<TimelineId, Vec<&WalName>> {
    let mut all: BTreeMap<TimelineId, Vec<&WalName>> = BTreeMap::new();
    for name in names {
        all.entry(name.timeline()).or_default().push(name);
    }
    all
}

async fn remove(catalog: &Catalog, names: &[&WalName]) -> Result<()> {
    let storage = catalog.archive.storage();
    futures::stream::iter(names)
        .map(|name| async move { storage.delete(&catalog.place.wal(name)).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}
