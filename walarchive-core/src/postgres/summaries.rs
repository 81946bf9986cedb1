//! The summaries of the WAL that PostgreSQL 17 and later keep: which there are, which are needed, what they say.

use postgres::fallible_iterator::FallibleIterator;

use super::changes::{Changes, Relation};
use super::session::{BackupSession, failed, lsn};
use crate::error::{Error, Result};
use crate::wal::{Lsn, TimelineHistory, TimelineId};

/// A summary: what the WAL of a timeline has changed from one position to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The timeline.
    pub timeline: u32,
    /// Where it begins.
    pub start: Lsn,
    /// One past its last byte.
    pub end: Lsn,
}

/// The first position that no summary covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncovered {
    /// The timeline.
    pub timeline: TimelineId,
    /// The position.
    pub lsn: Lsn,
}

/// The summaries that together tell all that a line of timelines has changed from `from`, on the timeline `own`, to `to`.
///
/// # Errors
/// The oldest position of which no summary tells.
pub fn covering(
    all: &[Summary],
    history: &TimelineHistory,
    own: TimelineId,
    from: Lsn,
    to: Lsn,
) -> std::result::Result<Vec<Summary>, Uncovered> {
    let mut line: Vec<(TimelineId, Lsn)> =
        history.newest_first().filter(|(timeline, _)| *timeline >= own).collect();
    line.reverse();
    let mut needed = Vec::new();
    for (timeline, begin) in line {
        let end = history.end_of(timeline).map_or(to, |end| end.min(to));
        let mut own: Vec<Summary> =
            all.iter().filter(|summary| summary.timeline == timeline.get()).copied().collect();
        own.sort_by_key(|summary| summary.start);
        let mut lsn = from.max(begin);
        for summary in own.into_iter().filter(|summary| summary.end > from.max(begin)) {
            if lsn >= end || summary.start > lsn {
                break;
            }
            lsn = lsn.max(summary.end);
            needed.push(summary);
        }
        if lsn < end {
            return Err(Uncovered { timeline, lsn });
        }
    }
    Ok(needed)
}

impl BackupSession {
    /// The summaries that the server has.
    pub fn summaries(&mut self) -> Result<Vec<Summary>> {
        let rows = self
            .client
            .get()?
            .query("SELECT tli, start_lsn::text, end_lsn::text FROM pg_available_wal_summaries()", &[])
            .map_err(|error| failed("listing WAL summaries", error))?;
        let summary = |row: &postgres::Row| {
            let timeline: i64 = row.get(0);
            Ok(Summary {
                timeline: u32::try_from(timeline).map_err(|error| impossible().because(error))?,
                start: lsn(row.get(1))?,
                end: lsn(row.get(2))?,
            })
        };
        rows.iter().map(summary).collect()
    }

    /// How far the server has come with summarizing: what is written, and what it has read for the next one.
    pub fn summarized(&mut self) -> Result<(Lsn, Lsn)> {
        let row = self
            .client
            .get()?
            .query_one(
                "SELECT summarized_lsn::text, pending_lsn::text FROM pg_get_wal_summarizer_state()",
                &[],
            )
            .map_err(|error| failed("asking how far WAL is summarized", error))?;
        Ok((lsn(row.get(0))?, lsn(row.get(1))?))
    }

    /// Adds to `changes` what a summary says of main forks.
    pub fn read_summary(&mut self, summary: &Summary, changes: &mut Changes) -> Result<()> {
        let Summary { timeline, start, end } = summary;
        let reading = |error| failed("reading a WAL summary", error);
        // Main forks alone; the server's numbers are no input of anybody's.
        let query = format!(
            "SELECT reltablespace, reldatabase, relfilenode, relblocknumber, is_limit_block \
             FROM pg_wal_summary_contents({timeline}, '{start}', '{end}') WHERE relforknumber = 0"
        );
        let none: [&str; 0] = [];
        let mut rows = self.client.get()?.query_raw(&query, none).map_err(reading)?;
        while let Some(row) = rows.next().map_err(reading)? {
            let (tablespace_oid, database_oid, filenode) = (row.get(0), row.get(1), row.get(2));
            let relation = Relation { tablespace_oid, database_oid, filenode };
            let block: i64 = row.get(3);
            let block = u32::try_from(block).map_err(|error| impossible().because(error))?;
            if row.get(4) { changes.limit(relation, block) } else { changes.mark(relation, block) }
        }
        Ok(())
    }
}

fn impossible() -> Error {
    Error::damaged("the server's WAL summaries name what cannot be")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(timeline: u32, start: u64, end: u64) -> Summary {
        Summary { timeline, start: Lsn(start), end: Lsn(end) }
    }

    fn uncovered(timeline: u32, lsn: u64) -> Uncovered {
        Uncovered { timeline: TimelineId::new(timeline).unwrap(), lsn: Lsn(lsn) }
    }

    #[test]
    fn one_timeline_is_covered_without_a_gap() {
        let one = TimelineId::FIRST;
        let history = TimelineHistory::alone(one);
        let needed = |all: &[Summary], from, to| covering(all, &history, one, Lsn(from), Lsn(to));
        let all = [summary(1, 30, 40), summary(1, 10, 20), summary(1, 20, 30), summary(2, 40, 99)];
        assert_eq!(needed(&all, 20, 30), Ok(vec![summary(1, 20, 30)]));
        assert_eq!(
            needed(&all, 15, 35),
            Ok(vec![summary(1, 10, 20), summary(1, 20, 30), summary(1, 30, 40)])
        );
        assert_eq!(needed(&all, 30, 30), Ok(vec![]));
        assert_eq!(needed(&all, 15, 41), Err(uncovered(1, 40)));
        assert_eq!(needed(&all, 5, 40), Err(uncovered(1, 5)));
        assert_eq!(needed(&[all[0], all[1]], 12, 40), Err(uncovered(1, 20)));
        assert_eq!(needed(&[], 12, 40), Err(uncovered(1, 12)));
        // They may overlap.
        assert_eq!(needed(&[summary(1, 10, 30), summary(1, 20, 40)], 10, 40).map(|all| all.len()), Ok(2));
    }

    #[test]
    fn each_timeline_is_covered_up_to_where_the_next_begins() {
        let three = TimelineId::new(3).unwrap();
        let history = TimelineHistory::parse(three, b"1\t0/14\tx\n2\t0/1E\tx\n").unwrap();
        let needed = |all: &[Summary], own, from| {
            covering(all, &history, TimelineId::new(own).unwrap(), Lsn(from), Lsn(40))
        };
        let all = [summary(1, 10, 20), summary(2, 20, 25), summary(2, 25, 30), summary(3, 30, 40)];
        assert_eq!(needed(&all, 1, 10), Ok(all.to_vec()));
        assert_eq!(needed(&all, 2, 26), Ok(all[2..].to_vec()));
        assert_eq!(needed(&all[1..], 1, 12), Err(uncovered(1, 12)));
        assert_eq!(needed(&[all[0], all[1], all[3]], 1, 10), Err(uncovered(2, 25)));
        assert_eq!(needed(&all[..3], 1, 10), Err(uncovered(3, 30)));
        // Another timeline's summary is no substitute; a longer one of the same is.
        assert_eq!(needed(&[summary(1, 10, 35), all[3]], 1, 10), Err(uncovered(2, 20)));
        assert_eq!(
            needed(&[summary(1, 10, 35), summary(2, 18, 30), all[3]], 1, 10).map(|all| all.len()),
            Ok(3)
        );
    }
}
