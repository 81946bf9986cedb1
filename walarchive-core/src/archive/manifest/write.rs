//! Writing a manifest.

use serde::Serialize;

use super::facts::Facts;
use super::line::{Line, RawLine};
use crate::archive::{Archive, BackupId, ObjectKind, Place};
use crate::codec::{Codec, Framer};
use crate::crossing::Bridge;
use crate::error::{Error, Result};
use crate::pipeline::ObjectWriter;

/// Plain bytes of a frame, before the line that exceeds it.
const FRAME: usize = 1 << 20;

/// Writes a manifest, line by line; used by one blocking worker. Bounded memory.
pub struct ManifestWriter {
    framer: Box<dyn Framer>,
    writer: ObjectWriter,
    hasher: blake3::Hasher,
    pending: Vec<u8>,
    packed: Vec<u8>,
    lines: u64,
    packs: u32,
    past_packs: bool,
}

impl ManifestWriter {
    /// Starts the manifest of backup `id` with its facts.
    pub fn start(
        archive: &Archive,
        place: &Place,
        id: &BackupId,
        codec: &dyn Codec,
        facts: &Facts,
        bridge: &Bridge,
    ) -> Result<ManifestWriter> {
        let key = place.manifest(id);
        let (head, seal) = archive.start_stream(&key, ObjectKind::Manifest, codec.id())?;
        let mut manifest = ManifestWriter {
            framer: codec.framer()?,
            writer: ObjectWriter::start(archive.storage().clone(), key, head, seal, bridge),
            hasher: blake3::Hasher::new(),
            pending: Vec::new(),
            packed: Vec::new(),
            lines: 0,
            packs: 0,
            past_packs: false,
        };
        manifest.write(facts)?;
        manifest.flush()?;
        Ok(manifest)
    }

    /// Adds a line: packs first, then directories, then files.
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

    /// Ends the manifest: the backup exists then. Gives the stored size.
    pub fn finish(mut self) -> Result<u64> {
        let end = RawLine::end(self.lines, self.hasher.finalize().to_hex().to_string());
        self.write(&end)?;
        self.flush()?;
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
            self.pending.clear();
        }
        Ok(())
    }
}
