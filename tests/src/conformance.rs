//! The contract of [`Storage`], as promises that every store has to keep: one function for each.
//!
//! Each function uses keys of its own, so they can run one after the other on one store, which is empty at first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use walarchive_core::error::{Kind, Result};
use walarchive_core::storage::{Created, Storage, Unfinished};

/// A store under test.
pub type Store = Arc<dyn Storage>;

/// How many writers race for a key.
const RACERS: u8 = 16;
/// How often.
const ROUNDS: usize = 30;

/// All promises. The store is empty at first and has objects in the end. Tells whether the store keeps what unfinished
/// uploads sent, so that it has to be swept.
///
/// # Panics
///
/// When one is broken; so do all functions here.
pub async fn storage(storage: &Store) -> bool {
    a_new_store_is_empty(storage).await;
    objects_are_created_once(storage).await;
    one_of_many_creates_wins(storage).await;
    ranges_are_clipped(storage).await;
    listings_know_segments(storage).await;
    long_listings_are_complete(storage).await;
    absent_objects_are_absent(storage).await;
    uploads_show_when_finished(storage).await;
    uploads_that_end_without_finish_show_nothing(storage).await;
    parts_come_at_once_and_in_any_order(storage).await;
    finishing_again_is_success(storage).await;
    keys_stay_inside(storage).await;
    unfinished_uploads_are_swept(storage).await
}

/// A payload of one piece.
pub fn one(content: impl Into<Vec<u8>>) -> Vec<Bytes> {
    vec![Bytes::from(content.into())]
}

/// The kind of an error that has to be there.
pub fn kind<T>(result: Result<T>) -> Kind {
    result.map(drop).expect_err("an error").kind()
}

/// An object's bytes.
pub async fn content(storage: &dyn Storage, key: &str) -> Vec<u8> {
    let part = storage.get(key, None).await.unwrap_or_else(|error| panic!("read {key}: {error:?}"));
    assert_eq!(part.object_size, part.bytes.len() as u64);
    part.bytes.to_vec()
}

async fn list(storage: &dyn Storage, prefix: &str) -> BTreeSet<(String, u64)> {
    let entries: Vec<_> = storage.list(prefix).try_collect().await.expect("list");
    let set: BTreeSet<_> = entries.iter().map(|entry| (entry.key.clone(), entry.size)).collect();
    assert_eq!(set.len(), entries.len(), "no key is listed twice");
    set
}

/// The keys below a prefix, in order.
pub async fn keys(storage: &dyn Storage, prefix: &str) -> Vec<String> {
    list(storage, prefix).await.into_iter().map(|(key, _)| key).collect()
}

/// The names right below a prefix.
pub async fn dirs(storage: &dyn Storage, prefix: &str) -> BTreeSet<String> {
    let names = storage.list_dirs(prefix).await.expect("list names");
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "no name is listed twice");
    set
}

/// `len` bytes that differ from place to place, and with `seed`.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// An empty store lists nothing, without an error.
pub async fn a_new_store_is_empty(storage: &Store) {
    assert_eq!(keys(&**storage, "").await, [""; 0]);
    assert_eq!(dirs(&**storage, "").await, BTreeSet::new());
}

/// The first create of a key stores its bytes, however they are cut and however many; later ones change nothing.
pub async fn objects_are_created_once(storage: &Store) {
    let storage = &**storage;
    assert_eq!(storage.create("c/one", one("first")).await.unwrap(), Created::New);
    assert_eq!(storage.create("c/one", one("second, longer")).await.unwrap(), Created::Exists);
    assert_eq!(storage.create("c/one", one("first")).await.unwrap(), Created::Exists);
    assert_eq!(content(storage, "c/one").await, b"first");
    assert_eq!(storage.create("c/empty", vec![]).await.unwrap(), Created::New);
    assert_eq!(content(storage, "c/empty").await, b"");
    assert_eq!(storage.create("c/empty", one("more")).await.unwrap(), Created::Exists);
    assert_eq!(storage.size("c/empty").await.unwrap(), 0);
    let parts: Vec<Bytes> = (0..5000_u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
    storage.create("c/parts", parts.clone()).await.unwrap();
    assert!(content(storage, "c/parts").await == parts.concat());
    let large = noise(1, 9 << 20);
    storage.create("c/deep/er/large", one(large.clone())).await.unwrap();
    assert_eq!(storage.size("c/deep/er/large").await.unwrap(), 9 << 20);
    assert!(content(storage, "c/deep/er/large").await == large);
}

/// Of many creates of one key at the same moment exactly one is the first, its bytes stay, and whoever reads meanwhile
/// finds nothing or an object that is whole.
pub async fn one_of_many_creates_wins(storage: &Store) {
    // Several races at once: SeaweedFS lets those wait for a second who meet at a key.
    stream::iter(0..ROUNDS).for_each_concurrent(8, |round| race(storage, round)).await;
}

async fn race(storage: &Store, round: usize) {
    let key = format!("race/{round}/key");
    let racers = (0..RACERS).map(|racer| {
        let (storage, key) = (Arc::clone(storage), key.clone());
        tokio::spawn(async move { storage.create(&key, one(vec![racer; 40_000])).await.unwrap() })
    });
    let racers: Vec<_> = racers.collect();
    let (reader, looked_for) = (Arc::clone(storage), key.clone());
    let reader = tokio::spawn(async move {
        for _ in 0..3 {
            match reader.get(&looked_for, None).await {
                Ok(part) => assert!(is_whole(&part.bytes), "half an object"),
                Err(error) => assert_eq!(error.kind(), Kind::Absent, "{error:?}"),
            }
        }
    });
    let results = join_all(racers).await;
    let winners: Vec<_> =
        (0..RACERS).zip(results).filter(|(_, got)| *got.as_ref().unwrap() == Created::New).collect();
    assert_eq!(winners.len(), 1, "exactly one create is the first, in round {round}");
    assert!(content(&**storage, &key).await == vec![winners[0].0; 40_000]);
    reader.await.expect("the reader found what it may find");
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() == 40_000 && bytes.iter().all(|byte| *byte == bytes[0])
}

/// Reading a range gives its bytes as far as the object has them, and the object's size, wherever the range lies.
pub async fn ranges_are_clipped(storage: &Store) {
    let storage = &**storage;
    let bytes: Vec<u8> = (0..5).collect();
    storage.create("r/object", one(bytes.clone())).await.unwrap();
    storage.create("r/empty", vec![]).await.unwrap();
    let edges = [0, 1, 2, 4, 5, 6, 1000, u64::MAX - 1, u64::MAX];
    for (start, end) in edges.iter().flat_map(|start| edges.map(|end| (*start, end))) {
        let part = storage.get("r/object", Some(start..end)).await.unwrap();
        let from = start.min(5) as usize;
        let wanted = &bytes[from..(end.min(5) as usize).max(from)];
        assert_eq!((&part.bytes[..], part.object_size), (wanted, 5), "{start}..{end}");
        if start < 2 {
            let part = storage.get("r/empty", Some(start..end)).await.unwrap();
            assert_eq!((part.bytes.len(), part.object_size), (0, 0), "{start}..{end} of nothing");
        }
    }
    let large = noise(2, 3 << 20);
    storage.create("r/large", one(large.clone())).await.unwrap();
    for (start, end) in [(0, 1), (1 << 20, 2 << 20), ((1 << 20) - 1, (1 << 20) + 1), (3 << 20, 4 << 20)] {
        let part = storage.get("r/large", Some(start..end)).await.unwrap();
        let wanted = &large[start as usize..(end as usize).min(large.len())];
        assert!(part.bytes == wanted && part.object_size == 3 << 20, "{start}..{end}");
    }
}

/// Prefixes end at a slash: `a` does not mean `ab`; and names are listed as long as something is below them.
pub async fn listings_know_segments(storage: &Store) {
    let storage = &**storage;
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
    assert_eq!(keys(storage, "l/a/bc.d").await, [""; 0]);
    assert!(dirs(storage, "l/a").await.contains("b"));
}

/// A name that has nothing below it any more is not listed. SeaweedFS does for a while, so this is not among the
/// promises that all have to keep.
pub async fn empty_names_are_not_listed(storage: &Store) {
    let storage = &**storage;
    storage.create("ln/a/1", one("x")).await.unwrap();
    storage.create("ln/b/2", one("x")).await.unwrap();
    storage.delete("ln/b/2").await.unwrap();
    assert_eq!(dirs(storage, "ln").await, ["a".to_owned()].into());
}

/// Listings do not end where a page of the store's own does.
pub async fn long_listings_are_complete(storage: &Store) {
    const MANY: usize = 1050;
    let keys: Vec<String> = (0..MANY).map(|n| format!("many/{n:04}/object")).collect();
    let creates = stream::iter(&keys).map(|key| storage.create(key, vec![])).buffer_unordered(16);
    creates.try_collect::<Vec<_>>().await.expect("create many");
    let found: Vec<String> = list(&**storage, "many").await.into_iter().map(|(key, _)| key).collect();
    assert!(found == keys, "found {} of {MANY}", found.len());
    assert_eq!(dirs(&**storage, "many").await.len(), MANY);
}

/// What is not there is absent whatever is asked about it, deleting it is success, and its neighbours stay.
pub async fn absent_objects_are_absent(storage: &Store) {
    let storage = &**storage;
    storage.create("gone/object", one("x")).await.unwrap();
    for key in ["gone/other", "gone", "gone/object/below", "gone/objec", "never/ever"] {
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

/// A large object is seen by nobody before it is finished, and is whole then, however its parts are cut.
pub async fn uploads_show_when_finished(storage: &Store) {
    let storage = &**storage;
    let size = storage.parts().size;
    let upload = storage.upload("u/finished").await.unwrap();
    let parts = [noise(1, size), noise(2, size), vec![3; 17]];
    for (number, part) in parts.iter().enumerate() {
        // One piece, thousands, and pieces of which some are empty: only their order counts.
        let pieces = match number {
            0 => one(part.clone()),
            1 => part.chunks(1000).map(Bytes::copy_from_slice).collect(),
            _ => vec![Bytes::new(), Bytes::copy_from_slice(part), Bytes::new()],
        };
        upload.part(number, pieces).await.unwrap();
        assert_eq!(kind(storage.get("u/finished", None).await), Kind::Absent);
        assert_eq!(kind(storage.size("u/finished").await), Kind::Absent);
        assert_eq!(keys(storage, "u").await, [""; 0]);
        assert!(!dirs(storage, "").await.contains("u"));
    }
    upload.finish().await.unwrap();
    assert!(content(storage, "u/finished").await == parts.concat());
    assert_eq!(keys(storage, "u").await, ["u/finished"]);
    assert_eq!(storage.create("u/finished", one("z")).await.unwrap(), Created::Exists);
    storage.upload("u/empty").await.unwrap().finish().await.unwrap();
    assert_eq!(content(storage, "u/empty").await, b"");
}

/// Given up or dropped, an upload leaves no object.
pub async fn uploads_that_end_without_finish_show_nothing(storage: &Store) {
    let aborted = storage.upload("ua/aborted").await.unwrap();
    aborted.part(0, one("piece")).await.unwrap();
    aborted.abort().await.unwrap();
    aborted.abort().await.expect("giving up again is success");
    let dropped = storage.upload("ua/dropped").await.unwrap();
    dropped.part(0, one("piece")).await.unwrap();
    drop(dropped);
    assert_eq!(keys(&**storage, "ua").await, [""; 0]);
    assert_eq!(kind(storage.get("ua/aborted", None).await), Kind::Absent);
    assert_eq!(unfinished(storage, "ua/aborted").await.len(), 0, "an upload that was given up is gone");
}

/// Parts are put together by their numbers, whatever order they arrive in, and one that came twice counts once.
pub async fn parts_come_at_once_and_in_any_order(storage: &Store) {
    let size = storage.parts().size;
    let mut parts: Vec<Vec<u8>> = (0..4).map(|number| noise(number * 7, size)).collect();
    parts.push(b"the last, shorter one".to_vec());
    for key in ["uo/once", "uo/twice"] {
        let upload = storage.upload(key).await.unwrap();
        let send = |number: usize| upload.part(number, one(parts[number].clone()));
        try_join_all([4, 2, 0, 3, 1].map(send)).await.unwrap();
        if key == "uo/twice" {
            // As after an answer that was lost.
            try_join_all([1, 4].map(send)).await.unwrap();
        }
        upload.finish().await.unwrap();
        assert!(content(&**storage, key).await == parts.concat(), "{key}");
    }
}

/// When the answer to a finish is lost, the next one is success as well.
pub async fn finishing_again_is_success(storage: &Store) {
    let storage = &**storage;
    let upload = storage.upload("uf/twice").await.unwrap();
    upload.part(0, one("content")).await.unwrap();
    upload.finish().await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(content(storage, "uf/twice").await, b"content");
    let empty = storage.upload("uf/empty").await.unwrap();
    empty.finish().await.unwrap();
    empty.finish().await.unwrap();
    assert_eq!(content(storage, "uf/empty").await, b"");
}

async fn unfinished(storage: &Store, key: &str) -> Vec<Unfinished> {
    let found: Vec<_> = storage.unfinished().try_collect().await.expect("list unfinished uploads");
    found.into_iter().filter(|upload| upload.key == key).collect()
}

/// Where the store keeps what was begun and not finished, it is listed with its age, and can be removed; nobody can
/// finish it then. Tells whether this store keeps such things.
pub async fn unfinished_uploads_are_swept(storage: &Store) -> bool {
    let mut begun = BTreeMap::new();
    for key in ["us/swept", "us/kept"] {
        let upload = storage.upload(key).await.unwrap();
        upload.part(0, one("piece")).await.unwrap();
        begun.insert(key, upload);
    }
    let found = unfinished(storage, "us/swept").await;
    let keeps = !found.is_empty();
    if keeps {
        assert_eq!(found.len(), 1);
        assert_eq!(unfinished(storage, "us/kept").await.len(), 1);
        let age = jiff::Timestamp::now().duration_since(found[0].since);
        // moto says of every upload that it was begun in 2010.
        let begun_in_2010 = found[0].since.strftime("%Y").to_string() == "2010";
        assert!(age.as_secs().abs() < 600 || begun_in_2010, "begun {age:?} ago");
        storage.discard(&found[0]).await.unwrap();
        storage.discard(&found[0]).await.expect("removing it again is success");
        assert_eq!(unfinished(storage, "us/swept").await, []);
        assert!(begun["us/swept"].finish().await.is_err(), "nothing is made of what was removed");
        assert_eq!(kind(storage.get("us/swept", None).await), Kind::Absent);
    }
    begun["us/kept"].finish().await.expect("others are left alone");
    assert_eq!(content(&**storage, "us/kept").await, b"piece");
    assert_eq!(unfinished(storage, "us/kept").await, [], "what is finished is not unfinished");
    keeps
}

/// Keys that are none are refused, before anything happens.
pub async fn keys_stay_inside(storage: &Store) {
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
