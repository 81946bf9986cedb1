//! Pages: damaged ones are told and kept, and a busy server's are not taken for damaged.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use walarchive_tests::{Background, Cluster, Output, Product, Scratch, StopMode, find, wait_until};

const PAGE: u64 = 8192;

#[test]
fn a_damaged_page_is_named_and_comes_back_as_it_was() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create table damaged as select n, repeat('x', 100) as t from generate_series(1, 1000) n");
    let file = cluster.psql("select pg_relation_filepath('damaged')");
    let whole = product.back_up(&cluster, &[]);
    assert_eq!(whole["damaged_pages"], 0);

    cluster.stop(StopMode::Fast);
    let (path, block) = (cluster.data_dir().join(&file), 2);
    let handle = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let at = block * PAGE + 5000;
    let mut bytes = [0; 4];
    handle.read_exact_at(&mut bytes, at).unwrap();
    handle.write_all_at(&bytes.map(|byte| byte ^ 0x5a), at).unwrap();
    drop(handle);
    let damaged = fs::read(&path).unwrap();
    cluster.start();

    let output = product.connected(&cluster).run(&["--json", "backup", "create"]);
    assert_eq!(output.code, Some(4), "{output:#?}");
    let document = output.json();
    assert_eq!(document["damaged"], json!([{ "file": file, "block": block }]), "{document:#}");
    assert_eq!(document["damaged_pages"], 1);
    let said =
        output.stderr.lines().any(|line| line.contains(&file) && line.contains(&format!("block {block}")));
    assert!(said, "{output:#?}");

    // It is kept, since it may be the best there is, and it says what it is.
    let listed = product.json(&["backup", "list"])["backups"].clone();
    let pages: Vec<_> =
        listed.as_array().unwrap().iter().map(|b| b["damaged_pages"].as_u64().unwrap()).collect();
    assert_eq!(pages, [0, 1]);
    assert_eq!(listed[1]["id"], document["id"]);
    let text = product.ok(&["backup", "show", document["id"].as_str().unwrap()]);
    assert!(text.contains("damaged"), "{text}");

    let mut restored = product.restore(&scratch, &["--to", "immediate"]);
    assert_eq!(fs::read(restored.data_dir().join(&file)).unwrap(), damaged);
    let plan = product.ok(&["restore", "--target-dir", "/nowhere", "--dry-run"]);
    assert!(plan.contains("checksum"), "{plan}");
    restored.start_promoted();
    let error = restored.try_psql("select count(*) from damaged").unwrap_err();
    assert!(error.contains("invalid page"), "{error}");
    // The older backup has the page whole.
    let id = whole["id"].as_str().unwrap();
    let mut older = product.restore(&scratch, &["--backup", id, "--to", "immediate"]);
    older.start_promoted();
    assert_eq!(older.psql("select count(*) from damaged"), "1000");
}

/// SQL, a statement a line, run over and over as fast as it goes.
fn churn(cluster: &Cluster, scratch: &Scratch, name: &str, sql: &str) -> Background {
    let script = scratch.write(format!("{name}.sql"), sql);
    let mut command: Command = cluster.client_command("pgbench");
    command.args(["-n", "-c", "1", "-T", "600", "-f"]).arg(&script).arg("postgres");
    Background::start(command, scratch.join(format!("{name}.log")))
}

const DDL: &str = "create table churn as select n, md5(n::text) as t from generate_series(1, 20000) n;
create index on churn (n);
update churn set t = 'y' where n % 3 = 0;
truncate churn;
insert into churn select n, md5(n::text) from generate_series(1, 5000) n;
vacuum full churn;
drop table churn;
";
const REWRITES: &str = "update kept set t = md5(t) where n % 7 = 0;
vacuum full kept;
vacuum (truncate) kept;
reindex table kept;
delete from kept where n > 9000;
vacuum kept;
insert into kept select n, md5(n::text) from generate_series(9001, 10000) n;
checkpoint;
";

#[test]
fn a_busy_servers_pages_are_not_taken_for_damaged() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(&scratch).conf("full_page_writes = on").conf("shared_buffers = '1MB'");
    let Some(mut cluster) = builder.start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create table kept as select n, md5(n::text) as t from generate_series(1, 10000) n");
    cluster.pgbench_init(3);
    let mut loads = vec![
        churn(&cluster, &scratch, "ddl", DDL),
        churn(&cluster, &scratch, "rewrites", REWRITES),
        cluster.pgbench(600),
    ];
    wait_until("the load has begun", Duration::from_secs(60), || {
        cluster.psql("select count(*) > 20 from pgbench_history") == "t"
    });
    for _ in 0..3 {
        let output = product.connected(&cluster).run(&["--json", "backup", "create", "--jobs", "2"]);
        assert_eq!(output.code, Some(0), "{output:#?}");
        assert_eq!(output.json()["damaged_pages"], 0);
    }
    for load in &mut loads {
        assert!(load.ended().is_none(), "a load ended early: {}", load.printed());
        load.kill();
    }
    let sums = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), \
                (select sum(delta) from pgbench_history), (select count(*) from pgbench_history), \
                (select count(*) from kept)";
    // Killed clients leave transactions that the server has yet to end.
    cluster.wait_for(
        "the loads' sessions are gone",
        "select count(*) = 1 from pg_stat_activity where backend_type = 'client backend'",
    );
    let expected = cluster.psql(sums);
    cluster.archive_now();
    cluster.stop(StopMode::Fast);
    let oldest = product.json(&["backup", "list"])["backups"][0]["id"].as_str().unwrap().to_owned();
    for backup in ["latest", &oldest] {
        let mut restored = product.restore(&scratch, &["--backup", backup, "--jobs", "2"]);
        restored.start_promoted();
        assert_eq!(restored.psql(sums), expected);
        let mut check = restored.client_command("pg_amcheck");
        restored.psql("create extension amcheck");
        let checked = Output::of(&check.args(["--heapallindexed", "postgres"]).output().unwrap());
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), ""), "{checked:#?}");
        restored.stop(StopMode::Fast);
        let dir: PathBuf = restored.data_dir().to_owned();
        assert!(find("pg_checksums").is_some());
        let sums = restored.tool("pg_checksums", &["--check", "-D", dir.to_str().unwrap()]);
        assert!(sums.contains("Bad checksums:  0"), "{sums}");
    }
}
