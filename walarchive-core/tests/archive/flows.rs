//! Push and fetch when nothing is wrong with the bytes.

use std::sync::Arc;

use walarchive_core::archive::{Archive, Keys};
use walarchive_core::cipher::age::Identity;
use walarchive_core::error::Kind;
use walarchive_core::storage::{Created, LocalStorage, MemoryStorage, Storage};

use crate::recorder::Trouble;
use crate::support::*;

#[test]
fn a_push_is_one_create_and_a_fetch_one_get() {
    run(async {
        for bench in Bench::all().await {
            for (number, spec) in CODECS.into_iter().enumerate() {
                let text = format!("00000002000000000000020{number}");
                let content = if number % 2 == 0 { segment(&text, 1) } else { thin_segment(&text, 1) };
                let key = bench.key(&text);
                let pushed = bench.push(spec, &text, &content).await.unwrap();
                assert_eq!(bench.store.take_calls(), [format!("create {key}")], "{spec}");
                assert_eq!((pushed.key.as_str(), pushed.stored.created), (key.as_str(), Created::New));
                assert_eq!((pushed.system.0, pushed.stored.plain), (SYSTEM, MIB as u64));
                assert!(!pushed.was_there());
                assert!(bench.fetch(&text).await.unwrap() == content, "{spec}");
                assert_eq!(bench.store.take_calls(), [format!("get {key}")], "{spec}");
                assert_eq!(bench.stored(&key).await.len() as u64, pushed.stored.stored);
                bench.store.take_calls();
            }
        }
    });
}

#[test]
fn every_kind_of_wal_file_comes_back() {
    run(async {
        let backup = format!("{SEGMENT}.00000028.backup");
        let partial = format!("{SEGMENT}.partial");
        let lines = b"START WAL LOCATION: 0/12300028 (file 000000020000000000000123)\n";
        for bench in Bench::all().await {
            for (text, content) in [
                (HISTORY, HISTORY_TEXT.to_vec()),
                (SEGMENT, segment(SEGMENT, 3)),
                (partial.as_str(), thin_segment(SEGMENT, 3)),
                (backup.as_str(), lines.to_vec()),
            ] {
                let pushed = bench.push("zstd:1", text, &content).await.unwrap();
                assert_eq!(bench.store.take_calls(), [format!("create {}", pushed.key)]);
                assert!(bench.fetch(text).await.unwrap() == content, "{text}");
                assert_eq!(bench.store.take_calls(), [format!("get {}", pushed.key)]);
            }
        }
    });
}

#[test]
fn absence_is_proven_by_one_get_and_a_look_at_the_clusters() {
    run(async {
        for bench in Bench::all().await {
            for text in [SEGMENT, HISTORY] {
                refused(bench.fetch(text).await, Kind::Absent, "nothing was stored");
                let calls = bench.store.take_calls();
                assert_eq!(calls[0], format!("get {}", bench.key(text)));
                assert!(calls[1..].iter().all(|call| call.starts_with("list_dirs ")), "{calls:?}");
            }
            // Another cluster is known, this one is not: nothing is proven about it.
            bench.store.create("mian/42/wal/00000002.history", vec![]).await.unwrap();
            refused(bench.fetch(SEGMENT).await, Kind::Usage, "a mistyped name");
            bench.store.create("main/42/wal/00000002.history", vec![]).await.unwrap();
            refused(bench.fetch(SEGMENT).await, Kind::WrongCluster, "another system identifier");
            bench.push("zstd:1", HISTORY, HISTORY_TEXT).await.unwrap();
            refused(bench.fetch(SEGMENT).await, Kind::Absent, "the cluster is known");
        }
    });
}

#[test]
fn the_same_content_again_changes_nothing() {
    run(async {
        for bench in Bench::all().await {
            for (text, content) in [(SEGMENT, segment(SEGMENT, 1)), (HISTORY, HISTORY_TEXT.to_vec())] {
                let first = bench.push("zstd:1", text, &content).await.unwrap();
                let stored = bench.stored(&first.key).await;
                bench.store.take_calls();
                for spec in CODECS {
                    let again = bench.push(spec, text, &content).await.unwrap();
                    assert!(again.was_there() && again.key == first.key);
                    assert_eq!(again.stored.digest, first.stored.digest);
                    let calls = bench.store.take_calls();
                    // Whoever can read what is there reads it: the head alone proves no content.
                    assert_eq!(
                        calls,
                        ["create", "get", "get", "get"].map(|call| format!("{call} {}", first.key))
                    );
                }
                let mut damaged = stored.to_vec();
                let last = damaged.len() - 1;
                damaged[last] ^= 1;
                bench.store.set(Trouble::Lies(Box::new(move |_, _| damaged.clone().into())));
                refused(bench.push("zstd:1", text, &content).await, Kind::Damaged, "damaged behind its head");
                bench.store.set(Trouble::None);
                // Hosts that only write hold no identity, and recipients change.
                let other = Identity::generate().unwrap().recipient();
                let recipients = bench.identity.iter().map(|_| other.clone()).collect();
                let writer = bench.with_keys(Keys { recipients, ..Keys::default() }).await;
                let path = bench.file(text, &content);
                let again = push_path(&pusher(&writer, "lz4:1"), &path).await.unwrap();
                assert!(again.was_there());
                assert!(bench.stored(&first.key).await == stored, "nothing was changed");
                assert!(bench.fetch(text).await.unwrap() == content);
            }
        }
    });
}

#[test]
fn other_content_under_a_name_is_refused() {
    run(async {
        let other_history = b"1\t0/12300100\tno recovery target specified\n";
        for bench in Bench::all().await {
            for (text, content, other) in [
                (SEGMENT, segment(SEGMENT, 1), segment(SEGMENT, 2)),
                (HISTORY, HISTORY_TEXT.to_vec(), other_history.to_vec()),
            ] {
                let first = bench.push("zstd:1", text, &content).await.unwrap();
                let stored = bench.stored(&first.key).await;
                for spec in CODECS {
                    let error = refused(bench.push(spec, text, &other).await, Kind::Conflict, spec);
                    assert!(error.story().contains(text), "{error:?}");
                }
                assert!(bench.stored(&first.key).await == stored, "nothing was changed");
                assert!(bench.fetch(text).await.unwrap() == content);
            }
        }
    });
}

#[test]
fn partial_segments_that_differ_are_both_kept() {
    run(async {
        let text = format!("{SEGMENT}.partial");
        for bench in Bench::all().await {
            let (one, two) = (segment(SEGMENT, 1), segment(SEGMENT, 2));
            let first = bench.push("zstd:1", &text, &one).await.unwrap();
            let beside = bench.push("zstd:1", &text, &two).await.unwrap();
            let digest = &beside.stored.digest[..16];
            assert_eq!(beside.key, format!("{}.{digest}", first.key));
            for (content, pushed) in [(&one, &first), (&two, &beside)] {
                let again = bench.push("none", &text, content).await.unwrap();
                assert!(again.was_there() && again.key == pushed.key);
            }
            assert!(bench.fetch(&text).await.unwrap() == one);
            // The twin is read under its own key.
            let kind = walarchive_core::archive::ObjectKind::Wal;
            let read = bench.archive.read(&beside.key, kind, MIB as u64, Vec::new()).await.unwrap();
            assert!(read.0 == two);
        }
    });
}

#[test]
fn a_store_that_does_not_answer_is_never_absence() {
    run(async {
        for bench in Bench::all().await {
            bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
            bench.store.set(Trouble::Unreachable);
            for text in [SEGMENT, "000000020000000000000124", HISTORY] {
                refused(bench.fetch(text).await, Kind::Unreachable, text);
            }
            refused(bench.push("zstd:1", HISTORY, HISTORY_TEXT).await, Kind::Unreachable, "push");
            refused(bench.catalog().wal().await, Kind::Unreachable, "listing");
            refused(bench.catalog().backups().await, Kind::Unreachable, "backups");
            let storage: Arc<dyn Storage> = bench.store.clone();
            refused(Archive::open(storage, Keys::default()).await, Kind::Unreachable, "opening");
            refused(Archive::init(bench.store.as_ref(), true).await, Kind::Unreachable, "init");
        }
    });
}

#[test]
fn a_place_without_an_archive_is_unreachable() {
    run(async {
        let dir = tempfile::TempDir::new().unwrap();
        let local: Arc<dyn Storage> = Arc::new(LocalStorage::open(dir.path()).unwrap());
        for storage in [Arc::new(MemoryStorage::new()), local] {
            let error = refused(Archive::open(storage, Keys::default()).await, Kind::Unreachable, "nothing");
            assert!(error.story().contains("archive.json"), "{error:?}");
        }
    });
}

#[test]
fn a_directory_that_vanishes_is_unreachable() {
    run(async {
        let dir = tempfile::TempDir::new().unwrap();
        let (root, away) = (dir.path().join("root"), dir.path().join("away"));
        let storage = Arc::new(LocalStorage::create_root(&root).unwrap());
        Archive::init(storage.as_ref(), false).await.unwrap();
        let archive = Archive::open(storage, Keys::default()).await.unwrap();
        let path = dir.path().join(HISTORY);
        std::fs::write(&path, HISTORY_TEXT).unwrap();
        std::fs::rename(&root, &away).unwrap();
        refused(fetch_from(&catalog(&archive), HISTORY).await, Kind::Unreachable, "fetch");
        refused(push_path(&pusher(&archive, "zstd:1"), &path).await, Kind::Unreachable, "push");
        assert!(!root.exists());
        std::fs::rename(&away, &root).unwrap();
        refused(fetch_from(&catalog(&archive), HISTORY).await, Kind::Absent, "it is back, and holds nothing");
        push_path(&pusher(&archive, "zstd:1"), &path).await.unwrap();
    });
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    run(async {
        for bench in Bench::all().await {
            let content = segment(SEGMENT, 1);
            bench.store.set(Trouble::AnswersLost);
            refused(bench.push("zstd:1", SEGMENT, &content).await, Kind::Unreachable, "a lost answer");
            bench.store.set(Trouble::None);
            assert!(bench.push("zstd:1", SEGMENT, &content).await.unwrap().was_there());
            refused(bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 2)).await, Kind::Conflict, "other");
            assert!(bench.fetch(SEGMENT).await.unwrap() == content);
        }
    });
}

#[test]
fn an_archive_is_made_once() {
    run(async {
        for bench in Bench::all().await {
            let encrypted = bench.archive.info().encrypted();
            let (info, new) = Archive::init(bench.store.as_ref(), encrypted).await.unwrap();
            assert!(!new && info == *bench.archive.info());
            refused(Archive::init(bench.store.as_ref(), !encrypted).await, Kind::Conflict, "the other way");
            let (info, _) = Archive::init(bench.store.as_ref(), encrypted).await.unwrap();
            assert!(info == *bench.archive.info());
        }
    });
}

#[test]
fn an_archive_that_says_it_is_plain_is_not_given_what_was_to_be_sealed() {
    run(async {
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        Archive::init(store.as_ref(), false).await.unwrap();
        let plain = Archive::open(store.clone(), keys(None)).await.unwrap();
        let files = tempfile::TempDir::new().unwrap();
        let path = files.path().join(SEGMENT);
        std::fs::write(&path, segment(SEGMENT, 1)).unwrap();
        let keys = keys(Some(&Identity::generate().unwrap()));
        let archive = Archive::open(store, keys).await.unwrap();
        refused(push_path(&pusher(&archive, "zstd:1"), &path).await, Kind::Conflict, "not encrypted");
        refused(fetch_from(&catalog(&plain), SEGMENT).await, Kind::Absent, "nothing was stored");
        push_path(&pusher(&plain, "zstd:1"), &path).await.unwrap();
        assert!(fetch_from(&catalog(&archive), SEGMENT).await.unwrap() == segment(SEGMENT, 1));
    });
}

#[test]
fn an_archive_that_lost_its_description_is_not_made_anew() {
    run(async {
        let bench = Bench::all().await.remove(0);
        bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
        bench.store.delete("archive.json").await.unwrap();
        let made = Archive::init(bench.store.as_ref(), true).await;
        let error = refused(made.map(drop), Kind::Damaged, "archive.json is missing");
        assert!(error.story().contains("main"), "{error:?}");
        assert!(bench.store.get("archive.json", None).await.is_err());
    });
}
