//! How much is in directories.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::path::Path;

/// Bytes of a file, or of all files below a directory. What vanishes meanwhile counts for nothing.
pub fn bytes_below(path: &Path) -> u64 {
    sum(path, None)
}

/// The same, without what is below directories of this name.
pub fn bytes_below_but(path: &Path, without: &str) -> u64 {
    sum(path, Some(without.as_ref()))
}

fn sum(path: &Path, without: Option<&OsStr>) -> u64 {
    if path.is_file() {
        return path.metadata().map_or(0, |meta| meta.len());
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && without == Some(&entry.file_name()) => 0,
        Ok(kind) if kind.is_dir() => sum(&entry.path(), without),
        _ => entry.metadata().map_or(0, |meta| meta.len()),
    };
    entries.map(size).sum()
}
