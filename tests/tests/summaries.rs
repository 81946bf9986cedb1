//! Increments on servers that summarize their WAL (PostgreSQL 17 and later): unchanged pages are not read, and whatever
//! happened to a relation, each backup restores to what the cluster was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use walarchive_tests::{Background, Cluster, Product, Scratch, StopMode, postgres_major, wait_until};

const SOON: Duration = Duration::from_secs(60);
const NOT_USED: &str = "WAL summaries are not used";

struct Live {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
}

impl Live {
    fn new(checksums: bool) -> Option<Live> {
        if postgres_major() < Some(17) {
            eprintln!("\nSKIPPED: PostgreSQL before version 17 keeps no summaries of its WAL\n");
            return None;
        }
        let scratch = Scratch::new();
        let builder = Cluster::builder(&scratch).wal_segment_mib(1).data_checksums(checksums);
        let cluster = builder.conf("autovacuum = off").conf("summarize_wal = on").start()?;
        let product = Product::new(&scratch);
        cluster.archive_with(&product);
        Some(Live { scratch, cluster, product })
    }

    /// A backup, and what was said beside it.
    #[track_caller]
    fn back_up(&self) -> (Value, String) {
        let output = self.product.connected(&self.cluster).run(&["--json", "backup", "create"]);
        assert_eq!(output.code, Some(0), "{output:#?}");
        (output.json(), output.stderr)
    }

    /// An increment for which summaries were used.
    #[track_caller]
    fn increment(&self) -> Value {
        let (made, said) = self.back_up();
        assert!(made["kind"] == "incremental" && !said.contains(NOT_USED), "{made} {said}");
        made
    }

    /// An increment for which they were not, and why.
    #[track_caller]
    fn increment_without(&self, why: &str) -> Value {
        let (made, said) = self.back_up();
        assert!(
            made["kind"] == "incremental" && said.contains(NOT_USED) && said.contains(why),
            "{made} {said}"
        );
        made
    }

    /// The backup alone is what the cluster is now, and every page in it is sound.
    #[track_caller]
    fn restores(&self, made: &Value, args: &[&str]) -> Cluster {
        let id = made["id"].as_str().unwrap();
        let mut restored =
            self.product.restore(&self.scratch, &[&["--backup", id, "--to", "immediate"], args].concat());
        restored.start_promoted();
        assert!(restored.dump() == self.cluster.dump(), "backup {id} is not what the cluster is");
        restored.stop(StopMode::Fast);
        restored
    }

    fn file_of(&self, table: &str) -> PathBuf {
        self.cluster.data_dir().join(self.cluster.psql(&format!("select pg_relation_filepath('{table}')")))
    }
}

fn number(made: &Value, key: &str) -> u64 {
    made[key].as_u64().unwrap_or_else(|| panic!("no {key} in {made}"))
}

#[test]
fn an_increment_reads_what_has_changed() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.pgbench_init(5);
    live.cluster.psql("vacuum");
    live.cluster.psql("checkpoint");
    // Files that were just written to are read again.
    std::thread::sleep(Duration::from_secs(11));
    let (full, _) = live.back_up();
    let update = "update pgbench_accounts set filler = md5(aid::text) where aid % 6100 = 7";
    live.cluster.psql(update);
    let first = live.increment();
    assert!(number(&first, "read_bytes") * 20 < number(&full, "read_bytes"), "{first}");
    assert!(number(&first, "stored_bytes") * 10 < number(&full, "stored_bytes"), "{first}");
    live.restores(&first, &[]);
    // Nothing but a checkpoint.
    let idle = live.increment();
    assert!(number(&idle, "read_bytes") * 50 < number(&full, "read_bytes"), "{idle}");

    // A file that was put in the place of another may hold what it likes.
    let file = live.file_of("pgbench_accounts");
    live.cluster.stop(StopMode::Fast);
    let (aside, len) = (file.with_extension("aside"), fs::metadata(&file).unwrap().len());
    fs::copy(&file, &aside).unwrap();
    live.scratch.own(&aside);
    fs::rename(&aside, &file).unwrap();
    live.cluster.start();
    live.cluster.psql(update);
    let last = live.increment();
    assert!(number(&last, "read_bytes") >= len, "{last}");
    for other in [&full, &first, &idle] {
        live.product.ok(&["backup", "delete", other["id"].as_str().unwrap(), "--yes"]);
    }
    live.restores(&last, &[]);
}

#[test]
fn what_is_made_anew_or_cut_off_is_read() {
    let Some(live) = Live::new(false) else { return };
    let (space, other) = (live.scratch.dir("space"), live.scratch.join("elsewhere"));
    live.cluster.psql(
        "create table rows as select n, md5(n::text) t from generate_series(1, 30000) n;
         create table emptied as table rows; create table shrunk as table rows; create table moved as table rows;
         create table rewritten as table rows; create index on rewritten (t); create table dropped as table rows;
         create table hinted as table rows; create unlogged table unlogged (n int); create table deleted as table rows",
    );
    // Two databases that differ in their catalogs; the files of those have the same names.
    for name in ["copied", "other"] {
        live.cluster.psql(&format!("create database {name}"));
        let table = format!("create table of_{name} (n int)");
        let made = live.cluster.client_command("psql").args(["-X", "-d", name, "-c", &table]).status();
        assert!(made.is_ok_and(|made| made.success()));
    }
    live.cluster.psql("create database copy oid = 60001 template copied strategy file_copy");
    live.back_up();
    live.cluster.psql(&format!("create tablespace elsewhere location '{}'", space.display()));
    for change in [
        "truncate emptied; insert into emptied select n, 'again' from rows where n < 20000",
        "delete from shrunk where n > 3000",
        "vacuum shrunk",
        "insert into shrunk select n, 'regrown' from rows",
        "alter table moved set tablespace elsewhere",
        "drop database copy",
        "create database copy oid = 60001 template other strategy file_copy",
        "delete from rewritten where n % 3 = 0",
        "vacuum full rewritten",
        "drop table dropped; create table dropped as select * from rows order by n desc",
        "select count(*) from hinted",
        "delete from deleted where n % 2 = 0",
        "vacuum deleted",
    ] {
        live.cluster.psql(change);
    }
    let mapping = format!("{}={}", space.display(), other.display());
    let made = live.increment();
    let id = made["id"].as_str().unwrap();
    let args = ["--backup", id, "--to", "immediate", "--tablespace", &mapping];
    let mut restored = live.product.restore(&live.scratch, &args);
    restored.start_promoted();
    let there = live.cluster.dump().replace(space.to_str().unwrap(), other.to_str().unwrap());
    assert!(restored.dump() == there, "backup {id} is not what the cluster is");
    restored.stop(StopMode::Fast);

    live.cluster.psql("alter table moved set tablespace pg_default");
    for change in
        ["drop database copy", "drop tablespace elsewhere", "create database copied2 template copied"]
    {
        live.cluster.psql(change);
    }
    live.cluster.psql("alter table unlogged set logged; insert into unlogged values (1)");
    live.cluster.psql("insert into deleted select n, 'in the gaps' from rows where n % 2 = 0");
    live.restores(&live.increment(), &[]);
}

fn summaries(cluster: &Cluster) -> Vec<PathBuf> {
    let dir = cluster.data_dir().join("pg_wal/summaries");
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn where_summaries_have_a_gap_everything_is_read() {
    let Some(live) = Live::new(true) else { return };
    live.cluster.psql("create table rows as select n, md5(n::text) t from generate_series(1, 30000) n");
    let update = |n: u32| format!("update rows set t = 'of {n}' where n % 500 = {n}");
    live.back_up();
    live.cluster.psql(&update(1));
    live.cluster.psql("checkpoint");
    let before = summaries(&live.cluster);
    live.cluster.psql(&update(2));
    live.cluster.psql("checkpoint");
    let made = |all: &[PathBuf]| all.iter().find(|path| !before.contains(path)).cloned();
    wait_until("it is summarized", SOON, || made(&summaries(&live.cluster)).is_some());
    fs::remove_file(made(&summaries(&live.cluster)).unwrap()).unwrap();
    live.restores(&live.increment_without("none tells of the WAL at"), &[]);
    live.cluster.psql(&update(3));
    live.restores(&live.increment(), &[]);

    // Meanwhile the server does not summarize.
    live.cluster.psql("alter system set summarize_wal = off");
    live.cluster.reload();
    live.cluster.psql(&update(4));
    let (without, _) = live.back_up();
    live.cluster.psql(&update(5));
    live.cluster.psql("alter system reset summarize_wal");
    live.cluster.reload();
    live.cluster.psql(&update(6));
    live.restores(&live.back_up().0, &[]);
    assert_eq!(without["kind"], "incremental");
}

#[test]
fn pages_that_get_checksums_are_read() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.psql("create table rows as select n, md5(n::text) t from generate_series(1, 30000) n");
    let dir = live.cluster.data_dir().to_str().unwrap().to_owned();
    let switch = |live: &mut Live, how: &str| {
        live.cluster.stop(StopMode::Fast);
        live.cluster.tool("pg_checksums", &[how, "-D", &dir]);
        live.cluster.start();
    };
    switch(&mut live, "--disable");
    live.back_up();
    live.cluster.psql("insert into rows values (0, 'more')");
    live.increment();
    // All of them are written, and the WAL does not know.
    switch(&mut live, "--enable");
    let made = live.increment_without("page checksums were switched");
    let restored = live.restores(&made, &[]);
    let checked = restored.tool("pg_checksums", &["--check", "-D", restored.data_dir().to_str().unwrap()]);
    assert!(checked.contains("Bad checksums:  0"), "{checked}");
}

/// A standby that streams from the cluster.
fn standby(live: &Live, target: &Path) -> Cluster {
    let output = live.product.restore_to(target, &["--standby"]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    let mut standby = Cluster::adopt(&live.scratch).existing(target.to_owned()).unwrap();
    standby.append_conf(&format!("primary_conninfo = '{}'", live.cluster.conninfo()));
    standby.start();
    standby
}

#[test]
fn they_lead_through_a_promotion() {
    let Some(mut live) = Live::new(true) else { return };
    live.cluster.pgbench_init(2);
    live.back_up();
    let standby = standby(&live, &live.scratch.join("standby"));
    let command = live.product.connected(&standby).command(&["backup", "create"]);
    let mut backup = Background::start(command, live.scratch.join("backup.log"));
    wait_until("the standby is backed up", SOON, || {
        live.cluster.psql("select pg_logical_emit_message(true, '', 'more'); select pg_switch_wal()");
        backup.ended().is_some()
    });
    assert!(backup.wait(SOON).success(), "{}", backup.printed());
    live.cluster.psql("update pgbench_accounts set filler = 'before' where aid % 9000 = 1");
    let at = live.cluster.psql("select pg_current_wal_insert_lsn()");
    standby.wait_for("all is replayed", &format!("select pg_last_wal_replay_lsn() >= '{at}'"));
    live.cluster.stop(StopMode::Fast);
    standby.psql("select pg_promote()");
    live.cluster = standby;
    live.cluster.psql("update pgbench_accounts set filler = 'after' where aid % 9000 = 2");
    let made = live.increment();
    assert_eq!(made["timeline"], 2);
    assert!(number(&made, "read_bytes") * 10 < number(&made, "data_bytes"), "{made}");
    live.restores(&made, &["--timeline", "current"]);
}
