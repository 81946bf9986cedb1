//! Copies of an archive: complete at every moment, proven on the way, made by accounts that may do little.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use walarchive_tests::filled::{files_below, fill};
use walarchive_tests::proxy::{Answer, Fault, Proxy, Rule};
use walarchive_tests::{
    Background, Cluster, Moments, Options, Output, Product, Scratch, Sshd, kill_tree, kills, stores,
};

struct Source {
    scratch: Scratch,
    product: Product,
    _cluster: Cluster,
    /// Where the copy goes.
    copy: PathBuf,
}

impl Source {
    fn new() -> Option<Source> {
        Source::with(true)
    }

    fn with(encrypted: bool) -> Option<Source> {
        let scratch = Scratch::new();
        let product = Product::with(&scratch, Options { encrypted, ..Options::default() });
        let (cluster, _) = fill(&scratch, &product)?;
        let copy = scratch.join("the copy");
        Some(Source { scratch, product, _cluster: cluster, copy })
    }

    fn url(&self) -> String {
        format!("file://{}", self.copy.display())
    }

    fn copy_with(&self, args: &[&str]) -> Output {
        self.product.run(&[&["--json", "copy", "--to", &self.url()], args].concat())
    }

    /// The product, whose archive is the copy.
    fn there(&self) -> Product {
        self.product.but("WALARCHIVE_ARCHIVE", self.copy.to_str().unwrap())
    }

    fn holds(&self, product: &Product) {
        let run = product.run(&["--json", "verify", "--deep"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }

    fn is_verbatim(&self) {
        assert_eq!(objects(&self.copy), objects(&self.product.archive_dir()));
    }

    fn restores(&self, product: &Product) {
        let mut restored = product.restore(&self.scratch, &[]);
        restored.start_promoted();
        assert_eq!(restored.psql("select count(*) from t"), "4002");
    }
}

/// All objects below a directory, by their keys.
fn objects(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let key = |path: &PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    // What a killed program was writing has a passing name, which no reader sees.
    let files = files_below(dir).into_iter().filter(|path| !path.to_string_lossy().contains('#'));
    files.map(|path| (key(&path), fs::read(path).unwrap())).collect()
}

fn ids(product: &Product, what: &str) -> Vec<String> {
    let list = product.json(&[what, "list"]);
    let entries = list[format!("{what}s")].as_array().unwrap().iter();
    entries.map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

fn done(run: &Output) -> Value {
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.json()
}

#[test]
fn a_copy_is_the_archive() {
    for encrypted in [true, false] {
        let Some(source) = Source::with(encrypted) else { return };
        let planned = done(&source.copy_with(&["--dry-run"]));
        assert_eq!(files_below(&source.copy).len(), 1, "a dry run copied something");
        let copied = done(&source.copy_with(&[]));
        assert_eq!(copied["objects"], planned["objects"]);
        assert_eq!(copied["bytes"], planned["bytes"]);
        source.is_verbatim();
        source.holds(&source.there());
        source.restores(&source.there());
        let again = done(&source.copy_with(&[]));
        assert_eq!((&again["objects"], &again["bytes"]), (&0.into(), &0.into()));
        // The same from the other side.
        let source_url = format!("file://{}", source.product.archive_dir().display());
        let pulled = source.there().json(&["copy", "--from", &source_url]);
        assert_eq!(pulled["objects"], 0);
    }
}

#[test]
fn without_an_identity_everything_is_copied_as_it_is() {
    let Some(mut source) = Source::new() else { return };
    source.product.unset("WALARCHIVE_IDENTITY_FILE");
    done(&source.copy_with(&[]));
    source.is_verbatim();
    assert_eq!(source.copy_with(&["--newest"]).code, Some(4));
}

#[test]
fn what_is_deleted_in_the_source_stays_in_the_copy() {
    let Some(source) = Source::new() else { return };
    done(&source.copy_with(&[]));
    let before = objects(&source.copy);
    let backups = ids(&source.product, "backup");
    source.product.ok(&["backup", "unpin", &backups[0]]);
    source.product.ok(&["backup", "delete", &backups[0], "--yes"]);
    done(&source.copy_with(&[]));
    assert_eq!(objects(&source.copy), before);
    assert_eq!(ids(&source.there(), "backup"), backups);
}

#[test]
fn damaged_objects_and_what_needs_them_stay_behind() {
    for encrypted in [true, false] {
        let Some(source) = Source::with(encrypted) else { return };
        let backups = ids(&source.product, "backup");
        let archive = source.product.archive_dir();
        let all = objects(&archive);
        let of = |what: &str| all.keys().find(|key| key.contains(what)).unwrap().clone();
        // Of the second backup alone, and WAL.
        let pack = of(&format!("packs/{}/", backups[1]));
        let segment = all.keys().find(|key| key.contains("/wal/00000001/")).unwrap().clone();
        for key in [&pack, &segment] {
            let mut bytes = all[key].clone();
            let end = bytes.len() - 5;
            bytes[end] ^= 4;
            fs::write(archive.join(key), bytes).unwrap();
        }
        let run = source.copy_with(&[]);
        assert_eq!(run.code, Some(4), "{run:#?}");
        let problems = run.json()["problems"].to_string();
        assert!(problems.contains(&pack) && problems.contains(&segment), "{problems}");
        let there = objects(&source.copy);
        assert!(!there.contains_key(&pack) && !there.contains_key(&segment));
        assert_eq!(ids(&source.there(), "backup"), [backups[0].clone()]);
        assert_eq!(ids(&source.there(), "dump"), ids(&source.product, "dump"));
        for key in [&pack, &segment] {
            fs::write(archive.join(key), &all[key]).unwrap();
        }
        done(&source.copy_with(&[]));
        source.is_verbatim();
    }
}

/// Which packs a manifest needs cannot be told without an identity: it comes when all of them did.
#[test]
fn without_an_identity_no_manifest_comes_before_all_packs() {
    let Some(mut source) = Source::new() else { return };
    source.product.unset("WALARCHIVE_IDENTITY_FILE");
    let archive = source.product.archive_dir();
    let all = objects(&archive);
    let pack = all.keys().find(|key| key.contains("/packs/") && !key.contains("/dumps/")).unwrap();
    fs::write(archive.join(pack), "nothing").unwrap();
    // What is under way is not looked at.
    let (packs, _) = pack.split_once("/packs/").unwrap();
    let under_way = archive.join(packs).join("packs/29991231T000000Z-00000000");
    fs::create_dir(&under_way).unwrap();
    fs::write(under_way.join("00000000"), "nothing yet").unwrap();
    source.scratch.own(&under_way);
    assert_eq!(source.copy_with(&[]).code, Some(4));
    let there = objects(&source.copy);
    let manifests =
        |what: &str| there.keys().filter(|key| key.contains(what) && key.ends_with("/manifest")).count();
    assert_eq!(manifests("/backups/"), 0, "{:#?}", there.keys());
    assert!(manifests("/dumps/") > 1);
    fs::write(archive.join(pack), &all[pack]).unwrap();
    done(&source.copy_with(&[]));
    fs::remove_dir_all(under_way).unwrap();
    source.is_verbatim();
}

/// What is sealed anew has tags that hold: damage that went in would never be seen again.
#[test]
fn what_is_damaged_is_not_sealed_for_other_readers() {
    let Some(source) = Source::with(false) else { return };
    let key = source.scratch.join("offsite-key");
    let recipient = source.product.ok(&["key", "generate", "-o", key.to_str().unwrap()]);
    let recipient = recipient.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    let archive = source.product.archive_dir();
    let all = objects(&archive);
    let hurt =
        [all.keys().find(|key| key.contains("/packs/")), all.keys().find(|key| key.ends_with(".history"))];
    let hurt = hurt.map(Option::unwrap);
    for key in hurt {
        let mut bytes = all[key].clone();
        let end = bytes.len() - 5;
        bytes[end] ^= 4;
        fs::write(archive.join(key), bytes).unwrap();
    }
    let run = source.copy_with(&["--recipient", &recipient]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    for key in hurt {
        assert!(run.json()["problems"].to_string().contains(key), "{run:#?}");
        assert!(!objects(&source.copy).contains_key(key), "{key} was sealed anew");
    }
}

#[test]
fn what_the_copy_has_under_that_name_is_neither_believed_nor_replaced() {
    let Some(source) = Source::new() else { return };
    done(&source.copy_with(&[]));
    let all = objects(&source.copy);
    let pack = all.keys().find(|key| key.contains("/packs/")).unwrap();
    let segment = all.keys().find(|key| key.contains("/wal/00000001/")).unwrap();
    // Another pack; and a segment that was cut, whose head holds still.
    let other = all.keys().rfind(|key| key.contains("/packs/")).unwrap();
    fs::write(source.copy.join(pack), &all[other]).unwrap();
    fs::write(source.copy.join(segment), &all[segment][..all[segment].len() - 9]).unwrap();
    // With the manifest, the pack would not be looked at again.
    for manifest in all.keys().filter(|key| key.contains("/backups/") && key.ends_with("/manifest")) {
        fs::remove_file(source.copy.join(manifest)).unwrap();
    }
    let before = objects(&source.copy);
    let run = source.copy_with(&[]);
    assert!(matches!(run.code, Some(3 | 4)), "{run:#?}");
    let problems = run.json()["problems"].to_string();
    assert!(problems.contains(pack) && problems.contains(segment), "{problems}");
    assert_eq!(objects(&source.copy), before);
}

#[test]
fn killed_copies_leave_a_working_archive() {
    let Some(source) = Source::new() else { return };
    let begun = Instant::now();
    done(&source.copy_with(&[]));
    let mut moments = Moments::new(begun.elapsed(), kills(12));
    let (mut cut, mut complete) = (0, 0);
    fs::remove_dir_all(&source.copy).unwrap();
    for round in 0..kills(12) {
        let mut copy = Background::start(
            source.product.command(&["copy", "--jobs", "1", "--to", &source.url()]),
            source.scratch.join("log"),
        );
        std::thread::sleep(moments.wait());
        let is_hit = copy.ended().is_none();
        moments.was_hit(is_hit);
        kill_tree(copy.pid());
        copy.kill();
        cut += u32::from(is_hit);
        if source.copy.join("archive.json").exists() {
            // What was seen before is gone on purpose.
            let fresh = source.scratch.join(format!("state {round}"));
            let run = source
                .there()
                .but("WALARCHIVE_STATE_DIR", fresh.to_str().unwrap())
                .run(&["--json", "verify"]);
            // Nothing of the cluster may be there yet.
            assert!(matches!(run.code, Some(0 | 1)), "{run:#?}");
        }
        if !is_hit {
            complete += 1;
            source.is_verbatim();
            fs::remove_dir_all(&source.copy).unwrap();
        }
    }
    assert!(cut > 2, "only {cut} were killed, {complete} came to their end");
    done(&source.copy_with(&[]));
    source.is_verbatim();
    source.holds(&source.there());
}

#[test]
fn parts_can_be_chosen() {
    let Some(source) = Source::new() else { return };
    let (backups, dumps) = (ids(&source.product, "backup"), ids(&source.product, "dump"));
    done(&source.copy_with(&["--newest", "--only", "backups", "--only", "wal"]));
    let there = source.there();
    assert_eq!(ids(&there, "backup"), [backups[1].clone()]);
    assert_eq!(ids(&there, "dump"), Vec::<String>::new());
    let wal =
        |product: &Product| product.json(&["wal", "list"])["timelines"][0]["segments"].as_u64().unwrap();
    assert!(wal(&there) < wal(&source.product), "WAL from before the newest backup was copied");
    source.holds(&there);
    source.restores(&there);
    done(&source.copy_with(&["--only", "dumps", "--since", "1h"]));
    assert_eq!(ids(&there, "dump"), dumps);
    assert_eq!(ids(&there, "backup"), [backups[1].clone()]);
    done(&source.copy_with(&[]));
    source.is_verbatim();
    let run = source.product.run(&["--cluster", "nobody", "copy", "--to", &source.url()]);
    assert_eq!(run.code, Some(1), "{run:#?}");
}

#[test]
fn copies_can_be_for_other_readers() {
    for encrypted in [true, false] {
        let Some(source) = Source::with(encrypted) else { return };
        let key = source.scratch.join("offsite-key");
        let recipient = source.product.ok(&["key", "generate", "-o", key.to_str().unwrap()]);
        let recipient =
            recipient.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
        let copied = done(&source.copy_with(&["--recipient", &recipient]));
        assert!(copied["objects"].as_u64().unwrap() > 10);
        assert_eq!(done(&source.copy_with(&["--recipient", &recipient]))["objects"], 0);
        let mut offsite = source.there();
        offsite.set("WALARCHIVE_IDENTITY_FILE", key.to_str().unwrap());
        offsite.set("WALARCHIVE_RECIPIENTS", &recipient);
        source.holds(&offsite);
        source.restores(&offsite);
        if encrypted {
            // The key of the source opens nothing there.
            let run = source.there().run(&["--json", "verify", "--deep"]);
            assert_eq!(run.code, Some(4), "{run:#?}");
        } else {
            let run = source.copy_with(&[]);
            assert_eq!(run.code, Some(3), "{run:#?}");
        }
    }
}

#[test]
fn another_archive_is_not_written_to() {
    let Some(source) = Source::new() else { return };
    let scratch = Scratch::new();
    let other = Product::new(&scratch);
    let before = objects(&other.archive_dir());
    let run = source.product.run(&["copy", "--to", &format!("file://{}", other.archive_dir().display())]);
    assert_eq!(run.code, Some(3), "{run:#?}");
    assert_eq!(objects(&other.archive_dir()), before);
    assert_eq!(source.product.run(&["copy"]).code, Some(2));
}

#[test]
fn the_pull_needs_an_account_that_can_only_read() {
    let Some(source) = Source::new() else { return };
    let Some(sshd) = Sshd::start_with(&source.scratch, "-R") else { return };
    let mut puller = source.there();
    puller.set("WALARCHIVE_STORE_SSH_IDENTITY", sshd.identity().to_str().unwrap());
    puller.set("WALARCHIVE_STORE_SSH_KNOWN_HOSTS", sshd.known_hosts().to_str().unwrap());
    puller.unset("WALARCHIVE_IDENTITY_FILE");
    let run = puller.run(&["--json", "copy", "--from", &sshd.url(source.product.archive_dir())]);
    assert!(done(&run)["objects"].as_u64().unwrap() > 10);
    source.is_verbatim();
    source.holds(&source.there());
}

#[test]
fn the_copy_offsite_needs_an_account_that_can_only_create() {
    let Some(source) = Source::new() else { return };
    let Some(bucket) = stores::seaweed(&source.scratch) else { return };
    let proxy = Proxy::start(bucket.server().addr().parse().unwrap());
    // Whatever removes or replaces is refused.
    proxy.set([
        Rule::always(Fault::Answer(Answer::s3(403, "AccessDenied", "no deletes"))).method("DELETE"),
        Rule::always(Fault::Answer(Answer::s3(403, "AccessDenied", "no replacing")))
            .method("PUT")
            .when(|request| request.header("if-none-match").is_none() && !request.path.contains("uploadId")),
    ]);
    let offsite = bucket.with_endpoint(&proxy.addr().to_string());
    let mut product = source.product.clone();
    offsite.env().iter().for_each(|(name, value)| product.set(name, value));
    let run = product.run(&["--json", "copy", "--to", &offsite.url()]);
    let copied = done(&run);
    assert_eq!(copied["objects"].as_u64().unwrap() + 1, objects(&source.product.archive_dir()).len() as u64);
    assert_eq!(proxy.applied(), 0, "something was to be removed or replaced");
    let there = product.but("WALARCHIVE_ARCHIVE", &offsite.url());
    source.holds(&there);
    let raw: BTreeMap<String, Vec<u8>> = bucket
        .raw()
        .list()
        .into_iter()
        .map(|(key, _)| (key.clone(), bucket.raw().get(&key).unwrap()))
        .collect();
    assert_eq!(
        raw.values().collect::<Vec<_>>(),
        objects(&source.product.archive_dir()).values().collect::<Vec<_>>()
    );
}

/// The copy keeps less than its source, and what was removed from it does not come again.
#[test]
fn a_copy_keeps_what_its_own_rules_want() {
    let Some(source) = Source::new() else { return };
    let backups = ids(&source.product, "backup");
    source.product.ok(&["backup", "unpin", &backups[0]]);
    done(&source.copy_with(&[]));
    let mut there = source.there();
    for (rule, count) in [
        ("WALARCHIVE_BACKUP_KEEP_LAST", "1"),
        ("WALARCHIVE_DUMP_KEEP_LAST", "1"),
        ("WALARCHIVE_PRUNE_GRACE", "0s"),
    ] {
        there.set(rule, count);
    }
    there.ok(&["prune", "--yes"]);
    let pruned = objects(&source.copy);
    let from = format!("file://{}", source.product.archive_dir().display());
    let again = there.json(&["copy", "--from", &from, "--kept"]);
    assert_eq!(again["objects"], 0, "{again}");
    assert!(objects(&source.copy) == pruned);
    assert_eq!(ids(&there, "backup"), backups[1..]);
    source.holds(&there);
    source.restores(&there);
    // From nothing it is the same.
    fs::remove_dir_all(&source.copy).unwrap();
    there.json(&["copy", "--from", &from, "--kept"]);
    assert_eq!(objects(&source.copy).into_keys().collect::<Vec<_>>(), pruned.into_keys().collect::<Vec<_>>());
    let run = source.copy_with(&["--kept"]);
    assert!(run.code == Some(2) && run.stdout.contains("no rule"), "{run:#?}");
}
