//! A copy of an archive brought to what the archive has.

mod kept;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;

pub use self::kept::KeptRules;
pub use self::plan::Wanted;
use self::plan::{Item, ManifestItem, RoomPlan};
use crate::archive::{Archive, ArchiveInfo, Brought, Catalog, ClusterName, Keys, bring_manifest_resealed};
use crate::error::{Error, Kind, Result, Troubles};
use crate::progress::Progress;
use crate::storage::Storage;

/// What is to be copied, and where to.
pub struct CopyRequest {
    /// The archive; it is only read.
    pub from: Archive,
    /// The copy. Nothing in it is changed or removed.
    pub to: Archive,
    /// Only this cluster.
    pub cluster: Option<ClusterName>,
    /// What of it.
    pub wanted: Wanted,
    /// Objects are sealed anew for the readers of the copy, instead of copied as they are.
    pub reseal: bool,
    /// Objects that are copied at once.
    pub jobs: usize,
    /// Hears how far it is.
    pub progress: Arc<dyn Progress>,
}

/// What was copied.
#[derive(Debug, Default, Serialize)]
pub struct Copied {
    /// Objects.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub there: u64,
    /// Backups and dumps that the copy has now.
    pub manifests: Vec<String>,
    /// What was not copied, and why.
    pub problems: Troubles,
}

/// Opens the place of a copy, and makes it one if it is empty. With recipients in `seal_for`, what is copied there is sealed for
/// them; else the copy is one object by object.
///
/// # Errors
///
/// `Conflict` when another archive is there.
pub async fn destination(
    storage: Arc<dyn Storage>,
    from: &Archive,
    keys: Keys,
    reseal: bool,
) -> Result<Archive> {
    let wanted = if reseal { from.info().encrypting() } else { from.info().clone() };
    let (found, _) = wanted.clone().create(storage.as_ref()).await?;
    is_copy(&wanted, &found)?;
    Archive::open(storage, keys).await
}

fn is_copy(wanted: &ArchiveInfo, found: &ArchiveInfo) -> Result<()> {
    if wanted.id() != found.id() {
        let message = format!(
            "there is archive {} at the destination, and the source is archive {}",
            found.id(),
            wanted.id()
        );
        return Err(Error::new(Kind::Conflict, message)
            .hint("nothing was changed; a copy is made in an empty place, which 'init' has not touched"));
    }
    if wanted.encrypted() != found.encrypted() {
        let is = if found.encrypted() { "encrypted" } else { "not encrypted" };
        return Err(Error::new(Kind::Conflict, format!("the copy at the destination is {is}"))
            .hint("nothing was changed; a copy that is sealed for others is made, and gone on with, with --recipient"));
    }
    Ok(())
}

/// How far a copy is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Objects that it lacks.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// When the first of the backups and dumps began that it lacks.
    pub since: Option<Timestamp>,
    /// Manifests of the source that do not hold, whose backups and dumps will not come.
    pub unreadable: u64,
}

/// Looks at what a copy would bring.
pub async fn lag(request: &CopyRequest) -> Result<Lag> {
    let plan::Plan { mut rooms, unreadable, .. } = plan::plan(&request.from, &request.to, request).await?;
    for room in &mut rooms {
        room.forget_same(request).await?;
    }
    let unreadable = unreadable.len() as u64;
    let sizes = rooms.iter().flat_map(RoomPlan::sizes);
    let (objects, bytes) = sizes.fold((0, 0), |(objects, bytes), size| (objects + 1, bytes + size));
    let since =
        rooms.iter().flat_map(|room| &room.manifests).filter_map(|manifest| manifest.id.began()).min();
    Ok(Lag { objects, bytes, since, unreadable })
}

/// Copies what is missing: WAL and packs first, each proven as it passes; then the manifests of what is there wholly. So the copy is a
/// working archive at every moment, and what was interrupted goes on where it was. What is damaged in the source is told and
/// not copied, nor what depends on it.
///
/// # Errors
///
/// When it could not begin; what could not be copied is told in the result.
pub async fn copy(request: &CopyRequest) -> Result<Copied> {
    let plan = plan::plan(&request.from, &request.to, request).await?;
    let mut copied = Copied { there: plan.there, ..Copied::default() };
    for (key, error) in plan.unreadable {
        copied.problems.add(&key, error);
    }
    let total = plan.rooms.iter().flat_map(RoomPlan::sizes).sum();
    request.progress.begin("copying", total);
    for room in &plan.rooms {
        let run = Run { request, room };
        if !run.all(&mut copied).await {
            break;
        }
    }
    request.progress.end();
    Ok(copied)
}

struct Run<'a> {
    request: &'a CopyRequest,
    room: &'a RoomPlan,
}

impl Run<'_> {
    /// Copies what is missing of one place; `false` when going on is of no use.
    async fn all(&self, copied: &mut Copied) -> bool {
        let Some(failed) = self.many(&self.room.first, copied).await else { return false };
        let mut manifests = Vec::new();
        for manifest in &self.room.manifests {
            match self.may_come(manifest, &failed).await {
                Ok(true) => manifests.push(manifest),
                Ok(false) => {}
                Err(error) => copied.problems.add(&manifest.item.key, error),
            }
        }
        for manifest in manifests {
            match self.manifest(manifest, copied).await {
                Ok(()) => copied.manifests.push(manifest.id.to_string()),
                Err(error) if error.kind() == Kind::Absent => {}
                Err(error) => {
                    let is_over = error.kind().concerns_all();
                    copied.problems.add(&manifest.item.key, error);
                    if is_over {
                        return false;
                    }
                }
            }
        }
        self.many(&self.room.last, copied).await.is_some()
    }

    /// Whether all that a manifest needs is in the copy. One that was deleted meanwhile may have lost some of it.
    async fn may_come(&self, manifest: &ManifestItem, failed: &BTreeSet<String>) -> Result<bool> {
        if !self.room.catalog.exists(&manifest.id).await? {
            return Ok(false);
        }
        let name = format!("{} {}", self.room.catalog.place.noun(), manifest.id);
        let lacks = match &manifest.needs {
            Some(needs) => needs.iter().find(|key| failed.contains(*key)),
            // Which it needs cannot be told without an identity.
            None => failed.iter().find(|key| key.starts_with(&self.room.catalog.place.packs_prefix())),
        };
        match lacks {
            None => Ok(true),
            Some(key) => {
                Err(Error::damaged(format!("{name} was not copied: it needs {key}, which could not be")))
            }
        }
    }

    /// Copies objects, several at once. Gives what could not be; none when going on is of no use.
    async fn many(&self, items: &[Item], copied: &mut Copied) -> Option<BTreeSet<String>> {
        let mut failed = BTreeSet::new();
        let mut results = futures::stream::iter(items)
            .map(|item| async move { (item, self.bring(item).await) })
            .buffer_unordered(self.request.jobs.max(1));
        while let Some((item, result)) = results.next().await {
            let result =
                result.and_then(|brought| self.request.progress.advance(item.size).map(|()| brought));
            match result {
                Ok(brought) => count(brought, copied),
                Err(error) => {
                    let is_over = error.kind().concerns_all();
                    failed.insert(item.key.clone());
                    // What retention has removed is needed by nothing that is still there.
                    if error.kind() != Kind::Absent {
                        copied.problems.add(&item.key, error);
                    }
                    if is_over {
                        return None;
                    }
                }
            }
        }
        Some(failed)
    }

    async fn manifest(&self, manifest: &ManifestItem, copied: &mut Copied) -> Result<()> {
        let brought = match self.request.reseal {
            true => {
                let (to, catalog) = (&self.request.to, &self.room.catalog);
                let there = Catalog { archive: to.clone(), place: catalog.place.clone() };
                bring_manifest_resealed(to, catalog, &manifest.id, there.all_packs().await?).await?
            }
            false => self.bring(&manifest.item).await?,
        };
        self.request.progress.advance(manifest.item.size)?;
        count(brought, copied);
        Ok(())
    }

    async fn bring(&self, item: &Item) -> Result<Brought> {
        let (from, to, record) = (&self.request.from, &self.request.to, item.record.as_deref());
        match self.request.reseal {
            true => to.bring_resealed(from, &item.key, record).await,
            false => to.bring(from, &item.key, record).await,
        }
    }
}

fn count(brought: Brought, copied: &mut Copied) {
    match brought {
        Brought::New(bytes) => {
            copied.objects += 1;
            copied.bytes += bytes;
        }
        Brought::There => copied.there += 1,
    }
}

/// The moment before which nothing is copied.
pub fn since(age: std::time::Duration) -> Result<Timestamp> {
    Timestamp::now().checked_sub(age).map_err(|_| Error::usage("nothing is that old"))
}
