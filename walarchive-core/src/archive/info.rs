//! The archive's description of itself (FORMAT.md §2).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SystemId;
use super::key::{ARCHIVE_JSON, DUMPS};
use crate::error::{Error, Kind, Result};
use crate::storage::{Created, Storage};

const FORMAT: u32 = 1;
const LONGEST: u64 = 64 * 1024;

/// The content of archive.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveInfo {
    format: u32,
    archive: String,
    created: Timestamp,
    encrypted: bool,
    /// BLAKE3 of the text without this key; older archives have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
}

impl ArchiveInfo {
    /// The description of a new archive, named by `random`.
    pub fn new(random: [u8; 16], now: Timestamp, encrypted: bool) -> ArchiveInfo {
        let archive = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut info = ArchiveInfo { format: FORMAT, archive, created: now, encrypted, sum: None };
        info.sum = Some(info.text_sum());
        info
    }

    fn text_sum(&self) -> String {
        let text = serde_json::to_vec(&ArchiveInfo { sum: None, ..self.clone() });
        blake3::hash(&text.unwrap_or_default()).to_hex().to_string()
    }

    /// Proves the stored description to its last byte.
    pub async fn prove(storage: &dyn Storage) -> Result<ArchiveInfo> {
        let info = ArchiveInfo::read(storage).await?;
        let part = storage.get(ARCHIVE_JSON, Some(0..LONGEST)).await?;
        match part.bytes.as_ref() == info.to_bytes()?.as_slice() {
            true => Ok(info),
            false => Err(damaged("archive.json is not as it was written")),
        }
    }

    /// The description of a copy of this archive, the same but that what is stored there is encrypted.
    #[must_use]
    pub fn encrypting(&self) -> ArchiveInfo {
        let mut info = ArchiveInfo { encrypted: true, sum: None, ..self.clone() };
        info.sum = Some(info.text_sum());
        if *self == (ArchiveInfo { sum: self.sum.clone(), ..info.clone() }) { self.clone() } else { info }
    }

    /// The archive's random id, 32 hex digits.
    pub fn id(&self) -> &str {
        &self.archive
    }

    /// When the archive was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Whether objects are sealed with age.
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    fn parse(bytes: &[u8]) -> Result<ArchiveInfo> {
        let info: ArchiveInfo = serde_json::from_slice(bytes)
            .map_err(|error| damaged("archive.json cannot be read").because(error))?;
        if info.format != FORMAT {
            return Err(Error::damaged(format!(
                "the archive has format {}, this program knows {FORMAT}",
                info.format
            ))
            .on(ARCHIVE_JSON)
            .hint("use the newer walarchive that made it"));
        }
        if info.archive.len() != 32 || !info.archive.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(damaged("archive.json names no archive"));
        }
        if info.sum.as_ref().is_some_and(|sum| *sum != info.text_sum()) {
            return Err(damaged("archive.json does not match its checksum"));
        }
        Ok(info)
    }

    /// Reads the description, if there is one.
    pub async fn find(storage: &dyn Storage) -> Result<Option<ArchiveInfo>> {
        match storage.get(ARCHIVE_JSON, Some(0..LONGEST)).await {
            Ok(part) => ArchiveInfo::parse(&part.bytes).map(Some),
            Err(error) if error.kind() == Kind::Absent => Ok(None),
            Err(error) => Err(error.during("reading the archive's description")),
        }
    }

    /// Reads the description. That it is missing never proves that the archive is empty: a directory that is
    /// not mounted looks the same, so it is `Unreachable`.
    pub async fn read(storage: &dyn Storage) -> Result<ArchiveInfo> {
        ArchiveInfo::find(storage).await?.ok_or_else(|| {
            Error::new(Kind::Unreachable, "there is no archive at this place (archive.json is missing)")
                .on(ARCHIVE_JSON)
                .hint("is it mounted, and is the URL right? 'walarchive init' makes a new archive; to one that lost its archive.json, 'walarchive verify --repair-from' brings it back from a copy")
        })
    }

    /// The stored form.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Error::bug("archive.json cannot be written").because(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Stores this description, unless there is one; gives the one that is stored, and whether it is this. A store that
    /// replaces objects although it was asked not to gets no archive: it would lose what two writers name alike. Nor does
    /// a place with the objects of an archive that lost its description: under another id nobody could read them.
    pub async fn create(self, storage: &dyn Storage) -> Result<(ArchiveInfo, bool)> {
        if let Some(info) = ArchiveInfo::find(storage).await? {
            return Ok((info, false));
        }
        refuse_orphans(storage).await?;
        let mut bytes = self.to_bytes()?;
        match storage.create(ARCHIVE_JSON, vec![bytes.clone().into()]).await? {
            Created::Exists => return Ok((ArchiveInfo::read(storage).await?, false)),
            Created::New => {}
        }
        // Means the same and is not the same: after a lost answer, equal bytes would count as this writer's.
        bytes.push(b'\n');
        match storage.create(ARCHIVE_JSON, vec![bytes.into()]).await? {
            Created::Exists => Ok((self, true)),
            Created::New => Err(replaced(self.take_back(storage).await)),
        }
    }

    /// Removes this description, if it is the one that is stored.
    async fn take_back(&self, storage: &dyn Storage) -> Result<()> {
        match ArchiveInfo::find(storage).await? {
            Some(stored) if stored == *self => storage.delete(ARCHIVE_JSON).await,
            _ => Ok(()),
        }
    }
}

/// A description that does not hold.
fn damaged(found: &str) -> Error {
    Error::damaged(found)
        .on(ARCHIVE_JSON)
        .hint("'walarchive verify --repair-from' puts it back from a copy of the archive")
}

async fn refuse_orphans(storage: &dyn Storage) -> Result<()> {
    match known_clusters(storage).await {
        Ok(known) if known.is_empty() => Ok(()),
        Ok(known) => Err(Error::damaged(format!(
            "archive.json is missing, but objects of an archive are here, of {}",
            known.join(", ")
        ))
        .on(ARCHIVE_JSON)
        .hint("nothing was changed, as under a new one they could not be read; 'walarchive verify --repair-from' puts it back from a copy of the archive")),
        // Who may only write cannot look.
        Err(error) if error.kind() == Kind::Denied => Ok(()),
        Err(error) => Err(error),
    }
}

/// The clusters that objects in this place are of, by the users' names.
pub(super) async fn known_clusters(storage: &dyn Storage) -> Result<Vec<String>> {
    let mut known = Vec::new();
    for name in storage.list_dirs("").await? {
        // Some stores keep names that have nothing below them any more.
        let below = storage.list_dirs(&name).await?;
        if below.iter().any(|room| room == DUMPS || room.parse::<SystemId>().is_ok()) {
            known.push(name);
        }
    }
    known.sort();
    Ok(known)
}

fn replaced(removed: Result<()>) -> Error {
    let error = Error::usage("the store replaces objects that are there, although it was asked not to")
        .on(ARCHIVE_JSON)
        .hint(
            "no archive was made; store.create = check-first accepts the weaker promise, and 'walarchive check store' \
             says what it means",
        );
    match removed {
        Ok(()) => error,
        Err(failed) => error.because(failed),
    }
}
