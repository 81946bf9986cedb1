//! WAL and data files of a real server, made once and kept in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walarchive_tests::{Cluster, Scratch, StopMode, find, wait_until};

use crate::synthetic;

/// Bytes of a WAL segment.
pub const SEGMENT: usize = 16 << 20;

/// Segments of each kind.
const SEGMENTS: usize = 6;

/// One kind of data.
#[derive(Debug, Clone)]
pub struct Data {
    /// What made it: `oltp` (pgbench), `mixed` (rows of uuid, jsonb and text), or `synthetic`.
    pub name: &'static str,
    /// Consecutive WAL segments under their own names.
    pub segments: Vec<PathBuf>,
    /// A few MiB of a table's pages.
    pub pages: PathBuf,
}

impl Data {
    /// The bytes of a segment from the middle.
    pub fn segment(&self) -> Vec<u8> {
        read(&self.segments[self.segments.len() / 2])
    }

    /// The bytes of the table's pages.
    pub fn pages(&self) -> Vec<u8> {
        read(&self.pages)
    }

    fn find(name: &'static str, dir: &Path) -> Data {
        let dir = dir.join(name);
        let mut segments: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(&dir).expect("list the bench data") {
            let path = entry.expect("list the bench data").path();
            if path.file_name().is_some_and(|file| file.len() == 24) {
                segments.push(path);
            }
        }
        segments.sort();
        assert!(!segments.is_empty(), "{} has no segments: remove it", dir.display());
        Data { name, segments, pages: dir.join("pages") }
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The data: of a real server where PostgreSQL is installed, else made up, which is said loudly.
pub fn samples() -> Vec<Data> {
    let real = find("initdb").is_some();
    let dir = target_dir().join("bench-data").join(if real { "real" } else { "synthetic" });
    if !dir.is_dir() {
        let new = dir.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new).expect("make the directory of the bench data");
        if real {
            make_real(&new);
        } else {
            synthetic::make(&new.join("synthetic"), SEGMENTS);
        }
        fs::rename(&new, &dir).expect("put the bench data in place");
    }
    if real {
        return vec![Data::find("oltp", &dir), Data::find("mixed", &dir)];
    }
    eprintln!(
        "\n** PostgreSQL is not installed: MADE-UP data, whose figures say nothing about real WAL **\n"
    );
    vec![Data::find("synthetic", &dir)]
}

/// The directory that cargo built this bench into.
pub(crate) fn target_dir() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    // …/target/release/deps/NAME
    program.ancestors().nth(3).expect("a bench lies in cargo's target directory").to_owned()
}

/// The statements that make WAL and pages of other than pgbench's kind.
pub const MIXED: &str =
    "create table if not exists mixed (id bigserial primary key, made timestamptz default now(),
    ref uuid, facts jsonb, note text);
insert into mixed (ref, facts, note) select gen_random_uuid(),
    jsonb_build_object('user', (random() * 1e6)::int, 'score', random(), 'tags', array['a', md5(n::text)]),
    repeat(md5(random()::text) || ' lorem ipsum ', 1 + n % 4) from generate_series(1, 20000) n";

fn make_real(dir: &Path) {
    eprintln!("making the bench data with PostgreSQL in {}", dir.display());
    let scratch = Scratch::new();
    // Nothing is archived, so the server keeps all its segments.
    let cluster = Cluster::builder(&scratch).conf("fsync = off").conf("max_wal_size = 4GB").start();
    let mut cluster = cluster.expect("PostgreSQL is installed");
    cluster.pgbench_init(20);
    cluster.psql("checkpoint");
    let oltp = (cluster.switch_wal(), {
        let mut load = cluster.pgbench(300);
        wait_for_segments(&cluster, || {});
        load.kill();
        cluster.switch_wal()
    });
    let mixed = (cluster.switch_wal(), {
        wait_for_segments(&cluster, || drop(cluster.psql(MIXED)));
        cluster.switch_wal()
    });
    let tables = ["pgbench_accounts", "mixed"]
        .map(|table| cluster.psql(&format!("select pg_relation_filepath('{table}')")));
    cluster.stop(StopMode::Fast);
    for ((name, (before, last)), table) in [("oltp", oltp), ("mixed", mixed)].into_iter().zip(tables) {
        keep(&cluster, &dir.join(name), &before, &last, &table);
    }
}

/// Runs `work` until enough segments were filled since the call.
fn wait_for_segments(cluster: &Cluster, mut work: impl FnMut()) {
    let start = cluster.psql("select pg_current_wal_lsn()");
    let bytes = (SEGMENTS + 1) * SEGMENT;
    let question = format!("select pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}') > {bytes}");
    wait_until("the server has written enough WAL", Duration::from_secs(300), || {
        work();
        cluster.psql(&question) == "t"
    });
}

/// Copies the first full segments between `before` and `last`, and the first pages of a table.
fn keep(cluster: &Cluster, dir: &Path, before: &str, last: &str, table: &str) {
    fs::create_dir_all(dir).expect("make the directory of the bench data");
    let pg_wal = fs::read_dir(cluster.data_dir().join("pg_wal")).expect("list pg_wal");
    let names = pg_wal.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.len() == 24 && before < name.as_str() && name.as_str() < last).collect();
    names.sort();
    for name in names.iter().take(SEGMENTS) {
        fs::copy(cluster.data_dir().join("pg_wal").join(name), dir.join(name)).expect("copy a segment");
    }
    let mut pages = read(&cluster.data_dir().join(table));
    pages.truncate(SEGMENT);
    fs::write(dir.join("pages"), pages).expect("copy pages");
}
