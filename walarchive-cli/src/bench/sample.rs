//! The files that are measured, cut into what would be objects.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use walarchive_core::wal::{SegmentSize, WalName};
use walarchive_core::{Error, Kind, Result};

/// What was read of a file.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FileRead {
    pub(crate) file: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) read_bytes: u64,
}

/// What is measured.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Objects, in an order in which any beginning of them has something of everything.
    pub(crate) objects: Vec<Vec<u8>>,
    pub(crate) files: Vec<FileRead>,
    /// The length of the WAL segments among the files, else PostgreSQL's default.
    pub(crate) segment_bytes: u64,
}

impl Sample {
    /// Reads the files in their order, until there are `limit` bytes.
    pub(crate) fn read(files: &[PathBuf], limit: u64) -> Result<Sample> {
        let mut sample = Sample { segment_bytes: SegmentSize::DEFAULT.bytes(), ..Sample::default() };
        let mut left = limit;
        for file in files {
            let (bytes, len) = read(file, left)?;
            left = left.saturating_sub(bytes.len() as u64);
            let segment = segment_size(file, len);
            if let Some(size) = segment {
                sample.segment_bytes = size.bytes();
            }
            sample.files.push(FileRead { file: file.clone(), bytes: len, read_bytes: bytes.len() as u64 });
            let piece =
                usize::try_from(segment.unwrap_or(SegmentSize::DEFAULT).bytes()).unwrap_or(usize::MAX);
            sample.objects.extend(bytes.chunks(piece).map(<[u8]>::to_vec));
        }
        sample.objects = spread(sample.objects);
        Ok(sample)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.len() as u64).sum()
    }

    /// Whether the limit left something out.
    pub(crate) fn is_cut(&self) -> bool {
        self.files.iter().any(|file| file.read_bytes < file.bytes)
    }
}

/// At most `limit` bytes of a file, and its length.
fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, u64)> {
    let attempt = |error| Error::io(format!("cannot read {}", path.display()), error).on(path.display());
    let facts = fs::metadata(path).map_err(attempt)?;
    // Opening a FIFO would wait for a writer.
    if !facts.is_file() {
        return Err(Error::new(Kind::Local, format!("cannot measure {}: it is not a file", path.display()))
            .on(path.display()));
    }
    if facts.len() == 0 {
        return Err(Error::usage(format!("cannot measure {}: it is empty", path.display()))
            .on(path.display())
            .hint("name files with content, best WAL segments of this cluster"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(attempt)?.take(limit).read_to_end(&mut bytes).map_err(attempt)?;
    Ok((bytes, facts.len()))
}

/// The size of the segment that a file is by its name and length.
fn segment_size(path: &Path, len: u64) -> Option<SegmentSize> {
    let name: WalName = path.file_name()?.to_str()?.parse().ok()?;
    let size = SegmentSize::new(len).ok()?;
    matches!(name, WalName::Segment(_)).then_some(size)
}

/// The same things, those far from each other first (van der Corput).
fn spread<T>(things: Vec<T>) -> Vec<T> {
    let mut numbered: Vec<(usize, T)> = things.into_iter().enumerate().collect();
    numbered.sort_by_key(|(nth, _)| nth.reverse_bits());
    numbered.into_iter().map(|(_, thing)| thing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_has_something_of_everything() {
        assert_eq!(spread((0..8).collect()), [0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!(spread((0..5).collect()), [0, 4, 2, 1, 3]);
        assert!(spread(Vec::<u8>::new()).is_empty());
    }

    #[test]
    fn segments_are_known_by_name_and_length() {
        let size = |name: &str, len| segment_size(Path::new(name), len).map(SegmentSize::bytes);
        assert_eq!(size("/wal/000000010000000000000001", 1 << 20), Some(1 << 20));
        assert_eq!(size("/wal/000000010000000000000001", 12345), None);
        assert_eq!(size("/wal/dump.sql", 1 << 20), None);
        assert_eq!(size("/wal/00000002.history", 1 << 20), None);
    }

    #[test]
    fn files_are_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        fs::write(&a, [1; 100]).unwrap();
        fs::write(&b, [2; 100]).unwrap();
        fs::write(&c, [3; 100]).unwrap();
        let sample = Sample::read(&[a.clone(), b.clone(), c], 150).unwrap();
        assert_eq!(sample.files.iter().map(|file| file.read_bytes).collect::<Vec<_>>(), [100, 50, 0]);
        assert!(sample.is_cut() && sample.bytes() == 150 && sample.objects.len() == 2);
        assert!(!Sample::read(&[a, b], 200).unwrap().is_cut());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        fs::write(&empty, []).unwrap();
        let kind = |path: &Path| Sample::read(&[path.to_owned()], 100).unwrap_err().kind();
        assert_eq!(kind(&empty), Kind::Usage);
        assert_eq!(kind(dir.path()), Kind::Local);
        assert_eq!(kind(&dir.path().join("missing")), Kind::Local);
    }
}
