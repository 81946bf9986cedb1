//! One dump, from the program that makes it to its manifest.

use std::process::Command;

use jiff::Timestamp;

use super::known::{Header, Known, Spool, path_of};
use super::packing::{Base, Packed, Packing};
use super::source::Source;
use super::{Run, Task};
use crate::archive::{
    BackupId, Dump, DumpContent, DumpFacts, DumpFormat, Line, ManifestWriter, PackRecord, PackSink,
};
use crate::crossing::{Bridge, blocking};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::client::Complaints;
use crate::postgres::libpq;

/// Stretches that a line of a manifest holds.
const STRETCHES: usize = 1024;

/// What is known of the dump before.
#[derive(Default)]
struct Before {
    base: Option<Base>,
    number: u64,
    bytes: Option<u64>,
    /// When the last dump began that stored everything, if this one does not.
    full_since: Option<Timestamp>,
}

impl Run {
    /// Makes and commits a dump; says also how many bytes the one before had.
    pub(super) async fn make(&self, task: &Task) -> (Result<Dump>, Option<u64>) {
        if let Err(stopped) = self.request.stop.check() {
            return (Err(stopped), None);
        }
        let before = match self.before(task).await {
            Ok(before) => before,
            Err(error) => return (Err(error), None),
        };
        let bytes_before = before.bytes;
        let id = match BackupId::fresh() {
            Ok(id) => id,
            Err(error) => return (Err(error), bytes_before),
        };
        let made = self.make_as(&id, task, before).await;
        if made.is_err() {
            self.clean_up(&id).await;
        }
        (made, bytes_before)
    }

    async fn make_as(&self, id: &BackupId, task: &Task, before: Before) -> Result<Dump> {
        let started_at = Timestamp::now();
        let number = (before.number + 1).max(started_at.as_microsecond().max(0) as u64);
        let format = self.format_of(task);
        let full_since = before.full_since.unwrap_or(started_at);
        let (packed, complaints) = self.pack(id, task, format, before.base).await?;
        let facts = DumpFacts {
            format: 1,
            kind_of: "dump".to_owned(),
            id: id.to_string(),
            run: self.id.to_string(),
            number,
            cluster: self.request.cluster.to_string(),
            system_id: self.server.system_id.clone(),
            database: task.database.clone(),
            content: task.content,
            dump_format: format,
            with_create: self.request.with_create && task.content == DumpContent::Database,
            as_file: self.request.as_file,
            pg_major: self.server.major,
            server_version: self.server.version.clone(),
            dump_version: self.client.programs().version.clone(),
            started_at,
            finished_at: Timestamp::now(),
            date: self.date,
            data_bytes: packed.data_bytes,
            stored_bytes: packed.packs.iter().take(packed.own).map(|(pack, _)| pack.stored).sum(),
            definition: self
                .server
                .definition(&task.database)
                .filter(|_| task.content == DumpContent::Database),
            arguments: self.arguments(task).to_vec(),
            warnings: complaints,
            labels: self.request.labels.clone(),
            created_by: format!("walarchive {}", env!("CARGO_PKG_VERSION")),
        };
        let packed = self.commit(id, facts.clone(), packed).await?;
        self.remember(task, &facts, full_since, packed).await;
        Ok(Dump { id: id.clone(), facts, pinned: self.request.pin })
    }

    fn arguments(&self, task: &Task) -> &[String] {
        match task.content {
            DumpContent::Database => &self.request.arguments,
            DumpContent::Globals => &self.request.globals_arguments,
        }
    }

    fn format_of(&self, task: &Task) -> DumpFormat {
        match task.content {
            DumpContent::Globals => DumpFormat::Plain,
            DumpContent::Database if task.connections > 1 => DumpFormat::Directory,
            DumpContent::Database => self.request.format,
        }
    }

    /// What this machine remembers, and whether it can be pointed to. The number is the archive's, where only that knows it.
    async fn before(&self, task: &Task) -> Result<Before> {
        let Some(known) = self.known(task).await else {
            return Ok(Before { number: self.number_of(task).await?, ..Before::default() });
        };
        let header = &known.header;
        let (number, bytes) = (header.number, Some(header.data_bytes));
        let why_not = self.why_not(header).await?;
        if let Some(why) = why_not {
            self.request.progress.note(&format!("all of {:?} is stored anew: {why}", task.database));
            return Ok(Before { number, bytes, ..Before::default() });
        }
        let since = known.header.full_since;
        let base = (!self.request.full && !self.request.as_file).then(|| Base::new(known));
        let full_since = base.is_some().then_some(since);
        Ok(Before { base, number, bytes, full_since })
    }

    async fn known(&self, task: &Task) -> Option<Known> {
        let path = self.state_path(task)?;
        let opened = blocking(move || Known::open(&path)).await;
        let known = opened.unwrap_or_else(|error| {
            let story = error.story();
            self.request.progress.note(&format!("all of {:?} is stored anew: {story}", task.database));
            None
        })?;
        let header = &known.header;
        let is_ours = header.version == Header::version()
            && header.archive == self.request.archive.info().id()
            && header.cluster == self.request.cluster.to_string()
            && header.database == task.database;
        is_ours.then_some(known)
    }

    fn state_path(&self, task: &Task) -> Option<std::path::PathBuf> {
        let dir = self.request.state_dir.as_ref()?;
        // Formats share next to nothing, so each is remembered on its own.
        let content = match task.content {
            DumpContent::Database => self.format_of(task).name(),
            DumpContent::Globals => "globals",
        };
        let (archive, cluster) = (self.request.archive.info().id(), self.request.cluster.to_string());
        Some(path_of(dir, archive, &cluster, content, &task.database))
    }

    /// Why the packs of the last dump cannot be pointed to.
    async fn why_not(&self, header: &Header) -> Result<Option<String>> {
        let age = Timestamp::now().duration_since(header.full_since).unsigned_abs();
        if age >= self.request.full_every {
            return Ok(Some("the last one that was stored whole is old enough".to_owned()));
        }
        if header.readers != self.request.archive.readers() {
            return Ok(Some("others shall be able to read it".to_owned()));
        }
        let packs: Vec<PackRecord> = header.packs.iter().map(|(pack, _)| pack.clone()).collect();
        match self.catalog().first_lost(&packs).await {
            Ok(None) => Ok(None),
            Ok(Some((pack, _))) => Ok(Some(format!("pack {} is not in the archive any more", pack.name))),
            Err(error) if error.kind() == Kind::Denied => Ok(Some(error.story())),
            Err(error) => Err(error),
        }
    }

    /// The number of the last dump of the same content, as far as the archive can be read.
    async fn number_of(&self, task: &Task) -> Result<u64> {
        match self.catalog().dumps().await {
            Ok((dumps, _)) => {
                let same = dumps.iter().filter(|dump| {
                    dump.facts.content == task.content && dump.facts.database == task.database
                });
                Ok(same.map(|dump| dump.facts.number).max().unwrap_or(0))
            }
            // A host that only writes goes by its clock.
            Err(error) if matches!(error.kind(), Kind::Key | Kind::Denied | Kind::Damaged) => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn pack(
        &self,
        id: &BackupId,
        task: &Task,
        format: DumpFormat,
        base: Option<Base>,
    ) -> Result<(Packed, Complaints)> {
        let request = &self.request;
        let mut sink =
            PackSink::new(request.archive.clone(), self.place.clone(), id.clone(), request.codec.clone())?;
        sink.read_back = true;
        if request.as_file {
            sink.target = u64::MAX;
        }
        let command = self.command(task, format)?;
        let (client, progress, connections) =
            (self.client.clone(), request.progress.clone(), task.connections);
        let (state_dir, scratch_dir) = (request.state_dir.clone(), request.scratch_dir.clone());
        let of_cluster = task.content == DumpContent::Globals;
        blocking(move || {
            let spool = match Spool::begin(state_dir.as_deref()) {
                Ok(spool) => spool,
                Err(error) => {
                    progress.note(&format!("the next dump will store everything anew: {}", error.story()));
                    Spool::begin(None)?
                }
            };
            let mut packing = Packing::new(sink, base, spool)?;
            let mut source =
                Source { client: &client, command, format, of_cluster, progress: progress.as_ref() };
            let (streams, complaints) = if format == DumpFormat::Directory {
                let dir = files::scratch_dir(scratch_dir.as_deref())
                    .map_err(|error| error.hint("dump.scratch_dir (or TMPDIR) names a place for it"))?;
                let path = dir.path().join("dump");
                source.command.args(["--no-sync", "-j", &connections.to_string(), "-f"]).arg(&path);
                source.directory(&path, &mut packing)?
            } else {
                source.piped(&mut packing)?
            };
            Ok((packing.finish(streams)?, complaints))
        })
        .await
    }

    fn command(&self, task: &Task, format: DumpFormat) -> Result<Command> {
        if task.content == DumpContent::Globals {
            let mut command = self.client.command("pg_dumpall")?;
            command.arg("--globals-only").args(self.arguments(task));
            return Ok(command);
        }
        let mut command = self.client.command("pg_dump")?;
        match format {
            DumpFormat::Custom => command.args(["-Fc", "-Z0"]),
            DumpFormat::Plain => command.arg("-Fp"),
            DumpFormat::Directory => command.args(["-Fd", "-Z0"]),
        };
        if self.request.with_create {
            command.arg("--create");
        }
        command.args(self.arguments(task)).arg("-d").arg(libpq::dbname(&task.database));
        Ok(command)
    }

    /// Commits the dump: it exists when its manifest does.
    async fn commit(&self, id: &BackupId, facts: DumpFacts, packed: Packed) -> Result<Packed> {
        let packs: Vec<PackRecord> = packed.packs.iter().map(|(pack, _)| pack.clone()).collect();
        if let Some((pack, _)) = self.catalog().first_lost(&packs).await? {
            let message =
                format!("the dump is not committed: its pack {} is not in the archive any more", pack.name);
            return Err(Error::new(Kind::Busy, message).hint("was it removed by hand? Start again"));
        }
        if self.request.pin {
            self.catalog().pin(id, self.request.codec.clone()).await?;
        }
        let (archive, place, named) = (self.request.archive.clone(), self.place.clone(), id.clone());
        let (codec, bridge, lease) = (self.request.codec.clone(), Bridge::current()?, self.lease.clone());
        let stop = self.request.stop.clone();
        let (packed, written) = blocking(move || {
            let mut manifest =
                ManifestWriter::start(&archive, &place, &named, codec.as_ref(), &facts, &bridge)?;
            for pack in packs {
                manifest.line(&Line::Pack(pack))?;
            }
            for stream in &packed.streams {
                manifest.line(&Line::Stream(stream.record.clone()))?;
                for stretches in stream.stretches.chunks(STRETCHES) {
                    manifest.line(&Line::Bytes(stretches.to_vec()))?;
                }
            }
            // What nobody may find any more must not be committed.
            lease.check()?;
            stop.check()?;
            Ok((packed, manifest.finish()?))
        })
        .await?;
        let key = self.place.manifest(id);
        if let Some(digest) = written.digest {
            let proven = self.request.archive.prove_sent(&key, written.stored, digest).await;
            proven.map_err(|error| error.during("reading the dump's manifest back"))?;
        }
        // The lease may have ended, when this machine stood still just then.
        if let Err(error) = self.lease.check() {
            let packs: Vec<PackRecord> = packed.packs.iter().map(|(pack, _)| pack.clone()).collect();
            if self.catalog().first_lost(&packs).await?.is_some() {
                return Err(error);
            }
        }
        Ok(packed)
    }

    /// Keeps for the next dump what this one has stored. What cannot be kept costs space, no safety.
    async fn remember(&self, task: &Task, facts: &DumpFacts, full_since: Timestamp, packed: Packed) {
        let Some(path) = self.state_path(task) else { return };
        let header = Header {
            version: Header::version(),
            archive: self.request.archive.info().id().to_owned(),
            cluster: facts.cluster.clone(),
            database: facts.database.clone(),
            id: facts.id.clone(),
            number: facts.number,
            full_since,
            data_bytes: facts.data_bytes,
            readers: self.request.archive.readers(),
            packs: packed.packs.clone(),
        };
        let kept = blocking(move || {
            let number = packed.number();
            packed.spool.publish(&path, &header, number)
        })
        .await;
        if let Err(error) = kept {
            let story = error.story();
            self.request.progress.note(&format!("the next dump will store everything anew: {story}"));
        }
    }

    /// Takes away what a dump left that is not committed. What cannot be removed now does no harm.
    async fn clean_up(&self, id: &BackupId) {
        let storage = self.request.archive.storage();
        // It may be there although its writer was told otherwise; without its packs it would be damaged.
        let _ = storage.delete(&self.place.manifest(id)).await;
        match storage.size(&self.place.manifest(id)).await {
            Err(error) if error.kind() == Kind::Absent => {}
            _ => return,
        }
        for pack in self.catalog().packs(id).await.unwrap_or_default().keys() {
            let _ = storage.delete(&self.place.pack(pack)).await;
        }
        let _ = storage.delete(&self.place.pin(id)).await;
    }
}
