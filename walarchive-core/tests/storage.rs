//! What only a directory can get wrong. The contract of every store is in the tests' package.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::TryStreamExt;
use tempfile::TempDir;
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::storage::{Created, LocalStorage, Storage, StoreOptions, Unfinished, create, open};

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

#[test]
fn losers_of_a_race_clean_up() {
    let scratch = TempDir::new().unwrap();
    let storage = LocalStorage::open(scratch.path()).unwrap();
    run(async {
        let racers = (0..16_u8).map(|racer| storage.create("race/key", one(vec![racer; 40_000])));
        let created = join_all(racers).await.into_iter().map(Result::unwrap);
        assert_eq!(created.filter(|created| *created == Created::New).count(), 1);
    });
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

#[test]
fn files_of_dead_writers_are_found_and_discarded() {
    let scratch = TempDir::new().unwrap();
    run(async {
        let storage = LocalStorage::open(scratch.path()).unwrap();
        storage.create("a/b/whole", one("x")).await.unwrap();
        let write = |name: &str| fs::write(scratch.path().join(name), "half").unwrap();
        fs::create_dir_all(scratch.path().join("lost+found")).unwrap();
        let others = ["a/b/whole#x", "a/#1", "a/b c#1", "lost+found/n#1", "a/plain"];
        ["a/b/half#1", "a/b/half#12", "a/b/whole#2", "top#3"].into_iter().chain(others).for_each(write);
        let upload = storage.upload("a/live").await.unwrap();
        upload.part(0, one("x")).await.unwrap();
        let found: Vec<_> = storage.unfinished().try_collect().await.unwrap();
        let now = jiff::Timestamp::now();
        assert!(
            found
                .iter()
                .all(|found| now.duration_since(found.since).abs() < jiff::SignedDuration::from_secs(60))
        );
        let ids: BTreeSet<_> = found.iter().map(|found| (found.key.as_str(), found.id.as_str())).collect();
        let expected = [
            ("a/b/half", "a/b/half#1"),
            ("a/b/half", "a/b/half#12"),
            ("a/b/whole", "a/b/whole#2"),
            ("a/live", "a/live#1"),
            ("top", "top#3"),
        ];
        assert_eq!(ids, BTreeSet::from(expected));
        for found in &found {
            storage.discard(found).await.unwrap();
            storage.discard(found).await.unwrap();
        }
        assert!(storage.unfinished().try_collect::<Vec<_>>().await.unwrap().is_empty());
        assert!(others.iter().all(|name| scratch.path().join(name).exists()), "others' files stay");
        assert_eq!(content(&storage, "a/b/whole").await, b"x");
        for (key, id) in
            [("a/b/whole", "a/b/whole"), ("a/b/whole", "a/b/half#1"), ("../x", "../x#1"), ("x", "x#")]
        {
            let wrong = Unfinished { key: key.to_owned(), id: id.to_owned(), since: now };
            assert_eq!(kind(storage.discard(&wrong).await), Kind::Bug, "{id}");
        }
        assert_eq!(content(&storage, "a/b/whole").await, b"x");
    });
}

#[test]
fn empty_directories_are_tidied_away() {
    let scratch = TempDir::new().unwrap();
    run(async {
        let storage = LocalStorage::open(scratch.path()).unwrap();
        storage.create("a/b/c/one", one("x")).await.unwrap();
        storage.create("a/d/two", one("x")).await.unwrap();
        storage.tidy("a").await.unwrap();
        assert_eq!(keys(&storage, "").await, ["a/b/c/one", "a/d/two"]);
        storage.delete("a/b/c/one").await.unwrap();
        storage.tidy("a").await.unwrap();
        assert!(!scratch.path().join("a/b").exists());
        assert_eq!(keys(&storage, "").await, ["a/d/two"]);
        storage.tidy("a/none").await.unwrap();
    });
}

#[test]
fn nothing_is_removed_behind_links_nor_believed_absent() {
    run(async {
        let (root, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let storage = LocalStorage::open(root.path()).unwrap();
        storage.create("a/one", one("content")).await.unwrap();
        let moved = elsewhere.path().join("b");
        fs::create_dir(&moved).unwrap();
        fs::write(moved.join("two"), "another's").unwrap();
        std::os::unix::fs::symlink(&moved, root.path().join("b")).unwrap();
        // What was moved elsewhere is read there.
        assert_eq!(content(&storage, "b/two").await, b"another's");
        assert_eq!(kind(storage.delete("b/two").await), Kind::Local);
        assert_eq!(kind(storage.tidy("b").await), Kind::Local);
        assert!(moved.join("two").exists());
        fs::rename(&moved, elsewhere.path().join("c")).unwrap();
        for result in [storage.size("b/two").await.map(drop), storage.get("b/two", None).await.map(drop)] {
            assert_eq!(kind(result), Kind::Unreachable);
        }
        assert_eq!(kind(storage.get("a/two", None).await), Kind::Absent);
        // A pipe is no object, and nobody waits for its other end.
        let pipe = root.path().join("a/pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(kind(storage.get("a/pipe", None).await), Kind::Damaged);
    });
}
