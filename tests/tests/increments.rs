//! Backups that store what has changed, and are whole all the same: each restores alone, whatever becomes of the others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use walarchive_tests::{
    Background, Cluster, Product, Scratch, StopMode, kill_tree, postgres_major, wait_until,
};

fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("no {key} in {document}"))
}

fn text<'a>(document: &'a Value, key: &str) -> &'a str {
    document[key].as_str().unwrap_or_else(|| panic!("no {key} in {document}"))
}

struct Live {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
    /// Backups, and what was in the cluster when they were made.
    made: Vec<(Value, String)>,
}

impl Live {
    fn new(checksums: bool) -> Option<Live> {
        let scratch = Scratch::new();
        let builder = Cluster::builder(&scratch).wal_segment_mib(1).data_checksums(checksums);
        let cluster = builder.conf("autovacuum = off").conf("full_page_writes = on").start()?;
        let product = Product::new(&scratch);
        cluster.archive_with(&product);
        Some(Live { scratch, cluster, product, made: Vec::new() })
    }

    /// Makes a backup; nobody changes anything meanwhile.
    fn back_up(&mut self, kind: &str, args: &[&str]) -> Value {
        let product = self.product.connected(&self.cluster);
        let output = product.run(&[&["--json", "backup", "create"], args].concat());
        assert_eq!(output.code, Some(0), "{output:#?}");
        let made = output.json();
        assert_eq!(made["kind"], kind, "{output:#?}");
        self.made.push((made.clone(), self.cluster.dump()));
        made
    }

    /// Restores a backup, has PostgreSQL look through it, and compares what is in it.
    fn restores(&self, backup: &Value, wanted: &str) {
        let id = text(backup, "id");
        let mut restored = self.product.restore(&self.scratch, &["--backup", id, "--to", "immediate"]);
        restored.start_promoted();
        assert!(logged(&restored.dump()) == logged(wanted), "backup {id} is not what the cluster was");
        restored.stop(StopMode::Fast);
        fs::remove_dir_all(restored.data_dir()).unwrap();
    }

    fn delete(&self, backup: &Value) -> Value {
        self.product.json(&["backup", "delete", text(backup, "id"), "--yes", "--even-the-last"])
    }

    /// Deletes the backups in this order; before each deletion all that are left restore.
    fn restore_and_delete(&self, order: &[usize]) {
        let mut left: Vec<usize> = (0..self.made.len()).collect();
        for next in order {
            for backup in &left {
                self.restores(&self.made[*backup].0, &self.made[*backup].1);
            }
            left.retain(|backup| backup != next);
            self.delete(&self.made[*next].0);
        }
        let (last, wanted) = &self.made[left[0]];
        self.restores(last, wanted);
        let packs = self.product.cluster_dir().join("packs");
        self.delete(last);
        // Their names may stay as empty directories.
        assert_eq!(files_below(&packs), 0, "packs of nobody are gone");
    }
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[test]
fn an_increment_costs_what_has_changed() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.pgbench_init(5);
    live.cluster.psql("vacuum");
    let full = live.back_up("full", &[]);
    let (data, stored) = (number(&full, "data_bytes"), number(&full, "stored_bytes"));
    assert!(number(&full, "read_bytes") >= data - 1_000_000);
    let idle = live.back_up("incremental", &[]);
    assert_eq!(text(&idle, "base"), text(&full, "id"));
    assert!(number(&idle, "stored_bytes") * 100 < stored, "{idle}");
    live.cluster.psql("update pgbench_accounts set filler = md5(aid::text) where aid % 6100 = 7");
    let small = live.back_up("incremental", &[]);
    assert!(number(&small, "stored_bytes") * 10 < stored, "{small}");
    assert_eq!(number(&small, "data_bytes") / (1 << 20), number(&idle, "data_bytes") / (1 << 20));
    live.restore_and_delete(&[0, 2]);
}

#[test]
fn what_does_not_go_through_single_pages_is_noticed() {
    let Some(mut live) = Live::new(false) else { return };
    let space = live.scratch.dir("space");
    live.cluster.psql(
        "create table moved as select n, md5(n::text) t from generate_series(1, 20000) n;
         create table emptied as table moved; create table shrunk as table moved; create table hinted as table moved;
         create table vacuumed as table moved; create index on vacuumed (n); create unlogged table unlogged as table moved;
         create table logged as table moved",
    );
    live.cluster.psql("create database copied");
    live.back_up("full", &[]);
    live.cluster.psql(&format!("create tablespace elsewhere location '{}'", space.display()));
    live.cluster.psql("alter table moved set tablespace elsewhere");
    // Before version 15 there was no other way to copy a database.
    let strategy = if postgres_major() < Some(15) { "" } else { "strategy file_copy" };
    live.cluster.psql(&format!("create database copy template copied {strategy}"));
    live.cluster.psql("truncate emptied");
    live.cluster.psql("delete from shrunk where n > 5000");
    live.cluster.psql("vacuum shrunk");
    live.cluster.psql("delete from vacuumed where n % 3 = 0");
    live.cluster.psql("vacuum full vacuumed");
    // Hint bits alone: without checksums they go to disk without WAL.
    live.cluster.psql("select count(*) from hinted");
    live.cluster.psql("alter table logged set unlogged");
    live.back_up_beside(&space);
    live.cluster.psql("insert into emptied table hinted; insert into shrunk table hinted");
    live.cluster.psql("alter table moved set tablespace pg_default");
    live.cluster.psql("drop database copy");
    live.cluster.psql("alter table unlogged set logged; alter table logged set logged");
    live.cluster.psql("update hinted set t = 'x' where n % 1000 = 0");
    live.cluster.psql("vacuum hinted");
    live.cluster.psql("drop tablespace elsewhere");
    live.back_up("incremental", &[]);
    live.restores(&live.made[0].0, &live.made[0].1);
    live.delete(&live.made[0].0);
    live.restores(&live.made[2].0, &live.made[2].1);
    live.restores_beside(&space);
}

impl Live {
    fn back_up_beside(&mut self, space: &Path) {
        let made = self.back_up("incremental", &[]);
        assert!(made["tablespaces"].to_string().contains(space.to_str().unwrap()), "{made}");
    }

    /// Restores the second backup, whose tablespace goes to another place. Unlogged tables are empty then.
    fn restores_beside(&self, space: &Path) {
        let (backup, wanted) = &self.made[1];
        let other = self.scratch.join("elsewhere");
        let mapping = format!("{}={}", space.display(), other.display());
        let args = ["--backup", text(backup, "id"), "--to", "immediate", "--tablespace", &mapping];
        let mut restored = self.product.restore(&self.scratch, &args);
        restored.start_promoted();
        let wanted = wanted.replace(space.to_str().unwrap(), other.to_str().unwrap());
        assert_eq!(logged(&restored.dump()), logged(&wanted));
        restored.stop(StopMode::Fast);
    }
}

/// A dump without the rows of unlogged tables, which recovery empties.
fn logged(dump: &str) -> Vec<&str> {
    let mut unlogged = Vec::new();
    let mut skipping = false;
    let mut lines = Vec::new();
    for line in dump.lines() {
        if let Some(rest) = line.strip_prefix("CREATE UNLOGGED TABLE ") {
            unlogged.extend(rest.split(' ').next());
        }
        if let Some(rest) = line.strip_prefix("COPY ") {
            skipping = rest.split(' ').next().is_some_and(|table| unlogged.contains(&table));
        } else if line == "\\." {
            skipping = false;
        }
        if !skipping {
            lines.push(line);
        }
    }
    lines
}

/// A backup that is not based on the one before says why.
#[track_caller]
fn anew(live: &Live, product: &Product, args: &[&str], why: &str) {
    let output = product.connected(&live.cluster).run(&[&["--json", "backup", "create"], args].concat());
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert_eq!(output.json()["kind"], "full", "{output:#?}");
    assert!(output.stderr.contains(why), "{why}: {output:#?}");
}

#[test]
fn where_the_base_is_doubtful_everything_is_stored() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.psql("create table t as select generate_series(1, 1000) n");
    let product = live.product.clone();
    anew(&live, &product, &[], "this machine remembers no earlier one");
    live.back_up("incremental", &[]);
    anew(&live, &product, &["--full"], "as asked for");
    let last = live.back_up("incremental", &[]);
    anew(&live, &product.but("WALARCHIVE_BACKUP_FULL_EVERY", "0s"), &[], "backup.full_every");
    live.back_up("incremental", &[]);

    // Another recipient, who could not read what was stored before.
    let other = live.scratch.join("other.key");
    product.ok(&["key", "generate", "-o", other.to_str().unwrap()]);
    let recipient = product.ok(&["key", "show", other.to_str().unwrap()]);
    let both = format!("{} {}", variable(&product, "WALARCHIVE_RECIPIENTS"), recipient.trim());
    anew(&live, &product.but("WALARCHIVE_RECIPIENTS", &both), &[], "recipients have changed");
    anew(&live, &product, &[], "recipients have changed");

    // The base is deleted: its packs may be gone.
    let base = live.back_up("incremental", &[]);
    live.delete(&base);
    anew(&live, &product, &[], "is not in the archive any more");

    // A pack is lost.
    let base = live.back_up("full", &["--full"]);
    let pack = product.cluster_dir().join("packs").join(text(&base, "id")).join("00000000");
    fs::rename(&pack, live.scratch.join("lost")).unwrap();
    anew(&live, &product, &[], "is not in the archive any more");

    // The memory of this machine is lost, damaged, or not to be written.
    let state = live.scratch.join("state");
    let elsewhere = product.but("WALARCHIVE_STATE_DIR", state.to_str().unwrap());
    anew(&live, &elsewhere, &[], "this machine remembers no earlier one");
    let remembered = find_file(&state, "last");
    let bytes = fs::read(&remembered).unwrap();
    for at in [3, bytes.len() / 2, bytes.len() - 3] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&remembered, &bytes).unwrap();
        anew(&live, &elsewhere, &[], "this machine remembers no earlier one");
    }
    fs::write(&remembered, &bytes[..bytes.len() - 1]).unwrap();
    anew(&live, &elsewhere, &[], "this machine remembers no earlier one");
    let nowhere = product.but("WALARCHIVE_STATE_DIR", "/proc/nowhere");
    anew(&live, &nowhere, &[], "the next backup will store everything anew");
    assert_eq!(last["kind"], "incremental");
}

fn variable(product: &Product, name: &str) -> String {
    let found = product.env().iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

fn find_file(dir: &Path, name: &str) -> std::path::PathBuf {
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return path;
            }
        }
    }
    panic!("no {name} below {}", dir.display());
}

#[test]
fn a_server_of_another_past_begins_anew() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.psql("create table t as select generate_series(1, 1000) n");
    let first = live.back_up("full", &[]);
    live.cluster.psql("update t set n = n + 1");
    live.back_up("incremental", &[]);
    live.cluster.archive_now();
    live.cluster.stop(StopMode::Fast);
    let kept = live.scratch.join("kept");
    let copied = std::process::Command::new("cp").arg("-a").arg(live.product.state_dir()).arg(&kept).status();
    assert!(copied.is_ok_and(|status| status.success()));

    // Restored to before the last backup: that is not of its past, though it has the same name and place.
    let mut child =
        live.product.restore(&live.scratch, &["--backup", text(&first, "id"), "--to", "immediate"]);
    child.start_promoted();
    child.stop(StopMode::Fast);
    let target = child.data_dir().to_owned();
    let mut child = Cluster::adopt(&live.scratch).option("archive_mode", "on").existing(target).unwrap();
    child.start();
    child.psql("update t set n = n + 7");
    live.cluster = child;
    anew(&live, &live.product.but("WALARCHIVE_BACKUP_WAL_WAIT", "60s"), &[], "was set back");
    let state = live.product.but("WALARCHIVE_STATE_DIR", kept.to_str().unwrap());
    for n in 0..6 {
        live.cluster.psql(&format!("insert into t values ({n})"));
        live.cluster.archive_now();
    }
    anew(&live, &state, &[], "is not of this server's past");
    live.cluster.psql("insert into t values (3)");
    live.back_up("incremental", &[]);
    let (made, wanted) = live.made.last().unwrap();
    live.restores(made, wanted);
}

#[test]
fn hosts_that_only_write_make_increments_too() {
    let Some(live) = Live::new(true) else { return };
    live.cluster.psql("create table t as select generate_series(1, 100000) n");
    let mut writer = live.product.connected(&live.cluster);
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let full = writer.json(&["backup", "create"]);
    live.cluster.psql("update t set n = n + 1 where n = 5000");
    let next = writer.json(&["backup", "create"]);
    assert_eq!((&full["kind"], &next["kind"]), (&Value::from("full"), &Value::from("incremental")));
    live.restores(&next, &live.cluster.dump());
}

#[test]
fn the_next_backup_goes_on_where_one_was_cut_off() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.pgbench_init(3);
    live.cluster.psql("checkpoint");
    live.cluster.psql("alter system set archive_command = 'false'");
    live.cluster.reload();
    let product = live.product.connected(&live.cluster);
    // Its WAL does not arrive.
    let failed = product.but("WALARCHIVE_BACKUP_WAL_WAIT", "1s").run(&["backup", "create"]);
    assert_eq!(failed.code, Some(3), "{failed:#?}");
    assert!(failed.stderr.contains("the next backup goes on with it"), "{failed:#?}");
    // Killed while it waits for it.
    live.cluster.psql("update pgbench_accounts set abalance = 1 where aid = 5");
    let packs = live.product.cluster_dir().join("packs");
    let before = files_below(&packs);
    let mut killed = Background::start(product.command(&["backup", "create"]), live.scratch.join("log"));
    wait_until("the backup has stored its packs", Duration::from_secs(60), || {
        files_below(&packs) > before + 1
    });
    std::thread::sleep(Duration::from_secs(1));
    kill_tree(killed.pid());
    assert!(!killed.wait(Duration::from_secs(10)).success());
    assert_eq!(live.product.json(&["backup", "list"])["backups"].as_array().map(Vec::len), Some(0));

    live.cluster.psql("alter system reset archive_command");
    live.cluster.reload();
    let made = live.back_up("incremental", &[]);
    assert!(number(&made, "stored_bytes") * 20 < number(&made, "data_bytes"), "{made}");
    // It needs what the others have stored, who are no backups.
    let pruned = live.product.but("WALARCHIVE_PRUNE_GRACE", "0s").ok(&["prune", "--yes"]);
    live.restores(&live.made[0].0, &live.made[0].1);
    let next = live.back_up("incremental", &[]);
    live.delete(&made);
    live.restores(&next, &live.made[1].1);
    println!("{pruned}");
}
