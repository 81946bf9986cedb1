//! A cluster back from the archive, at any moment that the archive leads to.
//!
//! A restore is planned first: nothing is written before backup, timelines and WAL are proven to lead to the target.

mod buffer;
mod choice;
mod delta;
mod extract;
mod file;
mod fill;
mod give;
mod layout;
mod pg_manifest;
mod plan;
mod probe;
mod reads;
mod recovery;
mod region;
mod survey;
mod target;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use extract::{ExtractRequest, Extracted, extract};
pub use layout::TablespaceMapping;
pub use plan::{Candidate, Found, Plan, Wish, candidates};
pub use probe::{probe, promised_end};
pub use recovery::{Action, Recovery, restore_command};
pub use target::{Target, TimelineChoice};

use self::choice::Choice;
use self::layout::Layout;
use crate::archive::{BackupId, Catalog, Facts, Inventory, scan};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::postgres::datadir::TABLESPACES;
use crate::progress::Progress;
use crate::wal::WalName;

/// A restore that was asked for.
pub struct RestoreRequest {
    /// Where from.
    pub catalog: Catalog,
    /// What to restore.
    pub wish: Wish,
    /// The data directory: absent or empty, or, with `delta`, the cluster's own.
    pub target_dir: PathBuf,
    /// What may become of a cluster that is there already.
    pub delta: Delta,
    /// The databases that come back with their content, besides those that every cluster has; none: all. The others are
    /// left as files of zeros, which WAL can be replayed over, and can only be dropped.
    pub only_databases: Vec<String>,
    /// Where tablespaces go that are not to go where they were.
    pub tablespaces: Vec<TablespaceMapping>,
    /// What recovery is told.
    pub recovery: Recovery,
    /// How many stretches of files are written at once.
    pub jobs: usize,
    /// Hears how it goes.
    pub progress: Arc<dyn Progress>,
}

impl RestoreRequest {
    /// Ends recovery there, instead of at the end of the WAL.
    #[must_use]
    pub fn to(mut self, target: Target) -> RestoreRequest {
        self.wish.target = target;
        self
    }

    /// Begins with this backup, instead of the best one.
    #[must_use]
    pub fn from_backup(mut self, id: BackupId) -> RestoreRequest {
        self.wish.backup = Some(id);
        self
    }

    /// Follows this timeline, instead of the newest one.
    #[must_use]
    pub fn timeline(mut self, timeline: TimelineChoice) -> RestoreRequest {
        self.wish.timeline = timeline;
        self
    }

    /// Says what may become of a cluster that is there already.
    #[must_use]
    pub fn delta(self, delta: Delta) -> RestoreRequest {
        RestoreRequest { delta, ..self }
    }

    /// Says what will be done, as [`preview`] does, and changes nothing.
    pub async fn preview(&self) -> Result<Plan> {
        preview(self).await
    }

    /// Restores, as [`restore`] does.
    pub async fn run(self) -> Result<Restored> {
        restore(self).await
    }
}

/// What a restore may do with a cluster that is in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delta {
    /// Nothing: the target must be absent or empty.
    #[default]
    Refused,
    /// Rewrite what differs from the backup and remove what it does not have, if the system identifier in the directory's
    /// pg_control, or in what an interrupted restore left, proves that it is this cluster's.
    Proven,
    /// The same where nothing proves it, and where tablespaces that it links to hold something: copies of the cluster link to
    /// them, too. A directory that is proven to be another cluster's is refused nevertheless, and
    /// one that a server may be running in.
    Confirmed,
}

/// What a restore did.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The plan that was carried out.
    pub plan: Plan,
    /// Bytes that were written; pages of zeros are not.
    pub bytes_written: u64,
    /// Things to know.
    pub notes: Vec<String>,
}

/// Plans a restore: chooses the newest backup from which the target can be reached, and proves that the WAL leads
/// there. Writes nothing.
pub async fn plan_restore(catalog: &Catalog, wish: &Wish, progress: &dyn Progress) -> Result<Plan> {
    let inventory = catalog.inventory().await?;
    let candidates = candidates(&inventory, wish)?;
    let Some(newest) = candidates.first() else {
        return Err(Error::bug("there is no candidate, and no reason"));
    };
    let oldest = candidates.last().unwrap_or(newest);
    // Where a transaction or restore point is shows only in the WAL: any backup before it will do.
    let searched = if wish.target.is_position_unknown() { oldest } else { newest };
    let found = probe(catalog, searched, &wish.target, progress).await?;
    let mut refused = None;
    for candidate in &candidates {
        match candidate.check(&wish.target, &found) {
            Ok(()) => {
                refuse_ambiguous(catalog, candidate, &wish.target, &found).await?;
                prove_packs(catalog, &candidate.backup.id).await?;
                let mut plan = candidate.plan(wish)?;
                let passed_over = inventory.damaged.iter();
                plan.notes.extend(left_behind(&inventory, candidate));
                let damaged = found.passed_over.iter();
                plan.notes.extend(damaged.map(|name| format!("{name} is damaged; the target is before it")));
                plan.passed_over.clone_from(&found.passed_over);
                plan.notes.extend(
                    passed_over
                        .map(|(id, story)| format!("backup {id} is damaged and was passed over: {story}")),
                );
                return Ok(plan);
            }
            Err(error) if error.kind() == Kind::Unrestorable => refused = Some(error),
            Err(error) => return Err(error),
        }
        if !wish.target.is_position_unknown() {
            break;
        }
    }
    Err(refused.unwrap_or_else(|| Error::bug("a restore was refused without a reason")))
}

/// Says where the archive holds more of a timeline than the line that is followed takes from it: a copy that was promoted
/// may have taken the newest timeline, while the original goes on. And which timelines nobody can follow.
fn left_behind(inventory: &Inventory, candidate: &Candidate<'_>) -> Vec<String> {
    let more = |entry: &crate::wal::HistoryEntry| {
        let last = inventory.segments.get(&entry.timeline)?.last()?;
        (*last > entry.end.segno(candidate.size)).then(|| {
            let (timeline, branch) = (entry.timeline, entry.end);
            format!("timeline {timeline} goes on behind {branch}, where the restore leaves it; --timeline {timeline} follows it")
        })
    };
    let unknown = inventory.segments.keys().filter(|timeline| {
        **timeline > candidate.history.timeline
            && !inventory.histories.contains_key(timeline)
            && !inventory.damaged_histories.contains_key(timeline)
    });
    let lost = unknown.map(|timeline| {
        let name = WalName::History(*timeline);
        format!("timeline {timeline} has WAL and is left out, as {name} is not in the archive; 'walarchive wal push pg_wal/{name}' on the server that made it")
    });
    candidate.history.entries.iter().filter_map(more).chain(lost).collect()
}

/// PostgreSQL stops at the first restore point of a name that it meets; the newest may be the one that is meant.
async fn refuse_ambiguous(
    catalog: &Catalog,
    candidate: &Candidate<'_>,
    target: &Target,
    found: &Found,
) -> Result<()> {
    let (Target::Name(name), Some(newest)) = (target, found.at) else { return Ok(()) };
    match probe::first_point(catalog, candidate, name, newest).await? {
        Some(first) if first != newest => Err(Error::new(
            Kind::Unrestorable,
            format!("there are several restore points {name:?} behind backup {}: from {first} to {newest}", candidate.backup.id),
        )
        .hint(format!("PostgreSQL would stop at the first; say which one is meant: --to lsn:{first} or --to lsn:{newest}"))),
        _ => Ok(()),
    }
}

/// Proves that everything that the backup consists of is stored, in its length.
async fn prove_packs(catalog: &Catalog, id: &BackupId) -> Result<()> {
    let (manifest, ()) = scan::<Facts, _>(&catalog.archive, &catalog.place, id, ()).await?;
    match catalog.first_lost(&manifest.packs).await? {
        None => Ok(()),
        Some((pack, found)) => {
            let wrong = match found {
                None => "is missing".to_owned(),
                Some(found) => format!("has {found} bytes where {} belong", pack.stored),
            };
            Err(Error::damaged(format!("backup {id} cannot be restored: its pack {} {wrong}", pack.name))
                .on(catalog.place.pack(&pack.name))
                .hint("--backup with an older one may do, and all WAL since then"))
        }
    }
}

/// Plans the restore that was asked for, and looks at its target: what would be refused there is among the plan's notes.
/// Changes nothing.
pub async fn preview(request: &RestoreRequest) -> Result<Plan> {
    let mut plan = plan_restore(&request.catalog, &request.wish, request.progress.as_ref()).await?;
    let facts = request.catalog.backup(&plan.id).await?.facts;
    Choice::new(&facts, &request.only_databases)?;
    if let Err(error) = layout(request, &facts).await {
        plan.notes.push(format!("as things are, this restore would be refused: {}", error.story()));
    }
    Ok(plan)
}

/// Plans the restore that was asked for, and proves that it can be carried out: that the target and the tablespaces may be written to, and that
/// there is space. Changes nothing.
pub async fn preflight(request: &RestoreRequest) -> Result<Plan> {
    let plan = plan_restore(&request.catalog, &request.wish, request.progress.as_ref()).await?;
    let facts = request.catalog.backup(&plan.id).await?.facts;
    let layout = layout(request, &facts).await?;
    let choice = Choice::new(&facts, &request.only_databases)?;
    let survey = survey::Survey { choice, ..survey::Survey::default() };
    let catalog = &request.catalog;
    let (_, survey) = scan::<Facts, _>(&catalog.archive, &catalog.place, &plan.id, survey).await?;
    blocking(move || write::check_space(&layout, &survey.bytes)).await?;
    Ok(plan)
}

/// Restores. The target directory and all tablespaces are complete, verified and durable on success; after a failure
/// PostgreSQL refuses to start from them.
pub async fn restore(request: RestoreRequest) -> Result<Restored> {
    let plan = plan_restore(&request.catalog, &request.wish, request.progress.as_ref()).await?;
    let backup = request.catalog.backup(&plan.id).await?;
    let layout = layout(&request, &backup.facts).await?;
    let choice = Choice::new(&backup.facts, &request.only_databases)?;
    let work = write::Restore {
        catalog: request.catalog.clone(),
        id: plan.id.clone(),
        layout,
        choice,
        recovery: request.recovery.text(&backup.facts, &request.wish.target, &plan)?,
        standby: request.recovery.standby,
        jobs: request.jobs.max(1),
        progress: request.progress.clone(),
    };
    let (bytes_written, notes) = work.run().await?;
    Ok(Restored { plan, bytes_written, notes })
}

/// The directories of the cluster, proven to be fit for the restore.
async fn layout(request: &RestoreRequest, facts: &Facts) -> Result<Layout> {
    let mut layout = Layout::new(&request.target_dir, facts, &request.tablespaces)?;
    let (delta, facts) = (request.delta, facts.clone());
    blocking(move || {
        layout.is_over = delta != Delta::Refused && !layout.is_new();
        match layout.is_over {
            true => delta::check(&layout, &facts, delta == Delta::Confirmed)?,
            false => layout.check()?,
        }
        Ok(layout)
    })
    .await
}

/// The tablespace that a path of the backup is in.
fn tablespace_of(path: &Path) -> Option<u32> {
    let below = path.strip_prefix(TABLESPACES).ok()?;
    below.components().next()?.as_os_str().to_str()?.parse().ok()
}
