//! Base backups, their list, restores and deletions, under every fault.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use walarchive_tests::proxy::{Fault, Rule};
use walarchive_tests::{Cluster, Product, Scratch, stores, verify_backup};

use crate::lab::{Lab, Line};
use crate::table::{Operation, Ready, try_all};

/// An archive with a small cluster that archives to it without faults, and one backup.
struct Backed {
    lab: Lab,
    _cluster: Cluster,
}

impl Backed {
    /// With so many rows of about 200 bytes that cannot be compressed.
    fn new(rows: u32) -> Option<Backed> {
        let scratch = Scratch::new();
        let bucket = stores::seaweed(&scratch)?;
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").start()?;
        let mut lab = Lab::on(scratch, bucket);
        lab.clean.unset("WALARCHIVE_SYSTEM_ID");
        lab.clean.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        cluster.archive_with(&lab.clean);
        // The smallest parts there are.
        lab.clean.set("WALARCHIVE_STORE_PART_SIZE", "5MiB");
        let digest = |of: &str| format!("sha512(convert_to(n || '{of}', 'UTF8'))");
        let row = format!("{} || {} || {} as noise", digest("a"), digest("b"), digest("c"));
        cluster.psql(&format!("create table t as select n, {row} from generate_series(1, {rows}) n"));
        lab.clean.ok(&["backup", "create"]);
        Some(Backed { lab, _cluster: cluster })
    }
}

fn backups(product: &Product) -> Vec<Value> {
    product.json(&["backup", "list"])["backups"].as_array().expect("a list").clone()
}

/// The ids of the backups with the label of one cell.
fn labelled(lab: &Lab, label: &str) -> Vec<String> {
    let found = backups(&lab.clean).into_iter().filter(|backup| backup["labels"]["cell"] == label);
    found.map(|backup| backup["id"].as_str().expect("an id").to_owned()).collect()
}

fn ready(line: &Line, args: &[&str], name: &str) -> Ready {
    Ready { command: line.product.command(args), code: 0, name: name.to_owned(), seed: 0, dest: None }
}

fn create(lab: &Lab, line: &Line) -> Ready {
    let label = lab.fresh().to_string();
    ready(line, &["backup", "create", "--full", "--label", &format!("cell={label}")], &label)
}

/// After `backup create`: what was acknowledged is there, and what is there can be restored.
fn created(lab: &Lab, ready: &Ready, code: i32) -> Result<(), String> {
    let ids = labelled(lab, &ready.name);
    if code == 0 && ids.len() != 1 {
        return Err(format!("acknowledged, and there are {}", ids.len()));
    }
    for id in ids {
        // Restoring each takes too long; one that was not acknowledged and is there all the same deserves it.
        let target = lab.scratch.join(format!("check{}", lab.fresh()));
        let dry: &[&str] = if code == 0 { &["--backup", &id, "--dry-run"] } else { &["--backup", &id] };
        let output = lab.clean.restore_to(&target, dry);
        let _ = fs::remove_dir_all(target);
        if output.code != Some(0) {
            return Err(format!("it cannot be restored: {output:?}"));
        }
        lab.clean.ok(&["backup", "delete", &id, "--yes", "--even-the-last"]);
    }
    Ok(())
}

fn list(_: &Lab, line: &Line) -> Ready {
    ready(line, &["--json", "backup", "list"], "")
}

fn restore(lab: &Lab, line: &Line) -> Ready {
    let target = lab.scratch.join(format!("target{}", lab.fresh()));
    let mut ready = ready(line, &["restore", "--target-dir", target.to_str().expect("UTF-8")], "");
    ready.dest = Some(target);
    ready
}

/// After `restore`: the whole cluster, or nothing that a server would start with.
fn restored(lab: &Lab, ready: &Ready, code: i32) -> Result<(), String> {
    let target = ready.dest.as_ref().expect("a target");
    let control = target.join("global/pg_control").exists();
    if code == 0 {
        verify_backup(&lab.scratch, target);
    }
    let _ = fs::remove_dir_all(target);
    if code != 0 && control { Err("half a cluster that looks like a whole one".into()) } else { Ok(()) }
}

fn delete(lab: &Lab, line: &Line) -> Ready {
    let label = format!("cell={}", lab.fresh());
    let made = lab.clean.json(&["backup", "create", "--full", "--label", &label]);
    let id = made["id"].as_str().expect("an id").to_owned();
    ready(line, &["backup", "delete", &id, "--yes", "--even-the-last"], &id)
}

/// After `backup delete`: gone when that was said, and otherwise gone or whole.
fn deleted(lab: &Lab, ready: &Ready, code: i32) -> Result<(), String> {
    if !backups(&lab.clean).iter().any(|backup| backup["id"] == ready.name.as_str()) {
        return Ok(());
    }
    if code == 0 {
        return Err("it is still there".into());
    }
    let target = lab.scratch.join(format!("check{}", lab.fresh()));
    let output = lab.clean.restore_to(&target, &["--backup", &ready.name]);
    let _ = fs::remove_dir_all(target);
    lab.clean.ok(&["backup", "delete", &ready.name, "--yes", "--even-the-last"]);
    if output.code == Some(0) { Ok(()) } else { Err(format!("listed, but broken: {output:?}")) }
}

fn nothing_to_judge(_: &Lab, _: &Ready, _: i32) -> Result<(), String> {
    Ok(())
}

/// Tries one operation; then the first backup is still good.
fn try_operation(rows: u32, operation: Operation, most: usize, workers: usize) {
    let Some(Backed { lab, _cluster }) = Backed::new(rows) else { return };
    try_all(&lab, &[operation], most, workers);
    let first = backups(&lab.clean)[0]["id"].as_str().expect("an id").to_owned();
    lab.clean.restore(&lab.scratch, &["--backup", &first]);
}

#[test]
fn every_fault_under_backup_create() {
    try_operation(
        1000,
        Operation { name: "backup create", ready: create, judge: created, sees_flips: true },
        3,
        2,
    );
}

/// All that is large in one pack.
fn create_large(lab: &Lab, line: &Line) -> Ready {
    let label = lab.fresh().to_string();
    ready(line, &["backup", "create", "--full", "--jobs", "1", "--label", &format!("cell={label}")], &label)
}

#[test]
fn every_fault_under_uploads_in_parts() {
    let operation = Operation { name: "large backup", ready: create_large, judge: created, sees_flips: true };
    try_operation(70_000, operation, 10, 5);
}

#[test]
fn every_fault_under_backup_list() {
    let judge = nothing_to_judge;
    try_operation(1000, Operation { name: "backup list", ready: list, judge, sees_flips: false }, 6, 4);
}

#[test]
fn every_fault_under_restore() {
    try_operation(
        1000,
        Operation { name: "restore", ready: restore, judge: restored, sees_flips: false },
        4,
        3,
    );
}

#[test]
fn every_fault_under_backup_delete() {
    try_operation(
        1000,
        Operation { name: "backup delete", ready: delete, judge: deleted, sees_flips: false },
        4,
        6,
    );
}

#[test]
fn what_somebody_deletes_meanwhile_is_not_there() {
    let Some(Backed { lab, _cluster }) = Backed::new(1000) else { return };
    let first = backups(&lab.clean)[0]["id"].as_str().expect("an id").to_owned();
    let made = lab.clean.json(&["backup", "create", "--full"]);
    let second = made["id"].as_str().expect("an id").to_owned();
    let raw = lab.bucket.raw();
    let keys: Vec<_> = raw.list().into_iter().map(|(key, _)| key).collect();
    let manifest = keys.iter().find(|key| key.ends_with(&format!("{second}/manifest"))).expect("a manifest");
    let content = raw.get(manifest).expect("it was listed");
    let line = lab.line(Duration::from_secs(20));
    let target = lab.scratch.join("target").display().to_string();
    let dry = ["restore", "--target-dir", &target, "--backup", &first, "--dry-run"];
    let commands: [&[&str]; 3] =
        [&["--json", "backup", "list"], &dry, &["backup", "delete", &first, "--yes", "--even-the-last"]];
    for args in commands {
        // Just before it is read, after it was listed.
        let (bucket, key, gone) = (lab.bucket.clone(), manifest.clone(), AtomicBool::new(false));
        let vanish = Rule::once(Fault::Reset).when(move |request| {
            if request.path.ends_with(&key) && !gone.swap(true, Ordering::SeqCst) {
                bucket.raw().delete(&key);
            }
            false
        });
        let run = line.walarchive([vanish], args).exits(0);
        assert_eq!(raw.get(manifest), None, "it was never asked for: {run:#?}");
        if args[1] == "backup" {
            let listed = run.output.json()["backups"].as_array().expect("a list").len();
            assert_eq!(listed, 1, "{run:#?}");
        }
        raw.put(manifest, content.clone());
    }
    // It is whole.
    lab.clean.restore(&lab.scratch, &["--backup", &second]);
}
