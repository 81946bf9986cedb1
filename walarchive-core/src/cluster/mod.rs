//! The library from outside: one cluster in an archive, and what can be done with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod status;

pub use status::{DumpsStatus, LastDrill, Status, StatusRequest, StoreStatus};

use crate::archive::{Archive, Backup, Catalog, ClusterName, Place, SystemId};
use crate::behind::Notes;
use crate::codec::{Codec, CodecSpec};
use crate::config::Settings;
use crate::crossing::blocking;
use crate::error::Result;
use crate::ops::backup::BackupRequest;
use crate::ops::fetch::fetch;
use crate::ops::push::{Push, Pushed};
use crate::ops::restore::{Delta, Recovery, RestoreRequest, Wish};
use crate::ops::verify::VerifyRequest;
use crate::ops::wal_list::{self, WalList};
use crate::patience::Patience;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::datadir::system_id_of;
use crate::progress::{Progress, Silent, while_wanted};
use crate::source::{WalFile, WalSource};
use crate::storage::CreateMode;
use crate::wal::WalName;

const JOBS: usize = 2;
/// Long enough for a store that restarts, short enough for whoever waits.
const BUDGET: Duration = Duration::from_secs(60);

/// One cluster of an archive. Cheap to clone; clones share connections.
///
/// Everything here is async and runs on the tokio runtime (with time and input/output enabled) of whoever calls it;
/// [`Blocking`](crate::Blocking) is for callers without one. What keeps a processor or a disk busy runs on that runtime's
/// threads for blocking work.
///
/// A future that is dropped leaves nothing half-done in the archive, nor a file that looks whole. Backups, restores and
/// verifications are better ended through their [`Progress`] (see [`Cancel`](crate::progress::Cancel)): then they end
/// their workers, and remove what they have stored, before they return.
///
/// ```
/// use walarchive_core::archive::{Archive, Keys};
/// use walarchive_core::cipher::age::Identity;
/// use walarchive_core::storage::{self, StoreOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (history, copy) = (dir.path().join("00000002.history"), dir.path().join("copy"));
/// # std::fs::write(&history, "1\t0/5000000\tno recovery target specified\n")?;
/// # let url = format!("file://{}/archive", dir.path().display());
/// let identity = Identity::generate()?;
/// let store = storage::create(&url, &StoreOptions::default()).await?;
/// Archive::init(&*store, true).await?;
/// let archive = Archive::open(store, Keys::of(identity)).await?;
/// let main = archive.cluster("main".parse()?).system("7300000000000000001".parse()?);
///
/// main.push(&history).await?;
/// main.fetch(&"00000002.history".parse()?, &copy).await?;
/// assert_eq!(std::fs::read(copy)?, std::fs::read(history)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cluster {
    archive: Archive,
    name: ClusterName,
    system: Option<SystemId>,
    codec: Arc<dyn Codec>,
    patience: Patience,
    progress: Arc<dyn Progress>,
    state_dir: Option<PathBuf>,
    jobs: usize,
    habits: Habits,
}

impl Archive {
    /// One cluster of this archive, which need not be there yet.
    pub fn cluster(&self, name: ClusterName) -> Cluster {
        let codec = CodecSpec::default().build();
        Cluster {
            archive: self.clone(),
            name,
            system: None,
            habits: Habits::new(codec.clone()),
            codec,
            patience: Patience::each(BUDGET),
            progress: Arc::new(Silent),
            state_dir: None,
            jobs: JOBS,
        }
    }
}

/// What is done and told where nobody says otherwise.
#[derive(Debug, Clone)]
struct Habits {
    connection: ConnInfo,
    data_dir: Option<PathBuf>,
    codec: Arc<dyn Codec>,
    wal_wait: Duration,
    lease: Duration,
    full_every: Duration,
    stores: Vec<(String, CreateMode)>,
    notes: Option<Arc<Notes>>,
}

impl Habits {
    fn new(codec: Arc<dyn Codec>) -> Habits {
        Habits {
            connection: ConnInfo::new(None),
            data_dir: None,
            codec,
            wal_wait: Duration::from_secs(300),
            lease: Duration::from_secs(24 * 3600),
            full_every: Duration::from_secs(30 * 24 * 3600),
            stores: Vec::new(),
            notes: None,
        }
    }

    fn of(settings: &Settings) -> Result<Habits> {
        Ok(Habits {
            connection: settings.connection(),
            data_dir: settings.data_dir(),
            wal_wait: settings.wal_wait()?,
            lease: settings.backup_lease()?,
            full_every: settings.full_every()?,
            ..Habits::new(settings.backup_codec()?)
        })
    }
}

impl Cluster {
    /// The cluster that the programs' settings name, in the archive that they name.
    pub async fn open(settings: &Settings) -> Result<Cluster> {
        let archive = settings.archive(&Patience::each(settings.store_retry_budget()?)).await?;
        let cluster = Cluster::of(&archive, settings).await?;
        let habits = Habits { stores: settings.stores()?, notes: Some(settings.notes()), ..cluster.habits };
        Ok(Cluster { habits, ..cluster })
    }

    /// The cluster that the settings name, in an archive that the caller has opened.
    pub async fn of(archive: &Archive, settings: &Settings) -> Result<Cluster> {
        let system = match (settings.system_id()?, settings.data_dir()) {
            (None, Some(dir)) => blocking(move || system_id_of(&dir)).await?.map(SystemId),
            (known, _) => known,
        };
        Ok(Cluster {
            system,
            codec: settings.wal_codec()?,
            patience: Patience::each(settings.retry_budget(BUDGET)?),
            state_dir: Some(settings.state_dir()),
            habits: Habits::of(settings)?,
            ..archive.cluster(settings.cluster()?)
        })
    }

    /// Says which system identifier is meant. Without it, pushed files belong to that of the data directory that they lie
    /// in, and what is read must be of the only one that is stored under this name.
    #[must_use]
    pub fn system(self, system: SystemId) -> Cluster {
        Cluster { system: Some(system), ..self }
    }

    /// Compresses with `codec` instead of `zstd:1`.
    #[must_use]
    pub fn codec(self, codec: Arc<dyn Codec>) -> Cluster {
        Cluster { habits: Habits { codec: codec.clone(), ..self.habits }, codec, ..self }
    }

    /// Tries again for as long as `patience` says, instead of for a minute in each call. It is for pushes and fetches; the
    /// requests of longer work are tried again as the store's options say.
    #[must_use]
    pub fn patience(self, patience: Patience) -> Cluster {
        Cluster { patience, ..self }
    }

    /// Tells `progress` of backups, restores and verifications, and asks it during pushes and fetches, too, whether to go on.
    #[must_use]
    pub fn progress(self, progress: Arc<dyn Progress>) -> Cluster {
        Cluster { progress, ..self }
    }

    /// Remembers in this directory what was stored, so that backups can be increments, and what was proven, so that a
    /// store that was set back is noticed.
    #[must_use]
    pub fn state_dir(self, dir: impl Into<PathBuf>) -> Cluster {
        Cluster { state_dir: Some(dir.into()), ..self }
    }

    /// Works on so many files or objects at once, instead of 2.
    #[must_use]
    pub fn jobs(self, jobs: usize) -> Cluster {
        Cluster { jobs: jobs.max(1), ..self }
    }

    /// The archive.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Stores one complete WAL file under its name, as [`Push::run`] does: success means that the archive durably holds just this
    /// content.
    pub async fn push(&self, path: impl AsRef<Path>) -> Result<Pushed> {
        let (push, file) = (self.pusher(), WalFile::at(path.as_ref())?);
        while_wanted(&*self.progress, self.patience.run(|| push.run(&file))).await
    }

    /// Stores all that `source` has now, in its order, up to the first failure.
    pub async fn push_from(&self, source: &mut dyn WalSource) -> Result<Vec<Pushed>> {
        let (push, mut pushed) = (self.pusher(), Vec::new());
        while let Some(file) = source.next().await? {
            pushed.push(while_wanted(&*self.progress, self.patience.run(|| push.run(&file))).await?);
            source.stored(&file).await?;
        }
        Ok(pushed)
    }

    fn pusher(&self) -> Push {
        Push {
            archive: self.archive.clone(),
            cluster: self.name.clone(),
            codec: self.codec.clone(),
            system: self.system,
        }
    }

    /// Fetches a WAL file to `dest`, as [`fetch`] does, and gives its length: `dest` appears when every byte was proven.
    pub async fn fetch(&self, name: &WalName, dest: impl AsRef<Path>) -> Result<u64> {
        let dest = dest.as_ref();
        let fetched = self.patience.run(|| async move { fetch(&self.catalog().await?, name, dest).await });
        while_wanted(&*self.progress, fetched).await
    }

    /// The WAL that is stored, by timelines, with its gaps.
    pub async fn wal(&self) -> Result<WalList> {
        wal_list::list(&self.catalog().await?).await
    }

    /// The backups that are stored, oldest first.
    ///
    /// # Errors
    ///
    /// Also when one of them is damaged; [`Catalog::sound_backups`] tells the others.
    pub async fn backups(&self) -> Result<Vec<Backup>> {
        self.catalog().await?.backups().await
    }

    /// What is stored of this cluster, for everything else that can be asked.
    pub async fn catalog(&self) -> Result<Catalog> {
        match self.system {
            Some(system) => Ok(Catalog {
                archive: self.archive.clone(),
                place: Place::of_system(self.name.clone(), system),
            }),
            None => Catalog::find(&self.archive, &self.name).await,
        }
    }

    /// Backs up the server behind `connection`, instead of the one that settings or the environment name.
    #[must_use]
    pub fn connection(self, connection: ConnInfo) -> Cluster {
        Cluster { habits: Habits { connection, ..self.habits }, ..self }
    }

    /// A backup, to be made by [`BackupRequest::run`].
    pub fn backup(&self) -> BackupRequest {
        let habits = self.habits.clone();
        BackupRequest {
            archive: self.archive.clone(),
            cluster: self.name.clone(),
            connection: habits.connection,
            data_dir: habits.data_dir,
            codec: habits.codec,
            jobs: self.jobs,
            fast_checkpoint: true,
            wal_wait: habits.wal_wait,
            lease: habits.lease,
            state_dir: self.state_dir.clone(),
            full: false,
            full_every: habits.full_every,
            labels: BTreeMap::new(),
            pin: false,
            progress: self.progress.clone(),
        }
    }

    /// A restore of all that is stored into `target_dir`, to be carried out by [`RestoreRequest::run`]. The restored server
    /// runs `restore_command` to fetch its WAL, in the words of PostgreSQL's setting: `walarchive-fetch %f %p`, or what your
    /// program offers in its place.
    pub async fn restore(
        &self,
        target_dir: impl Into<PathBuf>,
        restore_command: impl Into<String>,
    ) -> Result<RestoreRequest> {
        Ok(RestoreRequest {
            catalog: self.catalog().await?,
            wish: Wish::default(),
            target_dir: target_dir.into(),
            delta: Delta::default(),
            only_databases: Vec::new(),
            tablespaces: Vec::new(),
            recovery: Recovery { restore_command: restore_command.into(), ..Recovery::default() },
            jobs: self.jobs,
            progress: self.progress.clone(),
        })
    }

    /// What can be restored of this cluster, and what stands in the way.
    pub async fn status(&self) -> Result<Status> {
        let request = StatusRequest {
            archive: self.archive.clone(),
            cluster: self.name.clone(),
            system: self.system,
            stores: self.habits.stores.clone(),
            notes: self.habits.notes.clone(),
            data_dir: self.habits.data_dir.clone(),
        };
        request.run().await
    }

    /// A look at what is stored of this cluster, to be carried out by [`VerifyRequest::run`].
    pub fn verify(&self) -> VerifyRequest {
        VerifyRequest {
            archive: self.archive.clone(),
            name: format!("archive {}", self.archive.info().id()),
            cluster: self.name.clone(),
            system: self.system,
            deep: false,
            only: None,
            share: None,
            memory: self.state_dir.clone(),
            repair_from: None,
            jobs: self.jobs,
            progress: self.progress.clone(),
        }
    }
}
