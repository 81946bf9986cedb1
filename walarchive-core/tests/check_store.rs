//! Stores that break their promises are found out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use walarchive_core::archive::Archive;
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::ops::check_store::{StoreReport, Verdict, check};
use walarchive_core::storage::{
    Created, Entry, LocalStorage, MemoryStorage, Part, Storage, StoreOptions, Unfinished, Upload, open,
};

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    Overwrites,
    SaysNewTwice,
    LooksFirst,
    ForgetsWhatIsCreated,
    IgnoresRanges,
    CutsRanges,
    ListsStale,
    ListsTooMuch,
    ListsNoDirs,
    ShowsUploads,
    KeepsAborted,
    LosesParts,
    KeepsDeleted,
    MayNotDelete,
    DeniesAbsent,
    CannotListUploads,
    IsGone,
    GoesAway,
}

#[derive(Debug)]
struct Liar {
    store: Arc<MemoryStorage>,
    lie: Lie,
}

fn no<T>(kind: Kind) -> Result<T> {
    Err(Error::new(kind, "the store does not want to"))
}

#[async_trait]
impl Storage for Liar {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        match self.lie {
            Lie::Overwrites => {
                self.store.delete(key).await?;
                self.store.create(key, payload).await
            }
            Lie::SaysNewTwice => self.store.create(key, payload).await.map(|_| Created::New),
            Lie::LooksFirst => {
                if self.store.size(key).await.is_ok() {
                    return Ok(Created::Exists);
                }
                tokio::task::yield_now().await;
                self.store.delete(key).await?;
                self.store.create(key, payload).await
            }
            Lie::ForgetsWhatIsCreated => Ok(Created::New),
            Lie::IsGone => no(Kind::Unreachable),
            Lie::GoesAway if key.contains("/ranges/") => no(Kind::Unreachable),
            _ => self.store.create(key, payload).await,
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let upload = self.store.upload(key).await?;
        Ok(Box::new(LyingUpload { upload, key: key.to_owned(), store: self.store.clone(), lie: self.lie }))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        match (self.lie, range) {
            (Lie::IgnoresRanges, Some(_)) => self.store.get(key, None).await,
            (Lie::CutsRanges, Some(range)) if range.end > range.start + 100 => {
                self.store.get(key, Some(range.start..range.end - 1)).await
            }
            (Lie::DeniesAbsent, range) => {
                let got = self.store.get(key, range).await;
                got.map_err(|_| Error::new(Kind::Denied, "403 AccessDenied"))
            }
            (_, range) => self.store.get(key, range).await,
        }
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.store.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let listed = self.store.list(if self.lie == Lie::ListsTooMuch { "" } else { prefix });
        match self.lie {
            Lie::ListsStale => listed.skip(1).boxed(),
            _ => listed,
        }
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        if self.lie == Lie::ListsNoDirs { Ok(Vec::new()) } else { self.store.list_dirs(prefix).await }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.lie {
            Lie::KeepsDeleted => Ok(()),
            Lie::MayNotDelete => no(Kind::Denied),
            Lie::GoesAway => no(Kind::Unreachable),
            _ => self.store.delete(key).await,
        }
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        match self.lie {
            Lie::CannotListUploads => stream::once(async { no(Kind::Denied) }).boxed(),
            _ => stream::empty().boxed(),
        }
    }
}

struct LyingUpload {
    upload: Box<dyn Upload>,
    key: String,
    store: Arc<MemoryStorage>,
    lie: Lie,
}

#[async_trait]
impl Upload for LyingUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        if self.lie == Lie::ShowsUploads {
            self.store.create(&self.key, pieces.clone()).await?;
        }
        if self.lie == Lie::LosesParts && number > 0 {
            return Ok(());
        }
        self.upload.part(number, pieces).await
    }

    async fn finish(&self) -> Result<()> {
        self.upload.finish().await
    }

    async fn abort(&self) -> Result<()> {
        match self.lie {
            Lie::KeepsAborted => self.upload.finish().await,
            _ => self.upload.abort().await,
        }
    }
}

async fn everything(store: &dyn Storage) -> Vec<String> {
    store.list("").map_ok(|entry| entry.key).try_collect().await.unwrap()
}

/// The report on a store that lies so, and what is left in it.
fn report(lie: Lie) -> (StoreReport, Vec<String>) {
    run(async {
        let store = Arc::new(MemoryStorage::new());
        store.create("main/7/wal/other", vec![Bytes::from_static(b"kept")]).await.unwrap();
        let report = check(Arc::new(Liar { store: store.clone(), lie }), 7, 20).await;
        let mut left = everything(store.as_ref()).await;
        left.retain(|key| key != "main/7/wal/other");
        (report, left)
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn names(report: &StoreReport, verdict: Verdict) -> BTreeSet<&str> {
    report.guarantees.iter().filter(|found| found.verdict == verdict).map(|found| found.name).collect()
}

#[test]
fn each_broken_promise_is_found() {
    for (lie, name, word) in [
        (Lie::Overwrites, "create-only", "overwrite"),
        (Lie::Overwrites, "one-winner", "told"),
        (Lie::SaysNewTwice, "create-only", "lost"),
        (Lie::SaysNewTwice, "one-winner", "told"),
        (Lie::LooksFirst, "one-winner", "check-first"),
        (Lie::ForgetsWhatIsCreated, "create", ""),
        (Lie::IgnoresRanges, "ranges", "restored"),
        (Lie::CutsRanges, "ranges", "restored"),
        (Lie::ListsStale, "list", "missing"),
        (Lie::ListsTooMuch, "list", ""),
        (Lie::ListsNoDirs, "list-dirs", "clusters"),
        (Lie::ShowsUploads, "upload", "half"),
        (Lie::KeepsAborted, "abort", "half"),
        (Lie::LosesParts, "upload", ""),
        (Lie::KeepsDeleted, "delete", "still there"),
        (Lie::DeniesAbsent, "absent", "grant listing"),
    ] {
        let (report, _) = report(lie);
        let found = report.guarantees.iter().find(|found| found.name == name).unwrap();
        assert_eq!(found.verdict, Verdict::Broken, "{lie:?}: {found:?}");
        assert!(found.detail.contains(word), "{lie:?}: {found:?}");
        assert_eq!(report.verdict(), Verdict::Broken);
    }
    // A store that creates as it should in one line, and not in a race, breaks that promise alone.
    assert_eq!(names(&report(Lie::LooksFirst).0, Verdict::Broken), BTreeSet::from(["one-winner"]));
    assert_eq!(names(&report(Lie::IgnoresRanges).0, Verdict::Broken), BTreeSet::from(["ranges"]));
}

#[test]
fn what_an_archive_can_do_without_is_a_warning() {
    let (denied, left) = report(Lie::MayNotDelete);
    assert_eq!(denied.verdict(), Verdict::Lacking);
    assert_eq!(names(&denied, Verdict::Lacking), BTreeSet::from(["delete"]));
    assert!(!left.is_empty());
    assert_eq!(
        denied.left.iter().collect::<BTreeSet<_>>(),
        left.iter().collect(),
        "all that is left is named"
    );
    let (unlisted, left) = report(Lie::CannotListUploads);
    assert_eq!(names(&unlisted, Verdict::Lacking), BTreeSet::from(["leftovers"]));
    assert_eq!((unlisted.verdict(), left.len()), (Verdict::Lacking, 0));
}

#[test]
fn what_cannot_be_removed_is_named() {
    let (report, left) = report(Lie::KeepsDeleted);
    assert_eq!(report.left.iter().collect::<BTreeSet<_>>(), left.iter().collect());
    assert!(left.iter().all(|key| key.starts_with("check-0000000000000007/")), "{left:?}");
}

#[test]
fn a_store_that_cannot_be_reached_is_unknown() {
    let (gone, left) = report(Lie::IsGone);
    assert_eq!(gone.unreachable.unwrap().kind(), Kind::Unreachable);
    assert!(gone.guarantees.is_empty() && left.is_empty());
    let (went, left) = report(Lie::GoesAway);
    assert_eq!(went.unreachable.as_ref().unwrap().kind(), Kind::Unreachable);
    assert_eq!(
        names(&went, Verdict::Holds),
        BTreeSet::from(["create", "create-only", "one-winner", "absent"])
    );
    assert!(left.iter().all(|key| went.left.contains(key)), "{:?} is not all of {left:?}", went.left);
}

#[test]
fn good_stores_keep_all_promises_and_are_left_clean() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let local = Arc::new(LocalStorage::open(dir.path()).unwrap());
        let opened = open(&url, &StoreOptions::default()).await.unwrap();
        let stores: [Arc<dyn Storage>; 3] = [Arc::new(MemoryStorage::new()), local, opened];
        for (n, store) in (0..).zip(stores) {
            store.create("main/7/x", vec![Bytes::from_static(b"kept")]).await.unwrap();
            let report = check(store.clone(), n, if n == 2 { 50 } else { 1100 }).await;
            assert_eq!(report.verdict(), Verdict::Holds, "{report:?}");
            assert_eq!(report.guarantees.len(), 11);
            assert_eq!(everything(store.as_ref()).await, ["main/7/x"]);
        }
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["main"], "no directory stays");
    });
}

#[test]
fn no_archive_is_made_where_objects_are_replaced() {
    for lie in [Lie::Overwrites, Lie::SaysNewTwice] {
        let store = Liar { store: Arc::new(MemoryStorage::new()), lie };
        let error = run(Archive::init(&store, true)).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        assert!(error.story().contains("check-first"), "{error:?}");
        assert_eq!(run(everything(&*store.store)), [""; 0], "{lie:?}");
    }
}
