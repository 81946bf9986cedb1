//! What monitoring is told: from what is stored, and unknown where it cannot be told.

use std::fs;
use std::time::Duration;

use walarchive_tests::{Cluster, Options, Product, Scratch, wait_until};

struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Live {
    fn new() -> Option<Live> {
        let scratch = Scratch::new();
        let product = Product::new(&scratch);
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).start()?;
        cluster.archive_with(&product);
        let mut product = product.connected(&cluster);
        product.set("PGDATA", cluster.data_dir().to_str().unwrap());
        Some(Live { scratch, product, cluster })
    }

    /// The exit code, and the line.
    fn check(&self, product: &Product, args: &[&str]) -> (i32, String) {
        let run = product.run(&[&["check"], args].concat());
        assert_eq!(run.stdout.lines().count(), 1, "{run:#?}");
        (run.code.unwrap(), run.stdout)
    }

    fn is(&self, args: &[&str], code: i32, said: &str) {
        let (found, line) = self.check(&self.product, args);
        assert_eq!(found, code, "{args:?}: {line}");
        let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code as usize];
        assert!(line.starts_with(&format!("{word} - ")) && line.contains(said), "{args:?}: {line}");
    }
}

#[test]
fn backups_and_dumps_grow_old() {
    let Some(live) = Live::new() else { return };
    live.is(&["dump"], 2, "no dump");
    live.product.ok(&["backup", "create"]);
    live.product.ok(&["dump", "create"]);
    for what in ["backup", "dump"] {
        live.is(&[what], 0, "age_seconds=");
        std::thread::sleep(Duration::from_millis(2100));
        live.is(&[what, "--critical", "1s"], 2, "");
        live.is(&[what, "--warning", "1s"], 1, "");
        live.is(&[what, "--warning", "1s", "--critical", "1h"], 1, "");
        live.is(&[what, "--warning", "1h", "--critical", "2h"], 0, "");
    }
    // A database that is dumped no more is seen, whatever else is dumped.
    live.cluster.psql("create database late");
    live.product.ok(&["dump", "create"]);
    live.cluster.psql("drop database late");
    std::thread::sleep(Duration::from_millis(4100));
    live.product.ok(&["dump", "create"]);
    live.is(&["dump", "--critical", "2s"], 2, "late");
    let mut writer = live.product.clone();
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    for what in ["backup", "dump"] {
        let (code, line) = live.check(&writer, &[what]);
        assert_eq!(code, 3, "{line}");
    }
    // What stands in the way of a restore counts, not what a run has said.
    for (what, packs) in [("backup", "/packs/"), ("dump", "/dumps/packs/")] {
        let objects = walarchive_tests::filled::files_below(&live.product.archive_dir());
        let is_of_backup =
            |path: &&std::path::PathBuf| path.to_string_lossy().contains("/dumps/") == (what == "dump");
        let pack =
            objects.iter().filter(is_of_backup).rfind(|path| path.to_string_lossy().contains(packs)).unwrap();
        let away = live.scratch.join("away");
        fs::rename(pack, &away).unwrap();
        live.is(&[what], 2, "pack missing");
        fs::rename(&away, pack).unwrap();
    }
    let backup = live.product.json(&["backup", "list"])["backups"][0].clone();
    let segments = walarchive_tests::filled::files_below(&live.product.archive_dir());
    let needed = segments.iter().find(|path| path.to_string_lossy().contains("/wal/00000001/")).unwrap();
    let lsn = backup["start_lsn"].as_str().unwrap().to_owned();
    let name = live.cluster.psql(&format!("select pg_walfile_name('{lsn}'::pg_lsn + 1)"));
    let of_backup = segments.iter().find(|path| path.ends_with(&name)).unwrap_or(needed);
    fs::remove_file(of_backup).unwrap();
    live.is(&["backup"], 2, "no backup that can be restored");
}

/// The newest one is sound; that an older one cannot be restored any more counts all the same.
#[test]
fn damage_is_told_whatever_the_age() {
    let Some(live) = Live::new() else { return };
    for _ in 0..2 {
        live.product.ok(&["backup", "create"]);
        live.product.ok(&["dump", "create"]);
    }
    for (what, place) in [("backup", "/backups/"), ("dump", "/dumps/manifests/")] {
        live.is(&[what], 0, "");
        let objects = walarchive_tests::filled::files_below(&live.product.archive_dir());
        let mut manifests = objects.iter().filter(|path| path.to_string_lossy().contains(place));
        let oldest = manifests.find(|path| path.ends_with("manifest")).unwrap();
        fs::write(oldest, "nothing").unwrap();
        live.is(&[what], 2, "cannot be restored");
    }
    let other = Product::new(&live.scratch).but("WALARCHIVE_CLUSTER", "main");
    let mut empty = other.clone();
    empty.set("WALARCHIVE_SYSTEM_ID", &walarchive_tests::sample::SYSTEM_ID.to_string());
    let (code, line) = live.check(&empty, &["wal"]);
    assert_eq!(code, 2, "{line}");
}

#[test]
fn wal_that_waits_and_wal_that_is_missing_are_told() {
    let Some(live) = Live::new() else { return };
    for n in 0..3 {
        live.cluster.psql(&format!("create table t{n}()"));
        live.cluster.archive_now();
    }
    live.is(&["wal"], 0, "waiting_files=0");
    live.cluster.psql("alter system set archive_command = 'false'");
    live.cluster.reload();
    live.cluster.psql("create table w()");
    live.cluster.switch_wal();
    wait_until("a segment waits", Duration::from_secs(20), || {
        !live.check(&live.product, &["wal"]).1.contains("waiting_files=0")
    });
    std::thread::sleep(Duration::from_millis(2100));
    live.is(&["wal", "--critical", "1s"], 2, "to be archived, the first for");
    let mut elsewhere = live.product.clone();
    elsewhere.unset("PGDATA");
    let (code, line) = live.check(&elsewhere, &["wal"]);
    assert_eq!(code, 3, "{line}");
    let segments = walarchive_tests::filled::files_below(&live.product.archive_dir());
    let mut segments = segments.iter().filter(|path| path.to_string_lossy().contains("/wal/00000001/"));
    fs::remove_file(segments.nth(1).unwrap()).unwrap();
    live.is(&["wal"], 2, "missing");
    let (code, line) = live.check(&elsewhere, &["wal"]);
    assert_eq!(code, 2, "a gap is critical wherever it is seen from: {line}");
}

#[test]
fn copies_for_other_readers_are_not_behind() {
    let scratch = Scratch::new();
    let product = Product::with(&scratch, Options { encrypted: false, ..Options::default() });
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    cluster.archive_with(&product);
    product.back_up(&cluster, &[]);
    let offsite = Product::new(&scratch);
    let recipient = offsite.ok(&["key", "show", offsite.identity_file().to_str().unwrap()]);
    let recipient = recipient.split_whitespace().find(|word| word.starts_with("age1")).unwrap();
    let url = format!("file://{}", scratch.join("copy").display());
    product.ok(&["copy", "--to", &url, "--recipient", recipient]);
    let run = product.run(&["check", "copy", "--to", &url]);
    assert!(run.code == Some(0) && run.stdout.contains("everything"), "{run:#?}");
    // What the source itself has lost never comes.
    let newest = product.back_up(&cluster, &[])["id"].as_str().unwrap().to_owned();
    let manifest = product.cluster_dir().join("backups").join(newest).join("manifest");
    fs::write(&manifest, "garbage").unwrap();
    let run = product.run(&["check", "copy", "--to", &url]);
    assert!(run.code == Some(2) && run.stdout.contains("does not come"), "{run:#?}");
    fs::remove_dir_all(manifest.parent().unwrap()).unwrap();
    // A history that cannot be read leads nowhere.
    let mut product = product;
    product.set("PGDATA", cluster.data_dir().to_str().unwrap());
    let history = scratch.write("00000002.history", "1\t0/12300028\tno reason\n");
    product.ok(&["wal", "push", history.to_str().unwrap()]);
    assert_eq!(product.run(&["check", "wal"]).code, Some(0));
    let objects = walarchive_tests::filled::files_below(&product.archive_dir());
    let history = objects.iter().find(|path| path.ends_with("00000002.history")).unwrap();
    fs::write(history, "nothing").unwrap();
    let run = product.run(&["check", "wal"]);
    assert_eq!(run.code, Some(2), "{run:#?}");
}

#[test]
fn copies_that_are_behind_are_told() {
    let Some(live) = Live::new() else { return };
    live.product.ok(&["backup", "create"]);
    let copy = live.scratch.join("copy");
    let url = format!("file://{}", copy.display());
    live.is(&["copy", "--to", &url], 3, "");
    live.product.ok(&["copy", "--to", &url]);
    live.is(&["copy", "--to", &url], 0, "everything");
    live.product.ok(&["backup", "create"]);
    live.is(&["copy", "--to", &url], 0, "lacks");
    std::thread::sleep(Duration::from_millis(2100));
    live.is(&["copy", "--to", &url, "--critical", "1s"], 2, "lacks");
    let other = Product::new(&live.scratch);
    live.is(&["copy", "--to", &format!("file://{}", other.archive_dir().display())], 2, "another archive");
    live.is(&["copy"], 3, "--to");
}

#[test]
fn other_programs_are_told_in_their_own_ways() {
    let Some(live) = Live::new() else { return };
    live.product.ok(&["backup", "create"]);
    let file = live.scratch.join("walarchive.prom");
    let (code, line) =
        live.check(&live.product, &["backup", "--nsca", "db1", "--prometheus", file.to_str().unwrap()]);
    assert_eq!(code, 0);
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    assert_eq!(fields[..3], ["db1", "walarchive backup", "0"], "{line}");
    let metrics = fs::read_to_string(&file).unwrap();
    assert!(metrics.contains("walarchive_check_status{check=\"backup\"} 0\n"), "{metrics}");
    assert!(metrics.contains("walarchive_check_age_seconds{check=\"backup\"} "), "{metrics}");
    let document = live.product.json(&["check", "backup"]);
    assert_eq!((&document["status"], &document["ok"]), (&"OK".into(), &true.into()));
    let away = live.product.but("WALARCHIVE_ARCHIVE", "file:///nowhere/at/all");
    let (code, line) = live.check(&away, &["backup"]);
    assert_eq!(code, 3, "{line}");
    let run = away.run(&["check", "backup", "--prometheus", file.to_str().unwrap()]);
    assert_eq!(run.code, Some(3));
    assert!(fs::read_to_string(&file).unwrap().contains("status{check=\"backup\"} 3"));
}

#[test]
fn retention_that_is_not_applied_or_not_kept_is_told() {
    let Some(mut live) = Live::new() else { return };
    live.product.ok(&["backup", "create"]);
    live.is(&["retention"], 0, "no rule is set");
    live.product.set("WALARCHIVE_BACKUP_KEEP_LAST", "1");
    live.cluster.psql("create table more as select generate_series(1, 1000)");
    live.product.ok(&["backup", "create"]);
    // It is to go from the moment on at which the second one was there.
    live.is(&["retention"], 0, "overdue_backups=0");
    std::thread::sleep(Duration::from_millis(3100));
    live.is(&["retention", "--warning", "2s"], 1, "overdue_backups=1");
    live.is(&["retention", "--warning", "1s", "--critical", "2s"], 2, "prune");
    live.is(&["retention", "--warning", "1s", "--critical", "1h"], 1, "prune");
    live.product.ok(&["prune", "--yes"]);
    live.is(&["retention", "--warning", "1s"], 0, "overdue_backups=0");
    // An archive that is older than the window does not reach back so far.
    live.product.set("WALARCHIVE_BACKUP_WINDOW", "1h");
    live.is(&["retention"], 0, "");
    live.product.set("WALARCHIVE_BACKUP_WINDOW", "1s");
    live.product.ok(&["backup", "create", "--full"]);
    live.is(&["retention", "--warning", "1h"], 0, "");
    // A rule of the store's own that removes what is kept.
    let objects = walarchive_tests::filled::files_below(&live.product.archive_dir());
    let pack = objects.iter().rfind(|path| path.to_string_lossy().contains("/packs/")).unwrap();
    fs::remove_file(pack).unwrap();
    live.is(&["retention"], 2, "1 pack missing that backups or dumps need");
    let mut writer = live.product.clone();
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let (code, line) = live.check(&writer, &["retention"]);
    assert_eq!(code, 3, "{line}");
}
