//! A ledger: rows that the demo commits one by one, and knows.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use postgres::Client;
use serde::Serialize;
use walarchive_core::{Error, Result};

use super::client::{connect, during};
use super::process::Stage;
use super::server::PATIENCE;

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(5);
/// Between a row's commit and the moment: far more than the clock's grain.
const DISTANCE: Duration = Duration::from_millis(20);
const TABLE: &str = "CREATE TABLE ledger (id bigserial PRIMARY KEY, written_at timestamptz NOT NULL)";
const WRITE: &str = "INSERT INTO ledger (written_at) VALUES (clock_timestamp()) \
                     RETURNING id, (extract(epoch FROM written_at) * 1000000)::bigint";
const READ: &str = "SELECT id, (extract(epoch FROM written_at) * 1000000)::bigint FROM ledger ORDER BY id";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// One row: its id, and when it was written, in microseconds of the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    id: i64,
    written_at: i64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Rows whose commit the server confirmed. Locked while one is written.
    rows: Mutex<Vec<Row>>,
    error: Mutex<Option<Error>>,
}

/// The writer, on a thread of its own.
pub(super) struct Ledger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Makes the table and begins to write.
    pub(super) fn start(socket: &Path) -> Result<Ledger> {
        let mut client = connect(socket).map_err(during("taking a connection"))?;
        client.batch_execute(TABLE).map_err(during("making the ledger"))?;
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = shared.clone();
            thread::spawn(move || write(&shared, &mut client))
        };
        Ok(Ledger { shared, thread: Some(thread) })
    }

    /// How many rows are committed.
    pub(super) fn count(&self) -> usize {
        locked(&self.shared.rows).len()
    }

    /// Waits until `more` rows are committed.
    pub(super) fn grow(&self, stage: &Stage, more: usize) -> Result<()> {
        let wanted = self.count().saturating_add(more);
        stage.interrupt.wait("the ledger has grown", PATIENCE, || match locked(&self.shared.error).take() {
            Some(error) => Err(error),
            None => Ok(self.count() >= wanted),
        })
    }

    /// A moment of the server's clock between two rows, and how many were committed before it.
    pub(super) fn moment(&self, client: &mut Client) -> Result<(Timestamp, usize)> {
        let rows = locked(&self.shared.rows);
        thread::sleep(DISTANCE);
        let micros: i64 = client.query_one(NOW, &[]).map_err(during("telling the time"))?.get(0);
        thread::sleep(DISTANCE);
        let moment = Timestamp::from_microsecond(micros)
            .map_err(|error| Error::bug("the server's clock is out of range").because(error))?;
        Ok((moment, rows.len()))
    }

    /// Ends the writing; all rows that were committed.
    pub(super) fn stop(mut self) -> Result<Vec<Row>> {
        self.join();
        match locked(&self.shared.error).take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut *locked(&self.shared.rows))),
        }
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.join();
    }
}

fn write(shared: &Shared, client: &mut Client) {
    while !shared.stop.load(Ordering::SeqCst) {
        let mut rows = locked(&shared.rows);
        match client.query_one(WRITE, &[]) {
            Ok(row) => rows.push(Row { id: row.get(0), written_at: row.get(1) }),
            Err(error) => {
                *locked(&shared.error) = Some(during("writing the ledger")(error));
                return;
            }
        }
        drop(rows);
        thread::sleep(PAUSE);
    }
}

/// What a server has in its ledger.
pub(super) fn read(client: &mut Client) -> Result<Vec<Row>> {
    let rows = client.query(READ, &[]).map_err(during("reading the ledger"))?;
    Ok(rows.iter().map(|row| Row { id: row.get(0), written_at: row.get(1) }).collect())
}

/// How a restored ledger compares.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Rows that were committed before the moment.
    before: usize,
    /// Rows that were committed after it.
    after: usize,
    /// Rows that are there after the restore.
    restored: usize,
    /// Ids of rows that should be there, as they were, and are not.
    missing: Vec<i64>,
    /// Ids of rows that should not be there.
    unexpected: Vec<i64>,
}

/// Compares row by row: the first `before` of the rows that were committed shall be there, and no other.
pub(super) fn compare(committed: &[Row], before: usize, restored: &[Row]) -> Comparison {
    let (expected, lost) = committed.split_at(before.min(committed.len()));
    let without = |rows: &[Row], others: &[Row]| -> Vec<i64> {
        rows.iter().filter(|row| others.binary_search(row).is_err()).map(|row| row.id).collect()
    };
    Comparison {
        before: expected.len(),
        after: lost.len(),
        restored: restored.len(),
        missing: without(expected, restored),
        unexpected: without(restored, expected),
    }
}

impl Comparison {
    /// What is wrong, if anything is.
    pub(super) fn differences(&self) -> Vec<String> {
        let told = |what: &str, ids: &[i64]| match (ids.first(), ids.last()) {
            (Some(first), Some(last)) => Some(format!("{} rows {what}, ids {first} to {last}", ids.len())),
            _ => None,
        };
        let mut all: Vec<String> =
            told("that were committed before the moment are missing or changed", &self.missing)
                .into_iter()
                .chain(told("are there that were not committed before the moment", &self.unexpected))
                .collect();
        if self.before == 0 || self.after == 0 {
            all.push("there was nothing to tell apart: no rows before or none after the moment".to_owned());
        }
        all
    }

    /// In words.
    pub(super) fn told(&self) -> String {
        format!(
            "{} of {} rows committed before the moment are there, {} of {} after it",
            self.before - self.missing.len(),
            self.before,
            self.unexpected.len(),
            self.after
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
        ids.map(|id| Row { id, written_at: id * 1000 }).collect()
    }

    #[test]
    fn equal_ledgers_do_not_differ() {
        let comparison = compare(&rows(1..101), 60, &rows(1..61));
        assert!(comparison.differences().is_empty(), "{comparison:?}");
        assert_eq!((comparison.before, comparison.after, comparison.restored), (60, 40, 60));
    }

    #[test]
    fn missing_changed_and_surplus_rows_are_told() {
        let committed = rows(1..101);
        let lost = compare(&committed, 60, &rows(1..60));
        assert_eq!((lost.missing.as_slice(), lost.unexpected.len()), ([60].as_slice(), 0));
        let surplus = compare(&committed, 60, &rows(1..62));
        assert_eq!((surplus.missing.len(), surplus.unexpected.as_slice()), (0, [61].as_slice()));
        let mut changed = rows(1..61);
        changed[9].written_at += 1;
        let changed = compare(&committed, 60, &changed);
        assert_eq!(
            (changed.missing.as_slice(), changed.unexpected.as_slice()),
            ([10].as_slice(), [10].as_slice())
        );
        for comparison in [lost, surplus, changed] {
            assert!(!comparison.differences().is_empty());
        }
    }

    #[test]
    fn a_proof_of_nothing_is_none() {
        assert!(!compare(&rows(1..10), 0, &[]).differences().is_empty());
        assert!(!compare(&rows(1..10), 9, &rows(1..10)).differences().is_empty());
    }
}
