//! Copies of a cluster have its system identifier: what belongs to one must not pass for the other's. And what has two
//! meanings is refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walarchive_tests::{Cluster, Output, Product, Scratch, StopMode};

/// A copy of a stopped cluster's files.
fn copy(scratch: &Scratch, of: &Path) -> PathBuf {
    let copy = scratch.join("copy");
    let done = scratch.command("cp").arg("-a").arg(of).arg(&copy).status().unwrap();
    assert!(done.success());
    copy
}

fn back_up(product: &Product, cluster: &Cluster) -> Output {
    let impatient = product.connected(cluster).but("WALARCHIVE_BACKUP_WAL_WAIT", "20s");
    impatient.run(&["backup", "create"])
}

fn backups(product: &Product) -> usize {
    product.json(&["backup", "list"])["backups"].as_array().unwrap().len()
}

#[test]
fn a_backup_of_a_copy_does_not_take_the_original_s_wal_for_its_own() {
    let scratch = Scratch::new();
    let Some(mut original) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    original.archive_with(&product);
    original.stop(StopMode::Fast);
    let copied = copy(&scratch, original.data_dir());
    original.start();
    original.psql("create table filler as select n, md5(n::text) from generate_series(1, 100000) n");
    original.archive_now();

    let mut copy = Cluster::adopt(&scratch).existing(copied).unwrap();
    copy.start();
    copy.psql("create table mine as select 1 as a");
    let output = back_up(&product, &copy);
    assert_eq!(output.code, Some(3), "{output:#?}");
    assert!(output.stderr.contains("not this server's"), "{output:#?}");
    assert_eq!(backups(&product), 0);
    let output = back_up(&product, &original);
    assert_eq!((output.code, backups(&product)), (Some(0), 1), "{output:#?}");
}

#[test]
fn the_files_of_a_copy_are_not_backed_up_in_place_of_the_server_s() {
    let scratch = Scratch::new();
    let Some(mut original) = Cluster::builder(&scratch).start() else { return };
    let product = Product::new(&scratch);
    original.archive_with(&product);
    original.stop(StopMode::Fast);
    let copied = copy(&scratch, original.data_dir());
    original.start();
    let output = back_up(&product.but("PGDATA", copied.to_str().unwrap()), &original);
    assert_eq!(output.code, Some(3), "{output:#?}");
    assert!(output.stderr.contains("does not run in"), "{output:#?}");
    assert_eq!(backups(&product), 0);
}

#[test]
fn a_restore_point_whose_name_was_given_twice_is_refused() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    product.back_up(&cluster, &[]);
    for row in 1..=2 {
        cluster.psql(&format!("create table row{row} as select {row} as a"));
        cluster.psql("select pg_create_restore_point('twice')");
        cluster.psql("select pg_switch_wal()");
    }
    cluster.psql("create table afterwards as select 3 as a");
    cluster.archive_now();
    let target = scratch.join("target");
    let output = product.restore_to(&target, &["--to", "name:twice"]);
    assert_eq!(output.code, Some(3), "{output:#?}");
    assert!(output.stderr.contains("several restore points"), "{output:#?}");
    assert!(!target.exists());
    // A backup between the two leaves one meaning.
    product.back_up(&cluster, &[]);
    cluster.psql("select pg_create_restore_point('twice')");
    cluster.archive_now();
    let output = product.restore_to(&target, &["--to", "name:twice", "--dry-run"]);
    assert_eq!(output.code, Some(0), "{output:#?}");
}

#[test]
fn arguments_that_are_no_text_do_not_end_recovery() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    for words in
        [&[&b"\xff"[..], b"x"][..], &[b"000000010000000000000001", b"x", b"--config", b"/\xff", b"--bogus"]]
    {
        let mut command = product.command_of("walarchive-fetch", &[]);
        command.args(words.iter().map(|word| OsStr::from_bytes(word)));
        let output = Output::of(&command.output().unwrap());
        assert_eq!(output.code, Some(202), "{output:#?}");
    }
    let mut command = product.command_of("walarchive-push", &["x"]);
    command.env("WALARCHIVE_ARCHIVE", OsStr::from_bytes(b"file:///\xff"));
    let output = Output::of(&command.output().unwrap());
    assert_eq!(output.code, Some(2), "{output:#?}");
    assert!(output.stderr.contains("WALARCHIVE_ARCHIVE is not UTF-8"), "{output:#?}");
}
