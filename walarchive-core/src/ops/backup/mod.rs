//! A base backup of a running cluster on this machine.

mod copy;
mod lease;
mod spool;
mod stretch;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::future::{Either, select};
use jiff::Timestamp;

use self::copy::{Copied, Copy};
use self::lease::Lease;
use crate::archive::{
    Archive, Backup, BackupId, Catalog, ClusterName, Facts, FileRecord, Line, ManifestWriter, ObjectKind,
    PackSink, Place, SystemId, Tablespace,
};
use crate::codec::{Codec, PlainSink};
use crate::crossing::{Bridge, blocking};
use crate::error::{Error, Kind, Result};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::control::ControlFile;
use crate::postgres::datadir::{self, Contents};
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
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the backup is pinned from the beginning.
    pub pin: bool,
    /// Hears how it goes.
    pub progress: Arc<dyn Progress>,
}

/// A backup that is committed, and what was found on the way.
#[derive(Debug, Clone)]
pub struct BackupDone {
    /// The backup.
    pub backup: Backup,
    /// Pages that failed their checksum: file and block within the file. At most some thousands are listed;
    /// [`Facts::damaged_pages`] counts them all.
    pub damaged: Vec<(PathBuf, u32)>,
}

/// Makes a backup. It is listed only when every byte of it, and the WAL from its start to its end, is durable in the
/// archive. Whatever happens before that, the server is left as it was, and nothing is listed. Needs no identity.
pub async fn create(request: BackupRequest) -> Result<BackupDone> {
    let info = request.connection.clone();
    let (session, server) = blocking(move || BackupSession::connect(&info)).await?;
    check_server(&server)?;
    check_labels(&request.labels)?;
    let (data_dir, control) = {
        let (dir, server) = (request.data_dir.clone(), server.clone());
        blocking(move || find_data_dir(dir, &server)).await?
    };
    let place = Place { cluster: request.cluster.clone(), system: SystemId(server.system_id) };
    let id = BackupId::new(Timestamp::now(), random()?);
    let (archive, codec) = (request.archive.clone(), request.codec.clone());
    let lease = Lease::take(archive, place.clone(), id.clone(), codec, request.lease).await?;
    let run = Run { request, place, id, lease, server, data_dir, control };
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

fn random() -> Result<u32> {
    getrandom::u32()
        .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))
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

fn check_server(server: &ServerFacts) -> Result<()> {
    if server.in_recovery {
        return Err(Error::usage("this server is a standby; base backups are taken from the primary"));
    }
    if server.archive_mode == "off" {
        return Err(Error::usage(
            "archive_mode is off: the WAL that makes a backup restorable would not be archived",
        )
        .hint("set archive_mode = on and archive_command = 'walarchive-push %p', and restart PostgreSQL"));
    }
    if server.wal_level == "minimal" {
        return Err(Error::usage("wal_level is minimal: the WAL cannot restore a backup")
            .hint("set wal_level = replica and restart PostgreSQL"));
    }
    Ok(())
}

/// The data directory on this machine, proven to be the server's.
fn find_data_dir(dir: Option<PathBuf>, server: &ServerFacts) -> Result<(PathBuf, ControlFile)> {
    let dir = dir.or_else(|| server.data_dir.clone()).ok_or_else(|| {
        Error::usage("the server does not tell this role where its data directory is")
            .hint("set PGDATA or postgres.data_dir, or grant pg_read_all_settings")
    })?;
    let (control, _) = datadir::read_control(&dir).map_err(|error| {
        error.hint(format!(
            "{} must be the server's data directory on this machine, readable for this user",
            dir.display()
        ))
    })?;
    if control.system_id != server.system_id {
        return Err(Error::new(
            Kind::WrongCluster,
            format!(
                "{} belongs to the cluster with system identifier {}, the server that answers is {}",
                dir.display(),
                control.system_id,
                server.system_id
            ),
        )
        .hint("do PGDATA and the connection name the same cluster?"));
    }
    if !datadir::runs_server_started_at(&dir, server.started) {
        return Err(Error::new(
            Kind::WrongCluster,
            format!("the server that answers does not run in {}: its postmaster.pid is missing or another server's", dir.display()),
        )
        .hint("is that directory a copy of the cluster? Do PGDATA and the connection name the same one?"));
    }
    Ok((dir, control))
}

struct Run {
    request: BackupRequest,
    place: Place,
    id: BackupId,
    lease: Lease,
    server: ServerFacts,
    data_dir: PathBuf,
    control: ControlFile,
}

/// What was copied, and where the WAL begins and ends.
struct Parts {
    copied: Copied,
    contents: Contents,
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

    /// Copies between the start and the end of the server's backup mode.
    async fn copy(&self, mut session: BackupSession) -> Result<(BackupSession, Parts)> {
        let (label, fast) = (format!("walarchive {}", self.id), self.request.fast_checkpoint);
        let ((start, timeline), mut session) = blocking(move || {
            let started = session.start(&label, fast)?;
            Ok((started, session))
        })
        .await?;
        let timeline = TimelineId::new(timeline)?;
        let contents = self.contents().await?;
        for link in &contents.skipped {
            self.request.progress.note(&format!(
                "{} is a link to a directory and is left out, as pg_basebackup does",
                at(link)
            ));
        }
        let copy = Copy {
            sink: self.sink()?,
            data_dir: self.data_dir.clone(),
            start,
            verify: self.server.page_checksums && self.control.block_size as usize == crate::archive::PAGE,
            pages_per_file: self.control.relseg_size,
            jobs: self.request.jobs.max(1),
            progress: self.request.progress.clone(),
        };
        let copied = copy.run(&contents.files).await?;
        let (stopped, session) = blocking(move || {
            let stopped = session.stop()?;
            Ok((stopped, session))
        })
        .await?;
        let copied = copy.texts(copied, &stopped).await?;
        Ok((session, Parts { copied, contents, start, timeline, stopped }))
    }

    async fn contents(&self) -> Result<Contents> {
        let version_dir = format!("PG_{}_{}", self.server.major, self.control.catalog_version);
        let data_dir = self.data_dir.clone();
        blocking(move || datadir::contents(&data_dir, &version_dir)).await
    }

    fn sink(&self) -> Result<PackSink> {
        Ok(PackSink {
            archive: self.request.archive.clone(),
            place: self.place.clone(),
            backup: self.id.clone(),
            codec: self.request.codec.clone(),
            bridge: Bridge::current()?,
            next: Arc::new(AtomicU32::new(0)),
        })
    }

    async fn wait_for_wal(&self, session: BackupSession, parts: &Parts) -> Result<BackupSession> {
        let wait = wait::WalWait {
            catalog: self.catalog(),
            data_dir: &self.data_dir,
            size: self.control.wal_segment_size,
            timeline: parts.timeline,
            start: parts.start,
            stop: parts.stopped.stop_lsn,
            budget: self.request.wal_wait,
            progress: self.request.progress.as_ref(),
        };
        wait.run(session).await
    }

    fn catalog(&self) -> Catalog {
        Catalog { archive: self.request.archive.clone(), place: self.place.clone() }
    }

    fn facts(&self, parts: &Parts) -> Facts {
        let tablespaces = parts.contents.tablespaces.iter();
        Facts {
            format: Facts::FORMAT,
            kind_of: "base".to_owned(),
            id: self.id.to_string(),
            kind: "full".to_owned(),
            cluster: self.request.cluster.to_string(),
            system_id: self.server.system_id.to_string(),
            pg_major: self.server.major,
            server_version: self.server.version.clone(),
            control_version: self.control.pg_control_version,
            catalog_version: self.control.catalog_version,
            timeline: parts.timeline.get(),
            start_lsn: parts.start,
            stop_lsn: parts.stopped.stop_lsn,
            started_at: self.server.now,
            finished_at: parts.stopped.finished_at,
            segment_size: self.control.wal_segment_size.bytes(),
            page_checksums: self.server.page_checksums,
            data_bytes: parts.copied.data_bytes,
            stored_bytes: parts.copied.packs.iter().map(|pack| pack.stored).sum(),
            files: parts.copied.files,
            damaged_pages: parts.copied.damaged_pages,
            tablespaces: tablespaces
                .map(|link| Tablespace { oid: link.oid, location: link.location.clone() })
                .collect(),
            labels: self.request.labels.clone(),
            created_by: format!("walarchive {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Writes the manifest: the backup exists then.
    async fn commit(&self, parts: Parts) -> Result<BackupDone> {
        let facts = self.facts(&parts);
        if self.request.pin {
            let note = format!("{{\"pinned\":\"{}\"}}\n", self.id);
            let content = move |sink: PlainSink<'_>| sink(note.as_bytes());
            let (key, codec) = (self.place.pin(&self.id), self.request.codec.clone());
            self.request.archive.put(&key, ObjectKind::Pin, codec, content).await?;
        }
        let (archive, place, id) = (self.request.archive.clone(), self.place.clone(), self.id.clone());
        let (codec, bridge, told) = (self.request.codec.clone(), Bridge::current()?, facts.clone());
        let damaged = parts.copied.damaged.clone();
        let (lease, stored) = (self.lease.clone(), parts.copied.packs.len());
        blocking(move || {
            let mut manifest = ManifestWriter::start(&archive, &place, &id, codec.as_ref(), &told, &bridge)?;
            for pack in parts.copied.packs {
                manifest.line(&Line::Pack(pack))?;
            }
            for dir in parts.contents.dirs {
                manifest.line(&Line::Dir(dir.path, dir.mode))?;
            }
            parts.copied.spool.replay(|record: FileRecord| manifest.line(&Line::File(record)))?;
            // What nobody may find any more must not be committed.
            lease.check()?;
            manifest.finish().map(drop)
        })
        .await
        .map_err(|error| error.during("committing the backup"))?;
        self.prove_complete(stored).await?;
        Ok(BackupDone { backup: Backup { id: self.id.clone(), facts, pinned: self.request.pin }, damaged })
    }

    /// The lease may have ended between the last look and the commit, when this machine stood still just then: if packs
    /// are gone, this is no backup.
    async fn prove_complete(&self, stored: usize) -> Result<()> {
        let Err(error) = self.lease.check() else { return Ok(()) };
        if self.catalog().packs(&self.id).await?.len() == stored {
            return Ok(());
        }
        self.request.archive.storage().delete(&self.place.manifest(&self.id)).await?;
        Err(error)
    }

    /// Gives back the space of what nobody will read. What cannot be removed now does no harm.
    async fn clean_up(&self) {
        let catalog = self.catalog();
        let storage = self.request.archive.storage();
        if storage.size(&self.place.manifest(&self.id)).await.is_ok() {
            return;
        }
        for (pack, _) in catalog.packs(&self.id).await.unwrap_or_default() {
            let _ = storage.delete(&self.place.pack(&pack)).await;
        }
        let _ = storage.delete(&self.place.pin(&self.id)).await;
        self.lease.end().await;
    }
}

/// Says where a file is: for messages.
fn at(path: &Path) -> String {
    path.display().to_string()
}
