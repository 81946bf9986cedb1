//! Backups that retention leaves alone.

use crate::archive::{BackupId, Catalog, ObjectKind};
use crate::codec::CodecSpec;
use crate::error::Result;

/// Pins a backup; one that is pinned already stays so.
pub async fn pin(catalog: &Catalog, id: &BackupId) -> Result<()> {
    catalog.backup(id).await?;
    let note = format!("{{\"pinned\":\"{id}\"}}\n");
    let content = move |sink: crate::codec::PlainSink<'_>| sink(note.as_bytes());
    let key = catalog.place.pin(id);
    catalog.archive.put(&key, ObjectKind::Pin, CodecSpec::default().build(), content).await.map(drop)
}

/// Takes a backup's pin away, if it has one.
pub async fn unpin(catalog: &Catalog, id: &BackupId) -> Result<()> {
    catalog.backup(id).await?;
    catalog.archive.storage().delete(&catalog.place.pin(id)).await
}
