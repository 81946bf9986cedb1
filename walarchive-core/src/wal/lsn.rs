//! Positions in the log, and the size of its segments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A byte position in the log of one timeline (PostgreSQL's LSN), written `X/Y` in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `bytes` further on; `None` past the end of the 64-bit log.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_add(bytes).map(Lsn)
    }

    /// The bytes from `earlier` to here; `None` when `earlier` is later.
    #[must_use]
    pub fn bytes_since(self, earlier: Lsn) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The number of the segment that holds the byte at this position.
    #[must_use]
    pub fn segno(self, size: SegmentSize) -> u64 {
        self.0 / size.bytes()
    }

    /// The offset of this position inside its segment, in bytes.
    #[must_use]
    pub fn offset(self, size: SegmentSize) -> u64 {
        self.0 % size.bytes()
    }

    /// The first byte of the segment that holds this position.
    #[must_use]
    pub fn segment_start(self, size: SegmentSize) -> Lsn {
        Lsn(self.0 - self.offset(size))
    }
}

/// The number of the last segment needed to hold everything before `end`, a position one past the last byte.
///
/// This is `(end - 1) / size`; position 0 counts as segment 0.
#[must_use]
pub fn last_segno_before(end: Lsn, size: SegmentSize) -> u64 {
    end.0.saturating_sub(1) / size.bytes()
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

fn half(text: &str) -> Option<u64> {
    let hex = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Lsn {
    type Err = Error;

    /// Reads `X/Y`: one to eight hexadecimal digits on each side, in either case.
    fn from_str(text: &str) -> Result<Lsn> {
        text.split_once('/').and_then(|(high, low)| Some(Lsn((half(high)? << 32) | half(low)?))).ok_or_else(
            || {
                Error::usage(format!("`{text}` is not a position in the log"))
                    .hint("write it as PostgreSQL does, for example 0/16B3748")
            },
        )
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.story()))
    }
}

/// The size of every segment of one cluster: a power of two from 1 MiB to 1 GiB, fixed at `initdb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// What `initdb` chooses when it is not told.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// A size in bytes.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) for anything but a power of two from 1 MiB to 1 GiB.
    pub fn new(bytes: u64) -> Result<SegmentSize> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            return Ok(SegmentSize(bytes));
        }
        Err(Error::usage(format!("WAL segments cannot have {bytes} bytes"))
            .hint("PostgreSQL's segments have a power of two from 1 MiB to 1 GiB"))
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments one `log` part of a file name counts: 2^32 / size.
    #[must_use]
    pub fn segments_per_log(self) -> u64 {
        (1 << 32) / self.0
    }

    /// The highest segment number that a 64-bit position can reach.
    #[must_use]
    pub fn last_segno(self) -> u64 {
        u64::MAX / self.0
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<SegmentSize> {
        SegmentSize::new(bytes)
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        assert_eq!(Lsn(0x1_6B3_748).to_string(), "0/16B3748");
        assert_eq!(Lsn(0xA_0000_0000).to_string(), "A/0");
        assert_eq!("a/ff".parse::<Lsn>().unwrap(), Lsn(0xA_0000_00FF));
        assert_eq!("00000001/00000002".parse::<Lsn>().unwrap(), Lsn(0x1_0000_0002));
        for bad in ["", "/", "0", "0/", "/0", "+1/0", "0/+1", "0/123456789", "0/1 ", "0/1/2", "g/0", "-1/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_are_strings_in_json() {
        assert_eq!(serde_json::to_string(&Lsn(0x28)).unwrap(), "\"0/28\"");
        assert_eq!(serde_json::from_str::<Lsn>("\"1/0\"").unwrap(), Lsn(1 << 32));
        assert!(serde_json::from_str::<Lsn>("\"1\"").is_err());
    }

    #[test]
    fn segments_have_a_power_of_two() {
        for bytes in [1u64 << 20, 16 << 20, 1 << 30] {
            assert_eq!(SegmentSize::new(bytes).unwrap().bytes(), bytes);
        }
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert!(SegmentSize::new(bytes).is_err(), "{bytes}");
        }
        assert!(serde_json::from_str::<SegmentSize>("5").is_err());
    }

    #[test]
    fn an_end_on_a_boundary_belongs_to_the_segment_before() {
        let size = SegmentSize::DEFAULT;
        assert_eq!(last_segno_before(Lsn(0x0300_0000), size), 2);
        assert_eq!(last_segno_before(Lsn(0x0300_0001), size), 3);
        assert_eq!(Lsn(0x0300_0000).segno(size), 3);
        assert_eq!(last_segno_before(Lsn(0), size), 0);
    }

    proptest! {
        #[test]
        fn text_and_position_are_one_to_one(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>().unwrap(), Lsn(value));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = text.parse::<Lsn>();
        }
    }
}
