//! Backups and dumps alike, as their manifests have them.

use std::sync::Arc;

use super::{BackupId, Catalog, DumpFacts, Facts, PackRecord, Streams, scan};
use crate::error::{Error, Result};

/// A backup or a dump, from its whole manifest.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its name.
    pub id: BackupId,
    /// Which of both it is.
    pub content: WrittenContent,
    /// The packs that it is in.
    pub packs: Vec<Arc<PackRecord>>,
}

/// What the first line of a manifest says.
#[derive(Debug, Clone)]
pub enum WrittenContent {
    /// Of a backup.
    Backup(Box<Facts>),
    /// Of a dump.
    Dump(Box<DumpFacts>),
}

impl Written {
    /// What it is called, for people.
    pub fn name(&self) -> String {
        match &self.content {
            WrittenContent::Backup(_) => format!("backup {}", self.id),
            WrittenContent::Dump(facts) => format!("dump {} of {}", self.id, facts.database),
        }
    }
}

impl Catalog {
    /// Reads a manifest and proves it to its end; none if it was deleted since it was listed.
    pub async fn written(&self, id: &BackupId) -> Result<Option<Written>> {
        match self.read_written(id).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if self.deleted(&error, id).await? => Ok(None),
            Err(error) => Err(error.on(self.place.manifest(id))),
        }
    }

    async fn read_written(&self, id: &BackupId) -> Result<Written> {
        let (archive, place) = (&self.archive, &self.place);
        let (content, packs) = match place.system() {
            Some(_) => {
                let (manifest, ()) = scan::<Facts, _>(archive, place, id, ()).await?;
                (WrittenContent::Backup(Box::new(manifest.facts)), manifest.packs)
            }
            None => {
                let (manifest, streams) =
                    scan::<DumpFacts, _>(archive, place, id, Streams::default()).await?;
                streams.check().map_err(|error: Error| error.on(place.manifest(id)))?;
                (WrittenContent::Dump(Box::new(manifest.facts)), manifest.packs)
            }
        };
        Ok(Written { id: id.clone(), content, packs: packs.into_iter().map(Arc::new).collect() })
    }
}
