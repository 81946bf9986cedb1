//! Damaged, incomplete, swapped and malicious archives: found before anything is written, and nothing else is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use walarchive_core::archive::{Archive, BackupId, Keys, ObjectKind, Place};
use walarchive_core::codec::CodecId;
use walarchive_core::storage::LocalStorage;
use walarchive_tests::sample::{self, files_with, tree};
use walarchive_tests::{Cluster, Options, Output, Product, Scratch, StopMode};

/// An archive with two backups and the WAL behind them; the cluster is gone.
struct Backed {
    scratch: Scratch,
    product: Product,
    ids: [String; 2],
}

impl Backed {
    fn new(encrypted: bool) -> Option<Backed> {
        let scratch = Scratch::new();
        let mut product = Product::with(&scratch, Options { encrypted, ..Options::default() });
        let mut cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").start()?;
        cluster.archive_with(&product);
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        product.ok(&["backup", "create"]);
        cluster.psql("create table t as select generate_series(1, 1000) as n");
        product.ok(&["backup", "create"]);
        cluster.archive_now();
        cluster.stop(StopMode::Immediate);
        let list = product.json(&["backup", "list"]);
        let id = |n: usize| list["backups"][n]["id"].as_str().unwrap().to_owned();
        let ids = [id(0), id(1)];
        Some(Backed { scratch, product, ids })
    }

    fn manifest(&self, n: usize) -> PathBuf {
        let found = files_with(&self.product.archive_dir(), &format!("backups/{}/manifest", self.ids[n]));
        found.into_iter().next().expect("a manifest")
    }

    fn target(&self) -> PathBuf {
        self.scratch.join("target")
    }

    fn restore(&self, id: &str) -> Output {
        let target = self.target();
        self.product.run(&["--json", "restore", "--backup", id, "--target-dir", target.to_str().unwrap()])
    }

    /// A restore of this backup is refused with `code` and writes nothing.
    fn refuses(&self, id: &str, code: i32, what: &str) -> Output {
        let before = tree(&self.product.archive_dir());
        let output = self.restore(id);
        assert_eq!(output.code, Some(code), "{what}: {output:?}");
        assert_eq!(output.json()["error"]["code"], code, "{what}: {output:?}");
        assert!(!self.target().exists(), "{what}: something was written");
        assert!(tree(&self.product.archive_dir()) == before, "{what}: the archive was changed");
        output
    }

    fn restores(&self, id: &str) {
        let output = self.restore(id);
        assert_eq!(output.code, Some(0), "{output:?}");
        fs::remove_dir_all(self.target()).unwrap();
    }

    fn show(&self, id: &str) -> Output {
        self.product.run(&["--json", "backup", "show", id])
    }
}

/// Puts `bytes` in the place of a file's content as long as `check` runs.
fn with_content(file: &Path, bytes: &[u8], check: impl FnOnce()) {
    let good = fs::read(file).unwrap();
    fs::write(file, bytes).unwrap();
    check();
    fs::write(file, good).unwrap();
}

fn damaged_manifests(encrypted: bool) {
    let Some(backed) = Backed::new(encrypted) else { return };
    let newest = &backed.ids[1];
    let file = backed.manifest(1);
    let good = fs::read(&file).unwrap();
    let shown = backed.show(newest);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let check = |what: &str| {
        backed.refuses(newest, 4, what);
        let show = backed.show(newest);
        assert_eq!(show.code, Some(4), "{what}: {show:?}");
        // The list reads the beginning alone: it fails, or shows the facts as they were. What is stored is less, if it was cut.
        let list = backed.product.run(&["--json", "backup", "list"]);
        let facts = |mut entry: Value| {
            entry.as_object_mut().unwrap().retain(|key, _| key != "unique_bytes");
            entry
        };
        let same = || facts(list.json()["backups"][1].clone()) == facts(shown.json());
        assert!(list.code == Some(4) || (list.code == Some(0) && same()), "{what}: {list:?}");
    };
    // The head byte by byte at first, then here and there.
    let places =
        (0..600).step_by(43).chain((600..good.len()).step_by(good.len() / 12)).chain([good.len() - 1]);
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 0x01 << (at % 8);
        with_content(&file, &bad, || check(&format!("byte {at} of {} flipped", good.len())));
    }
    for len in [0, 1, 100, 400, good.len() / 2, good.len() - 17, good.len() - 1] {
        with_content(&file, &good[..len], || check(&format!("cut to {len}")));
    }
    let longer = [&good[..], b"more"].concat();
    with_content(&file, &longer, || check("with more behind it"));
    let other = fs::read(backed.manifest(0)).unwrap();
    with_content(&file, &other, || check("another backup's"));
    with_content(&file, b"{\"format\":1}\n", || check("plain text"));
    backed.restores(newest);
}

#[test]
fn no_byte_of_a_sealed_manifest_can_change() {
    damaged_manifests(true);
}

#[test]
fn no_byte_of_a_plain_manifest_can_change() {
    damaged_manifests(false);
}

#[test]
fn a_damaged_backup_does_not_hide_the_others() {
    let Some(backed) = Backed::new(true) else { return };
    for (broken, whole) in [(0, 1), (1, 0)] {
        with_content(&backed.manifest(broken), b"garbage", || {
            backed.restores(&backed.ids[whole]);
            // Any backup before the target leads there; that one was passed over is said.
            let output = backed.restore("latest");
            assert_eq!(output.code, Some(0), "{output:?}");
            assert_eq!(output.json()["backup"], backed.ids[whole]);
            assert!(output.stderr.contains(&backed.ids[broken]), "{output:?}");
            fs::remove_dir_all(backed.target()).unwrap();
        });
    }
    let first = fs::read(backed.manifest(0)).unwrap();
    fs::write(backed.manifest(0), "garbage").unwrap();
    with_content(&backed.manifest(1), b"garbage", || drop(backed.refuses("latest", 4, "all are damaged")));
    fs::write(backed.manifest(0), first).unwrap();
}

#[test]
fn packs_that_are_missing_short_or_changed() {
    let Some(backed) = Backed::new(true) else { return };
    let newest = &backed.ids[1];
    let packs = files_with(&backed.product.archive_dir(), &format!("packs/{newest}/"));
    assert!(packs.len() > 1, "{packs:?}");
    for pack in packs {
        let good = fs::read(&pack).unwrap();
        let away = pack.with_extension("away");
        let name = pack.file_name().unwrap().to_str().unwrap();
        fs::rename(&pack, &away).unwrap();
        let output = backed.refuses(newest, 4, "missing");
        assert!(output.stderr.contains(name) && output.stderr.contains("missing"), "{output:?}");
        fs::rename(&away, &pack).unwrap();
        for len in [0, 10, good.len() / 2, good.len() - 1] {
            with_content(&pack, &good[..len], || drop(backed.refuses(newest, 4, "short")));
        }
        for at in (0..good.len()).step_by(good.len() / 3 + 1).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            with_content(&pack, &bad, || {
                let output = backed.restore(newest);
                assert_eq!(output.code, Some(4), "byte {at} of {name}: {output:?}");
                assert!(!backed.target().join("global/pg_control").exists(), "byte {at} of {name}");
                let _ = fs::remove_dir_all(backed.target());
            });
        }
    }
    backed.restores(newest);
}

#[test]
fn wal_that_is_missing_inside_a_backup() {
    let Some(backed) = Backed::new(true) else { return };
    let shown = backed.show(&backed.ids[0]).json();
    let start: Vec<u32> = shown["start_lsn"]
        .as_str()
        .unwrap()
        .split('/')
        .map(|half| u32::from_str_radix(half, 16).unwrap())
        .collect();
    let segment = sample::segment_name(1, start[1] >> 20);
    let object = files_with(&backed.product.archive_dir(), &segment);
    let object = object.iter().find(|path| path.ends_with(&segment)).unwrap();
    let away = backed.scratch.join("away");
    fs::rename(object, &away).unwrap();
    let output = backed.refuses(&backed.ids[0], 3, "a segment is missing");
    assert!(output.stderr.contains(&segment), "{output:?}");
    fs::rename(&away, object).unwrap();
    backed.restores(&backed.ids[0]);
}

#[test]
fn a_target_that_is_not_empty_is_left_alone() {
    let Some(backed) = Backed::new(true) else { return };
    let target = backed.scratch.dir("target");
    let refuses = |what: &str| {
        let before = tree(&target);
        let output = backed.restore("latest");
        assert_eq!(output.code, Some(3), "{what}: {output:?}");
        assert_eq!(output.json()["error"]["kind"], "unsafe-target");
        assert!(output.stderr.contains("target"), "{output:?}");
        assert_eq!(tree(&target), before, "{what}");
    };
    backed.scratch.write("target/precious", "x");
    refuses("a file");
    fs::remove_file(target.join("precious")).unwrap();
    backed.scratch.write("target/.hidden", "x");
    refuses("a hidden file");
    fs::remove_file(target.join(".hidden")).unwrap();
    backed.scratch.dir("target/lost");
    refuses("an empty directory");
    fs::remove_dir(target.join("lost")).unwrap();
    std::os::unix::fs::symlink("/nowhere", target.join("link")).unwrap();
    refuses("a dangling link");
    fs::remove_file(target.join("link")).unwrap();
    fs::remove_dir(&target).unwrap();
    backed.scratch.write("target", "a file");
    refuses("not a directory");
    fs::remove_file(&target).unwrap();
    let output = backed.restore("20200101T000000Z-00000000");
    assert_eq!(output.code, Some(1), "{output:?}");
    backed.scratch.dir("target");
    backed.restores("latest");
}

/// Rewrites the manifest of a backup as another backup, as somebody could who may write to the archive.
fn forge(backed: &Backed, id: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let storage = LocalStorage::open(backed.product.archive_dir()).unwrap();
    runtime.block_on(async {
        let archive = Archive::open(Arc::new(storage), Keys::default()).await.unwrap();
        let shown = backed.show(&backed.ids[1]).json();
        let system = shown["system_id"].as_str().unwrap().parse().unwrap();
        let place = Place::of_system("main".parse().unwrap(), system);
        let of = |id: &str| place.manifest(&id.parse::<BackupId>().unwrap());
        let (text, _) =
            archive.read(&of(&backed.ids[1]), ObjectKind::Manifest, u64::MAX, Vec::new()).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.pop();
        lines[0]["id"] = json!(id);
        change(&mut lines);
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let digest = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&format!(
            "{}\n",
            json!({ "end": true, "lines": lines.len(), "digest": digest.as_str() })
        ));
        let content = move |sink: walarchive_core::codec::PlainSink<'_>| sink(text.as_bytes());
        archive.put(&of(id), ObjectKind::Manifest, CodecId::Zstd.reader(), content).await.unwrap();
    });
    backed.scratch.own(&backed.product.archive_dir());
}

#[test]
fn a_malicious_manifest_does_not_leave_the_target() {
    let Some(backed) = Backed::new(false) else { return };
    let canary = backed.scratch.write("canary", "alive");
    let id = "20990101T000000Z-00000001";
    let file = |path: &str| json!({ "file": path, "mode": 0o600, "mtime": "2026-01-01T00:00:00Z", "size": 0, "crc32c": "00000000", "extents": [] });
    let dir = |path: &str| json!({ "dir": path, "mode": 0o700 });
    // What is done to it is not what makes it fail: as it is, it restores.
    forge(&backed, id, |lines| lines.push(file("base/harmless")));
    backed.restores(id);
    let remove = || fs::remove_file(files_with(&backed.product.archive_dir(), id).pop().unwrap()).unwrap();
    remove();
    let absolute = canary.to_str().unwrap();
    let hex = |path: &str| path.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut evil = vec![
        ("hex", json!({ "dir_hex": hex("../evil"), "mode": 0o700 })),
        ("bad hex", json!({ "dir_hex": "2", "mode": 0o700 })),
        ("signed hex", json!({ "dir_hex": "+a", "mode": 0o700 })),
        ("zero byte", json!({ "dir_hex": "6100", "mode": 0o700 })),
        ("no name", json!({ "mode": 0o700 })),
        ("twice", file("global/pg_control")),
        ("twice as file and directory", file("base")),
        (
            "a pack out of order",
            json!({ "pack": 0, "key": "x", "stored": 1, "index_at": 0, "index_len": 0, "plain": 0, "digest": "" }),
        ),
        ("a second end", json!({ "end": true, "lines": 1, "digest": "" })),
        ("no object", json!([1, 2])),
    ];
    let mut extents = file("base/x");
    extents["size"] = json!(8192);
    extents["extents"] = json!([[0, 1, 4_000_000, 0, 0]]);
    evil.push(("an unknown pack", extents.clone()));
    extents["extents"] = json!([[4_294_967_295u32, 4_294_967_295u32, 0, 0, 0]]);
    evil.push(("a page beyond the file", extents));
    for path in
        ["../canary", "../evil", absolute, "base/../../canary", "./canary", "base//x", "base/", "", ".."]
    {
        evil.push(("an unsafe file", file(path)));
        evil.push(("an unsafe directory", dir(path)));
    }
    let before = tree(backed.scratch.path()).into_keys().collect::<Vec<_>>();
    for (what, line) in evil {
        let what = format!("{what}: {line}");
        forge(&backed, id, |lines| lines.push(line));
        backed.refuses(id, 4, &what);
        remove();
        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive", "{what}");
    }
    let after = tree(backed.scratch.path()).into_keys().collect::<Vec<_>>();
    assert!(after == before, "something was left somewhere");
}

/// Names of files that the restore makes by itself.
#[test]
fn a_malicious_manifest_does_not_change_what_a_restore_means() {
    let Some(backed) = Backed::new(false) else { return };
    let id = "20990101T000000Z-00000001";
    let remove = || fs::remove_file(files_with(&backed.product.archive_dir(), id).pop().unwrap()).unwrap();
    let file = |path: &str| json!({ "file": path, "mode": 0o600, "mtime": "2026-01-01T00:00:00Z", "size": 0, "crc32c": "00000000", "extents": [] });
    for path in ["walarchive.restoring", "recovery.signal", "standby.signal", "backup_manifest"] {
        forge(&backed, id, |lines| lines.push(file(path)));
        let output = backed.refuses(id, 4, path);
        assert!(output.stderr.contains(path), "{output:?}");
        remove();
    }
    // What lies below a file, or in no directory, fails on the way, and what is there is no cluster.
    for path in ["PG_VERSION/x", "no/such/dir/x"] {
        forge(&backed, id, |lines| lines.push(file(path)));
        let output = backed.restore(id);
        assert!(matches!(output.code, Some(4 | 6)), "{path}: {output:?}");
        assert!(!backed.target().join("global/pg_control").exists(), "{path}");
        fs::remove_dir_all(backed.target()).unwrap();
        remove();
    }
}
