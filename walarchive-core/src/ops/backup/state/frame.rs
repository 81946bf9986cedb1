//! The frames of a state's file: a tag, a length, a checksum, a payload.

use super::{Look, Remembered, Sums, Text};
use crate::archive::FileRecord;

/// Bytes before a frame's payload.
pub(super) const HEAD: usize = 9;
/// A file's extents and sums at worst.
const LONGEST: u32 = 1 << 30;

pub(super) const HEADER: u8 = b'H';
pub(super) const PACK: u8 = b'P';
/// A file of pages that have positions.
pub(super) const POSITIONED: u8 = b'C';
/// Any other file.
pub(super) const DIGESTED: u8 = b'D';
pub(super) const TRAILER: u8 = b'E';

fn sum(tag: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[tag]), payload)
}

pub(super) fn head(tag: u8, payload: &[u8]) -> [u8; HEAD] {
    let mut head = [tag; HEAD];
    head[1..5].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[5..].copy_from_slice(&sum(tag, payload).to_le_bytes());
    head
}

/// The tag, and the length of the payload.
pub(super) fn parse(head: &[u8; HEAD]) -> Option<(u8, u32)> {
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    (len <= LONGEST).then_some((head[0], len))
}

pub(super) fn holds(head: &[u8; HEAD], payload: &[u8]) -> bool {
    head[5..] == sum(head[0], payload).to_le_bytes()
}

/// A file as a frame: its tag and payload.
pub(super) fn of_file(file: &Remembered) -> serde_json::Result<(u8, Vec<u8>)> {
    let record = &file.record;
    let text = Text {
        path: record.path.clone().into(),
        mode: record.mode,
        mtime: record.mtime,
        size: record.size,
        crc32c: record.crc32c,
        extents: record.extents.clone(),
        damaged: record.damaged.clone(),
        look: file.look,
    };
    let text = serde_json::to_vec(&text)?;
    let mut payload = (text.len() as u32).to_le_bytes().to_vec();
    payload.extend_from_slice(&text);
    payload.extend_from_slice(&file.sums.to_bytes());
    let tag = if matches!(file.sums, Sums::Crc(_)) { POSITIONED } else { DIGESTED };
    Ok((tag, payload))
}

pub(super) fn file(tag: u8, payload: &[u8]) -> Option<Remembered> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    let (text, sums) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let Text { path, mode, mtime, size, crc32c, extents, damaged, look } =
        serde_json::from_slice(text).ok()?;
    let look: Option<Look> = look;
    let record = FileRecord { path: path.into(), mode, mtime, size, crc32c, extents, damaged };
    Some(Remembered { record, look, sums: Sums::from_bytes(tag == POSITIONED, sums)? })
}
