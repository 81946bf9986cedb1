//! The end of a backup: its manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::base::{Base, EARLIER};
use super::state::{Remembered, Spool};
use super::{BackupDone, Parts, Run};
use crate::archive::{Backup, BackupId, Database, Facts, Line, ManifestWriter, PackRecord, Tablespace};
use crate::crossing::{Bridge, blocking};
use crate::error::{Error, Kind, Result};
use crate::wal::Lsn;

/// Bytes of names that the facts list, with what JSON adds to each.
const DATABASES_MAX: usize = 128 * 1024;
const DATABASE_OVERHEAD: usize = 32;

impl Parts {
    /// All packs in the order of the manifest: this backup's, then those of earlier ones.
    fn packs(&self) -> Vec<PackRecord> {
        let earlier = self.base.iter().flat_map(|base| {
            let packs = base.packs();
            self.copied.earlier.iter().filter_map(|number| packs.get(*number as usize))
        });
        self.copied.packs.iter().chain(earlier).cloned().collect()
    }

    fn earlier_backup(&self) -> Option<String> {
        let base = self.base.as_ref().filter(|_| !self.copied.earlier.is_empty());
        base.and_then(|base| base.id.as_ref()).map(BackupId::to_string)
    }
}

impl Run {
    fn facts(&self, parts: &Parts) -> Facts {
        let tablespaces = parts.contents.tablespaces.iter();
        Facts {
            format: Facts::FORMAT,
            kind_of: "base".to_owned(),
            id: self.id.to_string(),
            kind: if parts.copied.earlier.is_empty() { "full" } else { "incremental" }.to_owned(),
            base: parts.earlier_backup(),
            cluster: self.request.cluster.to_string(),
            system_id: self.server.system_id.to_string(),
            pg_major: self.server.major,
            server_version: self.server.version.clone(),
            control_version: self.control.pg_control_version,
            catalog_version: self.control.catalog_version,
            from_standby: parts.stopped.is_from_standby(),
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
            databases: self.databases(),
            labels: self.request.labels.clone(),
            created_by: format!("walarchive {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Commits the backup: it exists when its manifest does.
    pub(super) async fn commit(&self, mut parts: Parts) -> Result<BackupDone> {
        let facts = self.facts(&parts);
        if self.request.pin {
            self.catalog().pin(&self.id, self.request.codec.clone()).await?;
        }
        let packs = parts.packs();
        self.prove_stored(&packs).await?;
        let damaged = std::mem::take(&mut parts.copied.damaged);
        let (read_bytes, base) = (parts.copied.read_bytes, parts.base.clone());
        let written = self.write_manifest(parts, facts.clone(), packs.clone()).await;
        let spool = written.map_err(|error| error.during("committing the backup"))?;
        if let Err(error) = self.lease.check() {
            // It may have ended between the last look and the commit, when this machine stood still just then: if packs
            // are gone, this is no backup.
            if self.prove_stored(&packs).await.is_err() {
                self.request.archive.storage().delete(&self.place.manifest(&self.id)).await?;
                return Err(error);
            }
        }
        if let Err(error) = self.remember(spool, facts.stop_lsn, base).await {
            let note = format!("the next backup will store everything anew: {}", error.story());
            self.request.progress.note(&note);
        }
        let backup = Backup { id: self.id.clone(), facts, pinned: self.request.pin };
        Ok(BackupDone { backup, damaged, read_bytes })
    }

    /// Writes the manifest, and gives the list of files back.
    async fn write_manifest(&self, parts: Parts, facts: Facts, packs: Vec<PackRecord>) -> Result<Spool> {
        let (archive, place, id) = (self.request.archive.clone(), self.place.clone(), self.id.clone());
        let (codec, bridge, lease) = (self.request.codec.clone(), Bridge::current()?, self.lease.clone());
        blocking(move || {
            let Parts { copied, contents, .. } = parts;
            let mut manifest = ManifestWriter::start(&archive, &place, &id, codec.as_ref(), &facts, &bridge)?;
            let own = copied.packs.len() as u32;
            let earlier: BTreeMap<u32, u32> = copied.earlier.iter().copied().zip(own..).collect();
            for pack in packs {
                manifest.line(&Line::Pack(pack))?;
            }
            for dir in contents.dirs {
                manifest.line(&Line::Dir(dir.path, dir.mode))?;
            }
            let number = |pack: u32| match pack & EARLIER {
                0 => Ok(pack),
                _ => earlier
                    .get(&(pack & !EARLIER))
                    .copied()
                    .ok_or_else(|| Error::bug("a file is in a pack that nobody counted")),
            };
            let mut spool = copied.spool;
            spool.replay(|mut file: Remembered| {
                file.record.extents.renumber(number)?;
                manifest.line(&Line::File(file.record))
            })?;
            // What nobody may find any more must not be committed.
            lease.check()?;
            manifest.finish()?;
            Ok(spool)
        })
        .await
    }

    /// Keeps for the next backup what this one has stored.
    async fn remember(&self, spool: Spool, stop: Lsn, base: Option<Arc<Base>>) -> Result<()> {
        for id in base.iter().flat_map(|base| base.cut_off()) {
            self.request.archive.end_leases(&self.place, &id).await;
        }
        blocking(move || {
            spool.publish(stop)?;
            base.map_or(Ok(()), |base| base.forget_cut_off())
        })
        .await
    }

    /// The server's databases, unless they are so many that the facts could not be read at one go.
    fn databases(&self) -> Vec<Database> {
        let known = &self.server.databases;
        if known.iter().map(|(_, name)| name.len() + DATABASE_OVERHEAD).sum::<usize>() > DATABASES_MAX {
            return Vec::new();
        }
        known.iter().map(|(oid, name)| Database { oid: *oid, name: name.clone() }).collect()
    }

    /// Proves that all packs of the manifest are stored, earlier backups' as well.
    async fn prove_stored(&self, packs: &[PackRecord]) -> Result<()> {
        match self.catalog().first_lost(packs).await? {
            None => Ok(()),
            Some((pack, _)) => Err(Error::new(
                Kind::Busy,
                format!(
                    "backup {} is not committed: its pack {} is not in the archive any more",
                    self.id, pack.name
                ),
            )
            .hint(
                "was it removed by hand, or by a 'prune' that did not see this backup's lease? Start again",
            )),
        }
    }
}
