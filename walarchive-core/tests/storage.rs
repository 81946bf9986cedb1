//! One suite for every store, and what only a directory can get wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::TryStreamExt;
use tempfile::TempDir;
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::storage::{Created, LocalStorage, MemoryStorage, Storage, StoreOptions, create, open};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test);
}

fn one(content: impl Into<Vec<u8>>) -> Vec<Bytes> {
    vec![Bytes::from(content.into())]
}

fn kind<T>(result: Result<T>) -> Kind {
    result.map(drop).expect_err("an error").kind()
}

async fn content(storage: &dyn Storage, key: &str) -> Vec<u8> {
    let part = storage.get(key, None).await.unwrap();
    assert_eq!(part.object_size, part.bytes.len() as u64);
    part.bytes.to_vec()
}

async fn list(storage: &dyn Storage, prefix: &str) -> BTreeSet<(String, u64)> {
    let entries: Vec<_> = storage.list(prefix).try_collect().await.unwrap();
    let set: BTreeSet<_> = entries.iter().map(|entry| (entry.key.clone(), entry.size)).collect();
    assert_eq!(set.len(), entries.len(), "no key is listed twice");
    set
}

async fn keys(storage: &dyn Storage, prefix: &str) -> Vec<String> {
    list(storage, prefix).await.into_iter().map(|(key, _)| key).collect()
}

async fn dirs(storage: &dyn Storage, prefix: &str) -> BTreeSet<String> {
    storage.list_dirs(prefix).await.unwrap().into_iter().collect()
}

async fn objects_are_created_once(storage: &dyn Storage) {
    assert_eq!(storage.create("c/one", one("first")).await.unwrap(), Created::New);
    assert_eq!(storage.create("c/one", one("second, longer")).await.unwrap(), Created::Exists);
    assert_eq!(content(storage, "c/one").await, b"first");
    assert_eq!(storage.create("c/empty", vec![]).await.unwrap(), Created::New);
    assert_eq!(content(storage, "c/empty").await, b"");
    assert_eq!(storage.create("c/empty", one("more")).await.unwrap(), Created::Exists);
    assert_eq!(storage.size("c/empty").await.unwrap(), 0);
    let parts: Vec<Bytes> = (0..5000_u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
    storage.create("c/parts", parts.clone()).await.unwrap();
    assert!(content(storage, "c/parts").await == parts.concat());
    let large: Vec<u8> = (0..9_u32 << 18).flat_map(u32::to_le_bytes).collect();
    storage.create("c/deep/er/large", one(large.clone())).await.unwrap();
    assert_eq!(storage.size("c/deep/er/large").await.unwrap(), 9 << 20);
    assert!(content(storage, "c/deep/er/large").await == large);
}

async fn one_of_many_creates_wins(storage: &Arc<dyn Storage>) {
    for round in 0..8 {
        let key = format!("race/{round}/key");
        let racers = (0..16_u8).map(|racer| {
            let (storage, key) = (Arc::clone(storage), key.clone());
            tokio::spawn(async move { storage.create(&key, one(vec![racer; 40_000])).await.unwrap() })
        });
        let results = join_all(racers).await;
        let winners: Vec<_> =
            (0..16_u8).zip(results).filter(|(_, got)| *got.as_ref().unwrap() == Created::New).collect();
        assert_eq!(winners.len(), 1, "exactly one create is the first");
        assert!(content(&**storage, &key).await == vec![winners[0].0; 40_000]);
    }
}

async fn ranges_are_clipped(storage: &dyn Storage) {
    let bytes: Vec<u8> = (0..100).collect();
    storage.create("r/object", one(bytes.clone())).await.unwrap();
    storage.create("r/empty", vec![]).await.unwrap();
    let ranges = [(0, 100), (0, 1), (99, 100), (10, 20), (90, 1000), (0, u64::MAX), (99, u64::MAX)];
    let beyond = [(100, 101), (100, u64::MAX), (5000, 6000), (u64::MAX - 1, u64::MAX), (100, 100)];
    let nothing = [(0, 0), (50, 50), (60, 50), (u64::MAX, u64::MAX), (u64::MAX, 0)];
    for (start, end) in ranges.into_iter().chain(beyond).chain(nothing) {
        let part = storage.get("r/object", Some(start..end)).await.unwrap();
        let start = start.min(100) as usize;
        let wanted = &bytes[start..(end.min(100) as usize).max(start)];
        assert_eq!((&part.bytes[..], part.object_size), (wanted, 100), "{start}..{end}");
        let part = storage.get("r/empty", Some(start as u64..end)).await.unwrap();
        assert_eq!((part.bytes.len(), part.object_size), (0, 0), "{start}..{end} of nothing");
    }
}

async fn listings_know_segments(storage: &dyn Storage) {
    for key in ["l/a/b/1", "l/a/b/c/2", "l/a/bc", "l/a/bc.d/3", "l/ab/4", "l/a/0", "l/a/b.5"] {
        storage.create(key, one(key)).await.unwrap();
    }
    assert_eq!(keys(storage, "l/a/b").await, ["l/a/b/1", "l/a/b/c/2"]);
    let below = ["l/a/0", "l/a/b.5", "l/a/b/1", "l/a/b/c/2", "l/a/bc", "l/a/bc.d/3"];
    assert_eq!(keys(storage, "l/a").await, below);
    assert!(list(storage, "l/a").await.contains(&("l/a/b/c/2".into(), 9)));
    assert_eq!(keys(storage, "l/a/bc").await, [""; 0], "an object has nothing below it");
    assert_eq!(keys(storage, "l/none/at/all").await, [""; 0]);
    assert!(keys(storage, "").await.contains(&"l/ab/4".to_owned()));
    assert_eq!(dirs(storage, "l/a").await, ["b", "bc.d"].map(String::from).into());
    assert_eq!(dirs(storage, "l").await, ["a", "ab"].map(String::from).into());
    assert!(dirs(storage, "").await.contains("l"));
    assert_eq!(dirs(storage, "l/a/bc").await, BTreeSet::new());
    assert_eq!(dirs(storage, "l/none").await, BTreeSet::new());
    storage.delete("l/a/bc.d/3").await.unwrap();
    assert_eq!(dirs(storage, "l/a").await, ["b".to_owned()].into(), "with nothing below it no longer");
    for n in 0..2300 {
        storage.create(&format!("many/{:02}/{n}", n % 7), vec![]).await.unwrap();
    }
    assert_eq!(list(storage, "many").await.len(), 2300);
}

async fn absent_objects_are_absent(storage: &dyn Storage) {
    storage.create("gone/object", one("x")).await.unwrap();
    for key in ["gone/other", "gone", "gone/object/below", "never/ever"] {
        assert_eq!(kind(storage.get(key, None).await), Kind::Absent, "{key}");
        assert_eq!(kind(storage.get(key, Some(0..10)).await), Kind::Absent, "{key}");
        assert_eq!(kind(storage.get(key, Some(5..5)).await), Kind::Absent, "{key}");
        assert_eq!(kind(storage.get(key, Some(5000..6000)).await), Kind::Absent, "{key}");
        assert_eq!(kind(storage.size(key).await), Kind::Absent, "{key}");
        storage.delete(key).await.unwrap();
    }
    assert_eq!(content(storage, "gone/object").await, b"x", "deleting around it leaves it");
    storage.delete("gone/object").await.unwrap();
    storage.delete("gone/object").await.unwrap();
    assert_eq!(kind(storage.get("gone/object", None).await), Kind::Absent);
    assert_eq!(storage.create("gone/object", one("y")).await.unwrap(), Created::New);
}

async fn uploads_show_when_finished(storage: &dyn Storage) {
    let upload = storage.upload("u/finished").await.unwrap();
    let pieces = [vec![1; 5 << 20], (0..5 << 20).map(|at| (at >> 8) as u8).collect(), vec![3; 17]];
    for (nth, piece) in pieces.iter().enumerate() {
        // One part, thousands, and parts of which some are empty: only their order counts.
        let parts = match nth {
            0 => one(piece.clone()),
            1 => piece.chunks(1000).map(Bytes::copy_from_slice).collect(),
            _ => vec![Bytes::new(), Bytes::copy_from_slice(piece), Bytes::new()],
        };
        upload.part(nth, parts).await.unwrap();
        assert_eq!(kind(storage.get("u/finished", None).await), Kind::Absent);
        assert_eq!(keys(storage, "u").await, [""; 0]);
        assert!(!dirs(storage, "").await.contains("u"));
    }
    upload.finish().await.unwrap();
    assert!(content(storage, "u/finished").await == pieces.concat());
    storage.upload("u/empty").await.unwrap().finish().await.unwrap();
    assert_eq!(content(storage, "u/empty").await, b"");
    let aborted = storage.upload("u/aborted").await.unwrap();
    aborted.part(0, one("piece")).await.unwrap();
    aborted.abort().await.unwrap();
    let dropped = storage.upload("u/dropped").await.unwrap();
    dropped.part(0, one("piece")).await.unwrap();
    drop(dropped);
    assert_eq!(keys(storage, "u").await, ["u/empty", "u/finished"]);
    assert_eq!(storage.create("u/finished", one("z")).await.unwrap(), Created::Exists);
}

async fn keys_stay_inside(storage: &dyn Storage) {
    for key in
        ["", "/", "../outside", "a/../../outside", "a//b", "a/./b", "/etc/passwd", "a#1", "a b", "ä", "a/"]
    {
        assert_eq!(kind(storage.create(key, vec![]).await), Kind::Usage, "{key:?}");
        assert_eq!(kind(storage.upload(key).await), Kind::Usage, "{key:?}");
        assert_eq!(kind(storage.get(key, None).await), Kind::Usage, "{key:?}");
        assert_eq!(kind(storage.size(key).await), Kind::Usage, "{key:?}");
        assert_eq!(kind(storage.delete(key).await), Kind::Usage, "{key:?}");
        if !key.is_empty() {
            assert_eq!(kind(storage.list(key).try_collect::<Vec<_>>().await), Kind::Usage, "{key:?}");
            assert_eq!(kind(storage.list_dirs(key).await), Kind::Usage, "{key:?}");
        }
    }
}

async fn conformance(storage: Arc<dyn Storage>) {
    assert_eq!(keys(&*storage, "").await, [""; 0]);
    assert_eq!(dirs(&*storage, "").await, BTreeSet::new());
    objects_are_created_once(&*storage).await;
    one_of_many_creates_wins(&storage).await;
    ranges_are_clipped(&*storage).await;
    listings_know_segments(&*storage).await;
    absent_objects_are_absent(&*storage).await;
    uploads_show_when_finished(&*storage).await;
    keys_stay_inside(&*storage).await;
}

#[test]
fn memory_conforms() {
    run(conformance(Arc::new(MemoryStorage::new())));
}

#[test]
fn local_conforms() {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path().join("not yet/100% ü #1");
    run(conformance(Arc::new(LocalStorage::create_root(&root).unwrap())));
    assert!(root.join("c/one").is_file(), "keys are paths below the root");
    let outside: Vec<_> = fs::read_dir(root.parent().unwrap()).unwrap().collect();
    assert_eq!(outside.len(), 1, "nothing escapes the root");
}

#[test]
fn losers_of_a_race_clean_up() {
    let scratch = TempDir::new().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(scratch.path()).unwrap());
    run(one_of_many_creates_wins(&storage));
    let left: Vec<_> = walk(scratch.path()).into_iter().filter(|name| name.contains('#')).collect();
    assert_eq!(left, [""; 0]);
}

/// Without a runtime all work is done where it is asked for, so nothing ever has to wait.
#[test]
fn local_works_without_a_runtime() {
    let scratch = TempDir::new().unwrap();
    let storage = LocalStorage::open(scratch.path()).unwrap();
    let test = std::pin::pin!(async {
        storage.create("a/b", one("content")).await.unwrap();
        assert_eq!(content(&storage, "a/b").await, b"content");
        assert_eq!(keys(&storage, "").await, ["a/b"]);
        storage.delete("a/b").await.unwrap();
    });
    let polled = test.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(polled.is_ready());
}

fn walk(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path().to_str().unwrap().to_owned());
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

/// What every operation answers.
async fn every_operation(storage: &dyn Storage) -> Vec<(&'static str, Result<()>)> {
    vec![
        ("create", storage.create("new/object", one("x")).await.map(drop)),
        ("create again", storage.create("a/object", one("x")).await.map(drop)),
        ("upload", storage.upload("new/upload").await.map(drop)),
        ("get", storage.get("a/object", None).await.map(drop)),
        ("get range", storage.get("a/object", Some(0..1)).await.map(drop)),
        ("get nothing", storage.get("a/object", Some(1..1)).await.map(drop)),
        ("get absent", storage.get("a/absent", None).await.map(drop)),
        ("size", storage.size("a/object").await.map(drop)),
        ("list", storage.list("a").try_collect::<Vec<_>>().await.map(drop)),
        ("list all", storage.list("").try_collect::<Vec<_>>().await.map(drop)),
        ("list dirs", storage.list_dirs("").await.map(drop)),
        ("list dirs below", storage.list_dirs("a").await.map(drop)),
        ("delete", storage.delete("a/object").await),
    ]
}

fn assert_all(results: Vec<(&'static str, Result<()>)>, wanted: Kind) {
    for (operation, result) in results {
        let error = result.expect_err(operation);
        assert_eq!(error.kind(), wanted, "{operation}: {error:?}");
    }
}

#[test]
fn a_root_that_vanished_is_unreachable_and_stays_away() {
    run(async {
        let scratch = TempDir::new().unwrap();
        let (root, away) = (scratch.path().join("root"), scratch.path().join("away"));
        let storage = LocalStorage::create_root(&root).unwrap();
        storage.create("a/object", one("content")).await.unwrap();
        let upload = storage.upload("a/upload").await.unwrap();
        upload.part(0, one("piece")).await.unwrap();
        fs::rename(&root, &away).unwrap();
        assert_all(every_operation(&storage).await, Kind::Unreachable);
        assert_eq!(kind(upload.finish().await), Kind::Unreachable);
        assert!(!root.exists(), "nothing makes the root anew");
        let error = LocalStorage::open(&root).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.story().contains("is it mounted?"), "{error:?}");
        assert!(error.story().contains(root.to_str().unwrap()), "{error:?}");
        // The empty directory that comes to light under an unmounted file system.
        fs::create_dir(&root).unwrap();
        assert_all(every_operation(&storage).await, Kind::Unreachable);
        assert_eq!(walk(&root), [""; 0], "nothing is written there");
        fs::remove_dir(&root).unwrap();
        fs::write(&root, "a file").unwrap();
        assert!(every_operation(&storage).await.into_iter().all(|(_, result)| result.is_err()));
        fs::remove_file(&root).unwrap();
        fs::rename(&away, &root).unwrap();
        assert_eq!(content(&storage, "a/object").await, b"content");
    });
}

#[test]
fn roots_are_checked_when_opened() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    for open in [LocalStorage::open, LocalStorage::create_root] {
        assert_eq!(kind(open("relative/path".as_ref())), Kind::Usage);
        assert_eq!(kind(open("".as_ref())), Kind::Usage);
        assert_eq!(kind(open(file.as_path())), Kind::Usage);
        open(scratch.path()).unwrap();
    }
    assert_eq!(kind(LocalStorage::open(file.join("below"))), Kind::Usage);
}

#[test]
fn a_new_root_is_private() {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path().join("above/root");
    LocalStorage::create_root(&root).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    fs::set_permissions(&root, PermissionsExt::from_mode(0o750)).unwrap();
    LocalStorage::create_root(&root).unwrap();
    assert_eq!(mode(&root), 0o750, "a root that exists is left as it is");
}

#[test]
fn what_a_killed_writer_leaves_is_no_object() {
    run(async {
        let scratch = TempDir::new().unwrap();
        let storage = LocalStorage::open(scratch.path()).unwrap();
        fs::create_dir_all(scratch.path().join("a/only-staged")).unwrap();
        fs::write(scratch.path().join("a/object#1"), "half").unwrap();
        fs::write(scratch.path().join("a/only-staged/x#7"), "half").unwrap();
        assert_eq!(keys(&storage, "").await, [""; 0]);
        assert_eq!(dirs(&storage, "a").await, BTreeSet::new());
        assert_eq!(kind(storage.get("a/object", None).await), Kind::Absent);
        assert_eq!(storage.create("a/object", one("whole")).await.unwrap(), Created::New);
        assert_eq!(content(&storage, "a/object").await, b"whole");
        assert_eq!(fs::read(scratch.path().join("a/object#1")).unwrap(), b"half");
    });
}

#[test]
fn foreign_files_are_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    run(async {
        let scratch = TempDir::new().unwrap();
        let storage = LocalStorage::open(scratch.path()).unwrap();
        storage.create("a/object", one("x")).await.unwrap();
        fs::create_dir(scratch.path().join("lost+found")).unwrap();
        fs::write(scratch.path().join("lost+found/file"), "").unwrap();
        fs::write(scratch.path().join("a/with space"), "").unwrap();
        fs::write(scratch.path().join(std::ffi::OsStr::from_bytes(b"a/\xff")), "").unwrap();
        assert_eq!(keys(&storage, "").await, ["a/object"]);
        assert_eq!(dirs(&storage, "").await, ["a".to_owned()].into());
    });
}

#[test]
fn a_directory_is_no_object() {
    run(async {
        let scratch = TempDir::new().unwrap();
        let storage = LocalStorage::open(scratch.path()).unwrap();
        storage.create("a/b/c", one("x")).await.unwrap();
        assert_eq!(kind(storage.create("a/b", one("y")).await), Kind::Conflict);
        assert_eq!(kind(storage.create("a/b/c/d", one("y")).await), Kind::Local);
        assert_eq!(content(&storage, "a/b/c").await, b"x");
        let left: Vec<_> = walk(scratch.path()).into_iter().filter(|name| name.contains('#')).collect();
        assert_eq!(left, [""; 0]);
    });
}

#[test]
fn urls_open_and_create() {
    run(async {
        let scratch = TempDir::new().unwrap();
        let root = scratch.path().join("with space/and %41");
        let url = format!("file://{}/with%20space/and%20%2541", scratch.path().display());
        let options = StoreOptions::default();
        assert_eq!(kind(open(&url, &options).await), Kind::Unreachable);
        assert!(!root.exists(), "opening makes nothing");
        create(&url, &options).await.unwrap().create("a", one("x")).await.unwrap();
        assert_eq!(fs::read(root.join("a")).unwrap(), b"x");
        assert_eq!(content(&*open(&url, &options).await.unwrap(), "a").await, b"x");
        assert_eq!(content(&*open(root.to_str().unwrap(), &options).await.unwrap(), "a").await, b"x");
        assert_eq!(kind(create("ftp://bucket", &options).await), Kind::Usage);
    });
}

const CHILD: &str = "WALARCHIVE_TEST_UNPRIVILEGED";

/// Permissions do not bind root, so the assertions run in a child process of nobody.
#[test]
fn missing_permission_is_local_and_never_absence() {
    let scratch = TempDir::new().unwrap();
    fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = scratch.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).unwrap();
    let mut child = Command::new(&program);
    child.args(["--exact", "unprivileged_child", "--nocapture"]).env(CHILD, &root).current_dir("/");
    if is_root() {
        child.uid(65534).gid(65534);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("proven unprivileged"), "{said}{complained}");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn unprivileged_child() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let root = &Path::new(&root).join("own");
    run(async {
        let storage = LocalStorage::create_root(root).unwrap();
        storage.create("a/b/object", one("x")).await.unwrap();
        storage.create("a/secret", one("x")).await.unwrap();
        let set = |path: &str, mode| {
            fs::set_permissions(root.join(path), PermissionsExt::from_mode(mode)).unwrap();
        };
        set("a/secret", 0o000);
        let local = |result: Result<(), Error>, what: &str| {
            let error = result.expect_err(what);
            assert_eq!(error.kind(), Kind::Local, "{what}: {error:?}");
        };
        local(storage.get("a/secret", None).await.map(drop), "an unreadable object");
        for mode in [0o000, 0o400, 0o200] {
            set("a/b", mode);
            local(storage.get("a/b/object", None).await.map(drop), "a closed directory");
            local(storage.get("a/b/absent", None).await.map(drop), "a closed directory");
            local(storage.size("a/b/absent").await.map(drop), "a closed directory");
            local(storage.list("").try_collect::<Vec<_>>().await.map(drop), "listing a closed directory");
            local(storage.list_dirs("a").await.map(drop), "names below a closed directory");
            local(storage.create("a/b/new", one("x")).await.map(drop), "creating in a closed directory");
            local(storage.upload("a/b/new").await.map(drop), "uploading to a closed directory");
            local(storage.delete("a/b/object").await, "deleting from a closed directory");
        }
        set("a/b", 0o500);
        let error = storage.create("a/b/new", one("x")).await.unwrap_err();
        assert!(error.story().contains(root.to_str().unwrap()), "{error:?}");
        assert_eq!(content(&storage, "a/b/object").await, b"x");
        set("a/b", 0o700);
        set("", 0o300);
        assert_eq!(kind(LocalStorage::open(root)), Kind::Local);
        set("", 0o700);
        assert_eq!(kind(LocalStorage::create_root("/walarchive-test/root")), Kind::Local);
    });
    println!("proven unprivileged");
}

/// `/dev/full` has no place for files; a tiny file system does, where one can be mounted.
#[test]
fn a_full_disk_is_local_and_stores_nothing() {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&root).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a full disk needs the right to mount");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        run(async {
            let storage = LocalStorage::open(&root).unwrap();
            let error = storage.create("a/large", one(vec![1; 1 << 20])).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Local);
            let story = error.story();
            assert!(
                story.contains("nothing was stored") && story.contains(root.to_str().unwrap()),
                "{story}"
            );
            let upload = storage.upload("a/upload").await.unwrap();
            let mut failed = false;
            for number in 0..8 {
                failed |= upload.part(number, one(vec![1; 64 << 10])).await.is_err();
            }
            assert!(failed);
            upload.abort().await.unwrap();
            assert_eq!(keys(&storage, "").await, [""; 0]);
            storage.create("a/small", one("x")).await.unwrap();
        });
    });
    assert!(Command::new("umount").arg(&root).status().unwrap().success());
    result.unwrap();
}
