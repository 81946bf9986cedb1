//! Several stores as one archive: what counts as stored, as absent, as damaged, when single stores fail.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use walarchive_core::archive::{
    Archive, BackupId, Brought, Catalog, ObjectKind, PackName, Place, SystemId, compare,
};
use walarchive_core::behind::Notes;
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::ops::{catch_up, prune};
use walarchive_core::patience::Patience;
use walarchive_core::progress::Silent;
use walarchive_core::storage::{
    Created, Entry, MemoryStorage, Mirrors, Part, Policy, Storage, Unfinished, Upload, Witness,
};

use crate::recorder::{Recorder, Trouble};
use crate::support::*;

/// Remembers what it hears.
#[derive(Default)]
struct Ear {
    missed: Mutex<Vec<(String, String)>>,
    noticed: Mutex<Vec<String>>,
}

#[async_trait]
impl Witness for Ear {
    async fn missed(&self, mirror: &str, key: &str, _: &Error) {
        self.missed.lock().unwrap().push((mirror.to_owned(), key.to_owned()));
    }

    fn notice(&self, text: &str) {
        self.noticed.lock().unwrap().push(text.to_owned());
    }
}

/// Stores that hold one archive.
struct Several {
    stores: Vec<Arc<Recorder>>,
    ear: Arc<Ear>,
    files: tempfile::TempDir,
}

use std::sync::Arc;

impl Several {
    /// Empty mirrors, `m0` to `m…`, of one archive.
    async fn new(count: usize) -> Several {
        let several = Several::without_archive(count);
        Archive::init(&several.store(Policy::All), false).await.unwrap();
        several
    }

    fn without_archive(count: usize) -> Several {
        let stores = (0..count).map(|_| Arc::new(Recorder::new(Arc::new(MemoryStorage::new())))).collect();
        Several { stores, ear: Arc::default(), files: tempfile::TempDir::new().unwrap() }
    }

    fn heard_by(&self, policy: Policy, witness: Arc<dyn Witness>) -> Mirrors {
        let named = |(number, store): (usize, &Arc<Recorder>)| {
            (format!("m{number}"), store.clone() as Arc<dyn Storage>)
        };
        let stores = self.stores.iter().enumerate().map(named).collect();
        Mirrors::new(stores, policy, Patience::none(), witness)
    }

    fn store(&self, policy: Policy) -> Mirrors {
        self.heard_by(policy, self.ear.clone())
    }

    async fn archive(&self, policy: Policy) -> Archive {
        Archive::open(Arc::new(self.store(policy)), keys(None)).await.unwrap()
    }

    async fn alone(&self, number: usize) -> Archive {
        Archive::open(self.stores[number].clone(), keys(None)).await.unwrap()
    }

    async fn push(&self, archive: &Archive, text: &str, content: &[u8]) -> Result<bool> {
        let path = self.files.path().join(text);
        std::fs::write(&path, content).unwrap();
        push_path(&pusher(archive, "zstd:1"), &path).await.map(|pushed| !pushed.was_there())
    }

    async fn has(&self, number: usize, key: &str) -> bool {
        self.stores[number].size(key).await.is_ok()
    }

    fn missed(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.ear.missed.lock().unwrap())
    }
}

fn damage(store: &Recorder) {
    store.set(Trouble::Lies(Box::new(|key, whole| {
        let mut bytes = whole.to_vec();
        if key.contains("/wal/") || key.contains("/packs/") {
            let at = bytes.len() * 2 / 3;
            bytes[at] ^= 1;
        }
        bytes.into()
    })));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Has,
    Unreachable,
    Damaged,
    Absent,
}

const STATES: [State; 4] = [State::Has, State::Unreachable, State::Damaged, State::Absent];

/// Every way in which `count` mirrors may be.
fn all_states(count: usize) -> Vec<Vec<State>> {
    (0..STATES.len().pow(count as u32))
        .map(|mut number| {
            let digit = |_| {
                let state = STATES[number % STATES.len()];
                number /= STATES.len();
                state
            };
            (0..count).map(digit).collect()
        })
        .collect()
}

#[test]
fn a_fetch_succeeds_if_any_copy_is_sound_and_is_absent_only_if_all_are() {
    run(async {
        let content = thin_segment(SEGMENT, 1);
        for policy in [Policy::All, Policy::Any] {
            for states in [all_states(2), all_states(3)].concat() {
                let several = Several::new(states.len()).await;
                let archive = several.archive(policy).await;
                // The cluster is known, whatever becomes of this segment.
                several.push(&archive, HISTORY, HISTORY_TEXT).await.unwrap();
                for (number, state) in states.iter().enumerate() {
                    if *state != State::Absent {
                        several.push(&several.alone(number).await, SEGMENT, &content).await.unwrap();
                    }
                    match state {
                        State::Unreachable => several.stores[number].set(Trouble::Unreachable),
                        State::Damaged => damage(&several.stores[number]),
                        State::Has | State::Absent => {}
                    }
                }
                let fetched = fetch_from(&catalog(&archive), SEGMENT).await;
                let what = format!("{policy:?} {states:?}");
                match states.iter().min().unwrap() {
                    State::Has => assert!(fetched.expect(&what) == content, "{what}"),
                    State::Unreachable => drop(refused(fetched, Kind::Unreachable, &what)),
                    State::Damaged => drop(refused(fetched, Kind::Damaged, &what)),
                    State::Absent => drop(refused(fetched, Kind::Absent, &what)),
                }
                let size = archive.storage().size(&place().wal(&name(SEGMENT))).await;
                // A listing shows no damage.
                match states
                    .iter()
                    .map(|state| if *state == State::Damaged { State::Has } else { *state })
                    .min()
                {
                    Some(State::Has) => assert!(size.is_ok(), "{what}"),
                    Some(State::Unreachable) => drop(refused(size, Kind::Unreachable, &what)),
                    _ => drop(refused(size, Kind::Absent, &what)),
                }
            }
        }
    });
}

#[test]
fn a_mirror_that_lost_its_description_proves_no_absence() {
    run(async {
        let several = Several::new(2).await;
        let archive = several.archive(Policy::Any).await;
        several.push(&archive, HISTORY, HISTORY_TEXT).await.unwrap();
        let archive = several.archive(Policy::Any).await;
        several.stores[1].delete("archive.json").await.unwrap();
        refused(fetch_from(&catalog(&archive), SEGMENT).await, Kind::Unreachable, "an unmounted mirror");
        assert!(fetch_from(&catalog(&archive), HISTORY).await.is_ok());
    });
}

#[test]
fn a_push_is_done_when_the_policy_is_met() {
    run(async {
        let content = thin_segment(SEGMENT, 1);
        for away in [vec![], vec![0], vec![1], vec![2], vec![0, 2], vec![0, 1, 2]] {
            for policy in [Policy::All, Policy::Any] {
                let several = Several::new(3).await;
                let archive = several.archive(policy).await;
                away.iter().for_each(|number: &usize| several.stores[*number].set(Trouble::Unreachable));
                let pushed = several.push(&archive, SEGMENT, &content).await;
                let what = format!("{policy:?} without {away:?}");
                let met = away.is_empty() || (policy == Policy::Any && away.len() < 3);
                if !met {
                    refused(pushed, Kind::Unreachable, &what);
                    assert!(several.missed().is_empty(), "{what}");
                    continue;
                }
                assert!(pushed.unwrap(), "{what}");
                let missed: BTreeSet<String> =
                    several.missed().into_iter().map(|(mirror, _)| mirror).collect();
                let expected: BTreeSet<String> = away.iter().map(|number| format!("m{number}")).collect();
                assert_eq!(missed, expected, "{what}");
                for number in (0..3).filter(|number| !away.contains(number)) {
                    let fetched = fetch_from(&catalog(&several.alone(number).await), SEGMENT).await;
                    assert!(fetched.unwrap() == content, "{what}");
                }
            }
        }
    });
}

#[test]
fn other_content_in_any_mirror_is_a_conflict_and_the_primary_decides() {
    run(async {
        let (mine, other) = (thin_segment(SEGMENT, 1), thin_segment(SEGMENT, 2));
        let key = place().wal(&name(SEGMENT));
        for policy in [Policy::All, Policy::Any] {
            for at in 0..3 {
                let several = Several::new(3).await;
                several.push(&several.alone(at).await, SEGMENT, &other).await.unwrap();
                let archive = several.archive(policy).await;
                let error =
                    refused(several.push(&archive, SEGMENT, &mine).await, Kind::Conflict, "other content");
                assert!(error.story().contains(&format!("m{at}")), "{error:?}");
                assert_eq!(
                    several.has(1, &key).await,
                    at != 0,
                    "nothing is stored where the primary refuses"
                );
                let kept = fetch_from(&catalog(&several.alone(at).await), SEGMENT).await.unwrap();
                assert!(kept == other);
            }
        }
    });
}

#[test]
fn of_two_that_push_different_content_at_once_one_wins_everywhere() {
    run(async {
        for round in 0..20 {
            let several = Several::new(3).await;
            let archive = several.archive(Policy::All).await;
            let push = |seed: u64| {
                let (several, archive) = (&several, &archive);
                async move {
                    let dir = several.files.path().join(seed.to_string());
                    std::fs::create_dir(&dir).unwrap();
                    let path = dir.join(SEGMENT);
                    std::fs::write(&path, thin_segment(SEGMENT, seed)).unwrap();
                    push_path(&pusher(archive, CODECS[seed as usize % 5]), &path).await.map(drop)
                }
            };
            let (one, two) = futures::join!(push(round * 2), push(round * 2 + 1));
            let winner = match (one, two) {
                (Ok(()), Err(error)) if error.kind() == Kind::Conflict => round * 2,
                (Err(error), Ok(())) if error.kind() == Kind::Conflict => round * 2 + 1,
                other => panic!("{other:?}"),
            };
            for number in 0..3 {
                let stored = fetch_from(&catalog(&several.alone(number).await), SEGMENT).await.unwrap();
                assert!(stored == thin_segment(SEGMENT, winner), "mirror {number}");
            }
        }
    });
}

#[test]
fn the_same_content_is_success_however_many_mirrors_have_it() {
    run(async {
        let content = thin_segment(SEGMENT, 1);
        let several = Several::new(3).await;
        several.push(&several.alone(1).await, SEGMENT, &content).await.unwrap();
        let archive = several.archive(Policy::All).await;
        assert!(several.push(&archive, SEGMENT, &content).await.unwrap(), "new in some");
        assert!(!several.push(&archive, SEGMENT, &content).await.unwrap(), "there in all");
    });
}

#[test]
fn a_lost_answer_is_no_conflict_with_oneself() {
    run(async {
        for policy in [Policy::All, Policy::Any] {
            let several = Several::new(2).await;
            let mirrors = Mirrors::new(
                several
                    .stores
                    .iter()
                    .map(|store| ("m".to_owned(), store.clone() as Arc<dyn Storage>))
                    .collect(),
                policy,
                Patience::each(Duration::from_secs(5)),
                several.ear.clone(),
            );
            several.stores.iter().for_each(|store| store.set(Trouble::AnswersLost));
            let stores = several.stores.clone();
            let later = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                stores.iter().for_each(|store| store.set(Trouble::None));
            };
            let (created, ()) =
                futures::join!(mirrors.create("main/x", vec![Bytes::from_static(b"1")]), later);
            assert_eq!(created.unwrap(), Created::New, "{policy:?}");
            assert_eq!(
                mirrors.create("main/x", vec![Bytes::from_static(b"1")]).await.unwrap(),
                Created::Exists
            );
        }
    });
}

#[test]
fn mirrors_of_an_archive_have_one_description() {
    run(async {
        let several = Several::without_archive(3);
        several.stores[2].set(Trouble::Unreachable);
        let made = Archive::init(&several.store(Policy::Any), false).await;
        refused(made, Kind::Unreachable, "a mirror is away");
        assert!(
            !several.has(0, "archive.json").await,
            "nothing is begun that may contradict what is not seen"
        );
        several.stores[2].set(Trouble::None);
        let (info, new) = Archive::init(&several.store(Policy::All), false).await.unwrap();
        assert!(new);
        several.stores[0].delete("archive.json").await.unwrap();
        let (again, new) = Archive::init(&several.store(Policy::All), false).await.unwrap();
        assert!(new && again == info, "completed");
        let bytes = |number: usize| several.stores[number].get("archive.json", None);
        let first = bytes(0).await.unwrap().bytes;
        assert!(first == bytes(1).await.unwrap().bytes && first == bytes(2).await.unwrap().bytes);
        assert!(!Archive::init(&several.store(Policy::All), false).await.unwrap().1);
        refused(Archive::init(&several.store(Policy::All), true).await, Kind::Conflict, "encrypted");
    });
}

#[test]
fn different_archives_are_no_mirrors() {
    run(async {
        let several = Several::without_archive(2);
        let (one, _) = Archive::init(several.stores[0].as_ref(), false).await.unwrap();
        let (two, _) = Archive::init(several.stores[1].as_ref(), false).await.unwrap();
        for policy in [Policy::All, Policy::Any] {
            let archive = several.archive(policy).await;
            let pushed = several.push(&archive, HISTORY, HISTORY_TEXT).await;
            let made = Archive::init(&several.store(policy), false).await.map(drop);
            for result in [pushed.map(drop), made] {
                let error = refused(result, Kind::Conflict, "two archives");
                assert!(error.story().contains(one.id()) && error.story().contains(two.id()), "{error:?}");
            }
        }
    });
}

#[test]
fn listings_are_the_union_and_say_what_is_left_out() {
    run(async {
        let several = Several::new(3).await;
        for (number, key) in
            [(0, "main/1/wal/a"), (1, "main/2/wal/a"), (2, "main/1/wal/a"), (2, "other/3/wal/b")]
        {
            several.stores[number].create(key, vec![Bytes::from_static(b"1")]).await.unwrap();
        }
        let listed = |policy| {
            let store = several.store(policy);
            async move {
                let entries: Vec<Entry> = store.list("").try_collect().await?;
                let mut dirs = store.list_dirs("main").await?;
                dirs.sort();
                Ok::<_, Error>((entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), dirs))
            }
        };
        let all = ["archive.json", "main/1/wal/a", "main/2/wal/a", "other/3/wal/b"];
        for policy in [Policy::All, Policy::Any] {
            let (entries, dirs) = listed(policy).await.unwrap();
            assert_eq!((entries, dirs), (all.map(str::to_owned).to_vec(), vec!["1".into(), "2".into()]));
        }
        several.stores[2].set(Trouble::Unreachable);
        refused(listed(Policy::All).await, Kind::Unreachable, "all are needed");
        assert_eq!(listed(Policy::Any).await.unwrap().0, all[..3]);
        let noticed = several.ear.noticed.lock().unwrap().clone();
        assert!(noticed.len() == 1 && noticed[0].contains("m2"), "{noticed:?}");
        several.stores.iter().for_each(|store| store.set(Trouble::Unreachable));
        refused(listed(Policy::Any).await, Kind::Unreachable, "none answers");
    });
}

/// A manifest that only one mirror has protects the packs in all.
#[test]
fn nothing_is_pruned_without_all_mirrors() {
    run(async {
        let several = Several::new(2).await;
        let place = Place::of_system("main".parse().unwrap(), SystemId(SYSTEM));
        let now: Timestamp = "2026-05-10T12:00:00Z".parse().unwrap();
        let id: BackupId = "20260101T000000Z-00000001".parse().unwrap();
        let pack = place.pack(&PackName { backup: id.clone(), number: 0 });
        for store in &several.stores {
            store.create(&pack, vec![Bytes::from_static(b"1")]).await.unwrap();
        }
        several.stores[0].create(&place.manifest(&id), vec![Bytes::from_static(b"1")]).await.unwrap();
        let limits = prune::Limits::new(now, Duration::from_secs(3600));
        let find = |archive: Archive| {
            let place = place.clone();
            async move {
                let found = prune::find(&Catalog { archive, place: place.clone() }, limits).await?;
                Ok::<_, Error>(prune::plan(found, &place, limits).remove.len())
            }
        };
        let archive = several.archive(Policy::Any).await;
        assert_eq!(find(archive.strict()).await.unwrap(), 0);
        several.stores[0].set(Trouble::Unreachable);
        refused(find(archive.strict()).await, Kind::Unreachable, "all are needed");
        assert_eq!(find(archive.clone()).await.unwrap(), 1, "so it would be without");
    });
}

#[test]
fn what_is_deleted_is_gone_everywhere_or_it_is_an_error() {
    run(async {
        for policy in [Policy::All, Policy::Any] {
            let several = Several::new(2).await;
            let store = several.store(policy);
            store.create("main/x", vec![Bytes::from_static(b"1")]).await.unwrap();
            several.stores[1].set(Trouble::Unreachable);
            refused(store.delete("main/x").await, Kind::Unreachable, "a mirror is away");
            several.stores[1].set(Trouble::None);
            store.delete("main/x").await.unwrap();
            assert!(!several.has(0, "main/x").await && !several.has(1, "main/x").await);
        }
    });
}

/// A store whose uploads fail after some parts.
#[derive(Debug)]
struct Cut {
    inner: MemoryStorage,
    left: Arc<AtomicUsize>,
}

struct CutUpload(Box<dyn Upload>, Arc<AtomicUsize>);

#[async_trait]
impl Upload for CutUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| Error::new(Kind::Unreachable, "cut off"))?;
        self.0.part(number, pieces).await
    }

    async fn finish(&self) -> Result<()> {
        self.0.finish().await
    }

    async fn abort(&self) -> Result<()> {
        self.0.abort().await
    }
}

#[async_trait]
impl Storage for Cut {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        self.inner.create(key, payload).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(CutUpload(self.inner.upload(key).await?, self.left.clone())))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.inner.get(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.inner.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        self.inner.list(prefix)
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.inner.list_dirs(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        self.inner.unfinished()
    }
}

#[test]
fn an_upload_goes_on_without_a_mirror_that_fails_under_any() {
    run(async {
        for (policy, cut, done) in [
            (Policy::Any, [9, 1], true),
            (Policy::Any, [1, 9], true),
            (Policy::Any, [1, 1], false),
            (Policy::All, [9, 1], false),
            (Policy::All, [9, 9], true),
        ] {
            let stores = cut.map(|left| {
                Arc::new(Cut { inner: MemoryStorage::new(), left: Arc::new(AtomicUsize::new(left)) })
            });
            let named = stores.iter().enumerate();
            let named = named
                .map(|(number, store)| (format!("m{number}"), store.clone() as Arc<dyn Storage>))
                .collect();
            let ear: Arc<Ear> = Arc::default();
            let mirrors = Mirrors::new(named, policy, Patience::none(), ear.clone());
            let upload = mirrors.upload("main/x").await.unwrap();
            let part = || vec![Bytes::from(vec![7; MIB])];
            let sent = async {
                for number in 0..3 {
                    upload.part(number, part()).await?;
                }
                upload.finish().await
            };
            let sent = sent.await;
            let what = format!("{policy:?} {cut:?}");
            assert_eq!(sent.is_ok(), done, "{what}: {sent:?}");
            if !done {
                upload.abort().await.unwrap();
            }
            for (number, store) in stores.iter().enumerate() {
                let whole = done && cut[number] == 9;
                assert_eq!(store.size("main/x").await.ok(), whole.then_some(3 * MIB as u64), "{what}");
                let missed =
                    ear.missed.lock().unwrap().contains(&(format!("m{number}"), "main/x".to_owned()));
                assert_eq!(missed, done && !whole, "{what}");
            }
        }
    });
}

#[test]
fn later_pushes_bring_what_a_mirror_missed() {
    run(async {
        let several = Several::new(2).await;
        let state = tempfile::TempDir::new().unwrap();
        let open = async |notes: &Arc<Notes>| {
            let store = several.heard_by(Policy::Any, notes.clone());
            Archive::open(Arc::new(store), keys(None)).await.unwrap()
        };
        let notes = || Arc::new(Notes::new(state.path(), |_| ()));
        let names = ["000000020000000000000123", "000000020000000000000124", "000000020000000000000125"];
        several.stores[1].set(Trouble::Unreachable);
        for text in names {
            let notes = notes();
            let archive = open(&notes).await;
            several.push(&archive, text, &thin_segment(text, 1)).await.unwrap();
            assert_eq!(
                catch_up::some(&archive, &notes, Duration::from_secs(9)).await.unwrap(),
                0,
                "it is away"
            );
        }
        assert_eq!(notes().of("m1").await.unwrap().len(), 3);
        several.stores[1].set(Trouble::None);
        let fresh = notes();
        let archive = open(&fresh).await;
        assert_eq!(catch_up::some(&archive, &fresh, Duration::ZERO).await.unwrap(), 0, "no time");
        assert_eq!(catch_up::some(&archive, &fresh, Duration::from_secs(9)).await.unwrap(), 3);
        assert!(fresh.of("m1").await.unwrap().is_empty());
        for text in names {
            let fetched = fetch_from(&catalog(&several.alone(1).await), text).await;
            assert!(fetched.unwrap() == thin_segment(text, 1));
        }
    });
}

#[test]
fn what_differs_or_is_damaged_is_never_copied() {
    run(async {
        let several = Several::new(3).await;
        let archive = several.archive(Policy::Any).await;
        let key = place().wal(&name(SEGMENT));
        several.push(&several.alone(0).await, SEGMENT, &thin_segment(SEGMENT, 1)).await.unwrap();
        let (one, two) = (several.alone(0).await, several.alone(1).await);

        damage(&several.stores[0]);
        refused(two.bring(&one, &key, None).await, Kind::Damaged, "a damaged source");
        assert!(!several.has(1, &key).await);
        several.stores[0].set(Trouble::None);
        assert!(matches!(two.bring(&one, &key, None).await.unwrap(), Brought::New(_)));
        assert_eq!(two.bring(&one, &key, None).await.unwrap(), Brought::There);
        assert_eq!(
            several.stores[0].get(&key, None).await.unwrap().bytes,
            several.stores[1].get(&key, None).await.unwrap().bytes
        );

        // The same content that was sealed twice is no difference, other content is.
        several.stores[1].delete(&key).await.unwrap();
        let same = several.files.path().join(SEGMENT);
        push_path(&pusher(&two, "none"), &same).await.unwrap();
        several.push(&several.alone(2).await, SEGMENT, &segment(SEGMENT, 2)).await.unwrap();
        let notes = Notes::new(Path::new("/nonexistent"), |_| ());
        let done = catch_up::all(&archive, &notes, &Silent).await;
        assert_eq!(done.error.map(|error| error.kind()), Some(Kind::Conflict), "{:?}", done.problems);
        assert_eq!(done.problems.len(), 1, "{:?}", done.problems);
        assert!(done.problems[0].contains("m2"), "{:?}", done.problems);
    });
}

#[test]
fn large_objects_are_copied_in_parts_and_leases_and_orphans_not_at_all() {
    run(async {
        let several = Several::new(2).await;
        let one = several.alone(0).await;
        let id: BackupId = "20260102T030405Z-0000feed".parse().unwrap();
        let pack = |number| place().pack(&PackName { backup: id.clone(), number });
        let large = noise(1, 20 * MIB);
        let put = async |key: String, kind, content: Vec<u8>| {
            one.put(&key, kind, codec("none"), move |sink| sink(&content)).await.unwrap();
        };
        put(pack(0), ObjectKind::Pack, large.clone()).await;
        put(place().lease(&id, "2026-01-02T03:04:05Z".parse().unwrap()), ObjectKind::Lease, vec![1]).await;
        let missing = async || compare(&several.archive(Policy::All).await).await.remove(1).missing.unwrap();
        assert!(missing().await.is_empty(), "no manifest refers to the pack");
        put(place().manifest(&id), ObjectKind::Manifest, vec![1]).await;
        let keys: Vec<_> = missing().await.into_iter().map(|object| object.key).collect();
        assert_eq!(keys, [pack(0), place().manifest(&id)], "the manifest comes last");
        let notes = Notes::new(Path::new("/nonexistent"), |_| ());
        let archive = several.archive(Policy::All).await;
        let done = catch_up::all(&archive, &notes, &Silent).await;
        assert!(done.problems.is_empty() && done.mirrors[1].objects == 2, "{done:?}");
        let copied = several.alone(1).await.read_bytes(&pack(0), ObjectKind::Pack, u64::MAX).await;
        assert!(copied.unwrap() == large);
        assert!(missing().await.is_empty());

        several.stores[1].set(Trouble::Unreachable);
        let done = catch_up::all(&archive, &notes, &Silent).await;
        assert_eq!(done.error.map(|error| error.kind()), Some(Kind::Unreachable));
    });
}
