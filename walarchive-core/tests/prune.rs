//! What nobody needs goes, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use walarchive_core::archive::{Archive, BackupId, Catalog, Keys, Lease, PackName, Place, SystemId};
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::ops::prune::{Found, Leftover, Limits, PrunePlan, find, plan, run};
use walarchive_core::storage::{Created, Entry, MemoryStorage, Part, Storage, Unfinished, Upload};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-05-10T12:00:00Z".parse().unwrap()
}

fn ago(hours: u32) -> Timestamp {
    now() - HOUR * hours
}

fn limits() -> Limits {
    Limits::new(now(), HOUR * 24)
}

fn place() -> Place {
    Place::of_system("main".parse().unwrap(), SystemId(7))
}

/// The backup that began so many hours ago.
fn backup(hours: u32) -> BackupId {
    BackupId::new(ago(hours), hours)
}

fn pack(hours: u32, number: u32) -> PackName {
    PackName { backup: backup(hours), number }
}

fn lease(hours: u32, until: Timestamp) -> Lease {
    Lease { backup: backup(hours), until, key: place().lease(&backup(hours), until) }
}

fn upload(key: &str, since: Timestamp) -> Unfinished {
    Unfinished { key: key.to_owned(), id: format!("id of {key}"), since }
}

fn goes(plan: &PrunePlan) -> BTreeSet<&str> {
    plan.remove.iter().map(|removal| removal.key.as_str()).collect()
}

fn stays(plan: &PrunePlan) -> BTreeSet<(&str, &str)> {
    plan.keep.keys().map(|kept| (kept.what, kept.why.split(':').next().unwrap())).collect()
}

/// A plan for exactly one thing.
fn planned(found: Found) -> PrunePlan {
    plan(found, &place(), limits())
}

#[test]
fn packs_go_when_nobody_can_need_them() {
    let orphan = |hours| Found {
        packs: [(pack(hours, 0), 10)].into(),
        needed: Some(BTreeSet::new()),
        ..Found::default()
    };
    assert_eq!(goes(&planned(orphan(48))), BTreeSet::from([place().pack(&pack(48, 0)).as_str()]));
    assert_eq!(planned(orphan(48)).stored_bytes(), 10);
    // Too young; protected by a lease, also one that ended a moment ago; of a backup that exists; needed by another.
    assert!(stays(&planned(orphan(23))).contains(&("pack", "it is younger than the grace time")));
    for until in [now() + HOUR, now() - Duration::from_secs(599)] {
        let found = Found { leases: vec![lease(48, until)], ..orphan(48) };
        let plan = planned(found);
        assert!(!goes(&plan).contains(place().pack(&pack(48, 0)).as_str()), "{plan:?}");
    }
    let ended = Found { leases: vec![lease(48, now() - Duration::from_secs(601))], ..orphan(48) };
    assert_eq!(planned(ended).remove.len(), 2, "the pack and the lease");
    let exists = planned(Found { manifests: [backup(48)].into(), ..orphan(48) });
    assert!(exists.remove.is_empty() && exists.keep.is_empty());
    let named = planned(Found { needed: Some([pack(48, 0)].into()), ..orphan(48) });
    assert!(
        named.remove.is_empty() && stays(&named).contains(&("pack", "a manifest of another backup names it"))
    );
    let unknown = planned(Found { needed: None, ..orphan(48) });
    assert!(unknown.remove.is_empty() && stays(&unknown).len() == 1);
}

#[test]
fn uploads_go_with_their_backup_or_when_they_are_old() {
    let of = |hours: u32| (upload(&place().pack(&pack(hours, 1)), ago(hours)), Some(backup(hours)));
    let wal = |hours: u32| (upload(&format!("main/7/wal/{hours}"), ago(hours)), None);
    let found = || Found { uploads: vec![of(48), of(20), wal(25), wal(23)], ..Found::default() };
    let planned_ = planned(found());
    assert_eq!(goes(&planned_), BTreeSet::from([place().pack(&pack(48, 1)).as_str(), "main/7/wal/25"]));
    let alive = planned(Found { leases: vec![lease(48, now() + HOUR)], ..found() });
    assert_eq!(goes(&alive), BTreeSet::from(["main/7/wal/25"]));
    // One without a time is left alone.
    let timeless = (upload("main/7/wal/x", Timestamp::MAX), None);
    assert!(planned(Found { uploads: vec![timeless], ..Found::default() }).remove.is_empty());
}

#[test]
fn pins_and_leases_go_when_their_backup_is_over() {
    let found = Found {
        pins: [backup(48), backup(49), backup(50), backup(1)].into(),
        manifests: [backup(49)].into(),
        leases: vec![
            lease(49, ago(25)),
            lease(50, ago(26)),
            lease(50, now() + HOUR),
            lease(48, ago(1)),
            lease(1, now() + HOUR),
        ],
        ..Found::default()
    };
    let plan = planned(found);
    let gone: BTreeSet<String> =
        [place().pin(&backup(48)), lease(48, ago(1)).key, lease(49, ago(25)).key].into();
    assert_eq!(goes(&plan), gone.iter().map(String::as_str).collect());
    let leases = plan.remove.iter().filter(|removal| matches!(removal.leftover, Leftover::Lease(_))).count();
    assert_eq!(leases, 2);
}

/// A store that shows uploads, and lets something happen after the n-th listing.
#[derive(Debug)]
struct Busy {
    store: Arc<MemoryStorage>,
    uploads: Vec<Unfinished>,
    listings: AtomicU32,
    /// After which listing a backup is committed, its lease going.
    commits_after: u32,
}

#[async_trait]
impl Storage for Busy {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        self.store.create(key, payload).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.store.upload(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.store.get(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.store.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let (store, prefix) = (self.store.clone(), prefix.to_owned());
        let commits = self.listings.fetch_add(1, Ordering::Relaxed) + 1 == self.commits_after;
        let listed = async move {
            let found: Vec<_> = store.list(&prefix).try_collect().await?;
            if commits {
                commit(&store).await;
            }
            Ok(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.store.list_dirs(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.store.delete(key).await
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        if self.uploads.is_empty() {
            return stream::once(async { Err(Error::new(Kind::Denied, "403")) }).boxed();
        }
        stream::iter(self.uploads.clone().into_iter().map(Ok)).boxed()
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        self.store.create(&format!("discarded/{}", unfinished.id.replace(' ', "-")), vec![]).await.map(drop)
    }
}

/// A backup that runs longer than the grace: its last steps.
async fn commit(store: &MemoryStorage) {
    store.create(&place().manifest(&backup(48)), vec![]).await.unwrap();
    store.delete(&lease(48, now() + HOUR).key).await.unwrap();
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

async fn archive(
    uploads: Vec<Unfinished>,
    commits_after: u32,
    keys: &[String],
) -> (Catalog, Arc<MemoryStorage>) {
    let store = Arc::new(MemoryStorage::new());
    Archive::init(store.as_ref(), false).await.unwrap();
    for key in keys {
        store.create(key, vec![Bytes::from_static(b"whatever")]).await.unwrap();
    }
    let busy = Busy { store: store.clone(), uploads, listings: AtomicU32::new(0), commits_after };
    let archive = Archive::open(Arc::new(busy), Keys::default()).await.unwrap();
    (Catalog { archive, place: place() }, store)
}

async fn left(store: &MemoryStorage) -> Vec<String> {
    let mut keys: Vec<_> = store.list("").map_ok(|entry| entry.key).try_collect().await.unwrap();
    keys.retain(|key| key != "archive.json");
    keys.sort();
    keys
}

/// Wherever between two listings a backup is committed, its packs stay.
#[test]
fn a_backup_that_ends_meanwhile_is_safe() {
    block_on(async {
        for commits_after in 0..6 {
            let running = [place().pack(&pack(48, 0)), lease(48, now() + HOUR).key];
            let (catalog, store) = archive(vec![], commits_after, &running).await;
            let found = find(&catalog, limits()).await.unwrap();
            assert_eq!(found.problems.len(), 1, "uploads cannot be listed: {:?}", found.problems);
            let plan = plan(found, &place(), limits());
            assert!(plan.remove.is_empty(), "committed after listing {commits_after}: {plan:?}");
            assert!(left(&store).await.contains(&running[0]));
        }
    });
}

#[test]
fn what_is_planned_goes_and_nothing_else() {
    block_on(async {
        let dead = [
            place().pack(&pack(48, 0)),
            place().pack(&pack(48, 1)),
            lease(48, ago(24)).key,
            place().pin(&backup(48)),
        ];
        let alive = [place().pack(&pack(30, 0)), lease(30, now() + HOUR).key];
        let others = [
            "main/7/wal/00000001/x".to_owned(),
            "main/77/packs/20200101T000000Z-00000001/00000000".to_owned(),
        ];
        let uploads = vec![
            upload(&place().pack(&pack(48, 2)), ago(48)),
            upload(&place().pack(&pack(30, 2)), ago(30)),
            upload("main/77/packs/20200101T000000Z-00000001/00000001", ago(1000)),
            upload("archive.json", ago(1000)),
        ];
        let (catalog, store) = archive(uploads, 0, &[&dead[..], &alive, &others].concat()).await;
        let plan_now = || async { plan(find(&catalog, limits()).await.unwrap(), &place(), limits()) };
        // The backup that runs may point to the packs of the dead one.
        let beside = plan_now().await;
        assert_eq!(beside.remove.len(), 4, "{beside:?}");
        assert!(!beside.remove.iter().any(|removal| matches!(removal.leftover, Leftover::Pack(_))));
        for key in &alive {
            store.delete(key).await.unwrap();
        }
        // One that begins after the plan was made may, too.
        let plan = plan_now().await;
        store.create(&alive[1], vec![]).await.unwrap();
        let done = run(&catalog, &plan, limits()).await.unwrap();
        assert!(done.spared.contains(&backup(48)), "{done:?}");
        let there = left(&store).await;
        assert!(dead.iter().all(|key| there.contains(key)), "{there:?}");
        store.delete(&alive[1]).await.unwrap();
        let done = run(&catalog, &plan_now().await, limits()).await.unwrap();
        assert_eq!((done.spared.len(), done.stored_bytes), (0, 16));
        let mut expected: Vec<String> = others.to_vec();
        for key in [place().pack(&pack(48, 2)), place().pack(&pack(30, 2)), "archive.json".to_owned()] {
            expected.push(format!("discarded/id-of-{key}"));
        }
        expected.sort();
        assert_eq!(left(&store).await, expected);
    });
}

/// Between the plan and the deletion a backup is committed, or its lease comes back.
#[test]
fn what_became_active_since_the_plan_is_spared() {
    block_on(async {
        let dead = [place().pack(&pack(48, 0))];
        for revival in [lease(48, now() + HOUR).key, place().manifest(&backup(48))] {
            let (catalog, store) = archive(vec![], 0, &dead).await;
            let plan = plan(find(&catalog, limits()).await.unwrap(), &place(), limits());
            assert_eq!(plan.remove.len(), 1);
            store.create(&revival, vec![]).await.unwrap();
            let done = run(&catalog, &plan, limits()).await.unwrap();
            assert_eq!((done.removed, done.spared), (0, vec![backup(48)]));
            assert!(left(&store).await.contains(&dead[0]));
        }
    });
}

#[test]
fn a_manifest_that_cannot_be_read_protects_all_packs() {
    block_on(async {
        let keys = [place().pack(&pack(48, 0)), place().manifest(&backup(72)), place().pin(&backup(96))];
        let (catalog, _) = archive(vec![upload("main/7/wal/x", ago(48))], 0, &keys).await;
        let found = find(&catalog, limits()).await.unwrap();
        assert_eq!(found.problems.first().map(Error::kind), Some(Kind::Damaged), "{:?}", found.problems);
        let plan = plan(found, &place(), limits());
        assert_eq!(goes(&plan), BTreeSet::from(["main/7/wal/x", place().pin(&backup(96)).as_str()]));
        assert_eq!(stays(&plan), BTreeSet::from([("pack", "it is not known whether a manifest names it")]));
    });
}

#[test]
fn a_run_of_dumps_protects_what_its_dumps_are_doing() {
    let dumps = Place::of_dumps("main".parse().unwrap());
    let found = |leases| Found {
        uploads: vec![(upload(&dumps.pack(&pack(48, 1)), ago(48)), Some(backup(48)))],
        pins: [backup(48)].into(),
        leases,
        ..Found::default()
    };
    let of_the_run = plan(found(vec![lease(49, now() + HOUR)]), &dumps, limits());
    assert!(of_the_run.remove.is_empty() && stays(&of_the_run).len() == 2, "{of_the_run:?}");
    assert_eq!(plan(found(Vec::new()), &dumps, limits()).remove.len(), 2);
}
