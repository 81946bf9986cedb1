//! Retention of dumps: random nights with random clocks, and the calendar.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;
use walarchive_core::archive::{BackupId, Dump, DumpContent, DumpFacts, DumpFormat};
use walarchive_core::retention::dumps::{DumpRules, Keep, decide, slots};

fn dump(number: u64, day: Date) -> Dump {
    let started_at = day.to_zoned(TimeZone::UTC).unwrap().timestamp();
    let id = BackupId::new(started_at, number as u32);
    let facts = DumpFacts {
        format: 1,
        kind_of: "dump".to_owned(),
        id: id.to_string(),
        run: id.to_string(),
        number,
        cluster: "main".to_owned(),
        system_id: None,
        database: "app".to_owned(),
        content: DumpContent::Database,
        dump_format: DumpFormat::Custom,
        with_create: false,
        as_file: false,
        pg_major: 15,
        server_version: "15.1".to_owned(),
        dump_version: "15.1".to_owned(),
        started_at,
        finished_at: Timestamp::UNIX_EPOCH,
        date: day,
        data_bytes: 0,
        stored_bytes: 0,
        definition: None,
        arguments: Vec::new(),
        warnings: Vec::new(),
        labels: Default::default(),
        created_by: "test".to_owned(),
    };
    Dump { id, facts, pinned: false }
}

fn expired(dumps: &mut Vec<Dump>, rules: &DumpRules) -> Vec<u64> {
    let decided = decide(&dumps.iter().collect::<Vec<_>>(), rules);
    let gone: BTreeSet<_> = decided.expire.into_iter().collect();
    let numbers = dumps.iter().filter(|dump| gone.contains(&dump.id)).map(|dump| dump.facts.number).collect();
    dumps.retain(|dump| !gone.contains(&dump.id));
    numbers
}

/// What is left when every night's dump is followed by retention.
fn after(nights: impl Iterator<Item = Date>, rules: &DumpRules) -> Vec<Date> {
    let mut dumps = Vec::new();
    for (number, day) in nights.enumerate() {
        dumps.push(dump(number as u64, day));
        expired(&mut dumps, rules);
    }
    dumps.iter().map(|dump| dump.facts.date).collect()
}

fn days(from: Date, count: i64) -> impl Iterator<Item = Date> {
    (0..count).map(move |day| from.checked_add(day.days()).unwrap())
}

fn counts(daily: u32, weekly: u32, monthly: u32) -> DumpRules {
    let count = |count| Some(Keep::Count(count));
    DumpRules { daily: count(daily), weekly: count(weekly), monthly: count(monthly), ..DumpRules::default() }
}

#[test]
fn a_year_of_nights_leaves_days_saturdays_and_firsts_of_months() {
    let left = after(days(date(2026, 1, 1), 400), &counts(14, 5, 12));
    let newest = date(2026, 1, 1).checked_add(399.days()).unwrap();
    for day in (0..14).map(|back| newest.checked_sub(i64::from(back).days()).unwrap()) {
        assert!(left.contains(&day), "{day}");
    }
    let saturdays: Vec<_> =
        left.iter().filter(|day| day.weekday() == jiff::civil::Weekday::Saturday).collect();
    assert!(saturdays.len() >= 5, "{saturdays:?}");
    let firsts = left.iter().filter(|day| day.day() == 1).count();
    assert_eq!(firsts, 12, "{left:?}");
    assert!(left.len() <= 14 + 5 + 12, "{}", left.len());
}

#[test]
fn nights_that_were_missed_are_made_up_for_by_the_next() {
    let is_there = |day: &Date| day.weekday() != jiff::civil::Weekday::Saturday && day.day() != 1;
    let left = after(days(date(2026, 1, 1), 200).filter(is_there), &counts(1, 3, 3));
    let sundays = left.iter().filter(|day| day.weekday() == jiff::civil::Weekday::Sunday).count();
    assert!(sundays >= 3, "{left:?}");
    assert!(left.iter().filter(|day| day.day() == 2).count() >= 2, "{left:?}");
}

#[test]
fn the_days_that_weeks_and_months_begin_with_are_settable() {
    let rules = DumpRules { weekday: 3, monthday: 31, ..counts(1, 2, 4) };
    let left = after(days(date(2027, 1, 1), 130), &rules);
    for day in [date(2027, 1, 31), date(2027, 2, 28), date(2027, 3, 31), date(2027, 4, 30)] {
        assert!(left.contains(&day), "{day}: {left:?}");
    }
    assert!(
        left.iter().filter(|day| day.weekday() == jiff::civil::Weekday::Wednesday).count() >= 2,
        "{left:?}"
    );
}

#[test]
fn week_53_and_new_year_are_no_end() {
    let rules = DumpRules { weekday: 1, ..counts(1, 3, 0) };
    let left = after(days(date(2026, 12, 1), 40), &rules);
    for day in [date(2026, 12, 28), date(2027, 1, 4)] {
        assert!(left.contains(&day), "{day}: {left:?}");
    }
}

#[test]
fn of_several_runs_a_day_the_newest_counts_for_it() {
    let nights = days(date(2026, 3, 1), 10).flat_map(|day| [day; 4]);
    let mut dumps: Vec<Dump> = nights.enumerate().map(|(number, day)| dump(number as u64, day)).collect();
    let rules = DumpRules { daily: Some(Keep::Count(3)), ..DumpRules::default() };
    expired(&mut dumps, &rules);
    let left: Vec<u64> = dumps.iter().map(|dump| dump.facts.number).collect();
    assert_eq!(left, [31, 35, 39]);
}

#[test]
fn ages_are_measured_from_the_newest_dump_and_not_from_now() {
    let age = |days: u64| Some(Keep::Age(Duration::from_secs(days * 24 * 3600)));
    let rules = DumpRules { daily: age(6), weekly: age(28), monthly: age(95), ..DumpRules::default() };
    let left = after(days(date(2020, 1, 1), 300), &rules);
    let newest = date(2020, 1, 1).checked_add(299.days()).unwrap();
    let age_of = |day: &Date| (newest - *day).get_days();
    assert!(left.iter().filter(|day| age_of(day) <= 6).count() == 7, "{left:?}");
    assert!(left.iter().all(|day| age_of(day) <= 95), "{left:?}");
    assert!(left.iter().filter(|day| age_of(day) > 28).all(|day| day.day() == 1), "{left:?}");
}

#[test]
fn one_leap_of_the_clock_takes_nothing() {
    let age = Some(Keep::Age(Duration::from_secs(10 * 24 * 3600)));
    let rules = DumpRules { daily: age, ..DumpRules::default() };
    let mut nights: Vec<Date> = days(date(2026, 5, 1), 8).collect();
    nights.push(date(2037, 1, 1));
    nights.extend(days(date(2026, 5, 9), 3));
    assert_eq!(after(nights.into_iter(), &rules).len(), 12);
}

#[test]
fn pinned_dumps_stay_and_slots_are_told() {
    let mut dumps: Vec<Dump> =
        days(date(2026, 8, 1), 20).enumerate().map(|(n, day)| dump(n as u64, day)).collect();
    dumps[3].pinned = true;
    let rules = DumpRules { last: Some(Keep::Count(2)), ..DumpRules::default() };
    let told = slots(&dumps.iter().collect::<Vec<_>>(), &rules);
    assert_eq!(
        told[&dumps[0].id].iter().copied().collect::<Vec<_>>(),
        ["daily", "monthly", "weekly", "yearly"]
    );
    assert_eq!(told[&dumps[19].id].iter().copied().collect::<Vec<_>>(), ["daily", "latest"]);
    expired(&mut dumps, &rules);
    assert_eq!(dumps.iter().map(|dump| dump.facts.number).collect::<Vec<_>>(), [3, 18, 19]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// 400 nights: some fail, and every clock may be wrong. Failed nights change nothing; of the good ones as many stay as
    /// the largest count asks for, among them the newest, and never more than all rules ask for.
    #[test]
    fn random_nights_with_random_clocks_never_take_too_much(
        nights in prop::collection::vec((prop::bool::weighted(0.6), prop_oneof![8 => Just(None), 1 => (-20_000i64..20_000).prop_map(Some)]), 400),
        daily in 0u32..6, weekly in 0u32..5, monthly in 0u32..4, last in 1u32..4,
        weekday in 1i8..=7, monthday in 1i8..=31,
    ) {
        let rules = DumpRules {
            last: Some(Keep::Count(last)), weekday, monthday, ..counts(daily, weekly, monthly)
        };
        let (mut dumps, mut good) = (Vec::new(), 0usize);
        for (night, (succeeds, clock)) in nights.into_iter().enumerate() {
            if !succeeds {
                continue;
            }
            let day = date(2026, 1, 1).checked_add((night as i64 + clock.unwrap_or(0)).days()).unwrap();
            dumps.push(dump(night as u64, day));
            good += 1;
            let gone = expired(&mut dumps, &rules);
            let most = daily.max(weekly).max(monthly).max(last) as usize;
            prop_assert!(dumps.len() >= good.min(most), "{} of {good} good ones are left", dumps.len());
            prop_assert!(dumps.len() <= (daily + weekly + monthly + last) as usize + 1);
            prop_assert!(!gone.contains(&(night as u64)), "the newest went");
            // The newest ones in a row, whatever their clocks said.
            let kept: BTreeSet<u64> = dumps.iter().map(|dump| dump.facts.number).collect();
            prop_assert!(gone.iter().all(|old| kept.iter().filter(|number| *number > old).count() >= last as usize));
        }
    }
}
