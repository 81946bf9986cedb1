//! What archiving cannot cost less than: read, compress, write, make durable, in one process for all segments.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use walarchive_benches::{Used, file_name};
use walarchive_tests::stores::Bucket;

/// The argument that makes this program the process of its own: threads, a directory and segments follow.
pub const ASKED: &str = "--floor";

const LEVEL: i32 = 1;

pub fn run(args: &[String]) -> bool {
    let [mode, threads, dir, segments @ ..] = args else { return false };
    if mode == ASKED {
        let threads = threads.parse().expect("a number of threads");
        let segments: Vec<PathBuf> = segments.iter().map(PathBuf::from).collect();
        in_directory(threads, Path::new(dir), &segments);
    }
    mode == ASKED
}

fn in_directory(threads: usize, dir: &Path, segments: &[PathBuf]) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("a compressor");
        while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            let packed = packed(&mut compressor, segment);
            store(dir, &file_name(segment), &packed).unwrap_or_else(|error| panic!("{segment:?}: {error}"));
        }
    };
    thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
}

fn packed(compressor: &mut zstd::bulk::Compressor<'_>, segment: &Path) -> Vec<u8> {
    compressor.compress(&fs::read(segment).expect("read a segment")).expect("memory takes everything")
}

fn store(dir: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let passing = dir.join(format!("{name}.new"));
    let mut file = File::create(&passing)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&passing, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// The same into a bucket, one request for each segment, on this thread.
pub fn in_bucket(bucket: &Bucket, segments: &[PathBuf]) -> Used {
    let raw = bucket.reached();
    Used::here(|| {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("a compressor");
        for segment in segments {
            raw.put(&file_name(segment), packed(&mut compressor, segment));
        }
    })
}
