//! Sealed objects (FORMAT.md §3): stored in one go, read back whole or by range.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::signing::{Signed, hex};
use super::{Archive, Binding, ContentDigest, ObjectKind, SumCheck};
use crate::cipher::{Head, Open, Seal};
use crate::codec::{Codec, CodecId, PlainSink};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Opener, Sealer};
use crate::storage::{Created, Part};

/// Bytes that hold the head of an object with a dozen recipients.
const HEAD_READ: u64 = 4 * 1024;
/// No head is longer.
const HEAD_MAX: u64 = 1 << 20;
/// Objects up to this length are read by one request; longer ones piece by piece, to bound memory.
const READ_STEP: u64 = 32 << 20;

/// What became of an object that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Whether it is new, or was there with the same content.
    pub created: Created,
    /// Bytes before compression.
    pub plain: u64,
    /// Bytes of the stored object.
    pub stored: u64,
    /// The digest of the decoded content, in hex.
    pub digest: String,
}

/// Something that gives an object's bytes, in order.
pub trait Content: FnOnce(PlainSink<'_>) -> Result<()> + Send + 'static {}
impl<F: FnOnce(PlainSink<'_>) -> Result<()> + Send + 'static> Content for F {}

/// Takes an object's decoded bytes, in order, on a thread that may block.
pub trait Taker: Send + 'static {
    /// Takes the next bytes.
    fn take(&mut self, plain: &[u8]) -> Result<()>;
}

impl Taker for Vec<u8> {
    fn take(&mut self, plain: &[u8]) -> Result<()> {
        self.extend_from_slice(plain);
        Ok(())
    }
}

struct Made {
    payload: Vec<Bytes>,
    plain: u64,
    digest: String,
}

impl Archive {
    /// Compresses, seals and stores one object in one request. If there is one already, it is compared with
    /// what was to be stored: the same content is success ([`Created::Exists`]), other content is `Conflict`.
    pub async fn put(
        &self,
        key: &str,
        kind: ObjectKind,
        codec: Arc<dyn Codec>,
        content: impl Content,
    ) -> Result<Stored> {
        let Made { payload, plain, digest } = self.make(key, kind, codec, content).await?;
        let stored = payload.iter().map(|piece| piece.len() as u64).sum();
        let created = match self.storage.mirrors() {
            None => self.store(key, kind, payload, &digest).await?,
            Some(mirrors) => {
                // What is there already differs from mirror to mirror: each is compared on its own.
                let (payload, digest) = (&payload, digest.as_str());
                let write = |_, store| {
                    let copy = self.with(store);
                    async move { copy.store(key, kind, payload.clone(), digest).await }
                };
                let all = mirrors.write(key, write).await?;
                if all.contains(&Created::New) { Created::New } else { Created::Exists }
            }
        };
        Ok(Stored { created, plain, stored, digest })
    }

    async fn store(&self, key: &str, kind: ObjectKind, payload: Vec<Bytes>, digest: &str) -> Result<Created> {
        let created = self.storage.create(key, payload).await?;
        if created == Created::Exists && kind == ObjectKind::Wal {
            self.compare(key, kind, digest).await?;
        }
        Ok(created)
    }

    async fn make(
        &self,
        key: &str,
        kind: ObjectKind,
        codec: Arc<dyn Codec>,
        content: impl Content,
    ) -> Result<Made> {
        let _turn = match &self.sealing {
            Some(turns) => turns.clone().acquire_owned().await.ok(),
            None => None,
        };
        let (cipher, writers) = (self.cipher.clone(), self.writers.clone());
        let (id, key) = (self.info.id().to_owned(), key.to_owned());
        blocking(move || {
            let mut sealer = Sealer::new(codec.as_ref(), cipher.as_ref())?;
            let mut digest = ContentDigest::new(&id);
            content(&mut |plain| {
                digest.update(plain);
                sealer.push(plain)
            })?;
            let digest = digest.hex();
            let mut plain = 0;
            let payload = sealer.finish(|facts| {
                plain = facts.plain;
                let mut binding = Binding::new(&id, &key, kind, codec.id());
                binding.plain = Some(facts.plain);
                binding.stored = Some(facts.stored);
                binding.sum = facts.sum;
                binding.digest = (kind == ObjectKind::Wal).then(|| digest.clone());
                writers.write(binding, facts.commitment)
            })?;
            Ok(Made { payload, plain, digest })
        })
        .await
    }

    async fn compare(&self, key: &str, kind: ObjectKind, digest: &str) -> Result<()> {
        let stored = self.look_at(key, kind).await.map_err(|error| match error.kind() {
            Kind::Absent => {
                let message = "the store says that the object is there already, and does not have it";
                Error::new(Kind::Unreachable, message).on(key).because(error)
            }
            _ => error.during("comparing with what is stored"),
        })?;
        if stored.binding.digest.as_deref() != Some(digest) {
            return Err(Error::new(Kind::Conflict, "other content is stored under that name; nothing was changed")
                .on(key)
                .hint("is this cluster a copy, or was it restored without a new timeline? Give one of the two another cluster name or archive"));
        }
        let whole = stored.binding.stored.map(|payload| payload + stored.head.len as u64);
        if whole != Some(stored.object_size) {
            return Err(Error::damaged(format!(
                "the same content is stored under that name, but the object has {} bytes where {} belong",
                stored.object_size,
                whole.unwrap_or_default()
            ))
            .on(key));
        }
        if !self.can_open() {
            return Ok(());
        }
        match self.prove(key, None).await {
            // Others may have stored it, for readers whom this host does not know.
            Err(error) if error.kind() != Kind::Key => {
                Err(error.during("the same content is stored under that name, and does not hold"))
            }
            _ => Ok(()),
        }
    }

    /// Reads what an object says about itself; needs no key.
    pub async fn look_at(&self, key: &str, kind: ObjectKind) -> Result<Outside> {
        self.from_any(|copy| async move { copy.look_here(key, kind).await }).await
    }

    async fn look_here(&self, key: &str, kind: ObjectKind) -> Result<Outside> {
        let mut want = HEAD_READ;
        loop {
            let part = self.storage.get(key, Some(0..want)).await?;
            if let Some(outside) = self.outside(key, kind, &part)? {
                return Ok(outside);
            }
            want = next_head_read(key, want, &part)?;
        }
    }

    fn outside(&self, key: &str, kind: ObjectKind, part: &Part) -> Result<Option<Outside>> {
        let Some(head) = self.cipher.read_head(&part.bytes).map_err(|error| error.on(key))? else {
            return Ok(None);
        };
        let bytes = head.binding.as_deref().ok_or_else(|| {
            Error::damaged("the object was not made by walarchive: it names no key").on(key)
        })?;
        let binding = Binding::read(bytes, self.info.id(), key, kind)?;
        self.writers.check(&binding, bytes).map_err(|error| error.on(key))?;
        let head_bytes = part.bytes.slice(..head.len);
        Ok(Some(Outside { binding, head, head_bytes, object_size: part.object_size }))
    }

    /// Reads a whole object, gives its decoded content to `taker`, and fails if any byte of it does not hold.
    /// What the taker got before an error is not to be used. One request for objects up to 32 MiB. A copy that is damaged
    /// is not made good by another one here: see [`read_bytes`](Archive::read_bytes) and
    /// [`sound_copy`](Archive::sound_copy).
    pub async fn read<T: Taker>(
        &self,
        key: &str,
        kind: ObjectKind,
        limit: u64,
        mut taker: T,
    ) -> Result<(T, Binding)> {
        let mut part = self.storage.get(key, Some(0..READ_STEP)).await?;
        let outside = match self.outside(key, kind, &part)? {
            Some(outside) => outside,
            None => return Err(Error::damaged("the object ends within its head").on(key)),
        };
        let mut reading = Reading::start(self, &outside, key, limit).map_err(|error| error.on(key))?;
        let object_size = part.object_size;
        let mut at = outside.head.len as u64;
        let mut bytes = part.bytes.split_off(outside.head.len);
        loop {
            at += bytes.len() as u64;
            (reading, taker) = blocking(move || {
                reading.push(&bytes, &mut |plain| taker.take(plain))?;
                Ok((reading, taker))
            })
            .await
            .map_err(|error| error.on(key))?;
            if at >= object_size {
                break;
            }
            bytes = self.storage.get(key, Some(at..(at + READ_STEP).min(object_size))).await?.bytes;
            if bytes.is_empty() {
                return Err(Error::damaged("the object became shorter while it was read").on(key));
            }
        }
        let taker = blocking(move || {
            reading.finish(&mut |plain| taker.take(plain))?;
            Ok(taker)
        })
        .await
        .map_err(|error| error.on(key))?;
        Ok((taker, outside.binding))
    }

    /// Reads a whole object of up to `limit` bytes into memory, from a mirror where it is undamaged.
    pub async fn read_bytes(&self, key: &str, kind: ObjectKind, limit: u64) -> Result<Vec<u8>> {
        let read = |copy: Archive| async move { copy.read(key, kind, limit, Vec::new()).await };
        self.from_any(read).await.map(|(bytes, _)| bytes)
    }

    /// Opens an object for reading by range.
    pub async fn reader(&self, key: &str, kind: ObjectKind) -> Result<ObjectReader> {
        let outside = self.look_at(key, kind).await?;
        ObjectReader::new(self.clone(), key, outside)
    }

    /// Starts an object that is written as a stream: its head, and the seal for its payload.
    pub(super) fn start_stream(
        &self,
        key: &str,
        kind: ObjectKind,
        codec: CodecId,
    ) -> Result<(Bytes, Box<dyn Seal>)> {
        let seal = self.cipher.seal()?;
        let mut binding = Binding::new(self.info.id(), key, kind, codec);
        binding.sum_at_end = self.has_sum_at_end(kind, codec).then_some(true);
        let head = self.head(seal.as_ref(), binding)?;
        Ok((head, seal))
    }

    /// Whether objects of this kind end with a sum, as nothing else tells of each of their bits.
    pub(super) fn has_sum_at_end(&self, kind: ObjectKind, codec: CodecId) -> bool {
        kind == ObjectKind::Manifest && !self.info.encrypted() && SumCheck::goes_with(codec)
    }

    /// The head of an object that is being sealed.
    pub(super) fn head(&self, seal: &dyn Seal, binding: Binding) -> Result<Bytes> {
        seal.head(&self.writers.write(binding, seal.commitment()?)?)
    }

    /// Signs a manifest by the digest of its lines, where its head cannot stand for its content.
    pub(super) fn sign_manifest(&self, key: &str, digest: &str) -> Option<Signed> {
        match self.info.encrypted() {
            true => None,
            false => self.writers.sign_manifest(self.info.id(), key, digest),
        }
    }

    /// Refuses a manifest that [`sign_manifest`](Archive::sign_manifest) should have signed.
    pub(super) fn check_manifest(&self, key: &str, digest: &str, signed: Option<Signed>) -> Result<()> {
        match self.info.encrypted() {
            true => Ok(()),
            false => self
                .writers
                .check_manifest(self.info.id(), key, digest, signed)
                .map_err(|error| error.on(key)),
        }
    }

    /// Opens an object. What a writer signed is the payload that was signed, or `Damaged`.
    pub(super) fn open_sealed(&self, outside: &Outside, key: &str) -> Result<Box<dyn Open>> {
        let open = self.cipher.open(&outside.head_bytes).map_err(|error| error.on(key))?;
        let found = open.commitment().map(|value| hex(&value));
        if outside.binding.writer.is_some() && outside.binding.commitment != found {
            return Err(
                Error::damaged("the object's head was signed for another content: it was planted").on(key)
            );
        }
        Ok(open)
    }
}

fn next_head_read(key: &str, want: u64, part: &Part) -> Result<u64> {
    if want > part.object_size || want >= HEAD_MAX {
        return Err(Error::damaged("the object ends within its head").on(key));
    }
    Ok(want * 16)
}

/// What an object shows without any key.
#[derive(Debug, Clone)]
pub struct Outside {
    /// What it says about itself.
    pub binding: Binding,
    /// Its head.
    pub head: Head,
    pub(super) head_bytes: Bytes,
    /// Stored bytes.
    pub object_size: u64,
}

/// A whole object being checked and decoded.
pub(super) struct Reading {
    opener: Opener,
    binding: Binding,
    digest: Option<ContentDigest>,
    sum: Option<blake3::Hasher>,
    end: Option<Box<SumCheck>>,
    plain: u64,
    stored: u64,
}

impl Reading {
    pub(super) fn start(archive: &Archive, outside: &Outside, key: &str, limit: u64) -> Result<Reading> {
        let open = archive.open_sealed(outside, key)?;
        let codec = outside.binding.codec()?.reader();
        let limit = outside.binding.plain.unwrap_or(limit).min(limit);
        Ok(Reading {
            opener: Opener::new(open.as_ref(), codec.as_ref(), limit)?,
            digest: outside.binding.digest.is_some().then(|| ContentDigest::new(archive.info.id())),
            sum: outside.binding.sum.is_some().then(blake3::Hasher::new),
            end: (outside.binding.kind() == ObjectKind::Manifest && !archive.info.encrypted())
                .then(|| Box::new(SumCheck::new(outside.binding.sum_at_end == Some(true)))),
            binding: outside.binding.clone(),
            plain: 0,
            stored: 0,
        })
    }

    pub(super) fn push(&mut self, payload: &[u8], sink: PlainSink<'_>) -> Result<()> {
        self.stored += payload.len() as u64;
        if let Some(sum) = &mut self.sum {
            sum.update(payload);
        }
        if let Some(end) = &mut self.end {
            end.push(payload);
        }
        let (digest, plain) = (&mut self.digest, &mut self.plain);
        self.opener.push(payload, &mut |bytes| counted(digest, plain, bytes, sink))
    }

    pub(super) fn finish(self, sink: PlainSink<'_>) -> Result<()> {
        let Reading { opener, binding, mut digest, sum, end, mut plain, stored } = self;
        end.map_or(Ok(()), |end| end.finish())?;
        opener.finish(&mut |bytes| counted(&mut digest, &mut plain, bytes, sink))?;
        let holds = binding.plain.is_none_or(|len| len == plain)
            && binding.stored.is_none_or(|len| len == stored)
            && binding.digest == digest.map(|digest| digest.hex())
            && binding.sum == sum.map(|sum| sum.finalize().to_hex().to_string());
        if !holds {
            return Err(Error::damaged("the object's content does not match its length and digest"));
        }
        Ok(())
    }
}

fn counted(
    digest: &mut Option<ContentDigest>,
    plain: &mut u64,
    bytes: &[u8],
    sink: PlainSink<'_>,
) -> Result<()> {
    *plain += bytes.len() as u64;
    if let Some(digest) = digest {
        digest.update(bytes);
    }
    sink(bytes)
}

/// An object opened for reading by range of its content.
pub struct ObjectReader {
    archive: Archive,
    key: String,
    open: Box<dyn Open>,
    head_len: u64,
    sealed_len: u64,
    content_len: u64,
    codec: CodecId,
}

impl ObjectReader {
    fn new(archive: Archive, key: &str, outside: Outside) -> Result<ObjectReader> {
        let open = archive.open_sealed(&outside, key)?;
        let head_len = outside.head.len as u64;
        let sealed_len = outside.object_size.saturating_sub(head_len);
        let content_len = open.plain_len(sealed_len).map_err(|error| error.on(key))?;
        let codec = outside.binding.codec()?;
        Ok(ObjectReader { archive, key: key.to_owned(), open, head_len, sealed_len, content_len, codec })
    }

    /// The archive that later reads go to.
    pub(super) fn of(self, archive: &Archive) -> ObjectReader {
        ObjectReader { archive: archive.clone(), ..self }
    }

    /// The archive that it reads from.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The codec of the content.
    pub fn codec(&self) -> CodecId {
        self.codec
    }

    /// Length of the content (opened, not decoded) in bytes.
    pub fn content_len(&self) -> u64 {
        self.content_len
    }

    /// Stored bytes of the object.
    pub fn object_size(&self) -> u64 {
        self.head_len + self.sealed_len
    }

    /// Reads a range of the content; a range beyond its end is `Damaged`.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.content_len {
            return Err(Error::damaged(format!(
                "bytes {}..{} were asked of an object that has {}",
                range.start, range.end, self.content_len
            ))
            .on(&self.key));
        }
        let range = &range;
        self.archive.from_any(|copy| async move { self.read_in(&copy, range.clone()).await }).await
    }

    /// The same, from one copy. The head that was read is that of all copies, as they are the same byte by byte.
    pub(super) async fn read_in(&self, copy: &Archive, range: Range<u64>) -> Result<Bytes> {
        let sealed = self.open.sealed_range(range.clone(), self.sealed_len);
        let (start, end) = (self.head_len + sealed.start, self.head_len + sealed.end);
        let part = copy.storage.get(&self.key, Some(start..end)).await?;
        if part.object_size != self.object_size() {
            return Err(Error::damaged("the object has another length than it had").on(&self.key));
        }
        if part.bytes.len() as u64 != end - start {
            return Err(Error::damaged("the object is shorter than it was").on(&self.key));
        }
        self.open.open_range(range, &part.bytes, self.sealed_len).map_err(|error| error.on(&self.key))
    }
}
