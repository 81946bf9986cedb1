//! Backups of a cluster, and clusters back from the archive.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::{Cluster, Output, Product, Scratch, find, wait_until};

/// How long a recovery may take to reach its target.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a restored cluster's server is started with when its test wants nothing of the archive's future.
const QUIET: (&str, &str) = ("archive_mode", "off");

impl Product {
    /// The same, with the connection to this cluster: for commands that talk to the server.
    #[must_use]
    pub fn connected(&self, cluster: &Cluster) -> Product {
        self.but("WALARCHIVE_CONNECTION", &cluster.conninfo())
    }

    /// Backs up a running cluster; the new entry of `backup list`. Panics with everything when it does not exit 0.
    pub fn back_up(&self, cluster: &Cluster, args: &[&str]) -> Value {
        self.connected(cluster).json(&[&["backup", "create"], args].concat())
    }

    /// Runs `restore` into `target`, however it ends.
    pub fn restore_to(&self, target: &Path, args: &[&str]) -> Output {
        let target = target.to_str().expect("targets of tests are UTF-8");
        self.run(&[&["--json", "restore", "--target-dir", target], args].concat())
    }

    /// Restores into a new directory of `scratch`, has PostgreSQL's `pg_verifybackup` look through it, and gives it,
    /// not started; its server will archive nothing. Panics with everything when the restore does not exit 0.
    pub fn restore(&self, scratch: &Scratch, args: &[&str]) -> Cluster {
        let target = scratch.join(format!("restored{}", unique()));
        let output = self.restore_to(&target, args);
        assert_eq!(output.code, Some(0), "restore {args:?}: {output:#?}");
        verify_backup(scratch, &target);
        let builder = Cluster::adopt(scratch).option(QUIET.0, QUIET.1);
        builder.existing(target).expect("PostgreSQL was there to be backed up")
    }

    /// The directory in a directory archive that holds everything of the only cluster that was archived.
    pub fn cluster_dir(&self) -> PathBuf {
        let parent = self.archive_dir().join("main");
        let mut entries = std::fs::read_dir(&parent).expect("the archive has the cluster");
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let found = entries.find_map(|entry| {
            let path = entry.expect("list the archive").path();
            path.file_name()?.to_str().filter(|name| is_number(name)).map(|_| path.clone())
        });
        found.expect("the archive has the cluster")
    }

    /// Where a directory archive keeps a WAL segment, partial segment or backup history file.
    pub fn wal_object(&self, name: &str) -> PathBuf {
        self.cluster_dir().join("wal").join(&name[..8]).join(&name[8..16]).join(name)
    }
}

impl Cluster {
    /// Starts the server, and waits until recovery is over and it accepts writes.
    pub fn start_promoted(&mut self) {
        self.start();
        self.wait_for("recovery is over", "select not pg_is_in_recovery()");
    }

    /// Waits until a query answers `t`; panics with `what` when it takes too long.
    pub fn wait_for(&self, what: &str, query: &str) {
        wait_until(what, PATIENCE, || self.try_psql(query).is_ok_and(|answer| answer == "t"));
    }

    /// A line of `pg_controldata`.
    pub fn control(&self, label: &str) -> String {
        let text = self.tool("pg_controldata", &[self.data_dir().to_str().expect("a UTF-8 path")]);
        let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {label} in:\n{text}")).trim().to_owned()
    }
}

/// Has PostgreSQL's `pg_verifybackup` look through a restored directory that nothing touched yet; panics with what it
/// says.
pub fn verify_backup(scratch: &Scratch, target: &Path) {
    let program = find("pg_verifybackup").expect("pg_verifybackup is not installed");
    let output = scratch.command(program).arg("-n").arg(target).output().expect("run pg_verifybackup");
    let output = Output::of(&output);
    assert_eq!(output.code, Some(0), "pg_verifybackup {}: {output:#?}", target.display());
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
