//! The cluster that is backed up.

use std::fs;
use std::path::Path;

use walarchive_benches::smoke;
use walarchive_tests::{Cluster, Product, Scratch, bytes_below_but};

/// MiB of files for each unit of pgbench's scale, and those of an empty cluster.
const OF_A_SCALE: u32 = 17;
const EMPTY: u32 = 25;

/// The size of the database in MiB: `--mib N` on the command line, else 2048.
pub fn wanted_mib() -> u32 {
    let mut args = std::env::args().skip_while(|arg| arg != "--mib").skip(1);
    let said = args.next().map(|number| number.parse().expect("--mib is followed by a number"));
    said.unwrap_or(if smoke() { 50 } else { 2048 })
}

/// A running server whose WAL is archived.
pub struct Live {
    pub scratch: Scratch,
    pub cluster: Cluster,
}

impl Live {
    /// `None`, after a loud note, where PostgreSQL is not installed.
    pub fn start(mib: u32) -> Option<Live> {
        let scratch = Scratch::new();
        let builder = Cluster::builder(&scratch).conf("autovacuum = off").conf("max_wal_size = 8GB");
        let cluster = builder.conf("shared_buffers = 256MB").start()?;
        let scale = (mib.saturating_sub(EMPTY) / OF_A_SCALE).max(1);
        // Room on every page, so that an update changes one page of the table and none of the index.
        let mut pgbench = cluster.client_command("pgbench");
        let made = pgbench.args(["-i", "-q", "-F", "80", "-s", &scale.to_string(), "postgres"]).output();
        assert!(made.is_ok_and(|made| made.status.success()), "pgbench makes its tables");
        let live = Live { scratch, cluster };
        live.archive_nowhere();
        live.update(0);
        Some(live)
    }

    /// Archives WAL with this product from now on: a backup waits for its own.
    pub fn archive_with(&self, product: &Product) {
        self.cluster.archive_with(product);
        self.cluster.archive_now();
    }

    /// Has WAL taken for archived.
    pub fn archive_nowhere(&self) {
        self.cluster.append_conf("archive_command = 'true'");
        self.cluster.reload();
        self.cluster.archive_now();
    }

    /// Updates one row on each of so many pages of the largest table, chosen at random, and has all of it written.
    pub fn update(&self, per_mille: u32) {
        let chosen =
            "select (random() * (select max(aid) from pgbench_accounts))::int from generate_series(1,
            (select relpages from pg_class where relname = 'pgbench_accounts')";
        let sql = format!(
            "set enable_seqscan = off; update pgbench_accounts set abalance = abalance + 1 where aid in ({chosen} * {per_mille} / 1000))"
        );
        self.cluster.psql(&sql);
        self.cluster.psql("checkpoint");
        self.cluster.archive_now();
    }

    /// Bytes of the files that a backup holds.
    pub fn data_bytes(&self) -> u64 {
        bytes_below_but(self.cluster.data_dir(), "pg_wal")
    }
}

/// Removes a directory of ours.
pub fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        assert!(error.kind() == std::io::ErrorKind::NotFound, "remove {}: {error}", dir.display());
    }
}
