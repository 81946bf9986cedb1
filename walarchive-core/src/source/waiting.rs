//! What waits to be archived, and whether it grows: from names and times in `pg_wal` alone, so that it is told without a server, a
//! connection or anything remembered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::pace::{BUSY, Pace, after, begin};
use super::ready::{Listed, list};
use crate::error::Result;
use crate::wal::WalName;

/// So many files may wait whenever somebody looks.
const FEW: u64 = 4;

/// WAL files that wait to be archived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// When this was seen.
    pub seen_at: Timestamp,
    /// How many wait.
    pub files: u64,
    /// Their bytes. The segment that is being written is not among them.
    pub bytes: u64,
    /// The one that is archived first.
    pub oldest: Option<WalName>,
    /// Since when the first of them waits; by the server's file system.
    pub since: Option<Timestamp>,
    /// How fast WAL is written and archived, where that can be told: not right after a checkpoint.
    pub pace: Option<Pace>,
}

impl Waiting {
    /// For how long the first of them has been waiting; nothing waits for no time.
    pub fn age(&self) -> Duration {
        let age = self.since.map(|since| self.seen_at.duration_since(since));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }

    /// Whether more than a few files wait, for ten seconds at least, and WAL is written faster than it is archived, though nothing
    /// need have failed.
    pub fn is_deficit(&self) -> bool {
        self.is_backlog() && self.age() >= BUSY && self.pace.is_some_and(|pace| pace.falls_behind())
    }

    /// Whether more files wait than are between being written and being archived anyway.
    pub fn is_backlog(&self) -> bool {
        self.files > FEW
    }

    /// In what time none would wait, if the pace remained. `None` when it is not known, or they always will.
    pub fn caught_up_in(&self) -> Option<Duration> {
        self.pace.and_then(|pace| pace.catches_up(self.bytes))
    }
}

/// Looks at what `pg_wal/archive_status` of a data directory lists. One listing and a few dozen looks at single files, however
/// much waits.
///
/// PostgreSQL creates `.ready` when a segment is complete, and renames it to `.done` when it is archived: the file keeps the time of
/// the one as that of its content, and that of the other as that of its status. A checkpoint removes both the segment and
/// its status, the oldest first: what was archived is seen from the first that is left, or from the last checkpoint; what was written, from
/// the first that waits.
///
/// # Errors
///
/// When the directory cannot be listed. Files that vanish meanwhile are no error.
pub fn waiting(data_dir: &Path, now: Timestamp) -> Result<Waiting> {
    let pg_wal = data_dir.join("pg_wal");
    let Listed { ready, done } = list(&pg_wal)?;
    let files = Files { pg_wal, status: data_dir.join("pg_wal/archive_status") };
    let is_segment = |name: &WalName| matches!(name, WalName::Segment(_));
    let (segments, others): (Vec<WalName>, Vec<WalName>) = ready.iter().partition(|name| is_segment(name));
    let done: Vec<WalName> = done.into_iter().filter(is_segment).collect();
    let segment_bytes = segments.iter().chain(&done).find_map(|name| files.length(name)).unwrap_or_default();
    let since = files.since(&ready);
    let checkpoint = modified(&data_dir.join("global/pg_control"));
    let seen = |first: Option<Timestamp>| begin(now, checkpoint.into_iter().chain(first).min(), since);
    let written = seen(done.iter().chain(&segments).find_map(|name| files.ready(name)));
    let archived = seen(done.first().and_then(|name| files.archived(name)));
    let pace = written.zip(archived).map(|((write, written_over), (archive, archived_over))| Pace {
        written: after(&segments, write, |n| files.ready(n)) + after(&done, write, |n| files.ready(n)),
        written_over,
        archived: after(&done, archive, |name| files.archived(name)),
        archived_over,
        segment_bytes,
    });
    let of_others: u64 = others.iter().filter_map(|name| files.length(name)).sum();
    Ok(Waiting {
        seen_at: now,
        files: ready.len() as u64,
        bytes: segment_bytes.saturating_mul(segments.len() as u64).saturating_add(of_others),
        oldest: ready.first().copied(),
        since,
        pace,
    })
}

/// The files of `pg_wal`, any of which may vanish.
struct Files {
    pg_wal: PathBuf,
    status: PathBuf,
}

impl Files {
    fn length(&self, name: &WalName) -> Option<u64> {
        std::fs::metadata(self.pg_wal.join(name.to_string())).ok().map(|facts| facts.len())
    }

    /// When a file became ready, though it may be archived by now.
    fn ready(&self, name: &WalName) -> Option<Timestamp> {
        let status = |suffix: &str| modified(&self.status.join(format!("{name}.{suffix}")));
        status("ready").or_else(|| status("done"))
    }

    fn archived(&self, name: &WalName) -> Option<Timestamp> {
        use std::os::unix::fs::MetadataExt;
        let facts = std::fs::metadata(self.status.join(format!("{name}.done"))).ok()?;
        let nanoseconds = i32::try_from(facts.ctime_nsec()).ok()?;
        Timestamp::new(facts.ctime(), nanoseconds).ok()
    }

    /// Since when the first has been waiting. Histories are archived before older files, all else in order.
    fn since(&self, ready: &[WalName]) -> Option<Timestamp> {
        let is_history = |name: &WalName| matches!(name, WalName::History(_));
        let (histories, rest) = ready.split_at(ready.partition_point(is_history));
        let first = rest.iter().find_map(|name| self.ready(name));
        histories.iter().filter_map(|name| self.ready(name)).chain(first).min()
    }
}

fn modified(path: &Path) -> Option<Timestamp> {
    let time = std::fs::metadata(path).and_then(|facts| facts.modified()).ok()?;
    Timestamp::try_from(time).ok()
}
