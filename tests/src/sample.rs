//! WAL made up without a server, and directories compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The system identifier of made-up WAL.
pub const SYSTEM_ID: u64 = 7_300_000_000_000_000_001;
/// The length of made-up segments in bytes.
pub const SEGMENT_LEN: usize = 1 << 20;

/// The name of the made-up segment `number` on `timeline`.
pub fn segment_name(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

/// The content of segment `number` of 1 MiB on `timeline`: PostgreSQL 15's long header, then bytes that depend on `seed`
/// and do not compress.
pub fn segment(timeline: u32, number: u32, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_LEN);
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(timeline.to_le_bytes());
    bytes.extend((u64::from(number) * SEGMENT_LEN as u64).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(SYSTEM_ID.to_le_bytes());
    bytes.extend((SEGMENT_LEN as u32).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    let mut state = seed ^ 0x9E37_79B9_7F4A_7C15;
    while bytes.len() < SEGMENT_LEN {
        // xorshift64: noise enough for a compressor.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(SEGMENT_LEN);
    bytes
}

/// What is seen of a file or directory from outside: a change of any of it is a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    inode: u64,
    mode: u32,
    size: u64,
    changed: (i64, i64),
}

/// Everything at and below `dir`, with what is seen of it. What cannot be listed is passed over.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten();
            waiting.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        let seen = Seen {
            inode: meta.ino(),
            mode: meta.mode(),
            size: meta.size(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        };
        found.insert(path, seen);
    }
    found
}

/// The names in a directory, sorted; none if there is no such directory.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// The files at and below `dir` whose path contains `part`.
pub fn files_with(dir: &Path, part: &str) -> Vec<PathBuf> {
    let found = tree(dir).into_keys().filter(|path| path.is_file() && path.to_string_lossy().contains(part));
    found.collect()
}

/// A file of real data, which the repository does not hold; `None`, after a loud note, where it is not.
pub fn real_data(name: &str) -> Option<std::path::PathBuf> {
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("WALARCHIVE_TEST_DATA").map_or(beside, std::path::PathBuf::from);
    let file = dir.join(name);
    if !file.exists() {
        eprintln!("\nSKIPPED: there is no {}; WALARCHIVE_TEST_DATA names its directory\n", file.display());
        return None;
    }
    Some(file)
}
