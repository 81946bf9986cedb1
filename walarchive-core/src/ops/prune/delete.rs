//! Backups out of the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::archive::{BackupId, Catalog, Inventory, Lease, Named, PackName, scan};
use crate::error::{Error, Kind, Result};

/// A lease is believed so long after its end: clocks differ, and its backup's last request may be on its way.
const MARGIN: Duration = Duration::from_secs(600);
/// How many objects are removed at once.
const AT_ONCE: usize = 8;

/// What deleting backups removes.
#[derive(Debug, Clone)]
pub struct DeletePlan {
    /// The backups, oldest first.
    pub ids: BTreeSet<BackupId>,
    /// The packs that they need and no other backup does, with their stored sizes.
    pub packs: Vec<(PackName, u64)>,
    /// The packs that others need as well: they stay.
    pub shared: usize,
    /// The other backups that were looked at.
    others: BTreeSet<BackupId>,
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct Deleted {
    /// Packs that were removed.
    pub removed: usize,
    /// The lease of a backup that may be running, and point to the packs: they stay until somebody prunes.
    pub running: Option<Lease>,
}

/// Refuses to give up the last backup that can be restored.
pub fn refuse_the_last(inventory: &Inventory, ids: &BTreeSet<BackupId>) -> Result<()> {
    let (go, stay): (Vec<_>, Vec<_>) = inventory
        .backups
        .iter()
        .filter(|backup| inventory.is_restorable(backup))
        .partition(|backup| ids.contains(&backup.id));
    match go.last() {
        Some(last) if stay.is_empty() => Err(Error::new(
            Kind::Busy,
            format!("backup {} is the last one that can be restored; nothing was deleted", last.id),
        )
        .hint("make another one first; --even-the-last gives this one up all the same")),
        _ => Ok(()),
    }
}

/// Plans the deletion. Pinned backups are refused. Needs an identity in an encrypted archive: which packs the other
/// backups need stands in their manifests.
pub async fn plan(catalog: &Catalog, ids: &BTreeSet<BackupId>) -> Result<DeletePlan> {
    let (backups, damaged) = catalog.named().await?;
    let noun = catalog.place.noun();
    if let Some((other, error)) = damaged.iter().find(|(other, _)| !ids.contains(other)) {
        return Err(Error::damaged(format!(
            "nothing was deleted: which packs {noun} {other} needs cannot be told, its manifest is damaged: {}",
            error.story()
        ))
        .hint(format!("'walarchive {noun} delete {other}' first, if it is given up")));
    }
    let known = |id: &BackupId| {
        backups.iter().any(|(backup, _)| backup == id) || damaged.iter().any(|(other, _)| other == id)
    };
    if let Some(id) = ids.iter().find(|id| !known(id)) {
        return Err(catalog.place.no_such(id));
    }
    if let Some((id, _)) = backups.iter().find(|(id, pinned)| *pinned && ids.contains(id)) {
        return Err(Error::new(Kind::Busy, format!("{noun} {id} is pinned; nothing was deleted"))
            .hint(format!("'walarchive {noun} unpin {id}' first, if it is to go")));
    }
    let others: BTreeSet<_> =
        backups.into_iter().map(|(other, _)| other).filter(|other| !ids.contains(other)).collect();
    let needed = catalog.needed_packs(&others).await?;
    let mut packs = BTreeMap::new();
    for id in ids {
        packs.extend(packs_of(catalog, id).await?);
    }
    let (keep, go): (Vec<_>, Vec<_>) = packs.into_iter().partition(|(name, _)| needed.contains(name));
    Ok(DeletePlan { ids: ids.clone(), packs: go, shared: keep.len(), others })
}

/// The packs that a backup wrote, and those of others that its manifest names.
async fn packs_of(catalog: &Catalog, id: &BackupId) -> Result<BTreeMap<PackName, u64>> {
    let mut packs = catalog.packs(id).await?;
    match scan::<Named, _>(&catalog.archive, &catalog.place, id, ()).await {
        Ok((manifest, ())) => packs.extend(manifest.packs.into_iter().map(|pack| (pack.name, pack.stored))),
        Err(error) if error.kind() == Kind::Damaged => {}
        Err(error) => return Err(error),
    }
    Ok(packs)
}

/// Deletes what was planned: the manifests first, so that a deletion that is cut off leaves no backup that cannot be
/// restored. Then their packs, unless a backup that is running, or was committed since the plan was made, may need them.
pub async fn run(catalog: &Catalog, plan: &DeletePlan) -> Result<Deleted> {
    let storage = catalog.archive.storage();
    for id in &plan.ids {
        let key = catalog.place.manifest(id);
        storage.delete(&key).await?;
        if catalog.exists(id).await? {
            let message = format!(
                "the store says that {} {id} is deleted, and still has its manifest",
                catalog.place.noun()
            );
            return Err(Error::new(Kind::Unreachable, message).on(key));
        }
    }
    let marks = catalog.marks().await?;
    let (own, leases): (Vec<_>, Vec<_>) =
        marks.leases.into_iter().partition(|lease| plan.ids.contains(&lease.backup));
    let now = Timestamp::now();
    let lasts = |lease: &Lease| lease.until.checked_add(MARGIN).map_or(true, |end| end > now);
    if let Some(running) = leases.into_iter().find(lasts) {
        return Ok(Deleted { removed: 0, running: Some(running) });
    }
    let since = marks.manifests.difference(&plan.others).cloned().collect();
    let needed = catalog.needed_packs(&since).await?;
    let go = plan.packs.iter().map(|(name, _)| name).filter(|name| !needed.contains(name));
    let go: Vec<_> = go.map(|name| catalog.place.pack(name)).collect();
    let removed = go.len();
    let keys = go.into_iter().chain(own.into_iter().map(|lease| lease.key));
    futures::stream::iter(keys)
        .map(|key| async move { storage.delete(&key).await })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(Deleted { removed, running: None })
}
