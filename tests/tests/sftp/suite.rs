//! What every store has to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::TryStreamExt;
use walarchive_core::error::{Kind, Result};
use walarchive_core::storage::{Created, Storage};

pub fn one(content: impl Into<Vec<u8>>) -> Vec<Bytes> {
    vec![Bytes::from(content.into())]
}

pub fn kind<T>(result: Result<T>) -> Kind {
    result.map(drop).expect_err("an error").kind()
}

pub async fn content(storage: &dyn Storage, key: &str) -> Vec<u8> {
    let part = storage.get(key, None).await.unwrap();
    assert_eq!(part.object_size, part.bytes.len() as u64);
    part.bytes.to_vec()
}

pub async fn list(storage: &dyn Storage, prefix: &str) -> BTreeSet<(String, u64)> {
    let entries: Vec<_> = storage.list(prefix).try_collect().await.unwrap();
    let set: BTreeSet<_> = entries.iter().map(|entry| (entry.key.clone(), entry.size)).collect();
    assert_eq!(set.len(), entries.len(), "no key is listed twice");
    set
}

pub async fn keys(storage: &dyn Storage, prefix: &str) -> Vec<String> {
    list(storage, prefix).await.into_iter().map(|(key, _)| key).collect()
}

pub async fn dirs(storage: &dyn Storage, prefix: &str) -> BTreeSet<String> {
    storage.list_dirs(prefix).await.unwrap().into_iter().collect()
}

pub async fn objects_are_created_once(storage: &dyn Storage) {
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

pub async fn one_of_many_creates_wins(storage: &Arc<dyn Storage>) {
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

pub async fn ranges_are_clipped(storage: &dyn Storage) {
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

pub async fn listings_know_segments(storage: &dyn Storage) {
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
    for n in 0..430 {
        storage.create(&format!("many/{:02}/{n}", n % 7), vec![]).await.unwrap();
    }
    assert_eq!(list(storage, "many").await.len(), 430);
}

pub async fn absent_objects_are_absent(storage: &dyn Storage) {
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

pub async fn uploads_show_when_finished(storage: &dyn Storage) {
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

pub async fn keys_stay_inside(storage: &dyn Storage) {
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

pub async fn conformance(storage: Arc<dyn Storage>) {
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
