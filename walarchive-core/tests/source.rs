//! One suite for every source of WAL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;
use walarchive_core::error::{Kind, Result};
use walarchive_core::source::{FileSource, Pace, ReadySource, WalFile, WalSource, waiting};
use walarchive_core::wal::WalName;

const ONE: &str = "000000010000000000000001";

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

async fn all(source: &mut dyn WalSource) -> Vec<WalFile> {
    let mut files = Vec::new();
    while let Some(file) = source.next().await.unwrap() {
        files.push(file);
    }
    files
}

/// The order of the contract, spelled out: histories by timeline, then the rest by name.
fn in_order(names: &[&str]) -> Vec<String> {
    let (mut histories, mut rest): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| name.ends_with(".history"));
    histories.sort_unstable();
    rest.sort_unstable();
    histories.into_iter().chain(rest).map(str::to_owned).collect()
}

fn names(files: &[WalFile]) -> Vec<String> {
    files.iter().map(|file| file.name.to_string()).collect()
}

/// What every source has to do. `open` gives a new source of the same files, whose names are `expected`.
fn conformance(open: &dyn Fn() -> Box<dyn WalSource>, expected: &[&str]) {
    run(async {
        let expected = in_order(expected);
        let first = all(&mut *open()).await;
        assert_eq!(names(&first), expected, "complete and in order");
        for file in &first {
            let shown = file.path.file_name().unwrap().to_str().unwrap();
            assert_eq!(shown.parse::<WalName>().unwrap(), file.name, "the path is the file's own");
            assert!(file.path.is_file());
        }
        let mut source = open();
        let mut given = BTreeSet::new();
        while let Some(file) = source.next().await.unwrap() {
            assert!(given.insert(file.name), "{} comes twice", file.name);
            source.stored(&file).await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(source.next().await.unwrap(), None, "the end is the end");
        }
        // Files that were given, and whose storing was never told, are not lost with the source.
        let mut forgetful = open();
        let _ = forgetful.next().await.unwrap();
        drop(forgetful);
        assert_eq!(all(&mut *open()).await, first);
    });
}

/// A data directory with these files in pg_wal and these entries in archive_status.
fn data_dir(files: &[&str], status: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
    let touch = |path: &str| fs::write(dir.path().join(path), "").unwrap();
    files.iter().for_each(|name| touch(&format!("pg_wal/{name}")));
    status.iter().for_each(|name| touch(&format!("pg_wal/archive_status/{name}")));
    dir
}

fn ready(names: &[&str]) -> TempDir {
    let status: Vec<String> = names.iter().map(|name| format!("{name}.ready")).collect();
    data_dir(names, &status.iter().map(String::as_str).collect::<Vec<_>>())
}

const EVERY_KIND: [&str; 8] = [
    "000000020000000000000005",
    "00000003.history",
    "000000010000000000000006",
    "000000010000000000000005.partial",
    "000000010000000000000005",
    "000000010000000000000004.00000028.backup",
    "00000002.history",
    "000000010000000000000004",
];

#[test]
fn one_file_conforms() {
    for text in EVERY_KIND {
        let dir = data_dir(&[text], &[]);
        let path = dir.path().join("pg_wal").join(text);
        conformance(&|| Box::new(FileSource::new(&path).unwrap()), &[text]);
    }
}

#[test]
fn ready_files_conform() {
    for names in [&EVERY_KIND[..], &EVERY_KIND[..1], &[]] {
        let dir = ready(names);
        conformance(&|| Box::new(ReadySource::new(dir.path())), names);
    }
}

#[test]
fn the_order_is_that_of_the_contract() {
    let dir = ready(&EVERY_KIND);
    let files = run(all(&mut ReadySource::new(dir.path())));
    assert_eq!(
        names(&files),
        [
            "00000002.history",
            "00000003.history",
            "000000010000000000000004",
            "000000010000000000000004.00000028.backup",
            "000000010000000000000005",
            "000000010000000000000005.partial",
            "000000010000000000000006",
            "000000020000000000000005",
        ]
    );
}

#[test]
fn only_what_is_ready_and_there_is_given() {
    let files = [ONE, "000000010000000000000002", "000000010000000000000003", "000000010000000000000005"];
    let status = [
        "000000010000000000000001.ready",
        "000000010000000000000002.done",
        "000000010000000000000004.ready",
        "000000010000000000000005.ready.tmp",
        "notes.ready",
        ".ready",
        "ready",
    ];
    let dir = data_dir(&files, &status);
    conformance(&|| Box::new(ReadySource::new(dir.path())), &[ONE]);
    let left = fs::read_dir(dir.path().join("pg_wal/archive_status")).unwrap().count();
    assert_eq!(left, status.len(), "the server's files are left alone");
}

#[test]
fn what_becomes_ready_later_is_for_the_next_source() {
    let dir = ready(&[ONE]);
    run(async {
        let mut source = ReadySource::new(dir.path());
        let first = source.next().await.unwrap().unwrap();
        let later = "000000010000000000000002";
        fs::write(dir.path().join("pg_wal").join(later), "").unwrap();
        fs::write(dir.path().join("pg_wal/archive_status").join(format!("{later}.ready")), "").unwrap();
        source.stored(&first).await.unwrap();
        assert_eq!(source.next().await.unwrap(), None, "it looks once");
        assert_eq!(names(&all(&mut ReadySource::new(dir.path())).await), [ONE, later]);
    });
}

fn status_file(dir: &TempDir, name: &str, ready: SystemTime) {
    let path = dir.path().join("pg_wal/archive_status").join(name);
    fs::File::create(path).unwrap().set_modified(ready).unwrap();
}

fn segment(number: u32) -> String {
    format!("{:024X}", (1_u128 << 64) + u128::from(number))
}

#[test]
fn what_waits_is_told_with_its_age_and_size() {
    let dir = data_dir(&[], &[]);
    let now = SystemTime::now();
    let ago = |seconds: u64| now - Duration::from_secs(seconds);
    for number in 5..9 {
        fs::write(dir.path().join("pg_wal").join(segment(number)), vec![0; 4096]).unwrap();
        status_file(&dir, &format!("{}.ready", segment(number)), ago(60 - u64::from(number)));
    }
    for (name, length, since) in
        [("00000002.history", 50, 1), ("000000010000000000000006.00000028.backup", 300, 53)]
    {
        fs::write(dir.path().join("pg_wal").join(name), vec![0; length]).unwrap();
        status_file(&dir, &format!("{name}.ready"), ago(since));
    }
    // Their files are gone.
    status_file(&dir, &format!("{}.ready", segment(1)), ago(1000));
    status_file(&dir, &format!("{}.done", segment(2)), ago(1000));
    let seen = waiting(dir.path(), now.try_into().unwrap()).unwrap();
    assert_eq!((seen.files, seen.bytes), (6, 4 * 4096 + 350));
    assert_eq!(seen.oldest.unwrap().to_string(), "00000002.history", "it is archived first");
    assert_eq!((seen.age(), seen.since), (Duration::from_secs(55), Some(ago(55).try_into().unwrap())));
    assert!(
        seen.is_backlog() && seen.pace.is_none() && !seen.is_deficit(),
        "nothing tells of what was archived"
    );
    assert_eq!(seen.caught_up_in(), None);
    for number in 5..9 {
        fs::remove_file(dir.path().join("pg_wal").join(segment(number))).unwrap();
    }
    let seen = waiting(dir.path(), now.try_into().unwrap()).unwrap();
    assert_eq!((seen.files, seen.bytes, seen.is_backlog()), (2, 350, false));
}

/// Segments 1 to 9 were written in the last seconds, the first four of them are archived, the first of these long ago.
#[test]
fn the_pace_is_seen_from_the_first_that_is_left() {
    let dir = data_dir(&[], &[]);
    let (start, status) = (SystemTime::now(), dir.path().join("pg_wal/archive_status"));
    for number in 1..10 {
        fs::write(dir.path().join("pg_wal").join(segment(number)), vec![0; 1000]).unwrap();
        status_file(&dir, &format!("{}.ready", segment(number)), start);
    }
    for number in 1..5 {
        std::thread::sleep(Duration::from_millis(30));
        let [from, to] = ["ready", "done"].map(|suffix| status.join(format!("{}.{suffix}", segment(number))));
        fs::rename(from, to).unwrap();
    }
    for number in 5..10 {
        status_file(
            &dir,
            &format!("{}.ready", segment(number)),
            start + Duration::from_secs(u64::from(number)),
        );
    }
    let at = |seconds: u64| Timestamp::try_from(start + Duration::from_secs(seconds)).unwrap();
    let seen = waiting(dir.path(), at(14)).unwrap();
    let pace = seen.pace.unwrap();
    let over = |pace: &Pace| (pace.written_over.as_secs(), pace.archived_over.as_secs());
    assert_eq!((pace.written, pace.archived, over(&pace)), (5, 3, (14, 13)), "after the first");
    assert!(pace.falls_behind() && !seen.is_deficit(), "the oldest has only just come");
    // Since the oldest waits, none was archived.
    let seen = waiting(dir.path(), at(25)).unwrap();
    let pace = seen.pace.unwrap();
    assert_eq!((pace.written, pace.archived, over(&pace)), (4, 0, (20, 20)));
    assert!(seen.is_deficit() && seen.caught_up_in().is_none());
    assert!(waiting(dir.path(), at(0)).unwrap().pace.is_none(), "too little was seen");
    // A checkpoint has removed what was archived.
    for number in 1..5 {
        fs::remove_file(dir.path().join("pg_wal").join(segment(number))).unwrap();
    }
    assert!(waiting(dir.path(), at(25)).unwrap().pace.is_none());
    fs::create_dir(dir.path().join("global")).unwrap();
    let control = fs::File::create(dir.path().join("global/pg_control")).unwrap();
    control.set_modified(start + Duration::from_secs(7)).unwrap();
    let pace = waiting(dir.path(), at(25)).unwrap().pace.unwrap();
    assert_eq!((pace.written, pace.archived, over(&pace)), (4, 0, (20, 18)), "archived since the checkpoint");
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error_and_not_an_end() {
    let dir = TempDir::new().unwrap();
    let error = run(ReadySource::new(dir.path()).next()).expect_err("no archive_status");
    assert_eq!(error.kind(), Kind::Local);
    assert!(error.story().contains("pg_wal/archive_status"), "{error:?}");
}

#[test]
fn a_path_without_a_wal_name_is_refused() {
    for path in ["", "/", "pg_wal/", "pg_wal/notes", "/tmp/..", "000000010000000000000001.gz"] {
        let source: Result<FileSource> = FileSource::new(Path::new(path));
        let error = source.expect_err(path);
        assert_eq!(error.kind(), Kind::Usage, "{path}");
    }
    let error = FileSource::new(Path::new("/data/pg_wal/notes")).expect_err("notes");
    assert!(error.story().contains("/data/pg_wal/notes"), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_ready_files_come_in_order(
        names in prop::collection::btree_set(
            "0000000[1-3]\\.history|0000000[1-3]0000000[0-1]000000[0-9A-F]{2}(\\.partial|\\.00000028\\.backup)?",
            0..30,
        ),
        orphans in prop::collection::btree_set("000000040000000000000[0-9]{3}", 0..5),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let status: Vec<String> =
            names.iter().copied().chain(orphans.iter().map(String::as_str)).map(|name| format!("{name}.ready")).collect();
        let dir = data_dir(&names, &status.iter().map(String::as_str).collect::<Vec<_>>());
        conformance(&|| Box::new(ReadySource::new(dir.path())), &names);
    }
}
