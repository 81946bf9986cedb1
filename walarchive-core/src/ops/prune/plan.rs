//! What goes and what stays, from what was found: no input or output.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::archive::{BackupId, Lease, PackName, Place};
use crate::error::Error;
use crate::storage::Unfinished;

/// What was found in an archive, of one cluster.
#[derive(Debug, Default)]
pub struct Found {
    /// Unfinished uploads, and the backup that each belongs to.
    pub uploads: Vec<(Unfinished, Option<BackupId>)>,
    /// All packs with their stored sizes.
    pub packs: BTreeMap<PackName, u64>,
    /// All leases, listed after the packs and uploads.
    pub leases: Vec<Lease>,
    /// All pins.
    pub pins: BTreeSet<BackupId>,
    /// All backups that exist, listed after the leases.
    pub manifests: BTreeSet<BackupId>,
    /// The packs that their manifests name; `None` when that is not known.
    pub needed: Option<BTreeSet<PackName>>,
    /// What could not be found out.
    pub problems: Vec<Error>,
}

/// When something is old enough to go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time.
    pub now: Timestamp,
    /// What nobody needs stays so long at least.
    pub grace: Duration,
    /// A lease counts so long after its end.
    pub margin: Duration,
}

impl Limits {
    /// Whether the lease of a backup protects it.
    pub fn is_alive(&self, leases: &[Lease], id: &BackupId) -> bool {
        leases.iter().any(|lease| lease.backup == *id && self.lasts(lease))
    }

    /// Whether any backup may be running: it may point to packs of others, whose manifests are gone by now.
    pub fn is_any_alive(&self, leases: &[Lease]) -> bool {
        self.first_alive(leases).is_some()
    }

    /// A lease of a backup that may be running.
    pub(super) fn first_alive<'a>(&self, leases: &'a [Lease]) -> Option<&'a Lease> {
        leases.iter().find(|lease| self.lasts(lease))
    }

    fn lasts(&self, lease: &Lease) -> bool {
        self.is_younger(lease.until, self.margin)
    }

    /// Whether `since` is less than `age` ago, or not to be told.
    fn is_younger(&self, since: Timestamp, age: Duration) -> bool {
        since.checked_add(age).map_or(true, |end| end > self.now)
    }

    fn is_new(&self, id: &BackupId) -> bool {
        id.began().is_none_or(|began| self.is_younger(began, self.grace))
    }
}

/// Something that a dead writer left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// An upload that was not finished.
    Upload(Unfinished),
    /// A pack that no manifest names.
    Pack(PackName),
    /// The pin of a backup that does not exist.
    Pin(BackupId),
    /// A lease that has ended.
    Lease(Lease),
}

impl Leftover {
    /// Its name in results.
    pub fn name(&self) -> &'static str {
        match self {
            Leftover::Upload(_) => "unfinished upload",
            Leftover::Pack(_) => "pack",
            Leftover::Pin(_) => "pin",
            Leftover::Lease(_) => "lease",
        }
    }
}

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What it is.
    pub leftover: Leftover,
    /// Its key, or that which an upload was for.
    pub key: String,
    /// The backup that it belongs to.
    pub backup: Option<BackupId>,
    /// Stored bytes, when they are known.
    pub stored: Option<u64>,
    /// Why it is not needed.
    pub why: &'static str,
}

impl Removal {
    /// Whether it may only go as long as its backup does not exist.
    pub(super) fn is_of_dead_backup(&self) -> bool {
        matches!(self.leftover, Leftover::Pack(_) | Leftover::Pin(_))
    }
}

/// Leftovers that stay for now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// What they are, as [`Leftover::name`] says it.
    pub what: &'static str,
    /// The backup that they belong to.
    pub backup: Option<BackupId>,
    /// Why they stay.
    pub why: &'static str,
}

/// What a run removes.
#[derive(Debug, Default)]
pub struct PrunePlan {
    /// What goes, in this order within each backup.
    pub remove: Vec<Removal>,
    /// What stays although no backup needs it, and how many of each.
    pub keep: BTreeMap<Kept, usize>,
    /// What could not be found out, and so stays.
    pub problems: Vec<Error>,
}

const ALIVE: &str = "its backup may be running: its lease has not ended";
const RUNNING: &str = "a run of dumps may be going on, and may have made it";
const POINTED: &str = "a backup may be running, and point to it";
const NEW: &str = "it is younger than the grace time";
const NAMED: &str = "a manifest of another backup names it";
const UNKNOWN: &str = "it is not known whether a manifest names it";

impl Found {
    /// Whether there are packs that may be of no backup.
    pub(super) fn may_have_lost_packs(&self, place: &Place, limits: Limits) -> bool {
        let may_go = |id: &BackupId| self.verdict(id, place, limits).is_ok() && !self.manifests.contains(id);
        self.packs.keys().any(|pack| may_go(&pack.backup))
    }

    /// Whether what a backup left may go, or why it stays.
    fn verdict(&self, id: &BackupId, place: &Place, limits: Limits) -> Result<(), &'static str> {
        if limits.is_alive(&self.leases, id) {
            Err(ALIVE)
        } else if place.shares_leases() && limits.is_any_alive(&self.leases) {
            Err(RUNNING)
        } else if limits.is_new(id) {
            Err(NEW)
        } else {
            Ok(())
        }
    }

    fn pack(&self, name: &PackName, place: &Place, limits: Limits) -> Result<(), &'static str> {
        self.verdict(&name.backup, place, limits)?;
        if limits.is_any_alive(&self.leases) {
            return Err(POINTED);
        }
        match &self.needed {
            None => Err(UNKNOWN),
            Some(needed) if needed.contains(name) => Err(NAMED),
            Some(_) => Ok(()),
        }
    }
}

/// Decides. `place` names the keys of packs and pins.
pub fn plan(found: Found, place: &Place, limits: Limits) -> PrunePlan {
    let mut plan = PrunePlan::default();
    for (upload, backup) in &found.uploads {
        let verdict = match backup {
            Some(id) => found.verdict(id, place, limits),
            None if limits.is_younger(upload.since, limits.grace) => Err(NEW),
            None => Ok(()),
        };
        let key = upload.key.clone();
        plan.add(Leftover::Upload(upload.clone()), key, backup.clone(), None, "its writer is dead", verdict);
    }
    for (name, size) in found.packs.iter().filter(|(name, _)| !found.manifests.contains(&name.backup)) {
        let verdict = found.pack(name, place, limits);
        let (leftover, id) = (Leftover::Pack(name.clone()), name.backup.clone());
        plan.add(leftover, place.pack(name), Some(id), Some(*size), "its backup was not finished", verdict);
    }
    for id in found.pins.difference(&found.manifests) {
        let (leftover, key) = (Leftover::Pin(id.clone()), place.pin(id));
        plan.add(
            leftover,
            key,
            Some(id.clone()),
            None,
            "its backup does not exist",
            found.verdict(id, place, limits),
        );
    }
    for lease in found.leases.iter().filter(|lease| !limits.lasts(lease)) {
        let (key, id) = (lease.key.clone(), lease.backup.clone());
        // A later one of the same backup may protect it; this one does not.
        let verdict = if limits.is_alive(&found.leases, &id) { Err(ALIVE) } else { Ok(()) };
        plan.add(Leftover::Lease(lease.clone()), key, Some(id), None, "it has ended", verdict);
    }
    plan.problems = found.problems;
    plan
}

impl PrunePlan {
    fn add(
        &mut self,
        leftover: Leftover,
        key: String,
        backup: Option<BackupId>,
        stored: Option<u64>,
        why: &'static str,
        verdict: Result<(), &'static str>,
    ) {
        match verdict {
            Ok(()) => self.remove.push(Removal { leftover, key, backup, stored, why }),
            Err(why) => *self.keep.entry(Kept { what: leftover.name(), backup, why }).or_default() += 1,
        }
    }

    /// Stored bytes of what goes, as far as they are known.
    pub fn stored_bytes(&self) -> u64 {
        self.remove.iter().filter_map(|removal| removal.stored).sum()
    }
}
