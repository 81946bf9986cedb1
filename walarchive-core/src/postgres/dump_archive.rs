//! What pg_dump writes, looked at as it goes by: whether it is whole. No input or output.
//!
//! A dump that lacks its end must not pass for one, even where pg_dump says that all went well: its output may have been
//! cut by what is in between. Plain dumps end with a comment. The custom format has no end mark; but its table of contents
//! says which entries have data, each must be there, and each must end.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};

const MAGIC: &[u8] = b"PGDMP";
const CUSTOM: u8 = 1;
/// The format byte of the table of contents in a directory.
const DIRECTORY: u8 = 3;
const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;
const NO_DATA: u8 = 3;
/// No string of a table of contents is longer than PostgreSQL lets a value be.
const STRING_MAX: i64 = 1 << 30;
/// A longer table of contents is not kept for pg_restore to look at.
pub const TOC_KEPT: usize = 64 << 20;
/// The end mark of a plain dump stands in its last bytes; behind it may be a line that ends psql's restriction.
const TAIL: usize = 4096;
const END_OF_DATABASE: &str = "-- PostgreSQL database dump complete";
const END_OF_CLUSTER: &str = "-- PostgreSQL database cluster dump complete";

fn cut_off(where_: &str) -> Error {
    Error::damaged(format!("the dump is cut off: it ends {where_}"))
        .hint("pg_dump said that all went well; is something between it and its output?")
}

fn nonsense(what: &str) -> Error {
    Error::damaged(format!("the dump cannot be what pg_dump writes: {what}"))
}

/// An entry of a table of contents, as far as its data are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Its number in the dump.
    pub id: i64,
    /// What it is, such as `TABLE DATA`.
    pub kind: String,
    /// Whether its data are rows of COPY.
    pub is_copied: bool,
    /// Custom: whether data of it follow.
    pub has_data: bool,
    /// Directory: the file of its data; empty when it has none.
    pub file: String,
}

/// Reads values; `None` when more bytes are needed.
struct Values<'a> {
    bytes: &'a [u8],
    at: usize,
    int_size: usize,
    offset_size: usize,
    version: (u8, u8),
}

impl Values<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn int(&mut self) -> Option<i64> {
        let end = self.at + 1 + self.int_size;
        let value = int(self.bytes.get(self.at..end)?);
        self.at = end;
        Some(value)
    }

    fn text(&mut self) -> Option<Result<Option<String>>> {
        let len = self.int()?;
        if len < 0 {
            return Some(Ok(None));
        }
        if len > STRING_MAX {
            return Some(Err(nonsense("a string has an impossible length")));
        }
        let end = self.at + len as usize;
        let text = String::from_utf8_lossy(self.bytes.get(self.at..end)?).into_owned();
        self.at = end;
        Some(Ok(Some(text)))
    }

    fn has(&self, minor: u8) -> bool {
        self.version >= (1, minor)
    }
}

/// A sign byte, and the value's bytes, the lowest first.
fn int(bytes: &[u8]) -> i64 {
    let (sign, value) = bytes.split_first().unwrap_or((&0, &[]));
    let value = value.iter().rev().take(7).fold(0i64, |sum, byte| (sum << 8) | i64::from(*byte));
    if *sign == 0 { value } else { -value }
}

/// A table of contents that was read.
struct Toc {
    entries: Vec<TocEntry>,
    len: usize,
    int_size: usize,
}

macro_rules! more {
    ($value:expr) => {
        match $value {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

/// Reads header and table of contents; `None` when more bytes are needed.
fn read_toc(bytes: &[u8], format: u8) -> Result<Option<Toc>> {
    let head = more!(bytes.get(..11));
    if !head.starts_with(MAGIC) || head[10] != format {
        return Err(nonsense("it does not begin as one"));
    }
    let version = (head[5], head[6]);
    if version.0 != 1 || !(12..=99).contains(&version.1) {
        return Err(nonsense(&format!("its version is {}.{}", version.0, version.1)));
    }
    let (int_size, offset_size) = (head[8] as usize, head[9] as usize);
    if !(1..=8).contains(&int_size) || offset_size > 16 {
        return Err(nonsense("its numbers have an impossible size"));
    }
    let mut values = Values { bytes, at: 11, int_size, offset_size, version };
    // How the data are compressed.
    if values.has(15) {
        more!(values.byte());
    } else {
        more!(values.int());
    }
    for _ in 0..7 {
        more!(values.int());
    }
    for _ in 0..3 {
        more!(values.text())?;
    }
    let count = more!(values.int());
    let mut entries = Vec::new();
    for _ in 0..count.max(0) {
        entries.push(more!(read_entry(&mut values, format)?));
    }
    Ok(Some(Toc { entries, len: values.at, int_size }))
}

fn read_entry(values: &mut Values<'_>, format: u8) -> Result<Option<TocEntry>> {
    let id = more!(values.int());
    more!(values.int());
    for _ in 0..3 {
        more!(values.text())?;
    }
    let kind = more!(values.text())?.unwrap_or_default();
    more!(values.int());
    for _ in 0..2 {
        more!(values.text())?;
    }
    let copy = more!(values.text())?;
    for _ in 0..2 {
        more!(values.text())?;
    }
    if values.has(14) {
        more!(values.text())?;
    }
    if values.has(16) {
        more!(values.int());
    }
    for _ in 0..2 {
        more!(values.text())?;
    }
    while more!(values.text())?.is_some() {}
    let (mut has_data, mut file) = (false, String::new());
    if format == CUSTOM {
        has_data = more!(values.byte()) != NO_DATA;
        for _ in 0..values.offset_size {
            more!(values.byte());
        }
    } else {
        file = more!(values.text())?.unwrap_or_default();
    }
    let is_copied = copy.is_some_and(|copy| !copy.trim().is_empty());
    Ok(Some(TocEntry { id, kind, is_copied, has_data, file }))
}

/// Looks at a dump in the custom format.
#[derive(Debug, Default)]
pub struct CustomCheck {
    /// The beginning, until the table of contents is whole; then that.
    toc: Vec<u8>,
    tried: usize,
    blocks: Option<Blocks>,
}

/// The data behind the table of contents.
#[derive(Debug)]
struct Blocks {
    wanted: BTreeSet<i64>,
    int_size: usize,
    state: State,
    is_blobs: bool,
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A block begins, or the dump ends.
    Kind,
    Id,
    /// A large object begins, or the block ends.
    Blob,
    /// The length of the next piece; zero ends the object or the block.
    Piece,
    /// So many bytes of data.
    Data(u64),
}

impl CustomCheck {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(blocks) = &mut self.blocks {
            return blocks.push(bytes);
        }
        self.toc.extend_from_slice(bytes);
        // Tried again when there is twice as much, so that a long one is not read over and over.
        if self.toc.len() < 2 * self.tried {
            return Ok(());
        }
        self.try_toc()
    }

    fn try_toc(&mut self) -> Result<()> {
        self.tried = self.toc.len();
        let Some(toc) = read_toc(&self.toc, CUSTOM)? else { return Ok(()) };
        let with_data = toc.entries.iter().filter(|entry| entry.has_data).map(|entry| entry.id);
        let mut blocks = Blocks {
            wanted: with_data.collect(),
            int_size: toc.int_size,
            state: State::Kind,
            is_blobs: false,
            held: Vec::new(),
        };
        let rest = self.toc.split_off(toc.len);
        if self.toc.len() > TOC_KEPT {
            self.toc = Vec::new();
        }
        blocks.push(&rest)?;
        self.blocks = Some(blocks);
        Ok(())
    }

    /// Says that the dump ended; gives its header and table of contents, if that is not too long.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if self.blocks.is_none() {
            if self.toc.is_empty() {
                return Err(cut_off("before it begins"));
            }
            self.try_toc()?;
        }
        let blocks = self.blocks.ok_or_else(|| cut_off("within its table of contents"))?;
        if blocks.state != State::Kind || !blocks.held.is_empty() {
            return Err(cut_off("within the data of a table"));
        }
        if !blocks.wanted.is_empty() {
            let missing = blocks.wanted.len();
            return Err(cut_off(&format!(
                "where the data of {missing} entries of its table of contents should follow"
            )));
        }
        Ok(self.toc)
    }
}

impl Blocks {
    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if let State::Data(left) = self.state {
                let taken = left.min(bytes.len() as u64);
                bytes = &bytes[taken as usize..];
                self.state = if taken == left { State::Piece } else { State::Data(left - taken) };
                continue;
            }
            let size = if self.state == State::Kind { 1 } else { 1 + self.int_size };
            let (head, rest) = bytes.split_at(bytes.len().min(size - self.held.len()));
            bytes = rest;
            // Mostly all of it is here.
            let value = if self.held.is_empty() && head.len() == size {
                int_or_byte(head)
            } else {
                self.held.extend_from_slice(head);
                if self.held.len() < size {
                    continue;
                }
                let value = int_or_byte(&self.held);
                self.held.clear();
                value
            };
            self.step(value)?;
        }
        Ok(())
    }

    fn step(&mut self, value: i64) -> Result<()> {
        self.state = match self.state {
            State::Kind if value == i64::from(BLOCK_DATA) || value == i64::from(BLOCK_BLOBS) => {
                self.is_blobs = value == i64::from(BLOCK_BLOBS);
                State::Id
            }
            State::Kind => return Err(nonsense("a block of data is of no known kind")),
            State::Id => {
                if !self.wanted.remove(&value) {
                    return Err(nonsense("its data are of no entry of its table of contents"));
                }
                if self.is_blobs { State::Blob } else { State::Piece }
            }
            State::Blob if value == 0 => State::Kind,
            State::Blob => State::Piece,
            State::Piece if value == 0 && self.is_blobs => State::Blob,
            State::Piece if value == 0 => State::Kind,
            State::Piece if value < 0 => return Err(nonsense("a piece of data has a negative length")),
            State::Piece | State::Data(_) => State::Data(value as u64),
        };
        Ok(())
    }
}

fn int_or_byte(bytes: &[u8]) -> i64 {
    if let [byte] = bytes { i64::from(*byte) } else { int(bytes) }
}

/// Looks at a plain dump.
#[derive(Debug, Default)]
pub struct PlainCheck {
    tail: Vec<u8>,
}

impl PlainCheck {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
        let surplus = (self.tail.len() + kept.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(kept);
    }

    /// Says that the dump ended; `of_cluster` when it is pg_dumpall's.
    pub fn finish(self, of_cluster: bool) -> Result<()> {
        let wanted = if of_cluster { END_OF_CLUSTER } else { END_OF_DATABASE };
        let tail = String::from_utf8_lossy(&self.tail);
        let mut lines = tail.lines().rev();
        let is_end = |line: &str| line.is_empty() || line == "--" || line.starts_with("\\unrestrict ");
        match lines.find(|line| !is_end(line)) {
            Some(last) if last == wanted && tail.ends_with('\n') => Ok(()),
            _ => Err(cut_off("without the line that says it is complete")),
        }
    }
}

/// Looks at a dump that is a directory: `toc` is its table of contents, `tails` are the last bytes of every file, by name;
/// `blob_lists` are the whole lists of large objects among them.
pub fn check_directory(
    toc: &[u8],
    tails: &BTreeMap<String, Vec<u8>>,
    blob_lists: &BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    let toc = read_toc(toc, DIRECTORY)?.ok_or_else(|| cut_off("within its table of contents"))?;
    for entry in toc.entries.iter().filter(|entry| !entry.file.is_empty()) {
        let file = &entry.file;
        let tail = tails.get(file).ok_or_else(|| cut_off(&format!("without its file {file}")))?;
        if entry.is_copied && !String::from_utf8_lossy(tail).trim_end_matches('\n').ends_with("\\.") {
            return Err(cut_off(&format!("within its file {file}")));
        }
        let Some(list) = blob_lists.get(file) else { continue };
        for line in String::from_utf8_lossy(list).lines() {
            let blob = line.split_once(' ').map(|(_, name)| name);
            if !blob.is_some_and(|name| tails.contains_key(name)) {
                return Err(cut_off(&format!("without a large object that {file} lists")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int5(value: i64) -> Vec<u8> {
        let mut bytes = vec![u8::from(value < 0)];
        bytes.extend_from_slice(&(value.unsigned_abs() as u32).to_le_bytes());
        bytes
    }

    fn text(text: Option<&str>) -> Vec<u8> {
        let mut bytes = int5(text.map_or(-1, |text| text.len() as i64));
        bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        bytes
    }

    /// A dump of version 1.`minor` whose entries are numbered from 1: tables with rows, large objects, and one without data.
    fn dump(minor: u8) -> (Vec<u8>, usize) {
        let mut bytes = [MAGIC, &[1, minor, 0, 4, 8, CUSTOM]].concat();
        bytes.extend(if minor >= 15 { vec![0] } else { int5(0) });
        (0..7).for_each(|_| bytes.extend(int5(7)));
        ["db", "15.1", "15.1"].iter().for_each(|part| bytes.extend(text(Some(part))));
        bytes.extend(int5(3));
        for (id, kind, flag) in [(1, "TABLE DATA", 1), (2, "BLOBS", 1), (3, "TABLE", NO_DATA)] {
            bytes.extend([int5(id), int5(1)].concat());
            for part in ["0", "0", "tag", kind] {
                bytes.extend(text(Some(part)));
            }
            bytes.extend(int5(3));
            let after = if minor >= 14 { 6 } else { 5 };
            (0..after).for_each(|_| bytes.extend(text(None)));
            if minor >= 16 {
                bytes.extend(int5(0));
            }
            bytes.extend([text(Some("me")), text(Some("false")), text(Some("9")), text(None)].concat());
            bytes.push(flag);
            bytes.extend([0; 8]);
        }
        let toc = bytes.len();
        bytes.push(BLOCK_DATA);
        bytes.extend([int5(1), int5(3), b"row".to_vec(), int5(2), b"\n\n".to_vec(), int5(0)].concat());
        bytes.push(BLOCK_BLOBS);
        bytes.extend(
            [int5(2), int5(77), int5(4), b"blob".to_vec(), int5(0), int5(78), int5(0), int5(0)].concat(),
        );
        (bytes, toc)
    }

    fn check(bytes: &[u8], step: usize) -> Result<Vec<u8>> {
        let mut check = CustomCheck::default();
        bytes.chunks(step).try_for_each(|piece| check.push(piece))?;
        check.finish()
    }

    #[test]
    fn a_whole_dump_passes_however_it_comes() {
        for minor in [13, 14, 15, 16] {
            let (bytes, toc) = dump(minor);
            for step in [1, 2, 5, 64, 10_000] {
                assert_eq!(check(&bytes, step).unwrap(), &bytes[..toc], "version 1.{minor}, {step} at once");
            }
        }
    }

    #[test]
    fn a_dump_that_is_cut_anywhere_is_refused() {
        let (bytes, _) = dump(16);
        for end in 0..bytes.len() {
            for step in [1, 10_000] {
                assert!(check(&bytes[..end], step).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        let (bytes, toc) = dump(14);
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            check(&bytes, 100)
        };
        assert!(with(0, b'X').is_err() && with(10, DIRECTORY).is_err() && with(5, 2).is_err());
        assert!(with(toc, 9).is_err(), "a block of no kind");
        assert!(with(toc + 2, 9).is_err(), "a block of no entry");
        assert!(check(&[bytes.clone(), vec![BLOCK_DATA]].concat(), 100).is_err(), "something behind the end");
    }

    #[test]
    fn plain_dumps_end_with_their_mark() {
        let said = |text: &str, of_cluster| {
            let mut check = PlainCheck::default();
            text.as_bytes().chunks(7).for_each(|piece| check.push(piece));
            check.finish(of_cluster)
        };
        let body = "x\n".repeat(5000);
        assert!(said(&format!("{body}--\n{END_OF_DATABASE}\n--\n\n"), false).is_ok());
        assert!(said(&format!("{body}--\n{END_OF_DATABASE}\n--\n\n\\unrestrict abc\n\n"), false).is_ok());
        assert!(said(&format!("{body}--\n{END_OF_CLUSTER}\n--\n\n"), true).is_ok());
        assert!(said(&format!("{body}--\n{END_OF_CLUSTER}\n--\n\n"), false).is_err());
        assert!(said(&body, false).is_err());
        assert!(said(&format!("{END_OF_DATABASE}\n{body}"), false).is_err());
        assert!(said(END_OF_DATABASE, false).is_err());
        assert!(said("", false).is_err());
    }

    #[test]
    fn ten_thousand_random_bytes_do_no_harm() {
        let mut state = 7u64;
        for _ in 0..200 {
            let (mut bytes, _) = dump(15);
            for _ in 0..5 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            let _ = check(&bytes, 13);
            let _ = check_directory(&bytes, &BTreeMap::new(), &BTreeMap::new());
        }
    }
}
