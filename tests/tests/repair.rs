//! Healing: what is damaged or gone in a real store, or in one of two mirrors, comes back byte for byte from another copy; so does what
//! describes the archive, where the objects prove which archive it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use walarchive_tests::filled::{copy_tree, files_below, fill};
use walarchive_tests::proxy::{Answer, Fault, Proxy, Rule};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Options, Product, Scratch, sample};

type Objects = BTreeMap<String, Vec<u8>>;

const DESCRIPTION: &str = "archive.json";

/// A place that holds an archive.
enum Store {
    Directory(Scratch, PathBuf),
    Bucket(Bucket),
}

impl Store {
    fn url(&self) -> String {
        match self {
            Store::Directory(_, dir) => format!("file://{}", dir.display()),
            Store::Bucket(bucket) => bucket.url(),
        }
    }

    fn objects(&self) -> Objects {
        match self {
            Store::Directory(_, dir) => {
                let key = |path: &PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files_below(dir).iter().map(|path| (key(path), fs::read(path).unwrap())).collect()
            }
            Store::Bucket(bucket) => {
                let raw = bucket.raw();
                raw.list().into_iter().map(|(key, _)| (key.clone(), raw.get(&key).unwrap())).collect()
            }
        }
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        match self {
            Store::Directory(scratch, dir) => {
                let path = dir.join(key);
                fs::write(&path, bytes).unwrap();
                scratch.own(&path);
            }
            Store::Bucket(bucket) => bucket.raw().put(key, bytes),
        }
    }

    fn remove(&self, key: &str) {
        match self {
            Store::Directory(_, dir) => fs::remove_file(dir.join(key)).unwrap(),
            Store::Bucket(bucket) => bucket.raw().delete(key),
        }
    }

    /// Something happens to every object but the description: a third is removed where that can be told, others are cut, or have a bit
    /// flipped. Gives their keys.
    fn suffers(&self) -> Vec<String> {
        let objects = self.objects();
        let segments: Vec<&String> = objects.keys().filter(|key| key.contains("/wal/00000001/")).collect();
        let is_missed = |key: &String| match segments.iter().position(|segment| *segment == key) {
            // What retention removes, from the oldest on, is not missed.
            Some(place) => place > 0 && place + 1 < segments.len() && !key.ends_with(".backup"),
            None => key.contains("/packs/") || key.ends_with(".history"),
        };
        let mut hurt: Vec<String> = objects.keys().filter(|key| *key != DESCRIPTION).cloned().collect();
        for (number, key) in hurt.iter().enumerate() {
            let mut bytes = objects[key].clone();
            match number % 3 {
                0 if is_missed(key) => {
                    self.remove(key);
                    continue;
                }
                1 => bytes.truncate(bytes.len() / 2),
                _ => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
            }
            self.put(key, bytes);
        }
        hurt.sort();
        hurt
    }
}

/// Verification finds what was done to a store, and replaces all of it from another copy.
fn heals(product: &Product, store: &Store, from: &str) {
    let before = store.objects();
    assert_eq!(product.run(&["verify", "--deep"]).code, Some(0), "it is not sound to begin with");
    let hurt = store.suffers();
    assert!(hurt.len() > 15, "{hurt:#?}");
    let found = product.run(&["--json", "verify", "--deep"]);
    assert_eq!(found.code, Some(4), "{found:#?}");
    let healed = product.run(&["--json", "verify", "--deep", "--repair-from", from]);
    assert_eq!(healed.code, Some(0), "{healed:#?}");
    let healed = healed.json();
    let mut repaired: Vec<&str> =
        healed["repaired"].as_array().unwrap().iter().map(|one| one["object"].as_str().unwrap()).collect();
    repaired.sort_unstable();
    assert_eq!(repaired, hurt, "{healed:#}");
    is_as_before(store, &before);
}

fn is_as_before(store: &Store, before: &Objects) {
    let now = store.objects();
    assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (key, bytes) in &now {
        assert!(bytes == &before[key], "{key} is another one than it was");
    }
}

fn with_bucket(product: &Product, bucket: &Bucket) -> Product {
    let mut product = product.clone();
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
    product
}

fn problems(found: &Value) -> Vec<(String, String)> {
    let text = |problem: &Value, name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let problems = found["problems"].as_array().unwrap().iter();
    problems.map(|problem| (text(problem, "object"), text(problem, "archive"))).collect()
}

#[test]
fn a_bucket_is_healed_from_a_directory_and_the_other_way_round() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(bucket) = stores::seaweed(&scratch) else { return };
    if fill(&scratch, &product).is_none() {
        return;
    }
    let product = with_bucket(&product, &bucket);
    product.ok(&["copy", "--to", &bucket.url()]);
    let directory = Store::Directory(scratch, product.archive_dir());
    let offsite = product.but("WALARCHIVE_ARCHIVE", &bucket.url());
    let bucket = Store::Bucket(bucket);
    heals(&offsite, &bucket, &directory.url());
    heals(&product, &directory, &bucket.url());
    is_described_again(&offsite, &bucket, &directory.url());
}

/// A copy that does not hold replaces nothing: what is damaged here may be the better half.
#[test]
fn nothing_is_removed_for_what_does_not_hold_either() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    if fill(&scratch, &product).is_none() {
        return;
    }
    let here = Store::Directory(scratch.clone(), product.archive_dir());
    let copy = scratch.join("copy");
    copy_tree(&product.archive_dir(), &copy);
    scratch.own(&copy);
    let there = Store::Directory(scratch, copy);
    let objects = here.objects();
    let packs: Vec<&String> = objects.keys().filter(|key| key.contains("/packs/")).collect();
    for key in &packs[..2] {
        here.put(key, objects[*key][..objects[*key].len() / 2].to_vec());
    }
    there.put(packs[0], b"nothing".to_vec());
    let run = product.run(&["--json", "verify", "--deep", "--repair-from", &there.url()]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    let found = run.json();
    assert_eq!(found["repaired"].as_array().unwrap().len(), 1, "{found:#}");
    assert!(found["notes"].to_string().contains("was not repaired"), "{found:#}");
    let now = here.objects();
    assert_eq!(now[packs[0]], objects[packs[0]][..objects[packs[0]].len() / 2]);
    assert_eq!(now[packs[1]], objects[packs[1]]);
}

/// Retention may remove what was listed before it is read: that is no loss. What is needed still, is.
#[test]
fn what_is_removed_while_it_is_verified_is_missed_only_where_it_is_needed() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let Some(bucket) = stores::seaweed(&scratch) else { return };
    if fill(&scratch, &product).is_none() {
        return;
    }
    let proxy = Proxy::start(bucket.server().addr().parse().unwrap());
    let product = with_bucket(&product, &bucket.with_endpoint(&proxy.addr().to_string()));
    product.ok(&["copy", "--to", &bucket.url()]);
    let offsite = product.but("WALARCHIVE_ARCHIVE", &bucket.url());
    for (what, code) in [(".backup", 0), ("/packs/", 4)] {
        let keys = bucket.raw().list();
        let key = keys.iter().map(|(key, _)| key).find(|key| key.contains(what)).unwrap().clone();
        let asked = key.clone();
        proxy.set([Rule::always(Fault::Answer(Answer::s3(404, "NoSuchKey", "it is gone")))
            .when(move |request| request.path.ends_with(&asked))]);
        let run = offsite.run(&["--json", "verify", "--deep"]);
        assert!(proxy.applied() > 0, "nobody asked for {key}");
        assert_eq!(run.code, Some(code), "{key}: {run:#?}");
        assert_eq!(run.json()["problems"].to_string().contains(&key), code != 0, "{key}: {run:#?}");
        // What nobody may read is not replaced, though it could be removed.
        let asked = key.clone();
        proxy.set([Rule::always(Fault::Answer(Answer::s3(403, "AccessDenied", "not for you")))
            .method("GET")
            .when(move |request| request.path.ends_with(&asked))]);
        let from = format!("file://{}", product.archive_dir().display());
        proxy.take_log();
        let run = offsite.run(&["--json", "verify", "--deep", "--repair-from", &from]);
        assert_eq!(run.code, Some(5), "{key}: {run:#?}");
        assert!(proxy.take_log().iter().all(|seen| seen.method != "DELETE"), "{key} was removed");
        let found = run.json();
        assert_eq!(
            (&found["problems"][0]["kind"], &found["repaired"][0]),
            (&"unreachable".into(), &Value::Null)
        );
    }
    // A backup that is deleted after it was listed takes its packs with it.
    let all = bucket.raw().list();
    let last = |what: &str| all.iter().map(|(key, _)| key).rfind(|key| key.contains(what)).unwrap().clone();
    bucket.raw().delete(&last("/dumps/packs/"));
    let gone = last("/dumps/packs/").replace("packs", "manifests");
    let manifest = format!("{}/manifest", gone.rsplit_once('/').unwrap().0);
    proxy.set([Rule::always(Fault::Answer(Answer::s3(404, "NoSuchKey", "it is gone")))
        .method("HEAD")
        .when(move |request| request.path.ends_with(&manifest))]);
    let run = offsite.run(&["--json", "verify"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    proxy.set([]);
    assert_eq!(offsite.run(&["verify"]).code, Some(4));
}

/// A directory and a bucket as mirrors, and what both hold besides.
struct Pair {
    product: Product,
    stores: [Store; 2],
    third: String,
}

impl Pair {
    fn new() -> Option<Pair> {
        let scratch = Scratch::new();
        let bucket = stores::seaweed(&scratch)?;
        let dir = scratch.join("primary");
        let archive = format!("file://{} {}", dir.display(), bucket.url());
        let options = Options { init: false, archive: Some(archive), ..Options::default() };
        let mut product = with_bucket(&Product::with(&scratch, options), &bucket);
        product.set("WALARCHIVE_STORE_RETRY_BUDGET", "0s");
        product.ok(&["init"]);
        fill(&scratch, &product)?;
        let copy = scratch.join("third");
        copy_tree(&dir, &copy);
        scratch.own(&copy);
        let third = format!("file://{}", copy.display());
        Some(Pair { product, stores: [Store::Directory(scratch, dir), Store::Bucket(bucket)], third })
    }
}

#[test]
fn a_mirror_is_healed_from_the_other_and_from_a_third_copy() {
    let Some(Pair { product, stores, third }) = Pair::new() else { return };
    for (hurt, sound) in [(0, 1), (1, 0)] {
        let others = stores[sound].objects();
        heals(&product, &stores[hurt], &third);
        heals(&product, &stores[hurt], &stores[sound].url());
        is_as_before(&stores[sound], &others);
        is_described_again(&product, &stores[hurt], &third);
        is_as_before(&stores[sound], &others);
    }
    // Both suffer, each in its way: one run heals both.
    let before = stores[0].objects();
    let packs: Vec<&String> = before.keys().filter(|key| key.contains("/packs/")).collect();
    stores[0].put(packs[0], b"nothing".to_vec());
    stores[1].remove(packs[1]);
    let found = product.run(&["--json", "verify", "--deep"]);
    assert_eq!(found.code, Some(4), "{found:#?}");
    let (one, other) = (stores[0].url(), stores[1].url());
    assert_eq!(problems(&found.json()), [(packs[0].clone(), one), (packs[1].clone(), other)]);
    product.ok(&["verify", "--deep", "--repair-from", &third]);
    stores.iter().for_each(|store| is_as_before(store, &before));
}

#[test]
fn one_mirror_that_is_away_or_not_described_does_not_keep_the_other_from_being_verified() {
    let Some(Pair { product, stores, third: _ }) = Pair::new() else { return };
    let pack = stores[1].objects().into_keys().find(|key| key.contains("/packs/")).unwrap();
    stores[1].put(&pack, b"nothing".to_vec());
    let description = stores[0].objects()[DESCRIPTION].clone();
    stores[0].put(DESCRIPTION, b"{}".to_vec());
    let found = product.run(&["--json", "verify", "--deep"]);
    assert_eq!(found.code, Some(4), "{found:#?}");
    let described = (DESCRIPTION.to_owned(), stores[0].url());
    assert_eq!(problems(&found.json()), [described, (pack.clone(), stores[1].url())]);
    stores[0].put(DESCRIPTION, description);
    let Store::Directory(_, dir) = &stores[0] else { unreachable!() };
    fs::rename(dir, dir.with_extension("away")).unwrap();
    let found = product.run(&["--json", "verify", "--deep"]);
    assert_eq!(found.code, Some(4), "{found:#?}");
    assert_eq!(problems(&found.json()), [(pack, stores[1].url())]);
    assert!(found.json()["broken_off"].as_str().unwrap().contains(&stores[0].url()), "{found:#?}");
}

/// The description comes back when it is cut, flipped, another one or gone.
fn is_described_again(product: &Product, store: &Store, from: &str) {
    let before = store.objects();
    let whole = &before[DESCRIPTION];
    let mut flipped = whole.clone();
    flipped[30] ^= 1;
    let other =
        String::from_utf8(whole.clone()).unwrap().replacen("\"encrypted\":true", "\"encrypted\":false", 1);
    for wrong in [Some(&whole[..20]), Some(&flipped), Some(other.as_bytes()), Some(b""), None] {
        match wrong {
            Some(bytes) => store.put(DESCRIPTION, bytes.to_vec()),
            None => store.remove(DESCRIPTION),
        }
        let run = product.run(&["verify"]);
        assert!(matches!(run.code, Some(4 | 5)), "{wrong:?}: {run:#?}");
        assert!(run.stderr.contains("--repair-from"), "{wrong:?}: {run:#?}");
        let run = product.run(&["--json", "verify", "--repair-from", from]);
        assert_eq!(run.code, Some(0), "{wrong:?}: {run:#?}");
        let repaired = run.json()["repaired"].clone();
        assert_eq!((&repaired[0]["object"], &repaired[1]), (&DESCRIPTION.into(), &Value::Null), "{wrong:?}");
        is_as_before(store, &before);
    }
}

#[test]
fn a_description_is_put_only_beside_objects_of_its_archive() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let mut other = Product::new(&scratch);
    other.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
    if fill(&scratch, &product).is_none() {
        return;
    }
    other.ok(&[
        "wal",
        "push",
        scratch.write("00000002.history", "1\t0/12300028\tno reason\n").to_str().unwrap(),
    ]);
    let copy = format!("file://{}", product.archive_dir().display());
    let there = Store::Directory(scratch.clone(), other.archive_dir());
    for wrong in [Some(b"{}"), None] {
        match wrong {
            Some(bytes) => there.put(DESCRIPTION, bytes.to_vec()),
            None => there.remove(DESCRIPTION),
        }
        let before = there.objects();
        let asking = product.but("WALARCHIVE_ARCHIVE", &there.url());
        let run = asking.run(&["verify", "--repair-from", &copy]);
        assert_eq!(run.code, Some(4), "{run:#?}");
        assert!(run.stderr.contains("proves to be of archive"), "{run:#?}");
        is_as_before(&there, &before);
    }
    // An empty place may be one that is not mounted.
    let empty = Store::Directory(scratch.clone(), scratch.dir("empty"));
    let run = product.but("WALARCHIVE_ARCHIVE", &empty.url()).run(&["verify", "--repair-from", &copy]);
    assert_eq!(run.code, Some(5), "{run:#?}");
    assert!(run.stderr.contains("mounted"), "{run:#?}");
    is_as_before(&empty, &Objects::new());
}
