//! The whole circle on every store over a network: archive, back up, lose the cluster, and bring it back to a named moment.

use std::time::Duration;

use walarchive_tests::stores::{self, Kind};
use walarchive_tests::{Cluster, Options, Product, Scratch, Sshd, StopMode};

const BALANCE: &str = "select sum(abalance), (select count(*) from pgbench_history) from pgbench_accounts";

/// Runs the circle with an archive at `url`, which the programs reach with these variables.
fn circle(scratch: &Scratch, url: String, env: &[(String, String)]) {
    let Some(mut cluster) = Cluster::builder(scratch).wal_segment_mib(1).start() else { return };
    let mut product =
        Product::with(scratch, Options { archive: Some(url), init: false, ..Options::default() });
    for (name, value) in env {
        product.set(name, value);
    }
    // Parts as small as stores take them, so that packs have several.
    product.set("WALARCHIVE_STORE_PART_SIZE", "5MiB");
    product.ok(&["init"]);
    product.ok(&["init"]);
    cluster.archive_with(&product);
    cluster.pgbench_init(2);
    let mut load = cluster.pgbench(4);
    let backup = product.back_up(&cluster, &["--jobs", "2"]);
    load.wait(Duration::from_secs(60));
    cluster.psql("select pg_create_restore_point('here')");
    let expected = cluster.psql(BALANCE);
    cluster.psql("update pgbench_accounts set abalance = 1; delete from pgbench_history");
    cluster.archive_now();
    cluster.kill9();
    std::fs::remove_dir_all(cluster.data_dir()).unwrap();

    assert_eq!(product.json(&["backup", "list"])["backups"][0]["id"], backup["id"]);
    assert_eq!(product.json(&["wal", "list"])["timelines"][0]["missing"].as_array().unwrap().len(), 0);
    assert_eq!(product.json(&["status"])["problems"].as_array().unwrap().len(), 0);
    let mut restored = product.restore(scratch, &["--to", "name:here"]);
    restored.start_promoted();
    assert_eq!(restored.psql(BALANCE), expected, "the rows of that moment, no more and no fewer");
    restored.stop(StopMode::Fast);
}

fn on(kind: Kind) {
    let scratch = Scratch::new();
    let Some(bucket) = stores::shared(&scratch, kind) else { return };
    circle(&scratch, bucket.url(), &bucket.env());
    let unfinished = bucket.raw().unfinished();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

#[test]
fn s3() {
    on(Kind::Seaweed);
}

#[test]
fn azure() {
    on(Kind::Azurite);
}

#[test]
fn google() {
    on(Kind::Gcs);
}

#[test]
fn ssh() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let archive = scratch.join("archive");
    let file = |path: std::path::PathBuf| path.display().to_string();
    let env = [
        ("WALARCHIVE_STORE_SSH_IDENTITY".to_owned(), file(sshd.identity())),
        ("WALARCHIVE_STORE_SSH_KNOWN_HOSTS".to_owned(), file(sshd.known_hosts())),
    ];
    circle(&scratch, sshd.url(&archive), &env);
}
