//! The streams of a dump, cut where their content says so, into packs: what the last dump stored is pointed to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use fastcdc::v2020::FastCDC;

use super::known::{Known, Place, Spool, digest_of};
use crate::archive::{PackRecord, PackSink, PackWriter, Stream, StreamRecord, Stretch};
use crate::error::{Error, Result};

/// Bytes of a chunk: a row that changes costs about one chunk, and each is remembered with 40 bytes.
const SMALLEST: usize = 4 * 1024;
const AVERAGE: usize = 16 * 1024;
pub(super) const LARGEST: usize = 64 * 1024;
/// Bytes that are read at once.
const READ: usize = 1 << 20;
/// Marks the packs of earlier dumps while this one is made.
const EARLIER: u32 = 1 << 31;
/// A pack of which less than this part is still used is given up: what is used of it is stored anew.
const WORTH: u64 = 4;
/// At most this part of a dump is stored anew for that.
const AT_MOST: u64 = 10;
/// A dump that is in more packs than this gives up the smallest ones.
const PACKS_MAX: usize = 64;
const PACKS_AFTER: usize = 48;

/// Cuts bytes into chunks. The same bytes are cut alike wherever they stand.
pub(super) struct Cutter {
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Cutter {
    pub(super) fn new() -> Cutter {
        Cutter { buffer: vec![0; READ + LARGEST], begin: 0, end: 0 }
    }

    /// Reads once; zero at the end.
    pub(super) fn read(&mut self, reader: &mut dyn Read) -> io::Result<usize> {
        if self.buffer.len() - self.end < READ / 2 {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        loop {
            match reader.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.end += read;
                    return Ok(read);
                }
            }
        }
    }

    /// The bytes that the last read brought.
    pub(super) fn latest(&self, read: usize) -> &[u8] {
        &self.buffer[self.end - read..self.end]
    }

    /// Gives the chunks that are certain; with `is_end`, all that is left.
    pub(super) fn cut(&mut self, is_end: bool, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let cutter = FastCDC::new(&self.buffer[..self.end], SMALLEST, AVERAGE, LARGEST);
        while self.end - self.begin >= LARGEST || (is_end && self.begin < self.end) {
            let (_, end) = cutter.cut(self.begin, self.end - self.begin);
            each(&self.buffer[self.begin..end])?;
            self.begin = end;
        }
        Ok(())
    }

    /// Forgets what is left, and says how much it was.
    pub(super) fn forget(&mut self) -> usize {
        let left = self.end - self.begin;
        (self.begin, self.end) = (0, 0);
        left
    }
}

/// A stream that is being made.
pub(super) struct Making {
    name: String,
    size: u64,
    digest: blake3::Hasher,
    stretches: Vec<Stretch>,
    /// Its last bytes.
    pub(super) tail: Vec<u8>,
}

impl Making {
    pub(super) fn new(name: &str) -> Making {
        Making {
            name: name.to_owned(),
            size: 0,
            digest: blake3::Hasher::new(),
            stretches: Vec::new(),
            tail: Vec::new(),
        }
    }

    fn add(&mut self, bytes: &[u8], place: Stretch) {
        const TAIL: usize = 16;
        self.size += place.len;
        self.digest.update(bytes);
        match self.stretches.last_mut() {
            Some(last) if last.pack == place.pack && last.at + last.len == place.at => last.len += place.len,
            _ => self.stretches.push(place),
        }
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }
}

/// The last dump, as far as this one may point to what it is in.
pub(super) struct Base {
    pub(super) known: Known,
    given_up: BTreeSet<u32>,
}

impl Base {
    pub(super) fn new(known: Known) -> Base {
        let used: Vec<_> = known.header.packs.iter().map(|(pack, used)| (*used, pack.plain)).collect();
        Base { given_up: given_up(&used), known }
    }
}

/// The packs, by their places, that are not worth what they keep: used and plain bytes of each are given.
fn given_up(packs: &[(u64, u64)]) -> BTreeSet<u32> {
    let all: u64 = packs.iter().map(|(used, _)| used).sum();
    let mut by_use: Vec<(u64, u64, u32)> =
        packs.iter().enumerate().map(|(number, (used, plain))| (*used, *plain, number as u32)).collect();
    by_use.sort_unstable();
    let surplus = if packs.len() > PACKS_MAX { packs.len() - PACKS_AFTER } else { 0 };
    let mut left = all / AT_MOST;
    let mut given_up = BTreeSet::new();
    for (place, (used, plain, number)) in by_use.into_iter().enumerate() {
        if used > left {
            break;
        }
        if used * WORTH < plain || place < surplus {
            left -= used;
            given_up.insert(number);
        }
    }
    given_up
}

/// Where the chunks of one dump go.
pub(super) struct Packing {
    writer: PackWriter,
    base: Option<Base>,
    spool: Spool,
    /// Bytes that are used of each pack.
    used: BTreeMap<u32, u64>,
}

/// A dump whose packs are all stored.
pub(super) struct Packed {
    /// All packs in the order of the manifest, and how many bytes of each are used.
    pub(super) packs: Vec<(PackRecord, u64)>,
    /// How many of them are this dump's own.
    pub(super) own: usize,
    pub(super) streams: Vec<Stream>,
    pub(super) data_bytes: u64,
    pub(super) spool: Spool,
    numbers: BTreeMap<u32, u32>,
}

impl Packed {
    /// The number in the manifest of a pack that the spool names.
    pub(super) fn number(&self) -> impl Fn(u32) -> u32 + use<> {
        let numbers = self.numbers.clone();
        move |pack| numbers.get(&pack).copied().unwrap_or(pack)
    }
}

impl Packing {
    pub(super) fn new(sink: PackSink, base: Option<Base>, spool: Spool) -> Result<Packing> {
        Ok(Packing { writer: PackWriter::new(sink)?, base, spool, used: BTreeMap::new() })
    }

    /// Stores a chunk as the next of a stream, or finds where it is.
    pub(super) fn chunk(&mut self, stream: &mut Making, bytes: &[u8]) -> Result<()> {
        let (digest, len) = (digest_of(bytes), bytes.len() as u32);
        let earlier = match &self.base {
            Some(base) => {
                let found = base.known.find(&digest, len)?;
                found.filter(|(pack, _)| !base.given_up.contains(pack))
            }
            None => None,
        };
        let (pack, at) = match earlier {
            Some((pack, at)) => (pack | EARLIER, at),
            None => self.writer.append_bytes(bytes)?,
        };
        self.spool.add(&digest, Place { len, pack, at })?;
        *self.used.entry(pack).or_default() += u64::from(len);
        stream.add(bytes, Stretch { len: u64::from(len), pack, at });
        Ok(())
    }

    /// Ends the packs: all are durable, and read back.
    pub(super) fn finish(self, streams: Vec<Making>) -> Result<Packed> {
        let mut own = self.writer.finish()?;
        own.sort_by_key(|pack| pack.name.number);
        let used = |number: u32| self.used.get(&number).copied().unwrap_or_default();
        let mut numbers = BTreeMap::new();
        let mut packs = Vec::new();
        for pack in &own {
            numbers.insert(pack.name.number, packs.len() as u32);
            packs.push((pack.clone(), used(pack.name.number)));
        }
        let known = self.base.iter().flat_map(|base| &base.known.header.packs).enumerate();
        for (number, (pack, _)) in known {
            let number = number as u32 | EARLIER;
            if self.used.contains_key(&number) {
                numbers.insert(number, packs.len() as u32);
                packs.push((pack.clone(), used(number)));
            }
        }
        let data_bytes = streams.iter().map(|stream| stream.size).sum();
        let streams = streams.into_iter().map(|stream| named(stream, &numbers)).collect::<Result<_>>()?;
        Ok(Packed { packs, own: own.len(), streams, data_bytes, spool: self.spool, numbers })
    }
}

fn named(stream: Making, numbers: &BTreeMap<u32, u32>) -> Result<Stream> {
    let Making { name, size, digest, mut stretches, .. } = stream;
    for stretch in &mut stretches {
        let number = numbers.get(&stretch.pack);
        stretch.pack = *number.ok_or_else(|| Error::bug("a stream is in a pack that was not stored"))?;
    }
    let digest = digest.finalize().to_hex().to_string();
    Ok(Stream { record: StreamRecord { name, size, digest }, stretches })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_all(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut cutter, mut chunks) = (Cutter::new(), Vec::new());
        let mut cut = |cutter: &mut Cutter, is_end| {
            let keep = |chunk: &[u8]| {
                chunks.push(chunk.to_vec());
                Ok(())
            };
            cutter.cut(is_end, keep).unwrap();
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut piece = &rest[..rest.len().min(step)];
            let read = cutter.read(&mut piece).unwrap();
            rest = &rest[read..];
            cut(&mut cutter, false);
        }
        cut(&mut cutter, true);
        chunks
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn chunks_do_not_depend_on_how_bytes_come() {
        let bytes = noise(3_000_000);
        let whole = cut_all(&bytes, usize::MAX);
        assert_eq!(whole.concat(), bytes);
        assert!(whole.iter().all(|chunk| chunk.len() <= LARGEST));
        for step in [1000, 65_536, 1_000_001] {
            assert_eq!(cut_all(&bytes, step), whole, "{step} at once");
        }
    }

    #[test]
    fn a_byte_more_changes_few_chunks() {
        let bytes = noise(3_000_000);
        let before: BTreeSet<_> = cut_all(&bytes, usize::MAX).into_iter().collect();
        let mut longer = bytes;
        longer.insert(1_500_000, 7);
        let after = cut_all(&longer, usize::MAX);
        let new: usize = after.iter().filter(|chunk| !before.contains(*chunk)).map(Vec::len).sum();
        assert!(new <= 4 * LARGEST, "{new} bytes");
    }

    #[test]
    fn packs_that_are_hardly_used_are_given_up() {
        let few = |packs: &[(u64, u64)]| given_up(packs).into_iter().collect::<Vec<_>>();
        assert_eq!(few(&[(1000, 1000), (10, 100), (30, 100)]), [1]);
        assert_eq!(few(&[(100, 1000), (100, 1000)]), [] as [u32; 0], "too much to be stored anew at once");
        let mut many = vec![(1_000_000u64, 1_000_000u64)];
        many.extend((0..70).map(|number| (100 + number, 200)));
        assert_eq!(given_up(&many).len(), many.len() - PACKS_AFTER);
        assert!(!given_up(&many).contains(&0));
    }
}
