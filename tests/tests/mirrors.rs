//! A primary and a mirror in directories: what pushes, fetches, listings and restores make of one that is away, behind or
//! damaged.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walarchive_tests::sample::{self, files_with, segment, segment_name};
use walarchive_tests::{Cluster, Options, Output, Product, Scratch, StopMode};

/// An archive in two directories, whose programs do not wait for what is unreachable.
struct Pair {
    scratch: Scratch,
    product: Product,
    dirs: [PathBuf; 2],
    work: PathBuf,
}

impl Pair {
    fn new(policy: &str) -> Pair {
        let scratch = Scratch::new();
        let dirs = ["one", "the other"].map(|name| scratch.join(name));
        let archive = format!("file://{} file://{}", dirs[0].display(), dirs[1].display());
        let options = Options { archive: Some(archive), ..Options::default() };
        let mut product = Product::with(&scratch, options);
        product.set("WALARCHIVE_ARCHIVE_POLICY", policy);
        product.set("WALARCHIVE_RETRY_BUDGET", "0s");
        product.set("WALARCHIVE_STORE_RETRY_BUDGET", "0s");
        let work = scratch.dir("work");
        Pair { scratch, product, dirs, work }
    }

    fn made_up(policy: &str) -> Pair {
        let mut pair = Pair::new(policy);
        pair.product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
        pair
    }

    fn away(&self, number: usize) -> PathBuf {
        let away = self.dirs[number].with_extension("away");
        fs::rename(&self.dirs[number], &away).unwrap();
        away
    }

    fn back(&self, number: usize) {
        fs::rename(self.dirs[number].with_extension("away"), &self.dirs[number]).unwrap();
    }

    /// The product with one of the two as its only archive.
    fn alone(&self, number: usize) -> Product {
        self.product.but("WALARCHIVE_ARCHIVE", self.dirs[number].to_str().unwrap())
    }

    fn push(&self, product: &Product, number: u32, seed: u64) -> Output {
        let path = self.scratch.write(segment_name(1, number), segment(1, number, seed));
        product.run_of("walarchive-push", &[path.to_str().unwrap()])
    }

    fn fetch(&self, product: &Product, number: u32) -> Output {
        let dest = self.work.join("dest");
        let mut command = product.command_of("walarchive-fetch", &[&segment_name(1, number), "dest"]);
        let output = Output::of(&command.current_dir(&self.work).output().unwrap());
        assert_eq!(dest.exists(), output.code == Some(0), "{output:?}");
        if output.code == Some(0) {
            assert_eq!(fs::read(&dest).unwrap(), segment(1, number, 1));
            fs::remove_file(&dest).unwrap();
        }
        output
    }

    fn status(&self) -> Value {
        self.product.json(&["status"])
    }
}

fn behind(status: &Value) -> Vec<u64> {
    status["archives"].as_array().unwrap().iter().map(|one| one["behind"].as_u64().unwrap()).collect()
}

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

#[test]
fn with_all_nothing_is_stored_or_absent_until_every_mirror_says_so() {
    let pair = Pair::made_up("all");
    assert_eq!(pair.push(&pair.product, 1, 1).code, Some(0));
    for number in [0, 1] {
        assert_eq!(pair.fetch(&pair.alone(number), 1).code, Some(0), "each is whole");
    }
    let first = fs::read(pair.dirs[0].join("archive.json")).unwrap();
    assert_eq!(first, fs::read(pair.dirs[1].join("archive.json")).unwrap());
    assert_eq!(pair.fetch(&pair.product, 9).code, Some(1));

    for number in [0, 1] {
        let away = pair.away(number);
        let pushed = pair.push(&pair.product, 2, 1);
        assert_eq!(pushed.code, Some(5), "{pushed:?}");
        assert_eq!(pair.fetch(&pair.product, 1).code, Some(0), "the other has it");
        let absent = pair.fetch(&pair.product, 9);
        assert_eq!(absent.code, Some(205), "{absent:?}");
        assert_eq!(pair.product.run(&["backup", "list"]).code, Some(5));
        let status = pair.status();
        assert_eq!(status["archives"][number]["reachable"], false, "{status}");
        assert!(!pair.dirs[number].exists() && away.exists(), "nothing is made in its place");
        pair.back(number);
    }
    assert_eq!(pair.push(&pair.product, 2, 1).code, Some(0));
    assert_eq!(behind(&pair.status()), [0, 0]);
    // An unmounted mirror leaves a directory behind that proves nothing.
    pair.away(1);
    fs::create_dir(&pair.dirs[1]).unwrap();
    pair.scratch.own(&pair.dirs[1]);
    assert_eq!(pair.fetch(&pair.product, 9).code, Some(205));
    assert_eq!(pair.push(&pair.product, 3, 1).code, Some(5));
    assert_eq!(fs::read_dir(&pair.dirs[1]).unwrap().count(), 0);
}

#[test]
fn with_any_a_mirror_that_was_away_is_caught_up_by_later_pushes() {
    let pair = Pair::made_up("any");
    assert_eq!(pair.push(&pair.product, 1, 1).code, Some(0));
    for (number, segments) in [(1, [2, 3]), (0, [5, 6])] {
        pair.away(number);
        for segment in segments {
            let pushed = pair.push(&pair.product, segment, 1);
            assert_eq!(pushed.code, Some(0), "{pushed:?}");
            assert!(pushed.stderr.contains("is behind"), "{pushed:?}");
            assert_eq!(pair.fetch(&pair.product, segment).code, Some(0));
        }
        let status = pair.status();
        assert_eq!(behind(&status)[number], 2, "{status}");
        assert!(problems(&status).contains("cannot be used"), "{status}");
        pair.back(number);
        assert_eq!(behind(&pair.status())[number], 2);
        assert_eq!(pair.fetch(&pair.alone(number), segments[0]).code, Some(1));
        let last = segments[1] + 1;
        assert_eq!(pair.push(&pair.product, last, 1).code, Some(0));
        assert_eq!(behind(&pair.status()), [0, 0]);
        for segment in [segments[0], segments[1], last] {
            assert_eq!(pair.fetch(&pair.alone(number), segment).code, Some(0));
        }
    }
    // Both away: nothing is claimed.
    pair.away(0);
    pair.away(1);
    assert_eq!(pair.push(&pair.product, 8, 1).code, Some(5));
    assert_eq!(pair.product.run(&["status"]).code, Some(5));
}

#[test]
fn without_notes_the_command_catches_up() {
    let mut pair = Pair::made_up("any");
    // A file where the directory should be.
    let state = pair.scratch.write("state", "");
    pair.product.set("WALARCHIVE_STATE_DIR", state.to_str().unwrap());
    assert_eq!(pair.push(&pair.product, 1, 1).code, Some(0));
    pair.away(1);
    let pushed = pair.push(&pair.product, 2, 1);
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    assert!(pushed.stderr.contains("could not be noted"), "{pushed:?}");
    assert_eq!(pair.product.run(&["catch-up"]).code, Some(5));
    pair.back(1);
    assert_eq!(pair.push(&pair.product, 3, 1).code, Some(0));
    assert_eq!(behind(&pair.status()), [0, 1]);
    fs::remove_file(&state).unwrap();
    let done = pair.product.json(&["catch-up"]);
    assert_eq!(
        (&done["mirrors"][1]["objects"], &done["problems"]),
        (&1.into(), &Value::Array(vec![])),
        "{done}"
    );
    assert_eq!(behind(&pair.status()), [0, 0]);
    assert_eq!(pair.fetch(&pair.alone(1), 2).code, Some(0));
    assert_eq!(pair.product.json(&["catch-up"])["mirrors"][1]["objects"], 0, "nothing is left to do");
    assert_eq!(pair.alone(0).run(&["catch-up"]).code, Some(2));
}

#[test]
fn other_content_in_one_mirror_is_refused() {
    for policy in ["all", "any"] {
        let pair = Pair::made_up(policy);
        assert_eq!(pair.push(&pair.alone(1), 1, 2).code, Some(0));
        let pushed = pair.push(&pair.product, 1, 1);
        assert_eq!(pushed.code, Some(3), "{policy}: {pushed:?}");
        assert!(pushed.stderr.contains("the other"), "{pushed:?}");
    }
}

#[test]
fn a_damaged_copy_is_passed_over_and_named() {
    let pair = Pair::made_up("all");
    assert_eq!(pair.push(&pair.product, 1, 1).code, Some(0));
    let copies = pair.dirs.each_ref().map(|dir| files_with(dir, &segment_name(1, 1)).remove(0));
    let good = fs::read(&copies[0]).unwrap();
    assert_eq!(good, fs::read(&copies[1]).unwrap(), "sealed once");
    let bad = |len: usize, at: usize| {
        let mut bytes = good[..len].to_vec();
        bytes[at] ^= 1;
        bytes
    };
    for bytes in [bad(good.len(), 30), bad(good.len(), good.len() - 1), bad(good.len() / 2, 0), bad(1, 0)] {
        fs::write(&copies[0], &bytes).unwrap();
        let fetched = pair.fetch(&pair.product, 1);
        assert_eq!(fetched.code, Some(0), "{fetched:?}");
        assert!(
            fetched.stderr.contains(&format!("the copy in file://{}", pair.dirs[0].display())),
            "{fetched:?}"
        );
        fs::write(&copies[1], &bytes).unwrap();
        assert_eq!(pair.fetch(&pair.product, 1).code, Some(204));
        let away = pair.away(0);
        assert_eq!(pair.fetch(&pair.product, 1).code, Some(205), "the one that is away may be sound");
        fs::rename(away, &pair.dirs[0]).unwrap();
        fs::write(&copies[1], &good).unwrap();
    }
}

#[test]
fn archives_are_made_together_or_completed_and_never_mixed() {
    let pair = Pair::new("all");
    let init = |product: &Product| product.run(&["--json", "init"]);
    assert_eq!(init(&pair.product).json()["created"], false);
    fs::remove_file(pair.dirs[1].join("archive.json")).unwrap();
    assert_eq!(init(&pair.product).json()["created"], true);
    let third = pair.scratch.join("third");
    let other = pair.product.but("WALARCHIVE_ARCHIVE", third.to_str().unwrap());
    assert_eq!(init(&other).code, Some(0));
    let both = format!("{}\n{}", pair.dirs[0].display(), third.display());
    let mixed = init(&pair.product.but("WALARCHIVE_ARCHIVE", &both));
    assert_eq!(mixed.code, Some(3), "{mixed:?}");
    for dir in [&pair.dirs[0], &third] {
        let description: Value =
            serde_json::from_slice(&fs::read(dir.join("archive.json")).unwrap()).unwrap();
        assert!(mixed.stderr.contains(description["archive"].as_str().unwrap()), "{mixed:?}");
    }
    let twice = format!("{0}\n{0}", pair.dirs[0].display());
    assert_eq!(init(&pair.product.but("WALARCHIVE_ARCHIVE", &twice)).code, Some(2));
}

fn damage_all(dir: &Path, name: &str) {
    for path in files_with(dir, name) {
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() * 2 / 3;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
}

/// Backs up and archives a cluster into both, and restores to a moment: with damage in the primary, then from the mirror alone.
fn circle(encrypted: bool) {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let dirs = ["one", "the other"].map(|name| scratch.join(name));
    let archive = format!("{} file://{}", dirs[0].display(), dirs[1].display());
    let options = Options { archive: Some(archive), encrypted, ..Options::default() };
    let product = Product::with(&scratch, options);
    cluster.archive_with(&product);
    cluster.psql("create table t as select n, md5(n::text) from generate_series(1, 20000) n");
    let backup = product.back_up(&cluster, &[]);
    cluster.psql("create table more as select 1 as a");
    let moment = cluster
        .psql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    cluster.psql("drop table t");
    cluster.archive_now();
    cluster.stop(StopMode::Immediate);

    let status = product.json(&["status"]);
    assert_eq!(status["latest_backup"], product.json(&["backup", "list"])["backups"][0], "{status}");
    assert_eq!((behind(&status), &status["problems"]), (vec![0, 0], &Value::Array(vec![])), "{status}");
    let stretch = &status["recoverable"][0];
    assert_eq!((&stretch["from_lsn"], &stretch["timeline"]), (&backup["stop_lsn"], &1.into()), "{status}");
    assert_eq!(stretch["from"], backup["finished_at"], "{status}");

    damage_all(&dirs[0], "0000000");
    let target = scratch.join("healed");
    let output = product.restore_to(&target, &["--to", &moment]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert!(output.stderr.contains("the copy in"), "{output:#?}");
    let conf = fs::read_to_string(target.join("postgresql.auto.conf")).unwrap();
    for dir in &dirs {
        assert!(conf.contains(dir.to_str().unwrap()), "restore_command goes to both: {conf}");
    }
    let mut restored = Cluster::adopt(&scratch).option("archive_mode", "off").existing(target).unwrap();
    restored.start_promoted();
    assert_eq!(restored.psql("select count(*) from t join more on true"), "20000");
    restored.stop(StopMode::Immediate);

    fs::remove_dir_all(&dirs[0]).unwrap();
    assert_eq!(product.run(&["backup", "list"]).code, Some(5));
    let alone = product.but("WALARCHIVE_ARCHIVE", dirs[1].to_str().unwrap());
    let mut restored = alone.restore(&scratch, &["--to", &moment]);
    restored.start_promoted();
    assert_eq!(restored.psql("select count(*) from t join more on true"), "20000");
    restored.stop(StopMode::Immediate);
}

#[test]
fn a_mirror_heals_a_restore_and_does_alone() {
    circle(true);
}

#[test]
fn a_mirror_heals_a_restore_and_does_alone_without_encryption() {
    circle(false);
}
