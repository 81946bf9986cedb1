//! Archives in a directory of a real OpenSSH server, whose sessions die, freeze and refuse.

mod broken;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::stream::TryStreamExt;
use jiff::Timestamp;
use walarchive_core::error::{Error, Kind};
use walarchive_core::storage::{Created, Parts, SftpOptions, SftpStorage, Storage, Unfinished};
use walarchive_tests::conformance::{self, content, dirs, keys, kind, one};
use walarchive_tests::{Scratch, Sshd};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

fn options(sshd: &Sshd, root: &Path) -> SftpOptions {
    SftpOptions {
        user: Some(sshd.user().to_owned()),
        port: Some(sshd.port()),
        identity: Some(sshd.identity()),
        known_hosts: Some(sshd.known_hosts()),
        connect_timeout: Duration::from_secs(20),
        stall_timeout: Duration::from_secs(20),
        parts: Parts::new(5 << 20, 10_000, 64 << 20),
        ..SftpOptions::new("127.0.0.1", root.to_str().unwrap())
    }
}

fn open(sshd: &Sshd, root: &Path) -> SftpStorage {
    SftpStorage::open(options(sshd, root)).unwrap()
}

/// Names of staging files, anywhere below `path`.
fn staged(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.contains('#') {
            found.push(name);
        }
        if entry.path().is_dir() {
            found.extend(staged(&entry.path()));
        }
    }
    found
}

#[test]
fn it_conforms() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.join("not yet/100% ü #1");
    let storage: Arc<dyn Storage> = Arc::new(SftpStorage::create_root(options(&sshd, &root)).unwrap());
    run(async {
        conformance::storage(&storage).await;
        conformance::empty_names_are_not_listed(&storage).await;
    });
    assert!(root.join("c/one").is_file(), "keys are paths below the root");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700, "a new root is private");
    assert_eq!(fs::read_dir(root.parent().unwrap()).unwrap().count(), 1, "nothing escapes the root");
    let left: Vec<_> = staged(&root).into_iter().filter(|name| !name.starts_with("dropped#")).collect();
    assert_eq!(left, [""; 0], "losers of races clean up");
}

#[test]
fn without_hard_links_names_are_not_replaced_either() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start_with(&scratch, "-P hardlink") else { return };
    let root = scratch.dir("archive");
    let storage: Arc<dyn Storage> = Arc::new(open(&sshd, &root));
    run(async {
        conformance::objects_are_created_once(&storage).await;
        conformance::one_of_many_creates_wins(&storage).await;
        let upload = storage.upload("u/finished").await.unwrap();
        upload.part(0, one("content")).await.unwrap();
        upload.finish().await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(content(&*storage, "u/finished").await, b"content");
    });
    assert_eq!(staged(&root), [""; 0]);
}

#[test]
fn a_server_that_cannot_sync_is_refused() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start_with(&scratch, "-P fsync") else { return };
    let root = scratch.dir("archive");
    run(async {
        let error = open(&sshd, &root).create("a", one("x")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.story().contains("fsync@openssh.com"), "{error:?}");
    });
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn two_programs_race_and_one_wins() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storages: Vec<_> = (0..16).map(|_| open(&sshd, &root)).collect();
        for round in 0..4 {
            let key = format!("race/{round}");
            let creates = storages.iter().zip(0..16_u8);
            let creates = creates.map(|(storage, racer)| storage.create(&key, one(vec![racer; 100_000])));
            let created = try_join_all(creates).await.unwrap();
            let winners: Vec<_> = (0..16_u8).filter(|at| created[usize::from(*at)] == Created::New).collect();
            assert_eq!(winners.len(), 1, "{created:?}");
            assert!(content(&storages[5], &key).await == vec![winners[0]; 100_000]);
        }
    });
    assert_eq!(staged(&root), [""; 0]);
}

async fn refused(options: SftpOptions) -> Error {
    SftpStorage::open(options).unwrap().size("a").await.unwrap_err()
}

#[test]
fn only_the_right_keys_are_accepted() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    let right = options(&sshd, &root);
    run(async {
        for hosts in [sshd.wrong_hosts(), sshd.no_hosts()] {
            let error = refused(SftpOptions { known_hosts: Some(hosts), ..right.clone() }).await;
            assert_eq!(error.kind(), Kind::Denied, "{error:?}");
            assert!(error.story().contains("known_hosts"), "{error:?}");
        }
        for identity in [sshd.wrong_identity(), root.join("no-such-key")] {
            let error = refused(SftpOptions { identity: Some(identity), ..right.clone() }).await;
            assert_eq!(error.kind(), Kind::Denied, "{error:?}");
            assert!(error.story().contains("Permission denied"), "{error:?}");
        }
        assert_eq!(refused(right.clone()).await.kind(), Kind::Absent);
        let elsewhere = SftpOptions { host: "no-such-host.invalid".into(), ..right };
        assert_eq!(refused(elsewhere).await.kind(), Kind::Unreachable);
    });
}

#[test]
fn roots_are_looked_up() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    let away = scratch.join("away");
    run(async {
        let error = refused(options(&sshd, &scratch.join("none"))).await;
        assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
        assert!(error.story().contains("is not there"), "{error:?}");
        let file = scratch.write("file", "");
        assert_eq!(refused(options(&sshd, &file)).await.kind(), Kind::Usage);

        let storage = open(&sshd, &root);
        storage.create("a/object", one("content")).await.unwrap();
        let upload = storage.upload("a/upload").await.unwrap();
        upload.part(0, one("piece")).await.unwrap();
        fs::rename(&root, &away).unwrap();
        for (what, found) in [
            ("create", storage.create("b/new", one("x")).await.map(drop)),
            ("create again", storage.create("a/object", one("x")).await.map(drop)),
            ("upload", storage.upload("b/new").await.map(drop)),
            ("get", storage.get("a/object", None).await.map(drop)),
            ("get absent", storage.get("a/absent", None).await.map(drop)),
            ("size", storage.size("a/object").await.map(drop)),
            ("list", storage.list("").try_collect::<Vec<_>>().await.map(drop)),
            ("unfinished", storage.unfinished().try_collect::<Vec<_>>().await.map(drop)),
            ("list dirs", storage.list_dirs("a").await.map(drop)),
            ("delete", storage.delete("a/object").await),
            ("part", upload.part(1, one("piece")).await),
            ("finish", upload.finish().await),
        ] {
            assert_eq!(kind(found), Kind::Unreachable, "{what}");
        }
        assert!(!root.exists(), "nothing makes the root anew");
        fs::rename(&away, &root).unwrap();
        assert_eq!(content(&storage, "a/object").await, b"content");
        upload.finish().await.unwrap();
        assert_eq!(content(&storage, "a/upload").await, b"piece");
    });
}

#[test]
fn the_home_directory_has_a_short_name() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    run(async {
        let missing = "/~/walarchive-test-no-such-directory";
        let error = refused(options(&sshd, Path::new(missing))).await;
        assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
        assert!(error.story().contains(missing), "{error:?}");
    });
}

#[test]
fn unfinished_uploads_are_found_and_discarded() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storage = open(&sshd, &root);
        assert_eq!(storage.parts().size, 5 << 20);
        let upload = storage.upload("a/b/large").await.unwrap();
        upload.part(1, one("the last")).await.unwrap();
        fs::write(root.join("a/not an upload"), "").unwrap();
        let found: Vec<Unfinished> = storage.unfinished().try_collect().await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, "a/b/large");
        let age = Timestamp::now().duration_since(found[0].since);
        assert!(age.as_secs().abs() < 60, "{age:?}");
        assert_eq!(keys(&storage, "").await, [""; 0]);
        assert_eq!(dirs(&storage, "a").await, BTreeSet::new());
        assert_eq!(kind(upload.finish().await), Kind::Bug, "a part is missing");
        storage.discard(&found[0]).await.unwrap();
        storage.discard(&found[0]).await.unwrap();
        assert_eq!(staged(&root), [""; 0]);
        assert_eq!(kind(upload.part(0, one(vec![1; 5 << 20])).await), Kind::Conflict);
        let outside = Unfinished { id: "../x".into(), ..found[0].clone() };
        assert_eq!(kind(storage.discard(&outside).await), Kind::Usage);
    });
}

#[test]
fn parts_come_in_any_order_at_once_and_again() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storage = open(&sshd, &root);
        let upload = storage.upload("u/large").await.unwrap();
        let parts: Vec<Vec<u8>> = (0..5_u8)
            .map(|nth| {
                (0..5 << 20)
                    .map(|at: usize| (at >> 7) as u8 ^ nth)
                    .take(if nth == 4 { 77 } else { 5 << 20 })
                    .collect()
            })
            .collect();
        let numbers = [3, 0, 4, 2, 1, 0, 4];
        try_join_all(numbers.map(|number| upload.part(number, one(parts[number].clone())))).await.unwrap();
        upload.finish().await.unwrap();
        upload.finish().await.unwrap();
        assert!(content(&storage, "u/large").await == parts.concat());
        assert_eq!(storage.create("u/large", one("x")).await.unwrap(), Created::Exists);
        let second = storage.upload("u/large").await.unwrap();
        second.part(0, one("of another length")).await.unwrap();
        assert_eq!(kind(second.finish().await), Kind::Conflict);
        second.abort().await.unwrap();
        second.abort().await.unwrap();
    });
    assert_eq!(staged(&root), [""; 0]);
}

#[test]
fn foreign_files_and_links() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storage = open(&sshd, &root);
        storage.create("a/object", one("x")).await.unwrap();
        fs::create_dir(root.join("lost+found")).unwrap();
        fs::set_permissions(root.join("lost+found"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::write(root.join("a/with space"), "").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"a/\xff")), "").unwrap();
        std::os::unix::fs::symlink("object", root.join("a/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("a/nowhere")).unwrap();
        assert_eq!(keys(&storage, "").await, ["a/link", "a/object"]);
        assert_eq!(dirs(&storage, "").await, ["a".to_owned()].into());
        assert_eq!(kind(storage.create("a", one("y")).await), Kind::Conflict);
        assert_eq!(kind(storage.create("a/object/below", one("y")).await), Kind::Conflict);
    });
    assert_eq!(staged(&root), [""; 0]);
}

#[test]
fn missing_permission_is_denied_and_never_absence() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storage = open(&sshd, &root);
        storage.create("a/b/object", one("x")).await.unwrap();
        let set = |mode| fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(mode)).unwrap();
        set(0o000);
        for (what, found) in [
            ("get", storage.get("a/b/object", None).await.map(drop)),
            ("get absent", storage.get("a/b/absent", None).await.map(drop)),
            ("size", storage.size("a/b/absent").await.map(drop)),
            ("list", storage.list("").try_collect::<Vec<_>>().await.map(drop)),
            ("list dirs", storage.list_dirs("a").await.map(drop)),
            ("create", storage.create("a/b/new", one("x")).await.map(drop)),
            ("upload", storage.upload("a/b/new").await.map(drop)),
            ("delete", storage.delete("a/b/object").await),
        ] {
            assert_eq!(kind(found), Kind::Denied, "{what}");
        }
        set(0o700);
        assert_eq!(content(&storage, "a/b/object").await, b"x");
    });
}

#[test]
fn a_full_disk_is_told() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    let Some(mounted) = Mounted::tmpfs(&root, "size=512k") else { return };
    scratch.own(&root);
    run(async {
        let storage = open(&sshd, &root);
        storage.create("a/small", one("x")).await.unwrap();
        let error = storage.create("a/large", one(vec![1; 1 << 20])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Local, "{error:?}");
        assert!(error.story().contains("no space is left"), "{error:?}");
        assert_eq!(keys(&storage, "").await, ["a/small"]);
        assert_eq!(staged(&root), [""; 0]);
        drop(mounted);
        let error = storage.create("a/hidden", one("x")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
        assert!(error.story().contains("unmounted"), "{error:?}");
    });
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        0,
        "nothing is written under a file system that is gone"
    );
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(place: &Path, options: &str) -> Option<Mounted> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(place)
            .output();
        if !mount.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: a full disk needs the right to mount");
            return None;
        }
        Some(Mounted(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "unmount {}", self.0.display());
    }
}

#[test]
fn nothing_is_left_running() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storage = open(&sshd, &root);
        storage.create("a", one("x")).await.unwrap();
        assert_ne!(sshd.sessions(), [0; 0]);
        drop(storage);
        let begun = Instant::now();
        while !sshd.sessions().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the session goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
