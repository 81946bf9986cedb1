//! Wrong files, wrong keys, wrong settings: refused with the right code, in words that help, and without a trace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use walarchive_tests::sample::{self, Seen, files_with, segment, segment_name, tree};
use walarchive_tests::{Background, Cluster, Options, Output, Product, Scratch};

fn fixture() -> (Scratch, Product) {
    let scratch = Scratch::new();
    let product = quick(Product::new(&scratch));
    (scratch, product)
}

/// Does not wait for what is unreachable, and knows the made-up cluster.
fn quick(mut product: Product) -> Product {
    product.set("WALARCHIVE_RETRY_BUDGET", "0s");
    product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
    product
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a program that must fail with `code`, say all `words`, print the error document, and leave the archive as it is.
fn refused(product: &Product, args: &[&str], code: i32, words: &[&str]) -> Value {
    let before = files(&product.archive_dir());
    let output = product.run(&[&["--json"], args].concat());
    assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
    let error = output.json()["error"].clone();
    let message = error["message"].as_str().unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(error["code"], code, "{output:?}");
    assert!(error["kind"].is_string() && error.get("object").is_some(), "{output:?}");
    for word in words {
        assert!(message.contains(word), "{args:?}: {message:?} says nothing of {word:?}");
        assert!(output.stderr.contains(word), "{args:?}: {:?} says nothing of {word:?}", output.stderr);
    }
    assert!(!output.stderr.contains("panic") && !output.stderr.contains("AGE-SECRET"), "{output:?}");
    assert_eq!(files(&product.archive_dir()), before, "{args:?} changed the archive");
    error
}

/// The files below a directory; directories may be made by a refused push, files not.
fn files(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    tree(dir).into_iter().filter(|(path, _)| path.is_file()).collect()
}

/// A file's name, its content, and what the refusal must say.
type Case = (String, Vec<u8>, &'static [&'static str]);

#[test]
fn files_that_are_not_what_their_names_say() {
    let (scratch, product) = fixture();
    let name = segment_name(1, 3);
    let good = segment(1, 3, 1);
    let zeroed_page = [vec![0; 8192], good[8192..].to_vec()].concat();
    let of_timeline_5 = segment(5, 3, 1);
    let other_address = segment(1, 4, 1);
    let long = [good.clone(), vec![0; 8192]].concat();
    let history = |text: &[u8]| -> Case { ("00000003.history".to_owned(), text.to_vec(), &[]) };
    let backup = format!("{name}.00000028.backup");
    let cases: Vec<Case> = vec![
        (name.clone(), good[..good.len() / 2].to_vec(), &["524288", "1048576"]),
        (name.clone(), good[..good.len() - 1].to_vec(), &["1048575"]),
        (name.clone(), good[..20].to_vec(), &["20"]),
        (name.clone(), Vec::new(), &[]),
        (name.clone(), vec![0; good.len()], &["zeros"]),
        (name.clone(), zeroed_page, &["zeros"]),
        (name.clone(), long, &["1056768"]),
        (name.clone(), other_address, &["000000010000000000000004"]),
        (name.clone(), of_timeline_5, &["timeline 5"]),
        (name.clone(), b"#!/bin/sh\n".repeat(2000), &[]),
        history(b"garbage"),
        history(b""),
        history(b"1\t0/x\treason\n"),
        history(b"2\t0/300000\tno\n1\t0/400000\tno\n"),
        history(b"7\t0/300000\tlater than itself\n"),
        history(&[0xff; 100]),
        (backup.clone(), b"garbage".to_vec(), &["START WAL LOCATION"]),
        (backup, Vec::new(), &["START WAL LOCATION"]),
    ];
    for (name, bytes, words) in cases {
        let file = scratch.write(&name, bytes);
        let error = refused(&product, &["wal", "push", path(&file)], 4, words);
        assert_eq!(error["kind"], "damaged");
        assert!(error["message"].as_str().unwrap().contains(&name), "{error}");
    }
    assert!(files_with(&product.archive_dir(), "/wal/").is_empty());
}

#[test]
fn things_that_are_no_wal_files() {
    let (scratch, product) = fixture();
    let name = segment_name(1, 3);
    let plain = scratch.write("notes.txt", "x");
    refused(&product, &["wal", "push", path(&plain)], 2, &["notes.txt"]);
    refused(&product, &["wal", "push", path(&scratch.join(&name))], 6, &[&name]);
    let dir = scratch.dir(&name);
    refused(&product, &["wal", "push", path(&dir)], 2, &[&name, "not a file"]);
    fs::remove_dir(dir).unwrap();
    // Nobody ever writes to it: waiting would last for ever.
    let made = scratch.command("mkfifo").arg(scratch.join(&name)).status().unwrap();
    assert!(made.success());
    refused(&product, &["wal", "push", path(&scratch.join(&name))], 2, &[&name, "not a file"]);
    fs::remove_file(scratch.join(&name)).unwrap();
    let locked = scratch.write(&name, segment(1, 3, 1));
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    refused(&product, &["wal", "push", path(&locked)], 6, &[&name]);
    for name in ["00000001000000000000000", "000000010000000000000003.gz", "00000000.history", "../x", ""] {
        let before = sample::names(scratch.path());
        let output = product.run(&["wal", "fetch", name, "dest"]);
        assert_eq!(output.code, Some(202), "{name:?}: {output:?}");
        assert_eq!(sample::names(scratch.path()), before);
    }
}

#[test]
fn another_cluster_is_told_apart() {
    let (scratch, mut product) = fixture();
    product.unset("WALARCHIVE_SYSTEM_ID");
    let cluster = || Cluster::builder(&scratch).wal_segment_mib(1).create();
    let (Some(mine), Some(other)) = (cluster(), cluster()) else { return };
    let segments = |cluster: &Cluster| sample::names(&cluster.data_dir().join("pg_wal"));
    let name = segments(&mine).into_iter().find(|name| name.len() == 24 && segments(&other).contains(name));
    let name = name.expect("a segment that both have").clone();
    let name = name.as_str();
    // As if the servers had completed it.
    for cluster in [&mine, &other] {
        fs::write(cluster.data_dir().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    let (own, foreign) =
        (mine.data_dir().join("pg_wal").join(name), other.data_dir().join("pg_wal").join(name));
    // A segment of the other one, in our own pg_wal.
    let good = fs::read(&own).unwrap();
    fs::copy(&foreign, &own).unwrap();
    let error =
        refused(&product, &["wal", "push", path(&own)], 3, &["system identifier", "nothing was stored"]);
    assert_eq!(error["kind"], "wrong-cluster");
    // As archive_command calls it.
    let mut command = product.command_of("walarchive-push", &[&format!("pg_wal/{name}")]);
    let output = Output::of(&command.current_dir(mine.data_dir()).output().unwrap());
    assert_eq!(output.code, Some(3), "{output:?}");
    fs::write(&own, good).unwrap();
    // PGDATA says which one is ours.
    let ours = product.but("PGDATA", path(mine.data_dir()));
    refused(&ours, &["wal", "push", path(&foreign)], 3, &["system identifier"]);
    assert!(files_with(&product.archive_dir(), "/wal/").is_empty());
    product.ok(&["wal", "push", path(&own)]);
    // Two clusters under one name do not mix, and are asked about.
    product.ok(&["wal", "push", path(&foreign)]);
    let which = product.run(&["wal", "list"]);
    assert_eq!(which.code, Some(2), "{which:?}");
    assert!(which.stderr.contains("--system-id"), "{which:?}");
    for (from, original) in [(&mine, &own), (&other, &foreign)] {
        let system = from.tool("pg_controldata", &[path(from.data_dir())]);
        let system =
            system.lines().find_map(|line| line.strip_prefix("Database system identifier:")).unwrap();
        let dest = scratch.join("dest");
        product.ok(&["--system-id", system.trim(), "wal", "fetch", name, path(&dest)]);
        assert!(fs::read(dest).unwrap() == fs::read(original).unwrap());
    }
}

#[test]
fn keys_that_do_not_open() {
    let (scratch, product) = fixture();
    let name = segment_name(1, 3);
    let file = scratch.write(&name, segment(1, 3, 1));
    product.ok(&["wal", "push", path(&file)]);
    let dest = scratch.join("dest");
    let fetch = ["wal", "fetch", name.as_str(), path(&dest)];
    let key_refused = |product: &Product, code: i32, words: &[&str]| {
        let error = refused(product, &fetch, code, words);
        assert_eq!(error["kind"], "key", "{error}");
        assert!(!dest.exists());
    };
    let identity = fs::read_to_string(product.identity_file()).unwrap();
    let other = scratch.join("other");
    product.ok(&["key", "generate", "-o", path(&other)]);
    let with = |file: &Path| product.but("WALARCHIVE_IDENTITY_FILE", path(file));
    key_refused(&with(&other), 204, &["identit"]);
    let mut none = product.clone();
    none.unset("WALARCHIVE_IDENTITY_FILE");
    key_refused(&none, 204, &["identity"]);
    key_refused(&with(&scratch.join("nowhere")), 204, &["nowhere", "no such file"]);
    let open = scratch.write("open", &identity);
    for mode in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        key_refused(&with(&open), 204, &["chmod 600", path(&open)]);
        refused(&product, &["key", "show", path(&open)], 4, &["chmod 600"]);
    }
    for (name, text) in [
        ("empty", String::new()),
        ("short", identity.lines().last().unwrap()[..40].to_owned()),
        ("recipient", "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg\n".to_owned()),
        ("lower", identity.to_lowercase()),
    ] {
        let file = scratch.write(name, text);
        let output = with(&file).run(&fetch);
        assert!(output.code == Some(204) || output.code == Some(0), "{name}: {output:?}");
        assert_eq!(output.code == Some(0), dest.exists(), "{name}");
        let _ = fs::remove_file(&dest);
    }
    key_refused(&with(&scratch.dir("dir")), 204, &["directory"]);
    let link = scratch.join("link");
    symlink(product.identity_file(), &link).unwrap();
    for text in
        [identity.replace('\n', "\r\n"), identity.trim_end().to_owned(), format!("\n\n{identity}\n\n")]
    {
        with(&scratch.write("variant", text)).ok(&fetch);
        with(&link).ok(&fetch);
        fs::remove_file(&dest).unwrap();
    }
    // Who writes needs no identity at all.
    let again = none.run(&["wal", "push", path(&file)]);
    assert_eq!(again.code, Some(0), "{again:?}");
    none.unset("WALARCHIVE_RECIPIENTS");
    let error = refused(&none, &["wal", "push", path(&file)], 2, &["recipient"]);
    assert_eq!(error["kind"], "usage");
}

#[test]
fn a_key_is_never_overwritten() {
    let (scratch, product) = fixture();
    let before = (fs::read(product.identity_file()).unwrap(), tree(&product.identity_file()));
    let error = refused(&product, &["key", "generate", "-o", path(&product.identity_file())], 3, &["exists"]);
    assert_eq!(error["kind"], "conflict");
    assert_eq!((fs::read(product.identity_file()).unwrap(), tree(&product.identity_file())), before);
    let link = scratch.join("link");
    symlink(scratch.join("nowhere"), &link).unwrap();
    refused(&product, &["key", "generate", "-o", path(&link)], 3, &["exists"]);
    assert!(!scratch.join("nowhere").exists());
    refused(&product, &["key", "generate", "-o", path(&scratch.join("no/dir"))], 6, &["no/dir"]);
    let made = product.ok(&["key", "generate", "-o", path(&scratch.join("new"))]);
    assert!(made.starts_with("age1"), "{made}");
    assert_eq!(fs::metadata(scratch.join("new")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn settings_that_cannot_be_meant() {
    let (scratch, product) = fixture();
    let list = ["wal", "list"];
    refused(&product.but("WALARCHIVE_ARCHVE", "x"), &list, 2, &["WALARCHIVE_ARCHVE", "WALARCHIVE_ARCHIVE"]);
    refused(&product.but("WALARCHIVE_CLUSTER", "../x"), &list, 2, &["../x"]);
    refused(&product.but("WALARCHIVE_SYSTEM_ID", "12x"), &list, 2, &["12x"]);
    for url in ["ftp://user:geheim@host/x", "file:relative", "archive", "file:///a%zz"] {
        let error = refused(&product.but("WALARCHIVE_ARCHIVE", url), &list, 2, &["file://"]);
        assert!(!error.to_string().contains("geheim"), "{error}");
        assert_eq!(error["kind"], "usage");
    }
    let mut nothing = product.clone();
    nothing.unset("WALARCHIVE_ARCHIVE");
    refused(&nothing, &list, 2, &["WALARCHIVE_ARCHIVE"]);
    for (text, words) in [
        ("archiv = 'x'", &["archiv", "archive"][..]),
        ("[wal]\nkodec = 'x'", &["wal.kodec", "wal.codec"]),
        ("archive = [1]", &["archive"]),
        ("archive = ", &["config.toml"]),
        ("cluster = 'a'\ncluster = 'b'", &["config.toml", "line 2"]),
        ("[encryption]\nidentity = 'AGE-SECRET-KEY-1'", &["encryption.identity_file"]),
    ] {
        let file = scratch.write("config.toml", text);
        refused(&product, &[&["--config", path(&file)], &list[..]].concat(), 2, words);
    }
    refused(&product, &["--config", "/nowhere.toml", "wal", "list"], 2, &["/nowhere.toml"]);
    for args in
        [&["wal", "list", "--whatever"][..], &["wal", "lst"], &["restore"], &["backup", "show", "../x"]]
    {
        let output = product.run(&[args, &["--json"]].concat());
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
        assert_eq!(output.json()["error"]["code"], 2);
        assert_eq!(output.json()["error"]["kind"], "usage");
    }
    let output =
        product.but("WALARCHIVE_WAL_CODEC", "zstd:99").run(&["wal", "push", "000000010000000000000003"]);
    assert_eq!(output.code, Some(2), "{output:?}");
    let output =
        product.but("WALARCHIVE_RETRY_BUDGET", "soon").run(&["wal", "push", "000000010000000000000003"]);
    assert_eq!(output.code, Some(2), "{output:?}");
}

#[test]
fn an_archive_stays_what_it_was_made() {
    let scratch = Scratch::new();
    let encrypted = Product::new(&scratch);
    refused(&encrypted, &["init", "--no-encryption"], 3, &["encrypted", "another place"]);
    let plain = Product::with(&scratch, Options { encrypted: false, ..Options::default() });
    let recipient =
        encrypted.env().iter().find(|(name, _)| name == "WALARCHIVE_RECIPIENTS").unwrap().1.clone();
    refused(&plain, &["init", "--recipient", &recipient], 3, &["not encrypted"]);
    let key = scratch.join("new-key");
    refused(&plain, &["init", "--generate-identity", path(&key)], 3, &["not encrypted"]);
    assert!(!key.exists(), "a key was made for an archive that has none");
    let before = tree(&encrypted.archive_dir());
    assert_eq!(encrypted.json(&["init"])["created"], false);
    assert_eq!(files(&encrypted.archive_dir()).len(), 1);
    assert!(tree(&encrypted.archive_dir()).keys().eq(before.keys()));
    // A secret where a public key belongs is not repeated.
    let secret = fs::read_to_string(encrypted.identity_file()).unwrap();
    let secret = secret.lines().last().unwrap();
    let output = encrypted.run(&["init", "--recipient", secret]);
    assert_eq!(output.code, Some(2));
    assert!(!format!("{output:?}").contains(&secret[16..]), "the secret was repeated");
    let output = encrypted.but("WALARCHIVE_RECIPIENTS", secret).run(&["init"]);
    assert_eq!(output.code, Some(2));
    assert!(!format!("{output:?}").contains(&secret[16..]), "the secret was repeated");
}

#[test]
fn directories_that_may_not_be_read() {
    let (scratch, product) = fixture();
    let name = segment_name(1, 3);
    let file = scratch.write(&name, segment(1, 3, 1));
    product.ok(&["wal", "push", path(&file)]);
    let archive = product.archive_dir();
    let object = files_with(&archive, &name).pop().unwrap();
    let standby = scratch.dir("standby");
    scratch.write("standby/standby.signal", "");
    let next = scratch.write(segment_name(1, 4), segment(1, 4, 1));
    let mut places: Vec<PathBuf> =
        object.ancestors().take_while(|at| at.starts_with(&archive)).map(Path::to_owned).collect();
    places.push(archive.join("archive.json"));
    for place in places {
        let mode = fs::metadata(&place).unwrap().permissions();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o000)).unwrap();
        let mut fetch = product.command_of("walarchive-fetch", &[&name, "dest"]);
        let fetched = Output::of(&fetch.current_dir(&standby).output().unwrap());
        let mut runs = vec![fetched];
        if place != object {
            runs.push(product.run(&["wal", "push", path(&next)]));
            runs.push(product.run(&["wal", "list"]));
        }
        fs::set_permissions(&place, mode).unwrap();
        for run in runs {
            assert!(matches!(run.code, Some(5 | 6)), "{}: {run:?}", place.display());
            assert!(!run.stderr.trim().is_empty());
        }
        assert_eq!(sample::names(&standby), ["standby.signal"]);
    }
    product.ok(&["wal", "push", path(&next)]);
    product.ok(&["wal", "fetch", &name, path(&scratch.join("dest"))]);
}

/// A small file system in memory, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None`, after a loud note, when nothing can be mounted here.
    fn mount(scratch: &Scratch) -> Option<Small> {
        let dir = scratch.dir("small");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=2500k,mode=0777", "tmpfs"]).arg(&dir).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            scratch.own(&dir);
            return Some(Small(dir));
        }
        eprintln!("\nSKIPPED: a full disk needs root and mount: {mounted:?}\n");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_half_is_seen() {
    let scratch = Scratch::new();
    let Some(small) = Small::mount(&scratch) else { return };
    let archive = format!("file://{}/archive", small.0.display());
    let product = quick(Product::with(&scratch, Options { archive: Some(archive), ..Options::default() }));
    let push = |number: u32| {
        let file = scratch.write(segment_name(1, number), segment(1, number, 1));
        product.run(&["--json", "wal", "push", path(&file)])
    };
    assert_eq!(push(3).code, Some(0));
    fs::write(small.0.join("ballast"), vec![1; 800 << 10]).unwrap();
    for _ in 0..2 {
        let full = push(4);
        assert_eq!(full.code, Some(6), "{full:?}");
        assert!(full.stderr.contains("make room"), "{full:?}");
        let list = product.json(&["wal", "list"]);
        assert_eq!(list["timelines"][0]["last"], segment_name(1, 3));
        assert_eq!(product.run(&["wal", "fetch", &segment_name(1, 4), "dest"]).code, Some(1));
    }
    // The destination of a fetch may be full, too.
    let dest = small.0.join("dest");
    let fetch = product.run(&["wal", "fetch", &segment_name(1, 3), path(&dest)]);
    assert_eq!(fetch.code, Some(206), "{fetch:?}");
    assert_eq!(sample::names(&small.0), ["archive", "ballast"]);
    fs::remove_file(small.0.join("ballast")).unwrap();
    assert!(files_with(&small.0, "#").is_empty(), "what was not stored still takes room");
    let roomy = push(4);
    assert_eq!(roomy.code, Some(0), "{roomy:?}");
    product.ok(&["wal", "fetch", &segment_name(1, 4), path(&scratch.join("dest"))]);
    assert!(fs::read(scratch.join("dest")).unwrap() == segment(1, 4, 1));
}

#[test]
fn two_pushers_of_one_name() {
    let (scratch, product) = fixture();
    for dir in ["a", "b"] {
        scratch.dir(dir);
    }
    for number in 1..9 {
        let name = segment_name(1, number);
        let same = number % 2 == 0;
        let contents = [segment(1, number, 1), segment(1, number, if same { 1 } else { 2 })];
        let files = [
            scratch.write(format!("a/{name}"), &contents[0]),
            scratch.write(format!("b/{name}"), &contents[1]),
        ];
        let start = |n: usize| {
            let command = product.command_of("walarchive-push", &[path(&files[n])]);
            Background::start(command, scratch.join(format!("log{n}")))
        };
        let mut pushers = [start(0), start(1)];
        let codes =
            [0, 1].map(|n: usize| pushers[n].wait(std::time::Duration::from_secs(60)).code().unwrap());
        let dest = scratch.join("dest");
        product.ok(&["wal", "fetch", &name, path(&dest)]);
        let stored = fs::read(&dest).unwrap();
        if same {
            assert_eq!(codes, [0, 0], "{} {}", pushers[0].printed(), pushers[1].printed());
            assert!(stored == contents[0]);
            continue;
        }
        let winner = codes.iter().position(|code| *code == 0).expect("one must win");
        assert_eq!(codes[1 - winner], 3, "{}", pushers[1 - winner].printed());
        assert!(stored == contents[winner], "the one that was told 0 is not the one that is stored");
        let loser = path(&files[1 - winner]);
        refused(&product, &["wal", "push", loser], 3, &["other content", &name]);
        product.ok(&["wal", "push", path(&files[winner])]);
    }
    assert!(files_with(&product.archive_dir(), "#").is_empty(), "a temporary file was left");
}
