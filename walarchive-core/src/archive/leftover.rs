//! What is stored besides whole backups: leases, pins, packs without a manifest; and to which backup a key belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::key::DUMPS;
use super::{BackupId, Catalog, ClusterName, Named, ObjectKind, PackName, Place, SystemId, scan};
use crate::codec::{Codec, PlainSink};
use crate::error::Result;

/// A stored lease of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub backup: BackupId,
    /// When it ends, by the clock of the machine that backs up.
    pub until: Timestamp,
    /// Its key.
    pub key: String,
}

/// What stands beside the packs of backups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Backups that have a manifest: they exist.
    pub manifests: BTreeSet<BackupId>,
    /// Backups, existing or not, that are pinned.
    pub pins: BTreeSet<BackupId>,
    /// All leases.
    pub leases: Vec<Lease>,
    /// Stored bytes of all of it.
    pub stored_bytes: u64,
}

impl BackupId {
    /// When the backup began, to the second; none for a name that tells no possible time.
    pub fn began(&self) -> Option<Timestamp> {
        let (time, _) = self.as_str().split_once('-')?;
        let time = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }
}

impl BackupId {
    /// Whether this may have begun later than another: names tell no more than the second.
    pub fn may_follow(&self, other: &BackupId) -> bool {
        self.began().zip(other.began()).is_none_or(|(own, others)| own >= others)
    }
}

impl Place {
    /// Whether a key is in this cluster's place.
    pub fn contains(&self, key: &str) -> bool {
        key.strip_prefix(&self.root()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether a key is in the place of any cluster.
    pub fn is_of_some(key: &str) -> bool {
        let mut segments = key.split('/');
        let cluster = segments.next().is_some_and(|name| name.parse::<ClusterName>().is_ok());
        cluster
            && segments.next().is_some_and(|room| room == DUMPS || room.parse::<SystemId>().is_ok())
            && segments.next().is_some()
    }

    /// The backup that a key in this place belongs to.
    pub fn backup_of(&self, key: &str) -> Option<BackupId> {
        let below = |prefix: String| key.strip_prefix(&prefix)?.strip_prefix('/')?.split('/').next();
        let id = below(self.packs_prefix()).or_else(|| below(self.backups_prefix()))?;
        id.parse().ok()
    }
}

impl Catalog {
    /// Pins a backup or dump, which need not be there yet; one that is pinned already stays so.
    pub async fn pin(&self, id: &BackupId, codec: Arc<dyn Codec>) -> Result<()> {
        let note = format!("{{\"pinned\":\"{id}\"}}\n");
        let content = move |sink: PlainSink<'_>| sink(note.as_bytes());
        self.archive.put(&self.place.pin(id), ObjectKind::Pin, codec, content).await.map(drop)
    }

    /// All packs of the cluster whose names are well-formed, with their stored sizes. One listing.
    pub async fn all_packs(&self) -> Result<BTreeMap<PackName, u64>> {
        let prefix = self.place.packs_prefix();
        let entries: Vec<_> = self.archive.storage().list(&prefix).try_collect().await?;
        let name = |key: &str| key.strip_prefix(&prefix)?.strip_prefix('/')?.parse::<PackName>().ok();
        Ok(entries.iter().filter_map(|entry| Some((name(&entry.key)?, entry.size))).collect())
    }

    /// Manifests, pins and leases of all backups. One listing.
    pub async fn marks(&self) -> Result<Marks> {
        let mut marks = Marks::default();
        let mut entries = self.archive.storage().list(&self.place.backups_prefix());
        while let Some(entry) = entries.try_next().await? {
            marks.stored_bytes += entry.size;
            let Some(id) = self.place.backup_of(&entry.key) else { continue };
            if entry.key == self.place.manifest(&id) {
                marks.manifests.insert(id);
            } else if entry.key == self.place.pin(&id) {
                marks.pins.insert(id);
            } else if let Some(until) = self.lease_end(&id, &entry.key) {
                marks.leases.push(Lease { backup: id, until, key: entry.key });
            }
        }
        Ok(marks)
    }

    /// The packs that the manifests of these backups name. Needs an identity in an encrypted archive. What somebody has
    /// deleted needs none.
    pub async fn needed_packs(&self, manifests: &BTreeSet<BackupId>) -> Result<BTreeSet<PackName>> {
        let mut needed = BTreeSet::new();
        for id in manifests {
            match scan::<Named, _>(&self.archive, &self.place, id, ()).await {
                Ok((manifest, ())) => needed.extend(manifest.packs.into_iter().map(|pack| pack.name)),
                Err(error) if self.deleted(&error, id).await? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(needed)
    }

    fn lease_end(&self, id: &BackupId, key: &str) -> Option<Timestamp> {
        let name = key.strip_prefix(&self.place.lease_prefix(id))?.strip_prefix('/')?;
        let end = Timestamp::from_second(name.parse().ok()?).ok()?;
        (self.place.lease(id, end) == key).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_their_backup() {
        let place = Place::of_system("main".parse().unwrap(), SystemId(7));
        let began = "2026-01-02T03:04:05Z".parse().unwrap();
        let id = BackupId::new(began, 0xfeed);
        assert_eq!(id.began(), Some(began));
        assert_eq!("20261302T030405Z-0000feed".parse::<BackupId>().unwrap().began(), None);
        let (same, earlier) =
            (BackupId::new(began, 1), BackupId::new("2026-01-02T03:04:04Z".parse().unwrap(), u32::MAX));
        assert!(
            id.may_follow(&same)
                && same.may_follow(&id)
                && id.may_follow(&earlier)
                && !earlier.may_follow(&id)
        );
        let pack = PackName { backup: id.clone(), number: 3 };
        for key in [place.pack(&pack), place.manifest(&id), place.pin(&id), place.lease(&id, began)] {
            assert_eq!(place.backup_of(&key), Some(id.clone()), "{key}");
            assert!(place.contains(&key) && Place::is_of_some(&key));
        }
        for key in [
            "main/7/wal/00000001.history",
            "main/77/packs/20260102T030405Z-0000feed/00000000",
            "archive.json",
        ] {
            assert_eq!(place.backup_of(key), None, "{key}");
        }
        assert!(!place.contains("main/77/x") && Place::is_of_some("main/77/x"));
        assert!(
            !Place::is_of_some("archive.json") && !Place::is_of_some("main/7") && !Place::is_of_some("a/b/c")
        );
    }
}
