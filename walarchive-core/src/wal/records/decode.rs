//! What one record says.

use super::super::page::{u16_at, u32_at, u64_at};
use super::Fact;
use crate::wal::Lsn;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 24;
/// Bytes of the header that the checksum covers: all before the checksum itself.
pub(super) const HEADER_SUMMED: usize = 20;

const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;
const RESTORE_POINT_NAME: usize = 64;

/// What stands in a record's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) xid: u32,
    pub(super) prev: Lsn,
    info: u8,
    rmgr: u8,
    pub(super) crc: u32,
}

impl Header {
    pub(super) fn parse(record: &[u8]) -> Option<Header> {
        Some(Header {
            xid: u32_at(record, 4)?,
            prev: Lsn(u64_at(record, 8)?),
            info: *record.get(16)?,
            rmgr: *record.get(17)?,
            crc: u32_at(record, HEADER_SUMMED)?,
        })
    }

    /// Whether the rest of the segment after this record is unused.
    pub(super) fn is_switch(&self) -> bool {
        self.rmgr == RM_XLOG && self.info & 0xF0 == XLOG_SWITCH
    }

    /// Whether the record may hold a [`Fact`].
    pub(super) fn is_of_interest(&self) -> bool {
        match self.rmgr {
            RM_XLOG => self.info & 0xF0 == XLOG_RESTORE_POINT,
            RM_XACT => matches!(self.info & 0x70, 0x00 | 0x20 | 0x30 | 0x40),
            _ => false,
        }
    }
}

/// Where a record stands, and how to read it.
pub(super) struct Context {
    pub(super) lsn: Lsn,
    pub(super) lsn_end: Lsn,
    /// The page magic of the segment.
    pub(super) magic: u16,
}

/// The fact in a record of interest whose checksum holds; `None` when its content is not understood.
///
/// `kept` is the start of the record, from its header on.
pub(super) fn fact(header: &Header, kept: &[u8], context: &Context) -> Option<Fact> {
    let data = main_data(kept, context.magic)?;
    let (lsn, lsn_end) = (context.lsn, context.lsn_end);
    let time_us = u64_at(data, 0)? as i64;
    if header.rmgr == RM_XLOG {
        let name = data.get(8..8 + RESTORE_POINT_NAME)?;
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        return Some(Fact::RestorePoint { name, time_us, lsn, lsn_end });
    }
    let commit = matches!(header.info & 0x70, 0x00 | 0x30);
    let prepared = matches!(header.info & 0x70, 0x30 | 0x40);
    let twophase = || twophase_xid(header.info, data, commit, context.magic);
    let xid = if prepared { twophase().unwrap_or(header.xid) } else { header.xid };
    Some(if commit {
        Fact::Commit { xid, time_us, lsn, lsn_end }
    } else {
        Fact::Abort { xid, time_us, lsn, lsn_end }
    })
}

/// The first page magic with the flags of block images that PostgreSQL 15 introduced.
const MAGIC_15: u16 = 0xD110;
/// The first page magic with 64-bit object numbers in dropped statistics.
const MAGIC_18: u16 = 0xD118;

/// Passes over the headers of block references and finds the main data, as far as it was kept.
fn main_data(kept: &[u8], magic: u16) -> Option<&[u8]> {
    let mut at = HEADER;
    let mut blocks: usize = 0;
    loop {
        let id = *kept.get(at)?;
        at += 1;
        let len = match id {
            255 => {
                at += 1;
                usize::from(*kept.get(at - 1)?)
            }
            254 => {
                at += 4;
                usize::try_from(u32_at(kept, at - 4)?).ok()?
            }
            253 => {
                at += 2;
                continue;
            }
            252 => {
                at += 4;
                continue;
            }
            0..=32 => {
                let (next, data) = block(kept, at, magic)?;
                at = next;
                blocks = blocks.checked_add(data)?;
                continue;
            }
            _ => return None,
        };
        // The main data's header is the last one; the blocks' data stands before the main data.
        let start = at.checked_add(blocks)?;
        let end = start.checked_add(len)?.min(kept.len());
        return kept.get(start..end);
    }
}

/// One block reference whose header starts at `at`: where the next header starts, and the bytes of its data.
fn block(kept: &[u8], mut at: usize, magic: u16) -> Option<(usize, usize)> {
    const HAS_IMAGE: u8 = 0x10;
    const SAME_RELATION: u8 = 0x80;
    const HAS_HOLE: u8 = 0x01;
    let flags = *kept.get(at)?;
    let mut data = usize::from(u16_at(kept, at + 1)?);
    at += 3;
    if flags & HAS_IMAGE != 0 {
        data += usize::from(u16_at(kept, at)?);
        let info = *kept.get(at + 4)?;
        at += 5;
        let compressed = if magic >= MAGIC_15 { 0x1C } else { 0x02 };
        if info & HAS_HOLE != 0 && info & compressed != 0 {
            at += 2;
        }
    }
    if flags & SAME_RELATION == 0 {
        at += 12;
    }
    Some((at + 4, data))
}

/// The prepared transaction that a `COMMIT PREPARED` or `ROLLBACK PREPARED` ends.
fn twophase_xid(info: u8, data: &[u8], commit: bool, magic: u16) -> Option<u32> {
    const HAS_INFO: u8 = 0x80;
    const DATABASE: u32 = 1;
    const TWOPHASE: u32 = 1 << 4;
    if info & HAS_INFO == 0 {
        return None;
    }
    let flags = u32_at(data, 8)?;
    if flags & TWOPHASE == 0 {
        return None;
    }
    let mut at: usize = if flags & DATABASE == 0 { 12 } else { 20 };
    let statistic = if magic >= MAGIC_18 { 16 } else { 12 };
    // Sub-transactions, dropped relations, dropped statistics, invalidations: a count, then that many items.
    for (flag, item) in [(1u32 << 1, 4usize), (1 << 2, 12), (1 << 8, statistic), (1 << 3, 16)] {
        // Aborts carry no invalidations.
        if flags & flag == 0 || (flag == 1 << 3 && !commit) {
            continue;
        }
        let count = usize::try_from(u32_at(data, at)?).ok()?;
        at = count.checked_mul(item)?.checked_add(4)?.checked_add(at)?;
    }
    u32_at(data, at)
}
