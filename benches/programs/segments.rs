//! Segments as files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use walarchive_benches::{Data, claim, control_system_id, file_name, system_id};
use walarchive_tests::Cluster;

/// Copies of the segments, as if the cluster had written them.
pub fn copies(data: &Data, cluster: Option<&Cluster>, dir: &Path) -> (Vec<PathBuf>, u64) {
    let system =
        cluster.map_or_else(|| system_id(&data.segments[0]), |cluster| control_system_id(cluster.data_dir()));
    let copy = |segment: &PathBuf| {
        let copy = dir.join(file_name(segment));
        fs::copy(segment, &copy).expect("copy a segment");
        let file = File::options().write(true).open(&copy).expect("open a segment");
        claim(&file, system).expect("write a segment");
        copy
    };
    (data.segments.iter().map(copy).collect(), system)
}

/// A segment whose first page is real, and that nothing makes smaller.
pub fn make_noise(real: &Path, noise: &Path) {
    let mut page = [0; 8192];
    let mut source = File::open(real).expect("open a segment");
    source.read_exact(&mut page).expect("read a segment");
    let len = source.metadata().expect("look at a segment").len();
    let mut file = File::create(noise).expect("make a segment");
    file.write_all(&page).expect("write a segment");
    for _ in 1..len / 8192 {
        getrandom::fill(&mut page).expect("random bytes");
        file.write_all(&page).expect("write a segment");
    }
}
