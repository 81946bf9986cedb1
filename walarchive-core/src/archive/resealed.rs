//! Objects copied for other readers: the same content, sealed anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::proof::kind_of;
use super::{
    Archive, BackupId, Brought, Catalog, DumpFacts, Facts, Line, ManifestWriter, ObjectKind, PackName,
    PackRecord, Place, Visitor, scan,
};
use crate::cipher::Seal;
use crate::codec::CodecId;
use crate::crossing::{Bridge, blocking};
use crate::error::{Error, Result};
use crate::pipeline::ObjectWriter;
use crate::storage::Created;

/// Content that is held in memory; more of it goes through piece by piece.
const IN_MEMORY: u64 = 32 << 20;
const STEP: u64 = 8 << 20;

impl Archive {
    /// Copies an object here from an archive of the same id whose content others can read, sealing it for the recipients of this one;
    /// nothing is compressed anew. The source is proven before. Needs an identity that opens it.
    ///
    /// # Errors
    ///
    /// As [`bring`](Archive::bring); whether what is here already has the same content is known of WAL alone.
    pub async fn bring_resealed(
        &self,
        from: &Archive,
        key: &str,
        record: Option<&PackRecord>,
    ) -> Result<Brought> {
        from.prove(key, record).await?;
        let kind = kind_of(key)?;
        let mut binding = from.look_at(key, kind).await?.binding;
        let reader = from.reader(key, kind).await?;
        let seal = self.cipher.seal()?;
        if binding.stored.is_some() {
            binding.stored = Some(seal.sealed_len(reader.content_len()));
        }
        binding.sum = None;
        let head = self.head(seal.as_ref(), binding)?;
        if reader.content_len() <= IN_MEMORY {
            let content = reader.read(0..reader.content_len()).await?;
            let pieces = blocking(move || sealed(seal, head, &content)).await?;
            let stored = pieces.iter().map(|piece| piece.len() as u64).sum();
            return Ok(match self.storage.create(key, pieces).await? {
                Created::New => Brought::New(stored),
                Created::Exists => Brought::There,
            });
        }
        let bridge = Bridge::current()?;
        let (storage, key) = (self.storage.clone(), key.to_owned());
        let written = blocking(move || {
            let mut writer = ObjectWriter::start(storage, key, head, seal, &bridge);
            let mut at = 0;
            while at < reader.content_len() {
                let end = (at + STEP).min(reader.content_len());
                writer.write(&bridge.wait(reader.read(at..end))?)?;
                at = end;
            }
            writer.finish()
        });
        Ok(Brought::New(written.await?.stored))
    }
}

/// Copies the manifest of a backup or dump whose packs were sealed anew: they may have another length now, which `stored` gives.
/// The packs are all there.
pub async fn bring_manifest_resealed(
    to: &Archive,
    from: &Catalog,
    id: &BackupId,
    stored: BTreeMap<PackName, u64>,
) -> Result<Brought> {
    let codec =
        from.archive.look_at(&from.place.manifest(id), ObjectKind::Manifest).await?.binding.codec()?;
    let rewriting = Rewriting {
        to: to.clone(),
        place: from.place.clone(),
        id: id.clone(),
        codec,
        bridge: Bridge::current()?,
        stored,
        writer: None,
    };
    let rewriting = match from.place.system() {
        Some(_) => scan::<Facts, _>(&from.archive, &from.place, id, rewriting).await?.1,
        None => scan::<DumpFacts, _>(&from.archive, &from.place, id, rewriting).await?.1,
    };
    let writer = rewriting.writer.ok_or_else(|| Error::damaged("a manifest has one line alone").on(id))?;
    let written = blocking(move || writer.finish()).await?;
    Ok(Brought::New(written.stored))
}

/// Writes each line that it sees to another archive.
struct Rewriting {
    to: Archive,
    place: Place,
    id: BackupId,
    codec: CodecId,
    bridge: Bridge,
    stored: BTreeMap<PackName, u64>,
    writer: Option<ManifestWriter>,
}

impl<F: Serialize> Visitor<F> for Rewriting {
    fn line(&mut self, facts: &F, _: &[PackRecord], mut line: Line) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let codec = self.codec.reader();
                let begun = ManifestWriter::start(
                    &self.to,
                    &self.place,
                    &self.id,
                    codec.as_ref(),
                    facts,
                    &self.bridge,
                )?;
                self.writer.insert(begun)
            }
        };
        if let Line::Pack(record) = &mut line {
            let stored = self.stored.get(&record.name).copied();
            record.stored = stored.ok_or_else(|| {
                Error::damaged("a pack that the manifest names is not in the copy")
                    .on(self.place.pack(&record.name))
            })?;
        }
        writer.line(&line)
    }
}

fn sealed(mut seal: Box<dyn Seal>, head: Bytes, content: &[u8]) -> Result<Vec<Bytes>> {
    let mut pieces = vec![head];
    seal.push(content, &mut pieces)?;
    seal.finish(&mut pieces)?;
    Ok(pieces)
}
