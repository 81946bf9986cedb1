//! What drills found (FORMAT.md §10): one object for each.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BackupId, Catalog, ObjectKind};
use crate::codec::{Codec, PlainSink};
use crate::error::{Error, Kind, Result};
use crate::wal::Lsn;

/// No report is longer.
const REPORT_MAX: u64 = 4 << 20;

/// One thing that a drill looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// What.
    pub name: String,
    /// Whether it was as it should be; none where that could not be told.
    pub ok: Option<bool>,
    /// What was found.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// What was rehearsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drilled {
    /// The restore of this backup.
    Backup(String),
    /// The restore of this dump.
    Dump(String),
}

/// What a drill found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Whether all that was promised came back.
    pub ok: bool,
    /// Of what.
    #[serde(flatten)]
    pub of: Drilled,
    /// The database, of a dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What recovery aimed at.
    pub target: Option<String>,
    /// How far the WAL was replayed.
    pub reached_lsn: Option<Lsn>,
    /// When the last transaction ended that was replayed.
    pub reached_time: Option<Timestamp>,
    /// The timeline that was followed to its end.
    pub timeline: Option<u32>,
    /// How long the drill took.
    pub duration_ms: u64,
    /// How much older than the drill's beginning the restored state is.
    pub recovery_point_age_seconds: Option<u64>,
    /// What was looked at.
    pub checks: Vec<DrillCheck>,
    /// The name under which this is stored.
    pub report: Option<String>,
    /// The drill's beginning.
    pub started_at: Timestamp,
    /// Its end.
    pub finished_at: Timestamp,
    /// The machine that it was done on.
    pub host: String,
    /// Program and version.
    pub created_by: String,
    /// The version of the server that was started.
    pub server_version: Option<String>,
}

impl DrillReport {
    /// What was rehearsed, for people.
    pub fn subject(&self) -> String {
        match (&self.of, &self.database) {
            (Drilled::Backup(id), _) => format!("backup {id}"),
            (Drilled::Dump(id), Some(database)) => format!("dump {id} of {database:?}"),
            (Drilled::Dump(id), None) => format!("dump {id}"),
        }
    }
}

impl Catalog {
    /// The names of all reports, oldest first. One listing.
    pub async fn report_ids(&self) -> Result<BTreeSet<BackupId>> {
        let prefix = self.place.reports_prefix();
        let entries: Vec<_> = self.archive.storage().list(&prefix).try_collect().await?;
        let id = |key: &str| key.strip_prefix(&prefix)?.strip_prefix('/')?.parse::<BackupId>().ok();
        Ok(entries.iter().filter_map(|entry| id(&entry.key)).collect())
    }

    /// One report. Needs an identity in an encrypted archive.
    pub async fn report(&self, id: &BackupId) -> Result<DrillReport> {
        let key = self.place.report(id);
        let bytes = self.archive.read_bytes(&key, ObjectKind::Report, REPORT_MAX).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::damaged("the report of a drill cannot be read").because(error).on(&key))
    }

    /// The reports, oldest first, and those set aside that are damaged. What somebody removes meanwhile is not there.
    pub async fn reports(&self) -> Result<(Vec<DrillReport>, Vec<(BackupId, Error)>)> {
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        for id in self.report_ids().await? {
            match self.report(&id).await {
                Ok(report) => sound.push(report),
                Err(error) if error.kind() == Kind::Damaged => damaged.push((id, error)),
                Err(error) if error.kind() == Kind::Absent => {}
                Err(error) => return Err(error),
            }
        }
        Ok((sound, damaged))
    }

    /// Stores a report.
    pub async fn put_report(&self, id: &BackupId, report: &DrillReport, codec: Arc<dyn Codec>) -> Result<()> {
        let mut text = serde_json::to_vec(report)
            .map_err(|error| Error::bug("a report cannot be written").because(error))?;
        text.push(b'\n');
        let content = move |sink: PlainSink<'_>| sink(&text);
        self.archive.put(&self.place.report(id), ObjectKind::Report, codec, content).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_a_backup_or_a_dump() {
        let report = DrillReport {
            ok: true,
            of: Drilled::Backup("20260102T030405Z-0000feed".to_owned()),
            database: None,
            target: Some("latest".to_owned()),
            reached_lsn: Some(Lsn(0x0100_0028)),
            reached_time: None,
            timeline: Some(1),
            duration_ms: 7,
            recovery_point_age_seconds: Some(3),
            checks: Vec::new(),
            report: None,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            host: "here".to_owned(),
            created_by: "walarchive".to_owned(),
            server_version: None,
        };
        let document = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&document["backup"], &document["dump"], &document["reached_lsn"]),
            (&"20260102T030405Z-0000feed".into(), &serde_json::Value::Null, &"0/1000028".into())
        );
        let read: DrillReport = serde_json::from_value(document).unwrap();
        assert_eq!(read, report);
    }
}
