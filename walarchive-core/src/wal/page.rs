//! The header on the first page of every segment.

use super::{Lsn, SegmentSize, TimelineId};
use crate::error::{Error, Result};

/// Bytes of the header on a segment's first page.
pub const LONG_HEADER: usize = 40;
/// Bytes of the header on every other page.
pub const SHORT_HEADER: usize = 24;

/// Header flag: the page begins with the rest of a record that began on an earlier page.
pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// Header flag: the header has the long form.
pub const LONG: u16 = 0x0002;
/// Header flag: the record that was to continue here was given up; new records begin at once (14 and later).
pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;

/// The magic number of WAL pages for each major version that is supported, oldest first.
pub const MAGICS: [(u16, u16); 6] =
    [(13, 0xD106), (14, 0xD10D), (15, 0xD110), (16, 0xD113), (17, 0xD116), (18, 0xD118)];

/// The magic of the newest major version known here.
const NEWEST: u16 = MAGICS[MAGICS.len() - 1].1;

/// The major version that writes pages with this magic number; `None` for one that is not in [`MAGICS`].
#[must_use]
pub fn major_of_magic(magic: u16) -> Option<u16> {
    MAGICS.iter().find(|(_, known)| *known == magic).map(|(major, _)| *major)
}

/// Whether a magic number is one of [`MAGICS`], or may belong to a major version newer than those.
///
/// Every release of PostgreSQL raised the number and kept its first digit, so a new major version is not
/// turned away by a program that was built before it.
#[must_use]
pub fn is_plausible_magic(magic: u16) -> bool {
    major_of_magic(magic).is_some() || (magic > NEWEST && magic >> 12 == 0xD)
}

/// What the first page of a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// The magic number, which tells the major version (see [`major_of_magic`]).
    pub magic: u16,
    /// The header's flags.
    pub info: u16,
    /// The timeline of the first byte. May be an ancestor of the timeline in the segment's name.
    pub timeline: TimelineId,
    /// The position of the page's first byte.
    pub address: Lsn,
    /// Bytes of a record from earlier pages that are still to come.
    pub rem_len: u32,
    /// The system identifier of the cluster.
    pub system_id: u64,
    /// The size of the cluster's segments.
    pub segment_size: SegmentSize,
    /// The size of WAL pages, in bytes; 8192 unless PostgreSQL was built otherwise.
    pub block_size: u32,
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let raw = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(raw.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(raw.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(raw.try_into().ok()?))
}

/// Reads the long header at the start of a segment; only its first [`LONG_HEADER`] bytes are looked at.
///
/// # Errors
/// [`Damaged`](crate::error::Kind::Damaged) when the bytes are too few or are not such a header: a magic number that no
/// supported or newer PostgreSQL writes, the short form, timeline 0, an impossible segment or page size.
pub fn parse_long_header(bytes: &[u8]) -> Result<LongHeader> {
    let short = || {
        Error::damaged(format!(
            "the first page of a WAL segment needs a header of {LONG_HEADER} bytes, found {}",
            bytes.len()
        ))
    };
    let magic = u16_at(bytes, 0).ok_or_else(short)?;
    let info = u16_at(bytes, 2).ok_or_else(short)?;
    let timeline = u32_at(bytes, 4).ok_or_else(short)?;
    let address = u64_at(bytes, 8).ok_or_else(short)?;
    let rem_len = u32_at(bytes, 16).ok_or_else(short)?;
    let system_id = u64_at(bytes, 24).ok_or_else(short)?;
    let segment_size = u32_at(bytes, 32).ok_or_else(short)?;
    let block_size = u32_at(bytes, 36).ok_or_else(short)?;
    check_magic(magic)?;
    if info & LONG == 0 {
        return Err(Error::damaged(format!(
            "the first page of a WAL segment has flags {info:#06x}: the flag {LONG:#06x} of a first page is missing"
        ))
        .hint("the file does not begin where a segment begins"));
    }
    let timeline =
        TimelineId::new(timeline).map_err(|_| Error::damaged("a WAL page header names timeline 0"))?;
    let segment_size = SegmentSize::new(u64::from(segment_size))
        .map_err(|error| Error::damaged(format!("a WAL page header is wrong: {error}")))?;
    if !block_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&block_size) {
        return Err(Error::damaged(format!(
            "a WAL page header gives {block_size} bytes as the size of a page, expected a power of two, usually 8192"
        )));
    }
    let address = Lsn(address);
    Ok(LongHeader { magic, info, timeline, address, rem_len, system_id, segment_size, block_size })
}

fn check_magic(magic: u16) -> Result<()> {
    if is_plausible_magic(magic) {
        return Ok(());
    }
    let oldest = MAGICS[0];
    let message = if magic == 0 {
        "the file is not WAL: it begins with zeros instead of a page header".to_owned()
    } else if magic.swap_bytes() >> 8 == 0xD1 {
        format!("the WAL page magic {magic:#06x} has the byte order of another architecture")
    } else if (0xD050..oldest.1).contains(&magic) {
        format!("the WAL page magic {magic:#06x} belongs to a PostgreSQL before {}", oldest.0)
    } else {
        format!("the file is not WAL: its magic is {magic:#06x}, expected {:#06x} to {NEWEST:#06x}", oldest.1)
    };
    Err(Error::damaged(message).hint("supported is PostgreSQL 13 and later on little-endian machines"))
}

/// A valid header for the tests of neighbouring modules.
#[cfg(test)]
pub(crate) use tests::header as test_header;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    /// The header that PostgreSQL 15 wrote for 000000020000000000000003 of some cluster.
    pub(crate) fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0xD110u16.to_le_bytes());
        bytes.extend(3u16.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(0x0300_0000u64.to_le_bytes());
        bytes.extend(77u32.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(7_000_000_000_000_000_001u64.to_le_bytes());
        bytes.extend((16u32 << 20).to_le_bytes());
        bytes.extend(8192u32.to_le_bytes());
        bytes
    }

    #[test]
    fn every_field_is_read() {
        let header = parse_long_header(&header()).unwrap();
        assert_eq!((header.magic, header.info, header.rem_len), (0xD110, 3, 77));
        assert_eq!((header.timeline, header.address), (TimelineId::FIRST, Lsn(0x0300_0000)));
        assert_eq!(header.system_id, 7_000_000_000_000_000_001);
        assert_eq!((header.segment_size, header.block_size), (SegmentSize::DEFAULT, 8192));
        assert_eq!(major_of_magic(header.magic), Some(15));
    }

    #[test]
    fn what_cannot_be_a_first_page_is_refused() {
        for (at, value, says) in [
            (0usize, 0u32, "begins with zeros"),
            (0, 0x3_D101, "before 13"),
            (0, 0x3_10D1, "byte order"),
            (0, 0x3_4B50, "0x4b50"),
            (0, 0x1_D110, "0x0002"),
            (4, 0, "timeline 0"),
            (32, 3 << 20, "3145728"),
            (36, 0, "0 bytes"),
        ] {
            let mut bytes = header();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let error = parse_long_header(&bytes).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged);
            assert!(error.story().contains(says), "{}", error.story());
        }
        assert!(parse_long_header(&header()[..39]).unwrap_err().story().contains("found 39"));
    }

    #[test]
    fn a_newer_major_version_is_not_turned_away() {
        let mut bytes = header();
        bytes[..2].copy_from_slice(&0xD122u16.to_le_bytes());
        assert_eq!(parse_long_header(&bytes).unwrap().magic, 0xD122);
        assert_eq!(major_of_magic(0xD122), None);
        assert!(!is_plausible_magic(0xD117) && !is_plausible_magic(0xE000));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_long_header(&bytes);
        }
    }
}
