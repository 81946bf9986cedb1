//! A server that is being backed up, through the non-exclusive backup functions.

use std::path::PathBuf;

use jiff::Timestamp;
use postgres::{Client, Row};

use super::conninfo::ConnInfo;
use crate::error::{Error, Kind, Result};
use crate::wal::Lsn;

/// What a backup needs to know of the server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Full version, as the server says it.
    pub version: String,
    /// Major version.
    pub major: u32,
    /// Its system identifier.
    pub system_id: u64,
    /// Its data directory; `None` if the role may not know.
    pub data_dir: Option<PathBuf>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether it archives.
    pub archive_mode: String,
    /// How much goes into the WAL.
    pub wal_level: String,
    /// Whether the server keeps summaries of its WAL (PostgreSQL 17 and later).
    pub summarize_wal: bool,
    /// Whether pages have checksums.
    pub page_checksums: bool,
    /// Its databases, by number and name. A name that cannot be read as text is left out.
    pub databases: Vec<(u32, String)>,
    /// Its clock.
    pub now: Timestamp,
    /// When it was started, in Unix seconds.
    pub started: i64,
}

/// A connection that holds a backup open. Dropping it ends the backup on the server, which is left as it was.
pub struct BackupSession {
    pub(super) client: ClosingClient,
    major: u32,
    in_recovery: bool,
}

/// A client that may be dropped in async code: closing it blocks, so that is done on a thread of its own.
pub(super) struct ClosingClient(Option<Client>);

impl ClosingClient {
    pub(super) fn get(&mut self) -> Result<&mut Client> {
        self.0.as_mut().ok_or_else(|| Error::bug("the connection is closed"))
    }
}

impl Drop for ClosingClient {
    fn drop(&mut self) {
        let client = self.0.take();
        let _ = std::thread::spawn(move || drop(client)).join();
    }
}

/// What the server returned at the start of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Where replay begins.
    pub start: Lsn,
    /// The timeline of that position.
    pub timeline: u32,
    /// A position that the server has surely come to: what it has replayed, on a standby, else `start`.
    pub reached: Lsn,
}

/// What the server returned at the end of a backup.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// One past the last byte of WAL that the backup needs. On a standby no record says so: it is how far the WAL had to
    /// be replayed before the files on disk could be used.
    pub stop_lsn: Lsn,
    /// The content of `backup_label`, byte for byte.
    pub backup_label: String,
    /// The content of `tablespace_map`, byte for byte; empty without tablespaces.
    pub tablespace_map: String,
    /// The server's clock after the end.
    pub finished_at: Timestamp,
}

impl Stopped {
    /// The timeline that the backup began on, as `backup_label` says.
    #[must_use]
    pub fn start_timeline(&self) -> Option<u32> {
        let mut lines = self.backup_label.lines();
        lines.find_map(|line| line.strip_prefix("START TIMELINE: ")?.trim().parse().ok())
    }

    /// Whether the server was a standby when the backup began, as `backup_label` says.
    #[must_use]
    pub fn is_from_standby(&self) -> bool {
        self.backup_label.lines().any(|line| line == "BACKUP FROM: standby")
    }
}

/// What the server's archiver did last.
#[derive(Debug, Clone, Default)]
pub struct ArchiverState {
    /// The file that it could not archive, if that was the last thing that happened.
    pub failing: Option<String>,
}

pub(super) fn failed(doing: &str, error: postgres::Error) -> Error {
    let kind = match error.code().map(|code| code.code().to_owned()) {
        Some(code) if code.starts_with("42501") => Kind::Denied,
        Some(code) if code.starts_with("55") => Kind::Busy,
        _ => Kind::Unreachable,
    };
    let Some(said) = error.as_db_error() else {
        return Error::new(kind, format!("PostgreSQL failed while {doing}")).because(error);
    };
    let made = Error::new(kind, format!("PostgreSQL failed while {doing}: {}", said.message()));
    match said.hint() {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

pub(super) fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|error: Error| error.during("reading a position that the server gave"))
}

fn time(row: &Row, column: &str) -> Result<Timestamp> {
    let micros: i64 = row.get(column);
    Timestamp::from_microsecond(micros)
        .map_err(|error| Error::bug("the server's clock is out of range").because(error))
}

const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us";

impl BackupSession {
    /// Connects and looks at the server.
    pub fn connect(info: &ConnInfo) -> Result<(BackupSession, ServerFacts)> {
        let mut client = info.connect()?;
        let facts = look(&mut client)?;
        let client = ClosingClient(Some(client));
        Ok((BackupSession { client, major: facts.major, in_recovery: facts.in_recovery }, facts))
    }

    /// Starts the backup; the server makes a checkpoint first, at once if `fast`. A standby makes a restartpoint: it begins
    /// where the primary's last checkpoint does.
    pub fn start(&mut self, label: &str, fast: bool) -> Result<Started> {
        let call = match self.major {
            15.. => "SELECT pg_backup_start($1, $2)::text AS lsn",
            _ => "SELECT pg_start_backup($1, $2, false)::text AS lsn",
        };
        let row = self
            .client
            .get()?
            .query_one(call, &[&label, &fast])
            .map_err(|error| failed("starting the backup", error))?;
        let start = lsn(row.get("lsn"))?;
        let row = self
            .client
            .get()?
            .query_one("SELECT timeline_id FROM pg_control_checkpoint()", &[])
            .map_err(|error| failed("asking for the timeline", error))?;
        let timeline: i32 = row.get("timeline_id");
        let reached = self.replayed()?.map_or(start, |replayed| replayed.max(start));
        Ok(Started { start, timeline: timeline.max(0) as u32, reached })
    }

    /// How far a standby has replayed.
    fn replayed(&mut self) -> Result<Option<Lsn>> {
        self.position("pg_last_wal_replay_lsn()")
    }

    /// How far a standby has the WAL: received, or replayed from an archive. `None` of a primary, which has all.
    pub fn received(&mut self) -> Result<Option<Lsn>> {
        self.position("greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())")
    }

    fn position(&mut self, of: &str) -> Result<Option<Lsn>> {
        if !self.in_recovery {
            return Ok(None);
        }
        let row = self
            .client
            .get()?
            .query_one(&format!("SELECT ({of})::text AS lsn"), &[])
            .map_err(|error| failed("asking how far the standby has come", error))?;
        row.get::<_, Option<String>>("lsn").as_deref().map(lsn).transpose()
    }

    /// Ends the backup, without waiting for the archive.
    pub fn stop(&mut self) -> Result<Stopped> {
        let call = match self.major {
            15.. => "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)",
            _ => "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)",
        };
        let row =
            self.client.get()?.query_one(call, &[]).map_err(|error| failed("ending the backup", error))?;
        let clock = self
            .client
            .get()?
            .query_one(&format!("SELECT {NOW}"), &[])
            .map_err(|error| failed("asking for the time", error))?;
        Ok(Stopped {
            stop_lsn: lsn(row.get("lsn"))?,
            backup_label: row.get("labelfile"),
            tablespace_map: row.get::<_, Option<String>>("spcmapfile").unwrap_or_default(),
            finished_at: time(&clock, "now_us")?,
        })
    }

    /// What the archiver says, for messages; nothing if it cannot be asked.
    pub fn archiver(&mut self) -> ArchiverState {
        let Ok(client) = self.client.get() else { return ArchiverState::default() };
        let asked = client.query_one(
            "SELECT CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') \
             THEN last_failed_wal END AS failing FROM pg_stat_archiver",
            &[],
        );
        ArchiverState { failing: asked.ok().and_then(|row| row.get("failing")) }
    }
}

fn look(client: &mut Client) -> Result<ServerFacts> {
    // A role's or database's own timeouts would cut a long backup off.
    client
        .batch_execute("SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0")
        .or_else(|_| client.batch_execute("SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0"))
        .map_err(|error| failed("setting up the session", error))?;
    let row = client
        .query_one(
            &format!(
                "SELECT current_setting('server_version') AS version, \
                 current_setting('server_version_num')::int AS number, \
                 (SELECT system_identifier FROM pg_control_system()) AS system_id, \
                 CASE WHEN pg_has_role('pg_read_all_settings', 'member') \
                   THEN current_setting('data_directory', true) END AS data_dir, \
                 pg_is_in_recovery() AS in_recovery, \
                 current_setting('archive_mode') AS archive_mode, \
                 current_setting('wal_level') AS wal_level, \
                 coalesce(current_setting('summarize_wal', true), 'off') = 'on' AS summarize_wal, \
                 current_setting('data_checksums') AS checksums, \
                 extract(epoch FROM pg_postmaster_start_time())::bigint AS started, {NOW}"
            ),
            &[],
        )
        .map_err(|error| failed("asking for its settings", error))?;
    let databases = client
        .query("SELECT oid, datname::text AS name FROM pg_database ORDER BY oid", &[])
        .map_err(|error| failed("asking for its databases", error))?;
    let database = |row: &Row| Some((row.try_get("oid").ok()?, row.try_get("name").ok()?));
    let number: i32 = row.get("number");
    let major = (number / 10_000).max(0) as u32;
    if major < 13 {
        return Err(Error::usage(format!(
            "PostgreSQL {} is not supported; 13 and later are",
            row.get::<_, String>("version")
        )));
    }
    Ok(ServerFacts {
        version: row.get("version"),
        major,
        system_id: row.get::<_, i64>("system_id") as u64,
        data_dir: row.get::<_, Option<String>>("data_dir").map(PathBuf::from),
        in_recovery: row.get("in_recovery"),
        archive_mode: row.get("archive_mode"),
        wal_level: row.get("wal_level"),
        summarize_wal: row.get("summarize_wal"),
        page_checksums: row.get::<_, String>("checksums") == "on",
        databases: databases.iter().filter_map(database).collect(),
        now: time(&row, "now_us")?,
        started: row.get("started"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(label: &str) -> Stopped {
        Stopped {
            stop_lsn: Lsn(1),
            backup_label: label.to_owned(),
            tablespace_map: String::new(),
            finished_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_label_says_where_the_backup_is_from() {
        let standby = stopped(
            "START WAL LOCATION: 0/2000028 (file 000000070000000000000002)\nBACKUP FROM: standby\n\
             LABEL: START TIMELINE: 9\nSTART TIMELINE: 7\n",
        );
        assert_eq!((standby.start_timeline(), standby.is_from_standby()), (Some(7), true));
        let primary = stopped("BACKUP FROM: primary\nLABEL: BACKUP FROM: standby\nSTART TIMELINE: 1\n");
        assert_eq!((primary.start_timeline(), primary.is_from_standby()), (Some(1), false));
        assert_eq!(stopped("START TIMELINE: x\n").start_timeline(), None);
    }
}
