//! Promotions: what the archive holds of several timelines, and that each of them can be had.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use walarchive_core::wal::Lsn;
use walarchive_tests::{Cluster, Product, Scratch, StopMode};

const ROWS: &str = "select string_agg(n::text, ' ' order by n) from ledger";
const SOON: Duration = Duration::from_secs(60);

fn insert(cluster: &Cluster, rows: &[u32]) {
    for row in rows {
        cluster.psql(&format!("insert into ledger values ({row})"));
    }
}

/// Rows 1–4 and on timeline 1: 5, 6 (after the point `fork`), 7, 8; on timeline 2: 101, 102, backup, 103, 104.
struct Fork {
    scratch: Scratch,
    product: Product,
    /// The promoted cluster.
    child: Cluster,
    backups: [Value; 2],
    /// Where timeline 2 begins, as its history file says.
    branch: String,
}

impl Fork {
    fn new() -> Option<Fork> {
        let scratch = Scratch::new();
        let mut parent = Cluster::builder(&scratch).wal_segment_mib(1).start()?;
        let product = Product::new(&scratch);
        parent.archive_with(&product);
        parent.psql("create table ledger (n int primary key)");
        insert(&parent, &[1, 2]);
        let first = product.back_up(&parent, &[]);
        insert(&parent, &[3, 4]);
        parent.archive_now();
        parent.psql("select pg_create_restore_point('fork')");
        insert(&parent, &[5, 6]);
        parent.archive_now();
        insert(&parent, &[7]);
        parent.archive_now();
        insert(&parent, &[8]);
        parent.archive_now();
        parent.stop(StopMode::Fast);

        let target = scratch.join("child");
        let output = product.restore_to(&target, &["--to", "name:fork"]);
        assert_eq!(output.code, Some(0), "{output:#?}");
        let mut child = Cluster::adopt(&scratch).existing(target)?;
        child.start_promoted();
        assert_eq!(child.psql(ROWS), "1 2 3 4");
        child.wait_archived("00000002.history", SOON);
        insert(&child, &[101, 102]);
        let second = product.back_up(&child, &[]);
        insert(&child, &[103]);
        child.archive_now();
        insert(&child, &[104]);
        child.archive_now();
        let history = fs::read_to_string(child.data_dir().join("pg_wal/00000002.history")).unwrap();
        let branch = history.split_whitespace().nth(1).unwrap().to_owned();
        Some(Fork { scratch, product, child, backups: [first, second], branch })
    }

    fn id(&self, backup: usize) -> &str {
        self.backups[backup]["id"].as_str().unwrap()
    }

    /// Restores, and gives the backup, the timeline that was followed, and the rows.
    fn rows_after(&self, args: &[&str]) -> (String, u64, String) {
        let plan = self.product.restore_to(&self.scratch.join("no"), &[args, &["--dry-run"]].concat()).json();
        let mut restored = self.product.restore(&self.scratch, args);
        restored.start_promoted();
        let rows = restored.psql(ROWS);
        restored.stop(StopMode::Immediate);
        fs::remove_dir_all(restored.data_dir()).unwrap();
        (plan["backup"].as_str().unwrap().to_owned(), plan["timeline"].as_u64().unwrap(), rows)
    }

    fn segment(&self, timeline: u32, lsn: &str) -> String {
        // One byte further: the name of a position between two segments is that of the one before.
        let next = lsn.parse::<Lsn>().unwrap().checked_add(1).unwrap();
        let name = self.child.psql(&format!("select pg_walfile_name('{next}')"));
        format!("{timeline:08X}{}", &name[8..])
    }
}

const OLD: &str = "1 2 3 4 5 6 7 8";
const NEW: &str = "1 2 3 4 101 102 103 104";

fn sorted(rows: &str) -> String {
    let mut numbers: Vec<u32> = rows.split(' ').map(|row| row.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_timeline_can_be_had() {
    let Some(fork) = Fork::new() else { return };
    let (first, second) = (fork.id(0).to_owned(), fork.id(1).to_owned());
    assert_eq!((&fork.backups[0]["timeline"], &fork.backups[1]["timeline"]), (&json!(1), &json!(2)));
    let had = |args: &[&str]| {
        let (backup, timeline, rows) = fork.rows_after(args);
        (backup, timeline, sorted(&rows))
    };
    assert_eq!(had(&[]), (second.clone(), 2, NEW.to_owned()));
    assert_eq!(had(&["--timeline", "1"]), (first.clone(), 1, OLD.to_owned()));
    // From the older backup through the promotion.
    assert_eq!(had(&["--backup", &first]), (first.clone(), 2, NEW.to_owned()));
    assert_eq!(had(&["--backup", &first, "--timeline", "2"]), (first.clone(), 2, NEW.to_owned()));
    assert_eq!(had(&["--backup", &first, "--timeline", "current"]), (first.clone(), 1, OLD.to_owned()));
    assert_eq!(had(&["--backup", &second, "--timeline", "current"]), (second.clone(), 2, NEW.to_owned()));
    let (_, _, rows) = fork.rows_after(&["--backup", &first, "--to", "name:fork", "--timeline", "1"]);
    assert_eq!(rows, "1 2 3 4");

    let refused = |args: &[&str]| {
        let target = fork.scratch.join("refused");
        let output = fork.product.restore_to(&target, args);
        assert_eq!(output.code, Some(3), "{args:?}: {output:#?}");
        assert!(!target.exists());
        output.stderr
    };
    let other = refused(&["--timeline", "1", "--backup", &second]);
    assert!(other.contains(&second), "{other}");
    let unknown = refused(&["--timeline", "7"]);
    assert!(unknown.contains("00000007.history"), "{unknown}");
}

#[test]
fn the_list_shows_branches_ranges_and_gaps() {
    let Some(fork) = Fork::new() else { return };
    let list = || fork.product.json(&["wal", "list"])["timelines"].clone();
    let listed = list();
    let names = |timeline: u32| {
        let dir = fork.product.cluster_dir().join(format!("wal/{timeline:08X}/00000000"));
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.len() == 24);
        names.sort();
        names
    };
    for (n, timeline) in [1, 2].into_iter().enumerate() {
        let stored = names(timeline);
        let shown = &listed[n];
        assert_eq!(shown["timeline"], timeline);
        assert_eq!(shown["first"], *stored.first().unwrap());
        assert_eq!(shown["last"], *stored.last().unwrap());
        assert_eq!(shown["segments"], stored.len());
        assert_eq!(shown["missing"], json!([]), "{listed:#}");
    }
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!((&listed[1]["parent"], &listed[1]["branch_lsn"]), (&json!(1), &json!(fork.branch)));
    // A timeline begins with the segment that it branches off in.
    assert_eq!(listed[1]["first"], fork.segment(2, &fork.branch));
    let text = fork.product.ok(&["wal", "list"]);
    assert!(text.contains(&format!("1 at {}", fork.branch)), "{text}");

    // One of the parent that the child does not need, one that it does, and one of the child's own.
    let (one, two) = (names(1), names(2));
    let after_fork = &one[one.len() - 2];
    assert!(after_fork[8..] > two[0][8..]);
    let object = fork.product.wal_object(after_fork);
    let kept = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    assert_eq!(list()[0]["missing"], json!([after_fork]));
    assert_eq!(sorted(&fork.rows_after(&["--backup", fork.id(0)]).2), NEW);
    let refused = |args: &[&str], missing: &str| {
        let target = fork.scratch.join("refused");
        let output = fork.product.restore_to(&target, args);
        assert_eq!(output.code, Some(3), "{args:?}: {output:#?}");
        assert!(output.stderr.contains(missing), "{missing}: {output:#?}");
        assert!(!target.exists());
    };
    refused(&["--timeline", "1"], after_fork);
    fs::write(&object, kept).unwrap();
    fork.scratch.own(&object);

    let needed = one.iter().rev().find(|name| name[8..] < two[0][8..]).unwrap();
    let object = fork.product.wal_object(needed);
    let kept = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    assert_eq!(list()[0]["missing"], json!([needed]));
    refused(&["--backup", fork.id(0)], needed);
    assert_eq!(sorted(&fork.rows_after(&[]).2), NEW);
    fs::write(&object, kept).unwrap();
    fork.scratch.own(&object);

    let own = &two[two.len() - 2];
    fs::remove_file(fork.product.wal_object(own)).unwrap();
    assert_eq!(list()[1]["missing"], json!([own]));
    refused(&[], own);
}

#[test]
fn a_server_promoted_without_archiving_brings_its_history_along() {
    let scratch = Scratch::new();
    let Some(mut parent) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    parent.archive_with(&product);
    parent.psql("create table ledger (n int primary key)");
    insert(&parent, &[1]);
    product.back_up(&parent, &[]);
    parent.stop(StopMode::Fast);
    let target = scratch.join("kept");
    assert_eq!(product.restore_to(&target, &[]).code, Some(0));
    let mut kept = Cluster::adopt(&scratch).option("archive_mode", "off").existing(target.clone()).unwrap();
    kept.start_promoted();
    kept.stop(StopMode::Fast);
    let status = target.join("pg_wal/archive_status/00000002.history");
    assert!(
        !status.with_extension("history.ready").exists() && !status.with_extension("history.done").exists()
    );
    let mut kept = Cluster::adopt(&scratch).option("archive_mode", "on").existing(target).unwrap();
    kept.start();
    insert(&kept, &[2]);
    kept.archive_now();
    kept.stop(StopMode::Fast);
    let history = product.cluster_dir().join("wal/00000002.history");
    assert!(history.is_file());
    let mut restored = product.restore(&scratch, &[]);
    restored.start_promoted();
    assert_eq!(restored.psql(ROWS), "1 2");

    // Where the file is lost, nobody follows the timeline, and that is told.
    fs::remove_file(history).unwrap();
    let plan = product.restore_to(&scratch.join("no"), &["--dry-run"]);
    assert!(
        plan.stderr.contains("00000002.history") || plan.stdout.contains("00000002.history"),
        "{plan:#?}"
    );
    for command in [["wal", "list"], ["status", "-v"]] {
        let output = product.run(&command);
        assert!(output.stderr.contains("wal push pg_wal/00000002.history"), "{output:#?}");
    }
}

#[test]
fn the_first_segment_of_a_timeline_may_be_missing() {
    let Some(fork) = Fork::new() else { return };
    let first = fork.segment(2, &fork.branch);
    fs::remove_file(fork.product.wal_object(&first)).unwrap();
    let listed = fork.product.json(&["wal", "list"]);
    assert_eq!(listed["timelines"][1]["missing"], json!([first]));
    let target = fork.scratch.join("refused");
    let output = fork.product.restore_to(&target, &["--backup", fork.id(0)]);
    assert_eq!(output.code, Some(3), "{output:#?}");
    assert!(output.stderr.contains(&first) && !target.exists(), "{output:#?}");
    // The parent's segment of that number is no substitute, and no obstacle to the parent.
    assert_eq!(fork.rows_after(&["--timeline", "1"]).2, OLD);
}

#[test]
fn files_of_every_kind_are_shown() {
    let Some(fork) = Fork::new() else { return };
    let show = |name: &str| fork.product.json(&["wal", "show", name]);
    let segment = fork.segment(2, &fork.branch);
    let shown = show(&segment);
    assert_eq!((&shown["kind"], &shown["timeline"]), (&json!("segment"), &json!(2)));
    assert_eq!((&shown["data_bytes"], &shown["name"]), (&json!(1 << 20), &json!(segment)));
    let object = fork.product.wal_object(&segment);
    assert_eq!(shown["stored_bytes"], fs::metadata(object).unwrap().len());
    // The first byte of segment N of 1 MiB.
    let number = u32::from_str_radix(&segment[16..], 16).unwrap();
    let start = format!("0/{:X}", number << 20);
    assert_eq!(shown["start_lsn"], start);

    let history = show("00000002.history");
    assert_eq!((&history["kind"], &history["timeline"]), (&json!("history"), &json!(2)));
    let text = fs::read(fork.child.data_dir().join("pg_wal/00000002.history")).unwrap();
    assert_eq!(history["data_bytes"], text.len());

    // The server's own note of each backup: SEGMENT.OFFSET.backup.
    let start = fork.backups[1]["start_lsn"].as_str().unwrap();
    let dir = fork.product.cluster_dir().join("wal/00000002/00000000");
    let mut notes = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let note = notes.find(|name| name.ends_with(".backup")).expect("a backup history file on timeline 2");
    assert!(note.starts_with(&fork.segment(2, start)), "{note} {start}");
    assert_eq!(show(&note)["kind"], "backup");
    let dest = fork.scratch.join("note");
    fork.product.ok(&["wal", "fetch", &note, dest.to_str().unwrap()]);
    let fetched = fs::read_to_string(dest).unwrap();
    assert!(fetched.starts_with(&format!("START WAL LOCATION: {start} ")), "{fetched}");

    for absent in ["000000020000000000000FFF", "00000009.history"] {
        assert_eq!(fork.product.run(&["wal", "show", absent]).code, Some(1), "{absent}");
    }
    for wrong in ["nonsense", "00000002000000000000000"] {
        assert_eq!(fork.product.run(&["wal", "show", wrong]).code, Some(2), "{wrong}");
    }
}

/// A standby without streaming gets the primary's last, incomplete segment by hand, as after a crash, and is promoted.
#[test]
fn a_promotion_leaves_a_partial_segment() {
    let scratch = Scratch::new();
    let Some(mut primary) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    primary.archive_with(&product);
    primary.psql("create table ledger (n int primary key)");
    insert(&primary, &[1]);
    let backup = product.back_up(&primary, &[]);
    insert(&primary, &[2]);
    primary.archive_now();
    insert(&primary, &[3]);
    let last = primary.psql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    primary.stop(StopMode::Immediate);
    assert!(!product.wal_object(&last).exists());

    let target = scratch.join("standby");
    assert_eq!(product.restore_to(&target, &["--standby"]).code, Some(0));
    let copy = target.join("pg_wal").join(&last);
    fs::copy(primary.data_dir().join("pg_wal").join(&last), &copy).unwrap();
    scratch.own(&copy);
    let mut standby = Cluster::adopt(&scratch).existing(target).unwrap();
    standby.append_conf("wal_retrieve_retry_interval = '100ms'");
    standby.start();
    standby.wait_for("all is replayed", "select count(*) = 3 from ledger");
    standby.psql("select pg_promote()");
    let partial = format!("{last}.partial");
    standby.wait_archived("00000002.history", SOON);
    standby.wait_archived(&partial, SOON);
    insert(&standby, &[4]);
    standby.archive_now();

    let listed = product.json(&["wal", "list"])["timelines"].clone();
    assert_eq!(listed[0]["partial"], json!([partial]));
    assert!(listed[0]["last"].as_str().unwrap() < last.as_str(), "a partial segment is not a segment");
    assert_eq!((&listed[0]["missing"], &listed[1]["missing"]), (&json!([]), &json!([])));
    let shown = product.json(&["wal", "show", &partial]);
    assert_eq!((&shown["kind"], &shown["data_bytes"]), (&json!("partial"), &json!(1 << 20)));
    let dest = scratch.join("fetched");
    product.ok(&["wal", "fetch", &partial, dest.to_str().unwrap()]);
    assert!(dest.metadata().unwrap().len() == 1 << 20);
    // Nobody gets it under the name of the segment that it might have become.
    let dest = scratch.join("whole");
    assert_eq!(product.run(&["wal", "fetch", &last, dest.to_str().unwrap()]).code, Some(1));

    let mut restored = product.restore(&scratch, &["--backup", backup["id"].as_str().unwrap()]);
    restored.start_promoted();
    assert_eq!(restored.psql(ROWS), "1 2 3 4");
    assert_eq!(restored.psql("select timeline_id from pg_control_checkpoint()"), "3");
}
