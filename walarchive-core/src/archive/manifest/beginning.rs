//! Reading the beginning of a manifest: its facts, and its packs, however many files come behind them.

use std::collections::BTreeMap;

use super::facts::{Facts, FirstLine};
use super::line::{Line, RawLine};
use super::read::{LINE_MAX, scan};
use crate::archive::{Archive, BackupId, ObjectKind, PackName, Place};
use crate::error::{Error, Result};

/// The first frame of a manifest is found in so many bytes of its content; more are read in steps of that length.
const STEP: u64 = 256 * 1024;

/// What a backup needs of what is stored, as the beginning of its manifest has it.
#[derive(Debug, Clone)]
pub struct Needs<F = Facts> {
    /// The manifest's first line.
    pub facts: F,
    /// The packs that its files are in, the backup's own and those of older ones, with their stored bytes.
    pub packs: BTreeMap<PackName, u64>,
    /// Stored bytes of the manifest itself.
    pub manifest_bytes: u64,
}

/// Reads only the facts of a manifest, from its first bytes.
pub async fn read_facts<F: FirstLine>(archive: &Archive, place: &Place, id: &BackupId) -> Result<F> {
    archive.from_any(|copy| async move { Ok(begin(&copy, place, id, false).await?.facts) }).await
}

/// Reads a manifest as far as its packs go: mostly that are the bytes in which [`read_facts`] finds the facts. Unlike
/// with [`scan`](super::scan), nobody has looked at the rest of it: good for telling, not for deleting.
pub async fn read_needs<F: FirstLine>(archive: &Archive, place: &Place, id: &BackupId) -> Result<Needs<F>> {
    archive.from_any(|copy| async move { begin(&copy, place, id, true).await }).await
}

async fn begin<F: FirstLine>(
    copy: &Archive,
    place: &Place,
    id: &BackupId,
    with_packs: bool,
) -> Result<Needs<F>> {
    let key = place.manifest(id);
    // Where nothing but the signature at its end tells who wrote it, its beginning says nothing.
    if copy.demands_signatures() && !copy.info().encrypted() {
        let (manifest, ()) = scan::<F, _>(copy, place, id, ()).await?;
        let packs = manifest.packs.into_iter().map(|pack| (pack.name, pack.stored)).collect();
        let manifest_bytes = copy.storage().size(&key).await?;
        return Ok(Needs { facts: manifest.facts, packs, manifest_bytes });
    }
    let object = copy.reader(&key, ObjectKind::Manifest).await?;
    let mut decoder = object.codec().reader().decoder()?;
    let mut lines = FirstLines { with_packs, ..FirstLines::default() };
    let mut facts = None;
    let mut at = 0;
    while at < object.content_len() && !(lines.done && facts.is_some()) {
        let end = object.content_len().min(at + STEP);
        let content = object.read(at..end).await?;
        // A frame's checksum stands behind its content: what came before an error cannot be believed.
        decoder.push(&content, &mut |plain| lines.take(plain)).map_err(|error| error.on(&key))?;
        if facts.is_none() {
            let first = lines.first.as_deref();
            let first = first.ok_or_else(|| Error::damaged("the manifest has no facts").on(&key))?;
            facts = Some(parse_facts(first, &key, id, place)?);
        }
        at = end;
    }
    match facts {
        Some(facts) if lines.done => {
            Ok(Needs { facts, packs: lines.packs, manifest_bytes: object.object_size() })
        }
        _ => Err(Error::damaged("the manifest ends too early").on(&key)),
    }
}

pub(super) fn parse_facts<F: FirstLine>(line: &[u8], key: &str, id: &BackupId, place: &Place) -> Result<F> {
    let facts: F = serde_json::from_slice(line)
        .map_err(|error| Error::damaged("the manifest's facts cannot be read").because(error).on(key))?;
    facts.check(key, id, place)?;
    Ok(facts)
}

/// The lines up to the last that is wanted.
#[derive(Default)]
struct FirstLines {
    with_packs: bool,
    partial: Vec<u8>,
    first: Option<Vec<u8>>,
    read: usize,
    packs: BTreeMap<PackName, u64>,
    done: bool,
}

impl FirstLines {
    fn take(&mut self, mut plain: &[u8]) -> Result<()> {
        while let (false, Some(end)) = (self.done, plain.iter().position(|byte| *byte == b'\n')) {
            let (rest_of_line, rest) = plain.split_at(end + 1);
            plain = rest;
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(rest_of_line);
            self.line(line)?;
        }
        if !self.done {
            self.partial.extend_from_slice(plain);
        }
        match self.partial.len() > LINE_MAX {
            true => Err(Error::damaged("a manifest's line does not end")),
            false => Ok(()),
        }
    }

    fn line(&mut self, line: Vec<u8>) -> Result<()> {
        if self.first.is_none() {
            (self.first, self.done) = (Some(line), !self.with_packs);
            return Ok(());
        }
        let raw = RawLine::parse(&line)?;
        self.done = !raw.is_pack();
        if self.done {
            return Ok(());
        }
        if let Line::Pack(pack) = raw.into_line(self.read)? {
            self.read += 1;
            self.packs.insert(pack.name, pack.stored);
        }
        Ok(())
    }
}
