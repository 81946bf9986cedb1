//! The programs as they are used: one `archive_command` or `restore_command` after the other, a backup, a restore. Next to what the
//! system's own programs, and those of others that are in `PATH`, take for the same bytes in the same run.

mod segments;
mod wal;

use std::process::Command;

use walarchive_benches::contenders::{others, versions};
use walarchive_benches::{Report, Table, Used, Who, samples, smoke};
use walarchive_tests::{Cluster, Product, Scratch};

use wal::Wal;

/// Of pgbench's tables: 50 are about 750 MiB.
const SCALE: u32 = 50;

fn main() {
    // `cargo bench NAME` filters by name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()));
    if runs("push") || runs("fetch") {
        push_and_fetch();
    }
    if runs("backup") {
        backup();
    }
}

fn push_and_fetch() {
    let mut report = Report::new("programs-wal");
    for (number, data) in samples().iter().enumerate() {
        let scratch = Scratch::new();
        // Programs of others ask a server, or its control file, whose WAL it is.
        let cluster = Cluster::builder(&scratch).start();
        let contenders = cluster.as_ref().map(|cluster| others(&scratch, cluster)).unwrap_or_default();
        let mut wal = Wal::new(&scratch, data, cluster.as_ref(), contenders);
        wal.leave_out_what_fails();
        if number == 0 {
            report.fact(versions(&wal.contenders, &["zstd", "cp"]));
        }
        wal.measure(&mut report);
    }
    report.finish();
}

fn backup() {
    let mut report = Report::new("programs-backup");
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(cluster) = Cluster::builder(&scratch).conf("max_wal_size = 2GB").start() else { return };
    cluster.archive_with(&product);
    let scale = if smoke() { 1 } else { SCALE };
    cluster.pgbench_init(scale);
    cluster.archive_now();
    let data_dir = cluster.data_dir().display().to_string();
    let mut create = product.command(&["--no-progress", "backup", "create", "--jobs", "2"]);
    create.env("WALARCHIVE_CONNECTION", cluster.conninfo()).env("PGDATA", &data_dir);
    let created = Used::by(create);
    let floor = Used::by(plain_copy(&scratch, &cluster));
    let target = scratch.join("restored").display().to_string();
    let restored =
        Used::by(product.command(&["--no-progress", "restore", "--target-dir", &target, "--jobs", "2"]));
    report.fact(versions(&[], &["pg_basebackup"]));
    let unit = "pg_basebackup, as it is, synced";
    let title = format!("backup: pgbench at scale {scale}, two jobs, age and zstd:1, in a directory");
    let mut table = Table::new(title, unit);
    table.row(Who::Ours, "backup create", created, None);
    table.row(Who::Ours, "restore", restored, None);
    table.row(Who::Other, unit, floor, None);
    report.add(table);
    report.finish();
}

fn plain_copy(scratch: &Scratch, cluster: &Cluster) -> Command {
    let mut command = cluster.client_command("pg_basebackup");
    command.args(["-X", "none", "-c", "fast", "-D"]).arg(scratch.join("plain"));
    command
}
