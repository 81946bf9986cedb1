//! Stores that lie, stores that are gone, and those that others tidy up beside a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walarchive_tests::proxy::{Fault, Proxy, Rule};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Background, Options, Product, bytes_below, wait_until};

use super::Night;

const PATIENCE: Duration = Duration::from_secs(60);

/// A product whose archive is in a bucket, made beside that of the night.
fn in_bucket(night: &Night, bucket: &Bucket) -> Product {
    let mut product = night.product.but("WALARCHIVE_ARCHIVE", &bucket.url());
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
    product
}

impl Night {
    fn make_app(&self) {
        self.sql("postgres", "create database app");
        self.sql("app", "create table t as select n, md5(n::text) t from generate_series(1, 20000) n");
    }
}

const OF_APP: [&str; 5] = ["dump", "create", "--no-globals", "--database", "app"];

#[test]
fn what_a_store_gives_back_otherwise_is_no_dump() {
    let Some(mut night) = Night::begin(Options { init: false, ..Options::default() }) else { return };
    let Some(bucket) = stores::seaweed(&night.scratch) else { return };
    let proxy = Proxy::start(bucket.endpoint().parse().unwrap());
    night.product = in_bucket(&night, &bucket.with_endpoint(&proxy.addr().to_string()));
    night.product.set("WALARCHIVE_DUMP_KEEP_LAST", "1");
    night.product.ok(&["init"]);
    night.make_app();
    assert_eq!(night.product.run(&OF_APP).code, Some(0));
    let (good, before) = (night.ids("app"), bucket.raw().list());
    for objects in ["/packs/", "/manifests/"] {
        night.sql("app", "update t set t = md5(t) where n % 10 = 0");
        // The retention that follows a good dump reads manifests, too: what is told must be of the read-back.
        let of_this_run = Rule::always(Fault::FlipAnswer(100)).method("GET");
        proxy.set([of_this_run.path(objects)]);
        let failed = night.product.run(&[&["--json"], &OF_APP[..]].concat());
        assert!(proxy.applied() > 0, "{objects} were read back");
        proxy.clear();
        assert_eq!(failed.code, Some(4), "{objects}: {failed:?}");
        let report = failed.json();
        assert_eq!((&report["dumps"][0]["database"], &report["failed"]), (&"app".into(), &1.into()));
        let told = report["dumps"][0]["error"]["message"].as_str().unwrap();
        assert!(told.contains("\"app\"") && told.contains("than was sent"), "{told}");
        assert_eq!(night.ids("app"), good, "{objects}: no manifest was committed");
        assert_eq!(bucket.raw().list(), before, "{objects}: nothing went, and nothing came");
    }
    let restored = night.run(&["restore", &good[0], "--as", "proof"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
}

/// The packs of all dumps.
fn packs(night: &Night) -> PathBuf {
    night.product.archive_dir().join("main/dumps/packs")
}

fn prune_at_once(night: &Night) {
    // Older than the grace.
    std::thread::sleep(Duration::from_millis(1200));
    let pruned = night.product.but("WALARCHIVE_PRUNE_GRACE", "1s").run(&["--json", "prune", "--yes"]);
    assert_eq!(pruned.code, Some(0), "{pruned:?}");
}

/// Starts a dump of `app` that stands still before it ends, until the gate is there.
fn held_back(night: &Night, gate: &Path, began: &Path) -> Background {
    let script = format!(
        "$REAL \"$@\"; touch {}; while [ ! -e {} ]; do sleep 0.05; done",
        began.display(),
        gate.display()
    );
    let programs = night.with_pg_dump("held", &script);
    let mut product = night.product.but("WALARCHIVE_BIN_DIR", programs.to_str().unwrap());
    product.set("WALARCHIVE_DUMP_CODEC", "none");
    Background::start(product.command(&OF_APP), night.scratch.join("held.log"))
}

#[test]
fn nothing_is_pruned_that_a_running_dump_has_stored_or_points_to() {
    let Some(night) = Night::begin(Options::default()) else { return };
    night.make_app();
    let first = night.product.but("WALARCHIVE_DUMP_CODEC", "none").run(&OF_APP);
    assert_eq!(first.code, Some(0), "{first:?}");
    let first = night.ids("app").pop().unwrap();
    // More than one pack, so that one is stored while pg_dump still runs.
    night.sql(
        "app",
        "create table more as select n, repeat(md5(n::text), 120) t from generate_series(1, 20000) n",
    );
    let (gate, began) = (night.scratch.join("gate"), night.scratch.join("began"));
    let mut second = held_back(&night, &gate, &began);
    let own = |dir: &fs::DirEntry| dir.file_name() != first.as_str() && bytes_below(&dir.path()) > 0;
    let has_own = || fs::read_dir(packs(&night)).unwrap().flatten().any(|dir| own(&dir));
    wait_until("the second dump has stored a pack", PATIENCE, || began.exists() && has_own());
    assert_eq!(night.run(&["delete", &first, "--yes", "--even-the-last"]).code, Some(0));
    prune_at_once(&night);
    assert!(second.ended().is_none() && has_own(), "its own packs stay: {}", second.printed());
    assert!(bytes_below(&packs(&night).join(&first)) > 0, "and those of the first, which it points to");
    fs::write(&gate, "").unwrap();
    assert!(second.wait(PATIENCE).success(), "{}", second.printed());
    prune_at_once(&night);
    let shown = night.run(&["show", "latest", "--database", "app"]);
    assert_eq!(shown.code, Some(0), "it is whole: {shown:?}");
    assert!(shown.stdout.contains(&format!("packs/{first}")), "it needs packs of the first: {shown:?}");
}

#[test]
fn either_of_two_mirrors_brings_a_dump_back_alone() {
    let Some(mut night) = Night::begin(Options { init: false, ..Options::default() }) else { return };
    let Some(bucket) = stores::seaweed(&night.scratch) else { return };
    let directory = format!("file://{}", night.product.archive_dir().display());
    night.product = in_bucket(&night, &bucket);
    let remote = bucket.url();
    night.product.set("WALARCHIVE_ARCHIVE", &format!("{directory} {remote}"));
    night.product.ok(&["init"]);
    night.make_app();
    assert_eq!(night.product.run(&OF_APP).code, Some(0));
    night.sql("app", "update t set t = 'x' where n = 5");
    assert_eq!(night.product.run(&OF_APP).code, Some(0));
    let expected = night.content("app");
    let restored = |archive: &str| {
        let product = night.product.but("WALARCHIVE_ARCHIVE", archive);
        let done = product.run(&["dump", "restore", "latest", "--database", "app", "--as", "proof"]);
        assert_eq!(done.code, Some(0), "{archive}: {done:?}");
        super::assert_same(&night.content("proof"), &expected, archive);
        night.sql("postgres", "drop database proof");
    };
    restored(&directory);
    // The first one is gone, for good.
    let gone = night.product.archive_dir();
    fs::rename(&gone, gone.with_extension("gone")).unwrap();
    restored(&remote);
    let both = night.run(&["restore", "latest", "--database", "app", "--as", "proof"]);
    assert_eq!(both.code, Some(5), "as long as it is named, it might know of newer dumps: {both:?}");
    let failed = night.product.run(&OF_APP);
    assert_eq!(failed.code, Some(5), "{failed:?}");
    let any = night.product.but("WALARCHIVE_ARCHIVE_POLICY", "any").run(&OF_APP);
    assert_eq!(any.code, Some(0), "{any:?}");
    restored(&remote);
}
