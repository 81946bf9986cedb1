//! Timeline numbers and the names of segments.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Lsn, SegmentSize};
use crate::error::{Error, Result};

/// The number of a timeline: one line of the cluster's history, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline of a cluster that was never promoted or recovered.
    pub const FIRST: TimelineId = TimelineId(NonZeroU32::MIN);

    /// A timeline by its number.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) for zero.
    pub fn new(number: u32) -> Result<TimelineId> {
        NonZeroU32::new(number).map(TimelineId).ok_or_else(|| Error::usage("timeline 0 does not exist"))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The eight hexadecimal digits that stand for the timeline in file names.
    #[must_use]
    pub fn hex8(self) -> String {
        format!("{:08X}", self.get())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// The value of exactly eight upper-case hexadecimal digits.
pub(super) fn hex8(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// The name of a segment: timeline, and the two parts of the segment number, in 24 hexadecimal digits.
///
/// The order of names is the order of their text: by timeline, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline in whose log the segment lies.
    pub timeline: TimelineId,
    /// The segment number divided by [`SegmentSize::segments_per_log`].
    pub log: u32,
    /// The remainder of that division.
    pub seg: u32,
}

impl SegmentName {
    /// The number of the segment in the log: its first position divided by `size`.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when the name cannot exist with segments of this size.
    pub fn segno(&self, size: SegmentSize) -> Result<u64> {
        let per_log = size.segments_per_log();
        if u64::from(self.seg) >= per_log {
            return Err(Error::usage(format!(
                "no segment is called {self} in a cluster with segments of {} bytes: the last part is {:08X}, \
                 at most {:08X} is possible",
                size.bytes(),
                self.seg,
                per_log - 1,
            ))
            .hint("the file belongs to a cluster with smaller segments"));
        }
        Ok(u64::from(self.log) * per_log + u64::from(self.seg))
    }

    /// The name of segment number `segno` of a timeline.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when no 64-bit position lies in that segment.
    pub fn from_segno(timeline: TimelineId, segno: u64, size: SegmentSize) -> Result<SegmentName> {
        let per_log = size.segments_per_log();
        let beyond = || Error::usage(format!("segment number {segno} lies beyond the end of the log"));
        let log = u32::try_from(segno / per_log).map_err(|_| beyond())?;
        let seg = u32::try_from(segno % per_log).map_err(|_| beyond())?;
        Ok(SegmentName { timeline, log, seg })
    }

    /// The name of the segment that holds the byte at `lsn`.
    #[must_use]
    pub fn containing(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> SegmentName {
        let log = (lsn.0 >> 32) as u32;
        let seg = ((lsn.0 & 0xFFFF_FFFF) / size.bytes()) as u32;
        SegmentName { timeline, log, seg }
    }

    /// The position of the segment's first byte.
    ///
    /// # Errors
    /// As [`segno`](Self::segno).
    pub fn start(&self, size: SegmentSize) -> Result<Lsn> {
        Ok(Lsn(self.segno(size)? * size.bytes()))
    }

    /// The name of the segment after this one on the same timeline.
    ///
    /// # Errors
    /// As [`segno`](Self::segno), and when this is the last segment of the 64-bit log.
    pub fn next(&self, size: SegmentSize) -> Result<SegmentName> {
        SegmentName::from_segno(self.timeline, self.segno(size)? + 1, size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.seg)
    }
}

impl FromStr for SegmentName {
    type Err = Error;

    /// Reads exactly 24 upper-case hexadecimal digits, of which the first eight are not all zero.
    fn from_str(text: &str) -> Result<SegmentName> {
        let parts = || {
            let timeline = TimelineId(NonZeroU32::new(hex8(text.get(..8)?)?)?);
            let (log, seg) = (hex8(text.get(8..16)?)?, hex8(text.get(16..)?)?);
            Some(SegmentName { timeline, log, seg })
        };
        parts().ok_or_else(|| {
            Error::usage(format!("`{text}` is not the name of a WAL segment"))
                .hint("a segment has 24 digits out of 0-9 and A-F, for example 000000010000000000000001")
        })
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SegmentName, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.story()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    fn size(bits: u32) -> SegmentSize {
        SegmentSize::new(1 << bits).unwrap()
    }

    #[test]
    fn the_last_part_counts_to_what_the_size_allows() {
        let full = name("0000000100000002000000FF");
        assert_eq!(full.segno(size(24)).unwrap(), 2 * 256 + 255);
        assert_eq!(full.next(size(24)).unwrap().to_string(), "000000010000000300000000");
        assert_eq!(full.next(size(20)).unwrap().to_string(), "000000010000000200000100");
        assert!(full.segno(size(30)).is_err());
        assert_eq!(
            name("000000010000000000000003").next(size(30)).unwrap(),
            name("000000010000000100000000")
        );
        assert_eq!(name("00000001FFFFFFFF00000003").start(size(30)).unwrap(), Lsn(0xFFFF_FFFF_C000_0000));
        assert!(name("00000001FFFFFFFF00000003").next(size(30)).is_err());
    }

    #[test]
    fn only_24_upper_case_digits_are_a_name() {
        for bad in [
            "",
            "00000001000000000000000",
            "0000000100000000000000011",
            "00000001000000000000000a",
            "00000000000000000000000A",
            "+00000010000000000000001",
            "00000001 000000000000001",
            "0000000100000000000000é",
        ] {
            assert!(bad.parse::<SegmentName>().is_err(), "{bad}");
        }
        assert!(TimelineId::new(0).is_err());
        assert_eq!(TimelineId::new(31).unwrap().hex8(), "0000001F");
        assert_eq!(TimelineId::new(31).unwrap().to_string(), "31");
    }

    proptest! {
        #[test]
        fn numbers_and_names_are_one_to_one(timeline in 1u32.., lsn: u64, bits in 20u32..=30) {
            let (size, timeline) = (size(bits), TimelineId::new(timeline).unwrap());
            let name = SegmentName::containing(timeline, Lsn(lsn), size);
            prop_assert_eq!(name.segno(size).unwrap(), lsn / size.bytes());
            prop_assert_eq!(SegmentName::from_segno(timeline, lsn / size.bytes(), size).unwrap(), name);
            prop_assert_eq!(name.start(size).unwrap(), Lsn(lsn).segment_start(size));
            prop_assert_eq!(name.to_string().parse::<SegmentName>().unwrap(), name);
        }

        #[test]
        fn names_sort_like_their_text(a: (u32, u32), b: (u32, u32)) {
            let of = |(log, seg)| SegmentName { timeline: TimelineId::FIRST, log, seg };
            prop_assert_eq!(of(a).cmp(&of(b)), of(a).to_string().cmp(&of(b).to_string()));
        }

        #[test]
        fn any_number_is_named_or_refused(segno: u64, bits in 20u32..=30) {
            let named = SegmentName::from_segno(TimelineId::FIRST, segno, size(bits));
            prop_assert_eq!(named.is_ok(), segno <= size(bits).last_segno());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9A-Fé+ ]{20,26}") {
            if let Ok(name) = text.parse::<SegmentName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
