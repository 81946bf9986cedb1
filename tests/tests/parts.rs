//! Parts of a backup: some of its databases, a relation, a file.

use std::fs;
use std::path::Path;

use walarchive_tests::{Cluster, Product, Scratch, StopMode};

struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Live {
    fn new() -> Option<Live> {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("autovacuum = off").start()?;
        let product = Product::new(&scratch);
        cluster.archive_with(&product);
        Some(Live { scratch, product, cluster })
    }

    fn fill(&self, database: &str, rows: u32) {
        self.cluster.psql(&format!("create database \"{database}\""));
        self.psql(
            database,
            &format!("create table t as select n, md5(n::text) m from generate_series(1, {rows}) n"),
        );
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        psql(&self.cluster, database, sql)
    }
}

fn psql(cluster: &Cluster, database: &str, sql: &str) -> String {
    let mut command = cluster.client_command("psql");
    let output = command.args(["-XAtqc", sql, "-d", database]).output().expect("run psql");
    assert!(output.status.success(), "{sql}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn blocks_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| entry.metadata().unwrap().blocks()).sum()
}

#[test]
fn only_some_databases() {
    let Some(live) = Live::new() else { return };
    for database in ["wanted", "Other one", "third"] {
        live.fill(database, 50_000);
    }
    live.product.back_up(&live.cluster, &[]);
    // Replayed over what is not there.
    for database in ["wanted", "Other one"] {
        live.psql(database, "update t set m = md5(m) where n % 3 = 0; create index on t (m); truncate t; insert into t values (1, 'new')");
    }
    live.cluster.archive_now();
    let missing = live.product.restore_to(&live.scratch.join("no"), &["--only-database", "wantd"]);
    assert_eq!(missing.code, Some(1), "{missing:#?}");
    assert!(missing.stderr.contains("Other one"), "{missing:#?}");
    assert!(!live.scratch.join("no").exists());
    let mut restored =
        live.product.restore(&live.scratch, &["--only-database", "wanted", "--only-database", "third"]);
    let oid = live.cluster.psql("select oid from pg_database where datname = 'Other one'");
    let left_out = restored.data_dir().join("base").join(&oid);
    assert!(blocks_below(&left_out) < 200, "{} blocks", blocks_below(&left_out));
    restored.start_promoted();
    assert_eq!(psql(&restored, "wanted", "select * from t"), "1|new");
    assert_eq!(psql(&restored, "third", "select count(*), count(distinct m) from t"), "50000|50000");
    assert_eq!(psql(&restored, "postgres", "select count(*) from pg_database"), "6");
    let mut broken = restored.client_command("psql");
    assert!(!broken.args(["-Xc", "select 1", "-d", "Other one"]).output().unwrap().status.success());
    restored.psql("drop database \"Other one\"");
    restored.stop(StopMode::Fast);
}

#[test]
fn a_relation_or_a_file() {
    let Some(live) = Live::new() else { return };
    live.fill("wanted", 100_000);
    live.psql("wanted", "vacuum t");
    let relation = |name: &str| live.psql("wanted", &format!("select pg_relation_filepath('{name}')"));
    let first = live.product.back_up(&live.cluster, &[]);
    live.psql("wanted", "create table late as select n, md5(n::text) m from generate_series(1, 90000) n");
    live.cluster.psql("checkpoint");
    let second = live.product.back_up(&live.cluster, &[]);
    let (first, second) = (first["id"].as_str().unwrap(), second["id"].as_str().unwrap());
    let whole = live.product.restore(&live.scratch, &["--backup", first, "--to", "immediate"]);
    let (table, out) = (relation("t"), live.scratch.dir("out"));
    let extract = |id: &str, paths: &[&str]| {
        let to = ["--target-dir", out.to_str().unwrap()];
        live.product.run(&[&["--json", "backup", "extract", id], paths, &to[..]].concat())
    };
    let done = extract(first, &[&table, "PG_VERSION", "pg_xact"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    let files = done.json()["files"].as_array().unwrap().clone();
    for name in [&table, &format!("{table}_vm"), &format!("{table}_fsm"), "PG_VERSION", "pg_xact/0000"] {
        assert!(files.iter().any(|file| file == name), "{name}: {files:?}");
    }
    assert_eq!(files.len(), 5);
    for file in &files {
        let file = file.as_str().unwrap();
        assert!(
            fs::read(out.join(file)).unwrap() == fs::read(whole.data_dir().join(file)).unwrap(),
            "{file}"
        );
    }
    // Nothing is overwritten, nothing is made of what is not there.
    let again = extract(first, &["PG_VERSION"]);
    assert_eq!(again.code, Some(3), "{again:#?}");
    let names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().starts_with('.')), "{names:?}");
    let absent = extract(first, &["PG_VERSION", &relation("late")]);
    assert_eq!(absent.code, Some(1), "{absent:#?}");
    assert!(absent.stderr.contains(&relation("late")), "{absent:#?}");
    // Only the packs that it is in are read.
    fs::remove_dir_all(live.product.cluster_dir().join("packs").join(first)).unwrap();
    assert_eq!(live.product.restore_to(&live.scratch.join("no"), &["--backup", second]).code, Some(4));
    let late = extract(second, &[&relation("late")]);
    assert_eq!(late.code, Some(0), "{late:#?}");
    assert_eq!(
        fs::read(out.join(relation("late"))).unwrap(),
        fs::read(live.cluster.data_dir().join(relation("late"))).unwrap()
    );
    fs::remove_dir_all(out.join("base")).unwrap();
    assert_eq!(extract(second, &[&table]).code, Some(4));
    assert!(!out.join("base").exists(), "all or nothing");
}
