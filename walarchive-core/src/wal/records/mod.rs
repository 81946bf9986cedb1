//! Facts that recovery targets need, read from the records of the log.
//!
//! A [`Scanner`] walks the records of consecutive segments, checks their CRC-32C and their links, and reports
//! commits, aborts and restore points. It understands the record layout of PostgreSQL 13 to 18, which is the
//! same but for two details that the page magic tells apart.

mod decode;
mod scanner;

pub use scanner::Scanner;

use super::Lsn;

/// Microseconds from the Unix epoch to 2000-01-01 00:00:00 UTC, where PostgreSQL's clock starts.
pub const POSTGRES_EPOCH_UNIX_US: i64 = 946_684_800_000_000;

/// A time in microseconds since the Unix epoch, from one in microseconds since 2000-01-01 UTC.
///
/// Times beyond what 64 bits hold stay at the limit.
#[must_use]
pub fn unix_us(postgres_us: i64) -> i64 {
    postgres_us.saturating_add(POSTGRES_EPOCH_UNIX_US)
}

/// Something that recovery can aim at. Times are microseconds since 2000-01-01 UTC (see [`unix_us`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// A transaction was committed; for a prepared one, by `COMMIT PREPARED`.
    Commit {
        /// The transaction; for a prepared one, the transaction that was prepared.
        xid: u32,
        /// When.
        time_us: i64,
        /// Where the record starts.
        lsn: Lsn,
        /// Where the next record starts.
        lsn_end: Lsn,
    },
    /// A transaction was rolled back; for a prepared one, by `ROLLBACK PREPARED`.
    Abort {
        /// The transaction; for a prepared one, the transaction that was prepared.
        xid: u32,
        /// When.
        time_us: i64,
        /// Where the record starts.
        lsn: Lsn,
        /// Where the next record starts.
        lsn_end: Lsn,
    },
    /// `pg_create_restore_point` was called.
    RestorePoint {
        /// The name that it was given.
        name: String,
        /// When.
        time_us: i64,
        /// Where the record starts.
        lsn: Lsn,
        /// Where the next record starts.
        lsn_end: Lsn,
    },
}

impl Fact {
    /// When it happened, in microseconds since 2000-01-01 UTC.
    #[must_use]
    pub fn time_us(&self) -> i64 {
        match self {
            Fact::Commit { time_us, .. }
            | Fact::Abort { time_us, .. }
            | Fact::RestorePoint { time_us, .. } => *time_us,
        }
    }

    /// Where its record starts and where the next one does.
    #[must_use]
    pub fn range(&self) -> (Lsn, Lsn) {
        match self {
            Fact::Commit { lsn, lsn_end, .. }
            | Fact::Abort { lsn, lsn_end, .. }
            | Fact::RestorePoint { lsn, lsn_end, .. } => (*lsn, *lsn_end),
        }
    }
}

/// How far one segment holds valid log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanEnd {
    /// To its end; the last record may continue in the next segment.
    Whole,
    /// Not to its end.
    Ended {
        /// One past the last valid record. It lies in an earlier segment when a record that began there does
        /// not continue here.
        at: Lsn,
        /// What stands there instead of a record.
        why: Ending,
    },
}

/// Why valid log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Zeros follow: nothing was written there yet.
    Zeros,
    /// A page header does not belong there: never written, or left over from a recycled segment.
    Page,
    /// A record's length, checksum or content does not hold.
    Record,
    /// A record does not follow the one before it, or is not continued where it must be.
    Link,
    /// The bytes end before the segment does.
    Short,
}

#[cfg(test)]
mod tests;
