//! What can be restored of a cluster, and what stands in the way: all that is told together.

mod document;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::{
    Archive, Backup, Catalog, ClusterName, DrillReport, DumpFacts, Place, Recoverable, Share, SystemId,
    recoverable, segment_size, without_wal,
};
use crate::behind::Notes;
use crate::error::{Error, Kind, Result};
use crate::ops::status::{self as facts, StoreState, StoredBytes};
use crate::ops::wal_list::{self, WalList};
use crate::retention::dumps::by_content;
use crate::source::Waiting;
use crate::storage::CreateMode;
use crate::told::{bytes, many};

/// A look at everything that is stored of a cluster. Nothing is changed, and no object is opened but manifests and histories.
#[derive(Debug)]
pub struct StatusRequest {
    /// The archive.
    pub archive: Archive,
    /// The cluster.
    pub cluster: ClusterName,
    /// Its system identifier, where it is known; else that of the only one that is stored under the name.
    pub system: Option<SystemId>,
    /// The archive's stores, the primary first: their names for people, and how they create objects. Where they are not told, an
    /// archive has one that has no name.
    pub stores: Vec<(String, CreateMode)>,
    /// What mirrors are noted to lack.
    pub notes: Option<Arc<Notes>>,
    /// The data directory, where what waits to be archived is to be told, too.
    pub data_dir: Option<PathBuf>,
}

/// What is found of a cluster.
#[derive(Debug)]
#[non_exhaustive]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterName,
    /// The archive's stores.
    pub stores: Vec<StoreStatus>,
    /// The newest backup that can be read, and what it shares with others.
    pub latest: Option<(Backup, Option<Share>)>,
    /// Backups cannot be told of without an identity.
    pub sealed: bool,
    /// How much is stored.
    pub stored: StoredBytes,
    /// The WAL.
    pub wal: WalList,
    /// What waits to be archived; `None` without a data directory that can be read.
    pub waiting: Option<Waiting>,
    /// What can be restored.
    pub recoverable: Vec<Recoverable>,
    /// The dumps, where there are any.
    pub dumps: Option<DumpsStatus>,
    /// The last drill, where there was one.
    pub drill: Option<LastDrill>,
    /// What stands in the way, each in one line.
    pub problems: Vec<String>,
}

/// One of the archive's stores.
#[derive(Debug, Clone)]
pub struct StoreStatus {
    /// Its name, for people.
    pub name: String,
    /// Whether it can be used.
    pub reachable: bool,
    /// How it creates objects.
    pub create: CreateMode,
    /// Objects that it lacks: at least these, where it cannot be used.
    pub behind: u64,
    /// Their stored bytes.
    pub behind_bytes: u64,
}

/// The dumps of a cluster.
#[derive(Debug)]
pub enum DumpsStatus {
    /// There are some; only an identity tells more.
    Sealed,
    /// What is told of them.
    Known {
        /// How many there are.
        count: usize,
        /// Stored bytes of their packs.
        stored_bytes: u64,
        /// The newest of each database and content; those that leave something out are apart.
        newest: Vec<DumpFacts>,
    },
}

/// The last drill.
#[derive(Debug)]
pub struct LastDrill {
    /// Its report's name.
    pub id: String,
    /// The report; `None` where it cannot be read.
    pub report: Option<DrillReport>,
}

impl StatusRequest {
    /// Looks.
    ///
    /// # Errors
    ///
    /// When no store can be used, or one fails meanwhile. What is damaged is told as a problem.
    pub async fn run(&self) -> Result<Status> {
        let mut problems = Vec::new();
        let states = facts::stores(&self.archive).await;
        let stores = self.stores(&states, &mut problems).await;
        let usable = |name: &str| states.iter().any(|state| state.name == name && state.error.is_none());
        let Some(reachable) = self.archive.only(usable) else {
            let first = states.into_iter().find_map(|state| state.error);
            return Err(first.unwrap_or_else(|| Error::bug("an archive has no stores")));
        };
        let catalog = self.catalog(&reachable).await?;
        let mut status = match &catalog {
            Some(catalog) => look(self.cluster.clone(), catalog).await?,
            None => Status::nothing(self.cluster.clone()),
        };
        let of_dumps = Catalog::of_dumps(&reachable, self.cluster.clone());
        status.dumps = dumps(&of_dumps, &mut problems).await?;
        status.drill = last_drill([Some(&of_dumps), catalog.as_ref()], &mut problems).await?;
        if status.wal.timelines.is_empty() && status.dumps.is_none() {
            status.problems.push("no WAL is stored".to_owned());
        }
        if let Some(dir) = &self.data_dir {
            status.waiting = waiting::look(dir, &mut problems).await;
        }
        status.problems.append(&mut problems);
        Ok(Status { stores, ..status })
    }

    async fn catalog(&self, archive: &Archive) -> Result<Option<Catalog>> {
        let found = match self.system {
            Some(system) => Ok(Catalog {
                archive: archive.clone(),
                place: Place::of_system(self.cluster.clone(), system),
            }),
            None => Catalog::find(archive, &self.cluster).await,
        };
        match found {
            Err(error) if error.kind() == Kind::Absent => Ok(None),
            found => found.map(Some),
        }
    }

    /// The archive's stores, as they are told.
    async fn stores(&self, states: &[StoreState], problems: &mut Vec<String>) -> Vec<StoreStatus> {
        let mut told = Vec::new();
        for (number, state) in states.iter().enumerate() {
            let (name, create) = match self.stores.get(number) {
                Some((name, create)) => (name.clone(), *create),
                None => (state.name.clone(), CreateMode::default()),
            };
            let noted = match &self.notes {
                Some(notes) => notes.of(&name).await.map(|notes| notes.len() as u64).unwrap_or_default(),
                None => 0,
            };
            store_problems(&name, create, state, noted, problems);
            told.push(StoreStatus {
                name,
                create,
                reachable: state.error.is_none(),
                behind: if state.error.is_some() { noted } else { state.missing },
                behind_bytes: state.missing_bytes,
            });
        }
        told
    }
}

fn store_problems(
    name: &str,
    create: CreateMode,
    state: &StoreState,
    noted: u64,
    problems: &mut Vec<String>,
) {
    if let Some(error) = &state.error {
        let lacks = match noted {
            0 => String::new(),
            noted => format!(" and lacks at least {}", many(noted, "object")),
        };
        problems.push(format!("{name} cannot be used{lacks}: {}", error.story()));
    }
    if state.missing > 0 {
        problems.push(format!(
            "{name} is behind by {}, {}; 'walarchive catch-up' copies them",
            many(state.missing, "object"),
            bytes(state.missing_bytes)
        ));
    }
    if let Some(first) = state.differ.first() {
        problems.push(format!(
            "{name} holds {} of another length than another mirror, the first is {first}; 'walarchive catch-up' tells more",
            many(state.differ.len(), "object")
        ));
    }
    if create == CreateMode::CheckFirst {
        problems.push(format!(
            "{name} is used with store.create = check-first: two writers of one name at the same moment may both be told theirs was stored"
        ));
    }
}

async fn look(cluster: ClusterName, catalog: &Catalog) -> Result<Status> {
    let wal = wal_list::list(catalog).await?;
    let mut problems = wal.problems.clone();
    for timeline in wal.timelines.iter().filter(|timeline| timeline.missing_count > 0) {
        let first = timeline.missing.first().map(String::as_str).unwrap_or_default();
        problems.push(format!(
            "timeline {} lacks {}, the first is {first}",
            timeline.timeline,
            many(timeline.missing_count, "segment")
        ));
    }
    let census = match catalog.census().await {
        Ok(census) => census,
        Err(error) if error.kind() == Kind::Key => {
            problems.push("what can be restored is not shown: reading backups needs an identity".to_owned());
            let stored = facts::stored(catalog, wal.stored_bytes, None).await?;
            return Ok(Status { wal, stored, problems, sealed: true, ..Status::nothing(cluster) });
        }
        Err(error) => return Err(error),
    };
    let backups = &census.backups;
    problems.extend(
        census.damaged.iter().map(|(id, error)| format!("backup {id} cannot be restored: {}", error.story())),
    );
    if backups.is_empty() {
        problems.push("there is no backup that can be restored".to_owned());
    }
    let (histories, of_histories) = facts::histories(catalog).await?;
    problems.extend(of_histories.into_iter().filter(|problem| !wal.problems.contains(problem)));
    let stored_wal = catalog.wal().await?;
    let mut stretches = Vec::new();
    if let Some(size) = segment_size(catalog, &stored_wal).await? {
        let by_number = stored_wal.by_number(size);
        stretches = recoverable(backups, &by_number, &histories, size)?;
        let incomplete = without_wal(backups, &by_number, size);
        problems.extend(
            incomplete.iter().map(|backup| {
                format!("backup {} cannot be restored: WAL that it needs is missing", backup.id)
            }),
        );
    }
    let latest = backups.last().map(|backup| (backup.clone(), census.share(&backup.id)));
    let stored = facts::stored(catalog, wal.stored_bytes, Some(&census)).await?;
    Ok(Status { latest, stored, wal, recoverable: stretches, problems, ..Status::nothing(cluster) })
}

/// What there is of dumps: nothing, when there are none.
async fn dumps(catalog: &Catalog, problems: &mut Vec<String>) -> Result<Option<DumpsStatus>> {
    let (dumps, damaged) = match catalog.dumps().await {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::Key => return Ok(Some(DumpsStatus::Sealed)),
        Err(error) => return Err(error),
    };
    problems
        .extend(damaged.iter().map(|(id, error)| format!("dump {id} cannot be restored: {}", error.story())));
    if dumps.is_empty() && damaged.is_empty() {
        return Ok(None);
    }
    let newest =
        by_content(&dumps).into_values().filter_map(|of_one| Some(of_one.last()?.facts.clone())).collect();
    let stored_bytes = catalog.all_packs().await?.values().sum();
    Ok(Some(DumpsStatus::Known { count: dumps.len(), stored_bytes, newest }))
}

/// The last drill of a backup or dump of the cluster; nothing, when there was none.
async fn last_drill(
    catalogs: [Option<&Catalog>; 2],
    problems: &mut Vec<String>,
) -> Result<Option<LastDrill>> {
    let mut last = None;
    for catalog in catalogs.into_iter().flatten() {
        let Some(id) = catalog.report_ids().await?.pop_last() else { continue };
        if last.as_ref().is_none_or(|(known, _)| *known < id) {
            last = Some((id, catalog));
        }
    }
    let Some((id, catalog)) = last else { return Ok(None) };
    let report = match catalog.report(&id).await {
        Ok(report) => Some(report),
        Err(error) if error.kind() == Kind::Key => None,
        Err(error) if error.kind() == Kind::Damaged => {
            problems.push(format!("the report of the last drill cannot be read: {}", error.story()));
            None
        }
        Err(error) if error.kind() == Kind::Absent => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Some(report) = report.as_ref().filter(|report| !report.ok) {
        let subject = report.subject();
        problems.push(format!("the last drill, of {subject}, did not bring back all that was promised"));
    }
    Ok(Some(LastDrill { id: id.to_string(), report }))
}

impl Status {
    fn nothing(cluster: ClusterName) -> Status {
        Status {
            cluster,
            stores: Vec::new(),
            latest: None,
            sealed: false,
            stored: StoredBytes::default(),
            wal: WalList::default(),
            waiting: None,
            recoverable: Vec::new(),
            dumps: None,
            drill: None,
            problems: Vec::new(),
        }
    }
}
