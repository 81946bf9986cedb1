//! Plans of restores, held against an oracle that knows the rules and nothing of how they are applied.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

mod world;

use proptest::prelude::*;
use walarchive_core::archive::{BackupId, Facts};
use walarchive_core::error::{Error, Kind};
use walarchive_core::ops::restore::{Found, Target, TimelineChoice, Wish, candidates};
use walarchive_core::wal::Lsn;
use world::{MIB, Made, World, at, segment, tli};

/// Why a backup will not do, by the rules.
#[derive(Debug, Clone, PartialEq)]
enum Refusal {
    OffTheLine,
    Missing(String),
    TooLate,
}

/// The rules, one by one and segment by segment.
fn judge(world: &World, made: &Made, target: &Target, line_of: u32) -> Result<(), Refusal> {
    let on_line = world
        .line(line_of)
        .into_iter()
        .any(|(id, begin, end)| id == made.timeline && begin <= made.stop && made.stop <= end);
    if !on_line {
        return Err(Refusal::OffTheLine);
    }
    let late = match target {
        Target::Time(time) => at(made.finished) > *time,
        Target::Lsn(lsn) => made.stop > lsn.0,
        _ => false,
    };
    if late {
        return Err(Refusal::TooLate);
    }
    for segno in made.start / MIB..=(made.stop - 1) / MIB {
        if !world.holds(line_of, segno) {
            return Err(Refusal::Missing(segment(world.owner(line_of, segno), segno)));
        }
    }
    Ok(())
}

fn line_of(world: &World, made: &Made, choice: TimelineChoice) -> u32 {
    match choice {
        TimelineChoice::Latest => world.newest(),
        TimelineChoice::Current => made.timeline,
        TimelineChoice::Is(timeline) => timeline.get(),
    }
}

fn worlds() -> impl Strategy<Value = World> {
    // Lengths of the timelines, in quarters of a segment; where each child leaves its parent; holes.
    let branches = prop::collection::vec((any::<prop::sample::Index>(), 0_u64..60), 0..4);
    let backups =
        prop::collection::vec((any::<prop::sample::Index>(), 0_u64..70, 1_u64..12, 1_i64..20), 0..5);
    let holes = prop::collection::vec((any::<prop::sample::Index>(), 0_u64..20), 0..6);
    (branches, backups, holes).prop_map(|(branches, backups, holes)| {
        let mut world = World::default();
        for (parent, after) in branches {
            let parent = parent.index(world.branches.len() + 1) as u32 + 1;
            let begin = world.line(parent)[0].1;
            // On a border now and then, and never before the parent begins.
            world.branches.push((parent, begin + after * (MIB / 4) + u64::from(after % 3 == 1) * 40));
        }
        for timeline in 1..=world.newest() {
            let first = world.line(timeline)[0].1 / MIB;
            world.stored.extend((first..first + 18).map(|segno| (timeline, segno)));
        }
        for (timeline, segno) in holes {
            let timeline = timeline.index(world.newest() as usize) as u32 + 1;
            let first = world.line(timeline)[0].1 / MIB;
            world.stored.remove(&(timeline, first + segno));
        }
        let mut finished = 0;
        for (timeline, offset, len, pause) in backups {
            let timeline = timeline.index(world.newest() as usize) as u32 + 1;
            let start = world.line(timeline)[0].1 + offset * (MIB / 4) + 40;
            finished += pause;
            world.backups.push(Made { timeline, start, stop: start + len * (MIB / 4), finished });
        }
        world
    })
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Latest),
        Just(Target::Immediate),
        Just(Target::Xid(795)),
        (0_i64..90).prop_map(|second| Target::Time(at(second))),
        // Backups end 40 bytes behind a quarter of a segment.
        (0_u64..120, 39_u64..42).prop_map(|(quarter, more)| Target::Lsn(Lsn(quarter * (MIB / 4) + more))),
    ]
}

fn choices() -> impl Strategy<Value = TimelineChoice> {
    prop_oneof![
        3 => Just(TimelineChoice::Latest),
        2 => Just(TimelineChoice::Current),
        1 => (1_u32..7).prop_map(|number| TimelineChoice::Is(tli(number))),
    ]
}

/// Whether a message says what the rules say.
fn says(error: &Error, refusal: &Refusal, made: &Made, target: &Target) -> bool {
    let story = error.story();
    let reason = match refusal {
        Refusal::OffTheLine => story.contains("not part of the past"),
        Refusal::Missing(name) => story.contains(name.as_str()),
        Refusal::TooLate => match target {
            Target::Time(time) => {
                story.contains(&time.to_string()) && story.contains(&at(made.finished).to_string())
            }
            _ => story.contains(&Lsn(made.stop).to_string()),
        },
    };
    reason && story.contains(made.id().as_str())
}

/// The reason that helps most: what would have done but for its WAL, then what ends too late, then the rest.
fn best_reason(refusals: &[(Made, Refusal)]) -> &(Made, Refusal) {
    let rank = |refusal: &Refusal| match refusal {
        Refusal::Missing(_) => 0,
        Refusal::TooLate => 1,
        Refusal::OffTheLine => 2,
    };
    refusals.iter().min_by_key(|(_, refusal)| rank(refusal)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_candidates_are_those_that_the_rules_allow(
        world in worlds(), target in targets(), timeline in choices(), only in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let inventory = world.inventory();
        let known = match timeline {
            TimelineChoice::Is(timeline) => timeline.get() <= world.newest(),
            _ => true,
        };
        let mut newest_first: Vec<&Made> = world.backups.iter().rev().collect();
        let mut wish = Wish { target: target.clone(), backup: None, timeline };
        if let Some(only) = only.filter(|_| !newest_first.is_empty()) {
            newest_first = vec![newest_first[only.index(newest_first.len())]];
            wish.backup = Some(newest_first[0].id());
        }
        let found = candidates(&inventory, &wish);
        if newest_first.is_empty() {
            prop_assert_eq!(found.unwrap_err().kind(), Kind::Absent);
            return Ok(());
        }
        if !known {
            let error = found.unwrap_err();
            prop_assert_eq!(error.kind(), Kind::Unrestorable);
            prop_assert!(error.story().contains(".history"), "{:?}", error);
            return Ok(());
        }
        let (mut allowed, mut refusals) = (Vec::new(), Vec::new());
        for made in newest_first {
            match judge(&world, made, &target, line_of(&world, made, timeline)) {
                Ok(()) => allowed.push(made.id()),
                Err(refusal) => refusals.push((made.clone(), refusal)),
            }
        }
        match found {
            Ok(found) => {
                let found: Vec<_> = found.iter().map(|candidate| candidate.backup.id.clone()).collect();
                prop_assert_eq!(found, allowed);
            }
            Err(error) => {
                prop_assert!(allowed.is_empty(), "{:?} although {:?} will do", error, allowed);
                prop_assert_eq!(error.kind(), Kind::Unrestorable);
                let (made, refusal) = best_reason(&refusals);
                prop_assert!(says(&error, refusal, made, &target), "{:?} for {:?} of {:?}", error, refusal, made);
            }
        }
    }

    #[test]
    fn a_plan_leads_through_stored_segments_only(world in worlds(), timeline in choices()) {
        let inventory = world.inventory();
        let wish = Wish { target: Target::Latest, backup: None, timeline };
        let Ok(found) = candidates(&inventory, &wish) else { return Ok(()) };
        for candidate in found {
            let made = world.backups.iter().find(|made| made.id() == candidate.backup.id).unwrap();
            let line = line_of(&world, made, timeline);
            let first = made.start / MIB;
            let end = (first..).find(|segno| !world.holds(line, *segno)).unwrap();
            let plan = candidate.plan(&wish).unwrap();
            prop_assert_eq!(&plan.backup, &made.id().to_string());
            prop_assert_eq!(plan.timeline, line);
            prop_assert_eq!(&plan.first_segment, &segment(world.owner(line, first), first));
            prop_assert_eq!(&plan.last_segment, &segment(world.owner(line, end - 1), end - 1));
            prop_assert_eq!(plan.wal_end, Lsn(end * MIB));
            prop_assert_eq!(plan.backup_finished_at, at(made.finished));
            let mut path: Vec<u32> = world.line(line).into_iter().map(|(id, _, _)| id).collect();
            path.reverse();
            path.retain(|id| *id >= made.timeline);
            prop_assert_eq!(plan.timelines, path);
            // A segment behind the end that recovery would need is a hole, and nothing else is.
            let later = (end..200).find(|segno| world.holds(line, *segno));
            let missing = segment(world.owner(line, end), end);
            match candidate.check(&Target::Latest, &Found::default()) {
                Ok(()) => prop_assert_eq!(later, None),
                Err(error) => {
                    prop_assert!(later.is_some(), "{:?}", error);
                    prop_assert_eq!(error.kind(), Kind::Unrestorable);
                    prop_assert!(error.story().contains(&missing), "{:?} names {}", error, missing);
                    let end = format!("--to lsn:{}", Lsn(end * MIB));
                    prop_assert!(error.story().contains(&end), "{:?}", error);
                }
            }
            candidate.check(&Target::Immediate, &Found::default()).unwrap();
        }
    }

    #[test]
    fn targets_are_reached_when_the_wal_says_so(world in worlds(), target in 0_u64..100, known in 0_u64..100, time: bool) {
        let inventory = world.inventory();
        let target = if time { Target::Time(at(target as i64)) } else { Target::Lsn(Lsn(target * 1000)) };
        let wish = Wish { target: target.clone(), ..Wish::default() };
        let Ok(all) = candidates(&inventory, &wish) else { return Ok(()) };
        for candidate in all {
            let (found, reached) = match &target {
                Target::Time(wanted) => {
                    let last = at(known as i64);
                    (Found { last_time: Some(last), ..Found::default() }, last > *wanted)
                }
                Target::Lsn(wanted) => {
                    let last = Lsn(known * 1000);
                    (Found { last_record: Some(last), ..Found::default() }, last >= *wanted)
                }
                _ => unreachable!(),
            };
            let result = candidate.check(&target, &found);
            prop_assert_eq!(result.is_ok(), reached);
            let nothing = candidate.check(&target, &Found::default()).unwrap_err();
            for error in result.err().into_iter().chain([nothing]) {
                prop_assert_eq!(error.kind(), Kind::Unrestorable);
                let end = candidate.chain.missing.first().map(ToString::to_string);
                prop_assert!(error.story().contains(end.as_deref().unwrap_or("the archive")), "{:?}", error);
                prop_assert!(error.story().contains(&target.to_string().replace("lsn:", "")), "{:?}", error);
            }
        }
    }
}

/// Timeline 1 with segments 1 to 9 and backups that end at 10, 20 and 30 seconds.
fn simple() -> World {
    let backup = |nth: u64| Made {
        timeline: 1,
        start: nth * 2 * MIB + 40,
        stop: (nth * 2 + 1) * MIB,
        finished: nth as i64 * 10,
    };
    World {
        branches: vec![],
        backups: (1..=3).map(backup).collect(),
        stored: (1..10).map(|segno| (1, segno)).collect(),
    }
}

fn first(world: &World, target: Target) -> Result<String, Error> {
    let inventory = world.inventory();
    let wish = Wish { target, ..Wish::default() };
    candidates(&inventory, &wish).map(|found| found[0].backup.id.to_string())
}

#[test]
fn the_newest_backup_before_the_target_is_chosen() {
    let world = simple();
    let id = |nth: usize| world.backups[nth].id().to_string();
    assert_eq!(first(&world, Target::Latest).unwrap(), id(2));
    for (second, nth) in [(1000, 2), (30, 2), (29, 1), (20, 1), (19, 0), (10, 0)] {
        assert_eq!(first(&world, Target::Time(at(second))).unwrap(), id(nth), "{second}");
    }
    for (lsn, nth) in [(7 * MIB, 2), (7 * MIB - 1, 1), (5 * MIB, 1), (3 * MIB, 0)] {
        assert_eq!(first(&world, Target::Lsn(Lsn(lsn))).unwrap(), id(nth), "{lsn}");
    }
}

#[test]
fn a_target_before_all_backups_names_the_earliest_moment() {
    let world = simple();
    for target in [Target::Time(at(9)), Target::Lsn(Lsn(3 * MIB - 1))] {
        let error = first(&world, target.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unrestorable);
        let earliest = world.backups[0].backup();
        for word in [
            earliest.id.to_string(),
            earliest.facts.finished_at.to_string(),
            earliest.facts.stop_lsn.to_string(),
        ] {
            assert!(error.story().contains(&word), "{error:?} names {word}");
        }
    }
}

/// The backup that ended in time is the one that matters, not the newest one.
#[test]
fn a_hole_in_the_only_backup_in_time_is_named() {
    let mut world = simple();
    world.stored.remove(&(1, 2));
    let error = first(&world, Target::Time(at(15))).unwrap_err();
    assert!(error.story().contains(&segment(1, 2)), "{error:?}");
    assert!(error.story().contains(world.backups[0].id().as_str()), "{error:?}");
    // What cannot be restored is not offered as the earliest moment.
    let error = first(&world, Target::Time(at(5))).unwrap_err();
    assert!(!error.story().contains(world.backups[0].id().as_str()), "{error:?}");
    assert!(error.story().contains(&at(20).to_string()), "{error:?}");
}

#[test]
fn wal_up_to_the_stop_is_enough_and_not_less() {
    // The stop is the first byte of a segment: that one is not needed.
    let mut world = simple();
    world.stored = [(1, 6)].into();
    assert_eq!(first(&world, Target::Latest).unwrap(), world.backups[2].id().to_string());
    world.backups[2].stop += 1;
    let error = first(&world, Target::Latest).unwrap_err();
    assert!(error.story().contains(&segment(1, 7)), "{error:?}");
    world.stored.clear();
    let error = first(&world, Target::Immediate).unwrap_err();
    assert!(error.story().contains(&segment(1, 6)), "{error:?}");
}

#[test]
fn a_backup_of_an_abandoned_timeline_is_passed_over() {
    // Timeline 2 left timeline 1 before the newest backup ended.
    let mut world = simple();
    world.branches = vec![(1, 6 * MIB + 100)];
    world.stored.extend([(2, 6), (2, 7)]);
    assert_eq!(first(&world, Target::Latest).unwrap(), world.backups[1].id().to_string());
    let inventory = world.inventory();
    let current = Wish { timeline: TimelineChoice::Current, ..Wish::default() };
    let found = candidates(&inventory, &current).unwrap();
    assert_eq!(found[0].backup.id, world.backups[2].id());
    let named = Wish { backup: Some(world.backups[2].id()), ..Wish::default() };
    let error = candidates(&inventory, &named).unwrap_err();
    assert!(error.story().contains("timeline 2"), "{error:?}");
    let unknown = Wish { backup: Some(BackupId::new(at(77), 1)), ..Wish::default() };
    assert_eq!(candidates(&inventory, &unknown).unwrap_err().kind(), Kind::Absent);
}

#[test]
fn a_position_found_before_the_backup_ended_is_refused() {
    let world = simple();
    let inventory = world.inventory();
    for target in [Target::Xid(795), Target::Name("before the release".into())] {
        let wish = Wish { target: target.clone(), ..Wish::default() };
        let found = candidates(&inventory, &wish).unwrap();
        assert_eq!(found.len(), 3, "any backup may do until it is known where the target is");
        let known = Found { at: Some(Lsn(5 * MIB + 1)), ..Found::default() };
        let fits: Vec<bool> =
            found.iter().map(|candidate| candidate.check(&target, &known).is_ok()).collect();
        assert_eq!(fits, [false, true, true]);
        let error = found[0].check(&target, &known).unwrap_err();
        assert!(error.story().contains(&target.to_string()), "{error:?}");
        let error = found[2].check(&target, &Found::default()).unwrap_err();
        assert!(error.story().contains("not in the WAL"), "{error:?}");
    }
}

#[test]
fn damaged_pages_of_a_backup_are_told() {
    let mut inventory = simple().inventory();
    inventory.backups[2].facts.damaged_pages = 3;
    let found = candidates(&inventory, &Wish::default()).unwrap();
    let plan = found[0].plan(&Wish::default()).unwrap();
    assert!(plan.notes[0].starts_with("3 pages"), "{:?}", plan.notes);
    assert!(found[1].plan(&Wish::default()).unwrap().notes.is_empty());
}

#[test]
fn a_manifest_that_names_the_impossible_is_damaged() {
    for break_it in [(|facts: &mut Facts| facts.timeline = 0) as fn(&mut Facts), |facts: &mut Facts| {
        facts.segment_size = 5
    }] {
        let mut inventory = simple().inventory();
        break_it(&mut inventory.backups[2].facts);
        assert_eq!(candidates(&inventory, &Wish::default()).unwrap_err().kind(), Kind::Damaged);
    }
}
