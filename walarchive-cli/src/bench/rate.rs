//! How fast the measured WAL was written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use walarchive_core::wal::{SegmentName, SegmentSize, WalName};

/// Segments that were written within a shorter time tell nothing of other times.
const LEAST: Duration = Duration::from_secs(60);

/// A segment, its number and when its writing ended.
type Ended = (SegmentName, u64, SystemTime);

/// Bytes of WAL a second between the first and the last of the segments among these files, as the times of their last change tell;
/// and over how long. `None` where they do not tell.
pub(crate) fn of(files: &[PathBuf]) -> Option<(u64, Duration)> {
    let size = files.iter().filter(|file| named(file).is_some());
    let size = size.filter_map(|file| SegmentSize::new(fs::metadata(file).ok()?.len()).ok()).next()?;
    let mut segments: Vec<Ended> = files.iter().filter_map(|file| ended(file, size)).collect();
    segments.sort_by_key(|(name, number, _)| (name.timeline, *number));
    let (first, number, begun) = segments.first().copied()?;
    // Where the times go back, files that wait to be written again begin: they have names of the future.
    let last = segments
        .windows(2)
        .take_while(|two| two[1].0.timeline == first.timeline && two[0].2 <= two[1].2)
        .last()?[1];
    let taken = last.2.duration_since(begun).ok().filter(|taken| *taken >= LEAST)?;
    let written = (last.1 - number).checked_mul(size.bytes())?;
    Some(((written as f64 / taken.as_secs_f64()).ceil() as u64, taken))
}

fn named(file: &Path) -> Option<SegmentName> {
    match file.file_name()?.to_str()?.parse().ok()? {
        WalName::Segment(name) => Some(name),
        _ => None,
    }
}

fn ended(file: &Path, size: SegmentSize) -> Option<Ended> {
    let facts = fs::metadata(file).ok().filter(|facts| facts.len() == size.bytes())?;
    let name = named(file)?;
    Some((name, name.segno(size).ok()?, facts.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    /// Files of a mebibyte with these names, changed at these seconds.
    fn made(dir: &Path, files: &[(&str, u64)]) -> Vec<PathBuf> {
        let make = |(name, second): &(&str, u64)| {
            let path = dir.join(name);
            let file = File::create(&path).unwrap();
            file.set_len(1 << 20).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second);
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
            path
        };
        files.iter().map(make).collect()
    }

    #[test]
    fn the_times_of_segments_tell_how_fast_they_were_written() {
        let (dir, minute) = (tempfile::tempdir().unwrap(), Duration::from_secs(60));
        let of = |files: &[(&str, u64)]| of(&made(dir.path(), files));
        let (a, b, c) = ("000000010000000000000002", "000000010000000000000004", "00000001000000000000000A");
        assert_eq!(of(&[(b, 70), (a, 10)]), Some(((2_u64 << 20).div_ceil(60), minute)));
        assert_eq!(of(&[(a, 10), (b, 70), ("dump", 900)]), Some(((2_u64 << 20).div_ceil(60), minute)));
        // The last was kept for later; or all were copied at once.
        assert_eq!(of(&[(a, 10), (b, 70), (c, 5)]), Some(((2_u64 << 20).div_ceil(60), minute)));
        assert_eq!(of(&[(a, 10), (b, 11), (c, 12)]), None);
        assert_eq!(of(&[(a, 10)]), None);
        assert_eq!(of(&[("dump", 10), ("other", 700)]), None);
        assert_eq!(of(&[(a, 10), ("000000020000000000000004", 700)]), None);
    }
}
