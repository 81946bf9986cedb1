//! How fast WAL is written and archived: pure arithmetic on the times of files.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The longest stretch that is measured.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);
/// What is measured over less says nothing.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);
/// A file that waits for so long shows that the archiver has been busy all the time.
pub(super) const BUSY: Duration = Duration::from_secs(10);

/// How fast WAL comes and goes: whole segments, over stretches of time that end with the look at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Segments that were completed.
    pub written: u64,
    /// In what time.
    pub written_over: Duration,
    /// Segments that were archived.
    pub archived: u64,
    /// In what time: that since the last checkpoint may be short.
    pub archived_over: Duration,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

impl Pace {
    /// Bytes a second of WAL that was completed.
    pub fn written_per_second(&self) -> f64 {
        self.per_second(self.written, self.written_over)
    }

    /// Bytes a second of WAL that was archived. Where WAL has been waiting all the time, the archiver cannot do more.
    pub fn archived_per_second(&self) -> f64 {
        self.per_second(self.archived, self.archived_over)
    }

    fn per_second(&self, segments: u64, over: Duration) -> f64 {
        let seconds = over.as_secs_f64();
        if seconds > 0.0 { segments as f64 * self.segment_bytes as f64 / seconds } else { 0.0 }
    }

    /// Whether WAL is written faster than it is archived. One segment is no difference: a stretch begins and ends somewhere in one.
    pub fn falls_behind(&self) -> bool {
        let archived = self.archived.saturating_add(1) as f64;
        self.written as f64 * self.archived_over.as_secs_f64() > archived * self.written_over.as_secs_f64()
    }

    /// How long it takes at this pace until so many bytes wait no more; `None`: they never will.
    pub fn catches_up(&self, bytes: u64) -> Option<Duration> {
        if bytes == 0 {
            return Some(Duration::ZERO);
        }
        let gain = self.archived_per_second() - self.written_per_second();
        let seconds = (gain > 0.0).then(|| bytes as f64 / gain)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Where a stretch begins: at most five minutes ago, not before `seen`, from which on everything can be seen, and when a file has been
/// waiting for long, since it does: so a queue that is worked off is not taken for one that grows, however idle the archiver was
/// before. With it, how long the stretch is. `None` when too little can be seen.
pub(super) fn begin(
    now: Timestamp,
    seen: Option<Timestamp>,
    waits: Option<Timestamp>,
) -> Option<(Timestamp, Duration)> {
    let busy = waits.filter(|since| now.duration_since(*since).unsigned_abs() >= BUSY && *since < now);
    let begin = [now.checked_sub(LONGEST).ok(), busy].into_iter().flatten().fold(seen?, Timestamp::max);
    let over = now.duration_since(begin);
    (over >= SHORTEST).then(|| (begin, over.unsigned_abs()))
}

/// How many of the names, whose times ascend, have one after `begin`. Looks at few of them. What has vanished was the
/// oldest: it was archived, or removed.
pub(super) fn after<N>(names: &[N], begin: Timestamp, time: impl Fn(&N) -> Option<Timestamp>) -> u64 {
    let before = names.partition_point(|name| time(name).is_none_or(|time| time <= begin));
    names.len().saturating_sub(before) as u64
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn pace(written: u64, archived: u64) -> Pace {
        let over = Duration::from_secs(10);
        Pace { written, written_over: over, archived, archived_over: over, segment_bytes: 1000 }
    }

    #[test]
    fn rates_and_the_time_to_catch_up_are_told() {
        assert_eq!((pace(5, 20).written_per_second(), pace(5, 20).archived_per_second()), (500.0, 2000.0));
        assert_eq!(pace(5, 20).catches_up(3000), Some(Duration::from_secs(2)));
        assert_eq!([pace(5, 5).catches_up(1), pace(6, 5).catches_up(1)], [None, None], "never");
        assert_eq!(pace(9, 0).catches_up(0), Some(Duration::ZERO));
        let nothing = Pace { archived_over: Duration::ZERO, ..pace(0, 2) };
        assert_eq!((nothing.archived_per_second(), nothing.catches_up(1)), (0.0, None));
        let huge = Pace { segment_bytes: 1, archived_over: Duration::MAX, ..pace(0, 1) };
        assert_eq!(huge.catches_up(u64::MAX), None, "longer than time can be told");
    }

    #[test]
    fn one_segment_is_no_deficit() {
        let behind = |written, archived| pace(written, archived).falls_behind();
        assert_eq!([behind(3, 3), behind(3, 2), behind(3, 1), behind(0, 3)], [false, false, true, false]);
        assert!(!behind(u64::MAX, u64::MAX));
        let short = |seconds| Pace { archived_over: Duration::from_secs(seconds), ..pace(20, 2) };
        assert_eq!(
            [short(1).falls_behind(), short(2).falls_behind()],
            [false, true],
            "three in two seconds are less"
        );
    }

    #[test]
    fn the_stretch_is_what_can_be_seen() {
        let begins = |seen: Option<i64>, waits: Option<i64>| {
            let (begin, over) = begin(at(1000), seen.map(at), waits.map(at))?;
            assert_eq!(at(1000).duration_since(begin).unsigned_abs(), over);
            Some(begin)
        };
        assert_eq!(begins(Some(0), None), Some(at(700)), "five minutes at most");
        assert_eq!(begins(Some(900), None), Some(at(900)), "not further than can be seen");
        assert_eq!((begins(Some(999), None), begins(Some(1000), None)), (Some(at(999)), None), "too short");
        assert_eq!(begins(None, None), None);
        assert_eq!(begins(Some(800), Some(950)), Some(at(950)), "since the oldest waits");
        assert_eq!(begins(Some(800), Some(750)), Some(at(800)));
        assert_eq!(begins(Some(800), Some(995)), Some(at(800)), "it has only just come");
        assert_eq!(
            (begins(Some(2000), None), begins(Some(800), Some(2000))),
            (None, Some(at(800))),
            "a clock went wrong"
        );
        assert_eq!(begin(Timestamp::MIN, Some(Timestamp::MAX), Some(Timestamp::MAX)), None);
    }

    /// An archiver that takes one after the other; the times at which each segment was complete, and at which it was archived.
    fn queue(gaps: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let (mut ready, mut free) = (0, 0);
        let times = gaps.iter().map(|(gap, takes)| {
            ready += gap;
            free = free.max(ready) + takes;
            (ready, free)
        });
        times.collect()
    }

    proptest! {
        #[test]
        fn what_is_counted_is_how_the_backlog_grew(
            gaps in prop::collection::vec((0_i64..20, 1_i64..20), 0..60),
            now in 0_i64..1000,
            removed in 0_usize..60,
            stretch in 0_i64..400,
        ) {
            let queue: Vec<_> = queue(&gaps).into_iter().filter(|(ready, _)| *ready <= now).collect();
            let waits = |when: i64| queue.iter().filter(|(ready, done)| *ready <= when && *done > when).count() as u64;
            let (done, waiting): (Vec<_>, Vec<_>) = queue.iter().partition(|(_, done)| *done <= now);
            // A checkpoint removes the oldest that are archived.
            let done = done.get(removed.min(done.len())..).unwrap_or_default();
            let Some((_, seen)) = done.first() else { return Ok(()) };
            let begin = now.saturating_sub(stretch).max(*seen);
            let ready = |(ready, _): &(i64, i64)| Some(at(*ready));
            let written = after(&waiting, at(begin), ready) + after(done, at(begin), ready);
            let archived = after(done, at(begin), |(_, done)| Some(at(*done)));
            prop_assert_eq!(waits(begin) + written, waits(now) + archived);
        }

        #[test]
        fn few_times_are_looked_at(times in prop::collection::vec(0_i64..1000, 0..500), gone in 0_usize..500, begin in 0_i64..1000) {
            let mut times = times;
            times.sort_unstable();
            let names: Vec<usize> = (0..times.len()).collect();
            let looks = Cell::new(0_u32);
            let counted = after(&names, at(begin), |name| {
                looks.set(looks.get() + 1);
                (*name >= gone).then(|| at(times[*name]))
            });
            let expected = names.iter().filter(|name| **name >= gone && times[**name] > begin).count();
            prop_assert_eq!(counted, expected as u64);
            prop_assert!(looks.get() <= 10, "{} looks", looks.get());
        }
    }
}
