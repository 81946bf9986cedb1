//! Backups and dumps that retention leaves alone.

use crate::archive::{BackupId, Catalog};
use crate::codec::CodecSpec;
use crate::error::Result;

async fn exists(catalog: &Catalog, id: &BackupId) -> Result<()> {
    if catalog.exists(id).await? { Ok(()) } else { Err(catalog.place.no_such(id)) }
}

/// Pins a backup or a dump; one that is pinned already stays so.
pub async fn pin(catalog: &Catalog, id: &BackupId) -> Result<()> {
    exists(catalog, id).await?;
    catalog.pin(id, CodecSpec::default().build()).await
}

/// Takes a pin away, if there is one.
pub async fn unpin(catalog: &Catalog, id: &BackupId) -> Result<()> {
    exists(catalog, id).await?;
    catalog.archive.storage().delete(&catalog.place.pin(id)).await
}
