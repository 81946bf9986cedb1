//! What should be there, from listings and manifests, and what is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::memory::{Memory, Seen};
use super::proving::is_of_one;
use super::room::{Room, catalogs};
use super::{DumpPromise, EVERYTHING, Problem, Promise, UNREACHABLE, VerifyRequest, may_be_sound};
use crate::archive::{
    Archive, ArchiveInfo, BackupId, Catalog, ObjectKind, PackName, PackRecord, WrittenContent, kind_of,
    wal_of,
};
use crate::error::{Error, Kind, Result};
use crate::wal::{TimelineId, WalName};

/// An object whose bytes can be proven.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) size: u64,
    /// Of a pack: what a manifest says of it.
    pub(super) record: Option<Arc<PackRecord>>,
}

/// What was found.
pub(super) struct Survey {
    rooms: Vec<Room>,
    objects: BTreeMap<String, Object>,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
    /// Why something could not be read, and may hold or not.
    pub(super) unread: Option<Kind>,
}

impl Survey {
    /// Looks at what is listed, and at the manifests.
    pub(super) async fn make(
        archive: &Archive,
        request: &VerifyRequest,
        memory: Option<&Memory>,
    ) -> Result<Survey> {
        let mut survey = Survey {
            rooms: Vec::new(),
            objects: BTreeMap::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            unread: None,
        };
        if let Err(error) = ArchiveInfo::prove(archive.storage().as_ref()).await {
            survey.take(error)?;
        }
        let catalogs = match catalogs(archive, request).await {
            // A mirror that is not proven to be this archive is not looked at, and was named.
            Err(_) if !survey.problems.is_empty() => return Ok(survey),
            catalogs => catalogs?,
        };
        for catalog in catalogs {
            survey.room(catalog, request).await?;
        }
        if let Some(id) = &request.only {
            survey.only(id)?;
        }
        survey.look_for_packs().await?;
        survey.forget_what_was_deleted().await?;
        survey.look_for_wal(request.only.is_some()).await?;
        survey.look_at_heads().await?;
        if let (Some(memory), None) = (memory, &request.only) {
            survey.compare(memory);
        }
        survey.tell_what_is_endangered();
        Ok(survey)
    }

    /// Objects that there are.
    pub(super) fn objects(&self) -> u64 {
        self.objects.len() as u64 + 1
    }

    /// The objects that are to be read.
    pub(super) fn wanted(&self, wanted: impl Fn(&str) -> bool) -> Vec<Object> {
        self.objects.values().filter(|object| wanted(&object.key)).cloned().collect()
    }

    /// What a manifest says of a pack.
    pub(super) fn record(&self, key: &str) -> Option<&PackRecord> {
        let records = self.rooms.iter().flat_map(|room| {
            let packs = room.manifests.iter().flat_map(|written| &written.packs);
            packs.map(|pack| (room.catalog.place.pack(&pack.name), pack))
        });
        records.into_iter().find(|(name, _)| name == key).map(|(_, record)| record.as_ref())
    }

    /// An error that tells of a problem becomes one; another is an error still.
    fn take(&mut self, error: Error) -> Result<()> {
        match (error.kind(), error.object()) {
            (kind, Some(key)) if is_of_one(kind) => {
                let key = key.to_owned();
                self.fails(&key, &error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// An object does not hold, or cannot be read.
    pub(super) fn fails(&mut self, key: &str, error: &Error) {
        if may_be_sound(error.kind()) {
            self.unread.get_or_insert(error.kind());
        }
        self.add(Problem::new(key, error));
    }

    fn problem(&mut self, kind: &'static str, key: &str, detail: String) {
        let object = key.to_owned();
        self.add(Problem { kind, object, detail, endangers: Vec::new(), archive: String::new() });
    }

    fn add(&mut self, mut problem: Problem) {
        if self.problems.iter().all(|known| known.object != problem.object) {
            problem.endangers = self.endangered(&problem.object);
            self.problems.push(problem);
        }
    }

    async fn room(&mut self, catalog: Catalog, request: &VerifyRequest) -> Result<()> {
        let mut listed = catalog.marks().await?.manifests;
        if let Some(only) = &request.only {
            listed.retain(|id| id == only);
        }
        let prefix = catalog.place.root();
        let mut entries = catalog.archive.storage().list(&prefix);
        while let Some(entry) = entries.try_next().await? {
            let is_ours = match kind_of(&entry.key) {
                Some((ObjectKind::Wal, _)) => wal_of(&entry.key).is_some(),
                known => known.is_some(),
            };
            if !is_ours {
                self.notes.push(format!("{} is nothing of an archive's, and is left alone", entry.key));
                continue;
            }
            let object = Object { key: entry.key.clone(), size: entry.size, record: None };
            self.objects.insert(entry.key, object);
        }
        let past = match catalog.place.system() {
            Some(_) => match catalog.past().await {
                Ok(past) => Some(past),
                Err(error) => {
                    self.take(error)?;
                    None
                }
            },
            None => None,
        };
        let mut manifests = Vec::new();
        if !catalog.archive.can_open() {
            self.look_at_manifests(&catalog, &listed).await?;
        } else {
            let reads = listed.iter().map(|id| catalog.written(id));
            let mut reads = futures::stream::iter(reads).buffered(request.jobs.max(1));
            while let Some(read) = reads.next().await {
                match read {
                    Ok(Some(written)) => manifests.push(written),
                    Ok(None) => {}
                    Err(error) => self.take(error)?,
                }
            }
        }
        manifests.sort_by_key(|written| match &written.content {
            WrittenContent::Backup(facts) => (facts.started_at, 0),
            WrittenContent::Dump(facts) => (facts.started_at, facts.number),
        });
        if let Some(past) = &past {
            for problem in past.problems.iter().filter(|problem| problem.kind() != Kind::Key) {
                self.fails(problem.object().unwrap_or_default(), problem);
            }
        }
        self.rooms.push(Room { catalog, past, manifests, listed });
        Ok(())
    }

    /// What can be told of manifests without a key: that they are those of their names, and who signed them.
    async fn look_at_manifests(&mut self, catalog: &Catalog, listed: &BTreeSet<BackupId>) -> Result<()> {
        for id in listed {
            let looked = catalog.archive.look_at(&catalog.place.manifest(id), ObjectKind::Manifest).await;
            match looked {
                Err(error) if error.kind() != Kind::Absent => self.take(error)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Leaves out what one backup or dump does not need.
    fn only(&mut self, id: &BackupId) -> Result<()> {
        self.rooms.retain(|room| room.listed.contains(id));
        let Some(room) = self.rooms.first() else {
            return Err(Error::new(Kind::Absent, format!("there is no backup or dump {id}"))
                .hint("'walarchive backup list' and 'walarchive dump list' show what there is"));
        };
        let mut needed: BTreeSet<String> =
            room.manifests.iter().flat_map(|written| room.needs(written)).collect();
        needed.insert(room.catalog.place.manifest(id));
        self.objects.retain(|key, _| needed.contains(key));
        self.problems.retain(|problem| needed.contains(&problem.object));
        Ok(())
    }

    /// Packs that manifests name must be there, in their length.
    async fn look_for_packs(&mut self) -> Result<()> {
        let mut found = Vec::new();
        let mut unneeded = (0, 0);
        for room in &self.rooms {
            let packs = room.manifests.iter().flat_map(|written| &written.packs);
            let packs: BTreeMap<&PackName, &Arc<PackRecord>> = packs.map(|pack| (&pack.name, pack)).collect();
            for record in packs.values() {
                let key = room.catalog.place.pack(&record.name);
                match self.objects.get_mut(&key) {
                    None => found.push(("missing", key, "a pack is not there".to_owned())),
                    Some(object) if !room.catalog.is_whole(record, object.size).await? => {
                        let detail =
                            format!("a pack has {} bytes where {} belong", object.size, record.stored);
                        found.push(("damaged", key, detail));
                    }
                    Some(object) => object.record = Some((*record).clone()),
                }
            }
            let is_pack = |key: &&String| key.starts_with(&format!("{}/", room.catalog.place.packs_prefix()));
            for key in self.objects.keys().filter(is_pack) {
                if self.objects.get(key).is_some_and(|object| object.record.is_none())
                    && !found.iter().any(|(_, known, _)| known == key)
                {
                    unneeded.0 += 1;
                    unneeded.1 += self.objects.get(key).map_or(0, |object| object.size);
                }
            }
        }
        if unneeded.0 > 0 && self.rooms.iter().all(|room| room.catalog.archive.can_open()) {
            self.notes.push(format!(
                "no manifest names {} of the packs ({} bytes): of backups or dumps that are under way, were cut off, or whose manifest is gone",
                unneeded.0, unneeded.1
            ));
        }
        for (kind, key, detail) in found {
            self.problem(kind, &key, detail);
        }
        Ok(())
    }

    /// Segments must be there that lie between others, and those that backups need.
    async fn look_for_wal(&mut self, only_needed: bool) -> Result<()> {
        let mut missing = Vec::new();
        for room in &self.rooms {
            let Some(past) = &room.past else { continue };
            let between = if only_needed { Vec::new() } else { room.catalog.missing(past).await? };
            let mut keys: Vec<String> =
                between.into_iter().map(|name| room.catalog.place.wal(&WalName::Segment(name))).collect();
            keys.extend(room.manifests.iter().flat_map(|written| room.wal_of(written)));
            keys.retain(|key| !self.objects.contains_key(key));
            missing.extend(keys);
        }
        for key in missing {
            self.problem("missing", &key, "a WAL segment is not there".to_owned());
        }
        Ok(())
    }

    /// Looks at the heads of what is told by its name alone: pins, and the newest segment of each timeline.
    async fn look_at_heads(&mut self) -> Result<()> {
        let mut keys: Vec<(Catalog, String, ObjectKind)> = Vec::new();
        for room in &self.rooms {
            let newest =
                room.past.iter().flat_map(|past| past.wal.segments.values().filter_map(|names| names.last()));
            let newest =
                newest.map(|name| (room.catalog.place.wal(&WalName::Segment(*name)), ObjectKind::Wal));
            let pins = room.listed.iter().map(|id| (room.catalog.place.pin(id), ObjectKind::Pin));
            let there = newest.chain(pins).filter(|(key, _)| self.objects.contains_key(key));
            keys.extend(there.map(|(key, kind)| (room.catalog.clone(), key, kind)));
        }
        for (catalog, key, kind) in keys {
            match catalog.archive.look_at(&key, kind).await {
                Err(error) if error.kind() != Kind::Absent => self.take(error.on(key))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Holds what there is against what was seen before.
    fn compare(&mut self, memory: &Memory) {
        let mut found = Vec::new();
        let hint = format!("if that was on purpose, remove {}", memory.path().display());
        if let Some(before) = memory.of_another() {
            let detail = format!(
                "another archive was seen at this place before; if that was on purpose, remove {}",
                before.display()
            );
            self.problem("rolled-back", "archive.json", detail);
        }
        for room in &self.rooms {
            let Some(seen) = memory.seen(&room.catalog.place.root()) else { continue };
            if let Some(id) = seen.manifest.as_ref().and_then(|id| id.parse::<BackupId>().ok())
                && room.listed.last().is_none_or(|newest| *newest < id)
            {
                let noun = room.catalog.place.noun();
                let detail = format!(
                    "{noun} {id}, the newest that was seen here, is gone, and there is none after it; {hint}"
                );
                found.push((room.catalog.place.manifest(&id), detail));
            }
            let Some(past) = &room.past else { continue };
            for (timeline, last) in &seen.wal {
                let Ok(WalName::Segment(last)) = last.parse::<WalName>() else { continue };
                let newest = TimelineId::new(*timeline)
                    .ok()
                    .and_then(|timeline| past.wal.segments.get(&timeline)?.last());
                if newest.is_none_or(|newest| *newest < last) {
                    let key = room.catalog.place.wal(&WalName::Segment(last));
                    let ends = newest.map_or("nothing is left of it".to_owned(), |newest| {
                        format!("it ends with {newest}")
                    });
                    found.push((key, format!("{last}, the last segment that was seen of timeline {timeline}, is gone: {ends}; {hint}")));
                }
            }
        }
        for (key, detail) in found {
            self.problem("rolled-back", &key, detail);
        }
    }

    /// Notes the newest of what there is.
    pub(super) fn remember(&self, memory: &mut Memory) {
        if self.problems.iter().any(|problem| problem.kind == "rolled-back") {
            return;
        }
        // What only has the name of something newer must not take its place.
        let holds = |key: &String| !self.problems.iter().any(|problem| problem.object == *key);
        for room in &self.rooms {
            let place = &room.catalog.place;
            let wal = room.past.iter().flat_map(|past| &past.wal.segments);
            let last = wal.filter_map(|(timeline, names)| {
                let last = names.iter().rfind(|name| holds(&place.wal(&WalName::Segment(**name))))?;
                Some((timeline.get(), last.to_string()))
            });
            let manifest = room.listed.iter().rfind(|id| holds(&place.manifest(id)));
            let seen = Seen { manifest: manifest.map(BackupId::to_string), wal: last.collect() };
            memory.see(room.catalog.place.root(), seen);
        }
    }

    /// Whether a backup or dump that is there still needs an object.
    pub(super) async fn is_needed(&self, key: &str) -> Result<bool> {
        for room in &self.rooms {
            for written in room.manifests.iter().filter(|written| room.needs(written).contains(key)) {
                if room.catalog.exists(&written.id).await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Forgets what is missing because those who needed it were deleted since they were listed.
    async fn forget_what_was_deleted(&mut self) -> Result<()> {
        let packs = self.problems.iter().filter(|problem| {
            problem.kind == "missing" && matches!(kind_of(&problem.object), Some((ObjectKind::Pack, _)))
        });
        let packs: Vec<String> = packs.map(|problem| problem.object.clone()).collect();
        for key in packs {
            if !self.is_needed(&key).await? {
                self.problems.retain(|problem| problem.object != key);
            }
        }
        Ok(())
    }

    /// What was found before all manifests were read may endanger more than was known then.
    fn tell_what_is_endangered(&mut self) {
        let endangered: Vec<_> =
            self.problems.iter().map(|problem| self.endangered(&problem.object)).collect();
        for (problem, endangered) in self.problems.iter_mut().zip(endangered) {
            problem.endangers = endangered;
        }
    }

    /// What needs an object.
    fn endangered(&self, key: &str) -> Vec<String> {
        let mut endangered = Vec::new();
        for room in self.rooms.iter().filter(|room| room.catalog.place.contains(key)) {
            for written in &room.manifests {
                if room.needs(written).contains(key) {
                    endangered.push(written.name());
                }
            }
            endangered.extend(room.after(key));
        }
        match kind_of(key) {
            Some((ObjectKind::Manifest, Some(id))) if endangered.is_empty() => {
                endangered.push(id.to_string())
            }
            Some((ObjectKind::Pin, Some(id))) => endangered.push(format!("the pin of {id}")),
            None => endangered.push(EVERYTHING.to_owned()),
            _ => {}
        }
        endangered
    }

    /// Manifests that the other copy has, of backups and dumps whose packs are here.
    pub(super) async fn lost_manifests(&mut self, other: &Archive) {
        let mut lost = Vec::new();
        for room in &self.rooms {
            let of_packs = self.objects.values().filter(|object| object.record.is_none());
            let ids = of_packs.filter_map(|object| match kind_of(&object.key) {
                Some((ObjectKind::Pack, Some(id))) if room.catalog.place.contains(&object.key) => Some(id),
                _ => None,
            });
            let ids: BTreeSet<BackupId> = ids.filter(|id| !room.listed.contains(id)).collect();
            for id in ids {
                let key = room.catalog.place.manifest(&id);
                if other.storage().size(&key).await.is_ok() {
                    lost.push(key);
                }
            }
        }
        for key in lost {
            self.problem("missing", &key, "the manifest is gone, and the other copy has it".to_owned());
        }
    }

    /// What a copy of the archive could make good: what others need first.
    pub(super) fn problems_to_repair(&self) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        problems.retain(|problem| problem.kind != "key" && problem.kind != UNREACHABLE);
        problems.sort_by_key(|problem| matches!(kind_of(&problem.object), Some((ObjectKind::Manifest, _))));
        problems
    }

    /// What backups and dumps lead to.
    pub(super) fn promises(&self) -> (Vec<Promise>, Vec<DumpPromise>) {
        let bad: BTreeSet<&str> = self.problems.iter().map(|problem| problem.object.as_str()).collect();
        let (mut backups, mut dumps) = (Vec::new(), Vec::new());
        for room in &self.rooms {
            for written in &room.manifests {
                let needs = room.needs(written);
                let because_of: Vec<String> =
                    needs.iter().filter(|key| bad.contains(key.as_str())).cloned().collect();
                let restorable = because_of.is_empty();
                match &written.content {
                    WrittenContent::Backup(facts) => backups.push(Promise {
                        id: written.id.to_string(),
                        restorable,
                        from: facts.finished_at,
                        leads_to: if restorable { room.leads_to(written, facts, &bad) } else { Vec::new() },
                        because_of,
                    }),
                    WrittenContent::Dump(facts) => dumps.push(DumpPromise {
                        id: written.id.to_string(),
                        database: facts.database.clone(),
                        restorable,
                        because_of,
                    }),
                }
            }
        }
        (backups, dumps)
    }
}
