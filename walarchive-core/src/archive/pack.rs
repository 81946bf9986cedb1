//! Packs: frames of file pages in one sealed object, with an index at its end (FORMAT.md §6).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinHandle;

use super::extent::{Extent, PAGE};
use super::{Archive, BackupId, ObjectKind, ObjectReader, PackName, PackRecord, Place, Room};
use crate::codec::{Codec, Framer};
use crate::crossing::Bridge;
use crate::error::{Error, Result};
use crate::pipeline::ObjectWriter;

/// Pages of a frame that this program writes. Small enough that one page is read cheaply, large enough that
/// compression loses next to nothing.
pub const FRAME_PAGES: u32 = 32;
/// A pack is closed when it holds this many stored bytes, as a rule.
pub const PACK_TARGET: u64 = 64 << 20;
/// A frame of bytes that are no pages holds so many at most.
const BYTES_FRAME: usize = 256 * 1024;
/// No frame of any writer holds more.
const FRAME_MAX: u32 = 1 << 20;
const INDEX_MAGIC: u32 = 0x184D_2A58;
const ENTRY: usize = 40;
/// The index of a pack of empty frames alone would not be longer.
const INDEX_MAX: u64 = 256 << 20;

/// Makes packs for the workers of one backup: they share the numbering, each writes its own packs.
#[derive(Clone)]
pub struct PackSink {
    /// Where the packs go.
    pub archive: Archive,
    /// Whose packs they are.
    pub place: Place,
    /// The backup that writes them.
    pub backup: BackupId,
    /// How frames are compressed.
    pub codec: Arc<dyn Codec>,
    /// From the workers to storage.
    pub bridge: Bridge,
    /// The number of the next pack.
    pub next: Arc<AtomicU32>,
    /// A pack is closed when it holds so many stored bytes.
    pub target: u64,
    /// Whether each pack is read back, and compared with what was sent, before the writer is finished.
    pub read_back: bool,
}

impl PackSink {
    /// For the packs of one backup or dump. Called within a runtime.
    pub fn new(archive: Archive, place: Place, backup: BackupId, codec: Arc<dyn Codec>) -> Result<PackSink> {
        let (bridge, next) = (Bridge::current()?, Arc::new(AtomicU32::new(0)));
        Ok(PackSink { archive, place, backup, codec, bridge, next, target: PACK_TARGET, read_back: false })
    }
}

/// Appends pages, or bytes of streams, to packs; used by one blocking worker.
pub struct PackWriter {
    sink: PackSink,
    framer: Box<dyn Framer>,
    open: Option<OpenPack>,
    closed: Vec<PackRecord>,
    frame: Vec<u8>,
    packed: Vec<u8>,
    proofs: Vec<JoinHandle<Result<()>>>,
}

struct OpenPack {
    name: PackName,
    writer: ObjectWriter,
    index: Vec<u8>,
    frames: u32,
    content: u64,
    plain: u64,
}

impl PackWriter {
    /// A writer that has no pack yet.
    pub fn new(sink: PackSink) -> Result<PackWriter> {
        let framer = sink.codec.framer()?;
        Ok(PackWriter {
            sink,
            framer,
            open: None,
            closed: Vec::new(),
            frame: Vec::new(),
            packed: Vec::new(),
            proofs: Vec::new(),
        })
    }

    /// Appends bytes of a stream, at most 256 KiB of them, and says where they will be: the pack's number, and the
    /// offset in the data of its frames.
    pub fn append_bytes(&mut self, bytes: &[u8]) -> Result<(u32, u64)> {
        if self.frame.len() + bytes.len() > BYTES_FRAME {
            self.end_frame()?;
        }
        let begun = self.frame.len() as u64;
        let pack = self.pack()?;
        let place = (pack.name.number, pack.plain + begun);
        self.frame.extend_from_slice(bytes);
        Ok(place)
    }

    /// Appends one page of a file, filled up with zeros if it is shorter, and says where it will be: an extent of
    /// one page, for page number `page` of its file.
    pub fn append(&mut self, page: u32, bytes: &[u8]) -> Result<Extent> {
        if self.frame.len() >= FRAME_PAGES as usize * PAGE {
            self.end_frame()?;
        }
        let first = (self.frame.len() / PAGE) as u32;
        let pack = self.pack()?;
        let extent = Extent { page, count: 1, pack: pack.name.number, frame: pack.frames, first };
        self.frame.extend_from_slice(bytes);
        self.frame.resize((first as usize + 1) * PAGE, 0);
        Ok(extent)
    }

    /// Stores what is open; gives all packs that were written.
    pub fn finish(mut self) -> Result<Vec<PackRecord>> {
        self.end_frame()?;
        self.end_pack()?;
        for proof in self.proofs {
            let proven = self.sink.bridge.wait(proof);
            proven.map_err(|error| Error::bug("reading a pack back stopped").because(error))??;
        }
        Ok(self.closed)
    }

    /// Packs that were closed since the last call.
    pub fn take_closed(&mut self) -> Vec<PackRecord> {
        std::mem::take(&mut self.closed)
    }

    fn pack(&mut self) -> Result<&mut OpenPack> {
        if self.open.is_none() {
            let number = self.sink.next.fetch_add(1, Ordering::Relaxed);
            let name = PackName { backup: self.sink.backup.clone(), number };
            let key = self.sink.place.pack(&name);
            let archive = &self.sink.archive;
            let (head, seal) = archive.start_stream(&key, ObjectKind::Pack, self.sink.codec.id())?;
            let mut writer = ObjectWriter::start(archive.storage.clone(), key, head, seal, &self.sink.bridge);
            if self.sink.read_back {
                writer.digest();
            }
            self.open = Some(OpenPack { name, writer, index: Vec::new(), frames: 0, content: 0, plain: 0 });
        }
        self.open.as_mut().ok_or_else(|| Error::bug("a pack was opened and is not there"))
    }

    fn end_frame(&mut self) -> Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        self.packed.clear();
        self.framer.pack(&self.frame, &mut self.packed)?;
        let Some(pack) = &mut self.open else {
            return Err(Error::bug("a frame has no pack"));
        };
        pack.writer.write(&self.packed)?;
        pack.index.extend_from_slice(&(self.packed.len() as u32).to_le_bytes());
        pack.index.extend_from_slice(&(self.frame.len() as u32).to_le_bytes());
        pack.index.extend_from_slice(blake3::hash(&self.packed).as_bytes());
        pack.frames += 1;
        pack.content += self.packed.len() as u64;
        pack.plain += self.frame.len() as u64;
        self.frame.clear();
        if pack.content >= self.sink.target {
            self.end_pack()?;
        }
        Ok(())
    }

    fn end_pack(&mut self) -> Result<()> {
        let Some(mut pack) = self.open.take() else {
            return Ok(());
        };
        let mut index = Vec::with_capacity(8 + pack.index.len());
        index.extend_from_slice(&INDEX_MAGIC.to_le_bytes());
        index.extend_from_slice(&(pack.index.len() as u32).to_le_bytes());
        index.extend_from_slice(&pack.index);
        pack.writer.write(&index)?;
        let written = pack.writer.finish()?;
        if let Some(sent) = written.digest {
            let (archive, key) = (self.sink.archive.clone(), self.sink.place.pack(&pack.name));
            let proof = async move { archive.prove_sent(&key, written.stored, sent).await };
            self.proofs.push(self.sink.bridge.spawn(proof));
        }
        self.closed.push(PackRecord {
            name: pack.name,
            stored: written.stored,
            index_at: pack.content,
            index_len: index.len() as u64,
            plain: pack.plain,
            digest: blake3::hash(&pack.index).to_hex().to_string(),
        });
        Ok(())
    }
}

/// One frame, as a pack's index has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// Offset in the content.
    pub at: u64,
    /// Stored length.
    pub stored: u32,
    /// Length of its data; of backups, a whole number of pages.
    pub plain: u32,
    digest: [u8; 32],
}

impl FrameEntry {
    /// Pages of data.
    pub fn pages(&self) -> u32 {
        self.plain / PAGE as u32
    }

    #[cfg(test)]
    pub(crate) fn at(at: u64, stored: u32, pages: u32) -> FrameEntry {
        FrameEntry { at, stored, plain: pages * PAGE as u32, digest: [0; 32] }
    }

    /// Unpacks the frame's stored bytes and appends its data to `out`.
    pub fn unpack(&self, stored: &[u8], framer: &mut dyn Framer, out: &mut Vec<u8>) -> Result<()> {
        if blake3::hash(stored).as_bytes() != &self.digest {
            return Err(Error::damaged("a frame does not match its digest"));
        }
        framer.unpack(stored, self.plain as usize, out)
    }
}

/// A pack opened for reading.
pub struct PackReader {
    object: ObjectReader,
    key: String,
    frames: Vec<FrameEntry>,
}

impl PackReader {
    /// Opens a pack and proves its index against what the manifest says. Two small reads.
    pub async fn open(archive: &Archive, place: &Place, record: &PackRecord) -> Result<PackReader> {
        let opened =
            archive.from_any(|copy| async move { PackReader::open_in(&copy, place, record).await }).await?;
        Ok(PackReader { object: opened.object.of(archive), ..opened })
    }

    async fn open_in(archive: &Archive, place: &Place, record: &PackRecord) -> Result<PackReader> {
        let key = place.pack(&record.name);
        let object = archive.reader(&key, ObjectKind::Pack).await?;
        if record.index_len > INDEX_MAX {
            return Err(Error::damaged("the manifest names an impossible index").on(&key));
        }
        let end = record.index_at.checked_add(record.index_len);
        if end != Some(object.content_len()) {
            return Err(Error::damaged("the pack's length is not what the manifest says").on(&key));
        }
        let index = object.read(record.index_at..object.content_len()).await?;
        let of_pages = matches!(place.room, Room::System(_));
        let frames = parse_index(&index, record, of_pages).map_err(|error| error.on(&key))?;
        Ok(PackReader { object, key, frames })
    }

    /// The frames in order.
    pub fn frames(&self) -> &[FrameEntry] {
        &self.frames
    }

    /// A framer for this pack's codec.
    pub fn framer(&self) -> Result<Box<dyn Framer>> {
        self.object.codec().reader().framer()
    }

    /// The codec of the frames.
    pub fn codec(&self) -> crate::codec::CodecId {
        self.object.codec()
    }

    /// The key of the pack.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The stored bytes of several frames, in one read.
    pub async fn read(&self, frames: Range<usize>) -> Result<bytes::Bytes> {
        let missing = || Error::damaged("a manifest names a frame that the pack does not have").on(&self.key);
        let wanted = self.frames.get(frames).ok_or_else(missing)?;
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            return Ok(bytes::Bytes::new());
        };
        let range = &(first.at..last.at + u64::from(last.stored));
        let archive = self.object.archive();
        let several = archive.is_mirrored();
        let read = |copy: Archive| async move {
            let stored = self.object.read_in(&copy, range.clone()).await?;
            // Whoever unpacks them proves them too, but can turn to no other copy then.
            if several {
                prove(wanted, &stored).map_err(|error| error.on(&self.key))?;
            }
            Ok(stored)
        };
        archive.from_any(read).await
    }
}

/// Proves the content of a pack as it comes, against its index and what a manifest says of that.
pub(super) struct PackCheck {
    frames: std::vec::IntoIter<FrameEntry>,
    /// The frame that is under way, and how many bytes of it are still to come.
    frame: Option<(FrameEntry, usize)>,
    hasher: blake3::Hasher,
    index: Vec<u8>,
    record: PackRecord,
}

impl PackCheck {
    /// `frames` are those of the pack's index, which was proven against `record`.
    pub(super) fn new(frames: Vec<FrameEntry>, record: &PackRecord) -> PackCheck {
        let mut frames = frames.into_iter();
        let frame = frames.next().map(|frame| (frame, frame.stored as usize));
        PackCheck { frames, frame, hasher: blake3::Hasher::new(), index: Vec::new(), record: record.clone() }
    }

    pub(super) fn push(&mut self, mut content: &[u8]) -> Result<()> {
        while let Some((frame, left)) = &mut self.frame {
            let (now, rest) = content.split_at(content.len().min(*left));
            self.hasher.update(now);
            *left -= now.len();
            content = rest;
            if *left > 0 {
                return Ok(());
            }
            if self.hasher.finalize().as_bytes() != &frame.digest {
                return Err(Error::damaged("a frame does not match its digest"));
            }
            self.hasher.reset();
            self.frame = self.frames.next().map(|frame| (frame, frame.stored as usize));
        }
        if (self.index.len() + content.len()) as u64 > self.record.index_len {
            return Err(Error::damaged("the pack goes on after its end"));
        }
        self.index.extend_from_slice(content);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        let body = self.index.get(8..).unwrap_or_default();
        let whole = self.frame.is_none() && self.index.len() as u64 == self.record.index_len;
        if !whole || blake3::hash(body).to_hex().as_str() != self.record.digest {
            return Err(Error::damaged("the pack is not whole"));
        }
        Ok(())
    }
}

fn prove(frames: &[FrameEntry], mut stored: &[u8]) -> Result<()> {
    for frame in frames {
        let (bytes, rest) = stored.split_at_checked(frame.stored as usize).unwrap_or((&[], &[]));
        if blake3::hash(bytes).as_bytes() != &frame.digest {
            return Err(Error::damaged("a frame does not match its digest"));
        }
        stored = rest;
    }
    Ok(())
}

fn parse_index(index: &[u8], record: &PackRecord, of_pages: bool) -> Result<Vec<FrameEntry>> {
    let wrong = || Error::damaged("the pack's index does not hold");
    let (head, body) = index.split_at_checked(8).ok_or_else(wrong)?;
    let magic = head.starts_with(&INDEX_MAGIC.to_le_bytes());
    let len = head.ends_with(&(body.len() as u32).to_le_bytes());
    if !magic || !len || body.len() % ENTRY != 0 || blake3::hash(body).to_hex().as_str() != record.digest {
        return Err(wrong());
    }
    let mut at = 0u64;
    let mut frames = Vec::with_capacity(body.len() / ENTRY);
    for entry in body.chunks_exact(ENTRY) {
        let number =
            |range: Range<usize>| entry[range].try_into().map(u32::from_le_bytes).map_err(|_| wrong());
        let (stored, plain) = (number(0..4)?, number(4..8)?);
        if plain == 0 || plain > FRAME_MAX || (of_pages && !(plain as usize).is_multiple_of(PAGE)) {
            return Err(wrong());
        }
        let digest = entry[8..].try_into().map_err(|_| wrong())?;
        frames.push(FrameEntry { at, stored, plain, digest });
        at += u64::from(stored);
    }
    if at != record.index_at {
        return Err(wrong());
    }
    Ok(frames)
}
