//! Rehearsals of restores on real servers: what they prove, what they find, and that they leave nothing behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use walarchive_tests::{
    Background, Cluster, Moments, Options, Output, Product, Scratch, StopMode, kills, postgres_major,
    tree_of, wait_until,
};

struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
    /// Where drills work; nothing is left in it.
    work: std::path::PathBuf,
}

impl Live {
    /// A cluster with a backup and WAL behind it. `None`, after a loud note, when PostgreSQL is not installed.
    fn begin() -> Option<Live> {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("autovacuum = off").start()?;
        cluster.archive_with(&product);
        cluster.psql("create table t as select generate_series(1, 20000) as n; create index on t (n)");
        cluster.psql("create database shop");
        let work = scratch.dir("work");
        product.set("WALARCHIVE_DRILL_SCRATCH_DIR", &work.display().to_string());
        product.set("WALARCHIVE_STORE_RETRY_BUDGET", "2s");
        product.set("WALARCHIVE_RETRY_BUDGET", "2s");
        product.back_up(&cluster, &[]);
        cluster.psql("insert into t select generate_series(20001, 30000)");
        cluster.archive_now();
        Some(Live { scratch, product, cluster, work })
    }

    fn drill(&self, args: &[&str]) -> Output {
        let output = self.product.run(&[&["--json", "drill"], args].concat());
        self.leaves_nothing();
        output
    }

    /// No directory and no server.
    fn leaves_nothing(&self) {
        let left: Vec<_> = fs::read_dir(&self.work).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(servers_in(&self.work), Vec::<u32>::new());
    }

    fn sql(&self, name: &str, text: &str) -> String {
        self.scratch.write(name, text).display().to_string()
    }

    /// The newest object below the cluster's directory that is called so.
    fn objects(&self, below: &str) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        files(&self.product.cluster_dir().join(below), &mut found);
        found.sort();
        found
    }
}

fn files(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), into);
        } else {
            into.push(entry.path());
        }
    }
}

/// Processes that work in a directory below this one.
fn servers_in(dir: &Path) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let works = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    pids.filter(works).collect()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    checks.iter().find(|check| check["name"].as_str().unwrap().starts_with(name)).unwrap_or(&Value::Null)
}

/// What the check of tables and indexes is called: pg_amcheck came with version 14.
fn amcheck() -> &'static str {
    if postgres_major() >= Some(14) { "pg_amcheck" } else { "amcheck" }
}

/// Changes bytes in the middle of a stored object.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_archive_comes_back_and_the_report_is_kept() {
    let Some(live) = Live::begin() else { return };
    live.cluster.psql("create table last as select 1");
    live.cluster.archive_now();
    let counted = live.sql("counted.sql", "do $$ begin if (select count(*) from t) <> 30000 then raise 'rows are missing'; end if; end $$; select count(*) from last;");
    let done = live.drill(&["--sql", &counted]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = done.json();
    assert_eq!(
        (&report["ok"], &report["target"], &report["timeline"]),
        (&true.into(), &"latest".into(), &1.into())
    );
    let latest = &live.product.json(&["backup", "list"])["backups"][0];
    assert_eq!(report["backup"], latest["id"]);
    for name in [
        "restore",
        "recovery",
        "system identifier",
        "timeline",
        "reached position",
        amcheck(),
        "pg_dump \"postgres\"",
        "pg_dump \"shop\"",
        "sql",
    ] {
        assert_eq!(check(&report, name)["ok"], true, "{name}: {report:#}");
    }
    assert_eq!(check(&report, "number of databases")["detail"], "4");
    assert!(report["recovery_point_age_seconds"].as_u64().unwrap() < 120, "{report:#}");
    assert!(report["reached_time"].as_str().unwrap() > latest["finished_at"].as_str().unwrap(), "{report:#}");
    println!("a drill of a small cluster took {} ms: {}", report["duration_ms"], report["checks"]);

    let status = live.product.json(&["status"]);
    assert_eq!(
        (&status["drill"]["ok"], &status["drill"]["report"]),
        (&true.into(), &report["report"]),
        "{status:#}"
    );
    assert_eq!(status["problems"], json!([]));
    let told = live.product.ok(&["status"]);
    assert!(told.contains("last drill") && told.contains(": ok"), "{told}");
    let mut blind = live.product.clone();
    blind.unset("WALARCHIVE_IDENTITY_FILE");
    assert!(blind.ok(&["status"]).contains("unknown (an identity reads it)"));
    assert_eq!(blind.json(&["status"])["drill"]["ok"], Value::Null);

    // The archive was not written to by the copy: its timeline is nobody's.
    assert_eq!(live.product.json(&["wal", "list"])["timelines"].as_array().unwrap().len(), 1);
    let stored = live.objects("reports");
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].file_name().unwrap().to_str(), report["report"].as_str());
}

#[test]
fn damage_is_found_named_and_told_by_status() {
    let Some(live) = Live::begin() else { return };
    let segments: Vec<_> =
        live.objects("wal").into_iter().filter(|path| path.file_name().unwrap().len() == 24).collect();
    let last = segments.last().unwrap();
    let sound = fs::read(last).unwrap();
    damage(last);
    let done = live.drill(&[]);
    assert_eq!(done.code, Some(4), "{done:#?}");
    let report = done.json();
    let name = last.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        (&report["ok"], &check(&report, "recovery")["ok"]),
        (&false.into(), &false.into()),
        "{report:#}"
    );
    assert!(check(&report, "recovery")["detail"].as_str().unwrap().contains(name), "{report:#}");
    let status = live.product.json(&["status"]);
    assert_eq!(status["drill"]["ok"], false, "{status:#}");
    assert!(status["problems"].to_string().contains("last drill"), "{status:#}");

    fs::write(last, &sound).unwrap();
    fs::remove_file(&segments[segments.len() - 2]).unwrap();
    let gap = live.drill(&[]);
    assert_eq!(gap.code, Some(4), "{gap:#?}");
    let missing = segments[segments.len() - 2].file_name().unwrap().to_str().unwrap();
    assert!(check(&gap.json(), "plan")["detail"].as_str().unwrap().contains(missing), "{gap:#?}");
}

#[test]
fn a_damaged_pack_or_manifest_fails_the_drill() {
    let Some(live) = Live::begin() else { return };
    let pack = live.objects("packs").pop().unwrap();
    let sound = fs::read(&pack).unwrap();
    damage(&pack);
    let done = live.drill(&[]);
    assert_eq!((done.code, &check(&done.json(), "restore")["ok"]), (Some(4), &false.into()), "{done:#?}");
    fs::write(&pack, sound).unwrap();
    assert_eq!(live.drill(&["--backup", "random", "--to", "immediate"]).code, Some(0));
    // The newest is not passed over for an older one that is sound.
    live.product.back_up(&live.cluster, &[]);
    let manifests: Vec<_> =
        live.objects("backups").into_iter().filter(|path| path.ends_with("manifest")).collect();
    damage(manifests.last().unwrap());
    let done = live.drill(&[]);
    assert_eq!((done.code, &check(&done.json(), "plan")["ok"]), (Some(4), &false.into()), "{done:#?}");
}

#[test]
fn sql_that_fails_fails_the_drill_and_wrong_usage_starts_nothing() {
    let Some(live) = Live::begin() else { return };
    let wrong = live.sql("wrong.sql", "select 1; do $$ begin raise 'not what we sold'; end $$;");
    let done = live.drill(&["--sql", &wrong]);
    assert_eq!(done.code, Some(4), "{done:#?}");
    assert!(check(&done.json(), "sql")["detail"].as_str().unwrap().contains("not what we sold"), "{done:#?}");
    assert_eq!(live.drill(&["--sql", "/nowhere.sql"]).code, Some(2));
    assert_eq!(live.drill(&["--role", "nobody_here"]).code, Some(2));
    assert_eq!(live.drill(&["--backup", "20200101T000000Z-00000000"]).code, Some(1));
    let unreachable = live
        .product
        .but("WALARCHIVE_ARCHIVE", "s3://b/p?endpoint=http://127.0.0.1:9&allow_http=true&region=x");
    let unreachable = unreachable.but("AWS_ACCESS_KEY_ID", "x").but("AWS_SECRET_ACCESS_KEY", "x");
    assert_eq!(unreachable.run(&["drill"]).code, Some(5));
    assert_eq!(
        live.objects("reports").len(),
        1,
        "errors that say nothing about the archive are not reported"
    );
}

#[test]
fn a_library_that_is_missing_is_this_machines_lack() {
    let Some(live) = Live::begin() else { return };
    live.cluster.psql("alter system set shared_preload_libraries = 'not_installed_here'");
    live.product.back_up(&live.cluster, &["--full"]);
    let done = live.drill(&["--to", "immediate"]);
    assert_eq!(done.code, Some(6), "{done:#?}");
    assert!(done.stderr.contains("\"not_installed_here\""), "{done:#?}");
}

#[test]
fn damage_in_tables_that_were_backed_up_so_is_found() {
    let scratch = Scratch::new();
    let mut product = Product::new(&scratch);
    let builder = Cluster::builder(&scratch).data_checksums(false).wal_segment_mib(1);
    let Some(mut cluster) = builder.start() else { return };
    cluster.archive_with(&product);
    cluster
        .psql("create table t as select generate_series(1, 50000) as n; create index i on t (n); checkpoint");
    let file = cluster.data_dir().join(cluster.psql("select pg_relation_filepath('i')"));
    cluster.stop(StopMode::Fast);
    // Two index pages change places: each is sound, the order is not.
    let mut bytes = fs::read(&file).unwrap();
    let (left, right) = (bytes[8192..16384].to_vec(), bytes[16384..24576].to_vec());
    bytes[8192..16384].copy_from_slice(&right);
    bytes[16384..24576].copy_from_slice(&left);
    fs::write(&file, bytes).unwrap();
    cluster.start();
    product.back_up(&cluster, &[]);
    product.set("WALARCHIVE_DRILL_SCRATCH_DIR", &scratch.dir("work").display().to_string());
    let done = product.run(&["--json", "drill"]);
    assert_eq!(done.code, Some(4), "{done:#?}");
    let report = done.json();
    assert_eq!(check(&report, amcheck())["ok"], false, "{report:#}");
    assert_eq!(check(&report, "restore")["ok"], true, "the archive has it as it was: {report:#}");
}

#[test]
fn targets_timelines_and_tablespaces_are_rehearsed_too() {
    let Some(live) = Live::begin() else { return };
    let space = live.scratch.dir("space");
    live.cluster.psql(&format!("create tablespace s location '{}'", space.display()));
    live.cluster.psql("create table in_space tablespace s as select 1 as n");
    live.product.back_up(&live.cluster, &[]);
    let at = live.cluster.psql("select pg_create_restore_point('here')");
    live.cluster.psql("drop table in_space");
    live.cluster.archive_now();
    let there = live.sql("there.sql", "select n from in_space");
    let done = live.drill(&["--to", "name:here", "--sql", &there]);
    assert_eq!((done.code, &done.json()["reached_lsn"]), (Some(0), &at.into()), "{done:#?}");
    let gone = live.drill(&["--sql", &there]);
    assert_eq!(gone.code, Some(4), "at the end of the WAL it is dropped: {gone:#?}");
    // An abandoned past is nothing that was promised.
    let early = live.drill(&["--to", "2020-01-01T00:00:00Z"]);
    assert_eq!(early.code, Some(3), "{early:#?}");
}

#[test]
fn what_is_kept_stays_and_keeps_to_itself() {
    let Some(live) = Live::begin() else { return };
    let done = live.product.run(&["--json", "drill", "--keep"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(servers_in(&live.work), Vec::<u32>::new());
    let kept = fs::read_dir(&live.work).unwrap().next().unwrap().unwrap().path();
    let mut copy = Cluster::adopt(&live.scratch).option("port", "5432").existing(kept.join("data")).unwrap();
    copy.start_promoted();
    assert_eq!(copy.psql("select count(*) from t"), "30000");
    assert_eq!(copy.psql("show archive_mode"), "off");
}

#[test]
fn a_drill_that_is_told_to_stop_leaves_nothing() {
    let Some(live) = Live::begin() else { return };
    let begun = Instant::now();
    assert_eq!(live.drill(&[]).code, Some(0));
    let times = kills(8);
    let (mut moments, mut hits) = (Moments::new(begun.elapsed(), times), 0);
    for n in 0..times {
        let signal = if n % 2 == 0 { "TERM" } else { "INT" };
        let after = moments.wait();
        let mut running = Background::start(live.product.command(&["drill"]), live.scratch.join("log"));
        let begun = Instant::now();
        while begun.elapsed() < after && running.ended().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let is_hit = running.ended().is_none();
        moments.was_hit(is_hit);
        if is_hit {
            std::process::Command::new("kill")
                .args([&format!("-{signal}"), &running.pid().to_string()])
                .status()
                .unwrap();
        }
        let started = tree_of(running.pid());
        let status = running.wait(Duration::from_secs(60));
        hits += u32::from(is_hit && matches!(status.code(), Some(130 | 143)));
        wait_until("all that it started is gone", Duration::from_secs(10), || {
            started.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists())
        });
        live.leaves_nothing();
    }
    assert!(hits > times / 4, "only {hits} of {times} were told to stop in time");
}

/// The one directory in which a drill works.
fn room_in(work: &Path) -> std::path::PathBuf {
    fs::read_dir(work).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn what_a_killed_drill_has_left_is_removed_by_the_next_one_and_nothing_else() {
    let Some(live) = Live::begin() else { return };
    let start = || Background::start(live.product.command(&["drill"]), live.scratch.join("log"));
    let serves =
        || wait_until("its server runs", Duration::from_secs(60), || !servers_in(&live.work).is_empty());
    let mut killed = start();
    serves();
    let left = room_in(&live.work);
    // The drill alone, as the system kills it when memory is short.
    std::process::Command::new("kill").args(["-KILL", &killed.pid().to_string()]).status().unwrap();
    assert_eq!(killed.wait(Duration::from_secs(60)).code(), None);
    assert!(left.exists() && !servers_in(&live.work).is_empty());
    let next = live.drill(&[]);
    assert_eq!(next.code, Some(0), "{next:#?}");
    assert!(next.stderr.contains(left.to_str().unwrap()), "it is told: {next:#?}");

    // What another drill works in, what was kept, and what looks like it, are left alone.
    let mut other = start();
    serves();
    other.hold();
    let held = room_in(&live.work);
    let mine = live.work.join("walarchive-drill-mine");
    fs::create_dir(&mine).unwrap();
    live.scratch.own(&mine);
    assert_eq!(live.product.run(&["drill", "--keep"]).code, Some(0));
    let there = |work: &Path| fs::read_dir(work).unwrap().count();
    assert_eq!(there(&live.work), 3);
    assert_eq!(live.product.run(&["drill"]).code, Some(0));
    assert!(there(&live.work) == 3 && held.exists() && mine.exists());
    other.go_on();
    assert_eq!(other.wait(Duration::from_secs(60)).code(), Some(0), "{}", other.printed());
    assert!(there(&live.work) == 2 && !held.exists());
}

#[test]
fn a_reader_drills_and_old_reports_go() {
    let Some(live) = Live::begin() else { return };
    let reports = live.product.cluster_dir().join("reports");
    assert_eq!(live.drill(&["--to", "immediate"]).code, Some(0));
    let sound = live.objects("reports").pop().unwrap();
    // Older ones, as far as their names go.
    for n in 0..105 {
        fs::copy(&sound, reports.join(format!("20200101T000000Z-{n:08x}"))).unwrap();
    }
    live.scratch.own(&reports);
    assert_eq!(live.product.json(&["prune"])["reports"], 6);
    assert_eq!(live.product.json(&["prune", "--yes"])["reports"], 6);
    assert_eq!(live.objects("reports").len(), 100);
    assert!(sound.exists());
    assert_eq!(live.product.json(&["status"])["drill"]["ok"], true);

    // A place that a directory cannot be made in stands for a credential that cannot write.
    fs::remove_dir_all(&reports).unwrap();
    fs::write(&reports, "").unwrap();
    let done = live.drill(&["--to", "immediate"]);
    assert_eq!((done.code, &done.json()["report"]), (Some(0), &Value::Null), "{done:#?}");
    assert!(done.stderr.contains("was not stored"), "{done:#?}");
}

#[test]
fn dumps_are_rehearsed_in_a_server_of_their_own() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).start() else { return };
    let space = scratch.dir("space");
    cluster.psql("create role app; create role \"odd; name\"");
    cluster.psql(&format!("create tablespace s location '{}'", space.display()));
    cluster.psql("create table t as select generate_series(1, 1000) as n; alter table t owner to app; grant select on t to \"odd; name\"");
    cluster.psql("create table elsewhere tablespace s as select 1 as n");
    for format in ["custom", "plain"] {
        let mut product = Product::with(&scratch, Options::default());
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        let work = scratch.dir(format!("work-{format}"));
        product.set("WALARCHIVE_DRILL_SCRATCH_DIR", &work.display().to_string());
        product.ok(&["dump", "create", "--format", format]);
        let counted = scratch
            .write("counted.sql", "select 1 / (count(*) - 999)::int from t; set role app; select n from t");
        let args = [
            "--json",
            "drill",
            "--dump",
            "latest",
            "--database",
            "postgres",
            "--sql",
            counted.to_str().unwrap(),
        ];
        let done = product.run(&args);
        assert_eq!(done.code, Some(0), "{format}: {done:#?}");
        let report = done.json();
        let latest = &product.json(&["dump", "list"])["dumps"];
        let of_postgres =
            latest.as_array().unwrap().iter().find(|dump| dump["database"] == "postgres").unwrap();
        assert_eq!((&report["dump"], &report["database"]), (&of_postgres["id"], &"postgres".into()));
        assert!(fs::read_dir(&work).unwrap().next().is_none());
        assert_eq!(product.json(&["status"])["drill"]["ok"], true);

        let mut packs = Vec::new();
        files(&product.archive_dir().join("main/dumps/packs"), &mut packs);
        packs.iter().for_each(|pack| damage(pack));
        let done = product.run(&args);
        assert_eq!(done.code, Some(4), "{format}: {done:#?}");
        assert!(fs::read_dir(&work).unwrap().next().is_none());
    }
}

#[test]
fn globals_are_rehearsed_away_from_the_original_s_tablespaces() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).start() else { return };
    let (space, work) = (scratch.dir("space"), scratch.dir("work"));
    cluster.psql("create role app login password 'secret' connection limit 7; create role \"odd; name\"; grant app to \"odd; name\"");
    cluster.psql(&format!("create tablespace s owner app location '{}'", space.display()));
    let mut product = Product::new(&scratch);
    product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
    product.set("WALARCHIVE_DRILL_SCRATCH_DIR", work.to_str().unwrap());
    product.ok(&["dump", "create"]);
    let before = fs::read_dir(&space).unwrap().count();
    let asks = "select 1 / count(*) from pg_roles where rolname = 'app' and rolconnlimit = 7; \
                select 1 / count(*) from pg_auth_members where member = '\"odd; name\"'::regrole; \
                select 1 / count(*) from pg_tablespace where spcname = 's' and spcowner = 'app'::regrole;";
    let asks = scratch.write("asks.sql", asks);
    let drill = |product: &Product| {
        product.run(&[
            "--json",
            "drill",
            "--dump",
            "latest",
            "--database",
            "globals",
            "--sql",
            asks.to_str().unwrap(),
        ])
    };
    let done = drill(&product);
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = done.json();
    assert_eq!((&report["database"], &check(&report, "sql")["ok"]), (&"globals".into(), &true.into()));
    assert_eq!(fs::read_dir(&space).unwrap().count(), before, "the original's directory was used");
    assert!(fs::read_dir(&work).unwrap().next().is_none());

    let mut packs = Vec::new();
    files(&product.archive_dir().join("main/dumps/packs"), &mut packs);
    packs.iter().for_each(|pack| damage(pack));
    assert_eq!(drill(&product).code, Some(4));
    assert!(fs::read_dir(&work).unwrap().next().is_none());
}
