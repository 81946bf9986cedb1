//! Judging segments as they come in.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{SegmentName, SegmentSize, TimelineHistory, TimelineId};
use crate::error::Result;

/// What a segment is to the segments that came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It continues the log: the first segment of all, the next one, or the first of a child timeline whose
    /// known history says that it begins here.
    Next,
    /// It lies at or before the newest segment of its timeline and fills no hole: seen before.
    Duplicate,
    /// It fills a hole that an earlier [`Gap`](Verdict::Gap) reported.
    Late,
    /// Segments between the newest one and this one have not come: first to last, each on the timeline that
    /// owns its end of the hole.
    Gap {
        /// The first and the last name that are missing.
        missing: RangeInclusive<SegmentName>,
    },
    /// It starts or continues another timeline and nothing proves where that one left this line: its history
    /// is not known, or says that the timelines are no relatives or branched earlier.
    Branch,
}

/// Judges a sequence of segments, in the order in which they arrive.
///
/// Tell it every history that is known ([`learn`](Self::learn)) before the segments of that timeline. It
/// remembers the newest segment of each timeline and the holes, not every segment.
#[derive(Debug, Clone)]
pub struct Sequencer {
    size: SegmentSize,
    histories: BTreeMap<TimelineId, TimelineHistory>,
    newest: BTreeMap<TimelineId, u64>,
    /// The newest timeline seen; the line that is being followed.
    current: Option<TimelineId>,
    /// Open holes per timeline: first to last segment number.
    holes: BTreeMap<(TimelineId, u64), u64>,
}

impl Sequencer {
    /// A sequencer that has seen nothing.
    #[must_use]
    pub fn new(size: SegmentSize) -> Sequencer {
        let (histories, newest, holes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Sequencer { size, histories, newest, current: None, holes }
    }

    /// Makes the ancestry of a timeline known.
    pub fn learn(&mut self, history: TimelineHistory) {
        self.histories.insert(history.timeline, history);
    }

    /// The newest segment of the line that is being followed.
    #[must_use]
    pub fn newest(&self) -> Option<SegmentName> {
        let timeline = self.current?;
        SegmentName::from_segno(timeline, *self.newest.get(&timeline)?, self.size).ok()
    }

    /// Says what `name` is to the segments before it, and remembers it.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when the name cannot exist with this segment size.
    pub fn judge(&mut self, name: &SegmentName) -> Result<Verdict> {
        let segno = name.segno(self.size)?;
        let verdict = self.compare(name.timeline, segno)?;
        if let Verdict::Gap { missing } = &verdict {
            self.open(missing)?;
        }
        let newest = self.newest.entry(name.timeline).or_insert(segno);
        *newest = segno.max(*newest);
        self.current = self.current.max(Some(name.timeline));
        Ok(verdict)
    }

    fn compare(&mut self, timeline: TimelineId, segno: u64) -> Result<Verdict> {
        if self.fill(timeline, segno) {
            return Ok(Verdict::Late);
        }
        if let Some(&newest) = self.newest.get(&timeline) {
            return match segno.checked_sub(newest) {
                None | Some(0) => Ok(Verdict::Duplicate),
                Some(1) => Ok(Verdict::Next),
                Some(_) => self.gap(timeline, newest + 1, timeline, segno - 1),
            };
        }
        let Some(current) = self.current else { return Ok(Verdict::Next) };
        let newest = self.newest.get(&current).copied().unwrap_or(0);
        let Some(history) = self.histories.get(&timeline) else { return Ok(Verdict::Branch) };
        let Some(left) = history.end_of(current) else { return Ok(Verdict::Branch) };
        let left = left.segno(self.size);
        // The line continues at the branch, even where the ancestor wrote on after it.
        let expected = left.min(newest.saturating_add(1));
        if segno < expected {
            return Ok(Verdict::Branch);
        }
        if segno == expected {
            return Ok(Verdict::Next);
        }
        let (first, last) = (history.owner_of(expected, self.size), history.owner_of(segno - 1, self.size));
        self.gap(first, expected, last, segno - 1)
    }

    fn gap(&self, from: TimelineId, first: u64, to: TimelineId, last: u64) -> Result<Verdict> {
        let first = SegmentName::from_segno(from, first, self.size)?;
        Ok(Verdict::Gap { missing: first..=SegmentName::from_segno(to, last, self.size)? })
    }

    /// Remembers a hole, split where it passes from one timeline to the next.
    fn open(&mut self, missing: &RangeInclusive<SegmentName>) -> Result<()> {
        let (first, last) = (missing.start().segno(self.size)?, missing.end().segno(self.size)?);
        let line = match self.histories.get(&missing.end().timeline) {
            Some(history) => history.clone(),
            None => TimelineHistory::alone(missing.end().timeline),
        };
        let mut end = last;
        for (timeline, begin) in line.newest_first() {
            let begin = begin.segno(self.size).max(first);
            if begin <= end {
                self.holes.insert((timeline, begin), end);
                let Some(before) = begin.checked_sub(1) else { break };
                end = before;
            }
            if end < first {
                break;
            }
        }
        Ok(())
    }

    /// Takes a segment out of the hole that it fills, if there is one.
    fn fill(&mut self, timeline: TimelineId, segno: u64) -> bool {
        let found = self.holes.range((timeline, 0)..=(timeline, segno)).next_back();
        let Some((&(_, first), &last)) = found else { return false };
        if segno > last {
            return false;
        }
        self.holes.remove(&(timeline, first));
        if first < segno {
            self.holes.insert((timeline, first), segno - 1);
        }
        if segno < last {
            self.holes.insert((timeline, segno + 1), last);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::DEFAULT
    }

    fn name(timeline: u32, segno: u64) -> SegmentName {
        SegmentName::from_segno(TimelineId::new(timeline).unwrap(), segno, size()).unwrap()
    }

    fn judge(sequencer: &mut Sequencer, timeline: u32, segno: u64) -> Verdict {
        sequencer.judge(&name(timeline, segno)).unwrap()
    }

    fn following(timeline: u32, history: &str) -> Sequencer {
        let mut sequencer = Sequencer::new(size());
        let timeline = TimelineId::new(timeline).unwrap();
        sequencer.learn(TimelineHistory::parse(timeline, history.as_bytes()).unwrap());
        sequencer
    }

    #[test]
    fn one_timeline_in_order_with_a_hole() {
        let mut s = Sequencer::new(size());
        assert_eq!(judge(&mut s, 1, 255), Verdict::Next);
        assert_eq!(judge(&mut s, 1, 256), Verdict::Next);
        assert_eq!(judge(&mut s, 1, 256), Verdict::Duplicate);
        assert_eq!(judge(&mut s, 1, 260), Verdict::Gap { missing: name(1, 257)..=name(1, 259) });
        assert_eq!(judge(&mut s, 1, 258), Verdict::Late);
        assert_eq!(judge(&mut s, 1, 258), Verdict::Duplicate);
        assert_eq!(judge(&mut s, 1, 261), Verdict::Next);
        assert_eq!(judge(&mut s, 1, 257), Verdict::Late);
        assert_eq!(judge(&mut s, 1, 259), Verdict::Late);
        assert_eq!(s.newest(), Some(name(1, 261)));
    }

    #[test]
    fn a_promotion_continues_at_the_branch() {
        let mut s = following(2, "1\t0/5000028\tx\n");
        judge(&mut s, 1, 3);
        judge(&mut s, 1, 4);
        assert_eq!(judge(&mut s, 2, 5), Verdict::Next);
        let mut s = following(2, "1\t0/5000028\tx\n");
        judge(&mut s, 1, 6);
        assert_eq!(judge(&mut s, 2, 5), Verdict::Next, "the ancestor wrote on after the branch");
        assert_eq!(judge(&mut s, 1, 7), Verdict::Next, "and still does, on its own line");
    }

    #[test]
    fn a_hole_across_a_promotion_names_both_timelines() {
        let mut s = following(2, "1\t0/5000028\tx\n");
        judge(&mut s, 1, 2);
        assert_eq!(judge(&mut s, 2, 7), Verdict::Gap { missing: name(1, 3)..=name(2, 6) });
        for (timeline, segno) in [(1, 3), (1, 4), (2, 5), (2, 6)] {
            assert_eq!(judge(&mut s, timeline, segno), Verdict::Late, "{timeline} {segno}");
        }
        assert_eq!(judge(&mut s, 2, 5), Verdict::Duplicate);
    }

    #[test]
    fn a_timeline_without_proof_is_a_branch() {
        let mut s = Sequencer::new(size());
        judge(&mut s, 1, 4);
        assert_eq!(judge(&mut s, 2, 5), Verdict::Branch);
        let mut s = following(3, "2\t0/5000028\tx\n");
        judge(&mut s, 1, 4);
        assert_eq!(judge(&mut s, 3, 5), Verdict::Branch, "timeline 1 is no ancestor of 3");
        let mut s = following(2, "1\t0/5000028\tx\n");
        judge(&mut s, 1, 4);
        assert_eq!(judge(&mut s, 2, 3), Verdict::Branch, "before the branch there is no timeline 2");
    }

    #[test]
    fn a_name_of_another_segment_size_is_refused() {
        let mut s = Sequencer::new(size());
        assert!(s.judge(&"000000010000000000000100".parse().unwrap()).is_err());
    }

    proptest! {
        /// On one timeline: late or duplicate is decided by what was really seen.
        #[test]
        fn verdicts_agree_with_a_set_of_all_names(order in proptest::collection::vec(5u64..25, 1..60)) {
            let (mut s, mut seen) = (Sequencer::new(size()), BTreeSet::new());
            for segno in order {
                let newest = seen.last().copied();
                let first: Option<u64> = seen.first().copied();
                let expected = match newest {
                    None => Verdict::Next,
                    Some(_) if seen.contains(&segno) || Some(segno) < first => Verdict::Duplicate,
                    Some(newest) if segno < newest => Verdict::Late,
                    Some(newest) if segno == newest + 1 => Verdict::Next,
                    Some(newest) => Verdict::Gap { missing: name(1, newest + 1)..=name(1, segno - 1) },
                };
                prop_assert_eq!(judge(&mut s, 1, segno), expected);
                // What lies before the first segment is never remembered.
                if first.is_none_or(|first| segno >= first) {
                    seen.insert(segno);
                }
            }
        }
    }
}
