//! What this machine remembers of the last dump of a database: every chunk, and where it is stored. The next dump needs it
//! to point to what is there already; when it is lost, that one stores everything. Nothing else depends on it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::PackRecord;
use crate::error::{Error, Result};
use crate::files::{self, NewFile};

/// Changes whenever older programs could misread it.
const VERSION: u32 = 1;
/// Bytes of a chunk's digest that are kept: nobody finds two chunks with the same.
const DIGEST: usize = 24;
/// Digest, length, pack, offset.
const RECORD: usize = DIGEST + 4 + 4 + 8;
/// Records between two that are kept in memory.
const SPARSE: usize = 32;
/// Records that are sorted at once.
const SORTED_AT_ONCE: u64 = 1 << 20;
const HEADER_MAX: u64 = 64 << 20;

pub(super) type Digest = [u8; DIGEST];

pub(super) fn digest_of(chunk: &[u8]) -> Digest {
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&blake3::hash(chunk).as_bytes()[..DIGEST]);
    digest
}

/// What is known besides the chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) version: u32,
    /// The archive's own id.
    pub(super) archive: String,
    pub(super) cluster: String,
    pub(super) database: String,
    /// The dump.
    pub(super) id: String,
    /// Its number.
    pub(super) number: u64,
    /// When the last dump began that stored everything anew.
    pub(super) full_since: Timestamp,
    /// Bytes that pg_dump wrote.
    pub(super) data_bytes: u64,
    /// Who can open the packs.
    pub(super) readers: String,
    /// The packs that it is in, and how many bytes of each it uses.
    pub(super) packs: Vec<(PackRecord, u64)>,
}

impl Header {
    pub(super) fn version() -> u32 {
        VERSION
    }
}

/// The file of a database's state. `globals` cannot be taken for a database of that name.
pub(super) fn path_of(dir: &Path, archive: &str, cluster: &str, content: &str, database: &str) -> PathBuf {
    let name = blake3::hash(format!("{content}/{database}").as_bytes()).to_hex();
    dir.join("dumps").join(archive).join(cluster).join(&name.as_str()[..32])
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::io(format!("cannot use {path}, where this machine remembers the last dump"), error)
}

/// The chunks of the last dump, sorted by digest in a file. Bounded memory: one record in 32 is held.
pub(super) struct Known {
    pub(super) header: Header,
    path: PathBuf,
    file: File,
    begin: u64,
    count: u64,
    /// The first eight bytes of every 32nd digest.
    sparse: Vec<u64>,
}

impl Known {
    /// Reads the header and proves the file, if there is one.
    pub(super) fn open(path: &Path) -> Result<Option<Known>> {
        let failed = failed(path);
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(&failed)?,
        };
        let wrong = || Error::damaged(format!("{} does not hold", path.display()));
        let whole = file.metadata().map_err(&failed)?.len();
        let mut reader =
            Digesting { inner: BufReader::with_capacity(1 << 18, &file), digest: blake3::Hasher::new() };
        let mut len = [0; 8];
        reader.read_exact(&mut len).map_err(&failed)?;
        let header_len = Some(u64::from_le_bytes(len)).filter(|len| *len <= HEADER_MAX).ok_or_else(wrong)?;
        let mut header = vec![0; header_len as usize];
        reader.read_exact(&mut header).map_err(&failed)?;
        let begin = 8 + header_len;
        let records =
            whole.checked_sub(begin + 32).filter(|bytes| bytes % RECORD as u64 == 0).ok_or_else(wrong)?;
        let count = records / RECORD as u64;
        let mut sparse = Vec::with_capacity((count as usize).div_ceil(SPARSE));
        let mut record = [0; RECORD];
        for number in 0..count {
            reader.read_exact(&mut record).map_err(&failed)?;
            if number % SPARSE as u64 == 0 {
                sparse.push(prefix(&record));
            }
        }
        let digest = reader.digest.finalize();
        let mut stored = [0; 32];
        reader.inner.read_exact(&mut stored).map_err(&failed)?;
        drop(reader);
        if digest.as_bytes() != &stored {
            return Err(wrong());
        }
        let header: Header = serde_json::from_slice(&header).map_err(|_| wrong())?;
        Ok(Some(Known { header, path: path.to_owned(), file, begin, count, sparse }))
    }

    /// Where a chunk is: the pack's place in the header, and the offset in its data.
    pub(super) fn find(&self, digest: &Digest, len: u32) -> Result<Option<(u32, u64)>> {
        let wanted = prefix(digest);
        // Several digests may begin alike: the first of them may stand before the first block that begins so.
        let mut block = self.sparse.partition_point(|first| *first < wanted).saturating_sub(1);
        let mut bytes = [0; RECORD * SPARSE];
        while self.sparse.get(block).is_some_and(|first| *first <= wanted) {
            let first = (block * SPARSE) as u64;
            let held = (self.count - first).min(SPARSE as u64) as usize * RECORD;
            let at = self.begin + first * RECORD as u64;
            self.file.read_exact_at(&mut bytes[..held], at).map_err(failed(&self.path))?;
            for record in bytes[..held].chunks_exact(RECORD) {
                let (found, at) = (&record[..DIGEST], Place::read(record));
                if found == digest {
                    return Ok((at.len == len).then_some((at.pack, at.at)));
                }
            }
            block += 1;
        }
        Ok(None)
    }
}

fn prefix(digest: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

struct Digesting<R> {
    inner: R,
    digest: blake3::Hasher,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        self.digest.update(&into[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) len: u32,
    pub(super) pack: u32,
    pub(super) at: u64,
}

impl Place {
    fn read(record: &[u8]) -> Place {
        let four = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&record[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let at = u64::from(four(DIGEST + 8)) | u64::from(four(DIGEST + 12)) << 32;
        Place { len: four(DIGEST), pack: four(DIGEST + 4), at }
    }

    fn write(self, digest: &Digest) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..DIGEST].copy_from_slice(digest);
        record[DIGEST..DIGEST + 4].copy_from_slice(&self.len.to_le_bytes());
        record[DIGEST + 4..DIGEST + 8].copy_from_slice(&self.pack.to_le_bytes());
        record[DIGEST + 8..].copy_from_slice(&self.at.to_le_bytes());
        record
    }
}

/// The chunks of the dump that is made, as they come, in a nameless file.
pub(super) struct Spool {
    file: BufWriter<File>,
    count: u64,
}

impl Spool {
    pub(super) fn begin(dir: Option<&Path>) -> Result<Spool> {
        let made = match dir {
            Some(dir) => {
                files::make_dirs(dir, 0o700).and_then(|()| tempfile::tempfile_in(dir).map_err(failed(dir)))
            }
            None => tempfile::tempfile().map_err(|error| Error::io("cannot make a temporary file", error)),
        };
        Ok(Spool { file: BufWriter::with_capacity(1 << 18, made?), count: 0 })
    }

    pub(super) fn add(&mut self, digest: &Digest, place: Place) -> Result<()> {
        self.count += 1;
        let written = self.file.write_all(&place.write(digest));
        written.map_err(|error| Error::io("cannot write a temporary file of the dump's chunks", error))
    }

    /// Writes the state of a committed dump. `number` gives a pack's place in the header. Bounded memory: what is too much
    /// to be sorted at once is read several times.
    pub(super) fn publish(self, path: &Path, header: &Header, number: impl Fn(u32) -> u32) -> Result<()> {
        let failed = failed(path);
        let mut spool = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        if let Some(dir) = path.parent() {
            files::make_dirs(dir, 0o700)?;
        }
        let text = serde_json::to_vec(header)
            .map_err(|error| Error::bug("a state cannot be written").because(error))?;
        let inner = BufWriter::with_capacity(1 << 18, NewFile::create(path, 0o600)?);
        let mut out = Digesting { inner, digest: blake3::Hasher::new() };
        out.write_all(&(text.len() as u64).to_le_bytes())
            .and_then(|()| out.write_all(&text))
            .map_err(&failed)?;
        let passes = self.count.div_ceil(SORTED_AT_ONCE).max(1);
        for pass in 0..passes {
            spool.seek(SeekFrom::Start(0)).map_err(&failed)?;
            let mut reader = BufReader::with_capacity(1 << 18, &spool);
            let mut some: Vec<[u8; RECORD]> = Vec::new();
            let mut record = [0; RECORD];
            for _ in 0..self.count {
                reader.read_exact(&mut record).map_err(&failed)?;
                // Digests are spread evenly: each pass takes an equal part of them.
                let part = (u128::from(prefix(&record)) * u128::from(passes)) >> 64;
                if part == u128::from(pass) {
                    some.push(record);
                }
            }
            some.sort_unstable();
            some.dedup_by_key(|record| prefix_whole(record));
            for mut record in some {
                let place = Place::read(&record);
                record[DIGEST + 4..DIGEST + 8].copy_from_slice(&number(place.pack).to_le_bytes());
                out.write_all(&record).map_err(&failed)?;
            }
        }
        let digest = out.digest.finalize();
        let mut inner = out.inner;
        inner.write_all(digest.as_bytes()).map_err(&failed)?;
        inner.into_inner().map_err(|error| failed(error.into_error()))?.publish()
    }
}

fn prefix_whole(record: &[u8; RECORD]) -> Digest {
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&record[..DIGEST]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            version: VERSION,
            archive: "a".to_owned(),
            cluster: "main".to_owned(),
            database: "d".to_owned(),
            id: "i".to_owned(),
            number: 7,
            full_since: Timestamp::UNIX_EPOCH,
            data_bytes: 1,
            readers: String::new(),
            packs: Vec::new(),
        }
    }

    fn digest(number: u32) -> Digest {
        digest_of(&number.to_le_bytes())
    }

    #[test]
    fn what_was_added_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0u32, 1, 31, 32, 33, 5000] {
            let path = dir.path().join(count.to_string());
            let mut spool = Spool::begin(Some(dir.path())).unwrap();
            for number in 0..count {
                let place = Place { len: number, pack: number % 3, at: u64::from(number) << 33 };
                spool.add(&digest(number), place).unwrap();
                spool.add(&digest(number), place).unwrap();
            }
            spool.publish(&path, &header(), |pack| pack + 10).unwrap();
            let known = Known::open(&path).unwrap().unwrap();
            assert_eq!(known.header, header());
            for number in 0..count {
                let found = known.find(&digest(number), number).unwrap();
                assert_eq!(found, Some((number % 3 + 10, u64::from(number) << 33)));
            }
            assert_eq!(known.find(&digest(count), count).unwrap(), None);
            assert_eq!(known.find(&digest(0), 99).unwrap(), None, "another length");
        }
    }

    #[test]
    fn digests_that_begin_alike_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alike");
        let alike = |number: u8| {
            let mut digest = [7; DIGEST];
            digest[DIGEST - 1] = number;
            digest
        };
        let mut spool = Spool::begin(None).unwrap();
        for number in 0..200 {
            spool.add(&alike(number), Place { len: 1, pack: 0, at: u64::from(number) }).unwrap();
        }
        spool.publish(&path, &header(), |pack| pack).unwrap();
        let known = Known::open(&path).unwrap().unwrap();
        for number in 0..200 {
            assert_eq!(known.find(&alike(number), 1).unwrap(), Some((0, u64::from(number))));
        }
    }

    #[test]
    fn a_damaged_state_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut spool = Spool::begin(None).unwrap();
        spool.add(&digest(1), Place { len: 1, pack: 0, at: 0 }).unwrap();
        spool.publish(&path, &header(), |pack| pack).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Known::open(&path).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Known::open(&path).is_err(), "cut at {at}");
        }
        assert!(Known::open(&dir.path().join("none")).unwrap().is_none());
    }
}
