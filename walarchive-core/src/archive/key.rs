//! The layout of an archive: the only place that spells keys (FORMAT.md §1).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ObjectKind;
use crate::error::{Error, Kind, Result};
use crate::wal::{TimelineId, WalName};

/// The key of the archive's own description.
pub const ARCHIVE_JSON: &str = "archive.json";

/// What kind of object a key names, and the backup that it is of; `None` for the description and for what is not an
/// archive's.
pub(crate) fn kind_of(key: &str) -> Option<(ObjectKind, Option<BackupId>)> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        [_, _, "wal", ..] => Some((ObjectKind::Wal, None)),
        [_, _, "packs", id, _] => Some((ObjectKind::Pack, Some(id.parse().ok()?))),
        [_, _, "backups" | "manifests", id, "manifest"] => {
            Some((ObjectKind::Manifest, Some(id.parse().ok()?)))
        }
        [_, _, "backups" | "manifests", id, "pin"] => Some((ObjectKind::Pin, Some(id.parse().ok()?))),
        [_, _, "backups" | "manifests", id, "lease", _] => Some((ObjectKind::Lease, Some(id.parse().ok()?))),
        [_, _, "reports", id] => Some((ObjectKind::Report, Some(id.parse().ok()?))),
        _ => None,
    }
}

/// The WAL file that a key is of, and the system identifier of its cluster. Partial segments that differ share a name.
pub(crate) fn wal_of(key: &str) -> Option<(WalName, SystemId)> {
    let mut parts = key.split('/');
    let system = parts.nth(1)?.parse().ok()?;
    let last = key.rsplit('/').next()?;
    let name = match last.split_once(PARTIAL) {
        Some((segment, digest)) if digest.starts_with('.') => format!("{segment}{PARTIAL}"),
        _ => last.to_owned(),
    };
    Some((name.parse().ok()?, system))
}

const PARTIAL: &str = ".partial";

/// The user's name for a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterName(String);

impl FromStr for ClusterName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text != ARCHIVE_JSON
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !fits {
            return Err(Error::usage(format!("{text:?} cannot be a cluster's name"))
                .hint("use 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'"));
        }
        Ok(ClusterName(text.to_owned()))
    }
}

impl Default for ClusterName {
    fn default() -> Self {
        ClusterName("main".to_owned())
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// PostgreSQL's system identifier: made by initdb, kept for life, the same on all standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl FromStr for SystemId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse::<u64>() {
            Ok(id) if id.to_string() == text => Ok(SystemId(id)),
            _ => Err(Error::usage(format!("{text:?} is not a system identifier"))),
        }
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a backup or a dump: when it began, and a random part. Sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl BackupId {
    /// The name of a backup that begins at `start`, made unique by `random`.
    pub fn new(start: Timestamp, random: u32) -> BackupId {
        BackupId(format!("{}-{random:08x}", start.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The name of what begins now.
    pub fn fresh() -> Result<BackupId> {
        let random = getrandom::u32()
            .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))?;
        Ok(BackupId::new(Timestamp::now(), random))
    }

    /// Its random part.
    pub fn random(&self) -> u32 {
        self.0.rsplit('-').next().and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shape: String = text
            .chars()
            .map(|c| match c {
                '0'..='9' => '0',
                'a'..='f' => 'a',
                other => other,
            })
            .collect();
        let (time, random) = shape.split_once('-').unwrap_or((&shape, ""));
        if time == "00000000T000000Z" && random.len() == 8 && random.bytes().all(|b| b == b'0' || b == b'a') {
            return Ok(BackupId(text.to_owned()));
        }
        Err(Error::usage(format!("{text:?} is not a backup's id"))
            .hint("'walarchive backup list' shows them, for example 20260101T020000Z-0f3a9c2e"))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory of a cluster's dumps, beside those of its system identifiers.
pub(super) const DUMPS: &str = "dumps";

/// What of a cluster lies in a place. Backups and dumps have manifests, packs, leases and pins alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// WAL and base backups of the cluster with this identifier.
    System(SystemId),
    /// Logical dumps, whatever identifier the cluster has: they outlive its upgrades.
    Dumps,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Room::System(system) => system.fmt(f),
            Room::Dumps => f.write_str(DUMPS),
        }
    }
}

/// Where one cluster's objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The user's name for the cluster.
    pub cluster: ClusterName,
    /// What of it.
    pub room: Room,
}

impl Place {
    /// The place of a cluster's WAL and backups.
    pub fn of_system(cluster: ClusterName, system: SystemId) -> Place {
        Place { cluster, room: Room::System(system) }
    }

    /// The place of a cluster's dumps.
    pub fn of_dumps(cluster: ClusterName) -> Place {
        Place { cluster, room: Room::Dumps }
    }

    /// The place that a key is in.
    pub fn of_key(key: &str) -> Option<Place> {
        let mut parts = key.split('/');
        let cluster = parts.next()?.parse().ok()?;
        let room = match parts.next()? {
            DUMPS => Room::Dumps,
            system => Room::System(system.parse().ok()?),
        };
        Some(Place { cluster, room })
    }

    /// Whether a lease is not of one backup, but of a run that makes several.
    pub fn shares_leases(&self) -> bool {
        matches!(self.room, Room::Dumps)
    }

    /// The cluster's own identifier, where the place is one of it.
    pub fn system(&self) -> Option<SystemId> {
        match self.room {
            Room::System(system) => Some(system),
            Room::Dumps => None,
        }
    }

    /// What manifests are of here, for people.
    pub fn noun(&self) -> &'static str {
        match self.room {
            Room::System(_) => "backup",
            Room::Dumps => "dump",
        }
    }

    /// The prefix of everything in it.
    pub fn root(&self) -> String {
        format!("{}/{}", self.cluster, self.room)
    }

    /// The prefix of all WAL.
    pub fn wal_prefix(&self) -> String {
        format!("{}/wal", self.root())
    }

    /// The prefix of one timeline's segments.
    pub fn timeline_prefix(&self, timeline: TimelineId) -> String {
        format!("{}/{}", self.wal_prefix(), timeline.hex8())
    }

    /// The key of a WAL file.
    pub fn wal(&self, name: &WalName) -> String {
        match name {
            WalName::History(_) => format!("{}/{name}", self.wal_prefix()),
            WalName::Segment(segment) | WalName::Partial(segment) | WalName::Backup { segment, .. } => {
                format!("{}/{:08X}/{name}", self.timeline_prefix(segment.timeline), segment.log)
            }
        }
    }

    /// The key of a partial segment whose plain name is taken by other content.
    pub fn other_partial(&self, name: &WalName, digest: &str) -> String {
        format!("{}.{}", self.wal(name), digest.get(..16).unwrap_or(digest))
    }

    /// The prefix of the manifests, pins and leases of all backups or dumps.
    pub fn backups_prefix(&self) -> String {
        match self.room {
            Room::System(_) => format!("{}/backups", self.root()),
            Room::Dumps => format!("{}/manifests", self.root()),
        }
    }

    /// The prefix of a backup's manifest, pin and leases.
    pub fn backup_prefix(&self, id: &BackupId) -> String {
        format!("{}/{id}", self.backups_prefix())
    }

    /// The key of a backup's manifest.
    pub fn manifest(&self, id: &BackupId) -> String {
        format!("{}/manifest", self.backup_prefix(id))
    }

    /// The key of a backup's pin.
    pub fn pin(&self, id: &BackupId) -> String {
        format!("{}/pin", self.backup_prefix(id))
    }

    /// The prefix of a backup's leases.
    pub fn lease_prefix(&self, id: &BackupId) -> String {
        format!("{}/lease", self.backup_prefix(id))
    }

    /// The key of a lease that ends at `expiry`.
    pub fn lease(&self, id: &BackupId, expiry: Timestamp) -> String {
        format!("{}/{:012}", self.lease_prefix(id), expiry.as_second().max(0))
    }

    /// The prefix of all packs.
    pub fn packs_prefix(&self) -> String {
        format!("{}/packs", self.root())
    }

    /// The prefix of the packs that one backup wrote.
    pub fn backup_packs_prefix(&self, id: &BackupId) -> String {
        format!("{}/{id}", self.packs_prefix())
    }

    /// The prefix of the reports of all drills.
    pub fn reports_prefix(&self) -> String {
        format!("{}/reports", self.root())
    }

    /// The key of a drill's report.
    pub fn report(&self, id: &BackupId) -> String {
        format!("{}/{id}", self.reports_prefix())
    }

    /// The key of a pack, from its name in a manifest.
    pub fn pack(&self, name: &PackName) -> String {
        format!("{}/{name}", self.packs_prefix())
    }
}

/// The name of a pack: the backup that wrote it, and its number there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PackName {
    /// The backup that wrote the pack.
    pub backup: BackupId,
    /// Its number within that backup.
    pub number: u32,
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08}", self.backup, self.number)
    }
}

impl From<PackName> for String {
    fn from(name: PackName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for PackName {
    type Error = Error;

    fn try_from(text: String) -> Result<PackName> {
        text.parse()
    }
}

impl FromStr for PackName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::damaged(format!("{text:?} is not a pack's name"));
        let (backup, number) = text.split_once('/').ok_or_else(wrong)?;
        let name = PackName {
            backup: backup.parse().map_err(|_| wrong())?,
            number: number.parse().map_err(|_| wrong())?,
        };
        if name.to_string() == text { Ok(name) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_the_format_says() {
        let place = Place::of_system("main".parse().unwrap(), SystemId(7));
        let wal = |name: &str| place.wal(&name.parse().unwrap());
        assert_eq!(wal("0000000A0000000B000000CC"), "main/7/wal/0000000A/0000000B/0000000A0000000B000000CC");
        assert_eq!(wal("0000000A.history"), "main/7/wal/0000000A.history");
        assert_eq!(
            wal("0000000A0000000B000000CC.00000028.backup"),
            "main/7/wal/0000000A/0000000B/0000000A0000000B000000CC.00000028.backup"
        );
        let id = BackupId::new("2026-01-02T03:04:05Z".parse().unwrap(), 0xfeed);
        assert_eq!(place.manifest(&id), "main/7/backups/20260102T030405Z-0000feed/manifest");
        assert_eq!(
            place.lease(&id, "1970-01-01T00:01:00Z".parse().unwrap()),
            "main/7/backups/20260102T030405Z-0000feed/lease/000000000060"
        );
        let pack = PackName { backup: id.clone(), number: 3 };
        assert_eq!(place.pack(&pack), "main/7/packs/20260102T030405Z-0000feed/00000003");
        assert_eq!(pack.to_string().parse::<PackName>().unwrap(), pack);
        assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
        let dumps = Place::of_dumps("main".parse().unwrap());
        assert_eq!(dumps.manifest(&id), "main/dumps/manifests/20260102T030405Z-0000feed/manifest");
        assert_eq!(dumps.pack(&pack), "main/dumps/packs/20260102T030405Z-0000feed/00000003");
        assert_eq!(place.report(&id), "main/7/reports/20260102T030405Z-0000feed");
        assert_eq!(dumps.report(&id), "main/dumps/reports/20260102T030405Z-0000feed");
        for key in
            [dumps.manifest(&id), dumps.pack(&pack), dumps.pin(&id), dumps.report(&id), place.report(&id)]
        {
            assert_eq!(kind_of(&key).and_then(|(_, of)| of), Some(id.clone()), "{key}");
        }
    }

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "archive.json", &"x".repeat(65)] {
            assert!(name.parse::<ClusterName>().is_err(), "{name:?}");
        }
        for id in [
            "",
            "20260102T030405Z",
            "20260102T030405Z-0000FEED",
            "../../../../x",
            "20260102T030405Z-0000feed/",
        ] {
            assert!(id.parse::<BackupId>().is_err(), "{id:?}");
        }
        for id in ["", "-1", "007", "18446744073709551616", "x"] {
            assert!(id.parse::<SystemId>().is_err(), "{id:?}");
        }
    }
}
