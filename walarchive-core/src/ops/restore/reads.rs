//! Reads of frames: few and long ones, as a store takes its time for each.

use std::collections::BTreeSet;
use std::ops::Range;

use super::region::FrameId;
use crate::archive::FrameEntry;
use crate::error::{Error, Result};

/// Stored bytes that one read asks for at most, unless one frame is longer; and that are kept for later regions. Every worker
/// holds several reads, twice as long as they are being opened.
const READ: u64 = 1 << 20;
/// Stored bytes between two frames that are read along rather than asking again.
const GAP: u64 = 64 << 10;
/// Regions that share reads at most.
const SHARING: usize = 16;

/// One read: frames of a pack, some of which may lie between those that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) pack: u32,
    pub(super) frames: Range<usize>,
    /// The last region that wants some of it.
    pub(super) last: usize,
    stored: u64,
}

impl Read {
    fn serves(&self, wanted: &BTreeSet<FrameId>) -> bool {
        let (pack, Range { start, end }) = (self.pack, self.frames.clone());
        wanted.range((pack, start)..(pack, end)).next().is_some()
    }
}

/// For each region the reads that are first needed for it. Regions that follow one another share reads while these are short.
pub(super) fn plan<'a>(
    wanted: &[BTreeSet<FrameId>],
    frames: impl Fn(u32) -> Result<&'a [FrameEntry]>,
) -> Result<Vec<Vec<Read>>> {
    let (mut planned, mut from) = (vec![Vec::new(); wanted.len()], 0);
    while from < wanted.len() {
        let (count, reads) = share(&wanted[from..], &frames)?;
        for read in reads {
            let mut regions = (from..from + count).filter(|region| read.serves(&wanted[*region]));
            if let Some(first) = regions.next() {
                let last = regions.next_back().unwrap_or(first);
                planned[first].push(Read { last, ..read.clone() });
            }
        }
        from += count;
    }
    Ok(planned)
}

/// How many of the regions, from the first on, share reads, and these.
fn share<'a>(
    wanted: &[BTreeSet<FrameId>],
    frames: &impl Fn(u32) -> Result<&'a [FrameEntry]>,
) -> Result<(usize, Vec<Read>)> {
    let (mut count, mut shared) = (1, fewest(&wanted[..1], frames)?);
    while count < wanted.len().min(SHARING) {
        let more = fewest(&wanted[..=count], frames)?;
        if more.iter().map(|read| read.stored).sum::<u64>() > READ {
            break;
        }
        (count, shared) = (count + 1, more);
    }
    Ok((count, shared))
}

/// The fewest reads that give all that these regions want.
fn fewest<'a>(
    wanted: &[BTreeSet<FrameId>],
    frames: &impl Fn(u32) -> Result<&'a [FrameEntry]>,
) -> Result<Vec<Read>> {
    let mut reads: Vec<Read> = Vec::new();
    let all: BTreeSet<FrameId> = wanted.iter().flatten().copied().collect();
    for (pack, frame) in all {
        let table = frames(pack)?;
        let entry = |frame: usize| table.get(frame).ok_or_else(|| Error::bug("a frame went missing"));
        let found = entry(frame)?;
        if let Some(last) = reads.last_mut().filter(|last| last.pack == pack) {
            let start = entry(last.frames.start)?.at;
            let stored = found.at + u64::from(found.stored) - start;
            if found.at <= start + last.stored + GAP && stored <= READ {
                (last.frames.end, last.stored) = (frame + 1, stored);
                continue;
            }
        }
        reads.push(Read { pack, frames: frame..frame + 1, last: 0, stored: found.stored.into() });
    }
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two packs alike, of frames that are stored in some bytes.
    fn table(lengths: &[u32]) -> Vec<FrameEntry> {
        let mut at = 0;
        let entry = |stored: &u32| {
            let entry = FrameEntry::at(at, *stored, 1);
            at += u64::from(*stored);
            entry
        };
        lengths.iter().map(entry).collect()
    }

    fn regions() -> impl Strategy<Value = Vec<BTreeSet<FrameId>>> {
        let ids = prop::collection::btree_set((0u32..2, 0usize..60), 0..20);
        prop::collection::vec(ids, 1..20)
    }

    proptest! {
        /// Whatever a region wants is read for it or for one before it and kept, and little is kept.
        #[test]
        fn every_frame_is_there_in_time(
            lengths in prop::collection::vec(1u32..1_000_000, 60),
            shift in 0u32..16,
            wanted in regions(),
        ) {
            let table = table(&lengths.iter().map(|length| length >> shift).collect::<Vec<_>>());
            let planned = plan(&wanted, |_| Ok(&table)).unwrap();
            prop_assert_eq!(planned.len(), wanted.len());
            let mut there: Vec<Read> = Vec::new();
            for (region, (reads, wanted)) in planned.iter().zip(&wanted).enumerate() {
                there.retain(|read| read.last >= region);
                let kept: u64 = there.iter().map(|read| read.stored).sum();
                prop_assert!(kept <= READ, "{} bytes are kept", kept);
                there.extend(reads.iter().cloned());
                for (pack, frame) in wanted {
                    let count = there.iter().filter(|read| read.pack == *pack && read.frames.contains(frame)).count();
                    prop_assert_eq!(count, 1);
                }
            }
            for read in planned.iter().flatten() {
                let (first, last) = (&table[read.frames.start], &table[read.frames.end - 1]);
                prop_assert_eq!(read.stored, last.at + u64::from(last.stored) - first.at);
                prop_assert!(read.stored <= READ || read.frames.len() == 1, "{} bytes", read.stored);
            }
        }
    }

    #[test]
    fn regions_share_a_read_while_it_is_short() {
        let wanted: Vec<BTreeSet<FrameId>> = (0..4).map(|n| [(0, 2 * n), (0, 2 * n + 1)].into()).collect();
        let planned = |length: u32| plan(&wanted, |_| Ok(Box::leak(table(&[length; 8]).into()))).unwrap();
        let read = |frames, last, stored| Read { pack: 0, frames, last, stored };
        assert_eq!(planned(100), [vec![read(0..8, 3, 800)], vec![], vec![], vec![]]);
        let long = planned(250_000);
        assert_eq!(long, [vec![read(0..4, 1, 1_000_000)], vec![], vec![read(4..8, 3, 1_000_000)], vec![]]);
    }
}
