//! Whether stored objects hold: all bytes of one are read, and proven as far as there are keys.

use std::ops::Range;

use bytes::Bytes;

use super::key::{self, Place};
use super::object::{Outside, Reading};
use super::pack::PackCheck;
use super::{Archive, ObjectKind, PackReader, PackRecord, SystemId, WalLook};
use crate::cipher::OpenStream;
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::wal::WalName;

/// Bytes that are read at once.
const STEP: u64 = 8 << 20;
/// What the cipher is given at once: it bounds what it gives out.
const SLICE: usize = 256 * 1024;

/// What was proven of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Its stored bytes.
    pub stored: u64,
    /// Whether its content was opened; without a key only its head and its length were looked at.
    pub opened: bool,
}

impl Archive {
    /// Proves an object: that it is the one that its key says, that every byte of it is what was written, and of WAL that it is
    /// what its name says. Of a pack, `record` is what a manifest says of it; without that, only the seal is
    /// proven. Reads from this archive's first copy alone. Without an identity it is not opened.
    ///
    /// # Errors
    ///
    /// `Absent`, `Damaged`, and `Key` where there are identities and none fits.
    pub async fn prove(&self, key: &str, record: Option<&PackRecord>) -> Result<Proven> {
        let source = self.look_at(key, kind_of(key)?).await?;
        let mut proof = Proof::begin(self, &source, key, record).await?;
        let mut at = source.head.len as u64;
        while proof.reads() && at < source.object_size {
            let end = (at + STEP).min(source.object_size);
            let bytes = self.stored_part(key, at..end).await?;
            proof = blocking(move || proof.push(&bytes).map(|()| proof)).await?;
            at = end;
        }
        let opened = proof.opens();
        blocking(move || proof.finish()).await?;
        Ok(Proven { stored: source.object_size, opened })
    }

    /// Stored bytes of an object that was just seen to be longer.
    pub(super) async fn stored_part(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end - range.start;
        let part = self.storage.get(key, Some(range)).await?;
        if part.bytes.len() as u64 != wanted {
            return Err(Error::damaged("the object is shorter than it was").on(key));
        }
        Ok(part.bytes)
    }
}

pub(super) fn kind_of(key: &str) -> Result<ObjectKind> {
    let known = key::kind_of(key).map(|(kind, _)| kind);
    known.ok_or_else(|| Error::damaged("an object has a name that no archive gives").on(key))
}

/// Proves an object's payload as it comes, in one pass.
pub(super) struct Proof {
    key: String,
    body: Body,
}

enum Body {
    /// No key opens it. An archive that is not encrypted says what the payload's sum is.
    Closed {
        expected: Option<String>,
        hasher: Box<blake3::Hasher>,
    },
    Decoded {
        reading: Box<Reading>,
        wal: Option<(WalName, SystemId)>,
        look: WalLook,
    },
    Pack {
        stream: Box<dyn OpenStream>,
        content: Vec<u8>,
        check: Option<Box<PackCheck>>,
    },
}

impl Proof {
    /// Begins with what the object shows without a key.
    pub(super) async fn begin(
        archive: &Archive,
        source: &Outside,
        key: &str,
        record: Option<&PackRecord>,
    ) -> Result<Proof> {
        let payload = source.object_size - source.head.len as u64;
        if source.binding.stored.is_some_and(|stored| stored != payload) {
            return Err(Error::damaged("the object has another length than it says").on(key));
        }
        let is_pack = source.binding.kind() == ObjectKind::Pack;
        let is_closed =
            !archive.cipher.can_open() || (is_pack && record.is_none() && !archive.info.encrypted());
        let body = if is_closed {
            Body::Closed { expected: source.binding.sum.clone(), hasher: Box::default() }
        } else if is_pack {
            Body::of_pack(archive, source, key, record).await?
        } else {
            let reading = Reading::start(archive, source, key, u64::MAX).map_err(|error| error.on(key))?;
            let wal = (source.binding.kind() == ObjectKind::Wal).then(|| wal_of(key)).transpose()?;
            Body::Decoded { reading: Box::new(reading), wal, look: WalLook::default() }
        };
        Ok(Proof { key: key.to_owned(), body })
    }

    /// Whether there is anything to be learned from the payload.
    fn reads(&self) -> bool {
        !matches!(&self.body, Body::Closed { expected: None, .. })
    }

    /// Whether the content is opened.
    fn opens(&self) -> bool {
        !matches!(&self.body, Body::Closed { .. })
    }

    /// Takes the next bytes of the payload.
    pub(super) fn push(&mut self, payload: &[u8]) -> Result<()> {
        self.body.push(payload).map_err(|error| error.on(&self.key))
    }

    /// Says that the payload ended.
    pub(super) fn finish(self) -> Result<()> {
        self.body.finish().map_err(|error| error.on(&self.key))
    }
}

impl Body {
    async fn of_pack(
        archive: &Archive,
        source: &Outside,
        key: &str,
        record: Option<&PackRecord>,
    ) -> Result<Body> {
        let open = archive.open_sealed(source, key)?;
        let check = match record {
            Some(record) => {
                let place = Place::of_key(key).ok_or_else(|| Error::bug("a pack is in no place"))?;
                let reader = PackReader::open(archive, &place, record).await?;
                Some(Box::new(PackCheck::new(reader.frames().to_vec(), record)))
            }
            None => None,
        };
        Ok(Body::Pack { stream: open.stream(), content: Vec::new(), check })
    }

    fn push(&mut self, payload: &[u8]) -> Result<()> {
        match self {
            Body::Closed { hasher, .. } => drop(hasher.update(payload)),
            Body::Decoded { reading, look, .. } => reading.push(payload, &mut |plain| {
                look.take(plain);
                Ok(())
            })?,
            Body::Pack { stream, content, check } => {
                for slice in payload.chunks(SLICE) {
                    stream.push(slice, content)?;
                    if let Some(check) = check {
                        check.push(content)?;
                    }
                    content.clear();
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self {
            Body::Closed { expected: Some(expected), hasher } => {
                match expected == hasher.finalize().to_hex().as_str() {
                    true => Ok(()),
                    false => Err(Error::damaged("the object does not match its checksum")),
                }
            }
            Body::Closed { .. } => Ok(()),
            Body::Decoded { reading, wal, mut look } => {
                reading.finish(&mut |plain| {
                    look.take(plain);
                    Ok(())
                })?;
                wal.map_or(Ok(()), |(name, system)| look.prove(&name, system))
            }
            Body::Pack { stream, mut content, check } => {
                stream.finish(&mut content)?;
                match check {
                    Some(mut check) => {
                        check.push(&content)?;
                        check.finish()
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

fn wal_of(key: &str) -> Result<(WalName, SystemId)> {
    key::wal_of(key).ok_or_else(|| {
        Error::new(Kind::Damaged, "an object lies among the WAL under a name that no WAL has").on(key)
    })
}
