//! Regions: pages of files that are put together in memory before they are written, and the reads that they take.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::file::TargetFile;
use crate::archive::{Extent, FrameEntry};
use crate::error::{Error, Result};

/// Pages of a region. Large enough for long writes, small enough to be in the processor's cache.
pub(super) const REGION: u32 = 512;
/// Stored bytes that one read asks for at most, unless one frame is longer.
const READ: u64 = 2 << 20;
/// Stored bytes between two frames that are read along rather than asking again.
const GAP: u64 = 64 << 10;
/// Frames that are kept for the next region at most.
const HELD: usize = 16;

/// Some pages of a file.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) file: Arc<TargetFile>,
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Piece {
    pub(super) fn pages(&self) -> u32 {
        self.to - self.from
    }
}

/// Cuts pieces of any length into regions.
pub(super) fn regions(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let (mut all, mut now, mut room) = (Vec::new(), Vec::new(), REGION);
    for piece in pieces {
        let mut from = piece.from;
        loop {
            let to = piece.to.min(from + room);
            now.push(Piece { file: piece.file.clone(), from, to });
            room -= to - from;
            from = to;
            if room == 0 {
                all.push(std::mem::take(&mut now));
                room = REGION;
            }
            if from == piece.to {
                break;
            }
        }
    }
    if !now.is_empty() {
        all.push(now);
    }
    all
}

/// A frame, by the number of its pack and its own.
pub(super) type FrameId = (u32, usize);

/// Pages of a frame, and where in the region they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) to: u32,
}

/// The frames that a region takes its pages from.
pub(super) type Uses = BTreeMap<FrameId, Vec<Use>>;

/// Adds where `extent` is found, whose first `skipped` pages are not wanted and whose others go to page `to` of the region.
pub(super) fn add_uses(
    uses: &mut Uses,
    extent: &Extent,
    skipped: u32,
    mut to: u32,
    frames: &[FrameEntry],
) -> Result<()> {
    let (mut frame, mut skip, mut left) =
        (extent.frame as usize, u64::from(extent.first) + u64::from(skipped), extent.count);
    while left > 0 {
        let entry = frames
            .get(frame)
            .ok_or_else(|| Error::damaged("a manifest names a frame that the pack does not have"))?;
        let pages = entry.pages();
        if skip < u64::from(pages) {
            let first = skip as u32;
            let count = left.min(pages - first);
            uses.entry((extent.pack, frame)).or_default().push(Use { first, count, to });
            (left, to, skip) = (left - count, to + count, 0);
        } else {
            skip -= u64::from(pages);
        }
        frame += 1;
    }
    Ok(())
}

/// One read: frames of a pack, some of which may lie between those that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) pack: u32,
    pub(super) frames: Range<usize>,
}

/// The fewest reads that give the frames of `uses` without those that are `held`.
pub(super) fn reads<'a>(
    uses: &Uses,
    held: &BTreeSet<FrameId>,
    frames: impl Fn(u32) -> Result<&'a [FrameEntry]>,
) -> Result<Vec<Read>> {
    let mut reads: Vec<Read> = Vec::new();
    for (pack, frame) in uses.keys().copied().filter(|id| !held.contains(id)) {
        let table = frames(pack)?;
        let (Some(entry), Some(last)) = (table.get(frame), reads.last_mut()) else {
            reads.push(Read { pack, frames: frame..frame + 1 });
            continue;
        };
        let start = table.get(last.frames.start).map_or(0, |entry| entry.at);
        let end = last.frames.end.checked_sub(1).and_then(|last| table.get(last));
        let gap = end.map_or(u64::MAX, |end| entry.at.saturating_sub(end.at + u64::from(end.stored)));
        if last.pack == pack && gap <= GAP && entry.at + u64::from(entry.stored) - start <= READ {
            last.frames.end = frame + 1;
        } else {
            reads.push(Read { pack, frames: frame..frame + 1 });
        }
    }
    Ok(reads)
}

/// The frames that the next region needs as well: where it begins, in each pack.
pub(super) fn held(now: &Uses, next: &Uses) -> BTreeSet<FrameId> {
    now.keys().filter(|id| next.contains_key(id)).copied().take(HELD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Packs of frames that hold some pages each and are stored in some bytes.
    fn packs(frames: &[(u32, u32)]) -> Vec<FrameEntry> {
        let mut at = 0;
        let entry = |(pages, stored): &(u32, u32)| {
            let entry = FrameEntry::at(at, *stored, *pages);
            at += u64::from(*stored);
            entry
        };
        frames.iter().map(entry).collect()
    }

    proptest! {
        /// Every page is found in the place that counting page by page gives, and each frame is read once, by the read that
        /// says so.
        #[test]
        fn pages_are_found_where_they_are(
            frames in prop::collection::vec((1u32..40, 1u32..300_000), 1..30),
            parts in prop::collection::vec((0u32..300, 1u32..100, 0u32..20), 1..20),
        ) {
            let table = packs(&frames);
            let places: Vec<FrameId> =
                frames.iter().enumerate().flat_map(|(n, (pages, _))| (0..*pages).map(move |_| (0, n))).collect();
            let (mut uses, mut wanted, mut to) = (Uses::new(), BTreeMap::new(), 0);
            for (first, count, skipped) in parts {
                if (first + skipped + count) as usize > places.len() { continue }
                let extent = Extent { page: 0, count, pack: 0, frame: 0, first };
                add_uses(&mut uses, &extent, skipped, to, &table).unwrap();
                for n in 0..count {
                    let place = (first + skipped + n) as usize;
                    let (_, frame) = places[place];
                    let before: u32 = frames[..frame].iter().map(|(pages, _)| *pages).sum();
                    wanted.insert(to + n, (frame, place as u32 - before));
                }
                to += count;
            }
            let found: BTreeMap<u32, (usize, u32)> = uses.iter().flat_map(|((_, frame), uses)| {
                uses.iter().flat_map(move |at| (0..at.count).map(move |n| (at.to + n, (*frame, at.first + n))))
            }).collect();
            prop_assert_eq!(found, wanted);
            let reads = reads(&uses, &BTreeSet::new(), |_| Ok(&table)).unwrap();
            for (_, frame) in uses.keys() {
                prop_assert_eq!(reads.iter().filter(|read| read.frames.contains(frame)).count(), 1);
            }
            for read in &reads {
                let (first, last) = (&table[read.frames.start], &table[read.frames.end - 1]);
                let len = last.at + u64::from(last.stored) - first.at;
                prop_assert!(len <= READ || read.frames.len() == 1, "{} bytes", len);
                prop_assert!(uses.contains_key(&(0, read.frames.start)) && uses.contains_key(&(0, read.frames.end - 1)));
            }
        }
    }

    #[test]
    fn a_frame_behind_the_last_is_damage() {
        let extent = Extent { page: 0, count: 3, pack: 0, frame: 0, first: 2 };
        let error = add_uses(&mut Uses::new(), &extent, 0, 0, &packs(&[(4, 10)])).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Damaged);
    }

    #[test]
    fn what_the_next_region_needs_is_not_read_again() {
        let table = packs(&[(32, 100); 8]);
        let uses = |frames: Range<usize>| -> Uses { frames.map(|frame| ((0, frame), Vec::new())).collect() };
        let (now, next) = (uses(0..4), uses(3..7));
        let held = held(&now, &next);
        assert_eq!(held, [(0, 3)].into());
        assert_eq!(reads(&next, &held, |_| Ok(&table)).unwrap(), [Read { pack: 0, frames: 4..7 }]);
    }
}
