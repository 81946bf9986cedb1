//! The smallest that an increment could be: the pages that differ, compressed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const PAGE: usize = 8192;

/// Digests of all pages of a data directory, WAL apart; shortened, as this process has to stay small.
pub struct Pages(BTreeMap<PathBuf, Vec<u32>>);

impl Pages {
    pub fn of(data_dir: &Path) -> Pages {
        let mut pages = BTreeMap::new();
        for file in files(data_dir) {
            let mut digests = Vec::new();
            each_page(&file, |page| digests.push(digest(page)));
            pages.insert(file, digests);
        }
        Pages(pages)
    }
}

/// Bytes that the pages which are not as they were make in one stream of zstd at level 1.
pub fn ideal(before: &Pages, data_dir: &Path) -> u64 {
    let mut packed = zstd::Encoder::new(Counted(0), 1).expect("an encoder");
    for file in files(data_dir) {
        let known = before.0.get(&file).map(Vec::as_slice).unwrap_or_default();
        let mut number = 0;
        each_page(&file, |page| {
            if known.get(number) != Some(&digest(page)) {
                packed.write_all(page).expect("memory takes everything");
            }
            number += 1;
        });
    }
    packed.finish().expect("memory takes everything").0
}

fn digest(page: &[u8]) -> u32 {
    let hash = blake3::hash(page);
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The files below a data directory, but for WAL.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "pg_wal" => files.extend(self::files(&path)),
            Ok(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

/// Files may vanish while the server runs: those have no pages.
fn each_page(file: &Path, mut take: impl FnMut(&[u8])) {
    let Ok(mut file) = File::open(file) else { return };
    let mut buffer = vec![0; 32 * PAGE];
    loop {
        let read = fill(&mut file, &mut buffer);
        buffer[..read].chunks(PAGE).for_each(&mut take);
        if read < buffer.len() {
            return;
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut at = 0;
    while let Ok(read @ 1..) = file.read(&mut buffer[at..]) {
        at += read;
    }
    at
}

/// Counts what is written.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
