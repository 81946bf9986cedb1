//! A push that says 0 has stored the whole file for good; one that dies at any moment has stored it whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_tests::sample::{self, segment, segment_name};
use walarchive_tests::trace::{Event, Strace, Traced};
use walarchive_tests::{Cluster, Output, Product, Scratch};

const LINK: &str = "link|linkat|rename|renameat|renameat2";

struct Pusher {
    scratch: Scratch,
    product: Product,
    source: PathBuf,
}

impl Pusher {
    fn new() -> Pusher {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        product.set("WALARCHIVE_RETRY_BUDGET", "0s");
        product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
        let source = scratch.write("source", segment(1, 5, 7));
        scratch.dir("out");
        Pusher { scratch, product, source }
    }

    /// The same segment on another timeline: its directories are new, too.
    fn on_timeline(&self, timeline: u32) -> String {
        let name = segment_name(timeline, 5);
        fs::hard_link(&self.source, self.scratch.join(&name)).unwrap();
        name
    }

    fn command(&self, name: &str) -> Command {
        self.product.command_of("walarchive-push", &[self.scratch.join(name).to_str().unwrap()])
    }

    fn push(&self, name: &str) -> Output {
        Output::of(&self.command(name).output().unwrap())
    }

    fn fetch(&self, name: &str) -> Output {
        self.product.run(&["wal", "fetch", name, self.scratch.join("out/dest").to_str().unwrap()])
    }

    /// Fetches and compares.
    fn holds(&self, name: &str) {
        let output = self.fetch(name);
        assert_eq!(output.code, Some(0), "{output:?}");
        let dest = self.scratch.join("out/dest");
        assert!(fs::read(&dest).unwrap() == fs::read(&self.source).unwrap(), "{name} came back changed");
        fs::remove_file(dest).unwrap();
    }

    /// How many segments of a timeline `wal list` shows.
    fn listed(&self, timeline: u32) -> u64 {
        let list = self.product.json(&["wal", "list"]);
        let timelines = list["timelines"].as_array().unwrap();
        let of = timelines.iter().find(|entry| entry["timeline"] == timeline);
        of.map_or(0, |entry| entry["segments"].as_u64().unwrap())
    }

    fn object(&self, name: &str) -> Vec<PathBuf> {
        let found = sample::files_with(&self.product.archive_dir(), name);
        found.into_iter().filter(|path| path.ends_with(name)).collect()
    }
}

/// The first event of the kind that began after `after` was over.
fn next<'a>(traced: &'a Traced, after: Option<&Event>, calls: &str, path: &Path) -> &'a Event {
    let found = traced.events.iter().find(|event| {
        let about = event.paths.iter().any(|known| known == path);
        let later = after.is_none_or(|after| after.before(event));
        about && later && event.succeeded() && calls.split('|').any(|call| call == event.call)
    });
    found
        .unwrap_or_else(|| panic!("no {calls} of {} after {after:?} in {:#?}", path.display(), traced.events))
}

#[test]
fn a_push_is_durable_before_it_says_so() {
    let Some(strace) = Strace::find() else { return };
    let pusher = Pusher::new();
    let name = pusher.on_timeline(1);
    let traced = strace.run(&pusher.scratch, pusher.command(&name));
    assert_eq!(traced.output.code, Some(0), "{:?}", traced.output);
    let object = pusher.object(&name).pop().expect("the object");
    let dir = object.parent().unwrap();

    // From the file's bytes to its name.
    let named = next(&traced, None, LINK, &object);
    let temporary = named.paths.iter().find(|path| **path != object && path.starts_with(dir));
    let temporary = temporary.unwrap_or_else(|| panic!("{named:?} names no temporary file"));
    let written = traced.all("write|pwrite64|writev", temporary.to_str().unwrap());
    let last = written.last().expect("the object was written under another name");
    let synced = next(&traced, Some(last), "fsync|fdatasync", temporary);
    assert!(synced.before(named), "the content was synced after it got its name");
    next(&traced, Some(named), "fsync", dir);

    // All directories that it made, in theirs.
    let mut at = dir.to_owned();
    let mut made = 0;
    while at != pusher.product.archive_dir() {
        let parent = at.parent().unwrap().to_owned();
        let mkdir = next(&traced, None, "mkdir|mkdirat", &at);
        next(&traced, Some(mkdir), "fsync", &parent);
        made += 1;
        at = parent;
    }
    assert_eq!(made, 5, "cluster, system, wal, timeline, log");
}

#[test]
fn a_repeated_push_makes_durable_what_it_finds() {
    let Some(strace) = Strace::find() else { return };
    let pusher = Pusher::new();
    let name = pusher.on_timeline(1);
    assert_eq!(pusher.push(&name).code, Some(0));
    let before = sample::tree(&pusher.product.archive_dir());
    let traced = strace.run(&pusher.scratch, pusher.command(&name));
    assert_eq!(traced.output.code, Some(0), "{:?}", traced.output);
    let object = pusher.object(&name).pop().expect("the object");
    let mut at = object.as_path();
    let mut last = next(&traced, None, "fsync|fdatasync", at);
    while at != pusher.product.archive_dir() {
        at = at.parent().unwrap();
        last = next(&traced, Some(last), "fsync", at);
    }
    // Directories saw temporary names come and go; files are as they were.
    let files = |tree: &std::collections::BTreeMap<PathBuf, sample::Seen>| {
        let files = tree.clone().into_iter().filter(|(path, _)| path.is_file());
        files.collect::<Vec<_>>()
    };
    assert_eq!(files(&sample::tree(&pusher.product.archive_dir())), files(&before));
}

#[test]
fn a_push_whose_sync_fails_fails() {
    let Some(strace) = Strace::find() else { return };
    let pusher = Pusher::new();
    let clean = strace.run(&pusher.scratch, pusher.command(&pusher.on_timeline(1)));
    let mut timeline = 1;
    for (calls, errno) in
        [("fsync,fdatasync", "EIO"), ("fsync,fdatasync", "ENOSPC"), ("link,linkat", "ENOSPC")]
    {
        for nth in 1..=clean.count(calls) {
            timeline += 1;
            let name = pusher.on_timeline(timeline);
            let failing = strace.fail_at(calls, errno, &nth.to_string());
            let run = failing.run(&pusher.scratch, pusher.command(&name));
            let hit = run.events.iter().any(|event| event.errno.as_deref() == Some(errno));
            assert!(!hit || run.output.code == Some(6), "{calls} {errno} {nth}: {:?}", run.output);
            assert_eq!(pusher.push(&name).code, Some(0), "{calls} {errno} {nth}");
            pusher.holds(&name);
        }
    }
    assert!(timeline > 10, "few calls failed: {timeline}");
}

#[test]
fn killed_at_any_call_it_stores_the_whole_or_nothing() {
    let Some(strace) = Strace::find() else { return };
    let pusher = Pusher::new();
    let all = strace.run(&pusher.scratch, pusher.command(&pusher.on_timeline(1)));
    assert_eq!(all.output.code, Some(0), "{:?}", all.output);
    let mut timeline = 1;
    let mut outcomes = [0, 0];
    for calls in [
        "write",
        "fsync,fdatasync",
        "link,linkat,rename,renameat,renameat2",
        // The temporary name goes when the object has its own.
        "unlink,unlinkat",
        "openat",
        "mkdir",
    ] {
        let count = all.count(calls);
        assert!(count > 0, "no {calls} at all");
        for nth in 1..=count {
            timeline += 1;
            let name = pusher.on_timeline(timeline);
            let run = strace.kill_at(calls, nth).run(&pusher.scratch, pusher.command(&name));
            let objects = pusher.object(&name).len();
            if run.output.code == Some(0) {
                assert_eq!(objects, 1, "{calls} {nth}: 0, and nothing is stored");
            } else {
                assert_eq!(run.output.signal, Some(9), "{calls} {nth}: {:?}", run.output);
                outcomes[objects] += 1;
            }
            // Readers see all of it or nothing.
            assert_eq!(pusher.listed(timeline), objects as u64, "{calls} {nth}");
            match objects {
                0 => assert_eq!(pusher.fetch(&name).code.map(|code| code % 200), Some(1), "{calls} {nth}"),
                _ => pusher.holds(&name),
            }
            let again = pusher.push(&name);
            assert_eq!(again.code, Some(0), "{calls} {nth}: {again:?}");
            pusher.holds(&name);
            assert_eq!(pusher.listed(timeline), 1);
        }
    }
    assert!(outcomes[0] > 10 && outcomes[1] > 0, "the kills hit nothing: {outcomes:?}");
}

#[test]
fn what_the_server_believes_archived_is_archived() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    cluster.archive_with(&product);
    cluster.pgbench_init(1);
    let _load = cluster.pgbench(60);
    cluster.archive_now();
    cluster.archive_now();
    // In the middle of everything, archive commands too.
    cluster.kill9();
    let pg_wal = cluster.data_dir().join("pg_wal");
    let mut compared = 0;
    for status in sample::names(&pg_wal.join("archive_status")) {
        let Some(name) = status.strip_suffix(".done") else { continue };
        let dest = scratch.join("dest");
        let output = product.run(&["wal", "fetch", name, dest.to_str().unwrap()]);
        assert_eq!(output.code, Some(0), "{name}: {output:?}");
        if let Ok(original) = fs::read(pg_wal.join(name)) {
            assert!(fs::read(&dest).unwrap() == original, "{name} came back changed");
            compared += 1;
        }
    }
    assert!(compared > 1, "nothing was archived");
    cluster.start();
    cluster.psql("insert into pgbench_history (tid) values (1)");
    cluster.archive_now();
    let missing = &product.json(&["wal", "list"])["timelines"][0]["missing_count"];
    assert_eq!(missing, 0);
}
