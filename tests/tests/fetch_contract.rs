//! What `restore_command` may rely on: absent, damaged and unreachable are kept apart as PostgreSQL needs it, and the
//! destination appears whole or not at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use walarchive_tests::sample::{self, segment, segment_name};
use walarchive_tests::trace::Strace;
use walarchive_tests::{Background, Cluster, Output, Product, Scratch, StopMode, wait_until};

const HISTORY: &str = "00000002.history";
const HISTORY_TEXT: &str = "1\t0/300000\tno recovery target specified\n";
const ABSENT: [&str; 2] = ["000000010000000000000009", "00000009.history"];

/// An archive with one segment and one history file, whose programs do not wait for what is unreachable.
struct Stored {
    scratch: Scratch,
    product: Product,
    segment: String,
}

impl Stored {
    fn new() -> Stored {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        product.set("WALARCHIVE_RETRY_BUDGET", "0s");
        product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
        let segment = segment_name(1, 3);
        let files = [(segment.clone(), self::segment(1, 3, 1)), (HISTORY.to_owned(), HISTORY_TEXT.into())];
        for (name, bytes) in files {
            product.ok(&["wal", "push", scratch.write(name, bytes).to_str().unwrap()]);
        }
        Stored { scratch, product, segment }
    }

    fn names(&self) -> [&str; 2] {
        [&self.segment, HISTORY]
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.scratch.join(name)).unwrap()
    }

    /// The stored object of a WAL file.
    fn object(&self, name: &str) -> PathBuf {
        let found = sample::files_with(&self.product.archive_dir(), name);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    /// A directory such as the server runs `restore_command` in.
    fn work_dir(&self, name: &str, signals: &[&str]) -> PathBuf {
        let dir = self.scratch.dir(name);
        for signal in signals {
            self.scratch.write(format!("{name}/{signal}"), "");
        }
        dir
    }

    fn command(&self, dir: &Path, name: &str, dest: &str) -> Command {
        let mut command = self.product.command_of("walarchive-fetch", &[name, dest]);
        command.current_dir(dir);
        command
    }

    fn fetch(&self, dir: &Path, name: &str, dest: &str) -> Output {
        Output::of(&self.command(dir, name, dest).output().unwrap())
    }

    /// Fetches with both programs, and compares the code.
    fn expect(&self, dir: &Path, name: &str, code: i32) {
        let before = sample::names(dir);
        let output = self.fetch(dir, name, "dest");
        assert_eq!(output.code, Some(code), "{name} in {}: {output:?}", dir.display());
        let mut command = self.product.command(&["--json", "wal", "fetch", name, "dest"]);
        let long = Output::of(&command.current_dir(dir).output().unwrap());
        assert_eq!(long.code, Some(code), "{name} in {}: {long:?}", dir.display());
        if code == 0 {
            assert_eq!(fs::read(dir.join("dest")).unwrap(), self.content(name));
            fs::remove_file(dir.join("dest")).unwrap();
        } else {
            assert_eq!(long.json()["error"]["code"], code);
            assert!(!output.stderr.is_empty());
        }
        assert_eq!(sample::names(dir), before, "a failed fetch leaves nothing");
    }
}

/// The working directories of the contract, and what is added to a code other than *absent* there.
fn work_dirs(stored: &Stored) -> Vec<(PathBuf, i32)> {
    vec![
        (stored.work_dir("neither", &[]), 200),
        (stored.work_dir("recovery", &["recovery.signal"]), 200),
        (stored.work_dir("standby", &["standby.signal"]), 0),
        // PostgreSQL is a standby then.
        (stored.work_dir("both", &["standby.signal", "recovery.signal"]), 0),
    ]
}

#[test]
fn absent_damaged_and_unreachable_are_kept_apart() {
    let stored = Stored::new();
    let dirs = work_dirs(&stored);
    let each = |names: [&str; 2], code: i32| {
        for (dir, added) in &dirs {
            let code = if code > 1 { code + added } else { code };
            names.iter().for_each(|name| stored.expect(dir, name, code));
        }
    };
    each(stored.names(), 0);
    each(ABSENT, 1);

    for name in stored.names() {
        let object = stored.object(name);
        let good = fs::read(&object).unwrap();
        for at in [0, good.len() / 3, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&object, &bad).unwrap();
            dirs.iter().for_each(|(dir, added)| stored.expect(dir, name, 4 + added));
        }
        for len in [0, 1, good.len() / 2, good.len() - 1] {
            fs::write(&object, &good[..len]).unwrap();
            dirs.iter().for_each(|(dir, added)| stored.expect(dir, name, 4 + added));
        }
        fs::write(&object, &good).unwrap();
    }
    each(stored.names(), 0);
}

#[test]
fn a_place_without_the_archive_proves_nothing() {
    let stored = Stored::new();
    let dirs = work_dirs(&stored);
    let unreachable = |what: &str| {
        for (dir, added) in &dirs {
            for name in stored.names().into_iter().chain(ABSENT) {
                eprintln!("{what}");
                stored.expect(dir, name, 5 + added);
            }
        }
    };
    let archive = stored.product.archive_dir();
    let away = archive.with_file_name("away");
    let (info, info_away) = (archive.join("archive.json"), archive.join("gone.json"));

    fs::rename(&archive, &away).unwrap();
    unreachable("the directory is gone");
    fs::create_dir(&archive).unwrap();
    stored.scratch.own(&archive);
    unreachable("nothing is mounted on the directory");
    fs::remove_dir(&archive).unwrap();
    symlink(archive.with_file_name("nowhere"), &archive).unwrap();
    unreachable("a link leads nowhere");
    fs::remove_file(&archive).unwrap();
    fs::rename(&away, &archive).unwrap();
    fs::rename(&info, &info_away).unwrap();
    unreachable("archive.json is gone");
    fs::rename(&info_away, &info).unwrap();
    stored.names().iter().for_each(|name| stored.expect(&dirs[0].0, name, 0));
    // An archive.json that cannot be believed is damage, not absence.
    let good = fs::read(&info).unwrap();
    fs::write(&info, &good[..good.len() / 2]).unwrap();
    dirs.iter().for_each(|(dir, added)| stored.expect(dir, ABSENT[1], 4 + added));
}

#[test]
fn misunderstandings_do_not_end_recovery_either() {
    let stored = Stored::new();
    for (dir, added) in work_dirs(&stored) {
        for args in [vec![], vec!["000000010000000000000003"], vec!["not-a-wal-file", "d"], vec!["--what"]] {
            let mut command = stored.product.command_of("walarchive-fetch", &args);
            let output = Output::of(&command.current_dir(&dir).output().unwrap());
            assert_eq!(output.code, Some(2 + added), "{args:?}: {output:?}");
        }
        for (variable, value) in [("WALARCHIVE_ARCHIVE", "ftp://x/y"), ("WALARCHIVE_TYPO", "1")] {
            let mut command = stored.command(&dir, &stored.segment, "dest");
            let output = Output::of(&command.env(variable, value).output().unwrap());
            assert_eq!(output.code, Some(2 + added), "{variable}: {output:?}");
        }
    }
}

#[test]
fn waits_for_the_archive_as_long_as_the_budget_allows() {
    let stored = Stored::new();
    let dir = stored.work_dir("recovery", &["recovery.signal"]);
    let archive = stored.product.archive_dir();
    let away = archive.with_file_name("away");
    fs::rename(&archive, &away).unwrap();

    let begun = Instant::now();
    let mut command = stored.command(&dir, &stored.segment, "dest");
    let output = Output::of(&command.env("WALARCHIVE_RETRY_BUDGET", "1s").output().unwrap());
    assert_eq!(output.code, Some(205), "{output:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "gave up after {:?}", begun.elapsed());

    let mut command = stored.command(&dir, &stored.segment, "dest");
    command.env("WALARCHIVE_RETRY_BUDGET", "60s");
    let mut waiting = Background::start(command, stored.scratch.join("log"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(waiting.ended().is_none(), "{}", waiting.printed());
    fs::rename(&away, &archive).unwrap();
    assert!(waiting.wait(Duration::from_secs(30)).success(), "{}", waiting.printed());
    assert_eq!(fs::read(dir.join("dest")).unwrap(), stored.content(&stored.segment));
}

#[test]
fn destinations() {
    let stored = Stored::new();
    let dir = stored.work_dir("sp ace ü'%", &["recovery.signal"]);
    let content = stored.content(&stored.segment);
    stored.scratch.dir("sp ace ü'%/pg_wal");
    for dest in ["pg_wal/RECOVERYXLOG", "sp ace ü'%$(x)", stored.scratch.join("abs").to_str().unwrap()] {
        assert_eq!(stored.fetch(&dir, &stored.segment, dest).code, Some(0));
        assert_eq!(fs::read(dir.join(dest)).unwrap(), content, "{dest}");
        // Another time, over what is there.
        fs::write(dir.join(dest), "other").unwrap();
        assert_eq!(stored.fetch(&dir, &stored.segment, dest).code, Some(0));
        assert_eq!(fs::read(dir.join(dest)).unwrap(), content, "{dest}");
        // What is there stays when nothing better is found.
        assert_eq!(stored.fetch(&dir, ABSENT[0], dest).code, Some(1));
        assert_eq!(fs::read(dir.join(dest)).unwrap(), content, "{dest}");
    }
    let output = stored.fetch(&dir, &stored.segment, "no/such/dir");
    assert_eq!(output.code, Some(206), "{output:?}");
    assert!(output.stderr.contains("no/such/dir"), "{output:?}");
    let output = stored.fetch(&dir, &stored.segment, "pg_wal");
    assert_eq!(output.code, Some(206), "a directory is in the way: {output:?}");
    assert_eq!(sample::names(&dir.join("pg_wal")), ["RECOVERYXLOG"]);
}

#[test]
fn the_same_file_can_be_fetched_twice_at_once() {
    let stored = Stored::new();
    let dir = stored.work_dir("work", &["standby.signal"]);
    for round in 0..5 {
        let fetch = |n: u32| {
            let command = stored.command(&dir, &stored.segment, "dest");
            Background::start(command, stored.scratch.join(format!("log{round}{n}")))
        };
        let mut both = [fetch(1), fetch(2)];
        for fetch in &mut both {
            assert!(fetch.wait(Duration::from_secs(30)).success(), "{}", fetch.printed());
        }
        assert_eq!(fs::read(dir.join("dest")).unwrap(), stored.content(&stored.segment));
        assert_eq!(sample::names(&dir), ["dest", "standby.signal"]);
        fs::remove_file(dir.join("dest")).unwrap();
    }
}

#[test]
fn killed_at_any_call_it_leaves_the_whole_file_or_none() {
    let Some(strace) = Strace::find() else { return };
    let stored = Stored::new();
    let dir = stored.work_dir("work", &[]);
    let dest = dir.join("dest");
    let content = stored.content(&stored.segment);
    let all = strace.run(&stored.scratch, stored.command(&dir, &stored.segment, "dest"));
    assert_eq!(all.output.code, Some(0), "{:?}", all.output);
    fs::remove_file(&dest).unwrap();
    let mut killed = 0;
    for calls in ["write", "openat", "fsync,fdatasync", "rename,renameat,renameat2,link,linkat"] {
        let count = all.count(calls);
        assert!(count > 0, "no {calls} at all");
        for nth in 1..=count {
            let strace = strace.kill_at(calls, nth);
            let run = strace.run(&stored.scratch, stored.command(&dir, &stored.segment, "dest"));
            killed += u32::from(run.output.signal == Some(9));
            if dest.exists() {
                assert!(fs::read(&dest).unwrap() == content, "cut short at {calls} {nth}");
                fs::remove_file(&dest).unwrap();
            }
            assert_eq!(sample::names(&dir), Vec::<String>::new(), "left by {calls} {nth}");
        }
    }
    assert!(killed > 10, "only {killed} were killed");
    assert_eq!(stored.fetch(&dir, &stored.segment, "dest").code, Some(0));
}

#[test]
fn failing_calls_are_failures() {
    let Some(strace) = Strace::find() else { return };
    let stored = Stored::new();
    let dir = stored.work_dir("work", &["recovery.signal"]);
    for calls in ["fsync,fdatasync", "rename,renameat,renameat2,link,linkat"] {
        for errno in ["EIO", "ENOSPC"] {
            let strace = strace.fail_at(calls, errno, "1+");
            let run = strace.run(&stored.scratch, stored.command(&dir, &stored.segment, "dest"));
            assert_eq!(run.output.code, Some(206), "{calls} {errno}: {:?}", run.output);
            assert_eq!(sample::names(&dir), ["recovery.signal"], "{calls} {errno}");
        }
    }
}

/// A cluster with a backup in an archive, and rows that are only in WAL behind it.
struct Archived {
    scratch: Scratch,
    product: Product,
    primary: Cluster,
}

impl Archived {
    fn new() -> Option<Archived> {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        product.set("WALARCHIVE_RETRY_BUDGET", "0s");
        let primary = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").start()?;
        primary.archive_with(&product);
        product.set("WALARCHIVE_CONNECTION", &primary.conninfo());
        primary.psql("create table t (n int, filler text)");
        product.ok(&["backup", "create"]);
        for n in 0..4 {
            primary
                .psql(&format!("insert into t select {n}, repeat('x', 500) from generate_series(1, 1000)"));
            primary.archive_now();
        }
        Some(Archived { scratch, product, primary })
    }

    fn restore(&self, more: &[&str]) -> PathBuf {
        let target = self.scratch.join("restored");
        self.product.ok(&[&["restore", "--target-dir", target.to_str().unwrap()], more].concat());
        target
    }

    fn archive(&self) -> (PathBuf, PathBuf) {
        let archive = self.product.archive_dir();
        let away = archive.with_file_name("away");
        (archive, away)
    }

    /// Fetches, but takes the archive away just before the first request that matches `glob`.
    fn vanishing_fetch(&self, glob: &str) -> String {
        let (archive, away) = self.archive();
        let fetch = self.product.script("walarchive-fetch");
        let once = self.scratch.join("once");
        let text = format!(
            "#!/bin/sh\ncase $1 in {glob}) [ -e {once} ] || {{ touch {once}; mv {archive} {away}; }};; esac\nexec {fetch} \"$@\"\n",
            once = once.display(),
            archive = archive.display(),
            away = away.display(),
            fetch = fetch.display(),
        );
        let path = self.scratch.write("vanishing.sh", text);
        format!("sh {} %f %p", path.display())
    }
}

#[test]
fn recovery_stops_when_the_archive_vanishes_and_goes_on_when_it_is_back() {
    let Some(mut archived) = Archived::new() else { return };
    archived.primary.stop(StopMode::Immediate);
    let target = archived.restore(&[]);
    let (archive, away) = archived.archive();
    let builder = Cluster::adopt(&archived.scratch).option("archive_mode", "off");
    // Once in the middle of the segments, once at the history file that would name a new timeline.
    let last = archived.product.json(&["wal", "list"])["timelines"][0]["last"].as_str().unwrap().to_owned();
    let mut server =
        builder.option("restore_command", &archived.vanishing_fetch(&last)).existing(target).unwrap();
    for glob in [last.as_str(), "00000002.history"] {
        archived.vanishing_fetch(glob);
        server.launch();
        assert!(!server.wait_ended(), "{}", server.log());
        assert!(away.exists() && !archive.exists(), "the archive was not taken away at {glob}");
        assert!(server.log().contains("could not restore file"), "{}", server.log());
        let promoted = sample::files_with(&server.data_dir().join("pg_wal"), ".history");
        assert!(promoted.is_empty(), "{promoted:?}");
        let control = server.tool("pg_controldata", &[server.data_dir().to_str().unwrap()]);
        assert!(control.contains("in archive recovery"), "{control}");
        fs::rename(&away, &archive).unwrap();
        fs::remove_file(archived.scratch.join("once")).unwrap();
    }
    archived.vanishing_fetch("never");
    server.start();
    wait_until("recovery ends", Duration::from_secs(60), || server.psql("select pg_is_in_recovery()") == "f");
    assert_eq!(server.psql("select count(*) from t"), "4000");
}

#[test]
fn a_standby_outlives_an_outage_and_catches_up() {
    let Some(archived) = Archived::new() else { return };
    let target = archived.restore(&["--standby"]);
    let (archive, away) = archived.archive();
    let builder = Cluster::adopt(&archived.scratch).option("archive_mode", "off");
    let mut standby = builder.option("wal_retrieve_retry_interval", "200ms").existing(target).unwrap();
    standby.start();
    let rows = |count: &str| standby.psql("select count(*) from t") == count;
    wait_until("the standby follows", Duration::from_secs(60), || rows("4000"));
    fs::rename(&archive, &away).unwrap();
    archived.primary.psql("insert into t select 9 from generate_series(1, 1000)");
    archived.primary.switch_wal();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(standby.psql("select pg_is_in_recovery(), count(*) from t"), "t|4000");
    assert!(standby.log().contains("is it mounted"), "it never asked: {}", standby.log());
    fs::rename(&away, &archive).unwrap();
    // After three failures the archiver sleeps for a minute, unless another segment is ready.
    let wake = "select pg_logical_emit_message(false, 'a', 'b'); select pg_switch_wal()";
    wait_until("the standby catches up", Duration::from_secs(90), || {
        archived.primary.psql(wake);
        std::thread::sleep(Duration::from_millis(500));
        rows("5000")
    });
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    standby.stop(StopMode::Fast);
}
