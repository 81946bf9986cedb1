//! WAL files into the archive: the one that is asked for, and those that will be.

mod ahead;
mod checked;
mod receipts;

use std::path::Path;
use std::sync::Arc;

pub use ahead::{Ahead, AlsoPushed};
use checked::{Checked, cannot_read};
pub use receipts::{Receipt, Receipts};

use self::receipts::now;
use crate::archive::{Archive, ClusterName, ObjectKind, Place, Stored, SystemId};
use crate::codec::{Codec, PlainSink};
use crate::crossing::blocking;
use crate::error::{Kind, Result};
use crate::source::WalFile;
use crate::storage::Created;
use crate::wal::WalName;

/// How WAL is pushed.
#[derive(Debug, Clone)]
pub struct Push {
    /// Where to.
    pub archive: Archive,
    /// Under whose name.
    pub cluster: ClusterName,
    /// How it is compressed.
    pub codec: Arc<dyn Codec>,
    /// The system identifier that the caller expects; a segment of any other is refused. Without it, the one of the
    /// data directory that the file lies in counts.
    pub system: Option<SystemId>,
}

/// A WAL file that is durable in the archive.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Its key.
    pub key: String,
    /// The cluster it belongs to.
    pub system: SystemId,
    /// What became of it.
    pub stored: Stored,
    receipt: Option<Receipt>,
}

impl Push {
    /// Checks the file, and stores it. Success means that the archive holds exactly this content durably, whether it
    /// was stored now or before. One request in the common case.
    ///
    /// A server that was promoted with archiving off has never offered its timeline's history file; it goes first, as
    /// nobody finds the way to the segment without it.
    pub async fn run(&self, file: &WalFile) -> Result<Pushed> {
        self.push_history(file).await?;
        let checked = self.look(file).await?;
        self.push(file, checked).await
    }

    /// The same; what was read is remembered.
    async fn push_for_receipt(&self, file: &WalFile) -> Result<Pushed> {
        self.push_history(file).await?;
        let checked = self.look(file).await?.summed();
        let (facts, sum) = (checked.facts, checked.sum());
        let pushed = self.push(file, checked).await?;
        let receipt = sum.get().map(|sum| Receipt {
            name: file.name.to_string(),
            facts,
            sum: *sum,
            stored_at: now(),
            key: pushed.key.clone(),
            stored: pushed.stored.stored,
        });
        Ok(Pushed { receipt, ..pushed })
    }

    async fn push_history(&self, file: &WalFile) -> Result<()> {
        let segment = file.clone();
        if let Some(history) = blocking(move || forgotten_history(&segment)).await? {
            let checked = self.look(&history).await?;
            self.push(&history, checked).await?;
        }
        Ok(())
    }

    async fn look(&self, file: &WalFile) -> Result<Checked> {
        let (wal, expected) = (file.clone(), self.system);
        blocking(move || Checked::look(&wal, expected)).await.map_err(|error| error.on(file.path.display()))
    }

    async fn push(&self, file: &WalFile, checked: Checked) -> Result<Pushed> {
        let system = checked.system;
        let place = Place::of_system(self.cluster.clone(), system);
        let key = place.wal(&file.name);
        match self.store(&key, checked.reopen()?).await {
            Ok(stored) => Ok(Pushed { key, system, stored, receipt: None }),
            Err(error) if error.kind() == Kind::Conflict && matches!(file.name, WalName::Partial(_)) => {
                self.store_beside(&place, &file.name, checked).await
            }
            Err(error) => Err(error.during(format!("storing {}", file.path.display()))),
        }
    }

    async fn store(&self, key: &str, checked: Checked) -> Result<Stored> {
        let content = move |sink: PlainSink<'_>| checked.read(sink);
        self.archive.put(key, ObjectKind::Wal, self.codec.clone(), content).await
    }

    /// Two servers promoted at the same place leave partial segments that differ behind their last record. Both are
    /// kept.
    async fn store_beside(&self, place: &Place, name: &WalName, checked: Checked) -> Result<Pushed> {
        let system = checked.system;
        let again = checked.reopen()?;
        let archive = self.archive.clone();
        let digest = blocking(move || {
            let mut digest = crate::archive::ContentDigest::new(archive.info().id());
            again.read(&mut |bytes| {
                digest.update(bytes);
                Ok(())
            })?;
            Ok(digest.hex())
        })
        .await?;
        let key = place.other_partial(name, &digest);
        let stored = self.store(&key, checked).await?;
        Ok(Pushed { key, system, stored, receipt: None })
    }
}

impl Pushed {
    /// Whether the same content was stored before.
    pub fn was_there(&self) -> bool {
        self.stored.created == Created::Exists
    }
}

/// The history file beside a segment that the server neither has archived nor will: it has no note about it.
fn forgotten_history(file: &WalFile) -> Result<Option<WalFile>> {
    let (WalName::Segment(segment), Some(dir)) = (&file.name, file.path.parent()) else { return Ok(None) };
    if segment.timeline.get() == 1 || dir.file_name().is_none_or(|name| name != "pg_wal") {
        return Ok(None);
    }
    let name = WalName::History(segment.timeline);
    let path = dir.join(name.to_string());
    let exists = |path: &Path| path.try_exists().map_err(|error| cannot_read(path, error));
    for note in ["ready", "done"] {
        if exists(&dir.join("archive_status").join(format!("{name}.{note}")))? {
            return Ok(None);
        }
    }
    Ok(exists(&path)?.then_some(WalFile { name, path }))
}
