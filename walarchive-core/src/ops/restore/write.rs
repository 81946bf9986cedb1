//! A backup's files, written in parallel and verified to the last byte.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt};

use super::fill::{OpenFile, STRETCH, Task, Worker, mismatch, pages};
use super::layout::Layout;
use super::packs::Packs;
use super::pg_manifest::PgManifest;
use crate::archive::{BackupId, Catalog, Facts, FileRecord, Line, Manifest, PAGE, PackRecord, Visitor, scan};
use crate::crossing::{Bridge, blocking};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::datadir::{CONTROL_FILE, RESTORE_MARKER};
use crate::progress::Progress;

const CONTROL_MAX: u64 = 64 * 1024;
const TABLESPACE_MAP: &str = "tablespace_map";

/// A restore being carried out.
#[derive(Clone)]
pub(super) struct Restore {
    pub(super) catalog: Catalog,
    pub(super) id: BackupId,
    pub(super) layout: Layout,
    pub(super) recovery: String,
    pub(super) standby: bool,
    pub(super) jobs: usize,
    pub(super) progress: Arc<dyn Progress>,
}

/// What a restore itself puts into the data directory: a backup that had them could change what the restore means.
const OWN_FILES: [&str; 4] = [RESTORE_MARKER, "backup_manifest", "recovery.signal", "standby.signal"];

/// What the first look through the manifest found.
#[derive(Default)]
struct Survey {
    /// Bytes to be written, by tablespace; without one, in the data directory.
    bytes: BTreeMap<Option<u32>, u64>,
    control: Option<FileRecord>,
    has_config: bool,
    paths: std::collections::BTreeSet<u128>,
}

impl Visitor for Survey {
    fn line(&mut self, _: &Facts, _: &[PackRecord], line: Line) -> Result<()> {
        let path = match &line {
            Line::Pack(_) => return Ok(()),
            Line::Dir(path, _) => path,
            Line::File(record) => &record.path,
        };
        if OWN_FILES.iter().any(|own| path == Path::new(own)) {
            return Err(Error::damaged(format!(
                "the manifest names {}, which is never part of a backup",
                path.display()
            )));
        }
        if !self.paths.insert(path_digest(path)) {
            return Err(Error::damaged(format!("the manifest names {} twice", path.display())));
        }
        if let Line::File(record) = line {
            let pages: u64 = record.extents.iter().map(|extent| u64::from(extent.count)).sum();
            *self.bytes.entry(tablespace_of(&record.path)).or_default() += pages * PAGE as u64;
            self.has_config |= record.path == Path::new("postgresql.conf");
            if record.path == Path::new(CONTROL_FILE) {
                if record.size > CONTROL_MAX {
                    return Err(Error::damaged(format!(
                        "the manifest names a pg_control of {} bytes",
                        record.size
                    )));
                }
                self.control = Some(record);
            }
        }
        Ok(())
    }
}

/// The tablespace that a path of the backup is in.
fn tablespace_of(path: &Path) -> Option<u32> {
    let below = path.strip_prefix("pg_tblspc").ok()?;
    below.components().next()?.as_os_str().to_str()?.parse().ok()
}

/// Stands for a path in little memory.
fn path_digest(path: &Path) -> u128 {
    use std::os::unix::ffi::OsStrExt;
    let digest = blake3::hash(path.as_os_str().as_bytes());
    let (half, _) = digest.as_bytes().split_at(16);
    u128::from_le_bytes(half.try_into().unwrap_or_default())
}

impl Restore {
    /// Restores; gives the bytes that were written, and what people should know.
    pub(super) async fn run(mut self) -> Result<(u64, Vec<String>)> {
        let (manifest, survey) =
            scan(&self.catalog.archive, &self.catalog.place, &self.id, Survey::default()).await?;
        let control =
            survey.control.ok_or_else(|| Error::damaged(format!("backup {} has no pg_control", self.id)))?;
        self.check_packs(&manifest).await?;
        let bytes = survey.bytes.values().sum();
        let layout = self.layout.clone();
        blocking(move || check_space(&layout, &survey.bytes)).await?;
        let mut notes = Vec::new();
        if !survey.has_config {
            notes.push(
                "postgresql.conf is not in the backup, as it lies outside of the data directory: supply it before starting"
                    .to_owned(),
            );
        }
        let mode = if control.mode & 0o040 != 0 { 0o750 } else { 0o700 };
        self.layout = {
            let (mut layout, id) = (self.layout.clone(), self.id.to_string());
            blocking(move || layout.begin(mode, &id).map(|()| layout)).await?
        };
        self.progress.begin("restoring", bytes);
        let written = self.write_files(&manifest).await;
        self.progress.end();
        let written = written?;
        self.finish(&manifest, control).await?;
        if self.layout.belongs_to_root() {
            notes.push(
                "the files belong to root, and PostgreSQL does not run as root: give them to its user first"
                    .to_owned(),
            );
        }
        Ok((written, notes))
    }

    /// Proves that every pack is there, before anything is written.
    async fn check_packs(&self, manifest: &Manifest) -> Result<()> {
        let storage = self.catalog.archive.storage();
        let check = |pack: &PackRecord| {
            let (key, stored) = (self.catalog.place.pack(&pack.name), pack.stored);
            async move {
                match storage.size(&key).await {
                    Ok(size) if size == stored => Ok(()),
                    Ok(size) => {
                        Err(Error::damaged(format!("a pack has {size} bytes instead of {stored}")).on(&key))
                    }
                    Err(error) if error.kind() == Kind::Absent => {
                        Err(Error::damaged("a pack that the backup needs is missing").on(&key))
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let checks: Vec<_> = manifest.packs.iter().map(check).collect();
        futures::stream::iter(checks).buffer_unordered(8).try_collect::<()>().await.map_err(|error| {
            error.during(format!("backup {} cannot be restored; nothing was written", self.id))
        })
    }

    async fn write_files(&self, manifest: &Manifest) -> Result<u64> {
        let (sender, receiver) = sync_channel::<Task>(64);
        let packs = Arc::new(Packs::new(self.catalog.clone(), manifest.packs.clone(), Bridge::current()?));
        let (receiver, stop) = (Arc::new(Mutex::new(receiver)), Arc::new(AtomicBool::new(false)));
        let mut workers = Vec::new();
        for _ in 0..self.jobs {
            let worker = Worker {
                packs: packs.clone(),
                tasks: receiver.clone(),
                stop: stop.clone(),
                progress: self.progress.clone(),
                framers: BTreeMap::new(),
                last: None,
                written: 0,
            };
            workers.push(blocking(move || worker.run()));
        }
        drop(receiver);
        let giver =
            Giver { layout: self.layout.clone(), pg_manifest: None, tasks: sender, stop: stop.clone() };
        let giving = async {
            let (manifest, giver) = scan(&self.catalog.archive, &self.catalog.place, &self.id, giver).await?;
            blocking(move || giver.finish(&manifest.facts)).await
        };
        let (given, written) = futures::join!(giving, futures::future::join_all(workers));
        // A worker that fails stops the giver: its error is the cause.
        let written = written.into_iter().collect::<Result<Vec<u64>>>()?;
        given?;
        Ok(written.into_iter().sum())
    }

    /// What makes the directory a cluster comes last, when all else is durable.
    async fn finish(&self, manifest: &Manifest, control: FileRecord) -> Result<()> {
        let packs = Packs::new(self.catalog.clone(), manifest.packs.clone(), Bridge::current()?);
        let (restore, manifest) = (self.clone(), manifest.clone());
        blocking(move || {
            let layout = &restore.layout;
            layout.link()?;
            let signal = if restore.standby { "standby.signal" } else { "recovery.signal" };
            let mode = control.mode;
            files::write(&layout.target.join(signal), mode, b"")?;
            append(&layout.target.join("postgresql.auto.conf"), mode, restore.recovery.as_bytes())?;
            let (mut bytes, mut framers) = (Vec::new(), BTreeMap::new());
            for extent in control.extents.iter() {
                packs.pages(extent, &mut framers, &mut None, &mut |_, page| {
                    bytes.extend_from_slice(page);
                    Ok(())
                })?;
            }
            bytes.resize(control.size as usize, 0);
            if crc32c::crc32c(&bytes) != control.crc32c {
                return Err(mismatch(&control.path));
            }
            let stopped = crate::postgres::control::ControlFile::parse(&bytes)?;
            if stopped.system_id.to_string() != manifest.facts.system_id {
                return Err(Error::damaged("the backup's pg_control belongs to another cluster"));
            }
            layout.give_all()?;
            layout.sync()?;
            let place = layout.target.join(CONTROL_FILE);
            files::write(&place, mode, &bytes)?;
            std::fs::set_permissions(&place, Permissions::from_mode(mode))
                .map_err(|error| Error::io("cannot set the mode of pg_control", error))?;
            layout.give(&place)?;
            layout.end()
        })
        .await
    }
}

/// Appends to a file that may not be there.
fn append(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut all = if path.exists() { files::read(path, 64 << 20)? } else { Vec::new() };
    all.extend_from_slice(bytes);
    files::write(path, mode, &all)
}

/// Refuses when the data will not fit. What is not there yet is looked up in the nearest directory that is.
fn check_space(layout: &Layout, bytes: &BTreeMap<Option<u32>, u64>) -> Result<()> {
    let mut wanted: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
    for (tablespace, bytes) in bytes {
        let elsewhere = layout.tablespaces.iter().find(|known| Some(known.oid) == *tablespace);
        let dir = elsewhere.map_or(layout.target.as_path(), |known| known.location.as_path());
        let Some(place) = dir.ancestors().find(|place| place.exists()) else { continue };
        let Ok(facts) = std::fs::metadata(place) else { continue };
        wanted.entry(facts.dev()).or_insert((place, 0)).1 += bytes;
    }
    for (place, bytes) in wanted.values() {
        let Ok(facts) = rustix::fs::statvfs(*place) else { continue };
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        if free < *bytes {
            let place = place.display();
            let message =
                format!("{place} has {free} bytes free, the restore needs {bytes}; nothing was written");
            return Err(Error::new(Kind::Local, message));
        }
    }
    Ok(())
}

/// Reads the manifest again, makes directories and files, and gives the workers what to fill them with.
struct Giver {
    layout: Layout,
    pg_manifest: Option<PgManifest>,
    tasks: SyncSender<Task>,
    stop: Arc<AtomicBool>,
}

impl Visitor for Giver {
    fn line(&mut self, facts: &Facts, _: &[PackRecord], line: Line) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::bug("a worker failed"));
        }
        match line {
            Line::Pack(_) => Ok(()),
            Line::Dir(path, mode) => files::make_dir(&self.place(&path), mode),
            Line::File(record) => self.file(facts, record),
        }
    }
}

impl Giver {
    /// Where a path of the backup goes: what is below a tablespace's link goes to its location.
    fn place(&self, path: &Path) -> PathBuf {
        let in_tablespaces = path.strip_prefix("pg_tblspc").ok();
        let below = in_tablespaces.and_then(|rest| {
            let oid = rest.components().next()?.as_os_str();
            let tablespace = self.layout.tablespaces.iter().find(|t| oid == t.oid.to_string().as_str())?;
            Some(tablespace.location.join(rest.strip_prefix(oid).ok()?))
        });
        below.unwrap_or_else(|| self.layout.target.join(path))
    }

    fn file(&mut self, facts: &Facts, record: FileRecord) -> Result<()> {
        if self.pg_manifest.is_none() {
            let path = self.layout.target.join("backup_manifest");
            self.pg_manifest = Some(PgManifest::create(&path, 0o600, facts)?);
        }
        let path = self.place(&record.path);
        let moved = record.path == Path::new(TABLESPACE_MAP) && self.layout.moved;
        let map = if moved { self.layout.tablespace_map() } else { Vec::new() };
        let (size, crc) =
            if moved { (map.len() as u64, crc32c::crc32c(&map)) } else { (record.size, record.crc32c) };
        if let Some(manifest) = &mut self.pg_manifest {
            manifest.file(&record.path, size, record.mtime, crc)?;
        }
        if record.path == Path::new(CONTROL_FILE) {
            return Ok(());
        }
        if moved {
            return files::write(&path, record.mode, &map);
        }
        let end = pages(&record);
        let file = Arc::new(OpenFile::create(path, record)?);
        let mut from = 0;
        loop {
            let to = end.min(from + STRETCH);
            let task = Task { file: file.clone(), from, to };
            self.tasks.send(task).map_err(|_| Error::bug("the workers are gone"))?;
            from = to;
            if from >= end {
                return Ok(());
            }
        }
    }

    /// No more files come. Ends the workers by ending the channel.
    fn finish(self, facts: &Facts) -> Result<()> {
        let Giver { pg_manifest, tasks, .. } = self;
        drop(tasks);
        let manifest = pg_manifest.ok_or_else(|| Error::damaged("the backup has no files"))?;
        manifest.finish(facts)
    }
}
