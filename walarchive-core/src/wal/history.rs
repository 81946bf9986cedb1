//! The ancestry of a timeline, as its `.history` file tells it.

use super::{Lsn, SegmentSize, TimelineId};
use crate::error::{Error, Result};

/// One ancestor of a timeline, and where the line left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: TimelineId,
    /// One past the last byte taken from the ancestor; the next timeline begins here.
    pub end: Lsn,
    /// Why the line left it, in the words of the server.
    pub reason: String,
}

/// A timeline with all its ancestors, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// Its ancestors, oldest first; numbers increase, ends never decrease. A timeline that the line does not pass through,
    /// though its server came from there, begins where it ends.
    pub entries: Vec<HistoryEntry>,
}

/// A real history file has one short line per promotion.
const LONGEST: usize = 1 << 20;

impl TimelineHistory {
    /// The history of timeline 1, which has no ancestors and no file.
    #[must_use]
    pub fn initial() -> TimelineHistory {
        TimelineHistory::alone(TimelineId::FIRST)
    }

    /// A timeline whose ancestors are not known: it owns every segment from 0 on.
    #[must_use]
    pub fn alone(timeline: TimelineId) -> TimelineHistory {
        TimelineHistory { timeline, entries: Vec::new() }
    }

    /// Reads the history file of `timeline`.
    ///
    /// Blank lines and lines that start with `#` are passed over, line ends may be LF or CRLF.
    ///
    /// # Errors
    /// [`Damaged`](crate::error::Kind::Damaged) when PostgreSQL would refuse the file or take a wrong line from it: a
    /// line without timeline and position, numbers that do not increase or reach the timeline's own, or no ancestor at all
    /// for a timeline above 1.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<TimelineHistory> {
        let file = format!("{}.history", timeline.hex8());
        if bytes.len() > LONGEST {
            return Err(Error::damaged(format!(
                "a timeline history of {} bytes is too long to be one",
                bytes.len()
            ))
            .on(file));
        }
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (number, line) in String::from_utf8_lossy(bytes).lines().enumerate() {
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let at =
                |what: String| Error::damaged(format!("line {} of {file}: {what}", number + 1)).on(&file);
            let entry = entry(text).ok_or_else(|| {
                at(format!(
                    "expected a timeline and a position (like `1<TAB>0/4700000<TAB>reason`), found `{text}`"
                ))
            })?;
            check_order(timeline, entries.last(), &entry).map_err(at)?;
            // A recovery that aimed at a timeline and stopped before it began there writes the whole way down, and where it
            // stopped: nothing behind that is of its past.
            for earlier in &mut entries {
                earlier.end = earlier.end.min(entry.end);
            }
            entries.push(entry);
        }
        if entries.is_empty() && timeline != TimelineId::FIRST {
            return Err(Error::damaged(format!("the history of timeline {timeline} names no ancestor"))
                .on(file)
                .hint("copy the file again from the server's pg_wal directory"));
        }
        Ok(TimelineHistory { timeline, entries })
    }

    /// The direct ancestor, with the position at which this timeline begins.
    #[must_use]
    pub fn parent(&self) -> Option<&HistoryEntry> {
        self.entries.last()
    }

    /// All timelines of the line with the position at which each begins, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (TimelineId, Lsn)> + '_ {
        let ids = self.entries.iter().map(|entry| entry.timeline).chain([self.timeline]);
        let begins = [Lsn(0)].into_iter().chain(self.entries.iter().map(|entry| entry.end));
        let line: Vec<_> = ids.zip(begins).collect();
        line.into_iter().rev()
    }

    /// The timeline whose file holds segment `segno` of this line: the newest one that begins in or before it.
    #[must_use]
    pub fn owner_of(&self, segno: u64, size: SegmentSize) -> TimelineId {
        self.newest_first()
            .find(|(_, begin)| begin.segno(size) <= segno)
            .map_or(self.timeline, |(timeline, _)| timeline)
    }

    /// Where `timeline` begins on this line; 0/0 for the oldest, `None` for a timeline that is not on it.
    #[must_use]
    pub fn begin_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.newest_first().find(|(id, _)| *id == timeline).map(|(_, begin)| begin)
    }

    /// Where this line leaves `timeline`; `None` for the timeline itself and for one that is not on the line.
    #[must_use]
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.entries.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.end)
    }

    /// Whether `timeline` is this timeline or one of its ancestors.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.end_of(timeline).is_some()
    }

    /// Whether the state of the cluster at `lsn` on `timeline` is part of this line's past or its own log.
    ///
    /// True from where the line enters the timeline up to where it leaves it, both included.
    #[must_use]
    pub fn is_ancestor_position(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        let entered = self.begin_of(timeline).is_some_and(|begin| begin <= lsn);
        entered && self.end_of(timeline).is_none_or(|end| lsn <= end)
    }
}

fn entry(text: &str) -> Option<HistoryEntry> {
    let (id, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (position, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !id.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let timeline = TimelineId::new(id.parse().ok()?).ok()?;
    Some(HistoryEntry { timeline, end: position.parse().ok()?, reason: reason.trim().to_owned() })
}

fn check_order(own: TimelineId, before: Option<&HistoryEntry>, entry: &HistoryEntry) -> Result<(), String> {
    if entry.timeline >= own {
        return Err(format!("timeline {} cannot be an ancestor of timeline {own}", entry.timeline));
    }
    let Some(before) = before else { return Ok(()) };
    if entry.timeline <= before.timeline {
        return Err(format!("timeline {} stands after timeline {}", entry.timeline, before.timeline));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn four() -> TimelineHistory {
        let text =
            "# by hand\n1\t0/3000028\tno recovery target specified\r\n\n 3\t0/5000000\tbefore 2026-01-01\n";
        TimelineHistory::parse(tli(4), text.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_of_the_server_is_read() {
        let history = four();
        assert_eq!(history.entries.len(), 2);
        assert_eq!(history.entries[0].reason, "no recovery target specified");
        assert_eq!(history.parent().unwrap().timeline, tli(3));
        assert_eq!(history.begin_of(tli(1)), Some(Lsn(0)));
        assert_eq!(history.begin_of(tli(3)), Some(Lsn(0x300_0028)));
        assert_eq!(history.begin_of(tli(4)), Some(Lsn(0x500_0000)));
        assert_eq!((history.begin_of(tli(2)), history.end_of(tli(2))), (None, None));
        assert_eq!((history.end_of(tli(3)), history.end_of(tli(4))), (Some(Lsn(0x500_0000)), None));
        assert!(history.contains(tli(4)) && history.contains(tli(1)) && !history.contains(tli(2)));
    }

    #[test]
    fn the_child_owns_the_segment_in_which_it_begins() {
        let (history, size) = (four(), SegmentSize::DEFAULT);
        let owners: Vec<_> = (0..7).map(|segno| history.owner_of(segno, size).get()).collect();
        assert_eq!(owners, [1, 1, 1, 3, 3, 4, 4]);
        assert_eq!(TimelineHistory::initial().owner_of(9, size), tli(1));
    }

    #[test]
    fn positions_after_the_branch_are_not_ancestors() {
        let history = four();
        assert!(history.is_ancestor_position(tli(1), Lsn(0x300_0028)));
        assert!(!history.is_ancestor_position(tli(1), Lsn(0x300_0029)));
        assert!(!history.is_ancestor_position(tli(3), Lsn(0x300_0027)));
        assert!(!history.is_ancestor_position(tli(2), Lsn(0x300_0029)));
        assert!(history.is_ancestor_position(tli(4), Lsn(u64::MAX)));
    }

    /// What PostgreSQL writes when recovery followed timeline 2 and stopped before it had begun.
    #[test]
    fn a_line_may_end_before_its_ancestor_began() {
        let history = TimelineHistory::parse(tli(3), b"1\t0/1B00000\tx\n2\t0/1900100\ty\n").unwrap();
        let size = SegmentSize::new(1 << 20).unwrap();
        let owners: Vec<_> = [0x18, 0x19, 0x1A, 0x1B].map(|segno| history.owner_of(segno, size).get()).into();
        assert_eq!(owners, [1, 3, 3, 3]);
        assert!(history.is_ancestor_position(tli(1), Lsn(0x190_0100)));
        assert!(!history.is_ancestor_position(tli(1), Lsn(0x190_0101)));
        assert!(!history.is_ancestor_position(tli(2), Lsn(0x1B0_0100)));
    }

    #[test]
    fn broken_files_are_refused_with_the_line() {
        for (bad, says) in [
            ("1\t0/10\tx\n1\t0/20\ty\n", "line 2"),
            ("2\t0/10\tx\n1\t0/20\ty\n", "stands after timeline 2"),
            ("4\t0/20\tx\n", "cannot be an ancestor"),
            ("1\n", "found `1`"),
            ("1\tnonsense\n", "nonsense"),
            ("+1\t0/10\n", "+1"),
            ("0\t0/10\n", "0/10"),
            ("x\t0/10\n", "line 1"),
            ("", "no ancestor"),
            ("# only words\n\n", "no ancestor"),
            ("\0\0\0\0", "line 1"),
        ] {
            let error = TimelineHistory::parse(tli(4), bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{bad}");
            assert!(error.story().contains(says) && error.story().contains("00000004.history"), "{error:?}");
        }
        assert!(TimelineHistory::parse(tli(1), b"1\t0/10\tx\n").is_err());
        assert_eq!(TimelineHistory::parse(tli(1), b"").unwrap(), TimelineHistory::initial());
        assert!(TimelineHistory::parse(tli(4), &vec![b'#'; LONGEST + 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TimelineHistory::parse(tli(9), &bytes);
        }

        #[test]
        fn the_owner_is_the_newest_that_begins_early_enough(
            steps in proptest::collection::vec((1u32..3, 0u64..40), 1..6),
            segno in 0u64..40,
        ) {
            let (mut id, mut end, mut text) = (0, 0, String::new());
            for (step, more) in &steps {
                id += step;
                end += more << 19;
                text += &format!("{id}\t{}\tr\n", Lsn(end));
            }
            let size = SegmentSize::new(1 << 20).unwrap();
            let history = TimelineHistory::parse(tli(id + 1), text.as_bytes()).unwrap();
            let owner = history.owner_of(segno, size);
            prop_assert!(history.begin_of(owner).unwrap().segno(size) <= segno);
            for newer in history.newest_first().map(|(id, _)| id).take_while(|id| *id > owner) {
                prop_assert!(history.begin_of(newer).unwrap().segno(size) > segno);
            }
        }
    }
}
