//! The contract of storage over every store there is.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use walarchive_core::error::{Error, Kind};
use walarchive_core::patience::Patience;
use walarchive_core::storage::{self, LocalStorage, MemoryStorage, Mirrors, Policy, StoreOptions, Witness};
use walarchive_tests::conformance::{self, Store, content, keys, one};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Scratch, stores::Kind as Which};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

/// As the programs open it. Small parts and little patience keep the tests quick, and all racers start at once.
async fn open(bucket: &Bucket) -> Store {
    let mut options = StoreOptions { variables: bucket.env().into_iter().collect(), ..Default::default() };
    options.set("part_size", "5MiB").expect("an option");
    options.set("concurrency", "200").expect("an option");
    options.patience = Patience::each(Duration::from_secs(10));
    storage::open(&bucket.url(), &options).await.expect("open the store")
}

/// One server at a time: what races prove should not depend on how busy the others keep the machine.
static ALONE: Mutex<()> = Mutex::new(());

fn conforms(which: Which) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new();
    let Some(bucket) = stores::shared(&scratch, which) else { return };
    run(async {
        let store = open(&bucket).await;
        let keeps = conformance::storage(&store).await;
        // Azure removes blocks that were never listed by itself.
        assert_eq!(keeps, which != Which::Azurite);
        if which != Which::Seaweed {
            conformance::empty_names_are_not_listed(&store).await;
        }
        // Nobody else's objects are listed, though their keys begin alike.
        let other = open(&bucket.with_prefix(&format!("{}2", bucket.prefix()))).await;
        assert_eq!(keys(&*other, "").await, [""; 0]);
        other.create("c/one", one("another archive's")).await.expect("create");
        assert_eq!(keys(&*other, "").await, ["c/one"]);
        assert_eq!(content(&*store, "c/one").await, b"first");
        let missing = open(&bucket.missing()).await;
        let error = missing.create("c/one", one("nowhere")).await.expect_err("there is no such bucket");
        assert!(!matches!(error.kind(), Kind::Absent | Kind::Bug), "{error:?}");
    });
    assert!(bucket.raw().list().iter().any(|(key, size)| key == "c/one" && *size == 5));
}

#[test]
fn memory_conforms() {
    let store: Store = Arc::new(MemoryStorage::new());
    run(async {
        conformance::storage(&store).await;
        conformance::empty_names_are_not_listed(&store).await;
    });
}

/// Nothing is ever missed where no store fails.
#[derive(Debug)]
struct NothingMissed;

#[async_trait]
impl Witness for NothingMissed {
    async fn missed(&self, store: &str, key: &str, error: &Error) {
        panic!("{store} lacks {key}: {error:?}");
    }

    fn notice(&self, text: &str) {
        panic!("{text}");
    }
}

#[test]
fn mirrors_conform_and_stay_the_same() {
    for policy in [Policy::All, Policy::Any] {
        let stores: Vec<Store> = (0..3).map(|_| Arc::new(MemoryStorage::new()) as Store).collect();
        let named = stores.iter().enumerate().map(|(number, store)| (number.to_string(), Arc::clone(store)));
        let mirrors = Mirrors::new(named.collect(), policy, Patience::none(), Arc::new(NothingMissed));
        let mirrors: Store = Arc::new(mirrors);
        run(async {
            conformance::storage(&mirrors).await;
            conformance::empty_names_are_not_listed(&mirrors).await;
            let all = keys(&*mirrors, "").await;
            assert!(all.len() > 1000);
            for store in &stores {
                assert_eq!(keys(&**store, "").await, all);
                for key in &all {
                    assert!(content(&**store, key).await == content(&*mirrors, key).await, "{key}");
                }
            }
        });
    }
}

#[test]
fn directory_conforms() {
    let scratch = Scratch::new();
    let root = scratch.join("not yet/100% ü #1");
    let store: Store = Arc::new(LocalStorage::create_root(&root).expect("make the root"));
    run(async {
        conformance::storage(&store).await;
        conformance::empty_names_are_not_listed(&store).await;
    });
    assert!(root.join("c/one").is_file(), "keys are paths below the root");
    let outside: Vec<_> = fs::read_dir(root.parent().expect("a parent")).expect("list").collect();
    assert_eq!(outside.len(), 1, "nothing escapes the root");
}

#[test]
fn s3_on_seaweed_conforms() {
    conforms(Which::Seaweed);
}

#[test]
fn s3_on_moto_conforms() {
    conforms(Which::Moto);
}

#[test]
fn azure_conforms() {
    conforms(Which::Azurite);
}

#[test]
fn google_conforms() {
    conforms(Which::Gcs);
}
