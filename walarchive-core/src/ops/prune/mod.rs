//! What no promise needs: what dead writers left behind, and what the rules of retention do not want any more.

pub mod delete;
pub mod expire;
pub mod expire_dumps;
pub mod expire_reports;
mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

pub use self::plan::{Found, Kept, Leftover, Limits, PrunePlan, Removal, plan};
use crate::archive::{BackupId, Catalog, Marks, Place};
use crate::error::{Kind, Result};
use crate::storage::Unfinished;

/// How many objects are removed at once.
const AT_ONCE: usize = 8;

/// Looks at everything that a plan is made from. The catalogue's archive must be [`strict`](crate::archive::Archive::strict): a
/// mirror that is left out may have the manifest.
///
/// The order makes it safe beside backups that begin or end meanwhile. A lease is written before the first pack and
/// stays until the manifest is there. So a pack that was listed had its lease by then: if the lease is not found *after*
/// that, its backup is over; and if it is over and has no manifest *after* that, it never will.
pub async fn find(catalog: &Catalog, limits: Limits) -> Result<Found> {
    let mut found = Found::default();
    match uploads(catalog).await {
        Ok(uploads) => found.uploads = uploads,
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::Usage | Kind::Bug) => {
            let error = error.during("unfinished uploads stay, they cannot be listed");
            found.problems.push(error.hint("let the store remove them by a rule of its own, if it can"));
        }
        Err(error) => return Err(error),
    }
    found.packs = catalog.all_packs().await?;
    let Marks { leases, pins, .. } = catalog.marks().await?;
    found.manifests = catalog.marks().await?.manifests;
    (found.leases, found.pins) = (leases, pins);
    if found.may_have_lost_packs(&catalog.place, limits) {
        match catalog.needed_packs(&found.manifests).await {
            Ok(needed) => found.needed = Some(needed),
            Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Key) => {
                found.problems.push(error.during("packs stay, as not every manifest tells which it needs"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Unfinished uploads of this cluster, and those that are no cluster's.
async fn uploads(catalog: &Catalog) -> Result<Vec<(Unfinished, Option<BackupId>)>> {
    let all: Vec<_> = catalog.archive.storage().unfinished().try_collect().await?;
    let place = &catalog.place;
    let takes_strangers = place.system().is_some();
    let ours = |upload: &Unfinished| {
        place.contains(&upload.key) || (takes_strangers && !Place::is_of_some(&upload.key))
    };
    let with_backup = |upload: Unfinished| {
        let backup = place.backup_of(&upload.key);
        (upload, backup)
    };
    Ok(all.into_iter().filter(ours).map(with_backup).collect())
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// How many objects and uploads.
    pub removed: usize,
    /// Their stored bytes, as far as they are known.
    pub stored_bytes: u64,
    /// Backups whose leftovers stay after all: since the plan was made, somebody has renewed their lease or committed
    /// them.
    pub spared: Vec<BackupId>,
}

/// Removes what was planned. Each backup is looked at once more before anything of it goes.
pub async fn run(catalog: &Catalog, plan: &PrunePlan, limits: Limits) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let mut by_backup: BTreeMap<Option<&BackupId>, Vec<&Removal>> = BTreeMap::new();
    for removal in &plan.remove {
        by_backup.entry(removal.backup.as_ref()).or_default().push(removal);
    }
    for (backup, removals) in by_backup {
        let mut marks = None;
        if let Some(id) = backup {
            let found = catalog.marks().await?;
            let any_protects = removals.iter().any(|removal| match removal.leftover {
                Leftover::Pack(_) => true,
                Leftover::Upload(_) | Leftover::Pin(_) => catalog.place.shares_leases(),
                Leftover::Lease(_) => false,
            });
            if limits.is_alive(&found.leases, id) || (any_protects && limits.is_any_alive(&found.leases)) {
                pruned.spared.push(id.clone());
                continue;
            }
            marks = Some(found);
        }
        // A listing alone, which something between here and the store may have cut, does not take a backup's packs.
        let exists = match backup {
            Some(id) => marks.is_some_and(|marks| marks.manifests.contains(id)) || catalog.exists(id).await?,
            None => false,
        };
        let go: Vec<_> = removals.iter().filter(|removal| !(exists && removal.is_of_dead_backup())).collect();
        if go.len() < removals.len() {
            pruned.spared.extend(backup.cloned());
        }
        // Leases last: they say whose the rest is, should this be cut off.
        let (leases, others): (Vec<_>, Vec<_>) =
            go.into_iter().partition(|removal| matches!(removal.leftover, Leftover::Lease(_)));
        for group in [others, leases] {
            remove(catalog, &group).await?;
            pruned.removed += group.len();
            pruned.stored_bytes += group.iter().filter_map(|removal| removal.stored).sum::<u64>();
        }
        if let Some(id) = backup.filter(|_| !exists) {
            tidy(catalog, id).await?;
        }
    }
    Ok(pruned)
}

async fn remove(catalog: &Catalog, removals: &[&&Removal]) -> Result<()> {
    let storage = catalog.archive.storage();
    let calls = removals.iter().map(|removal| async move {
        match &removal.leftover {
            Leftover::Upload(upload) => storage.discard(upload).await,
            _ => storage.delete(&removal.key).await,
        }
    });
    futures::stream::iter(calls.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await
}

/// Empty directories go, where a store has such a thing.
async fn tidy(catalog: &Catalog, id: &BackupId) -> Result<()> {
    let (storage, place) = (catalog.archive.storage(), &catalog.place);
    storage.tidy(&place.backup_packs_prefix(id)).await?;
    storage.tidy(&place.backup_prefix(id)).await
}

impl Limits {
    /// What counts at `now` with this grace. A lease is believed a while after its end, as clocks differ and the last
    /// request of a backup may be on its way.
    pub fn new(now: Timestamp, grace: Duration) -> Limits {
        Limits { now, grace, margin: grace.min(Duration::from_secs(600)) }
    }
}
