//! One backup out of the archive.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};

use crate::archive::{BackupId, Catalog, PackName, scan};
use crate::error::{Error, Kind, Result};

/// What deleting a backup removes.
#[derive(Debug, Clone)]
pub struct DeletePlan {
    /// The backup.
    pub id: BackupId,
    /// Its packs that no other backup needs, with their stored sizes.
    pub packs: Vec<(PackName, u64)>,
    /// Its packs that other backups need: they stay.
    pub shared: usize,
}

/// Plans the deletion. Pinned backups are refused. Needs an identity in an encrypted archive: which packs the other
/// backups need stands in their manifests.
pub async fn plan(catalog: &Catalog, id: &BackupId) -> Result<DeletePlan> {
    let (backups, damaged) = catalog.sound_backups().await?;
    if let Some((other, error)) = damaged.iter().find(|(other, _)| other != id) {
        return Err(Error::damaged(format!(
            "nothing was deleted: which packs backup {other} needs cannot be told, its manifest is damaged: {}",
            error.story()
        ))
        .hint(format!("'walarchive backup delete {other}' first, if it is given up")));
    }
    let backup = backups.iter().find(|backup| backup.id == *id);
    if backup.is_none() && damaged.is_empty() {
        return Err(Error::new(Kind::Absent, format!("there is no backup {id}"))
            .hint("'walarchive backup list' shows what there is"));
    }
    if backup.is_some_and(|backup| backup.pinned) {
        return Err(Error::new(Kind::Busy, format!("backup {id} is pinned; nothing was deleted"))
            .hint(format!("'walarchive backup unpin {id}' first, if it is to go")));
    }
    let mut needed = BTreeSet::new();
    for other in backups.iter().filter(|other| other.id != *id) {
        match scan(&catalog.archive, &catalog.place, &other.id, ()).await {
            Ok((manifest, ())) => needed.extend(manifest.packs.into_iter().map(|pack| pack.name)),
            // It needs nothing any more.
            Err(error) if catalog.deleted(&error, &other.id).await? => {}
            Err(error) => return Err(error),
        }
    }
    let own = catalog.packs(id).await?;
    let (keep, go): (Vec<_>, Vec<_>) = own.into_iter().partition(|(name, _)| needed.contains(name));
    Ok(DeletePlan { id: id.clone(), packs: go, shared: keep.len() })
}

/// Deletes what was planned: the manifest first, so that a deletion that is cut off leaves no backup that cannot be
/// restored.
pub async fn run(catalog: &Catalog, plan: &DeletePlan) -> Result<()> {
    let storage = catalog.archive.storage();
    storage.delete(&catalog.place.manifest(&plan.id)).await?;
    if catalog.exists(&plan.id).await? {
        let message =
            format!("the store says that backup {} is deleted, and still has its manifest", plan.id);
        return Err(Error::new(Kind::Unreachable, message).on(catalog.place.manifest(&plan.id)));
    }
    let packs = plan.packs.iter().map(|(name, _)| catalog.place.pack(name));
    futures::stream::iter(packs)
        .map(|key| async move { storage.delete(&key).await })
        .buffer_unordered(8)
        .try_collect::<()>()
        .await?;
    let leases: Vec<_> = storage.list(&catalog.place.lease_prefix(&plan.id)).try_collect().await?;
    for lease in leases {
        storage.delete(&lease.key).await?;
    }
    Ok(())
}
