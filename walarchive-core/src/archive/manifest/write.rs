//! Writing a manifest.

use serde::Serialize;

use super::line::{Line, RawLine};
use super::sum;
use crate::archive::{Archive, BackupId, ObjectKind, Place};
use crate::codec::{Codec, Framer};
use crate::crossing::Bridge;
use crate::error::{Error, Result};
use crate::pipeline::{ObjectWriter, Written};

/// Plain bytes of a frame, before the line that exceeds it.
const FRAME: usize = 1 << 20;

/// Writes a manifest, line by line; used by one blocking worker. Bounded memory.
pub struct ManifestWriter {
    framer: Box<dyn Framer>,
    writer: ObjectWriter,
    hasher: blake3::Hasher,
    /// Of the payload, where no cipher protects it.
    sum: Option<blake3::Hasher>,
    pending: Vec<u8>,
    packed: Vec<u8>,
    lines: u64,
    packs: u32,
    past_packs: bool,
    archive: Archive,
    key: String,
}

impl ManifestWriter {
    /// Starts the manifest of backup or dump `id` with its facts.
    pub fn start(
        archive: &Archive,
        place: &Place,
        id: &BackupId,
        codec: &dyn Codec,
        facts: &impl Serialize,
        bridge: &Bridge,
    ) -> Result<ManifestWriter> {
        let key = place.manifest(id);
        let (head, seal) = archive.start_stream(&key, ObjectKind::Manifest, codec.id())?;
        let mut writer = ObjectWriter::start(archive.storage().clone(), key.clone(), head, seal, bridge);
        writer.digest();
        let mut manifest = ManifestWriter {
            framer: codec.framer()?,
            writer,
            hasher: blake3::Hasher::new(),
            sum: archive.has_sum_at_end(ObjectKind::Manifest, codec.id()).then(blake3::Hasher::new),
            pending: Vec::new(),
            packed: Vec::new(),
            lines: 0,
            packs: 0,
            past_packs: false,
            archive: archive.clone(),
            key,
        };
        manifest.write(facts)?;
        manifest.flush()?;
        Ok(manifest)
    }

    /// Adds a line: packs first, then directories, then files; of dumps, each stream and behind it where its bytes are.
    pub fn line(&mut self, line: &Line) -> Result<()> {
        let raw = RawLine::of(line, self.packs);
        if raw.is_pack() {
            self.packs += 1;
        } else if !self.past_packs {
            // Whoever reads only the packs finds them whole, with their checksum, in front of the first byte of the rest.
            self.past_packs = true;
            self.flush()?;
        }
        self.write(&raw)
    }

    /// Ends the manifest: the backup exists then. Gives its stored size and digest.
    pub fn finish(mut self) -> Result<Written> {
        let digest = self.hasher.finalize().to_hex().to_string();
        let signed = self.archive.sign_manifest(&self.key, &digest);
        let end = RawLine::end(self.lines, digest, signed);
        self.write(&end)?;
        self.flush()?;
        if let Some(sum) = &self.sum {
            self.writer.write(&sum::frame(sum))?;
        }
        self.writer.finish()
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let from = self.pending.len();
        serde_json::to_writer(&mut self.pending, line)
            .map_err(|error| Error::bug("a manifest's line cannot be written").because(error))?;
        self.pending.push(b'\n');
        self.hasher.update(&self.pending[from..]);
        self.lines += 1;
        if self.pending.len() >= FRAME {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.packed.clear();
            self.framer.pack(&self.pending, &mut self.packed)?;
            self.writer.write(&self.packed)?;
            if let Some(sum) = &mut self.sum {
                sum.update(&self.packed);
            }
            self.pending.clear();
        }
        Ok(())
    }
}
