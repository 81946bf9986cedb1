//! Manifests: what a backup consists of (FORMAT.md §7).

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::object::Taker;
use super::{Archive, BackupId, Extents, ObjectKind, PackName, Place, SystemId};
use crate::codec::{Codec, Framer};
use crate::crossing::Bridge;
use crate::error::{Error, Kind, Result};
use crate::pipeline::ObjectWriter;
use crate::wal::Lsn;

const FORMAT: u32 = 1;
const FRAME: usize = 1 << 20;
/// One file's extents at worst; a longer line cannot be meant.
const LINE_MAX: usize = 64 << 20;
/// The first frame of a manifest is found in these bytes of its content.
const FACTS_READ: u64 = 64 * 1024;

/// The first line of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of the manifest, 1.
    pub format: u32,
    /// What is described: `base`.
    #[serde(rename = "type")]
    pub kind_of: String,
    /// The backup.
    pub id: String,
    /// `full` or `incremental`.
    pub kind: String,
    /// The user's name for the cluster.
    pub cluster: String,
    /// PostgreSQL's system identifier, decimal.
    pub system_id: String,
    /// Major version of the server.
    pub pg_major: u32,
    /// Its full version.
    pub server_version: String,
    /// Version of pg_control.
    pub control_version: u32,
    /// Version of the system catalogs.
    pub catalog_version: u32,
    /// The timeline of the backup.
    pub timeline: u32,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// One past the last byte of WAL that the backup needs.
    pub stop_lsn: Lsn,
    /// When it began, by the server's clock.
    pub started_at: Timestamp,
    /// When it ended, by the server's clock.
    pub finished_at: Timestamp,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Whether the cluster has page checksums.
    pub page_checksums: bool,
    /// Sum of file sizes.
    pub data_bytes: u64,
    /// Stored bytes of the packs that this backup wrote.
    pub stored_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// Pages that failed their checksum.
    pub damaged_pages: u64,
    /// Tablespaces other than the built-in ones.
    pub tablespaces: Vec<Tablespace>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Program and version.
    pub created_by: String,
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its object identifier, the name of its link in pg_tblspc.
    pub oid: u32,
    /// Where it was.
    pub location: PathBuf,
}

impl Facts {
    /// The version that this program writes.
    pub const FORMAT: u32 = FORMAT;

    /// The system identifier as a number.
    pub fn system(&self) -> Result<SystemId> {
        self.system_id.parse().map_err(|_| Error::damaged("a manifest names no system identifier"))
    }

    fn check(&self, key: &str, id: &BackupId, place: &Place) -> Result<()> {
        if self.format != FORMAT || self.kind_of != "base" {
            return Err(Error::damaged(format!(
                "the manifest has format {} and type {:?}, this program knows {FORMAT} and \"base\"",
                self.format, self.kind_of
            ))
            .on(key));
        }
        if self.id != id.as_str() || self.system()? != place.system {
            return Err(Error::damaged("the manifest describes another backup than its key says").on(key));
        }
        Ok(())
    }
}

/// A pack that a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRecord {
    /// Which pack.
    pub name: PackName,
    /// Stored bytes of the object.
    pub stored: u64,
    /// Offset of the index in the content.
    pub index_at: u64,
    /// Length of the index.
    pub index_len: u64,
    /// Bytes of data in its frames.
    pub plain: u64,
    /// BLAKE3 of the index body.
    pub digest: String,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Path relative to the data directory.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32C of the content.
    pub crc32c: u32,
    /// Where its pages are.
    pub extents: Extents,
    /// Blocks that failed their page checksum.
    pub damaged: Vec<u32>,
}

/// A line of a manifest after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The next pack.
    Pack(PackRecord),
    /// A directory and its permission bits.
    Dir(PathBuf, u32),
    /// A file.
    File(FileRecord),
}

#[derive(Default, Serialize, Deserialize)]
struct RawLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pack: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plain: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dir_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extents: Option<Extents>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<u32>,
}

/// A relative path from a manifest, proven to stay below where it is joined to.
pub fn safe_path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let rebuilt: PathBuf = path.components().collect();
    if bytes.is_empty() || bytes.contains(&0) || !plain || rebuilt.as_os_str().as_bytes() != bytes {
        return Err(Error::damaged(format!(
            "a manifest names an unsafe path {:?}",
            path.display().to_string()
        )));
    }
    Ok(rebuilt)
}

fn path_text(path: &Path) -> (Option<String>, Option<String>) {
    use std::os::unix::ffi::OsStrExt;
    match path.to_str() {
        Some(text) => (Some(text.to_owned()), None),
        None => (None, Some(path.as_os_str().as_bytes().iter().map(|b| format!("{b:02x}")).collect())),
    }
}

fn path_of(text: Option<String>, hex: Option<String>) -> Result<Option<PathBuf>> {
    match (text, hex) {
        (Some(text), None) => safe_path(text.as_bytes()).map(Some),
        (None, Some(hex)) => {
            let byte = |pair: &[u8]| {
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
            };
            let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
            safe_path(&bytes.ok_or_else(|| Error::damaged("a manifest's path is not hex"))?).map(Some)
        }
        (None, None) => Ok(None),
        _ => Err(Error::damaged("a manifest's line has two paths")),
    }
}

impl RawLine {
    fn of(line: &Line, pack_number: u32) -> RawLine {
        match line {
            Line::Pack(pack) => RawLine {
                pack: Some(pack_number),
                key: Some(pack.name.to_string()),
                stored: Some(pack.stored),
                index_at: Some(pack.index_at),
                index_len: Some(pack.index_len),
                plain: Some(pack.plain),
                digest: Some(pack.digest.clone()),
                ..RawLine::default()
            },
            Line::Dir(path, mode) => {
                let (dir, dir_hex) = path_text(path);
                RawLine { dir, dir_hex, mode: Some(*mode), ..RawLine::default() }
            }
            Line::File(record) => {
                let (file, file_hex) = path_text(&record.path);
                RawLine {
                    file,
                    file_hex,
                    mode: Some(record.mode),
                    mtime: Some(record.mtime),
                    size: Some(record.size),
                    crc32c: Some(format!("{:08x}", record.crc32c)),
                    extents: Some(record.extents.clone()),
                    damaged: record.damaged.clone(),
                    ..RawLine::default()
                }
            }
        }
    }

    fn into_line(self, packs: usize) -> Result<Line> {
        let lacks = || Error::damaged("a manifest's line lacks a key");
        let mode = |mode: Option<u32>| mode.filter(|mode| *mode <= 0o7777).ok_or_else(lacks);
        if let Some(number) = self.pack {
            if number as usize != packs {
                return Err(Error::damaged("a manifest's packs are out of order"));
            }
            return Ok(Line::Pack(PackRecord {
                name: self.key.ok_or_else(lacks)?.parse()?,
                stored: self.stored.ok_or_else(lacks)?,
                index_at: self.index_at.ok_or_else(lacks)?,
                index_len: self.index_len.ok_or_else(lacks)?,
                plain: self.plain.ok_or_else(lacks)?,
                digest: self.digest.ok_or_else(lacks)?,
            }));
        }
        if let Some(path) = path_of(self.dir, self.dir_hex)? {
            return Ok(Line::Dir(path, mode(self.mode)?));
        }
        let path = path_of(self.file, self.file_hex)?.ok_or_else(lacks)?;
        let crc = self.crc32c.ok_or_else(lacks)?;
        let size = self.size.ok_or_else(lacks)?;
        let extents = self.extents.ok_or_else(lacks)?;
        extents.check(size, packs)?;
        Ok(Line::File(FileRecord {
            path,
            mode: mode(self.mode)?,
            mtime: self.mtime.ok_or_else(lacks)?,
            size,
            crc32c: u32::from_str_radix(&crc, 16)
                .map_err(|_| Error::damaged("a manifest's crc32c is not hex"))?,
            extents,
            damaged: self.damaged,
        }))
    }
}

/// Writes a manifest, line by line; used by one blocking worker. Bounded memory.
pub struct ManifestWriter {
    framer: Box<dyn Framer>,
    writer: ObjectWriter,
    hasher: blake3::Hasher,
    pending: Vec<u8>,
    packed: Vec<u8>,
    lines: u64,
    packs: u32,
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
            writer: ObjectWriter::start(archive.storage.clone(), key, head, seal, bridge),
            hasher: blake3::Hasher::new(),
            pending: Vec::new(),
            packed: Vec::new(),
            lines: 0,
            packs: 0,
        };
        manifest.write(facts)?;
        manifest.flush()?;
        Ok(manifest)
    }

    /// Adds a line: packs first, then directories, then files.
    pub fn line(&mut self, line: &Line) -> Result<()> {
        let raw = RawLine::of(line, self.packs);
        self.packs += u32::from(matches!(line, Line::Pack(_)));
        self.write(&raw)
    }

    /// Ends the manifest: the backup exists then. Gives the stored size.
    pub fn finish(mut self) -> Result<u64> {
        let end = RawLine {
            end: Some(true),
            lines: Some(self.lines),
            digest: Some(self.hasher.finalize().to_hex().to_string()),
            ..RawLine::default()
        };
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

/// Reads only the facts of a manifest, from its first bytes.
pub async fn read_facts(archive: &Archive, place: &Place, id: &BackupId) -> Result<Facts> {
    let key = place.manifest(id);
    let object = archive.reader(&key, ObjectKind::Manifest).await?;
    let content = object.read(0..object.content_len().min(FACTS_READ)).await?;
    let mut decoder = object.codec().reader().decoder()?;
    let mut line = Vec::new();
    let decoded = decoder.push(&content, &mut |plain| {
        if !line.contains(&b'\n') {
            line.extend_from_slice(plain);
        }
        Ok(())
    });
    let end = line.iter().position(|byte| *byte == b'\n');
    let Some(first) = end.and_then(|end| line.get(..end)) else {
        decoded.map_err(|error| error.on(&key))?;
        return Err(Error::damaged("the manifest has no facts").on(&key));
    };
    parse_facts(first, &key, id, place)
}

fn parse_facts(line: &[u8], key: &str, id: &BackupId, place: &Place) -> Result<Facts> {
    let facts: Facts = serde_json::from_slice(line)
        .map_err(|error| Error::damaged("the manifest's facts cannot be read").because(error).on(key))?;
    facts.check(key, id, place)?;
    Ok(facts)
}

/// Takes the lines of a manifest, in order, on a thread that may block.
pub trait Visitor: Send + 'static {
    /// Takes the next line; `facts` and `packs` are those read so far (all, when the first file comes).
    fn line(&mut self, facts: &Facts, packs: &[PackRecord], line: Line) -> Result<()>;
}

/// Looks at nothing.
impl Visitor for () {
    fn line(&mut self, _: &Facts, _: &[PackRecord], _: Line) -> Result<()> {
        Ok(())
    }
}

/// A whole manifest, proven to its last byte.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its first line.
    pub facts: Facts,
    /// Its packs, in order.
    pub packs: Vec<PackRecord>,
}

/// Reads a whole manifest and shows its lines to `visitor`. It is complete and undamaged only if this returns
/// success: what the visitor saw before an error must not be acted on beyond repair.
pub async fn scan<V: Visitor>(
    archive: &Archive,
    place: &Place,
    id: &BackupId,
    visitor: V,
) -> Result<(Manifest, V)> {
    let key = place.manifest(id);
    let lines = Lines {
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
    let read = archive.read(&key, ObjectKind::Manifest, u64::MAX, lines).await;
    let (lines, _) = read.map_err(|error| match error.kind() {
        Kind::Absent => Error::new(Kind::Absent, format!("there is no backup {id}"))
            .on(&key)
            .hint("'walarchive backup list' shows what there is"),
        _ => error.during(format!("reading the manifest of backup {id}")),
    })?;
    lines.finish()
}

struct Lines<V> {
    id: BackupId,
    place: Place,
    key: String,
    partial: Vec<u8>,
    before: blake3::Hasher,
    lines: u64,
    facts: Option<Facts>,
    packs: Vec<PackRecord>,
    ended: bool,
    visitor: V,
}

impl<V: Visitor> Taker for Lines<V> {
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

impl<V: Visitor> Lines<V> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        if self.ended {
            return Err(Error::damaged("the manifest goes on after its end"));
        }
        let Some(facts) = &self.facts else {
            self.facts = Some(parse_facts(line, &self.key, &self.id, &self.place)?);
            return self.count(line);
        };
        let raw: RawLine = serde_json::from_slice(line)
            .map_err(|error| Error::damaged("a manifest's line cannot be read").because(error))?;
        if raw.end == Some(true) {
            let digest = self.before.finalize().to_hex().to_string();
            if raw.lines != Some(self.lines) || raw.digest != Some(digest) {
                return Err(Error::damaged("the manifest does not match its last line"));
            }
            self.ended = true;
            return Ok(());
        }
        let line_of = raw.into_line(self.packs.len())?;
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

    fn finish(self) -> Result<(Manifest, V)> {
        match (self.facts, self.ended && self.partial.is_empty()) {
            (Some(facts), true) => Ok((Manifest { facts, packs: self.packs }, self.visitor)),
            _ => Err(Error::damaged("the manifest ends too early").on(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_target_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "./a", "a\0b"] {
            assert!(safe_path(path.as_bytes()).is_err(), "{path:?}");
        }
        assert_eq!(safe_path(b"base/1/1259").unwrap(), Path::new("base/1/1259"));
        assert!(safe_path(b"base/\xff\xfe").is_ok());
    }
}
