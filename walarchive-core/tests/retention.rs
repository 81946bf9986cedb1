//! Retention keeps what was promised, whatever is stored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use walarchive_core::archive::{BackupId, Inventory};
use walarchive_core::retention::{Retention, Rules, decide};
use walarchive_core::wal::coverage;
use walarchive_core::wal::{Lsn, TimelineId};
use world::{MIB, Made, World, at, size, tli};

const DAY: i64 = 86_400;

fn days(days: u64) -> Option<Duration> {
    Some(Duration::from_secs(days * 86_400))
}

/// A backup a day at the same hour, the last one on day 0; all on timeline 1, with all WAL.
fn daily(count: i64) -> World {
    let backup = |n: i64| {
        let start = (n as u64 + 1) * 10 * MIB;
        Made { timeline: 1, start, stop: start + MIB, finished: (n - count + 1) * DAY }
    };
    let stored = (10..=(count as u64 + 1) * 10).map(|segno| (1, segno)).collect();
    World { branches: vec![], backups: (0..count).map(backup).collect(), stored }
}

/// The days that are kept, counted back from the last backup.
fn kept(world: &World, rules: &Rules, now: Timestamp) -> BTreeSet<i64> {
    let retention = decide(&world.inventory(), rules, now).unwrap();
    let kept = world.backups.iter().filter(|made| retention.keep.contains_key(&made.id()));
    kept.map(|made| -made.finished / DAY).collect()
}

#[test]
fn each_rule_keeps_its_own() {
    let world = daily(800);
    let now = at(3600);
    let of = |rules: Rules| kept(&world, &rules, now);
    assert_eq!(of(Rules::default()).len(), 800, "nothing set: nothing goes");
    assert_eq!(of(Rules { last: Some(3), ..Rules::default() }), [0, 1, 2].into());
    assert_eq!(of(Rules { daily: Some(3), ..Rules::default() }), [0, 1, 2].into());
    // The window begins with the backup before it.
    assert_eq!(of(Rules { window: days(3), ..Rules::default() }), [0, 1, 2, 3].into());
    assert_eq!(of(Rules { window: days(0), ..Rules::default() }), [0].into());
    // at(0) is Tuesday, 2023-11-14; the newest of each week is its Sunday's.
    assert_eq!(of(Rules { weekly: Some(3), ..Rules::default() }), [0, 2, 9].into());
    assert_eq!(of(Rules { monthly: Some(3), ..Rules::default() }), [0, 14, 45].into());
    assert_eq!(of(Rules { yearly: Some(9), ..Rules::default() }), [0, 318, 683].into());
    let all = Rules { last: Some(1), weekly: Some(2), yearly: Some(2), ..Rules::default() };
    assert_eq!(of(all), [0, 2, 318].into());
}

#[test]
fn years_end_within_weeks() {
    // Thursday, 2020-12-31 and Friday, 2021-01-01 are of week 53 of 2020.
    let start = "2020-12-31T12:00:00Z".parse::<Timestamp>().unwrap();
    let shift = start.as_second() - at(0).as_second();
    let mut world = daily(2);
    for (made, finished) in world.backups.iter_mut().zip([shift, shift + DAY]) {
        made.finished = finished;
    }
    let kept = |rules: Rules| decide(&world.inventory(), &rules, at(shift + 2 * DAY)).unwrap().keep.len();
    assert_eq!(kept(Rules { weekly: Some(5), ..Rules::default() }), 1);
    assert_eq!(kept(Rules { monthly: Some(5), ..Rules::default() }), 2);
}

#[test]
fn wrong_clocks_and_missed_nights_cost_nothing() {
    let mut world = daily(30);
    let rules = Rules { window: days(7), ..Rules::default() };
    let right = kept(&world, &rules, at(3600));
    assert_eq!(
        kept(&world, &rules, at(1000 * DAY)),
        right,
        "nothing was backed up for years, or the clock is wrong"
    );
    assert!(kept(&world, &rules, at(-20 * DAY)).is_superset(&right), "the clock was set back");
    // Three weeks without a backup.
    world.backups.retain(|made| made.finished <= -21 * DAY || made.finished == 0);
    assert_eq!(kept(&world, &rules, at(3600)), [0, 21].into());
}

#[test]
fn what_would_keep_nothing_is_refused() {
    let none = Rules { last: Some(0), daily: Some(0), ..Rules::default() };
    assert!(decide(&daily(3).inventory(), &none, at(0)).is_err());
    let wal_alone = Rules { wal_window: days(0), ..Rules::default() };
    assert_eq!(decide(&daily(3).inventory(), &wal_alone, at(0)).unwrap().expire, vec![]);
}

#[test]
fn pins_keep_a_backup_and_its_own_wal() {
    let world = daily(30);
    let mut inventory = world.inventory();
    inventory.backups[0].pinned = true;
    let retention = decide(&inventory, &Rules { last: Some(2), ..Rules::default() }, at(0)).unwrap();
    assert_eq!(retention.keep.len(), 3);
    let needed: Vec<u64> = (0..=300).filter(|segno| retention.wal.has(tli(1), *segno)).collect();
    assert_eq!(needed, [10].into_iter().chain(290..=300).collect::<Vec<_>>());
}

#[test]
fn wal_has_a_window_of_its_own() {
    let world = daily(30);
    let rules = Rules { wal_window: days(3), ..Rules::default() };
    let retention = decide(&world.inventory(), &rules, at(0)).unwrap();
    assert_eq!(retention.expire, vec![]);
    let needed: Vec<u64> = (0..=300).filter(|segno| retention.wal.has(tli(1), *segno)).collect();
    let own = (1..27).map(|day| day * 10);
    assert_eq!(needed, own.chain(270..=300).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_restored_counts_for_nothing() {
    let mut world = daily(10);
    // The WAL of the three newest backups is lost.
    world.stored.retain(|(_, segno)| *segno < 80);
    let rules = Rules { last: Some(2), ..Rules::default() };
    assert_eq!(kept(&world, &rules, at(0)), [0, 1, 2, 3, 4].into());
    world.stored.clear();
    let retention = decide(&world.inventory(), &rules, at(0)).unwrap();
    assert!(retention.expire.is_empty() && retention.notes.len() == 1);
}

#[test]
fn a_branch_that_is_left_does_not_push_out_what_the_cluster_needs() {
    // Restored to day 5 before the last backup: timeline 2 has no backup of its own yet.
    let mut world = daily(10);
    world.branches.push((1, 55 * MIB));
    world.stored.extend((55..70).map(|segno| (2, segno)));
    let rules = Rules { last: Some(1), ..Rules::default() };
    let inventory = world.inventory();
    let retention = decide(&inventory, &rules, at(0)).unwrap();
    let kept: Vec<i64> = world
        .backups
        .iter()
        .filter(|made| retention.keep.contains_key(&made.id()))
        .map(|made| made.finished / DAY)
        .collect();
    assert_eq!(kept, [-5, 0]);
    assert!((50..70).all(|segno| retention.wal.has(tli(2), segno) && retention.wal.has(tli(1), segno)));
}

#[test]
fn a_line_without_a_backup_keeps_its_wal() {
    // Restored to before the only backup that is left, and not backed up since.
    let mut world = daily(10);
    world.branches.push((1, 55 * MIB));
    world.stored.extend((55..70).map(|segno| (2, segno)));
    world.backups.retain(|made| made.start > 55 * MIB);
    let rules = Rules { last: Some(1), ..Rules::default() };
    let retention = decide(&world.inventory(), &rules, at(0)).unwrap();
    assert_eq!(retention.keep.len(), 1);
    assert!((10..70).all(|segno| retention.wal.has(tli(2), segno) && retention.wal.has(tli(1), segno)));
}

#[test]
fn no_wal_goes_where_the_past_is_not_known() {
    let rules = Rules { last: Some(1), ..Rules::default() };
    let world = daily(10);
    let mut lost = world.inventory();
    lost.segments.insert(tli(3), [7].into());
    let mut damaged = world.inventory();
    damaged.damaged_histories.insert(tli(2), "broken".into());
    let mut manifest = world.inventory();
    manifest.damaged.insert(BackupId::new(at(0), 99), "broken".into());
    for inventory in [lost, damaged, manifest] {
        let retention = decide(&inventory, &rules, at(0)).unwrap();
        assert!((0..=100).all(|segno| retention.wal.has(tli(1), segno)), "{retention:?}");
        assert_eq!(retention.notes.len(), 1);
    }
}

/// What is left when the decision was carried out.
fn after(inventory: &Inventory, retention: &Retention) -> Inventory {
    let mut left = inventory.clone();
    left.backups.retain(|backup| !retention.expire.contains(&backup.id));
    for (timeline, segments) in &mut left.segments {
        segments.retain(|segno| retention.wal.has(*timeline, *segno));
    }
    left.segments.retain(|_, segments| !segments.is_empty());
    left
}

/// Timelines that branch off anywhere, backups anywhere on them, and all WAL but for some holes.
fn worlds() -> impl Strategy<Value = World> {
    let branch = (any::<u32>(), 20_u64..90);
    let backup = (any::<u32>(), 12_u64..95, 0_u64..3, 0_i64..60);
    (
        prop::collection::vec(branch, 0..4),
        prop::collection::vec(backup, 1..14),
        prop::collection::vec((any::<u32>(), 10_u64..110), 0..4),
    )
        .prop_map(|(branches, backups, holes)| {
            let mut world = World::default();
            for (parent, begin) in branches {
                let known = world.branches.len() as u32 + 1;
                let parent = parent % known + 1;
                let from = parent.checked_sub(2).map_or(0, |nth| world.branches[nth as usize].1);
                world.branches.push((parent, from.max(begin * MIB) + MIB / 2));
            }
            let newest = world.newest();
            for timeline in 1..=newest {
                let begin = timeline.checked_sub(2).map_or(10, |nth| world.branches[nth as usize].1 / MIB);
                world.stored.extend((begin..110).map(|segno| (timeline, segno)));
            }
            for (nth, (timeline, start, len, day)) in backups.into_iter().enumerate() {
                let timeline = timeline % newest + 1;
                let begin = timeline.checked_sub(2).map_or(0, |nth| world.branches[nth as usize].1);
                let start = (start * MIB).max(begin);
                let stop = start + len * MIB + 100;
                world.backups.push(Made { timeline, start, stop, finished: day * DAY + nth as i64 });
            }
            world.backups.sort_by_key(|made| made.finished);
            for (timeline, segno) in holes {
                world.stored.remove(&(timeline % newest + 1, segno));
            }
            world
        })
}

fn rules() -> impl Strategy<Value = Rules> {
    let count = || prop::option::of(0_u32..4);
    let window = || prop::option::of((0_u64..40).prop_map(|days| Duration::from_secs(days * 86_400)));
    (window(), count(), count(), count(), count(), count(), window()).prop_map(
        |(window, last, daily, weekly, monthly, yearly, wal_window)| Rules {
            window,
            last,
            daily,
            weekly,
            monthly,
            yearly,
            wal_window,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn promises_are_kept(world in worlds(), rules in rules(), now in 0_i64..80, pin in any::<prop::sample::Index>()) {
        prop_assume!(rules.check().is_ok());
        let mut inventory = world.inventory();
        let pinned = pin.index(inventory.backups.len());
        inventory.backups[pinned].pinned = true;
        let retention = decide(&inventory, &rules, at(now * DAY)).unwrap();
        let left = after(&inventory, &retention);
        // Every backup goes or stays; what stays and could be restored can be restored.
        prop_assert_eq!(retention.keep.len() + retention.expire.len(), inventory.backups.len());
        for backup in &left.backups {
            prop_assert_eq!(inventory.is_restorable(backup), left.is_restorable(backup), "{}", backup.id);
        }
        prop_assert!(left.backups.iter().any(|backup| backup.pinned));
        let could = inventory.backups.iter().any(|backup| inventory.is_restorable(backup));
        prop_assert_eq!(could, left.backups.iter().any(|backup| left.is_restorable(backup)));

        // Any moment of the window that could be reached on the cluster's own line can be reached still.
        let line = inventory.line(inventory.histories.keys().copied().max().unwrap());
        let of_line = |inventory: &Inventory, until: Timestamp| {
            let own = |timeline| TimelineId::new(timeline).unwrap();
            let usable = inventory.backups.iter().filter(|backup| {
                inventory.is_restorable(backup)
                    && line.is_ancestor_position(own(backup.facts.timeline), backup.facts.stop_lsn)
                    && backup.facts.finished_at <= until
            });
            usable.max_by_key(|backup| backup.facts.finished_at).map(|backup| {
                let from = Lsn(backup.facts.start_lsn.0).segno(size());
                let chain = coverage::chain(&line, &inventory.segments, from, size());
                (backup.facts.finished_at, chain.end_segno)
            })
        };
        let newest = inventory.backups.iter().filter(|backup| inventory.is_restorable(backup));
        let newest = newest.map(|backup| backup.facts.finished_at).max();
        if let (Some(window), Some(newest)) = (rules.window, newest) {
            let reference = newest.min(at(now * DAY));
            let wal = rules.wal_window.unwrap_or(window).min(window);
            for hours in (0..=wal.as_secs() / 3600).step_by(12) {
                let moment = reference - Duration::from_secs(hours * 3600);
                prop_assert_eq!(of_line(&inventory, moment), of_line(&left, moment), "{}", moment);
            }
        }

        // Done again, nothing more goes.
        let again = decide(&left, &rules, at(now * DAY)).unwrap();
        prop_assert_eq!(&again.expire, &Vec::<BackupId>::new());
        prop_assert_eq!(after(&left, &again).segments, left.segments);
    }
}
