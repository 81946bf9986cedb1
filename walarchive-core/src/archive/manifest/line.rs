//! The lines after the first, and their stored form.

use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::signing::Signed;
use crate::archive::{Extents, PackName};
use crate::error::{Error, Result};

/// No file system of PostgreSQL's platforms holds a larger file.
const LARGEST_FILE: u64 = 1 << 44;

/// A pack that a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Where bytes of a stream are: in the data of a pack's frames, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(u64, u32, u64)", from = "(u64, u32, u64)")]
pub struct Stretch {
    /// How many.
    pub len: u64,
    /// The pack's number in the manifest.
    pub pack: u32,
    /// Offset in the data of its frames.
    pub at: u64,
}

impl From<(u64, u32, u64)> for Stretch {
    fn from((len, pack, at): (u64, u32, u64)) -> Stretch {
        Stretch { len, pack, at }
    }
}

impl From<Stretch> for (u64, u32, u64) {
    fn from(stretch: Stretch) -> (u64, u32, u64) {
        (stretch.len, stretch.pack, stretch.at)
    }
}

/// A stream of a dump: what pg_dump wrote to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its name: `dump`, or that of a file in a dump that is a directory.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of all of them.
    pub digest: String,
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
    /// A stream of a dump.
    Stream(StreamRecord),
    /// Where the next bytes of the stream before are.
    Bytes(Vec<Stretch>),
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct RawLine {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<Stretch>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
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
            let is_hex = hex.len() % 2 == 0 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
            let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
            let bytes = bytes.filter(|_| is_hex);
            safe_path(&bytes.ok_or_else(|| Error::damaged("a manifest's path is not hex"))?).map(Some)
        }
        (None, None) => Ok(None),
        _ => Err(Error::damaged("a manifest's line has two paths")),
    }
}

impl RawLine {
    /// A line as it is stored.
    pub(super) fn parse(line: &[u8]) -> Result<RawLine> {
        serde_json::from_slice(line)
            .map_err(|error| Error::damaged("a manifest's line cannot be read").because(error))
    }

    /// Whether it tells of a pack.
    pub(super) fn is_pack(&self) -> bool {
        self.pack.is_some()
    }

    /// The last line.
    pub(super) fn end(lines: u64, digest: String, signed: Option<Signed>) -> RawLine {
        let (writer, sig) = signed.map(|signed| (signed.writer, signed.sig)).unzip();
        RawLine {
            end: Some(true),
            lines: Some(lines),
            digest: Some(digest),
            writer,
            sig,
            ..RawLine::default()
        }
    }

    /// Who signed the last line, if anybody did.
    pub(super) fn signed(self) -> Option<Signed> {
        Some(Signed { writer: self.writer?, sig: self.sig? })
    }

    /// Whether this is the last line; one that does not match what came before it is `Damaged`.
    pub(super) fn is_end(&self, lines: u64, digest: impl FnOnce() -> String) -> Result<bool> {
        if self.end != Some(true) {
            return Ok(false);
        }
        if self.lines != Some(lines) || self.digest != Some(digest()) {
            return Err(Error::damaged("the manifest does not match its last line"));
        }
        Ok(true)
    }

    pub(super) fn of(line: &Line, pack_number: u32) -> RawLine {
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
            Line::Stream(record) => RawLine {
                stream: Some(record.name.clone()),
                size: Some(record.size),
                digest: Some(record.digest.clone()),
                ..RawLine::default()
            },
            Line::Bytes(stretches) => RawLine { bytes: Some(stretches.clone()), ..RawLine::default() },
        }
    }

    pub(super) fn into_line(self, packs: usize) -> Result<Line> {
        let lacks = || Error::damaged("a manifest's line lacks a key");
        let mode = |mode: Option<u32>| mode.filter(|mode| *mode <= 0o777).ok_or_else(lacks);
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
        if let Some(stretches) = self.bytes {
            let known = |stretch: &Stretch| {
                (stretch.pack as usize) < packs && stretch.at.checked_add(stretch.len).is_some()
            };
            return match stretches.iter().all(known) {
                true => Ok(Line::Bytes(stretches)),
                false => Err(Error::damaged("a manifest's stream is in a pack that it does not name")),
            };
        }
        if let Some(name) = self.stream {
            let path = safe_path(name.as_bytes())?;
            if path.components().count() != 1 {
                return Err(Error::damaged(format!("a manifest names an unsafe stream {name:?}")));
            }
            let (size, digest) = (self.size.ok_or_else(lacks)?, self.digest.ok_or_else(lacks)?);
            return Ok(Line::Stream(StreamRecord { name, size, digest }));
        }
        if let Some(path) = path_of(self.dir, self.dir_hex)? {
            return Ok(Line::Dir(path, mode(self.mode)?));
        }
        let path = path_of(self.file, self.file_hex)?.ok_or_else(lacks)?;
        let crc = self.crc32c.ok_or_else(lacks)?;
        let size = self.size.ok_or_else(lacks)?;
        let extents = self.extents.ok_or_else(lacks)?;
        if size > LARGEST_FILE {
            return Err(Error::damaged(format!("a manifest names a file of {size} bytes")));
        }
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
