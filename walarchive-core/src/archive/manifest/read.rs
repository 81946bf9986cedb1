//! Reading a whole manifest, proven.

use super::beginning::parse_facts;
use super::facts::{Facts, FirstLine};
use super::line::{Line, PackRecord, RawLine};
use crate::archive::{Archive, BackupId, ObjectKind, Place, Taker};
use crate::error::{Error, Kind, Result};

/// One file's extents at worst; a longer line cannot be meant.
pub(super) const LINE_MAX: usize = 64 << 20;

/// Takes the lines of a manifest, in order, on a thread that may block.
pub trait Visitor<F = Facts>: Send + 'static {
    /// Takes the next line; `facts` and `packs` are those read so far (all, when the first file comes).
    fn line(&mut self, facts: &F, packs: &[PackRecord], line: Line) -> Result<()>;
}

/// Looks at nothing.
impl<F> Visitor<F> for () {
    fn line(&mut self, _: &F, _: &[PackRecord], _: Line) -> Result<()> {
        Ok(())
    }
}

/// A whole manifest, proven to its last byte.
#[derive(Debug, Clone)]
pub struct Manifest<F = Facts> {
    /// Its first line.
    pub facts: F,
    /// Its packs, in order.
    pub packs: Vec<PackRecord>,
}

/// Reads a whole manifest and shows its lines to `visitor`. It is complete and undamaged only if this returns
/// success: what the visitor saw before an error must not be acted on beyond repair.
pub async fn scan<F: FirstLine, V: Visitor<F>>(
    archive: &Archive,
    place: &Place,
    id: &BackupId,
    visitor: V,
) -> Result<(Manifest<F>, V)> {
    let key = place.manifest(id);
    let lines = Lines {
        archive: archive.clone(),
        id: id.clone(),
        place: place.clone(),
        key: key.clone(),
        partial: Vec::new(),
        before: blake3::Hasher::new(),
        lines: 0,
        facts: None,
        packs: Vec::new(),
        ended: false,
        visitor,
    };
    // What the visitor saw cannot be taken back: with mirrors, one is chosen first whose copy holds.
    let read = match archive.sound_copy(&key, ObjectKind::Manifest).await {
        Ok(copy) => copy.read(&key, ObjectKind::Manifest, u64::MAX, lines).await,
        Err(error) => Err(error),
    };
    let (lines, _) = read.map_err(|error| match error.kind() {
        Kind::Absent => place.no_such(id).on(&key),
        _ => error.during(format!("reading the manifest of {} {id}", place.noun())),
    })?;
    lines.finish()
}

struct Lines<F, V> {
    archive: Archive,
    id: BackupId,
    place: Place,
    key: String,
    partial: Vec<u8>,
    before: blake3::Hasher,
    lines: u64,
    facts: Option<F>,
    packs: Vec<PackRecord>,
    ended: bool,
    visitor: V,
}

impl<F: FirstLine, V: Visitor<F>> Taker for Lines<F, V> {
    fn take(&mut self, mut plain: &[u8]) -> Result<()> {
        while let Some(end) = plain.iter().position(|byte| *byte == b'\n') {
            let (rest_of_line, rest) = plain.split_at(end + 1);
            plain = rest;
            if self.partial.is_empty() {
                self.line(rest_of_line)?;
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(rest_of_line);
                self.line(&line)?;
            }
        }
        self.partial.extend_from_slice(plain);
        if self.partial.len() > LINE_MAX {
            return Err(Error::damaged("a manifest's line does not end"));
        }
        Ok(())
    }
}

impl<F: FirstLine, V: Visitor<F>> Lines<F, V> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        if self.ended {
            return Err(Error::damaged("the manifest goes on after its end"));
        }
        let Some(facts) = &self.facts else {
            self.facts = Some(parse_facts(line, &self.key, &self.id, &self.place)?);
            return self.count(line);
        };
        let raw = RawLine::parse(line)?;
        let digest = || self.before.finalize().to_hex().to_string();
        if raw.is_end(self.lines, digest)? {
            self.archive.check_manifest(&self.key, &digest(), raw.signed())?;
            self.ended = true;
            return Ok(());
        }
        let line_of = raw.into_line(self.packs.len())?;
        if !F::has(&line_of) {
            return Err(Error::damaged("a manifest has a line of another kind than belongs there"));
        }
        if let Line::Pack(pack) = &line_of {
            self.packs.push(pack.clone());
        }
        self.visitor.line(facts, &self.packs, line_of)?;
        self.count(line)
    }

    fn count(&mut self, line: &[u8]) -> Result<()> {
        self.before.update(line);
        self.lines += 1;
        Ok(())
    }

    fn finish(self) -> Result<(Manifest<F>, V)> {
        match (self.facts, self.ended && self.partial.is_empty()) {
            (Some(facts), true) => Ok((Manifest { facts, packs: self.packs }, self.visitor)),
            _ => Err(Error::damaged("the manifest ends too early").on(&self.key)),
        }
    }
}
