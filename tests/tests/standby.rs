//! Backups of a standby, whose WAL its primary archives.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use walarchive_tests::{Background, Cluster, Output, Product, Scratch, StopMode, postgres_major, wait_until};

const SOON: Duration = Duration::from_secs(60);

struct Pair {
    scratch: Scratch,
    primary: Cluster,
    standby: Cluster,
    product: Product,
}

impl Pair {
    /// A primary that archives, and a standby of it that streams; `conf` is the standby's own.
    fn new(conf: &str) -> Option<Pair> {
        let scratch = Scratch::new();
        let builder = Cluster::builder(&scratch).wal_segment_mib(1);
        let primary = builder.conf("autovacuum = off").conf("wal_keep_size = '64MB'").start()?;
        let product = Product::new(&scratch);
        primary.archive_with(&product);
        primary.pgbench_init(2);
        product.back_up(&primary, &["--label", "of=primary"]);
        let target = scratch.join("standby");
        assert_eq!(product.restore_to(&target, &["--standby"]).code, Some(0));
        let mut standby = Cluster::adopt(&scratch).existing(target)?;
        standby.append_conf(&format!("primary_conninfo = '{}'", primary.conninfo()));
        standby.append_conf(conf);
        standby.start();
        let pair = Pair { scratch, primary, standby, product };
        pair.catch_up();
        Some(pair)
    }

    /// Waits until the standby has replayed everything.
    fn catch_up(&self) {
        let at = self.primary.psql("select pg_current_wal_insert_lsn()");
        self.standby.wait_for("all is replayed", &format!("select pg_last_wal_replay_lsn() >= '{at}'"));
    }

    /// Changes something, and has it checkpointed on both.
    fn change(&self, sql: &str) {
        self.primary.psql(sql);
        self.primary.psql("checkpoint");
        self.catch_up();
        self.standby.psql("checkpoint");
    }

    /// A backup of the standby that runs beside the test.
    fn begin(&self, product: &Product, args: &[&str]) -> Background {
        let product = product.connected(&self.standby);
        let command = product.command(&[&["backup", "create"], args].concat());
        Background::start(command, self.scratch.join("backup.log"))
    }

    /// Has the primary complete and archive the segment that it is writing.
    fn switch(&self) {
        self.primary.psql("select pg_logical_emit_message(true, '', 'more'); select pg_switch_wal()");
    }

    /// A backup of the idle standby, whose last segment the primary completes when it is told to.
    fn back_up(&self, args: &[&str]) -> Value {
        let known: Vec<Value> = self.listed().iter().map(|backup| backup["id"].clone()).collect();
        let mut backup = self.begin(&self.product, args);
        wait_until("the backup ends", SOON, || {
            self.switch();
            backup.ended().is_some()
        });
        assert!(backup.wait(SOON).success(), "{}", backup.printed());
        let mut new = self.listed();
        new.retain(|backup| !known.contains(&backup["id"]));
        assert_eq!(new.len(), 1, "{new:?}");
        new.remove(0)
    }

    /// A backup that the test has stopped in the middle, in its own process.
    fn begin_and_hold(&self, standby: &Cluster) -> Background {
        let product = self.product.but("WALARCHIVE_BACKUP_CODEC", "gzip:9").connected(standby);
        let command = product.command(&["backup", "create", "--full", "--jobs", "1"]);
        let backup = Background::start(command, self.scratch.join("held.log"));
        wait_until("the backup is running", SOON, || {
            // It has begun to list what it stores.
            remembered(&self.product.state_dir()).iter().any(|name| name.starts_with("running."))
        });
        std::thread::sleep(Duration::from_millis(300));
        backup.hold();
        backup
    }

    /// It goes on, and must fail with this exit code, and nothing listed; what it said.
    fn fails(&self, mut backup: Background, code: i32) -> String {
        backup.go_on();
        let ended = backup.wait(SOON);
        assert_eq!(ended.code(), Some(code), "{}", backup.printed());
        assert_eq!(self.listed().len(), 1, "{:?}", self.listed());
        backup.printed()
    }

    fn listed(&self) -> Vec<Value> {
        let list = self.product.json(&["backup", "list"]);
        list["backups"].as_array().expect("a list").clone()
    }

    /// A backup alone, up to where it is consistent.
    fn restore(&self, backup: &Value) -> Cluster {
        let id = backup["id"].as_str().expect("an id");
        let mut restored = self.product.restore(&self.scratch, &["--backup", id, "--to", "immediate"]);
        restored.start_promoted();
        restored
    }
}

/// The names of all files below a directory.
fn remembered(dir: &Path) -> Vec<String> {
    let entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap_or_default();
    entries
        .iter()
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => remembered(&path),
            _ => vec![name(entry)],
        })
        .collect()
}

/// What pgbench keeps true of all transactions together.
fn is_balanced(cluster: &Cluster) -> bool {
    let sums = cluster.psql(
        "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
           (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)",
    );
    let sums: Vec<&str> = sums.split('|').collect();
    sums.iter().all(|sum| *sum == sums[0])
}

/// Has PostgreSQL look through all tables and indexes; it can since version 14.
fn is_sound(cluster: &Cluster) {
    if postgres_major() < Some(14) {
        return;
    }
    cluster.psql("create extension amcheck");
    let mut check = cluster.client_command("pg_amcheck");
    let checked = Output::of(&check.args(["--heapallindexed", "postgres"]).output().unwrap());
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), ""), "{checked:#?}");
}

#[test]
fn a_backup_of_a_standby_restores_while_the_primary_works() {
    let Some(pair) = Pair::new("") else { return };
    let mut working = pair.primary.pgbench(600);
    let backup = pair.product.back_up(&pair.standby, &[]);
    assert_eq!((&backup["from_standby"], &backup["timeline"]), (&Value::from(true), &Value::from(1)));
    let shown = pair.product.ok(&["backup", "show", backup["id"].as_str().unwrap()]);
    assert!(shown.contains("from a standby"), "{shown}");
    working.kill();
    let by_primary = pair.listed().remove(0);
    assert_eq!(by_primary["from_standby"], false, "{by_primary}");

    let mut alone = pair.restore(&backup);
    assert!(is_balanced(&alone));
    is_sound(&alone);
    alone.stop(StopMode::Immediate);
    // With the WAL behind it, it becomes what the primary is.
    pair.primary.archive_now();
    let args = ["--backup", backup["id"].as_str().unwrap()];
    let mut latest = pair.product.restore(&pair.scratch, &args);
    latest.start_promoted();
    assert!(latest.dump() == pair.primary.dump(), "the restored cluster is not what the primary is");
}

#[test]
fn the_files_say_how_far_they_must_be_replayed() {
    let Some(pair) = Pair::new("") else { return };
    let mut backup = pair.begin_and_hold(&pair.standby);
    pair.change("update pgbench_accounts set filler = 'later'");
    let written = pair.standby.psql("select min_recovery_end_lsn from pg_control_recovery()");
    backup.go_on();
    wait_until("the backup ends", SOON, || {
        pair.switch();
        backup.ended().is_some()
    });
    assert!(backup.wait(SOON).success(), "{}", backup.printed());
    let mut restored = pair.product.restore(&pair.scratch, &["--to", "immediate"]);
    let needed = restored.control("Minimum recovery ending location");
    assert_eq!(pair.primary.psql(&format!("select '{needed}'::pg_lsn >= '{written}'")), "t");
    restored.start_promoted();
    assert!(restored.dump() == pair.primary.dump(), "the backup alone is not what the primary was");
}

#[test]
fn increments_of_a_standby_and_of_its_primary_mix() {
    let Some(pair) = Pair::new("") else { return };
    let update = |n: u32| format!("update pgbench_accounts set filler = 'of {n}' where aid % 9000 = {n}");
    let small = |backup: &Value| {
        let (stored, data) =
            (backup["stored_bytes"].as_u64().unwrap(), backup["data_bytes"].as_u64().unwrap());
        assert_eq!(backup["kind"], "incremental", "{backup}");
        assert!(stored * 20 < data, "{backup}");
    };
    pair.change(&update(1));
    let first = pair.back_up(&[]);
    let was = pair.primary.dump();
    small(&first);
    // Nothing happens: it begins where the one before began, and earlier than that ended.
    let again = pair.back_up(&[]);
    small(&again);
    assert_eq!(again["base"], first["id"]);
    pair.change(&update(2));
    let by_primary = pair.product.back_up(&pair.primary, &[]);
    small(&by_primary);
    assert_eq!((&by_primary["base"], &by_primary["from_standby"]), (&again["id"], &Value::from(false)));
    pair.change(&update(3));
    pair.primary.psql("vacuum full pgbench_tellers");
    pair.primary.psql("truncate pgbench_history");
    pair.catch_up();
    let last = pair.back_up(&[]);
    small(&last);
    assert_eq!(last["base"], by_primary["id"]);
    for (backup, wanted) in [(&first, &was), (&again, &was), (&last, &pair.primary.dump())] {
        let mut restored = pair.restore(backup);
        assert!(restored.dump() == *wanted, "{backup}");
        restored.stop(StopMode::Immediate);
    }
}

#[test]
fn an_idle_primary_is_waited_for() {
    // Whether the standby itself would archive does not matter.
    let Some(pair) = Pair::new("archive_mode = off") else { return };
    let mut backup = pair.begin(&pair.product, &[]);
    wait_until("the backup says what it waits for", SOON, || backup.printed().contains("pg_switch_wal()"));
    assert!(backup.ended().is_none() && pair.listed().len() == 1, "{}", backup.printed());
    pair.switch();
    assert!(backup.wait(SOON).success(), "{}", backup.printed());
    pair.restore(&pair.listed()[1]);
}

#[test]
fn wal_that_never_arrives_is_told() {
    let Some(pair) = Pair::new("") else { return };
    pair.primary.psql("alter system set archive_command = 'false'");
    pair.primary.reload();
    pair.switch();
    let product = pair.product.but("WALARCHIVE_BACKUP_WAL_WAIT", "2s");
    let said = pair.fails(pair.begin(&product, &[]), 3);
    assert!(
        said.contains("is not in this archive after 2 s") && said.contains("the primary's archive_command"),
        "{said}"
    );
}

#[test]
fn wal_that_is_not_the_standbys_is_refused() {
    let Some(pair) = Pair::new("") else { return };
    pair.primary.psql("alter system set archive_command = 'false'");
    pair.primary.reload();
    let backup = pair.begin(&pair.product, &[]);
    wait_until("the backup waits", SOON, || backup.printed().contains("pg_switch_wal()"));
    // The segment that it waits for, and from the standby's beginning on, of somebody who differs in the last byte.
    pair.switch();
    let stored = pair.product.json(&["wal", "list"])["timelines"][0]["last"].as_str().unwrap().to_owned();
    let forged = pair.scratch.dir("forged");
    let mut files: Vec<_> =
        fs::read_dir(pair.primary.data_dir().join("pg_wal")).unwrap().map(|file| file.unwrap()).collect();
    files.retain(|file| {
        let name = file.file_name().into_string().unwrap();
        name.len() == 24 && name > stored
    });
    for file in files {
        let mut bytes = fs::read(file.path()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let path = forged.join(file.file_name());
        fs::write(&path, bytes).unwrap();
        pair.scratch.own(&path);
        // Segments that are not begun yet are refused.
        pair.product.run(&["wal", "push", path.to_str().unwrap()]);
    }
    let said = pair.fails(backup, 3);
    assert!(said.contains("that is not this server's"), "{said}");
}

#[test]
fn a_promotion_in_the_middle_is_no_backup() {
    let Some(pair) = Pair::new("") else { return };
    let backup = pair.begin_and_hold(&pair.standby);
    pair.standby.psql("select pg_promote()");
    let said = pair.fails(backup, 3);
    assert!(said.contains("the standby was promoted during online backup"), "{said}");
    assert!(said.contains("Try taking another online backup"), "{said}");
}

#[test]
fn a_promotion_of_its_primary_in_the_middle_is_no_backup() {
    let Some(pair) = Pair::new("") else { return };
    let target = pair.scratch.join("second");
    assert_eq!(pair.product.restore_to(&target, &["--standby"]).code, Some(0));
    let mut second = Cluster::adopt(&pair.scratch).existing(target).unwrap();
    second.append_conf(&format!("primary_conninfo = '{}'", pair.standby.conninfo()));
    second.start();
    let backup = pair.begin_and_hold(&second);
    pair.standby.psql("select pg_promote()");
    pair.standby.psql("insert into pgbench_history values (1, 1, 1, 1); checkpoint");
    second.wait_for("it follows", "select count(*) = 1 from pgbench_history");
    second.psql("checkpoint");
    let said = pair.fails(backup, 3);
    assert!(said.contains("the standby went on to timeline 2"), "{said}");
}

#[test]
fn wal_without_full_pages_is_refused() {
    let Some(pair) = Pair::new("") else { return };
    pair.primary.psql("alter system set full_page_writes = off");
    pair.primary.reload();
    pair.change("update pgbench_tellers set filler = 'torn'");
    let said = pair.fails(pair.begin(&pair.product, &[]), 3);
    assert!(
        said.contains("WAL generated with \"full_page_writes=off\"") || said.contains("full_page_writes=off"),
        "{said}"
    );
    assert!(said.contains("CHECKPOINT on the "), "{said}");
}
