//! Which backups and which WAL the rules keep. Pure.
//!
//! Time is measured back from the newest backup, not from now: where backups have stopped, or a clock is wrong, nothing ages.

pub mod dumps;
pub mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::archive::{Backup, BackupId, Inventory};
use crate::error::{Error, Result};
use crate::wal::{SegmentSize, TimelineHistory, TimelineId, last_segno_before};

/// What is to be kept. A backup stays as long as one of the rules wants it; with no rule for backups all of them do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Any moment of so long a time can be restored.
    pub window: Option<Duration>,
    /// So many newest backups.
    pub last: Option<u32>,
    /// The newest backup of each of so many days that have one, in UTC.
    pub daily: Option<u32>,
    /// Of so many ISO weeks.
    pub weekly: Option<u32>,
    /// Of so many months.
    pub monthly: Option<u32>,
    /// Of so many years.
    pub yearly: Option<u32>,
    /// WAL without a gap is kept for so long; what older backups need to become consistent stays with them. Without it,
    /// WAL is kept from the oldest backup on that is not kept by a pin alone.
    pub wal_window: Option<Duration>,
}

const PINNED: &str = "pinned";
const WINDOW: &str = "window";
const LAST: &str = "last";
const DAILY: &str = "daily";
const WEEKLY: &str = "weekly";
const MONTHLY: &str = "monthly";
const YEARLY: &str = "yearly";
const ALL: &str = "no rule";
const NEWER: &str = "newer than all that can be restored";

/// The backups that stay, with the rules that want them.
pub type Keep = BTreeMap<BackupId, BTreeSet<&'static str>>;

/// What retention decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Backups that stay, and why.
    pub keep: Keep,
    /// Backups that go, oldest first.
    pub expire: Vec<BackupId>,
    /// The WAL that stays.
    pub wal: WalNeed,
    /// Why nothing goes, where that is so.
    pub notes: Vec<String>,
}

/// Which segments somebody needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalNeed {
    /// From this segment on, all of a timeline; timelines that are not named stay whole.
    from: BTreeMap<TimelineId, u64>,
    /// What single backups need: first and last segment, on each timeline of their past.
    ranges: Vec<(BTreeSet<TimelineId>, u64, u64)>,
}

impl WalNeed {
    /// Whether a segment stays.
    pub fn has(&self, timeline: TimelineId, segno: u64) -> bool {
        self.from.get(&timeline).is_none_or(|from| segno >= *from)
            || self
                .ranges
                .iter()
                .any(|(line, first, last)| line.contains(&timeline) && (*first..=*last).contains(&segno))
    }
}

impl Rules {
    fn of_backups(&self) -> [Option<u32>; 5] {
        [self.last, self.daily, self.weekly, self.monthly, self.yearly]
    }

    fn keeps_all_backups(&self) -> bool {
        self.window.is_none() && self.of_backups().iter().all(Option::is_none)
    }

    /// Whether nothing ever goes.
    pub fn keeps_all(&self) -> bool {
        self.keeps_all_backups() && self.wal_window.is_none()
    }

    /// Refuses rules that would keep no backup at all.
    pub fn check(&self) -> Result<()> {
        let none = self.window.is_none() && self.of_backups().iter().all(|count| count.unwrap_or(0) == 0);
        if none && !self.keeps_all_backups() {
            return Err(Error::usage("the rules of retention would keep no backup at all")
                .hint("set backup.window, or one of backup.keep_last, _daily, _weekly, _monthly, _yearly to one at least"));
        }
        Ok(())
    }

    /// Adds what the rules want of `backups`, which are sorted by their ends, newest first.
    fn choose(&self, backups: &[&Backup], reference: Timestamp, keep: &mut Keep) {
        let mut add = |backup: &Backup, why| {
            keep.entry(backup.id.clone()).or_default().insert(why);
        };
        if let Some(window) = self.window {
            reaching_back(backups, reference, window).for_each(|backup| add(backup, WINDOW));
        }
        backups.iter().take(self.last.unwrap_or(0) as usize).for_each(|backup| add(backup, LAST));
        let mut each = |count: Option<u32>, why, period: &dyn Fn(Date) -> (i16, i8)| {
            let mut seen = BTreeSet::new();
            for backup in backups {
                if seen.len() == count.unwrap_or(0) as usize {
                    break;
                }
                if seen.insert(period(day(backup))) {
                    add(backup, why);
                }
            }
        };
        each(self.weekly, WEEKLY, &|day| (day.iso_week_date().year(), day.iso_week_date().week()));
        each(self.monthly, MONTHLY, &|day| (day.year(), day.month()));
        each(self.yearly, YEARLY, &|day| (day.year(), 0));
        let mut days = BTreeSet::new();
        for backup in backups {
            if days.len() < self.daily.unwrap_or(0) as usize && days.insert(day(backup)) {
                add(backup, DAILY);
            }
        }
    }
}

fn day(backup: &Backup) -> Date {
    backup.facts.finished_at.to_zoned(TimeZone::UTC).date()
}

/// The backups that ended within `window` before `reference`, and the newest one before: with it the window begins.
fn reaching_back<'a>(
    newest_first: &'a [&'a Backup],
    reference: Timestamp,
    window: Duration,
) -> impl Iterator<Item = &'a Backup> {
    let begin = reference.checked_sub(window).unwrap_or(Timestamp::MIN);
    let within = newest_first.iter().take_while(move |backup| backup.facts.finished_at > begin).count();
    newest_first.iter().take(within + 1).copied()
}

/// The line of a timeline, and the backups on it, newest first.
fn on_line<'a>(line: &TimelineHistory, newest_first: &[&'a Backup]) -> Vec<&'a Backup> {
    let is_on = |backup: &&&Backup| {
        TimelineId::new(backup.facts.timeline)
            .is_ok_and(|own| line.is_ancestor_position(own, backup.facts.stop_lsn))
    };
    newest_first.iter().filter(is_on).copied().collect()
}

/// Decides what stays. Backups that cannot be restored, as their WAL is gone, count for no rule; they go when they
/// are older than one that stays. Where the manifest of a backup or the history of a timeline is damaged, no WAL goes.
pub fn decide(inventory: &Inventory, rules: &Rules, now: Timestamp) -> Result<Retention> {
    rules.check()?;
    let (mut sound, broken): (Vec<&Backup>, Vec<&Backup>) =
        inventory.backups.iter().partition(|backup| inventory.is_restorable(backup));
    sound.sort_by_key(|backup| std::cmp::Reverse(backup.facts.finished_at));
    let mut decided = Retention::default();
    let Some(newest) = sound.first() else {
        decided.notes.push("no backup can be restored: nothing goes".to_owned());
        decided.keep = inventory.backups.iter().map(|backup| (backup.id.clone(), [ALL].into())).collect();
        return Ok(decided);
    };
    let reference = now.min(newest.facts.finished_at);
    let live = inventory.line(newest_timeline(inventory));
    if rules.keeps_all_backups() {
        decided.keep = sound.iter().map(|backup| (backup.id.clone(), [ALL].into())).collect();
    } else {
        rules.choose(&sound, reference, &mut decided.keep);
        // An abandoned branch with newer backups must not take the place of what the cluster's own line needs.
        rules.choose(&on_line(&live, &sound), reference, &mut decided.keep);
    }
    let oldest = sound.iter().filter(|backup| decided.keep.contains_key(&backup.id));
    let oldest = oldest.map(|backup| backup.facts.finished_at).min().unwrap_or(Timestamp::MIN);
    for backup in
        broken.iter().filter(|backup| rules.keeps_all_backups() || backup.facts.finished_at > oldest)
    {
        decided.keep.entry(backup.id.clone()).or_default().insert(NEWER);
    }
    for backup in inventory.backups.iter().filter(|backup| backup.pinned) {
        decided.keep.entry(backup.id.clone()).or_default().insert(PINNED);
    }
    let goes = |backup: &&Backup| !decided.keep.contains_key(&backup.id);
    decided.expire = inventory.backups.iter().filter(goes).map(|backup| backup.id.clone()).collect();
    match unknown(inventory) {
        Some(note) => decided.notes.push(note),
        None => decided.wal = wal(inventory, rules, reference, &sound, &live, &decided.keep)?,
    }
    Ok(decided)
}

/// Why it cannot be told which WAL is needed.
fn unknown(inventory: &Inventory) -> Option<String> {
    let damaged = inventory.damaged.keys().next().map(|id| format!("the manifest of backup {id}"));
    let history = inventory.damaged_histories.keys().next();
    let history = history.map(|timeline| format!("the history of timeline {timeline}"));
    let lost = inventory.segments.keys().find(|timeline| !inventory.histories.contains_key(timeline));
    let lost = lost.map(|timeline| format!("the history of timeline {timeline}, which is missing,"));
    let what = damaged.or(history).or(lost)?;
    Some(format!("no WAL goes: what is needed of it, {what} does not tell"))
}

fn newest_timeline(inventory: &Inventory) -> TimelineId {
    let of_segments = inventory.segments.keys().max();
    let newest = of_segments.max(inventory.histories.keys().max());
    newest.copied().unwrap_or(TimelineId::FIRST)
}

fn wal(
    inventory: &Inventory,
    rules: &Rules,
    reference: Timestamp,
    sound: &[&Backup],
    live: &TimelineHistory,
    keep: &Keep,
) -> Result<WalNeed> {
    let mut need = WalNeed::default();
    for backup in inventory.backups.iter().filter(|backup| keep.contains_key(&backup.id)) {
        let (own, size) =
            (TimelineId::new(backup.facts.timeline)?, SegmentSize::new(backup.facts.segment_size)?);
        let line = inventory.line(own);
        let timelines = line.newest_first().map(|(timeline, _)| timeline).collect();
        let last = last_segno_before(backup.facts.stop_lsn, size);
        need.ranges.push((timelines, backup.facts.start_lsn.segno(size), last));
    }
    // A pin keeps its backup and no history behind it.
    let wanted =
        |backup: &&&Backup| keep.get(&backup.id).is_some_and(|why| why.iter().any(|why| *why != PINNED));
    let wanted: Vec<&Backup> = sound.iter().filter(wanted).copied().collect();
    let begin = |line: &TimelineHistory| -> Result<Option<u64>> {
        let on_line = on_line(line, &wanted);
        let from: Vec<&Backup> = match rules.wal_window {
            Some(window) => reaching_back(&on_line, reference, window).collect(),
            None => on_line.clone(),
        };
        let starts = from.iter().map(|backup| {
            SegmentSize::new(backup.facts.segment_size).map(|size| backup.facts.start_lsn.segno(size))
        });
        Ok(starts.collect::<Result<Vec<_>>>()?.into_iter().min())
    };
    for timeline in inventory.segments.keys() {
        let lines = inventory.segments.keys().map(|other| inventory.line(*other));
        let through = lines.filter(|line| line.contains(*timeline));
        let begins: Vec<Option<u64>> = through.map(|line| begin(&line)).collect::<Result<_>>()?;
        // The cluster's own line without a backup on it, as after a promotion from an older one, is left alone.
        let lonely = live.contains(*timeline) && begin(live)?.is_none();
        if !lonely {
            // No backup leads to an abandoned branch any more.
            need.from.insert(*timeline, begins.into_iter().flatten().min().unwrap_or(u64::MAX));
        }
    }
    Ok(need)
}
