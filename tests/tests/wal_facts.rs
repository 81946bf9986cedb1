//! What the library reads from the files of a real server, against what the server's own tools say.
//!
//! Uses the server in `WALARCHIVE_TEST_PG_BIN`, or Debian's PostgreSQL 15. Without one the test is skipped
//! loudly, and fails where `CI` is set.

// A test may panic; the helpers of this file are outside of what clippy takes for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postgres::{Client, Config, NoTls};
use proptest::prelude::*;
use proptest::test_runner::{Config as PropConfig, TestRunner};
use walarchive_core::postgres::control::{ClusterState, ControlFile};
use walarchive_core::postgres::page::{PAGE_SIZE, PAGES_PER_FILE, PageState, relation_file, verify};
use walarchive_core::wal::records::{Fact, ScanEnd, Scanner, unix_us};
use walarchive_core::wal::{Lsn, SegmentName, SegmentSize, check_segment};

const SEGMENT: u64 = 1 << 20;

struct Cluster {
    bin: PathBuf,
    dir: tempfile::TempDir,
    running: bool,
}

impl Cluster {
    /// A stopped cluster with checksums and small segments; `None` without PostgreSQL.
    fn create() -> Option<Cluster> {
        let bin = std::env::var_os("WALARCHIVE_TEST_PG_BIN")
            .map_or_else(|| PathBuf::from("/usr/lib/postgresql/15/bin"), PathBuf::from);
        if !bin.join("initdb").exists() {
            assert!(std::env::var_os("CI").is_none(), "no PostgreSQL in {}", bin.display());
            eprintln!("SKIPPED: no PostgreSQL in {}; set WALARCHIVE_TEST_PG_BIN", bin.display());
            return None;
        }
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let cluster = Cluster { bin, dir, running: false };
        let data = cluster.data();
        let data = data.to_str().unwrap();
        cluster.run(
            "initdb",
            &["-D", data, "-U", "tester", "-A", "trust", "-k", "-N", "-E", "UTF8", "--wal-segsize=1"],
        );
        let settings = "listen_addresses = ''\nwal_keep_size = '4GB'\nmax_wal_size = '4GB'\n\
                        max_prepared_transactions = 4\nwal_compression = on\nfsync = off\nautovacuum = off\n";
        let conf = cluster.data().join("postgresql.conf");
        let before = fs::read_to_string(&conf).unwrap();
        let socket = format!("unix_socket_directories = '{}'\n", cluster.dir.path().display());
        fs::write(&conf, before + settings + &socket).unwrap();
        Some(cluster)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Runs a program of the server as a user that the server accepts.
    fn try_run(&self, program: &str, args: &[&str]) -> Output {
        let program = self.bin.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(args).env("TZ", "UTC").env("LC_ALL", "C").current_dir("/tmp").output().unwrap()
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.try_run(program, args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn start(&mut self) -> Client {
        let (data, log) = (self.data(), self.dir.path().join("log"));
        self.run("pg_ctl", &["-w", "-D", data.to_str().unwrap(), "-l", log.to_str().unwrap(), "start"]);
        self.running = true;
        Config::new().host_path(self.dir.path()).user("tester").dbname("postgres").connect(NoTls).unwrap()
    }

    fn stop(&mut self) {
        self.run("pg_ctl", &["-w", "-D", self.data().to_str().unwrap(), "-m", "fast", "stop"]);
        self.running = false;
    }

    /// The segments in the order of the log, with their bytes.
    fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let mut segments: Vec<_> = fs::read_dir(self.data().join("pg_wal"))
            .unwrap()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().to_str()?.parse().ok()?;
                Some((name, fs::read(entry.path()).unwrap()))
            })
            .collect();
        segments.sort_by_key(|(name, _)| *name);
        segments
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            self.try_run("pg_ctl", &["-D", self.data().to_str().unwrap(), "-m", "immediate", "stop"]);
        }
    }
}

/// What the workload knows that it did.
#[derive(Default)]
struct Known {
    committed: Vec<u32>,
    aborted: Vec<u32>,
    restore_points: Vec<String>,
}

/// Runs statements in one transaction and returns its number.
fn transaction(client: &mut Client, statements: &str, end: &str) -> u32 {
    client.batch_execute("BEGIN").unwrap();
    client.batch_execute(statements).unwrap();
    let xid: String = client.query_one("SELECT (txid_current() & 4294967295)::text", &[]).unwrap().get(0);
    client.batch_execute(end).unwrap();
    xid.parse().unwrap()
}

fn work(client: &mut Client) -> Known {
    let mut known = Known::default();
    let point = |client: &mut Client, known: &mut Known, name: &str| {
        client.execute("SELECT pg_create_restore_point($1)", &[&name]).unwrap();
        known.restore_points.push(name.to_owned());
    };
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); CHECKPOINT").unwrap();
    for n in 0..50 {
        let insert =
            format!("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series({n}*100, {n}*100+99) i");
        known.committed.push(transaction(client, &insert, "COMMIT"));
        known.aborted.push(transaction(client, "UPDATE t SET v = 'y' WHERE id < 20", "ROLLBACK"));
    }
    point(client, &mut known, "before the upgrade");
    let many: String = (0..400).map(|n| format!("CREATE TABLE many{n} (id int);")).collect();
    known.committed.push(transaction(client, &many, "COMMIT"));
    let drop: String = (0..400).map(|n| format!("DROP TABLE many{n};")).collect();
    known.committed.push(transaction(client, &format!("SAVEPOINT a; {drop} RELEASE a"), "COMMIT"));
    let ddl =
        "CREATE TABLE p (id int); SAVEPOINT b; INSERT INTO p VALUES (1); RELEASE b; DROP TABLE IF EXISTS q";
    known.committed.push(transaction(client, ddl, "PREPARE TRANSACTION 'one'"));
    client.batch_execute("COMMIT PREPARED 'one'").unwrap();
    let ddl = "CREATE TABLE q (id int); DROP TABLE p; SAVEPOINT b; INSERT INTO q VALUES (1); RELEASE b";
    known.aborted.push(transaction(client, ddl, "PREPARE TRANSACTION 'two'"));
    client.batch_execute("ROLLBACK PREPARED 'two'").unwrap();
    client.batch_execute("SELECT pg_switch_wal()").unwrap();
    known.committed.push(transaction(client, "INSERT INTO t VALUES (-1, 'z')", "COMMIT"));
    client.execute("SELECT pg_logical_emit_message(false, 'long', repeat('m', 3500000))", &[]).unwrap();
    known.committed.push(transaction(client, "INSERT INTO t VALUES (-2, 'z')", "COMMIT"));
    point(client, &mut known, "Ende gut, alles gut: ü");
    known
}

/// One line of pg_waldump in the terms of a fact; the end of the record is not in it.
fn of_waldump(line: &str) -> Option<(Lsn, String, String, i64)> {
    let (_, lsn) = line.split_once("lsn: ")?;
    let lsn: Lsn = lsn.split(',').next()?.parse().ok()?;
    let (_, desc) = line.split_once("desc: ")?;
    if let Some(name) = desc.strip_prefix("RESTORE_POINT ") {
        return Some((lsn, "point".to_owned(), name.to_owned(), 0));
    }
    let (kind, rest) = desc.split_once(' ')?;
    let (kind, prepared) = match kind {
        "COMMIT" => ("commit", false),
        "COMMIT_PREPARED" => ("commit", true),
        "ABORT" => ("abort", false),
        "ABORT_PREPARED" => ("abort", true),
        _ => return None,
    };
    let tx = line.split_once("tx:")?.1.split(',').next()?.trim();
    let (xid, rest) = if prepared { rest.split_once(": ")? } else { (tx, rest) };
    let time: jiff::civil::DateTime = rest.split_once(" UTC")?.0.parse().unwrap();
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_microsecond();
    Some((lsn, kind.to_owned(), xid.to_owned(), time))
}

fn of_fact(fact: &Fact) -> (Lsn, String, String, i64) {
    let (lsn, end) = fact.range();
    assert!(lsn < end);
    match fact {
        Fact::Commit { xid, time_us, .. } => (lsn, "commit".into(), xid.to_string(), unix_us(*time_us)),
        Fact::Abort { xid, time_us, .. } => (lsn, "abort".into(), xid.to_string(), unix_us(*time_us)),
        Fact::RestorePoint { name, .. } => (lsn, "point".into(), name.clone(), 0),
        other => panic!("{other:?}"),
    }
}

fn scan(segments: &[(SegmentName, Vec<u8>)]) -> (Vec<Fact>, Option<Lsn>) {
    let size = SegmentSize::new(SEGMENT).unwrap();
    let (mut scanner, mut facts) = (Scanner::new(size), Vec::new());
    for (name, bytes) in segments {
        let end = scanner.segment(name.start(size).unwrap(), bytes, &mut |fact| facts.push(fact)).unwrap();
        if let ScanEnd::Ended { at, .. } = end {
            return (facts, Some(at));
        }
    }
    (facts, None)
}

fn compare_facts(cluster: &Cluster, known: &Known, control: &ControlFile) -> Vec<Fact> {
    let segments = cluster.segments();
    let (facts, end) = scan(&segments);
    let end = end.expect("the log ends somewhere");
    assert!(end > control.checkpoint, "the shutdown checkpoint at {} is valid log", control.checkpoint);
    let has = |fact: &dyn Fn(&Fact) -> bool| facts.iter().filter(|f| fact(f)).count();
    for wanted in &known.committed {
        assert_eq!(has(&|f| matches!(f, Fact::Commit { xid, .. } if xid == wanted)), 1, "commit of {wanted}");
    }
    for wanted in &known.aborted {
        assert_eq!(has(&|f| matches!(f, Fact::Abort { xid, .. } if xid == wanted)), 1, "abort of {wanted}");
    }
    for wanted in &known.restore_points {
        assert_eq!(has(&|f| matches!(f, Fact::RestorePoint { name, .. } if name == wanted)), 1, "{wanted}");
    }
    if !cluster.bin.join("pg_waldump").exists() {
        return facts;
    }
    // pg_waldump reports the end of the log as an error.
    let (first, last) = (segments[0].0.to_string(), segments[segments.len() - 1].0.to_string());
    let wal = cluster.data().join("pg_wal");
    let output = cluster.try_run("pg_waldump", &["-p", wal.to_str().unwrap(), &first, &last]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let theirs: Vec<_> = text.lines().filter_map(of_waldump).collect();
    assert!(theirs.len() > 100, "pg_waldump found {} facts", theirs.len());
    assert_eq!(facts.iter().map(of_fact).collect::<Vec<_>>(), theirs);
    facts
}

fn check_segments(cluster: &Cluster, control: &ControlFile) {
    let segments = cluster.segments();
    let size = control.wal_segment_size;
    assert_eq!(size.bytes(), SEGMENT);
    let last = SegmentName::containing(control.timeline, control.checkpoint, size);
    let mut checked = 0;
    for (name, bytes) in segments.iter().filter(|(name, _)| *name <= last) {
        let header = check_segment(name, &bytes[..PAGE_SIZE], bytes.len() as u64).unwrap();
        assert_eq!(header.system_id, control.system_id);
        assert_eq!(walarchive_core::wal::page::major_of_magic(header.magic), control.pg_major());
        let other = name.next(size).unwrap();
        assert!(check_segment(&other, &bytes[..PAGE_SIZE], bytes.len() as u64).is_err());
        checked += 1;
    }
    assert!(checked > 5, "{checked} segments");
}

fn any_start_gives_the_rest(cluster: &Cluster, all: &[Fact]) {
    let segments = cluster.segments();
    let size = SegmentSize::new(SEGMENT).unwrap();
    for skip in 1..segments.len() {
        let from = segments[skip].0.start(size).unwrap();
        let expected: Vec<_> = all.iter().filter(|fact| fact.range().0 >= from).cloned().collect();
        assert_eq!(scan(&segments[skip..]).0, expected, "from {}", segments[skip].0);
    }
}

fn changed_segments_invent_nothing(cluster: &Cluster, all: &[Fact]) {
    let segments = cluster.segments();
    let change = (0..segments.len().min(6), 0..SEGMENT as usize, any::<u8>());
    let mut runner = TestRunner::new(PropConfig::with_cases(60));
    let outcome = runner.run(&proptest::collection::vec(change, 1..10), |changes| {
        let mut bad = segments.clone();
        for (segment, at, value) in changes {
            bad[segment].1[at] = value;
        }
        for fact in scan(&bad).0 {
            prop_assert!(all.contains(&fact), "{:?}", fact);
        }
        Ok(())
    });
    outcome.unwrap();
}

fn compare_control(cluster: &Cluster, control: &ControlFile) {
    assert_eq!(control.state, ClusterState::ShutDown);
    assert!(control.pg_major().is_some());
    if !cluster.bin.join("pg_controldata").exists() {
        return;
    }
    let text = cluster.run("pg_controldata", &["-D", cluster.data().to_str().unwrap()]);
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("pg_controldata has no `{name}`:\n{text}")).trim().to_owned()
    };
    assert_eq!(field("pg_control version number"), control.pg_control_version.to_string());
    assert_eq!(field("Catalog version number"), control.catalog_version.to_string());
    assert_eq!(field("Database system identifier"), control.system_id.to_string());
    assert_eq!(field("Database cluster state"), "shut down");
    assert_eq!(field("Latest checkpoint location"), control.checkpoint.to_string());
    assert_eq!(field("Latest checkpoint's REDO location"), control.redo.to_string());
    assert_eq!(field("Latest checkpoint's TimeLineID"), control.timeline.to_string());
    assert_eq!(field("Latest checkpoint's PrevTimeLineID"), control.prev_timeline.to_string());
    let next = format!("{}:{}", control.next_xid >> 32, control.next_xid & 0xFFFF_FFFF);
    assert_eq!(field("Latest checkpoint's NextXID"), next);
    assert_eq!(field("Minimum recovery ending location"), control.min_recovery_point.to_string());
    assert_eq!(field("Backup start location"), control.backup_start_point.to_string());
    assert_eq!(field("Backup end location"), control.backup_end_point.to_string());
    assert_eq!(
        field("End-of-backup record required"),
        if control.backup_end_required { "yes" } else { "no" }
    );
    assert_eq!((field("wal_level setting").as_str(), control.wal_level), ("replica", 1));
    assert_eq!(field("Database block size"), control.block_size.to_string());
    assert_eq!(field("Blocks per segment of large relation"), control.relseg_size.to_string());
    assert_eq!(field("WAL block size"), control.wal_block_size.to_string());
    assert_eq!(field("Bytes per WAL segment"), control.wal_segment_size.bytes().to_string());
    assert_eq!(field("Data page checksum version"), control.data_checksum_version.to_string());
    let written = jiff::Timestamp::from_second(control.time).unwrap();
    let written = written.strftime("%a %b %e %H:%M:%S %Y").to_string();
    assert_eq!(field("pg_control last modified"), written);
    let began = jiff::Timestamp::from_second(control.checkpoint_time).unwrap();
    assert_eq!(field("Time of latest checkpoint"), began.strftime("%a %b %e %H:%M:%S %Y").to_string());
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn verify_pages(cluster: &Cluster) {
    let (mut all, mut good, mut moved) = (Vec::new(), 0u32, 0u32);
    files(&cluster.data(), &mut all);
    for path in all {
        let name = path.strip_prefix(cluster.data()).unwrap().to_str().unwrap().to_owned();
        let Some(file) = relation_file(&name) else { continue };
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() % PAGE_SIZE, 0, "{name}");
        for (page, n) in bytes.chunks(PAGE_SIZE).zip(0..) {
            let block = file.block_no(n, PAGES_PER_FILE).unwrap();
            match verify(page, block, Lsn(u64::MAX)) {
                PageState::Ok => good += 1,
                PageState::New => continue,
                bad => panic!("page {n} of {name}: {bad:?}"),
            }
            moved += u32::from(verify(page, block + 1, Lsn(u64::MAX)) == PageState::Ok);
        }
    }
    assert!(good > 500 && moved < good / 100, "{good} good, {moved} good in the wrong place");
}

#[test]
fn a_real_cluster_is_read_as_its_own_tools_read_it() {
    let Some(mut cluster) = Cluster::create() else { return };
    let mut client = cluster.start();
    let known = work(&mut client);
    if cluster.bin.join("pgbench").exists() {
        let host = cluster.dir.path().to_str().unwrap().to_owned();
        cluster.run("pgbench", &["-h", &host, "-U", "tester", "-i", "-q", "postgres"]);
        cluster.run("pgbench", &["-h", &host, "-U", "tester", "-c", "4", "-t", "200", "postgres"]);
    }
    drop(client);
    cluster.stop();
    let control = ControlFile::parse(&fs::read(cluster.data().join("global/pg_control")).unwrap()).unwrap();
    compare_control(&cluster, &control);
    check_segments(&cluster, &control);
    let facts = compare_facts(&cluster, &known, &control);
    any_start_gives_the_rest(&cluster, &facts);
    changed_segments_invent_nothing(&cluster, &facts);
    verify_pages(&cluster);
}
