//! The first line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::line::Line;
use crate::archive::{BackupId, Place, Room, SystemId};
use crate::error::{Error, Result};
use crate::wal::{Lsn, SegmentSize, TimelineId};

const FORMAT: u32 = 1;

/// The first line of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of the manifest, 1.
    pub format: u32,
    /// What is described: `base`.
    #[serde(rename = "type")]
    pub kind_of: String,
    /// The backup.
    pub id: String,
    /// `full` or `incremental`.
    pub kind: String,
    /// The backup that an incremental one was made from. Nothing else of it is needed than the packs that both name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The user's name for the cluster.
    pub cluster: String,
    /// PostgreSQL's system identifier, decimal.
    pub system_id: String,
    /// Major version of the server.
    pub pg_major: u32,
    /// Its full version.
    pub server_version: String,
    /// Version of pg_control.
    pub control_version: u32,
    /// Version of the system catalogs.
    pub catalog_version: u32,
    /// Whether the server was a standby. Then no record in the WAL ends the backup: the files say themselves how far
    /// they must be replayed, and that is at most `stop_lsn`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_standby: bool,
    /// The timeline of the backup.
    pub timeline: u32,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// One past the last byte of WAL that the backup needs.
    pub stop_lsn: Lsn,
    /// When it began, by the server's clock.
    pub started_at: Timestamp,
    /// When it ended, by the server's clock.
    pub finished_at: Timestamp,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Whether the cluster has page checksums.
    pub page_checksums: bool,
    /// Sum of file sizes.
    pub data_bytes: u64,
    /// Stored bytes of the packs that this backup wrote.
    pub stored_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// Pages that failed their checksum.
    pub damaged_pages: u64,
    /// Tablespaces other than the built-in ones.
    pub tablespaces: Vec<Tablespace>,
    /// The databases, by number and name; empty in backups of versions that did not note them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Program and version.
    pub created_by: String,
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its object identifier, the name of its link in pg_tblspc.
    pub oid: u32,
    /// Where it was.
    pub location: PathBuf,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its object identifier, the name of its directory below `base`.
    pub oid: u32,
    /// Its name when the backup began.
    pub name: String,
}

/// What the first line of a manifest can be read as.
pub trait FirstLine: DeserializeOwned + Clone + Send + 'static {
    /// Holds it against the key that it was found under.
    fn check(&self, key: &str, id: &BackupId, place: &Place) -> Result<()>;

    /// Whether such a manifest may have such a line.
    fn has(line: &Line) -> bool {
        let _ = line;
        true
    }
}

/// What all manifests say of themselves: enough for who only wants to know which packs they name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// Version of the manifest, 1.
    pub format: u32,
    /// What is described: `base` or `dump`.
    #[serde(rename = "type")]
    pub kind_of: String,
    /// Its id.
    pub id: String,
}

impl FirstLine for Named {
    fn check(&self, key: &str, id: &BackupId, place: &Place) -> Result<()> {
        let wanted = match place.room {
            Room::System(_) => "base",
            Room::Dumps => "dump",
        };
        if self.format != FORMAT || self.kind_of != wanted {
            return Err(Error::damaged(format!(
                "the manifest has format {} and type {:?}, this program knows {FORMAT} and {wanted:?}",
                self.format, self.kind_of
            ))
            .on(key));
        }
        if self.id != id.as_str() {
            return Err(Error::damaged(format!(
                "the manifest describes another {} than its key says",
                place.noun()
            ))
            .on(key));
        }
        Ok(())
    }
}

impl Facts {
    /// The version that this program writes.
    pub const FORMAT: u32 = FORMAT;

    /// The system identifier as a number.
    pub fn system(&self) -> Result<SystemId> {
        self.system_id.parse().map_err(|_| Error::damaged("a manifest names no system identifier"))
    }
}

impl FirstLine for Facts {
    fn has(line: &Line) -> bool {
        matches!(line, Line::Pack(_) | Line::Dir(..) | Line::File(_))
    }

    fn check(&self, key: &str, id: &BackupId, place: &Place) -> Result<()> {
        let Facts { format, kind_of, id: own, .. } = self.clone();
        Named { format, kind_of, id: own }.check(key, id, place)?;
        let segment_size = SegmentSize::new(self.segment_size).is_ok();
        if !segment_size || self.stop_lsn <= self.start_lsn || TimelineId::new(self.timeline).is_err() {
            return Err(Error::damaged("the manifest's facts are impossible").on(key));
        }
        if Some(self.system()?) != place.system() {
            return Err(Error::damaged("the manifest describes another backup than its key says").on(key));
        }
        Ok(())
    }
}
