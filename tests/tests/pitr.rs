//! Recovery to a point: it lands exactly where it was told to, or nothing is written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use walarchive_tests::{Cluster, Output, Product, Scratch, StopMode};

/// A committed row of the ledger, and every way to name the moment.
struct Row {
    xid: String,
    /// When it was committed, to the microsecond.
    committed: String,
    /// A moment later, before the next row.
    after: String,
    /// Where the WAL ended then.
    lsn: String,
    /// The segment that this position is in.
    segment: String,
}

/// An archived cluster with rows 1–12: 3, backup, 5 more (a restore point behind row 6), backup, 4 more.
struct Ledger {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
    rows: Vec<Row>,
    backups: [Value; 2],
}

const TIME: &str = r#"'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"#;
const ROWS: &str = "select string_agg(n::text, ' ' order by n) from ledger";

impl Ledger {
    fn new() -> Option<Ledger> {
        let scratch = Scratch::new();
        let builder = Cluster::builder(&scratch).wal_segment_mib(1).conf("track_commit_timestamp = on");
        let cluster = builder.start()?;
        let product = Product::new(&scratch);
        cluster.archive_with(&product);
        cluster.psql("create table ledger (n int primary key)");
        let mut rows = Vec::new();
        write_rows(&cluster, &mut rows, 3);
        cluster.psql("select pg_create_restore_point('early')");
        let first = product.back_up(&cluster, &["--label", "which=first"]);
        write_rows(&cluster, &mut rows, 2);
        cluster.archive_now();
        write_rows(&cluster, &mut rows, 1);
        cluster.psql("select pg_create_restore_point('mid')");
        write_rows(&cluster, &mut rows, 2);
        let second = product.back_up(&cluster, &[]);
        write_rows(&cluster, &mut rows, 2);
        cluster.archive_now();
        write_rows(&cluster, &mut rows, 2);
        cluster.archive_now();
        Some(Ledger { scratch, cluster, product, rows, backups: [first, second] })
    }

    fn row(&self, number: usize) -> &Row {
        &self.rows[number - 1]
    }

    /// Restores, lets recovery come to its end, and gives the rows.
    fn rows_after(&self, args: &[&str]) -> String {
        let mut restored = self.product.restore(&self.scratch, args);
        restored.start_promoted();
        let rows = restored.psql(ROWS);
        restored.stop(StopMode::Immediate);
        fs::remove_dir_all(restored.data_dir()).unwrap();
        rows
    }

    /// Proves that a restore is refused, and that nothing was written.
    fn refused(&self, args: &[&str]) -> String {
        let target = self.scratch.join("refused");
        let output = self.product.restore_to(&target, args);
        assert_eq!(output.code, Some(3), "{args:?}: {output:#?}");
        assert!(!target.exists(), "{args:?} made the target");
        message(&output)
    }

    /// Where the commit of a row begins in the WAL.
    fn commit_record(&self, number: usize) -> String {
        let (row, pg_wal) = (self.row(number), self.cluster.data_dir().join("pg_wal"));
        let segment = pg_wal.join(&row.segment);
        let text = self.cluster.tool("pg_waldump", &["-x", &row.xid, segment.to_str().unwrap()]);
        let line = text.lines().find(|line| line.contains("COMMIT")).expect(&text);
        let lsn = line.split("lsn: ").nth(1).and_then(|rest| rest.split(',').next());
        lsn.expect(line).to_owned()
    }
}

fn write_rows(cluster: &Cluster, rows: &mut Vec<Row>, count: usize) {
    let mut client = cluster.client();
    let facts = format!(
        "select to_char(pg_xact_commit_timestamp($1::text::xid) at time zone 'UTC', {TIME}), \
         to_char(clock_timestamp() at time zone 'UTC', {TIME}), pg_current_wal_insert_lsn()::text, \
         pg_walfile_name(pg_current_wal_insert_lsn())"
    );
    for _ in 0..count {
        let number = i32::try_from(rows.len() + 1).unwrap();
        let insert = "insert into ledger values ($1) returning pg_current_xact_id()::text";
        let xid: String = client.query_one(insert, &[&number]).unwrap().get(0);
        let found = client.query_one(&facts, &[&xid]).unwrap();
        rows.push(Row {
            xid,
            committed: found.get(0),
            after: found.get(1),
            lsn: found.get(2),
            segment: found.get(3),
        });
    }
}

/// The error that a command told, on stderr and in JSON alike.
fn message(output: &Output) -> String {
    let document = output.json();
    let message = document["error"]["message"].as_str().expect("an error in JSON").to_owned();
    assert_eq!(document["error"]["code"].as_i64(), output.code.map(i64::from), "{output:#?}");
    message
}

fn up_to(last: usize) -> String {
    (1..=last).map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn recovery_lands_on_the_very_transaction() {
    let Some(ledger) = Ledger::new() else { return };
    let row = ledger.row(10);
    let commit = ledger.commit_record(10);
    for (target, inclusive, exclusive) in [
        (row.committed.clone(), 10, 9),
        (format!("xid:{}", row.xid), 10, 9),
        (format!("lsn:{commit}"), 10, 9),
        (row.after.clone(), 10, 10),
    ] {
        assert_eq!(ledger.rows_after(&["--to", &target]), up_to(inclusive), "{target}");
        assert_eq!(ledger.rows_after(&["--to", &target, "--exclusive"]), up_to(exclusive), "{target}");
    }
    // A segment's border between the target and the end of the WAL, and an offset that is not UTC.
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(5));
    let elsewhere = ledger.row(9).after.parse::<jiff::Timestamp>().unwrap().to_zoned(zone);
    let elsewhere = elsewhere.strftime("%Y-%m-%dT%H:%M:%S%.6f+05:00").to_string();
    assert_eq!(ledger.rows_after(&["--to", &elsewhere]), up_to(9));
    assert_eq!(ledger.rows_after(&["--to", &format!("lsn:{}", ledger.row(11).lsn)]), up_to(11));
}

#[test]
fn names_backups_and_both_ends() {
    let Some(mut ledger) = Ledger::new() else { return };
    // The cluster is lost: nothing but the archive counts.
    ledger.cluster.stop(StopMode::Immediate);
    fs::remove_dir_all(ledger.cluster.data_dir()).unwrap();
    let first = ledger.backups[0]["id"].as_str().unwrap();
    let second = ledger.backups[1]["id"].as_str().unwrap();
    let chosen = |args: &[&str]| {
        let plan = ledger.product.restore_to(Path::new("/nowhere"), &[args, &["--dry-run"]].concat());
        plan.json()["backup"].as_str().unwrap().to_owned()
    };
    assert_eq!(chosen(&["--to", "name:mid"]), first);
    assert_eq!(ledger.rows_after(&["--to", "name:mid"]), up_to(6));
    assert_eq!(chosen(&["--to", &ledger.row(7).after]), first);
    assert_eq!(chosen(&["--to", &ledger.row(9).after]), second);
    assert_eq!(chosen(&[]), second);
    assert_eq!(ledger.rows_after(&[]), up_to(12));
    assert_eq!(ledger.rows_after(&["--to", "immediate"]), up_to(8));
    assert_eq!(ledger.rows_after(&["--to", "immediate", "--backup", first]), up_to(3));
    // Through the WAL of the second backup, and to a target that is before it.
    assert_eq!(ledger.rows_after(&["--to", &ledger.row(11).after, "--backup", first]), up_to(11));
    assert_eq!(ledger.rows_after(&["--to", "latest", "--backup", first]), up_to(12));
    let output =
        ledger.product.restore_to(&ledger.scratch.join("none"), &["--backup", "20200101T000000Z-00000000"]);
    assert!(matches!(output.code, Some(1 | 2)), "{output:#?}");
}

#[test]
fn what_cannot_be_reached_is_refused_before_a_byte_is_written() {
    let Some(ledger) = Ledger::new() else { return };
    let finished = |n: usize| ledger.backups[n]["finished_at"].as_str().unwrap();
    let second = ledger.backups[1]["id"].as_str().unwrap();
    // Before the end of the (first) backup.
    let early = ledger.refused(&["--to", &ledger.row(3).after]);
    assert!(early.contains(finished(0)), "{early}");
    for target in [format!("xid:{}", ledger.row(3).xid), "lsn:0/1000060".to_owned(), "name:early".to_owned()]
    {
        let refused = ledger.refused(&["--to", &target]);
        assert!(refused.contains(target.split_once(':').unwrap().1), "{refused}");
    }
    let early = ledger.refused(&["--to", &ledger.row(7).after, "--backup", second]);
    assert!(early.contains(finished(1)) && early.contains(second), "{early}");
    // Beyond the end of the archive.
    let late = ledger.refused(&["--to", "2199-01-01T00:00:00Z"]);
    assert!(late.contains("2199-01-01") && late.contains(&ledger.row(12).committed[..19]), "{late}");
    for target in ["lsn:FF/0", "xid:4000000", "name:never"] {
        let late = ledger.refused(&["--to", target]);
        assert!(late.contains(target.split_once(':').unwrap().1), "{late}");
    }
    // The server's own position, which is not archived yet, has the segment in its message or the end.
    let unarchived: String = ledger.cluster.psql("select pg_current_wal_insert_lsn()");
    ledger.refused(&["--to", &format!("lsn:{unarchived}")]);
    // Mistakes are told as such.
    let target = ledger.scratch.join("mistaken");
    let last = &ledger.row(12).committed;
    for args in [
        &["--to", last.trim_end_matches('Z')][..],
        &["--to", "yesterday"],
        &["--to", "xid:x"],
        &["--action", "dance"],
        &["--timeline", "0"],
        &["--standby", "--to", "immediate"],
    ] {
        let output = ledger.product.restore_to(&target, args);
        assert_eq!(output.code, Some(2), "{args:?}: {output:#?}");
        assert!(!target.exists(), "{args:?}");
    }
    let output = ledger.product.restore_to(&target, &["--to", last.trim_end_matches('Z')]);
    assert!(output.stderr.contains("offset"), "{output:#?}");
}

#[test]
fn restore_points_do_not_count_as_transactions() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create table ledger (n int primary key)");
    product.back_up(&cluster, &[]);
    cluster.psql("insert into ledger values (1)");
    let between = cluster.psql(&format!("select to_char(clock_timestamp() at time zone 'UTC', {TIME})"));
    cluster.psql("select pg_create_restore_point('only')");
    let switched = cluster.psql("select pg_switch_wal()");
    let segment = cluster.psql(&format!("select pg_walfile_name('{switched}')"));
    cluster.wait_archived(&segment, Duration::from_secs(60));
    // PostgreSQL stops at a time only before a commit, and at a position only where a record begins: behind the last
    // one, it would find no end to recovery and refuse to start.
    for target in [between, format!("lsn:{switched}")] {
        let output = product.restore_to(&scratch.join("refused"), &["--to", &target]);
        assert_eq!(output.code, Some(3), "{target}: {output:#?}");
    }
    let mut restored = product.restore(&scratch, &["--to", "name:only"]);
    restored.start_promoted();
    assert_eq!(restored.psql(ROWS), "1");
}

#[test]
fn gaps_are_named_and_dry_runs_write_nothing() {
    let Some(ledger) = Ledger::new() else { return };
    let (product, scratch) = (&ledger.product, &ledger.scratch);
    let before = listing(scratch.path());
    let target = scratch.join("dry");
    let plan = product.restore_to(&target, &["--dry-run", "--to", &ledger.row(11).after]);
    assert_eq!(plan.code, Some(0), "{plan:#?}");
    assert_eq!(plan.json()["backup"], ledger.backups[1]["id"]);
    assert!(!target.exists());
    assert_eq!(listing(scratch.path()), before, "a dry run wrote something");

    let missing = &ledger.row(10).segment;
    assert!(*missing < ledger.row(12).segment);
    let object = product.wal_object(missing);
    let taken = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    for target in [
        "latest".to_owned(),
        ledger.row(11).after.clone(),
        format!("lsn:{}", ledger.row(11).lsn),
        format!("xid:{}", ledger.row(12).xid),
    ] {
        let refused = ledger.refused(&["--to", &target]);
        assert!(refused.contains(missing.as_str()), "{target}: {refused}");
    }
    let listed = product.json(&["wal", "list"]);
    assert_eq!(listed["timelines"][0]["missing"], serde_json::json!([missing]));
    // What is before the gap can be had.
    assert_eq!(ledger.rows_after(&["--to", "immediate"]), up_to(8));
    assert_eq!(ledger.rows_after(&["--to", "name:mid"]), up_to(6));

    // A segment that the newest backup itself needs.
    scratch.own(&{
        fs::write(&object, taken).unwrap();
        object
    });
    let start = ledger.backups[1]["start_lsn"].as_str().unwrap();
    let needed = ledger.cluster.psql(&format!("select pg_walfile_name('{start}'::pg_lsn + 1)"));
    fs::remove_file(product.wal_object(&needed)).unwrap();
    for args in [
        &["--to", "latest"][..],
        &["--to", "immediate", "--backup", ledger.backups[1]["id"].as_str().unwrap()],
    ] {
        let refused = ledger.refused(args);
        assert!(refused.contains(&needed), "{args:?}: {refused}");
    }
    assert_eq!(ledger.rows_after(&["--to", "immediate"]), up_to(3));
}

fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            // The running server writes what it likes.
            if path.is_dir() && !path.join("postmaster.pid").exists() {
                waiting.push(path.clone());
            }
            found.push(path.display().to_string());
        }
    }
    found.sort();
    found
}

#[test]
fn the_server_pauses_promotes_or_shuts_down() {
    let Some(ledger) = Ledger::new() else { return };
    let target = format!("xid:{}", ledger.row(10).xid);

    let mut paused = ledger.product.restore(&ledger.scratch, &["--to", &target, "--action", "pause"]);
    paused.start();
    paused.wait_for("recovery pauses", "select pg_get_wal_replay_pause_state() = 'paused'");
    assert_eq!(paused.psql(ROWS), up_to(10));
    assert!(paused.try_psql("insert into ledger values (0)").unwrap_err().contains("read-only"));
    paused.psql("select pg_wal_replay_resume()");
    paused.wait_for("recovery is over", "select not pg_is_in_recovery()");
    paused.psql("insert into ledger values (13)");

    let mut promoted = ledger.product.restore(&ledger.scratch, &["--to", &target, "--action", "promote"]);
    promoted.start_promoted();
    promoted.psql("insert into ledger values (13)");
    assert_eq!(promoted.psql("select timeline_id from pg_control_checkpoint()"), "2");

    let mut shut_down = ledger.product.restore(&ledger.scratch, &["--to", &target, "--action", "shutdown"]);
    shut_down.launch();
    shut_down.wait_ended();
    assert_eq!(shut_down.control("Database cluster state"), "shut down in recovery", "{}", shut_down.log());
    assert!(shut_down.log().contains("recovery stopping after commit"), "{}", shut_down.log());
}

#[test]
fn restored_files_are_the_owners_alone_whatever_the_umask() {
    let Some(ledger) = Ledger::new() else { return };
    for umask in ["000", "077"] {
        let target = ledger.scratch.join(format!("umask{umask}"));
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut command = ledger.scratch.command("sh");
        command.args(["-c", &script]).arg(ledger.product.program("walarchive"));
        command.args(["restore", "--target-dir"]).arg(&target);
        command.envs(ledger.product.env().iter().map(|(name, value)| (name, value)));
        let output = Output::of(&command.output().unwrap());
        assert_eq!(output.code, Some(0), "{output:#?}");
        let mut files = 0;
        let mut waiting = vec![target.clone()];
        while let Some(path) = waiting.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = meta.permissions().mode() & 0o7777;
            let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, wanted, "umask {umask}: {} has {mode:o}", path.display());
            files += u32::from(meta.is_file());
            if meta.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        assert!(files > 500, "{files} files");
    }
}

#[test]
fn a_standby_follows_the_archive() {
    let Some(ledger) = Ledger::new() else { return };
    let mut standby = ledger.product.restore(&ledger.scratch, &["--standby"]);
    assert!(standby.data_dir().join("standby.signal").exists());
    assert!(!standby.data_dir().join("recovery.signal").exists());
    standby.append_conf("wal_retrieve_retry_interval = '100ms'");
    standby.start();
    standby.wait_for("the standby has everything", "select count(*) = 12 from ledger");
    for number in 13..=15 {
        ledger.cluster.psql(&format!("insert into ledger values ({number})"));
        ledger.cluster.archive_now();
        standby.wait_for("the standby follows", &format!("select count(*) = {number} from ledger"));
    }
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    standby.psql("select pg_promote()");
    standby.psql("insert into ledger values (16)");
    assert_eq!(standby.psql(ROWS), up_to(16));
}

#[test]
fn settings_of_an_earlier_recovery_do_no_harm() {
    let Some(mut ledger) = Ledger::new() else { return };
    ledger.cluster.stop(StopMode::Fast);
    let name = "name:mid";
    let target = ledger.scratch.join("again");
    assert_eq!(ledger.product.restore_to(&target, &["--to", name]).code, Some(0));
    let mut again = Cluster::adopt(&ledger.scratch).existing(target).unwrap();
    again.start_promoted();
    let mut rows: Vec<Row> = Vec::new();
    again.psql("truncate ledger");
    ledger.product.back_up(&again, &[]);
    write_rows(&again, &mut rows, 3);
    again.archive_now();
    again.stop(StopMode::Fast);
    let auto = fs::read_to_string(again.data_dir().join("postgresql.auto.conf")).unwrap();
    assert!(auto.contains("'mid'"), "the settings of the first recovery are there to do harm");
    for (target, last) in [
        (format!("xid:{}", rows[1].xid), 2),
        (rows[0].after.clone(), 1),
        (format!("lsn:{}", rows[1].lsn), 2),
        ("immediate".to_owned(), 0),
        ("latest".to_owned(), 3),
    ] {
        assert_eq!(ledger.rows_after(&["--to", &target]), up_to(last), "{target}");
    }
}
