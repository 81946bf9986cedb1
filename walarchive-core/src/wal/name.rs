//! The names of everything that PostgreSQL archives.

use std::fmt;
use std::str::FromStr;

use super::segment::hex8;
use super::{SegmentName, TimelineId};
use crate::error::{Error, Result};

/// The name of a file that PostgreSQL hands to, or wants from, an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalName {
    /// A completed segment.
    Segment(SegmentName),
    /// The unfinished last segment of a timeline that a promotion left: `….partial`.
    ///
    /// Recovery never asks for it. Two servers may write different bytes after the valid log.
    Partial(SegmentName),
    /// A backup history file: `….<offset>.backup`.
    Backup {
        /// The segment in which the backup starts.
        segment: SegmentName,
        /// The start's offset inside that segment, in bytes.
        offset: u32,
    },
    /// The history of a timeline: `<timeline>.history`.
    History(TimelineId),
}

impl WalName {
    /// The kind in one word: `segment`, `partial`, `backup` or `history`.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            WalName::Segment(_) => "segment",
            WalName::Partial(_) => "partial",
            WalName::Backup { .. } => "backup",
            WalName::History(_) => "history",
        }
    }

    /// The timeline in the name.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        match self {
            WalName::Segment(name) | WalName::Partial(name) => name.timeline,
            WalName::Backup { segment, .. } => segment.timeline,
            WalName::History(timeline) => *timeline,
        }
    }
}

impl fmt::Display for WalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalName::Segment(name) => write!(f, "{name}"),
            WalName::Partial(name) => write!(f, "{name}.partial"),
            WalName::Backup { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
            WalName::History(timeline) => write!(f, "{}.history", timeline.hex8()),
        }
    }
}

fn parse(text: &str) -> Option<WalName> {
    if let Some(segment) = text.strip_suffix(".partial") {
        return segment.parse().ok().map(WalName::Partial);
    }
    if let Some(timeline) = text.strip_suffix(".history") {
        return TimelineId::new(hex8(timeline)?).ok().map(WalName::History);
    }
    if let Some(start) = text.strip_suffix(".backup") {
        let (segment, offset) = start.split_once('.')?;
        return Some(WalName::Backup { segment: segment.parse().ok()?, offset: hex8(offset)? });
    }
    text.parse().ok().map(WalName::Segment)
}

impl FromStr for WalName {
    type Err = Error;

    /// Reads one of the four forms, exactly as PostgreSQL writes them: upper-case digits, no directory.
    fn from_str(text: &str) -> Result<WalName> {
        parse(text).ok_or_else(|| {
            Error::usage(format!("`{text}` is not the name of a WAL file")).hint(
                "accepted are <24 hex digits>, <24 hex digits>.partial, <24 hex digits>.<8 hex digits>.backup \
                 and <8 hex digits>.history, in upper case and without a directory (%f, not %p)",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_four_kinds_are_known() {
        for (text, kind) in [
            ("00000001000000A90000006E", "segment"),
            ("00000001000000A90000006E.partial", "partial"),
            ("00000001000000A90000006E.00000028.backup", "backup"),
            ("0000000A.history", "history"),
        ] {
            let name: WalName = text.parse().unwrap();
            assert_eq!((name.kind_name(), name.to_string().as_str()), (kind, text));
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_accepted_names() {
        for bad in [
            "",
            "pg_wal/000000010000000000000001",
            "000000010000000000000001.gz",
            "00000001000000000000000a",
            "000000010000000000000001.Partial",
            "000000010000000000000001.partial.partial",
            "000000010000000000000001.28.backup",
            "000000010000000000000001.backup",
            "00000000.history",
            "1.history",
            "0000000a.history",
            ".history",
            "000000010000000000000001\n",
            "../0000000100000000000000",
        ] {
            let error = bad.parse::<WalName>().unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{bad}");
            assert!(error.story().contains("<8 hex digits>.history"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "[0-9A-F]{8}([0-9A-F]{16})?(\\.[0-9A-F]{8})?(\\.(partial|backup|history))?") {
            if let Ok(name) = text.parse::<WalName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
