//! What is stored, and how: keys, sealed objects, packs, manifests (FORMAT.md).

mod binding;
mod catalog;
mod census;
mod compare;
mod copies;
mod document;
mod extent;
mod held_lease;
mod info;
mod inventory;
mod key;
mod leftover;
mod manifest;
mod object;
mod open_packs;
mod pack;
mod past;
mod proof;
mod put_back;
mod recoverable;
mod report;
mod resealed;
mod rotated;
mod sent;
mod signing;
mod streams;
mod verbatim;
mod wal_look;
mod written;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use binding::{Binding, ContentDigest, ObjectKind};
pub use catalog::{Backup, Catalog, Dump, StoredWal};
pub use census::{Census, Share};
pub use compare::{CopyState, Missing, compare};
pub use extent::{Extent, Extents, PAGE, is_zero};
pub use held_lease::HeldLease;
pub use info::ArchiveInfo;
pub use inventory::Inventory;
pub use key::{BackupId, ClusterName, PackName, Place, Room, SystemId};
pub(crate) use key::{kind_of, wal_of};
pub use leftover::{Lease, Marks};
pub use manifest::{
    Database, DumpContent, DumpFacts, DumpFormat, Facts, FileRecord, FirstLine, Line, Manifest,
    ManifestWriter, Named, Needs, PackRecord, StreamRecord, Stretch, SumCheck, Tablespace, Visitor,
    read_facts, read_needs, safe_path, scan,
};
pub use object::{Content, ObjectReader, Outside, Stored, Taker};
pub(crate) use open_packs::{Flight, OpenPacks};
pub use pack::{FRAME_PAGES, FrameEntry, PACK_TARGET, PackReader, PackSink, PackWriter};
pub use past::{Histories, Past, segment_size};
pub use proof::Proven;
pub use recoverable::{Recoverable, recoverable, without_wal};
pub use report::{DrillCheck, DrillReport, Drilled};
pub use resealed::bring_manifest_resealed;
pub use rotated::{NewHeads, Rotation};
pub use streams::{Stream, Streams, StreamsReader};
pub use verbatim::Brought;
pub use wal_look::WalLook;
pub use written::{Written, WrittenContent};

use self::key::ARCHIVE_JSON;
use self::signing::Writers;
use crate::cipher::age::{AgeCipher, Identity, Recipient};
use crate::cipher::writer::{Writer, WriterKey};
use crate::cipher::{Cipher, Head, Open, Plain, Seal};
use crate::error::{Error, Kind, Result};
use crate::storage::Storage;

/// Public keys to write with and secret keys to read with; either may be empty.
#[derive(Default)]
pub struct Keys {
    /// Who will be able to read what is written.
    pub recipients: Vec<Recipient>,
    /// What is read is opened with one of these.
    pub identities: Vec<Identity>,
    /// What signs what is written.
    pub writer: Option<WriterKey>,
    /// Where there are any, what none of them signed is refused as damaged.
    pub trusted_writers: Vec<Writer>,
}

impl Keys {
    /// Whoever has `identity` writes and reads, and nobody else.
    pub fn of(identity: Identity) -> Keys {
        Keys { recipients: vec![identity.recipient()], identities: vec![identity], ..Keys::default() }
    }

    /// Writes for `recipients`, and reads nothing.
    pub fn writing_for(recipients: impl IntoIterator<Item = Recipient>) -> Keys {
        Keys { recipients: recipients.into_iter().collect(), ..Keys::default() }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} recipients, {} identities)", self.recipients.len(), self.identities.len())
    }
}

/// An archive that was reached and proven to be one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    storage: Arc<dyn Storage>,
    cipher: Arc<dyn Cipher>,
    info: Arc<ArchiveInfo>,
    writers: Arc<Writers>,
    sealing: Option<Arc<Semaphore>>,
}

impl Archive {
    /// Makes an archive, or finds the one that is there: then nothing is changed, and `false` is returned with
    /// its description. One that differs in `encrypted` is a `Conflict`. Mirrors all get the same description; some that
    /// lack it are completed, and some that are different archives are a `Conflict`. All of them must be reachable.
    pub async fn init(storage: &dyn Storage, encrypted: bool) -> Result<(ArchiveInfo, bool)> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))?;
        let wanted = ArchiveInfo::new(random, jiff::Timestamp::now(), encrypted);
        let (info, new) = match storage.mirrors() {
            Some(mirrors) => copies::describe(mirrors, wanted).await?,
            None => wanted.create(storage).await?,
        };
        if info.encrypted() != encrypted {
            let is = if info.encrypted() { "encrypted" } else { "not encrypted" };
            return Err(Error::new(
                Kind::Conflict,
                format!("there is an archive at this place already, and it is {is}"),
            )
            .hint("choose another place; an archive is encrypted or not for ever"));
        }
        Ok((info, new))
    }

    /// Opens the archive in `storage`. One small read. Keys are not needed to open an archive, but to read
    /// from and write to an encrypted one. Of mirrors one that can be reached is enough; each is proven to be of this
    /// archive before it is used or believed.
    ///
    /// Where recipients are given and the archive says that it is not encrypted, storing is a `Conflict`: whoever can write to
    /// the store could have changed that to read what is stored from now on.
    pub async fn open(storage: Arc<dyn Storage>, keys: Keys) -> Result<Archive> {
        let (storage, info) = copies::proven(storage).await?;
        let writers = Arc::new(Writers::new(keys.writer, keys.trusted_writers));
        let cipher: Arc<dyn Cipher> = if info.encrypted() {
            Arc::new(AgeCipher::new(keys.recipients, keys.identities))
        } else if keys.recipients.is_empty() {
            Arc::new(Plain)
        } else {
            Arc::new(Unsealed)
        };
        Ok(Archive { storage, cipher, info: Arc::new(info), writers, sealing: None })
    }

    /// Opens the archive in `storage` with a cipher of the caller's. Nothing is signed, and no signature demanded.
    pub async fn open_with(storage: Arc<dyn Storage>, cipher: Arc<dyn Cipher>) -> Result<Archive> {
        let (storage, info) = copies::proven(storage).await?;
        if info.encrypted() != cipher.encrypts() {
            return Err(Error::usage(
                "the cipher does not fit the archive: one encrypts, the other does not",
            ));
        }
        Ok(Archive { storage, cipher, info: Arc::new(info), writers: Arc::default(), sealing: None })
    }

    /// Who can open what is stored from now on, as [`Cipher::readers`] has it.
    pub(crate) fn readers(&self) -> String {
        self.cipher.readers()
    }

    /// Whether contents can be read: the archive is not encrypted, or there are identities.
    pub fn can_open(&self) -> bool {
        self.cipher.can_open()
    }

    /// Whether what no trusted writer signed is refused.
    pub fn demands_signatures(&self) -> bool {
        self.writers.demand()
    }

    /// What archive.json says.
    pub fn info(&self) -> &ArchiveInfo {
        &self.info
    }

    /// The same archive, where every mirror must answer, whatever the policy: what is to be removed may be needed by what
    /// only one of them has.
    #[must_use]
    pub fn strict(&self) -> Archive {
        match self.storage.mirrors() {
            Some(mirrors) => Archive { storage: Arc::new(mirrors.strict()), ..self.clone() },
            None => self.clone(),
        }
    }

    /// The same archive, where so many objects that are [`put`](Archive::put) are compressed and sealed at once, however many are on
    /// their way to the store.
    #[must_use]
    pub fn sealing_at_once(&self, objects: usize) -> Archive {
        Archive { sealing: Some(Arc::new(Semaphore::new(objects.max(1)))), ..self.clone() }
    }

    /// The store under the archive.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }
}

/// An archive that is not encrypted, and whose user wants to seal.
#[derive(Debug)]
struct Unsealed;

impl Cipher for Unsealed {
    fn encrypts(&self) -> bool {
        false
    }

    fn seal(&self) -> Result<Box<dyn Seal>> {
        Err(Error::new(Kind::Conflict, "recipients are set, but the archive says that it is not encrypted")
            .on(ARCHIVE_JSON)
            .hint("nothing was stored; if it was made with --no-encryption, unset the recipients"))
    }

    fn read_head(&self, start: &[u8]) -> Result<Option<Head>> {
        Plain.read_head(start)
    }

    fn open(&self, head: &[u8]) -> Result<Box<dyn Open>> {
        Plain.open(head)
    }
}
