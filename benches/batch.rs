//! Many segments out of a few real ones, and whose they are.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Data, SEGMENT};

const PAGE: usize = 8192;

/// Bytes that a logical number has segments for.
const A_LOG: u64 = 1 << 32;

/// Where the first page of a segment has the system identifier, and the size of segments.
const SYSTEM_AT: u64 = 24;
const SIZE_AT: usize = 32;

/// Segments of timeline 1 to be made.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: usize,
    /// The bytes of each: no more than a real one has.
    pub size: usize,
    /// The system identifier that they shall have in place of their own.
    pub system: Option<u64>,
}

impl Batch {
    /// Segments of the usual size, and of the system of the real ones.
    pub fn new(first: u64, count: usize) -> Batch {
        Batch { first, count, size: SEGMENT, system: None }
    }

    /// Writes the segments into `dir`. Each is a copy of one of the real ones (or of its beginning), by turns, with the addresses in its
    /// pages' headers renumbered, so that it is what its name says and no two are alike; the records are as they were. Page by
    /// page: the memory of this process counts in what is measured.
    pub fn write(&self, data: &Data, dir: &Path) -> Vec<PathBuf> {
        let numbers = self.first..self.first + self.count as u64;
        let of_a_log = A_LOG / self.size as u64;
        let paths = numbers.zip(data.segments.iter().cycle()).map(|(number, real)| {
            let path = dir.join(format!("00000001{:08X}{:08X}", number / of_a_log, number % of_a_log));
            self.renumber(real, number, &path)
                .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
            path
        });
        paths.collect()
    }

    fn renumber(&self, real: &Path, number: u64, path: &Path) -> std::io::Result<()> {
        let mut from = BufReader::with_capacity(32 * PAGE, File::open(real)?);
        let mut to = BufWriter::with_capacity(32 * PAGE, File::create(path)?);
        let mut page = [0; PAGE];
        let start = number * self.size as u64;
        for offset in (0..self.size as u64).step_by(PAGE) {
            from.read_exact(&mut page)?;
            // After the magic number, the flags and the timeline. Made-up segments have headers in their first page only.
            let known = page[..2] != [0, 0] && page[4..8] == 1_u32.to_le_bytes();
            if offset == 0 || known {
                page[8..16].copy_from_slice(&(start + offset).to_le_bytes());
            }
            if offset == 0 {
                page[SIZE_AT..SIZE_AT + 4].copy_from_slice(&(self.size as u32).to_le_bytes());
            }
            to.write_all(&page)?;
        }
        let file = to.into_inner()?;
        if let Some(system) = self.system {
            claim(&file, system)?;
        }
        file.sync_all()
    }
}

/// Has a segment be of another cluster.
pub fn claim(segment: &File, system: u64) -> std::io::Result<()> {
    segment.write_all_at(&system.to_le_bytes(), SYSTEM_AT)
}

/// The identifier of a cluster, as its control file begins.
pub fn control_system_id(data_dir: &Path) -> u64 {
    let mut bytes = [0; 8];
    let control = File::open(data_dir.join("global/pg_control"));
    control.and_then(|mut file| file.read_exact(&mut bytes)).expect("read pg_control");
    u64::from_ne_bytes(bytes)
}

/// The identifier of the cluster that a segment is of, as its first page says.
pub fn system_id(segment: &Path) -> u64 {
    let mut bytes = [0; 8];
    let read = File::open(segment).and_then(|file| file.read_exact_at(&mut bytes, SYSTEM_AT));
    read.unwrap_or_else(|error| panic!("read {}: {error}", segment.display()));
    u64::from_le_bytes(bytes)
}

/// Whether what was fetched is the segment; removes it. Piece by piece, for the same reason.
pub fn check_fetched(segment: &Path, fetched: &Path) {
    let open =
        |path: &Path| File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let (mut wanted, mut got) = (open(segment), open(fetched));
    let (mut one, mut other) = ([0; 64 << 10], [0; 64 << 10]);
    let len = wanted.metadata().expect("look at a segment").len();
    assert_eq!(got.metadata().expect("look at a file").len(), len, "{}", fetched.display());
    for _ in 0..len / one.len() as u64 {
        wanted.read_exact(&mut one).expect("read a segment");
        got.read_exact(&mut other).expect("read what was fetched");
        assert!(one == other, "{} is not what was pushed", fetched.display());
    }
    fs::remove_file(fetched).expect("remove a file of ours");
}

/// The name of a file.
pub fn file_name(path: &Path) -> String {
    path.file_name().expect("a file has a name").to_string_lossy().into_owned()
}
