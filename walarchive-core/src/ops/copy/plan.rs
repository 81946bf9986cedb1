//! What a copy lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::CopyRequest;
use super::kept::{Kept, KeptRules};
use crate::archive::{
    Archive, BackupId, Catalog, ClusterName, ObjectKind, PackRecord, Place, Written, WrittenContent, kind_of,
    wal_of,
};
use crate::error::{Error, Kind, Result};
use crate::wal::{SegmentSize, WalName};

/// What is to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// WAL.
    pub wal: bool,
    /// Base backups.
    pub backups: bool,
    /// Logical dumps.
    pub dumps: bool,
    /// Only backups and dumps that began then or later, and the WAL from the first of them on.
    pub since: Option<Timestamp>,
    /// Only the newest backup and the WAL from it on, and the newest dump of each database.
    pub newest: bool,
    /// Only what these rules keep.
    pub kept: Option<KeptRules>,
}

impl Wanted {
    fn is_all(&self) -> bool {
        self.since.is_none() && !self.newest && self.kept.is_none()
    }
}

/// An object that is to be copied.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) size: u64,
    /// Of a pack: what a manifest says of it.
    pub(super) record: Option<Arc<PackRecord>>,
}

/// A manifest that is to be copied.
#[derive(Debug)]
pub(super) struct ManifestItem {
    pub(super) id: BackupId,
    pub(super) item: Item,
    /// The keys of what it needs; unknown without an identity.
    pub(super) needs: Option<BTreeSet<String>>,
}

/// What is to be copied of one place, in this order.
#[derive(Debug)]
pub(super) struct RoomPlan {
    pub(super) catalog: Catalog,
    /// WAL, and packs.
    pub(super) first: Vec<Item>,
    pub(super) manifests: Vec<ManifestItem>,
    /// Pins, and reports of drills.
    pub(super) last: Vec<Item>,
    /// The keys of those that the copy has in another length.
    differ: BTreeSet<String>,
}

impl RoomPlan {
    /// Forgets what the copy has under another head: it is the same for other readers.
    pub(super) async fn forget_same(&mut self, request: &CopyRequest) -> Result<()> {
        let mut same = BTreeSet::new();
        for key in &self.differ {
            if request.to.has_same(&request.from, key).await? {
                same.insert(key.clone());
            }
        }
        self.first.retain(|item| !same.contains(&item.key));
        self.last.retain(|item| !same.contains(&item.key));
        self.manifests.retain(|manifest| !same.contains(&manifest.item.key));
        Ok(())
    }

    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        let manifests = self.manifests.iter().map(|manifest| &manifest.item);
        self.first.iter().chain(manifests).chain(&self.last).map(|item| item.size)
    }
}

/// What is to be copied.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) rooms: Vec<RoomPlan>,
    /// Objects that the copy has.
    pub(super) there: u64,
    /// Manifests of the source that cannot be read.
    pub(super) unreadable: Vec<(String, Error)>,
}

type Listing = BTreeMap<String, u64>;

/// Makes the plan. The source's manifests are listed before what they need, so that all of that is listed too.
pub(super) async fn plan(from: &Archive, to: &Archive, request: &CopyRequest) -> Result<Plan> {
    if !request.wanted.is_all() && !from.can_open() {
        return Err(Error::new(
            Kind::Key,
            "which packs the newest backups need cannot be told without an identity",
        )
        .hint("copy everything, or name an identity in WALARCHIVE_IDENTITY_FILE"));
    }
    let mut plan = Plan::default();
    for cluster in clusters(from, request.cluster.as_ref()).await? {
        let there = list(to, &cluster.to_string()).await?;
        for catalog in rooms(from, &cluster, &request.wanted).await? {
            let room = Making { request, there: &there, catalog };
            let room = room.make(&mut plan).await?;
            plan.rooms.push(room);
        }
    }
    Ok(plan)
}

async fn list(archive: &Archive, prefix: &str) -> Result<Listing> {
    let entries = archive.storage().list(prefix).map_ok(|entry| (entry.key, entry.size));
    entries.try_collect().await
}

async fn clusters(from: &Archive, only: Option<&ClusterName>) -> Result<Vec<ClusterName>> {
    let names = from.storage().list_dirs("").await?;
    let mut clusters: Vec<ClusterName> = names.iter().filter_map(|name| name.parse().ok()).collect();
    if let Some(only) = only {
        if !clusters.contains(only) {
            return Err(Error::new(
                Kind::Absent,
                format!("the source holds nothing of a cluster named {only}"),
            ));
        }
        clusters.retain(|cluster| cluster == only);
    }
    clusters.sort();
    Ok(clusters)
}

async fn rooms(from: &Archive, cluster: &ClusterName, wanted: &Wanted) -> Result<Vec<Catalog>> {
    let rooms = from.storage().list_dirs(&cluster.to_string()).await?;
    let mut systems: Vec<_> = rooms.iter().filter_map(|room| room.parse().ok()).collect();
    systems.sort();
    let mut places: Vec<Place> = Vec::new();
    if wanted.wal || wanted.backups {
        places.extend(systems.into_iter().map(|system| Place::of_system(cluster.clone(), system)));
    }
    let dumps = Place::of_dumps(cluster.clone());
    if wanted.dumps && rooms.contains(&dumps.room.to_string()) {
        places.push(dumps);
    }
    Ok(places.into_iter().map(|place| Catalog { archive: from.clone(), place }).collect())
}

/// The plan of one place, being made.
struct Making<'a> {
    request: &'a CopyRequest,
    there: &'a Listing,
    catalog: Catalog,
}

impl Making<'_> {
    async fn make(self, plan: &mut Plan) -> Result<RoomPlan> {
        let place = &self.catalog.place;
        let has_manifests = place.system().is_none() || self.request.wanted.backups;
        let listed = if has_manifests { self.catalog.marks().await?.manifests } else { BTreeSet::new() };
        let source = list(&self.catalog.archive, &place.root()).await?;
        plan.there += source.keys().filter(|key| self.there.contains_key(*key)).count() as u64;
        let written = self.written(&listed, &source, plan).await?;
        let mut chosen = chosen(&listed, &written, &self.request.wanted);
        let kept = match &self.request.wanted.kept {
            Some(rules) => Some(Kept::of(&self.catalog, rules).await?),
            None => None,
        };
        if let Some(kept) = &kept {
            chosen.retain(|id| kept.ids.contains(id));
        }
        let packs = self.packs(&source, &listed, &written, &chosen);
        let mut first = self.wal(&source, &written, &chosen, kept.as_ref());
        first.extend(packs);
        let first = self.absent(first);
        let mut manifests = Vec::new();
        for id in listed.iter().filter(|id| chosen.contains(*id)) {
            let key = place.manifest(id);
            let item = Item { size: source.get(&key).copied().unwrap_or_default(), key, record: None };
            let Some(item) = self.absent(vec![item]).pop() else { continue };
            let needs = written.get(id).map(|written| self.needs(written));
            if needs.is_some() || !self.catalog.archive.can_open() {
                manifests.push(ManifestItem { id: id.clone(), item, needs });
            }
        }
        let pins = listed.iter().filter(|id| chosen.contains(*id)).map(|id| place.pin(id));
        let pins = pins.filter_map(|key| Some(Item { size: *source.get(&key)?, key, record: None }));
        let is_report = |key: &&String| matches!(kind_of(key), Some((ObjectKind::Report, _)));
        let reports = source.keys().filter(is_report).cloned();
        let reports = reports.filter_map(|key| Some(Item { size: *source.get(&key)?, key, record: None }));
        let last = self.absent(pins.chain(reports).collect());
        let of_manifests = manifests.iter().map(|manifest: &ManifestItem| &manifest.item);
        let keys = first.iter().chain(of_manifests).chain(&last).map(|item| &item.key);
        let differ = keys.filter(|key| self.there.contains_key(*key)).cloned().collect();
        Ok(RoomPlan { catalog: self.catalog, first, manifests, last, differ })
    }

    /// Those that the copy lacks, or has in another length.
    fn absent(&self, items: Vec<Item>) -> Vec<Item> {
        let is_there = |item: &Item| match self.there.get(&item.key) {
            // What is sealed anew for others may be longer or shorter.
            Some(size) => self.request.reseal || *size == item.size,
            None => false,
        };
        items.into_iter().filter(|item| !is_there(item)).collect()
    }

    /// The manifests, as far as they can be read and must be: those that the copy lacks; and all others, if it lacks packs that
    /// these do not name.
    async fn written(
        &self,
        listed: &BTreeSet<BackupId>,
        source: &Listing,
        plan: &mut Plan,
    ) -> Result<BTreeMap<BackupId, Written>> {
        if !self.catalog.archive.can_open() {
            return Ok(BTreeMap::new());
        }
        let place = &self.catalog.place;
        let is_new = |id: &BackupId| !self.there.contains_key(&place.manifest(id));
        let (new, old): (BTreeSet<BackupId>, BTreeSet<BackupId>) = listed.iter().cloned().partition(is_new);
        let mut written = self.read(&new, plan).await?;
        let named: BTreeSet<String> = written.values().flat_map(|written| self.needs(written)).collect();
        let is_pack = |key: &&String| matches!(kind_of(key), Some((ObjectKind::Pack, _)));
        let lacks = |key: &String| !self.there.contains_key(key) && !named.contains(key);
        if !self.request.wanted.is_all() || source.keys().filter(is_pack).any(lacks) {
            written.extend(self.read(&old, plan).await?);
        }
        Ok(written)
    }

    async fn read(
        &self,
        listed: &BTreeSet<BackupId>,
        plan: &mut Plan,
    ) -> Result<BTreeMap<BackupId, Written>> {
        let mut all = BTreeMap::new();
        let reads =
            futures::stream::iter(listed).map(|id| async move { (id, self.catalog.written(id).await) });
        let mut reads = reads.buffered(self.request.jobs.max(1));
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(Some(written)) => drop(all.insert(id.clone(), written)),
                Ok(None) => {}
                Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Key) => {
                    plan.unreadable.push((self.catalog.place.manifest(id), error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The packs that what was chosen needs; without an identity, all that are not of something under way.
    fn packs(
        &self,
        source: &Listing,
        listed: &BTreeSet<BackupId>,
        written: &BTreeMap<BackupId, Written>,
        chosen: &BTreeSet<BackupId>,
    ) -> Vec<Item> {
        let place = &self.catalog.place;
        if self.catalog.archive.can_open() {
            let of_chosen = written.iter().filter(|(id, _)| chosen.contains(*id));
            let records = of_chosen.flat_map(|(_, written)| &written.packs);
            let records: BTreeMap<String, &Arc<PackRecord>> =
                records.map(|record| (place.pack(&record.name), record)).collect();
            let item = |(key, record): (String, &Arc<PackRecord>)| Item {
                key,
                size: record.stored,
                record: Some(record.clone()),
            };
            return records.into_iter().map(item).collect();
        }
        let is_whole = |key: &String| match kind_of(key) {
            Some((ObjectKind::Pack, Some(id))) => listed.contains(&id) || listed.last() > Some(&id),
            _ => false,
        };
        let packs = source.iter().filter(|(key, _)| is_whole(key));
        packs.map(|(key, size)| Item { key: key.clone(), size: *size, record: None }).collect()
    }

    /// The WAL: histories first, then the segments in their order, from the first one on that what was chosen needs.
    fn wal(
        &self,
        source: &Listing,
        written: &BTreeMap<BackupId, Written>,
        chosen: &BTreeSet<BackupId>,
        kept: Option<&Kept>,
    ) -> Vec<Item> {
        if !self.request.wanted.wal {
            return Vec::new();
        }
        let starts = written.iter().filter(|(id, _)| chosen.contains(*id)).filter_map(|(_, written)| {
            match &written.content {
                WrittenContent::Backup(facts) => Some((facts.start_lsn, facts.segment_size)),
                WrittenContent::Dump(_) => None,
            }
        });
        let from = if self.request.wanted.is_all() { None } else { starts.min() };
        let from = from.and_then(|(lsn, size)| Some((lsn, SegmentSize::new(size).ok()?)));
        let is_wanted = |name: &WalName| match (name, from) {
            (WalName::History(_), _) | (_, None) => true,
            (
                WalName::Segment(segment) | WalName::Partial(segment) | WalName::Backup { segment, .. },
                Some((lsn, size)),
            ) => segment.segno(size).is_ok_and(|segno| {
                segno >= lsn.segno(size) && kept.is_none_or(|kept| kept.wal.has(segment.timeline, segno))
            }),
        };
        let files = source.iter().filter_map(|(key, size)| {
            let (name, _) = matches!(kind_of(key), Some((ObjectKind::Wal, _))).then(|| wal_of(key))??;
            is_wanted(&name).then(|| (name, Item { key: key.clone(), size: *size, record: None }))
        });
        let (histories, others): (Vec<_>, Vec<_>) =
            files.partition(|(name, _)| matches!(name, WalName::History(_)));
        histories.into_iter().chain(others).map(|(_, item)| item).collect()
    }

    fn needs(&self, written: &Written) -> BTreeSet<String> {
        written.packs.iter().map(|pack| self.catalog.place.pack(&pack.name)).collect()
    }
}

/// The backups, or dumps, that are to be copied.
fn chosen(
    listed: &BTreeSet<BackupId>,
    written: &BTreeMap<BackupId, Written>,
    wanted: &Wanted,
) -> BTreeSet<BackupId> {
    let mut chosen = listed.clone();
    if let Some(since) = wanted.since {
        chosen.retain(|id| id.began().is_some_and(|began| began >= since));
    }
    if wanted.newest {
        let mut newest: BTreeMap<String, (u64, Timestamp, BackupId)> = BTreeMap::new();
        for written in written.values() {
            let (of, order) = match &written.content {
                WrittenContent::Backup(facts) => (String::new(), (0, facts.started_at, written.id.clone())),
                WrittenContent::Dump(facts) => (
                    format!("{:?} {}", facts.content, facts.database),
                    (facts.number, facts.started_at, written.id.clone()),
                ),
            };
            let known = newest.entry(of).or_insert_with(|| order.clone());
            if order > *known {
                *known = order;
            }
        }
        chosen.retain(|id| newest.values().any(|(.., newest)| newest == id));
    }
    chosen
}
