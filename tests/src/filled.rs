//! An archive with something of everything in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Cluster, Product, Scratch, StopMode};

/// Fills an archive from a real cluster: two backups, the first pinned, dumps, WAL of two timelines. Gives the stopped cluster, and the
/// name of the last segment.
pub fn fill(scratch: &Scratch, product: &Product) -> Option<(Cluster, String)> {
    let mut cluster = Cluster::builder(scratch).wal_segment_mib(1).start()?;
    cluster.archive_with(product);
    cluster.psql("create table t as select generate_series(1, 2000) as id");
    let first = product.back_up(&cluster, &["--pin"]);
    assert_eq!(first["kind"], "full");
    cluster.psql("insert into t select generate_series(2001, 4000)");
    cluster.archive_now();
    // Names tell no more than the second.
    std::thread::sleep(Duration::from_millis(1100));
    product.back_up(&cluster, &[]);
    product.connected(&cluster).ok(&["dump", "create"]);
    cluster.psql("insert into t values (0)");
    cluster.archive_now();
    // A promotion brings a second timeline.
    let signal = cluster.data_dir().join("standby.signal");
    cluster.stop(StopMode::Fast);
    fs::write(&signal, "").expect("make a standby");
    scratch.own(&signal);
    cluster.append_conf("restore_command = 'false'");
    cluster.start();
    cluster.psql("select pg_promote()");
    cluster.psql("insert into t values (-1)");
    let last_segment = cluster.archive_now();
    cluster.wait_archived("00000002.history", Duration::from_secs(60));
    cluster.stop(StopMode::Fast);
    Some((cluster, last_segment))
}

/// All files at and below a directory, in the order of their names.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("list {}: {error}", dir.display())) {
        let path = entry.expect("list a directory of ours").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// Copies a tree of files.
pub fn copy_tree(from: &Path, to: &Path) {
    for file in files_below(from) {
        let dest = to.join(file.strip_prefix(from).expect("a file is below its directory"));
        fs::create_dir_all(dest.parent().expect("a file has a directory")).expect("make a directory");
        fs::copy(file, dest).expect("copy a file");
    }
}
