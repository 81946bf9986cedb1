//! Many segments out of a few real ones.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::{Data, SEGMENT};

const PAGE: usize = 8192;

/// Segments of 16 MiB that a logical number has.
const OF_A_LOG: u64 = 0x100;

/// Writes `count` segments of timeline 1 into `dir`, the first of which has `number`. Each is a copy of one of the real
/// segments, by turns, with the addresses in its pages' headers renumbered, so that it is what its name says and no two are
/// alike; the records are as they were. Page by page: the memory of this process counts in what is measured.
pub fn write_batch(data: &Data, number: u64, count: usize, dir: &Path) -> Vec<PathBuf> {
    let numbers = number..number + count as u64;
    let paths = numbers.zip(data.segments.iter().cycle()).map(|(number, real)| {
        let path = dir.join(format!("00000001{:08X}{:08X}", number / OF_A_LOG, number % OF_A_LOG));
        renumber(real, number, &path).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        path
    });
    paths.collect()
}

fn renumber(real: &Path, number: u64, path: &Path) -> std::io::Result<()> {
    let mut from = BufReader::with_capacity(32 * PAGE, File::open(real)?);
    let mut to = BufWriter::with_capacity(32 * PAGE, File::create(path)?);
    let mut page = [0; PAGE];
    let start = number * SEGMENT as u64;
    for offset in (0..SEGMENT as u64).step_by(PAGE) {
        from.read_exact(&mut page)?;
        // After the magic number, the flags and the timeline. Made-up segments have headers in their first page only.
        let known = page[..2] != [0, 0] && page[4..8] == 1_u32.to_le_bytes();
        if offset == 0 || known {
            page[8..16].copy_from_slice(&(start + offset).to_le_bytes());
        }
        to.write_all(&page)?;
    }
    to.into_inner()?.sync_all()
}

/// The identifier of the cluster that a segment is of, as its first page says.
pub fn system_id(segment: &Path) -> u64 {
    let mut header = [0; 32];
    let read = fs::File::open(segment).and_then(|mut file| file.read_exact(&mut header));
    read.unwrap_or_else(|error| panic!("read {}: {error}", segment.display()));
    u64::from_le_bytes([
        header[24], header[25], header[26], header[27], header[28], header[29], header[30], header[31],
    ])
}
