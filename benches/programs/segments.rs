//! Segments as files: made, and compared with what came back.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use walarchive_benches::{Data, system_id};
use walarchive_tests::Cluster;

/// Copies of the segments, as if the cluster had written them.
pub fn copies(data: &Data, cluster: Option<&Cluster>, dir: &Path) -> (Vec<PathBuf>, u64) {
    let system = cluster.map_or_else(
        || system_id(&data.segments[0]),
        |cluster| control_system_id(&cluster.data_dir().join("global/pg_control")),
    );
    let copy = |segment: &PathBuf| {
        let copy = dir.join(name(segment));
        fs::copy(segment, &copy).expect("copy a segment");
        let file = File::options().write(true).open(&copy).expect("open a segment");
        file.write_all_at(&system.to_le_bytes(), 24).expect("write a segment");
        copy
    };
    (data.segments.iter().map(copy).collect(), system)
}

pub fn name(path: &Path) -> String {
    path.file_name().expect("a file has a name").to_string_lossy().into_owned()
}

/// The identifier of the cluster, as its control file begins.
fn control_system_id(control: &Path) -> u64 {
    let mut bytes = [0; 8];
    File::open(control).and_then(|mut file| file.read_exact(&mut bytes)).expect("read pg_control");
    u64::from_ne_bytes(bytes)
}

/// Whether what was fetched is the segment; removes it. Piece by piece: the memory of this process counts in what is measured.
pub fn check(segment: &Path, fetched: &Path) {
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
