//! `prune`, `check store`, and what programs that are killed at any point leave in an archive.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{
    Background, Cluster, Moments, Options, Product, Scratch, kill_tree, kills, sample, wait_until,
};

const LONG: Duration = Duration::from_secs(120);
const LEASE: Duration = Duration::from_secs(3);

/// A running cluster that archives; leases of its backups are short.
struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Live {
    fn new(scratch: Scratch, mut product: Product) -> Option<Live> {
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").start()?;
        cluster.archive_with(&product);
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        product.set("WALARCHIVE_BACKUP_WAL_WAIT", "30s");
        product.set("WALARCHIVE_BACKUP_LEASE", "3s");
        product.set("WALARCHIVE_BACKUP_CODEC", "none");
        Some(Live { scratch, product, cluster })
    }

    fn start_backup(&self) -> Background {
        let command = self.product.command(&["--json", "backup", "create", "--full"]);
        Background::start(command, self.scratch.join("backup-log"))
    }

    fn backups(&self) -> BTreeSet<String> {
        let list = self.product.json(&["backup", "list"]);
        let backups = list["backups"].as_array().unwrap();
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The same programs, for which what is older than a second is old.
    fn strict(&self) -> Product {
        self.product.but("WALARCHIVE_PRUNE_GRACE", "1s")
    }

    fn restores(&self, id: &str) {
        let target = self.scratch.join("proof");
        self.product.ok(&["restore", "--backup", id, "--target-dir", target.to_str().unwrap()]);
        self.cluster.tool("pg_verifybackup", &["-n", target.to_str().unwrap()]);
        fs::remove_dir_all(target).unwrap();
    }

    /// Kills `times` backups, each somewhere between its beginning and its end.
    fn kill_backups(&self, times: u32) {
        let begun = Instant::now();
        self.product.ok(&["backup", "create", "--full"]);
        let mut moments = Moments::new(begun.elapsed(), times);
        let mut listed = self.backups();
        let mut killed = 0;
        for _ in 0..times {
            let mut backup = self.start_backup();
            std::thread::sleep(moments.wait());
            let is_hit = backup.ended().is_none();
            moments.was_hit(is_hit);
            killed += u32::from(is_hit);
            kill_tree(backup.pid());
            let status = backup.wait(LONG);
            let now = self.backups();
            assert!(now.is_superset(&listed) && now.len() <= listed.len() + 1, "{now:?} after {listed:?}");
            assert!(!status.success() || now.len() > listed.len(), "0, and nothing is listed");
            listed = now;
        }
        assert!(killed > times / 2, "most were faster than their killer: {killed}");
    }
}

fn keys(document: &Value, list: &str) -> BTreeSet<String> {
    let list = document[list].as_array().unwrap();
    list.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
}

/// The archive's files, by their names in it.
fn stored(product: &Product) -> BTreeSet<String> {
    let dir = product.archive_dir();
    let files = sample::files_with(&dir, "");
    files.iter().map(|path| path.strip_prefix(&dir).unwrap().display().to_string()).collect()
}

/// The backup whose packs, manifest, pin or lease this is.
fn backup_of(key: &str) -> Option<&str> {
    let segments: Vec<_> = key.split('/').collect();
    match segments.as_slice() {
        [_, _, "packs" | "backups", id, ..] => Some(id),
        _ => None,
    }
}

#[test]
fn what_killed_backups_left_goes_and_all_else_stays() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(live) = Live::new(scratch, product) else { return };
    live.kill_backups(12);
    let listed = live.backups();
    let left = |keys: &BTreeSet<String>| -> BTreeSet<String> {
        keys.iter().filter(|key| backup_of(key).is_some_and(|id| !listed.contains(id))).cloned().collect()
    };
    assert!(!left(&stored(&live.product)).is_empty(), "the killed backups left nothing");
    // All is younger than the usual grace.
    let young = live.product.json(&["prune", "--yes"]);
    assert_eq!(young["removed"]["objects"], keys(&young, "remove").len());
    assert!(keys(&young, "remove").iter().all(|key| key.contains("/lease/")), "{young:#}");
    std::thread::sleep(LEASE + Duration::from_secs(3));
    let before = stored(&live.product);
    let dry = live.strict().json(&["prune"]);
    assert_eq!(dry["pruned"], false);
    assert_eq!(stored(&live.product), before, "a dry run removes nothing");
    let done = live.strict().json(&["prune", "--yes"]);
    assert_eq!(done["pruned"], true);
    assert_eq!(keys(&dry, "remove"), keys(&done, "remove"), "it lists what is removed");
    let after = stored(&live.product);
    assert_eq!(left(&after), BTreeSet::new());
    assert!(after.iter().all(|key| !key.contains('#') && !key.contains("/lease/")), "{after:#?}");
    let gone: BTreeSet<String> =
        before.difference(&after).map(|key| key.split('#').next().unwrap().to_owned()).collect();
    let planned = keys(&done, "remove");
    assert_eq!(gone, planned, "it removes what it lists");
    assert!(sample::names(&live.product.archive_dir().join("main")).len() == 1);
    for kind in ["packs", "backups"] {
        let root = live.product.archive_dir().join("main");
        let dir = root.join(&sample::names(&root)[0]).join(kind);
        let names: BTreeSet<_> = sample::names(&dir).into_iter().collect();
        // One that was killed before its first object leaves a directory that nothing tells of.
        assert!(
            names.is_superset(&listed) && names.len() <= listed.len() + 1,
            "empty directories stay in {kind}"
        );
    }
    assert_eq!(live.backups(), listed);
    listed.iter().for_each(|id| live.restores(id));
    let again = live.strict().json(&["prune", "--yes"]);
    assert_eq!(keys(&again, "remove"), BTreeSet::new());
}

fn send(process: &Background, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process.pid()).unwrap()).unwrap(), signal).unwrap();
}

/// Halts a backup that has stored something, and has not ended.
fn halted(live: &Live) -> Background {
    let listed = live.backups();
    let backup = live.start_backup();
    wait_until("the backup stores packs", LONG, || {
        let stored = stored(&live.product);
        stored.iter().any(|key| key.contains("/packs/") && !listed.contains(backup_of(key).unwrap()))
    });
    send(&backup, Signal::STOP);
    backup
}

#[test]
fn a_running_backup_is_protected_as_long_as_its_lease() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(mut live) = Live::new(scratch, product) else { return };
    live.cluster.pgbench_init(3);
    live.product.set("WALARCHIVE_BACKUP_LEASE", "20s");
    let mut backup = halted(&live);
    std::thread::sleep(Duration::from_secs(2));
    let before = stored(&live.product);
    let pruned = live.strict().json(&["prune", "--yes"]);
    assert!(keys(&pruned, "remove").iter().all(|key| backup_of(key).is_none()), "{pruned:#}");
    assert!(pruned["keep"].to_string().contains("lease"), "{pruned:#}");
    assert!(stored(&live.product).is_superset(&before));
    send(&backup, Signal::CONT);
    assert!(backup.wait(LONG).success(), "{}", backup.printed());
    let listed = live.backups();
    listed.iter().for_each(|id| live.restores(id));

    // One that stood still for longer than its lease has lost what it stored, and knows it.
    live.product.set("WALARCHIVE_BACKUP_LEASE", "2s");
    let mut backup = halted(&live);
    std::thread::sleep(Duration::from_secs(6));
    let pruned = live.strict().json(&["prune", "--yes"]);
    assert!(keys(&pruned, "remove").iter().any(|key| key.contains("/packs/")), "{pruned:#}");
    send(&backup, Signal::CONT);
    let status = backup.wait(LONG);
    assert!(!status.success(), "{}", backup.printed());
    assert_eq!(live.backups(), listed, "{}", backup.printed());
    live.product.ok(&["backup", "create"]);
}

/// A lease is renewed: a backup that takes longer than it is committed all the same.
#[test]
fn a_lease_is_renewed_while_the_backup_runs() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(mut live) = Live::new(scratch, product) else { return };
    live.product.set("WALARCHIVE_BACKUP_LEASE", "1s");
    live.cluster.append_conf("archive_command = '/bin/false'");
    live.cluster.reload();
    let mut backup = live.start_backup();
    let leases = |live: &Live| stored(&live.product).iter().filter(|key| key.contains("/lease/")).count();
    wait_until("the lease is renewed", LONG, || leases(&live) >= 4);
    assert!(backup.ended().is_none(), "{}", backup.printed());
    live.cluster.archive_with(&live.product);
    assert!(backup.wait(LONG).success(), "{}", backup.printed());
    assert_eq!(leases(&live), 0, "the leases go with the end");
    live.backups().iter().for_each(|id| live.restores(id));
}

/// `check store`, how it exits, and its first line.
fn check(product: &Product, code: i32, words: &[&str]) -> String {
    let run = product.run(&["check", "store"]);
    assert_eq!(run.code, Some(code), "{run:#?}");
    let first = run.stdout.lines().next().unwrap().to_owned();
    for word in words {
        assert!(first.contains(word), "{first:?} says nothing of {word:?}");
    }
    run.stdout
}

#[test]
fn a_directory_keeps_its_promises() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let before = stored(&product);
    let told = check(&product, 0, &["OK - ", "archive", "11"]);
    assert!(told.lines().skip(2).all(|line| line.starts_with("holds ")), "{told}");
    let document = product.json(&["check", "store", "--objects", "50"]);
    assert_eq!((&document["ok"], &document["status"]), (&true.into(), &"OK".into()));
    assert!(
        document["guarantees"]
            .as_array()
            .unwrap()
            .iter()
            .all(|found| found["holds"] == true && found["ms"].is_u64())
    );
    assert_eq!(stored(&product), before);
    assert!(!sample::names(&product.archive_dir()).iter().any(|name| name.starts_with("check-")));
    let gone = product
        .but("WALARCHIVE_ARCHIVE", "file:///nowhere/at/all")
        .but("WALARCHIVE_STORE_RETRY_BUDGET", "1s");
    check(&gone, 3, &["UNKNOWN - ", "/nowhere/at/all"]);
    let unknown = gone.run(&["--json", "check", "store"]).json();
    assert_eq!((&unknown["ok"], &unknown["status"]), (&false.into(), &"UNKNOWN".into()));
}

fn product_in(scratch: &Scratch, bucket: &Bucket) -> Product {
    let options = Options { init: false, archive: Some(bucket.url()), ..Options::default() };
    let mut product = Product::with(scratch, options);
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
    product.set("WALARCHIVE_STORE_PART_SIZE", "5MiB");
    product.ok(&["init"]);
    product
}

/// A real store keeps what archives need, and is left as it was.
fn keeps_its_promises(scratch: &Scratch, bucket: Option<Bucket>, code: i32, leftovers: &str) {
    let Some(bucket) = bucket else { return };
    let product = product_in(scratch, &bucket);
    let run = product.run(&["--json", "check", "store"]);
    assert_eq!(run.code, Some(code), "{}: {run:#?}", bucket.url());
    let found = run.json();
    let found = found["guarantees"].as_array().unwrap().iter().find(|found| found["name"] == "leftovers");
    let detail = found.unwrap()["detail"].to_string();
    assert!(detail.contains(leftovers), "{}: {detail}", bucket.url());
    assert_eq!(bucket.raw().list().len(), 1, "only archive.json is left in {}", bucket.url());
    assert_eq!(bucket.raw().unfinished(), [], "{}", bucket.url());
}

#[test]
fn seaweed_keeps_its_promises() {
    let scratch = Scratch::new();
    keeps_its_promises(&scratch, stores::seaweed(&scratch), 0, "found by 'prune'");
}

#[test]
fn moto_keeps_its_promises() {
    let scratch = Scratch::new();
    // Its uploads all began on the same day in 2010, and that is found out.
    keeps_its_promises(&scratch, stores::moto(&scratch), 1, "clock");
}

#[test]
fn google_keeps_its_promises() {
    let scratch = Scratch::new();
    keeps_its_promises(&scratch, stores::gcs(&scratch), 0, "found by 'prune'");
}

#[test]
fn azure_keeps_its_promises() {
    let scratch = Scratch::new();
    keeps_its_promises(&scratch, stores::azurite(&scratch), 0, "by itself");
}

fn push(product: &Product, file: &Path) -> Command {
    product.command(&["wal", "push", file.to_str().unwrap()])
}

#[test]
fn killed_pushes_to_a_bucket_lose_nothing() {
    let scratch = Scratch::new();
    let Some(bucket) = stores::seaweed(&scratch) else { return };
    let mut product = product_in(&scratch, &bucket);
    product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
    let file = |n: u32| {
        let name = sample::segment_name(1, n);
        (scratch.write(&name, sample::segment(1, n, n.into())), name)
    };
    let begun = Instant::now();
    assert!(push(&product, &file(1).0).status().unwrap().success());
    let times = kills(200) * 4 / 5;
    let mut moments = Moments::new(begun.elapsed(), times);
    let (mut acknowledged, mut cut) = (BTreeSet::from([1]), 0);
    for n in 2..=times {
        let mut push = Background::start(push(&product, &file(n).0), scratch.join("push-log"));
        std::thread::sleep(moments.wait());
        let is_hit = push.ended().is_none();
        moments.was_hit(is_hit);
        cut += u32::from(is_hit);
        kill_tree(push.pid());
        if push.wait(LONG).success() {
            acknowledged.insert(n);
        }
    }
    println!("{cut} of {times} pushes were killed, {} are acknowledged", acknowledged.len());
    assert!(cut > times / 4);
    let mut whole = 0;
    for n in 1..=times {
        let (path, name) = file(n);
        let dest = scratch.join("fetched");
        let fetched = product.run(&["wal", "fetch", &name, dest.to_str().unwrap()]);
        match fetched.code {
            Some(0) => assert_eq!(fs::read(&dest).unwrap(), fs::read(path).unwrap(), "{name}"),
            Some(1) => assert!(!acknowledged.contains(&n), "{name} was acknowledged, and is lost"),
            _ => panic!("{name} is neither whole nor absent: {fetched:?}"),
        }
        whole += usize::from(fetched.code == Some(0));
        let _ = fs::remove_file(dest);
    }
    // archive.json and whole segments, and nothing else that shows.
    assert_eq!(bucket.raw().list().len(), whole + 1);
    std::thread::sleep(Duration::from_secs(2));
    product.but("WALARCHIVE_PRUNE_GRACE", "1s").ok(&["prune", "--yes"]);
    assert!(bucket.raw().unfinished().is_empty());
    // What was cut off can be pushed again.
    for n in (1..=times).step_by(7) {
        assert!(push(&product, &file(n).0).status().unwrap().success());
    }
}

#[test]
fn killed_backups_to_a_bucket_leave_nothing_after_prune() {
    let scratch = Scratch::new();
    let Some(bucket) = stores::seaweed(&scratch) else { return };
    let product = product_in(&scratch, &bucket);
    let Some(live) = Live::new(scratch, product) else { return };
    live.kill_backups(kills(200) / 5);
    let listed = live.backups();
    let raw = bucket.raw();
    println!("{} backups are whole; {} uploads were left", listed.len(), raw.unfinished().len());
    assert!(!raw.unfinished().is_empty(), "no kill hit an upload");
    // The last one's lease may still last.
    std::thread::sleep(LEASE + Duration::from_secs(3));
    let before = raw.list();
    let dry = live.strict().json(&["prune"]);
    assert_eq!(raw.list(), before, "a dry run removes nothing");
    assert!(!raw.unfinished().is_empty(), "a dry run removes nothing");
    assert!(
        dry["remove"].as_array().unwrap().iter().any(|gone| gone["what"] == "unfinished upload"),
        "{dry:#}"
    );
    let done = live.strict().json(&["prune", "--yes"]);
    assert_eq!(keys(&dry, "remove"), keys(&done, "remove"));
    assert_eq!(raw.unfinished(), []);
    let lost: Vec<_> = raw.list();
    let lost: Vec<_> =
        lost.iter().filter(|(key, _)| backup_of(key).is_some_and(|id| !listed.contains(id))).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(live.backups(), listed);
    for id in listed.iter().take(5) {
        live.restores(id);
    }
}
