//! One suite for every source of WAL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use walarchive_core::error::{Kind, Result};
use walarchive_core::source::{FileSource, ReadySource, WalFile, WalSource};
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
