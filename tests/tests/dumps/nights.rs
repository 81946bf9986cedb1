//! Nights that fail in every way: what was good stays, and what happened is said.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use walarchive_tests::{Options, find};

use super::Night;

impl Night {
    /// A directory with PostgreSQL's client programs, in which `pg_dump` is a script that may run the real one as `$REAL`.
    /// It tells its version like the real one.
    pub(super) fn with_pg_dump(&self, name: &str, script: &str) -> PathBuf {
        let dir = self.scratch.dir(name);
        for program in ["psql", "pg_restore", "pg_dumpall"] {
            std::os::unix::fs::symlink(find(program).unwrap(), dir.join(program)).unwrap();
        }
        let real = find("pg_dump").unwrap();
        let text =
            format!("REAL={0}\n[ \"$1\" = --version ] && exec $REAL --version\n{script}", real.display());
        self.program(&format!("{name}/pg_dump"), &text);
        dir
    }

    fn good_nights(&self, count: usize) {
        for nth in 0..count {
            self.sql(
                "postgres",
                &format!("create table if not exists night (n int); insert into night values ({nth})"),
            );
            let done = self.run(&["create"]);
            assert_eq!(done.code, Some(0), "{done:?}");
        }
    }
}

#[test]
fn three_good_dumps_outlive_any_number_of_bad_nights() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    night.product.set("WALARCHIVE_DUMP_KEEP_DAILY", "3");
    night.good_nights(5);
    let good = night.ids("postgres");
    assert_eq!(good.len(), 3, "the rule was applied");

    let ways = [
        (
            "exit1",
            "echo 'pg_dump: error: connection to server failed' >&2; exit 1",
            5,
            "connection to server failed",
        ),
        ("halfway", "$REAL \"$@\" | head -c 200; kill -9 $$", 6, "signal 9"),
        ("cut", "$REAL \"$@\" | head -c -20; exit 0", 4, "cut off"),
        ("empty", "exit 0", 4, "cut off"),
        ("noise", "head -c 100000 /dev/zero; exit 0", 4, "cannot be what pg_dump writes"),
        (
            "full",
            "echo 'pg_dump: error: could not write to output file: No space left on device' >&2; exit 1",
            6,
            "No space",
        ),
    ];
    for (name, script, code, said) in ways {
        let dir = night.with_pg_dump(name, script);
        let product = night.product.but("WALARCHIVE_BIN_DIR", dir.to_str().unwrap());
        let failed = product.run(&["--json", "dump", "create"]);
        assert_eq!(failed.code, Some(code), "{name}: {failed:?}");
        let report = failed.json();
        let of = |database: &str| {
            report["dumps"]
                .as_array()
                .unwrap()
                .iter()
                .find(|dump| dump["database"] == database)
                .unwrap()
                .clone()
        };
        assert_eq!(
            (of("globals")["ok"].as_bool(), of("postgres")["ok"].as_bool()),
            (Some(true), Some(false)),
            "{report}"
        );
        assert!(of("postgres")["error"]["message"].as_str().unwrap().contains(said), "{name}: {report}");
        assert_eq!(night.ids("postgres"), good, "after {name}");
    }
    // The plain format has an end of its own.
    let dir = night.with_pg_dump("cutplain", "$REAL \"$@\" | head -c -100; exit 0");
    let product = night.product.but("WALARCHIVE_BIN_DIR", dir.to_str().unwrap());
    let failed = product.run(&["--json", "dump", "create", "--format", "plain"]);
    assert_eq!((failed.code, night.ids("postgres") == good), (Some(4), true), "{failed:?}");
    // A directory that lacks its end.
    let mut product = night.product.but("WALARCHIVE_BIN_DIR", night.with_pg_dump(
        "cutdir",
        "$REAL \"$@\" || exit; for arg; do case \"$before\" in -f) dir=$arg;; esac; before=$arg; done; \
         for file in $dir/*.dat; do case $file in */toc.dat) ;; *) truncate -s -4 $file;; esac; done",
    ).to_str().unwrap());
    product.set("WALARCHIVE_DUMP_PARALLEL_FROM", "1");
    let failed = product.run(&["--json", "dump", "create", "--jobs", "2"]);
    assert_eq!((failed.code, night.ids("postgres") == good), (Some(4), true), "{failed:?}");
    assert_all_restore(&night, &good);
}

#[test]
fn whatever_is_away_the_good_dumps_stay() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    night.product.set("WALARCHIVE_DUMP_KEEP_DAILY", "3");
    night.good_nights(3);
    let good = night.ids("postgres");
    // No pg_dump at all, and one that does not even tell its version.
    let missing = night.scratch.dir("missing");
    let broken = night.scratch.dir("broken");
    night.program("broken/pg_dump", "exit 1");
    for (dir, code) in [(missing, 2), (broken, 6)] {
        let failed =
            night.product.but("WALARCHIVE_BIN_DIR", dir.to_str().unwrap()).run(&["--json", "dump", "create"]);
        assert_eq!((failed.code, night.ids("postgres") == good), (Some(code), true), "{failed:?}");
        assert_eq!(failed.json()["error"]["code"], code, "{failed:?}");
    }
    // The server is away.
    let away = night.product.but("WALARCHIVE_CONNECTION", "host=/nowhere").run(&["--json", "dump", "create"]);
    assert_eq!((away.code, night.ids("postgres") == good), (Some(5), true), "{away:?}");
    // The store is away.
    let archive = night.product.archive_dir();
    let aside = archive.with_extension("aside");
    fs::rename(&archive, &aside).unwrap();
    let away = night.run(&["create"]);
    assert_eq!(away.code, Some(5), "{away:?}");
    fs::rename(&aside, &archive).unwrap();
    assert_eq!(night.ids("postgres"), good);

    assert_all_restore(&night, &good);
}

/// After a good night more.
fn assert_all_restore(night: &Night, good: &[String]) {
    night.good_nights(1);
    let ids = night.ids("postgres");
    assert_eq!(ids[..2], good[1..], "a good night takes the place of the oldest");
    for id in &ids {
        let restored = night.run(&["restore", id, "--as", "proof"]);
        assert_eq!(restored.code, Some(0), "{restored:?}");
        night.sql("postgres", "drop database proof");
    }
}

#[test]
fn a_full_disk_leaves_the_set_before() {
    let Some(mut night) = Night::begin(Options { init: false, ..Options::default() }) else { return };
    let small = night.scratch.dir("small");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1500k,mode=0777", "none"])
        .arg(&small)
        .output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("\nSKIPPED: a full disk needs root and mount: {mounted:?}\n");
        return;
    }
    night.product.set("WALARCHIVE_ARCHIVE", &format!("file://{}/archive", small.display()));
    night.product.ok(&["init"]);
    night.sql("postgres", "create table t as select n from generate_series(1, 1000) n");
    assert_eq!(night.run(&["create"]).code, Some(0));
    let before = night.dumps();
    night.sql(
        "postgres",
        "create table more as select md5(n::text) || md5((-n)::text) from generate_series(1, 100000) n",
    );
    let failed = night.run(&["create"]);
    let after = night.dumps();
    let restored = night.run(&["restore", before[1]["id"].as_str().unwrap(), "--as", "proof"]);
    let room = night.run(&["create", "--no-globals", "--database", "proof"]);
    let _ = Command::new("umount").arg("-l").arg(&small).status();
    assert_eq!(failed.code, Some(6), "{failed:?}");
    assert!(failed.stderr.contains("space"), "{failed:?}");
    assert!(before.iter().all(|dump| after.iter().any(|other| other["id"] == dump["id"])), "{after:?}");
    assert!(after.iter().filter(|dump| dump["database"] == "postgres").count() == 1, "{after:?}");
    assert_eq!((restored.code, room.code), (Some(0), Some(0)), "what was half stored is gone: {room:?}");
}

#[test]
fn a_killed_run_leaves_nothing_that_counts() {
    let Some(night) = Night::begin(Options::default()) else { return };
    night.good_nights(1);
    let dir = night.with_pg_dump("slow", "$REAL \"$@\"; touch slow-began; sleep 60");
    let product = night.product.but("WALARCHIVE_BIN_DIR", dir.to_str().unwrap());
    let mut run = product.command(&["dump", "create"]).spawn().unwrap();
    let began = night.scratch.join("slow-began");
    walarchive_tests::wait_until("pg_dump has written", std::time::Duration::from_secs(30), || {
        began.exists()
    });
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(night.ids("postgres").len(), 1);
    // The lease of the dead run keeps packs, and nobody from dumping.
    night.good_nights(1);
    assert_eq!(night.ids("postgres").len(), 2);
}

#[test]
fn exit_codes_tell_who_has_to_do_something() {
    let Some(night) = Night::begin(Options::default()) else { return };
    night.sql("postgres", "create schema s; create table s.t (n int)");
    night.good_nights(1);
    for connection in ["host=nowhere.invalid", "host=127.0.0.1 port=1"] {
        let away = night.product.but("WALARCHIVE_CONNECTION", connection);
        for args in [&["create"][..], &["restore", "latest", "--database", "postgres", "--as", "x"]] {
            let failed = away.run(&[&["--json", "dump"], args].concat());
            assert_eq!(failed.code, Some(5), "{connection} {args:?}: {failed:?}");
        }
    }
    for nonsense in ["--nonsense", "--table=nobody", "--schema-only --data-only", "-E klingon"] {
        let args: Vec<_> = ["create", "--no-globals", "--"].into_iter().chain(nonsense.split(' ')).collect();
        let failed = night.run(&args);
        assert_eq!(failed.code, Some(2), "{nonsense}: {failed:?}");
    }
    night.sql("postgres", "create database other");
    let add = |more: &[&str]| {
        night
            .run(&[&["restore", "latest", "--database", "postgres", "--as", "other", "--add"], more].concat())
            .code
    };
    assert_eq!(add(&[]), Some(2), "neither schema nor table");
    if !night.tools_are_too_new() {
        assert_eq!(add(&["--table", "s.t"]), Some(3), "the schema is not there");
        night.sql("other", "create schema s; create table s.t ()");
        assert_eq!(add(&["--table", "s.t"]), Some(3), "the table is there");
    }
}

#[test]
fn what_leaves_something_out_takes_no_whole_dump_s_place() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    night.product.set("WALARCHIVE_DUMP_KEEP_LAST", "1");
    night.good_nights(1);
    let whole = night.ids("postgres");
    for _ in 0..2 {
        let done = night.run(&["create", "--no-globals", "--", "--schema-only"]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let of = |partial: bool| {
        let dumps = night.dumps();
        let of =
            dumps.into_iter().filter(|dump| dump["database"] == "postgres" && dump["partial"] == partial);
        of.collect::<Vec<_>>()
    };
    assert_eq!((of(false).len(), &of(false)[0]["id"]), (1, &whole[0].as_str().into()), "it stays");
    let partial = of(true);
    assert_eq!((partial.len(), &partial[0]["slots"]), (1, &serde_json::json!([])), "{partial:?}");
    assert!(!of(false)[0]["slots"].as_array().unwrap().is_empty());
    let list = night.product.ok(&["dump", "list"]);
    assert_eq!(list.lines().filter(|line| line.ends_with("partial")).count(), 1, "{list}");
    // Neither is taken for the latest unasked.
    let refused = night.run(&["restore", "latest", "--database", "postgres", "--as", "x"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains(&whole[0]) && refused.stderr.contains("--schema-only"), "{refused:?}");
    assert_eq!(night.run(&["delete", &whole[0], "--yes"]).code, Some(3), "it is the only whole one");
    night.good_nights(1);
    assert_eq!((of(false).len(), of(true).len()), (1, 1), "each in a line of its own");
    assert_ne!(of(false)[0]["id"], whole[0].as_str());
    assert_eq!(night.run(&["restore", "latest", "--database", "postgres", "--as", "x"]).code, Some(0));
}

#[test]
fn everything_is_said_once() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    for nothing in ["0d", "0s"] {
        let refused = night.product.but("WALARCHIVE_DUMP_KEEP_LAST", nothing).run(&["dump", "create"]);
        assert_eq!((refused.code, night.dumps().len()), (Some(2), 0), "{refused:?}");
    }
    night.product.set("WALARCHIVE_DUMP_KEEP_LAST", "1");
    night.good_nights(1);
    let dir = night.with_pg_dump("broken", "echo 'pg_dump: error: it is broken' >&2; exit 1");
    let failed = night.product.but("WALARCHIVE_BIN_DIR", dir.to_str().unwrap()).run(&["dump", "create"]);
    assert!(failed.stdout.contains("FAILED") && !failed.stdout.contains("it is broken"), "{failed:?}");
    assert_eq!(failed.stderr.matches("it is broken").count(), 1, "{failed:?}");
    let would = night.product.run(&["dump", "delete", &night.ids("globals")[0], "--even-the-last"]);
    assert!(would.stdout.contains("(1 pack, "), "{would:?}");
    let id = &night.ids("postgres")[0];
    let manifest = night.product.archive_dir().join("main/dumps/manifests").join(id).join("manifest");
    fs::write(manifest, "damaged").unwrap();
    let damaged = night.product.run(&["dump", "create"]);
    assert_eq!(damaged.code, Some(4), "{damaged:?}");
    assert_eq!(damaged.stderr.matches("retention is not applied").count(), 1, "{damaged:?}");
}
