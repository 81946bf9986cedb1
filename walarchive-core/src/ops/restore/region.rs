//! Regions: pages of files that are put together in memory before they are written, and the frames that they take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::file::TargetFile;
use crate::archive::{Extent, FrameEntry};
use crate::error::{Error, Result};

/// Pages of a region. Large enough for long writes, small enough to be in the processor's cache.
pub(super) const REGION: u32 = 512;
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

/// The frames that the next region needs as well: where it begins, in each pack.
pub(super) fn held(now: &Uses, next: &Uses) -> BTreeSet<FrameId> {
    now.keys().filter(|id| next.contains_key(id)).copied().take(HELD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::Range;

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
        /// Every page is found in the place that counting page by page gives.
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
        }
    }

    #[test]
    fn a_frame_behind_the_last_is_damage() {
        let extent = Extent { page: 0, count: 3, pack: 0, frame: 0, first: 2 };
        let error = add_uses(&mut Uses::new(), &extent, 0, 0, &packs(&[(4, 10)])).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Damaged);
    }

    #[test]
    fn what_the_next_region_needs_is_held() {
        let uses = |frames: Range<usize>| -> Uses { frames.map(|frame| ((0, frame), Vec::new())).collect() };
        let (now, next) = (uses(0..4), uses(3..7));
        assert_eq!(held(&now, &next), [(0, 3)].into());
    }
}
