use proptest::prelude::*;

use super::*;
use crate::wal::{HistoryEntry, Lsn};

const MIB: u64 = 1 << 20;

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

/// Timeline `ends.len() + 1`, whose ancestors 1, 2, … end at these positions.
fn line(ends: &[u64]) -> TimelineHistory {
    let entries = ends
        .iter()
        .zip(1..)
        .map(|(end, id)| HistoryEntry { timeline: tli(id), end: Lsn(*end), reason: String::new() })
        .collect();
    TimelineHistory { timeline: tli(ends.len() as u32 + 1), entries }
}

fn stored(of: &[(u32, &[u64])]) -> Stored {
    of.iter().map(|(id, segments)| (tli(*id), segments.iter().copied().collect())).collect()
}

fn texts(names: &[SegmentName]) -> Vec<(u32, u64)> {
    names.iter().map(|name| (name.timeline.get(), name.segno(size()).unwrap())).collect()
}

#[test]
fn the_child_replaces_the_segment_in_which_it_begins() {
    let history = line(&[5 * MIB + 40]);
    let held = chain(&history, &stored(&[(1, &[3, 4]), (2, &[5, 6])]), 3, size());
    assert_eq!((held.end_segno, held.last_segno, held.missing.len()), (7, Some(6), 0));
    assert_eq!((held.owner(4), held.owner(5)), (tli(1), tli(2)));
    assert!(held.covers(3, 6) && !held.covers(3, 7) && !held.covers(2, 3));
    let held = chain(&history, &stored(&[(1, &[3, 4, 5]), (2, &[6])]), 3, size());
    assert_eq!(texts(&held.missing), [(2, 5)], "the parent's file is no substitute");
    assert_eq!(held.end_segno, 5);
}

#[test]
fn a_child_that_begins_on_a_boundary_begins_a_segment() {
    let history = line(&[5 * MIB]);
    let held = chain(&history, &stored(&[(1, &[4]), (2, &[5])]), 4, size());
    assert_eq!((held.end_segno, held.missing_count), (6, 0));
}

#[test]
fn holes_run_across_timelines_and_lag_is_no_hole() {
    let history = line(&[5 * MIB + 40, 6 * MIB + 1, 6 * MIB + 2]);
    let held = chain(&history, &stored(&[(1, &[2, 9]), (2, &[]), (4, &[8])]), 2, size());
    assert_eq!(texts(&held.missing), [(1, 3), (1, 4), (2, 5), (4, 6), (4, 7)]);
    assert_eq!((held.end_segno, held.last_segno), (3, Some(8)));
    let lag = chain(&history, &stored(&[(1, &[2, 3])]), 2, size());
    assert_eq!((lag.end_segno, lag.missing_count, lag.last_segno), (4, 0, Some(3)));
    let none = chain(&history, &Stored::new(), 2, size());
    assert_eq!((none.end_segno, none.missing_count, none.last_segno), (2, 0, None));
}

#[test]
fn one_absurd_name_costs_no_memory() {
    let all = stored(&[(1, &[1, size().last_segno()])]);
    let held = chain(&TimelineHistory::initial(), &all, 1, size());
    assert_eq!(held.missing.len(), MISSING_LISTED);
    assert_eq!(held.missing_count, size().last_segno() - 2);
    let ranges = timeline_ranges(&all, &BTreeMap::new(), size());
    assert_eq!(ranges[0].missing_count, size().last_segno() - 2);
    assert_eq!(chain(&TimelineHistory::initial(), &all, u64::MAX, size()).missing_count, 0);
}

#[test]
fn ranges_report_holes_up_to_the_branch_and_from_it_on() {
    let histories = BTreeMap::from([(tli(2), line(&[5 * MIB + 40]))]);
    let ranges = timeline_ranges(&stored(&[(1, &[2, 3, 9]), (2, &[6, 8])]), &histories, size());
    assert_eq!(ranges.len(), 2);
    assert_eq!(texts(&ranges[0].missing), [(1, 4), (1, 5), (1, 6), (1, 7), (1, 8)]);
    assert_eq!(texts(&ranges[1].missing), [(2, 5), (2, 7)]);
    assert_eq!(ranges[0].segments, 3);
    assert_eq!(ranges[0].last.unwrap().to_string(), "000000010000000000000009");
}

#[test]
fn what_was_pruned_is_not_missing() {
    let histories = BTreeMap::from([(tli(2), line(&[5 * MIB + 40]))]);
    let ranges = timeline_ranges(&stored(&[(2, &[7, 8])]), &histories, size());
    assert_eq!((ranges.len(), ranges[0].missing_count), (1, 0));
}

#[test]
fn a_timeline_of_which_nothing_is_left_is_reported() {
    let histories = BTreeMap::from([(tli(3), line(&[5 * MIB, 7 * MIB]))]);
    let ranges = timeline_ranges(&stored(&[(1, &[4]), (3, &[7])]), &histories, size());
    assert_eq!(ranges[1].first, None);
    assert_eq!(texts(&ranges[1].missing), [(2, 5), (2, 6)]);
}

/// Segment by segment, as the definition says it.
fn naive(history: &TimelineHistory, all: &Stored, from: u64) -> (u64, Option<u64>, Vec<(u32, u64)>) {
    let owner = |segno: u64| {
        let mut owner = history.entries.first().map_or(history.timeline, |entry| entry.timeline);
        let newer = history.entries.iter().skip(1).map(|entry| entry.timeline).chain([history.timeline]);
        for (entry, child) in history.entries.iter().zip(newer) {
            if entry.end.0 / MIB <= segno {
                owner = child;
            }
        }
        owner
    };
    let has = |segno: &u64| all.get(&owner(*segno)).is_some_and(|set| set.contains(segno));
    let last = (from..64).filter(has).max();
    let holes: Vec<_> = last
        .map(|last| (from..last).filter(|n| !has(n)).map(|n| (owner(n).get(), n)).collect())
        .unwrap_or_default();
    let end = (from..65).find(|n| !has(n)).unwrap_or(65);
    (end, last, holes)
}

fn universe() -> impl Strategy<Value = (Vec<u64>, Vec<BTreeSet<u64>>)> {
    let ends = proptest::collection::vec(0u64..20 * MIB, 0..4).prop_map(|mut ends| {
        ends.sort_unstable();
        ends
    });
    let sets = proptest::collection::vec(proptest::collection::btree_set(0u64..24, 0..22), 5);
    (ends, sets)
}

proptest! {
    #[test]
    fn the_chain_agrees_with_the_definition((ends, sets) in universe(), from in 0u64..26) {
        let history = line(&ends);
        let all: Stored = sets.into_iter().zip(1..).map(|(set, id)| (tli(id), set)).collect();
        let held = chain(&history, &all, from, size());
        let (end, last, holes) = naive(&history, &all, from);
        prop_assert_eq!((held.end_segno, held.last_segno), (end, last));
        prop_assert_eq!(held.missing_count as usize, holes.len());
        prop_assert_eq!(texts(&held.missing), holes);
        for segno in 0..30 {
            prop_assert_eq!(held.owner(segno), history.owner_of(segno, size()));
        }
    }

    #[test]
    fn ranges_agree_with_every_line((ends, sets) in universe()) {
        let all: Stored = sets.into_iter().zip(1..).map(|(set, id)| (tli(id), set)).collect();
        let histories: BTreeMap<_, _> =
            (0..=ends.len()).map(|n| line(&ends[..n])).map(|history| (history.timeline, history)).collect();
        let mut expected: BTreeSet<(u32, u64)> = BTreeSet::new();
        for (id, set) in &all {
            let alone = TimelineHistory::alone(*id);
            let history = histories.get(id).unwrap_or(&alone);
            let owned = |n: &u64| all.get(&history.owner_of(*n, size())).is_some_and(|s| s.contains(n));
            if let (Some(first), false) = ((0..64).find(owned), set.is_empty()) {
                expected.extend(naive(history, &all, first).2);
            }
        }
        let ranges = timeline_ranges(&all, &histories, size());
        let found: BTreeSet<_> = ranges.iter().flat_map(|range| texts(&range.missing)).collect();
        prop_assert_eq!(found.len() as u64, ranges.iter().map(|range| range.missing_count).sum::<u64>());
        prop_assert_eq!(found, expected);
    }
}
