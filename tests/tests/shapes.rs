//! Clusters of unusual shape come back as they were.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walarchive_tests::{
    Background, Cluster, Options, Product, Scratch, StopMode, sample, verify_backup, wait_until,
};

/// Sums up a table whose rows are `n` and `t`.
fn sums(table: &str) -> String {
    format!("select count(*), sum(n), sum(hashtext(t)::bigint) from {table}")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn tablespaces_come_back_where_they_were_or_elsewhere() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    let one = scratch.dir("räum eins");
    let two = scratch.dir("two=2");
    cluster.psql(&format!("create tablespace one location '{}'", one.display()));
    cluster.psql(&format!("create tablespace two location '{}'", two.display()));
    for space in ["one", "two"] {
        cluster.psql(&format!(
            "create table in_{space} tablespace {space} as \
             select n, md5(n::text) as t from generate_series(1, 5000) n"
        ));
    }
    cluster.psql("create unlogged table unlogged tablespace one as select 1 as n");
    let backup = product.back_up(&cluster, &[]);
    assert_eq!(backup["tablespaces"].as_array().unwrap().len(), 2, "{backup:#}");
    cluster.psql("insert into in_one values (0, 'later')");
    cluster.archive_now();
    let expected = [cluster.psql(&sums("in_one")), cluster.psql(&sums("in_two"))];

    // The originals are in use: nothing is written, neither there nor to the target.
    let target = scratch.join("refused");
    let refused = product.restore_to(&target, &[]);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    assert!(refused.stderr.contains(text(&one)) && !target.exists(), "{refused:#?}");
    let (elsewhere, there) = (scratch.join("else where ß"), scratch.join("there"));
    let move_one = format!("{}={}", text(&one), elsewhere.display());
    let move_two = format!("{}={}", text(&two).replace('=', r"\="), there.display());
    let half = product.restore_to(&target, &["--tablespace", &move_one]);
    assert_eq!(half.code, Some(3), "{half:#?}");
    assert!(half.stderr.contains(text(&two)) && !target.exists() && !elsewhere.exists(), "{half:#?}");
    for wrong in [
        format!("/no/such={}", there.display()),
        format!("{}={}/x", text(&one), target.display()),
        "relative=/x".to_owned(),
    ] {
        let output = product.restore_to(&target, &["--tablespace", &wrong, "--tablespace", &move_two]);
        assert!(matches!(output.code, Some(2 | 3)), "{wrong}: {output:#?}");
        assert!(!target.exists() && !there.exists(), "{wrong}");
    }
    assert_eq!(cluster.psql(&sums("in_two")), expected[1]);

    let mut restored = product.restore(&scratch, &["--tablespace", &move_one, "--tablespace", &move_two]);
    assert_eq!(links(restored.data_dir()), [elsewhere.clone(), there.clone()]);
    restored.start_promoted();
    let data = |cluster: &Cluster| [cluster.psql(&sums("in_one")), cluster.psql(&sums("in_two"))];
    assert_eq!(data(&restored), expected);
    assert_eq!(restored.psql("select count(*) from unlogged"), "0");
    let locations = "select string_agg(pg_tablespace_location(oid), ':' order by spcname) from pg_tablespace \
                     where spcname in ('one', 'two')";
    assert_eq!(restored.psql(locations), format!("{}:{}", elsewhere.display(), there.display()));
    restored.stop(StopMode::Fast);
    assert_eq!(data(&cluster), expected, "the original was touched");

    // The original is lost: its tablespaces go where they were, into directories that are there or not.
    cluster.stop(StopMode::Immediate);
    fs::remove_dir_all(&one).unwrap();
    fs::remove_dir_all(&two).unwrap();
    scratch.dir("two=2");
    let mut restored = product.restore(&scratch, &[]);
    assert_eq!(links(restored.data_dir()), [one, two]);
    restored.start_promoted();
    assert_eq!(data(&restored), expected);
}

/// Where the links in pg_tblspc point to, in the order of their names.
fn links(data_dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(data_dir.join("pg_tblspc")).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.iter().map(|link| fs::read_link(link).unwrap()).collect()
}

#[test]
fn pg_wal_may_be_elsewhere() {
    let scratch = Scratch::new();
    let wal = scratch.join("wal elsewhere");
    let builder =
        Cluster::builder(&scratch).wal_segment_mib(1).initdb_arg(format!("--waldir={}", wal.display()));
    let Some(cluster) = builder.start() else { return };
    assert!(cluster.data_dir().join("pg_wal").is_symlink());
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create table t as select n, md5(n::text) as t from generate_series(1, 5000) n");
    product.back_up(&cluster, &[]);
    cluster.psql("delete from t where n > 4000");
    cluster.archive_now();
    let mut restored = product.restore(&scratch, &[]);
    let pg_wal = restored.data_dir().join("pg_wal");
    assert!(pg_wal.is_dir() && !pg_wal.is_symlink());
    restored.start_promoted();
    assert_eq!(restored.psql(&sums("t")), cluster.psql(&sums("t")));
}

#[test]
fn segments_may_be_large() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(64).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create table t as select n, md5(n::text) as t from generate_series(1, 5000) n");
    product.back_up(&cluster, &[]);
    cluster.psql("insert into t values (0, 'later')");
    let segment = cluster.archive_now();
    assert_eq!(product.json(&["wal", "show", &segment])["data_bytes"], 64 << 20);
    let xid = cluster.psql("select xmin from t where n = 0");
    cluster.psql("drop table t");
    cluster.archive_now();
    let mut restored = product.restore(&scratch, &["--to", &format!("xid:{xid}")]);
    restored.start_promoted();
    assert_eq!(restored.psql("select count(*) from t"), "5001");
}

#[test]
fn what_a_cluster_holds_besides_tables() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create unlogged table unlogged as select n from generate_series(1, 1000) n");
    cluster.psql("create index on unlogged (n)");
    cluster.psql("create sequence s start 7");
    cluster.psql("create database empty template template0");
    cluster.psql("create role somebody password 'x'");
    cluster.psql("select lo_from_bytea(4711, decode(repeat('00ff10', 10000), 'hex'))");
    // Lives as long as the session, and not in a backup.
    let mut session = cluster.client();
    session
        .batch_execute("create temp table t as select n, md5(n::text) from generate_series(1, 5000) n")
        .unwrap();
    session.batch_execute("create index on t (n)").unwrap();
    let temporary: String = session.query_one("select pg_relation_filepath('t')", &[]).unwrap().get(0);
    let unlogged = cluster.psql("select pg_relation_filepath('unlogged')");
    cluster.psql("checkpoint");
    assert!(cluster.data_dir().join(&temporary).exists() && cluster.data_dir().join(&unlogged).exists());
    // Somebody else's files: one whose name is no text, and an empty one.
    let odd = OsStr::from_bytes(b"odd \xff\xfe\n'name");
    scratch.own(&{
        fs::write(cluster.data_dir().join(odd), b"odd content").unwrap();
        cluster.data_dir().join(odd)
    });
    for dir in ["extra", "extra/empty"] {
        let path = cluster.data_dir().join(dir);
        fs::create_dir(&path).unwrap();
        scratch.own(&path);
    }
    fs::write(cluster.data_dir().join("extra/nothing"), b"").unwrap();
    scratch.own(&cluster.data_dir().join("extra"));

    product.back_up(&cluster, &[]);
    cluster.psql("select lo_put(4711, 3, 'later')");
    cluster.archive_now();
    let mut restored = product.restore(&scratch, &[]);
    let dir = restored.data_dir().to_owned();
    assert!(!dir.join(&temporary).exists());
    assert!(!dir.join(&unlogged).exists() && dir.join(format!("{unlogged}_init")).exists());
    assert_eq!(fs::read(dir.join(odd)).unwrap(), b"odd content");
    assert!(dir.join("extra/empty").is_dir());
    assert_eq!(fs::read(dir.join("extra/nothing")).unwrap(), b"");
    for absent in ["postmaster.pid", "postmaster.opts"] {
        assert!(!dir.join(absent).exists(), "{absent}");
    }
    restored.start_promoted();
    assert_eq!(restored.psql("select count(*) from unlogged"), "0");
    restored.psql("insert into unlogged values (1)");
    assert_eq!(restored.psql("select nextval('s')"), "7");
    let object = "select md5(lo_get(4711))";
    assert_eq!(restored.psql(object), cluster.psql(object));
    assert_eq!(restored.psql("select count(*) from pg_roles where rolname = 'somebody'"), "1");
    let mut empty = restored.client_command("psql");
    let output = empty.args(["-X", "-Atqc", "select count(*) from pg_class", "empty"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn large_files_are_cut_and_put_together() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).conf("max_wal_size = '2GB'").start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    // Four rows a page, stored as they are: 17 000 pages, which is more than two stretches of 64 MiB.
    cluster.psql(
        "create table large as select n, repeat(md5(n::text), 60) as t from generate_series(1, 68000) n",
    );
    assert_eq!(cluster.psql("select pg_relation_size('large') > 132 * 1048576"), "t");
    for jobs in ["1", "4"] {
        product.back_up(&cluster, &["--jobs", jobs]);
        cluster.psql("update large set n = n + 1 where n % 1000 = 1");
        cluster.archive_now();
        let mut restored = product.restore(&scratch, &["--jobs", jobs]);
        restored.start_promoted();
        assert_eq!(restored.psql(&sums("large")), cluster.psql(&sums("large")), "--jobs {jobs}");
        restored.stop(StopMode::Immediate);
        fs::remove_dir_all(restored.data_dir()).unwrap();
    }
}

#[test]
fn paths_may_have_any_character() {
    let scratch = Scratch::new();
    let Some(made) = Cluster::builder(&scratch).wal_segment_mib(1).create() else { return };
    let strange = scratch.join("pg data's 100% \"ä\" %p");
    fs::rename(made.data_dir(), &strange).unwrap();
    drop(made);
    let mut cluster = Cluster::adopt(&scratch).existing(strange.clone()).unwrap();
    let archive = format!("{}/an archive's 100% %f \"ö\"", scratch.path().display());
    let product = Product::with(&scratch, Options { archive: Some(archive), ..Options::default() });
    cluster.archive_with(&product);
    cluster.start();
    cluster.psql("create table t as select n, md5(n::text) as t from generate_series(1, 5000) n");
    product.but("PGDATA", text(&strange)).back_up(&cluster, &[]);
    cluster.psql("insert into t values (0, 'later')");
    cluster.archive_now();
    let target = scratch.join("restored 'here' 50% $HOME \\ %f");
    let output = product.restore_to(&target, &[]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    verify_backup(&scratch, &target);
    let mut restored = Cluster::adopt(&scratch).option("archive_mode", "off").existing(target).unwrap();
    restored.start_promoted();
    assert_eq!(restored.psql(&sums("t")), cluster.psql(&sums("t")));
}

fn dump(cluster: &Cluster, database: &str) -> String {
    let output = cluster.client_command("pg_dump").arg(database).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Versions since August 2025 frame each dump with a key of its own.
    text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_real_database_comes_back_from_under_load() {
    let Some(file) = sample::real_data("pagila.sql") else { return };
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    let script = scratch.write("pagila.sql", fs::read(file).unwrap());
    cluster.psql("create database pagila");
    let mut psql = cluster.client_command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "pagila", "-f"]).arg(&script);
    let loaded = psql.output().unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    cluster.pgbench_init(1);

    let payments = "\\set id random(1, 16000)\n\
                    update rental set last_update = now() where rental_id = :id;\n\
                    update film set rental_rate = rental_rate + 0.01 where film_id = :id % 1000 + 1;\n";
    let payments = scratch.write("payments.sql", payments);
    let mut clients = cluster.client_command("pgbench");
    clients.args(["-n", "-c", "2", "-T", "600", "-f"]).arg(payments).arg("pagila");
    let mut loads = [Background::start(clients, scratch.join("payments.log")), cluster.pgbench(600)];
    wait_until("the load has begun", Duration::from_secs(60), || {
        cluster.psql("select count(*) > 20 from pgbench_history") == "t"
    });
    product.back_up(&cluster, &["--jobs", "2"]);
    for load in &mut loads {
        assert!(load.ended().is_none(), "a load ended early: {}", load.printed());
        load.kill();
    }
    cluster.wait_for(
        "the loads' sessions are gone",
        "select count(*) = 1 from pg_stat_activity where backend_type = 'client backend'",
    );
    let expected = [dump(&cluster, "pagila"), dump(&cluster, "postgres")];
    assert!(expected[0].contains("COPY public.film"));
    cluster.psql("select pg_create_restore_point('quiet')");
    cluster.psql("drop table pgbench_accounts");
    cluster.psql("drop database pagila");
    cluster.archive_now();
    let mut restored = product.restore(&scratch, &["--to", "name:quiet"]);
    restored.start_promoted();
    for (database, expected) in ["pagila", "postgres"].into_iter().zip(&expected) {
        let found = dump(&restored, database);
        let differs = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
        assert!(found == *expected, "{database} differs first in {differs:?}");
    }
}
