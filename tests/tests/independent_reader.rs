//! FORMAT.md is enough: a reader that was written from it alone, and shares no code with the product, brings
//! back what the product stored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use walarchive_tests::{Cluster, Options, Output, Product, Scratch, python, wait_until};

/// What the reader answers for what it refuses, and for what is proven absent.
const REFUSED: Option<i32> = Some(204);
const ABSENT: Option<i32> = Some(1);

/// Written by whoever restores, not by the backup.
const OF_THE_RESTORE: [&str; 5] =
    ["backup_manifest", "postgresql.auto.conf", "recovery.signal", "standby.signal", "tablespace_map"];

/// The reader, copied to where the unprivileged user can reach it.
struct Reader {
    scratch: Scratch,
    python: PathBuf,
    dir: PathBuf,
}

impl Reader {
    fn new(scratch: &Scratch) -> Option<Reader> {
        let python = python()?;
        let dir = scratch.dir("reader");
        copy_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("reader"), &dir);
        let library = python.parent()?.parent()?.join("lib");
        let version = fs::read_dir(library).unwrap().next().unwrap().unwrap().path();
        for package in ["pyrage", "zstandard"] {
            copy_files(&version.join("site-packages").join(package), &dir.join(package));
        }
        scratch.own(&dir);
        // The environment's own program may be out of reach; the one that it leads to is not.
        Some(Reader { scratch: scratch.clone(), python: python.canonicalize().unwrap(), dir })
    }

    fn run(&self, script: &str, args: &[&str]) -> Output {
        let mut command = self.scratch.command(&self.python);
        command.arg(self.dir.join(script)).args(args);
        Output::of(&command.output().unwrap())
    }
}

/// Copies a directory without the cached bytecode in it.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            if entry.file_name() != "__pycache__" {
                copy_files(&entry.path(), &target);
            }
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The reader with the arguments that name one cluster of one archive.
struct Reading {
    reader: Reader,
    archive: PathBuf,
    identity: Option<String>,
    system_id: String,
}

impl Reading {
    fn command(&self, command: &str, args: &[&str]) -> Vec<String> {
        let mut all = vec![command.to_owned(), self.archive.display().to_string()];
        all.extend(self.identity.iter().flat_map(|file| ["--identity".to_owned(), file.clone()]));
        all.extend(["main", &self.system_id].map(str::to_owned));
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all
    }

    fn run(&self, command: &str, args: &[&str]) -> Output {
        let args = self.command(command, args);
        self.reader.run("reader.py", &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn ok(&self, command: &str, args: &[&str]) -> Output {
        let output = self.run(command, args);
        assert_eq!(output.code, Some(0), "{command} {args:?}: {output:#?}");
        output
    }

    /// The bytes of a WAL file.
    fn wal(&self, name: &str) -> Vec<u8> {
        let dest = self.reader.scratch.join(format!("read-{name}"));
        self.ok("wal", &[name, dest.to_str().unwrap()]);
        fs::read(dest).unwrap()
    }

    fn restore_command(&self) -> String {
        let script = self.reader.dir.join("reader.py").display().to_string();
        let words = [self.reader.python.display().to_string(), script];
        [&words[..], &self.command("wal", &["%f", "%p"])].concat().join(" ")
    }
}

/// A cluster with a tablespace and oddities, and a product with an archive for it.
struct Scene {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
    tablespace: PathBuf,
    reading: Reading,
}

fn scene(encrypted: bool, codec: &str) -> Option<Scene> {
    let scratch = Scratch::new();
    let reader = Reader::new(&scratch)?;
    let cluster = Cluster::builder(&scratch).wal_segment_mib(1).start()?;
    let mut product = Product::with(&scratch, Options { encrypted, ..Options::default() });
    product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
    product.set("PGDATA", cluster.data_dir().to_str().unwrap());
    product.set("WALARCHIVE_BACKUP_CODEC", codec);
    product.set("WALARCHIVE_WAL_CODEC", codec);
    cluster.archive_with(&product);
    let tablespace = scratch.dir("space");
    cluster.psql(&format!("create tablespace space location '{}'", tablespace.display()));
    cluster.psql(
        "create table t as select n, md5(n::text) from generate_series(1, 20000) as n;
         create table in_space (n) tablespace space as select generate_series(1, 1000)",
    );
    oddities(&scratch, cluster.data_dir());
    let system_id = cluster.psql("select system_identifier from pg_control_system()");
    let identity = encrypted.then(|| product.identity_file().display().to_string());
    let reading = Reading { reader, archive: product.archive_dir(), identity, system_id };
    Some(Scene { scratch, cluster, product, tablespace, reading })
}

/// An empty directory, modes, a file that is mostly a hole, lengths around a page, a name that is not UTF-8.
fn oddities(scratch: &Scratch, data_dir: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let odd = data_dir.join("odd");
    fs::create_dir_all(odd.join("empty/inner")).unwrap();
    let holes = File::create(odd.join("holes")).unwrap();
    holes.write_all_at(b"in the middle", 3_000_000).unwrap();
    holes.set_len(5_000_001).unwrap();
    for length in [0, 1, 8191, 8192, 8193] {
        fs::write(odd.join(format!("file{length}")), vec![b'x'; length]).unwrap();
    }
    fs::write(odd.join(std::ffi::OsStr::from_bytes(b"\xffname")), b"not UTF-8").unwrap();
    fs::set_permissions(odd.join("file1"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(odd.join("empty"), fs::Permissions::from_mode(0o750)).unwrap();
    scratch.own(&odd);
}

/// Everything below a directory: mode, and content of files. Links are followed.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let meta = fs::metadata(&path).unwrap();
            let content = meta.is_file().then(|| fs::read(&path).unwrap());
            if meta.is_dir() {
                open.push(path.clone());
            }
            let name = path.strip_prefix(root).unwrap().to_owned();
            if !OF_THE_RESTORE.iter().any(|left| name == Path::new(left)) {
                found.insert(name, (meta.permissions().mode() & 0o7777, content));
            }
        }
    }
    found
}

fn assert_same(read: &Path, restored: &Path) {
    let (read, restored) = (tree(read), tree(restored));
    let names = |tree: &BTreeMap<PathBuf, _>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&read), names(&restored));
    for (name, entry) in &read {
        let other = &restored[name];
        assert_eq!(format!("{:o}", entry.0), format!("{:o}", other.0), "mode of {}", name.display());
        assert!(entry.1 == other.1, "{} differs", name.display());
    }
    for wanted in ["global/pg_control", "backup_label", "odd/empty/inner", "odd/holes"] {
        assert!(read.contains_key(Path::new(wanted)), "{wanted} was not compared");
    }
    assert!(read.keys().any(|name| name.starts_with("pg_tblspc") && name.components().count() > 3));
}

/// Puts the tablespaces, which the reader leaves as directories, where a server can have them.
fn place_tablespaces(scratch: &Scratch, data_dir: &Path) {
    for entry in fs::read_dir(data_dir.join("pg_tblspc")).unwrap().map(Result::unwrap) {
        let place = scratch.join(format!("placed-{}", entry.file_name().display()));
        fs::rename(entry.path(), &place).unwrap();
        symlink(&place, entry.path()).unwrap();
    }
    // It names the places of the server that was backed up.
    fs::remove_file(data_dir.join("tablespace_map")).unwrap();
}

fn start_from(scene: &Scene, data_dir: PathBuf) -> Cluster {
    place_tablespaces(&scene.scratch, &data_dir);
    fs::write(data_dir.join("recovery.signal"), "").unwrap();
    scene.scratch.own(&data_dir);
    let builder = Cluster::adopt(&scene.scratch).option("archive_mode", "off");
    let builder = builder.option("restore_command", &scene.reading.restore_command());
    let mut cluster = builder.existing(data_dir).unwrap();
    cluster.start();
    wait_until("recovery ends", Duration::from_secs(120), || {
        cluster.psql("select pg_is_in_recovery()") == "f"
    });
    cluster
}

/// The objects below a directory of the archive.
fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Runs `read` while one byte of an object, `back` bytes before its end, is flipped.
fn flipped(object: &Path, back: u64, read: impl FnOnce() -> Output) -> Output {
    let file = File::options().read(true).write(true).open(object).unwrap();
    let at = file.metadata().unwrap().len() - back;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let output = read();
    file.write_all_at(&byte, at).unwrap();
    output
}

fn wal_is_read(scene: &Scene) {
    let segment = scene.cluster.switch_wal();
    let original = fs::read(scene.cluster.data_dir().join("pg_wal").join(&segment)).unwrap();
    scene.cluster.wait_archived(&segment, Duration::from_secs(60));
    let fetched = scene.scratch.join("fetched");
    scene.product.ok(&["wal", "fetch", &segment, fetched.to_str().unwrap()]);
    let read = scene.reading.wal(&segment);
    assert!(read == original && read == fs::read(fetched).unwrap(), "{segment} differs");

    let dest = scene.scratch.join("never");
    let dest = dest.to_str().unwrap();
    assert_eq!(scene.reading.run("wal", &["0000000F000000000000000F", dest]).code, ABSENT);
    let wal = scene.reading.archive.join("main").join(&scene.reading.system_id).join("wal");
    let stored = objects(&wal).into_iter().find(|path| path.ends_with(&segment)).unwrap();
    let output = flipped(&stored, 1000, || scene.reading.run("wal", &[&segment, dest]));
    assert_eq!(output.code, REFUSED, "{output:#?}");
    // The same object under another name.
    let name = "0000000F000000000000000F";
    fs::create_dir_all(wal.join("0000000F/00000000")).unwrap();
    fs::copy(&stored, wal.join("0000000F/00000000").join(name)).unwrap();
    scene.scratch.own(&wal);
    let output = scene.reading.run("wal", &[name, dest]);
    fs::remove_dir_all(wal.join("0000000F")).unwrap();
    assert!(output.code == REFUSED && output.stderr.contains("key is"), "{output:#?}");
    assert!(!Path::new(dest).exists());
}

fn damage_is_refused(scene: &Scene, backup: &str) {
    let root = scene.reading.archive.join("main").join(&scene.reading.system_id);
    let packs = objects(&root.join("packs").join(backup));
    let pack = packs.into_iter().max_by_key(|path| path.metadata().unwrap().len());
    let (pack, manifest) = (pack.unwrap(), root.join("backups").join(backup).join("manifest"));
    let middle = pack.metadata().unwrap().len() / 2;
    for (number, (object, back)) in [(&pack, 1), (&pack, middle), (&manifest, 20)].into_iter().enumerate() {
        let dest = scene.scratch.join(format!("refused{number}"));
        let read = || scene.reading.run("backup", &[backup, dest.to_str().unwrap()]);
        let output = flipped(object, back, read);
        assert_eq!(output.code, REFUSED, "{} byte -{back}: {output:#?}", object.display());
    }
}

fn round(encrypted: bool, codec: &str) {
    let Some(scene) = scene(encrypted, codec) else { return };
    wal_is_read(&scene);
    let Scene { scratch, cluster, product, reading, .. } = &scene;
    let full = product.json(&["backup", "create"])["id"].as_str().unwrap().to_owned();
    cluster.psql("update t set md5 = 'changed' where n % 1000 = 0; create table later as select 1 as n");
    let last = product.json(&["backup", "create"]);
    let id = last["id"].as_str().unwrap();
    eprintln!("{codec}, encrypted: {encrypted}; the second backup is {}", last["kind"]);
    cluster.psql("insert into t select n, 'after' from generate_series(20001, 20010) as n");
    cluster.archive_now();

    let listed = reading.ok("list", &[]).json();
    let ids: Vec<&str> =
        listed["backups"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&full, id]);

    for backup in [&full, id] {
        let (read, restored) =
            (scratch.join(format!("read-{backup}")), scratch.join(format!("own-{backup}")));
        let asked = if backup == id { "latest" } else { backup };
        reading.ok("backup", &[asked, read.to_str().unwrap()]);
        let space =
            format!("{}={}", scene.tablespace.display(), scratch.join(format!("ts-{backup}")).display());
        let dir = restored.to_str().unwrap();
        product.ok(&["restore", "--target-dir", dir, "--backup", backup, "--tablespace", &space]);
        assert_same(&read, &restored);
    }

    let restored = start_from(&scene, scratch.join(format!("read-{id}")));
    let rows = "select count(*), count(*) filter (where md5 = 'changed'), sum(n) from t";
    assert_eq!(restored.psql(rows), cluster.psql(rows));
    assert_eq!(restored.psql("select count(*) from in_space, later"), "1000");
    damage_is_refused(&scene, id);
}

/// Dumps of two nights, in one stream and in several, as the product exports them.
#[test]
fn reads_dumps() {
    for encrypted in [true, false] {
        let Some(Scene { scratch, cluster, mut product, reading, .. }) = scene(encrypted, "zstd:1") else {
            return;
        };
        product.set("WALARCHIVE_DUMP_PARALLEL_FROM", "1");
        for args in
            [&["--jobs", "1"][..], &["--jobs", "1"], &["--format", "plain"], &["--jobs", "2"], &["--as-file"]]
        {
            cluster.psql("update t set md5 = md5(md5) where n % 500 = 3");
            let run = product.json(&[&["dump", "create"], args].concat());
            for dump in run["dumps"].as_array().unwrap() {
                let id = dump["id"].as_str().unwrap();
                let (read, own) = (scratch.join(format!("read-{id}")), scratch.join(format!("own-{id}")));
                product.ok(&["dump", "export", id, "-o", own.to_str().unwrap()]);
                let mut args = vec!["dump".to_owned(), reading.archive.display().to_string()];
                args.extend(reading.identity.iter().flat_map(|file| ["--identity".to_owned(), file.clone()]));
                args.extend(["main", id, read.to_str().unwrap()].map(str::to_owned));
                let output =
                    reading.reader.run("reader.py", &args.iter().map(String::as_str).collect::<Vec<_>>());
                assert_eq!(output.code, Some(0), "{dump}: {output:#?}");
                if own.is_dir() {
                    assert!(tree(&read).keys().eq(tree(&own).keys()) && tree(&own).len() > 2);
                    assert!(tree(&read).values().zip(tree(&own).values()).all(|(read, own)| read.1 == own.1));
                } else {
                    assert!(fs::read(&read).unwrap() == fs::read(&own).unwrap(), "{dump}");
                }
            }
        }
    }
}

#[test]
fn the_readers_own_parts_are_right() {
    let scratch = Scratch::new();
    let Some(reader) = Reader::new(&scratch) else { return };
    let output = reader.run("selftest.py", &[]);
    assert!(output.code == Some(0) && output.stderr.contains("\nRan "), "{}", output.stderr);
}

#[test]
fn reads_encrypted_zstd() {
    round(true, "zstd:1");
}

#[test]
fn reads_plain_gzip() {
    round(false, "gzip:6");
}

#[test]
fn reads_plain_zstd_and_encrypted_none() {
    round(false, "zstd:3");
    round(true, "none");
}

#[test]
fn reads_encrypted_xz() {
    round(true, "xz:0");
}
