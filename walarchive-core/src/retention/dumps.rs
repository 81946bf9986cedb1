//! Which dumps the rules keep, of one database at a time. Pure.
//!
//! Dumps are ordered by their numbers, which no clock disturbs; days only sort them into slots. Nothing ages by itself: a
//! dump goes only because newer ones have taken its place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, ToSpan};

use crate::archive::{BackupId, Dump, DumpContent};
use crate::error::{Error, Result};

/// How many of a slot are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many newest ones.
    Count(u32),
    /// Those of so long a time before the newest dump.
    Age(Duration),
}

/// What is to be kept of each database's dumps. A dump stays as long as one of the rules wants it; with no rule all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpRules {
    /// The newest dumps.
    pub last: Option<Keep>,
    /// The newest dump of each day that has one.
    pub daily: Option<Keep>,
    /// The first dump of each week that has one.
    pub weekly: Option<Keep>,
    /// The first dump of each month that has one.
    pub monthly: Option<Keep>,
    /// The first dump of each year that has one.
    pub yearly: Option<Keep>,
    /// The day that weeks begin with, 1 for Monday to 7.
    pub weekday: i8,
    /// The day that months begin with; the last one of a month that is shorter.
    pub monthday: i8,
}

impl Default for DumpRules {
    fn default() -> DumpRules {
        DumpRules {
            last: None,
            daily: None,
            weekly: None,
            monthly: None,
            yearly: None,
            weekday: 6,
            monthday: 1,
        }
    }
}

/// The slot of the newest dump of a database.
pub const LATEST: &str = "latest";
const LAST: &str = "last";
const DAILY: &str = "daily";
const WEEKLY: &str = "weekly";
const MONTHLY: &str = "monthly";
const YEARLY: &str = "yearly";
const PINNED: &str = "pinned";
const FEW: &str = "too few others";
const ALL: &str = "no rule";

/// When the newest dump is of a day so much later than the one before, its clock is not believed yet.
const LEAP: SignedDuration = SignedDuration::from_hours(31 * 24);

/// Why dumps stay, by their ids.
pub type Reasons = BTreeMap<BackupId, BTreeSet<&'static str>>;

/// What becomes of one database's dumps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpRetention {
    /// Dumps that stay, and why.
    pub keep: Reasons,
    /// Dumps that go, oldest first.
    pub expire: Vec<BackupId>,
}

impl DumpRules {
    /// Whether nothing ever goes.
    pub fn keeps_all(&self) -> bool {
        self.rules().iter().all(|(_, rule)| rule.is_none())
    }

    /// Refuses rules that make no sense.
    pub fn check(&self) -> Result<()> {
        if !(1..=7).contains(&self.weekday) || !(1..=31).contains(&self.monthday) {
            return Err(Error::usage(
                "dump.weekday is a day's English name, or 1 (Monday) to 7; dump.monthday is 1 to 31",
            ));
        }
        let nothing = |rule: &Option<Keep>| matches!(rule, Some(Keep::Count(0)) | None);
        if !self.keeps_all() && self.rules().iter().all(|(_, rule)| nothing(rule)) {
            return Err(Error::usage("the rules of retention would keep no dump at all")
                .hint("set one of dump.keep_last, _daily, _weekly, _monthly, _yearly to one at least"));
        }
        Ok(())
    }

    fn rules(&self) -> [(&'static str, Option<Keep>); 5] {
        [
            (LAST, self.last),
            (DAILY, self.daily),
            (WEEKLY, self.weekly),
            (MONTHLY, self.monthly),
            (YEARLY, self.yearly),
        ]
    }

    /// The first day of the week that a day is in.
    fn week(&self, day: Date) -> Date {
        let since = i64::from((day.weekday().to_monday_one_offset() - self.weekday).rem_euclid(7));
        day.checked_sub(since.days()).unwrap_or(day)
    }

    /// The month that a day counts for.
    fn month(&self, day: Date) -> (i16, i8) {
        let begins = self.monthday.min(day.days_in_month());
        let counted = if day.day() >= begins { day } else { day.first_of_month().yesterday().unwrap_or(day) };
        (counted.year(), counted.month())
    }

    /// The dumps that fill a slot, newest first.
    fn fill<'a>(&self, slot: &str, newest_first: &[&'a Dump]) -> Vec<&'a Dump> {
        match slot {
            DAILY => first_of_each(newest_first.iter().copied(), |day| day),
            WEEKLY => newest(first_of_each(newest_first.iter().rev().copied(), |day| self.week(day))),
            MONTHLY => newest(first_of_each(newest_first.iter().rev().copied(), |day| self.month(day))),
            YEARLY => newest(first_of_each(newest_first.iter().rev().copied(), |day| self.month(day).0)),
            _ => newest_first.to_vec(),
        }
    }
}

/// The first of those that share a period.
fn first_of_each<'a, P: Ord>(
    dumps: impl Iterator<Item = &'a Dump>,
    period: impl Fn(Date) -> P,
) -> Vec<&'a Dump> {
    let mut seen = BTreeSet::new();
    dumps.filter(|dump| seen.insert(period(dump.facts.date))).collect()
}

fn newest(mut oldest_first: Vec<&Dump>) -> Vec<&Dump> {
    oldest_first.reverse();
    oldest_first
}

/// The dumps by what they are of, each oldest first; those that leave something out are apart, so that none of them takes the
/// place of a whole one.
pub fn by_content(dumps: &[Dump]) -> BTreeMap<(DumpContent, &str, bool), Vec<&Dump>> {
    let mut all: BTreeMap<_, Vec<&Dump>> = BTreeMap::new();
    for dump in dumps {
        let facts = &dump.facts;
        all.entry((facts.content, facts.database.as_str(), facts.is_partial())).or_default().push(dump);
    }
    for same in all.values_mut() {
        same.sort_by(|a, b| (a.facts.number, &a.id).cmp(&(b.facts.number, &b.id)));
    }
    all
}

fn newest_first<'a>(of_one: &[&'a Dump]) -> Vec<&'a Dump> {
    let mut dumps = of_one.to_vec();
    dumps.sort_by(|a, b| (b.facts.number, &b.id).cmp(&(a.facts.number, &a.id)));
    dumps
}

/// The slots that each dump of one database fills, whatever is kept: `latest`, `daily`, `weekly`, `monthly`, `yearly`. One
/// that leaves something out fills none.
pub fn slots(of_one: &[&Dump], rules: &DumpRules) -> Reasons {
    let mut dumps = newest_first(of_one);
    dumps.retain(|dump| !dump.facts.is_partial());
    let mut slots = Reasons::new();
    if let Some(latest) = dumps.first() {
        slots.entry(latest.id.clone()).or_default().insert(LATEST);
    }
    for slot in [DAILY, WEEKLY, MONTHLY, YEARLY] {
        for dump in rules.fill(slot, &dumps) {
            slots.entry(dump.id.clone()).or_default().insert(slot);
        }
    }
    slots
}

/// Decides what stays of one database's dumps. The newest one always stays, and as many as the largest count asks for, even
/// where clocks have put them all on one day.
pub fn decide(of_one: &[&Dump], rules: &DumpRules) -> DumpRetention {
    let dumps = newest_first(of_one);
    let mut keep = Reasons::new();
    let mut add = |dump: &Dump, why| {
        keep.entry(dump.id.clone()).or_default().insert(why);
    };
    let Some(latest) = dumps.first() else { return DumpRetention::default() };
    add(latest, LATEST);
    if rules.keeps_all() {
        dumps.iter().for_each(|dump| add(dump, ALL));
    }
    let mut most = 1;
    for (slot, rule) in rules.rules() {
        let filled = rules.fill(slot, &dumps);
        match rule {
            None => {}
            Some(Keep::Count(count)) => {
                most = most.max(count as usize);
                filled.into_iter().take(count as usize).for_each(|dump| add(dump, slot));
            }
            Some(Keep::Age(age)) => {
                let since = reference(&dumps).checked_sub(age).unwrap_or(Date::MIN);
                filled.into_iter().filter(|dump| dump.facts.date >= since).for_each(|dump| add(dump, slot));
            }
        }
    }
    for dump in &dumps {
        if keep.len() >= most {
            break;
        }
        keep.entry(dump.id.clone()).or_default().insert(FEW);
    }
    for dump in dumps.iter().filter(|dump| dump.pinned) {
        keep.entry(dump.id.clone()).or_default().insert(PINNED);
    }
    let goes = dumps.iter().rev().filter(|dump| !keep.contains_key(&dump.id));
    DumpRetention { expire: goes.map(|dump| dump.id.clone()).collect(), keep }
}

/// The day that ages are measured from: that of the newest dump, or of the one before where the clock has leapt ahead.
fn reference(newest_first: &[&Dump]) -> Date {
    let date = |place: usize| newest_first.get(place).map(|dump: &&Dump| dump.facts.date);
    let newest = date(0).unwrap_or(Date::MIN);
    match date(1) {
        Some(before) if before.checked_add(LEAP).is_ok_and(|limit| newest > limit) => before,
        _ => newest,
    }
}
