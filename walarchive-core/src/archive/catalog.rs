//! What an archive holds of one cluster: its WAL, and its backups.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use futures::{StreamExt, TryStreamExt};

use super::info::known_clusters;
use super::key::ARCHIVE_JSON;
use super::{
    Archive, BackupId, ClusterName, DumpFacts, Facts, Named, ObjectKind, PackName, PackRecord, Place,
    SystemId, read_facts,
};
use crate::error::{Error, Kind, Result};
use crate::wal::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalName};

/// Longest timeline history file or backup history file that is believed.
pub(crate) const TEXT_MAX: u64 = 1 << 20;

/// One cluster's part of an archive.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// The archive.
    pub archive: Archive,
    /// The cluster's place in it.
    pub place: Place,
}

/// The WAL files that are stored, by name.
#[derive(Debug, Clone, Default)]
pub struct StoredWal {
    /// Whole segments by timeline.
    pub segments: BTreeMap<TimelineId, BTreeSet<SegmentName>>,
    /// Timelines whose history file is stored.
    pub histories: BTreeSet<TimelineId>,
    /// Partial segments.
    pub partials: BTreeSet<SegmentName>,
    /// Backup history files.
    pub backups: Vec<WalName>,
    /// Stored bytes of all of it.
    pub stored_bytes: u64,
}

/// Why nothing is found of a cluster: the archive is empty (`Absent`), or it knows other names (`Usage`).
async fn nothing_of(archive: &Archive, cluster: &ClusterName) -> Result<Error> {
    let known = known_clusters(archive.storage().as_ref()).await?;
    if known.is_empty() {
        return Ok(Error::new(Kind::Absent, "the archive is empty").on(ARCHIVE_JSON));
    }
    if known.contains(&cluster.to_string()) {
        let message = format!("the archive holds dumps of cluster {cluster}, and no WAL or base backup");
        return Ok(Error::new(Kind::Absent, message).on(cluster));
    }
    let known = known.join(", ");
    Ok(Error::usage(format!("the archive holds nothing of a cluster named {cluster}; it knows {known}"))
        .hint("--cluster or WALARCHIVE_CLUSTER names the cluster"))
}

impl StoredWal {
    /// Timelines that have segments, and no history file.
    pub fn without_history(&self) -> impl Iterator<Item = TimelineId> + '_ {
        let has_none = |timeline: &TimelineId| timeline.get() > 1 && !self.histories.contains(timeline);
        self.segments.keys().copied().filter(has_none)
    }

    /// The segments by number. Names that cannot be one of segments of this size are passed over: they are of the time
    /// before `pg_resetwal` gave the cluster another size.
    pub fn by_number(&self, size: SegmentSize) -> BTreeMap<TimelineId, BTreeSet<u64>> {
        let numbers =
            |names: &BTreeSet<SegmentName>| names.iter().filter_map(|name| name.segno(size).ok()).collect();
        self.segments.iter().map(|(timeline, names)| (*timeline, numbers(names))).collect()
    }
}

/// A stored backup.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its name.
    pub id: BackupId,
    /// What its manifest says first.
    pub facts: Facts,
    /// Whether retention leaves it alone.
    pub pinned: bool,
}

/// A stored dump of one database, or of the globals.
#[derive(Debug, Clone)]
pub struct Dump {
    /// Its name.
    pub id: BackupId,
    /// What its manifest says first.
    pub facts: DumpFacts,
    /// Whether retention leaves it alone.
    pub pinned: bool,
}

impl Place {
    /// That there is no backup, or dump, of that name.
    pub fn no_such(&self, id: &BackupId) -> Error {
        let noun = self.noun();
        Error::new(Kind::Absent, format!("there is no {noun} {id}"))
            .hint(format!("'walarchive {noun} list' shows what there is"))
    }
}

/// Names tell the second; of backups that began in the same one, the server's clock tells more.
pub(super) fn oldest_first(backups: &mut [Backup]) {
    backups.sort_by_key(|backup| backup.facts.started_at);
}

impl Catalog {
    /// Finds the cluster's place when its system identifier is not known from the caller: there must be exactly
    /// one under its name. One listing.
    pub async fn find(archive: &Archive, cluster: &ClusterName) -> Result<Catalog> {
        let dirs = archive.storage().list_dirs(&cluster.to_string()).await?;
        let mut systems: Vec<SystemId> = dirs.iter().filter_map(|dir| dir.parse().ok()).collect();
        systems.sort();
        match systems.as_slice() {
            [system] => {
                Ok(Catalog { archive: archive.clone(), place: Place::of_system(cluster.clone(), *system) })
            }
            [] => Err(nothing_of(archive, cluster).await?),
            several => {
                let ids: Vec<_> = several.iter().map(SystemId::to_string).collect();
                Err(Error::usage(format!(
                    "{} PostgreSQL clusters were archived under the name {cluster}: system identifiers {}",
                    ids.len(),
                    ids.join(", ")
                ))
                .hint("say which one with --system-id or WALARCHIVE_SYSTEM_ID"))
            }
        }
    }

    /// Proves that the archive knows this cluster, or knows none at all: a mistyped name must not pass for an archive
    /// that lacks what was asked for, as PostgreSQL would end its recovery there.
    pub async fn prove_known(&self) -> Result<()> {
        let mut systems = self.archive.storage().list_dirs(&self.place.cluster.to_string()).await?;
        if systems.contains(&self.place.room.to_string()) {
            return Ok(());
        }
        systems.retain(|room| room.parse::<SystemId>().is_ok());
        if !systems.is_empty() {
            return Err(Error::new(
                Kind::WrongCluster,
                format!(
                    "the archive holds nothing of system identifier {} under the name {}, but of {}",
                    self.place.room,
                    self.place.cluster,
                    systems.join(", ")
                ),
            )
            .hint("is this the archive, and the name, of this cluster?"));
        }
        match nothing_of(&self.archive, &self.place.cluster).await? {
            unknown if unknown.kind() == Kind::Absent => Ok(()),
            mistaken => Err(mistaken),
        }
    }

    /// All WAL of the cluster, by names. Objects under names that are not WAL's are passed over.
    pub async fn wal(&self) -> Result<StoredWal> {
        let mut wal = StoredWal::default();
        let mut entries = self.archive.storage().list(&self.place.wal_prefix());
        while let Some(entry) = entries.try_next().await? {
            wal.stored_bytes += entry.size;
            let name = entry.key.rsplit('/').next().unwrap_or_default();
            let Ok(name) = name.parse::<WalName>() else { continue };
            if self.place.wal(&name) != entry.key {
                continue;
            }
            match name {
                WalName::Segment(segment) => {
                    wal.segments.entry(segment.timeline).or_default().insert(segment);
                }
                WalName::Partial(segment) => {
                    wal.partials.insert(segment);
                }
                WalName::History(timeline) => {
                    wal.histories.insert(timeline);
                }
                WalName::Backup { .. } => wal.backups.push(name),
            }
        }
        Ok(wal)
    }

    /// The history of a timeline, from its stored history file; timeline 1 needs none.
    pub async fn history(&self, timeline: TimelineId) -> Result<TimelineHistory> {
        if timeline.get() == 1 {
            return Ok(TimelineHistory::initial());
        }
        let key = self.place.wal(&WalName::History(timeline));
        let text = self.archive.read_bytes(&key, ObjectKind::Wal, TEXT_MAX).await?;
        TimelineHistory::parse(timeline, &text).map_err(|error| {
            Error::damaged("the stored timeline history cannot be read").because(error).on(&key)
        })
    }

    /// The ids of all backups, oldest first. One listing.
    async fn backup_keys(&self) -> Result<BTreeMap<BackupId, bool>> {
        let prefix = self.place.backups_prefix();
        let entries: Vec<_> = self.archive.storage().list(&prefix).try_collect().await?;
        let parts = |key: &str| {
            let (id, what) = key.strip_prefix(&prefix)?.strip_prefix('/')?.split_once('/')?;
            Some((id.parse::<BackupId>().ok()?, what.to_owned()))
        };
        let found: Vec<_> = entries.iter().filter_map(|entry| parts(&entry.key)).collect();
        let pinned: BTreeSet<_> = found.iter().filter(|(_, what)| what == "pin").map(|(id, _)| id).collect();
        let whole = found.iter().filter(|(_, what)| what == "manifest");
        Ok(whole.map(|(id, _)| (id.clone(), pinned.contains(id))).collect())
    }

    /// The catalogue of a cluster's dumps.
    pub fn of_dumps(archive: &Archive, cluster: ClusterName) -> Catalog {
        Catalog { archive: archive.clone(), place: Place::of_dumps(cluster) }
    }

    /// All dumps, oldest first, with those set aside whose manifests are damaged.
    pub async fn dumps(&self) -> Result<(Vec<Dump>, Vec<(BackupId, Error)>)> {
        let read = |id: BackupId, pinned| async move {
            let facts = read_facts::<DumpFacts>(&self.archive, &self.place, &id).await?;
            Ok(Dump { id, facts, pinned })
        };
        let (mut sound, damaged) = self.each_backup(read).await?;
        sound.sort_by_key(|dump| (dump.facts.number, dump.facts.started_at));
        Ok((sound, damaged))
    }

    /// The names of all backups or dumps whose manifests can be read, and whether they are pinned; and those whose cannot.
    pub async fn named(&self) -> Result<(Vec<(BackupId, bool)>, Vec<(BackupId, Error)>)> {
        self.each_backup(|id, pinned| async move {
            read_facts::<Named>(&self.archive, &self.place, &id).await?;
            Ok((id, pinned))
        })
        .await
    }

    /// All backups, oldest first. One listing, and one small read for each.
    pub async fn backups(&self) -> Result<Vec<Backup>> {
        let (backups, damaged) = self.sound_backups().await?;
        match damaged.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(backups),
        }
    }

    /// The same, with the backups set aside whose manifests are damaged. What somebody deletes meanwhile is not there.
    pub async fn sound_backups(&self) -> Result<(Vec<Backup>, Vec<(BackupId, Error)>)> {
        let (mut sound, damaged) = self
            .each_backup(|id, pinned| async move {
                let facts = read_facts(&self.archive, &self.place, &id).await?;
                Ok(Backup { id, facts, pinned })
            })
            .await?;
        oldest_first(&mut sound);
        Ok((sound, damaged))
    }

    /// What `read` finds of each backup, eight at a time, and those whose manifests are damaged.
    pub(super) async fn each_backup<T, F>(
        &self,
        read: impl Fn(BackupId, bool) -> F,
    ) -> Result<(Vec<T>, Vec<(BackupId, Error)>)>
    where
        F: Future<Output = Result<T>>,
    {
        let read = &read;
        let reads = self.backup_keys().await?.into_iter().map(|(id, pinned)| async move {
            match read(id.clone(), pinned).await {
                Ok(found) => Ok(Some(Ok(found))),
                Err(error) if error.kind() == Kind::Damaged => Ok(Some(Err((id, error)))),
                Err(error) if self.deleted(&error, &id).await? => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found: Vec<_> = futures::stream::iter(reads).buffered(8).try_collect().await?;
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        for backup in found.into_iter().flatten() {
            match backup {
                Ok(backup) => sound.push(backup),
                Err(broken) => damaged.push(broken),
            }
        }
        Ok((sound, damaged))
    }

    /// Whether reading a backup's manifest failed because somebody deleted it since it was listed. One that is listed
    /// still, and cannot be found, is trouble.
    pub async fn deleted(&self, error: &Error, id: &BackupId) -> Result<bool> {
        Ok(error.kind() == Kind::Absent && !self.backup_keys().await?.contains_key(id))
    }

    /// Whether there is a backup of that name.
    pub async fn exists(&self, id: &BackupId) -> Result<bool> {
        match self.archive.storage().size(&self.place.manifest(id)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::Absent => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One backup; `Absent` if there is none of that name.
    pub async fn backup(&self, id: &BackupId) -> Result<Backup> {
        match self.backup_keys().await?.remove(id) {
            Some(pinned) => {
                let facts = read_facts(&self.archive, &self.place, id).await?;
                Ok(Backup { id: id.clone(), facts, pinned })
            }
            None => Err(self.place.no_such(id)),
        }
    }

    /// The first of these packs that is not stored in its length, and the length that is stored. A listing for each backup
    /// that wrote some of them.
    pub async fn first_lost<'a>(
        &self,
        packs: &'a [PackRecord],
    ) -> Result<Option<(&'a PackRecord, Option<u64>)>> {
        let mut stored = BTreeMap::new();
        for backup in packs.iter().map(|pack| &pack.name.backup).collect::<BTreeSet<_>>() {
            stored.extend(self.packs(backup).await?);
        }
        for pack in packs {
            let found = stored.get(&pack.name).copied();
            let is_whole = match found {
                Some(found) => self.is_whole(pack, found).await?,
                None => false,
            };
            if !is_whole {
                return Ok(Some((pack, found)));
            }
        }
        Ok(None)
    }

    /// Whether a pack that has so many stored bytes is as long as its manifest says, but for its head: that may have been changed
    /// for other readers, which only who can open it can tell from damage.
    pub async fn is_whole(&self, pack: &PackRecord, stored: u64) -> Result<bool> {
        if stored == pack.stored || !self.archive.can_open() {
            return Ok(stored == pack.stored);
        }
        match self.archive.reader(&self.place.pack(&pack.name), ObjectKind::Pack).await {
            Ok(found) => Ok(pack.index_at.checked_add(pack.index_len) == Some(found.content_len())),
            Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Key | Kind::Absent) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The stored packs whose names are well-formed, with their stored sizes.
    pub async fn packs(&self, of: &BackupId) -> Result<BTreeMap<PackName, u64>> {
        let prefix = self.place.packs_prefix();
        let entries: Vec<_> =
            self.archive.storage().list(&self.place.backup_packs_prefix(of)).try_collect().await?;
        let name = |key: &str| key.strip_prefix(&prefix)?.strip_prefix('/')?.parse::<PackName>().ok();
        Ok(entries.iter().filter_map(|entry| Some((name(&entry.key)?, entry.size))).collect())
    }
}
