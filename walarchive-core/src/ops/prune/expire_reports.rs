//! Reports of drills, removed when there are many newer ones.

use futures::{StreamExt, TryStreamExt};

use super::AT_ONCE;
use crate::archive::{BackupId, Catalog};
use crate::error::Result;
use crate::retention::reports::{KEPT, expired};

/// The reports that are to go, oldest first. One listing.
pub async fn plan(catalog: &Catalog) -> Result<Vec<BackupId>> {
    Ok(expired(&catalog.report_ids().await?, KEPT))
}

/// Removes them.
pub async fn run(catalog: &Catalog, ids: &[BackupId]) -> Result<()> {
    let storage = catalog.archive.storage();
    futures::stream::iter(ids)
        .map(|id| async move { storage.delete(&catalog.place.report(id)).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}
