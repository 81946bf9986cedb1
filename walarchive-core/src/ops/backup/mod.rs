//! A base backup of a running cluster on this machine: of a primary, or of a standby.

mod base;
mod commit;
mod copy;
mod increment;
mod server;
mod span;
mod state;
mod stretch;
mod unread;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{Either, select};

use self::base::Base;
use self::copy::Copied;
use crate::archive::{Archive, Backup, BackupId, Catalog, ClusterName, HeldLease, Place, SystemId};
use crate::codec::Codec;
use crate::crossing::blocking;
use crate::error::{Error, Result};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::control::ControlFile;
use crate::postgres::datadir::Contents;
use crate::postgres::session::{BackupSession, ServerFacts, Stopped};
use crate::progress::Progress;
use crate::wal::{Lsn, TimelineId};

const LABELS_MAX: usize = 16 * 1024;

/// How a backup is made.
#[derive(Clone)]
pub struct BackupRequest {
    /// Where to.
    pub archive: Archive,
    /// Under whose name.
    pub cluster: ClusterName,
    /// How to reach the server.
    pub connection: ConnInfo,
    /// Where its data are; asked of the server when not given.
    pub data_dir: Option<PathBuf>,
    /// How data are compressed.
    pub codec: Arc<dyn Codec>,
    /// How many files are read at once.
    pub jobs: usize,
    /// Whether the server is to make its checkpoint at once.
    pub fast_checkpoint: bool,
    /// How long the WAL that the backup needs may take to be in the archive.
    pub wal_wait: Duration,
    /// How long what the backup has stored stays protected when its program dies. It is renewed while the program lives.
    pub lease: Duration,
    /// Where this machine remembers what it has stored; without it every backup stores everything anew.
    pub state_dir: Option<PathBuf>,
    /// Whether to store everything anew.
    pub full: bool,
    /// When the last backup that stored everything is so old, the next one does, too.
    pub full_every: Duration,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the backup is pinned from the beginning.
    pub pin: bool,
    /// Hears how it goes.
    pub progress: Arc<dyn Progress>,
}

impl BackupRequest {
    /// Stores everything anew.
    #[must_use]
    pub fn full(self) -> BackupRequest {
        BackupRequest { full: true, ..self }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> BackupRequest {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Pins the backup from the beginning: no retention removes it.
    #[must_use]
    pub fn pinned(self) -> BackupRequest {
        BackupRequest { pin: true, ..self }
    }

    /// Makes the backup, as [`create`] does.
    pub async fn run(self) -> Result<BackupDone> {
        create(self).await
    }
}

/// A backup that is committed, and what was found on the way.
#[derive(Debug, Clone)]
pub struct BackupDone {
    /// The backup.
    pub backup: Backup,
    /// Pages that failed their checksum: file and block within the file. At most some thousands are listed;
    /// [`Facts::damaged_pages`](crate::archive::Facts::damaged_pages) counts them all.
    pub damaged: Vec<(PathBuf, u32)>,
    /// Bytes of files that were read.
    pub read_bytes: u64,
}

/// Makes a backup. It is listed only when every byte of it, and the WAL from its start to its end, is durable in the
/// archive. Whatever happens before that, the server is left as it was, and nothing is listed. Needs no identity.
pub async fn create(request: BackupRequest) -> Result<BackupDone> {
    let info = request.connection.clone();
    let (session, server) = blocking(move || BackupSession::connect(&info)).await?;
    server::check(&server)?;
    check_labels(&request.labels)?;
    let (data_dir, control) = {
        let (dir, server) = (request.data_dir.clone(), server.clone());
        blocking(move || server::find_data_dir(dir, &server)).await?
    };
    let place = Place::of_system(request.cluster.clone(), SystemId(server.system_id));
    let id = BackupId::fresh()?;
    let (archive, codec) = (request.archive.clone(), request.codec.clone());
    let lease = HeldLease::take(archive, place.clone(), id.clone(), codec, request.lease).await?;
    let is_remembered = AtomicBool::new(false);
    let run = Run { request, place, id, lease, server, data_dir, control, is_remembered };
    let (making, keeping) = (pin!(run.make(session)), pin!(run.lease.keep()));
    let result = match select(making, keeping).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Error::bug("a lease ended before its backup")),
    };
    if result.is_err() {
        run.clean_up().await;
    }
    result
}

/// The facts of a backup, labels included, must stay small enough to be read at one go.
fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > LABELS_MAX {
        return Err(Error::usage(format!(
            "the labels have {bytes} bytes in all; at most {LABELS_MAX} are kept"
        )));
    }
    Ok(())
}

struct Run {
    request: BackupRequest,
    place: Place,
    id: BackupId,
    lease: HeldLease,
    server: ServerFacts,
    data_dir: PathBuf,
    control: ControlFile,
    /// Whether the next backup can go on with what this one has stored.
    is_remembered: AtomicBool,
}

/// What was copied, and where the WAL begins and ends.
struct Parts {
    copied: Copied,
    contents: Contents,
    base: Option<Arc<Base>>,
    start: Lsn,
    timeline: TimelineId,
    stopped: Stopped,
}

impl Run {
    async fn make(&self, session: BackupSession) -> Result<BackupDone> {
        self.request.progress.note(&format!("backup {} begins", self.id));
        let (mut session, parts) = self.copy(session).await?;
        session = self.wait_for_wal(session, &parts).await?;
        drop(session);
        let done = self.commit(parts).await?;
        self.lease.end().await;
        Ok(done)
    }

    async fn wait_for_wal(&self, session: BackupSession, parts: &Parts) -> Result<BackupSession> {
        let wait = wait::WalWait {
            catalog: self.catalog(),
            data_dir: &self.data_dir,
            size: self.control.wal_segment_size,
            timeline: parts.timeline,
            start: parts.start,
            stop: parts.stopped.stop_lsn,
            is_standby: self.server.in_recovery,
            budget: self.request.wal_wait,
            progress: self.request.progress.as_ref(),
        };
        wait.run(session).await
    }

    fn catalog(&self) -> Catalog {
        Catalog { archive: self.request.archive.clone(), place: self.place.clone() }
    }

    /// Gives back the space of what nobody will read: the next backup goes on with the packs if this machine remembers
    /// them. What cannot be removed now does no harm.
    async fn clean_up(&self) {
        let catalog = self.catalog();
        let storage = self.request.archive.storage();
        if storage.size(&self.place.manifest(&self.id)).await.is_ok() {
            return;
        }
        let packs = catalog.packs(&self.id).await.unwrap_or_default();
        if self.is_remembered.load(Ordering::Relaxed) && !packs.is_empty() {
            self.request
                .progress
                .note("what was stored is kept for a while: the next backup goes on with it");
        } else {
            for pack in packs.keys() {
                let _ = storage.delete(&self.place.pack(pack)).await;
            }
        }
        let _ = storage.delete(&self.place.pin(&self.id)).await;
        self.lease.end().await;
    }
}

/// Says where a file is: for messages.
fn at(path: &Path) -> String {
    path.display().to_string()
}
