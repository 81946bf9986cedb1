//! Which stretches of the log an archive holds without a hole.
//!
//! For a line of timelines, segment `n` counts as held when the file of its owner is stored: the newest
//! timeline of the line that begins in or before segment `n`. The segment in which a child begins is a copy of
//! the parent's bytes followed by the child's own, so the parent's file of that number is never needed, and
//! never a substitute. A segment that is missing while a later one of the same line is stored is a *hole*: the log
//! cannot be replayed across it. What is missing after the last stored segment is only lag.

use std::collections::{BTreeMap, BTreeSet};

use super::{SegmentName, SegmentSize, TimelineHistory, TimelineId};
use crate::error::Result;

/// The completed segments that are stored, by timeline and segment number.
pub type Stored = BTreeMap<TimelineId, BTreeSet<u64>>;

/// Lists of missing names stop here; counts do not. A single absurd name must not cost the memory of millions.
pub const MISSING_LISTED: usize = 10_000;

/// What is stored of one timeline, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first stored segment; `None` when all that is needed of the timeline is missing.
    pub first: Option<SegmentName>,
    /// The last stored segment.
    pub last: Option<SegmentName>,
    /// How many segments are stored.
    pub segments: u64,
    /// Holes on this timeline, in order; at most [`MISSING_LISTED`] names.
    pub missing: Vec<SegmentName>,
    /// How many segments the holes have.
    pub missing_count: u64,
}

/// What is stored of one line of timelines, from some segment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainCoverage {
    /// Where the count began.
    pub from_segno: u64,
    /// One past the last segment of the unbroken run from `from_segno`; equal to it when that one is missing.
    pub end_segno: u64,
    /// The last segment of the line that is stored, even behind a hole; `None` when none is.
    pub last_segno: Option<u64>,
    /// Missing segments before the last stored one, in order; at most [`MISSING_LISTED`] names.
    pub missing: Vec<SegmentName>,
    /// How many segments the holes have.
    pub missing_count: u64,
    history: TimelineHistory,
    size: SegmentSize,
}

impl ChainCoverage {
    /// The timeline whose file holds segment `segno` of the line.
    #[must_use]
    pub fn owner(&self, segno: u64) -> TimelineId {
        self.history.owner_of(segno, self.size)
    }

    /// The name of the file that holds segment `segno` of the line.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) beyond the end of the 64-bit log.
    pub fn name(&self, segno: u64) -> Result<SegmentName> {
        SegmentName::from_segno(self.owner(segno), segno, self.size)
    }

    /// Whether every segment from `first` to `last`, both included, is stored.
    #[must_use]
    pub fn covers(&self, first: u64, last: u64) -> bool {
        first > last || (self.from_segno <= first && last < self.end_segno)
    }
}

/// Consecutive missing segments of one timeline, both ends included.
type Hole = (TimelineId, u64, u64);

struct Walk {
    holes: Vec<Hole>,
    end: u64,
    last: Option<u64>,
}

/// The segments that each timeline owns on a line, oldest first, both ends included.
fn spans(history: &TimelineHistory, size: SegmentSize) -> Vec<Hole> {
    let mut spans = Vec::new();
    let mut end = size.last_segno();
    for (timeline, begin) in history.newest_first() {
        let begin = begin.segno(size);
        if begin <= end {
            spans.push((timeline, begin, end));
            let Some(before) = begin.checked_sub(1) else { break };
            end = before;
        }
    }
    spans.reverse();
    spans
}

fn walk(history: &TimelineHistory, stored: &Stored, from: u64, size: SegmentSize) -> Walk {
    let spans = spans(history, size);
    let mut walk = Walk { holes: Vec::new(), end: from, last: None };
    let mut expected = from;
    for (timeline, begin, end) in &spans {
        let (Some(segments), true) = (stored.get(timeline), *end >= from) else { continue };
        for &segno in segments.range((*begin).max(from)..=*end) {
            if segno > expected {
                let hole = spans.iter().map(|(t, b, e)| (*t, (*b).max(expected), (*e).min(segno - 1)));
                walk.holes.extend(hole.filter(|(_, first, last)| first <= last));
            }
            expected = segno + 1;
            walk.last = Some(segno);
        }
    }
    walk.end = walk.holes.first().map_or(expected, |(_, first, _)| *first);
    walk
}

fn names(holes: &[Hole], size: SegmentSize) -> (Vec<SegmentName>, u64) {
    let listed = holes
        .iter()
        .flat_map(|(timeline, first, last)| (*first..=*last).map(move |segno| (*timeline, segno)))
        .filter_map(|(timeline, segno)| SegmentName::from_segno(timeline, segno, size).ok())
        .take(MISSING_LISTED)
        .collect();
    (listed, holes.iter().map(|(_, first, last)| last - first + 1).sum())
}

/// Follows the line of `target` from segment `from_segno` on and says how far it is stored.
#[must_use]
pub fn chain(target: &TimelineHistory, stored: &Stored, from_segno: u64, size: SegmentSize) -> ChainCoverage {
    let walk = walk(target, stored, from_segno, size);
    let (missing, missing_count) = names(&walk.holes, size);
    ChainCoverage {
        from_segno,
        end_segno: walk.end,
        last_segno: walk.last,
        missing,
        missing_count,
        history: target.clone(),
        size,
    }
}

/// The first segment of a line that is stored on its owner.
fn first_stored(history: &TimelineHistory, stored: &Stored, size: SegmentSize) -> Option<u64> {
    spans(history, size)
        .iter()
        .find_map(|(timeline, begin, end)| stored.get(timeline)?.range(*begin..=*end).next().copied())
}

/// What is stored of every timeline, and its holes.
///
/// A timeline has a hole where any line that runs through it misses a segment between two stored ones: so a
/// child whose first segments are missing has a hole from the branch on, and a parent has one up to
/// the branch, but nothing is missing before the oldest stored segment of a line (it was pruned) or after the
/// newest. Timelines without a known history count as lines of their own.
#[must_use]
pub fn timeline_ranges(
    stored: &Stored,
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    size: SegmentSize,
) -> Vec<TimelineRange> {
    let mut holes: BTreeMap<TimelineId, Vec<Hole>> = BTreeMap::new();
    for (timeline, segments) in stored {
        if segments.is_empty() {
            continue;
        }
        holes.entry(*timeline).or_default();
        let history = histories.get(timeline).cloned().unwrap_or_else(|| TimelineHistory::alone(*timeline));
        let Some(first) = first_stored(&history, stored, size) else { continue };
        for hole in walk(&history, stored, first, size).holes {
            holes.entry(hole.0).or_default().push(hole);
        }
    }
    let range = |(timeline, holes): (TimelineId, Vec<Hole>)| {
        let segments = stored.get(&timeline);
        let name = |segno: Option<&u64>| SegmentName::from_segno(timeline, *segno?, size).ok();
        let (missing, missing_count) = names(&merged(holes), size);
        TimelineRange {
            timeline,
            first: name(segments.and_then(BTreeSet::first)),
            last: name(segments.and_then(BTreeSet::last)),
            segments: segments.map_or(0, |segments| segments.len() as u64),
            missing,
            missing_count,
        }
    };
    holes.into_iter().map(range).collect()
}

/// The union of holes that several lines found on one timeline.
fn merged(mut holes: Vec<Hole>) -> Vec<Hole> {
    holes.sort_unstable();
    let mut union: Vec<Hole> = Vec::with_capacity(holes.len());
    for (timeline, first, last) in holes {
        match union.last_mut() {
            Some((_, _, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => union.push((timeline, first, last)),
        }
    }
    union
}

#[cfg(test)]
mod tests;
