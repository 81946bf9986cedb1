//! Writers sign: what an intruder plants who knows the recipients is refused and named, by readers with and without keys.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;
use walarchive_tests::filled::fill;
use walarchive_tests::{Cluster, Options, Output, Product, Scratch, find, require};

const PLANTED_HISTORY: &str = "1\t0/3000028\tno recovery target specified\n";

/// A cluster whose hosts sign, and believe nobody else.
struct Site {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Site {
    fn new(encrypted: bool) -> Option<Site> {
        let scratch = Scratch::new();
        let mut product = Product::with(&scratch, Options { encrypted, ..Options::default() });
        sign(&mut product, &scratch, "writer.key");
        let (cluster, _) = fill(&scratch, &product)?;
        Some(Site { scratch, product, cluster })
    }

    /// Somebody who knows the recipients and may create objects, and has no writer's key.
    fn intruder(&self) -> Product {
        let state = self.scratch.join("intruder's state");
        let mut intruder = self.product.but("WALARCHIVE_STATE_DIR", state.to_str().unwrap());
        let system = self.product.cluster_dir();
        intruder.set("WALARCHIVE_SYSTEM_ID", system.file_name().unwrap().to_str().unwrap());
        for variable in
            ["WALARCHIVE_WRITER_KEY_FILE", "WALARCHIVE_TRUSTED_WRITERS", "WALARCHIVE_IDENTITY_FILE"]
        {
            intruder.unset(variable);
        }
        intruder
    }

    fn without_identity(&self) -> Product {
        let mut watcher = self.product.clone();
        watcher.unset("WALARCHIVE_IDENTITY_FILE");
        watcher
    }

    fn manifest(&self, id: &Value) -> PathBuf {
        self.product.cluster_dir().join("backups").join(id.as_str().unwrap()).join("manifest")
    }
}

/// Makes a writer's key, signs with it and believes it.
fn sign(product: &mut Product, scratch: &Scratch, name: &str) {
    let file = scratch.join(name).display().to_string();
    let made = product.json(&["key", "generate", "--writer", "-o", &file]);
    let writer = made["writer"].as_str().unwrap().to_owned();
    assert_eq!(product.json(&["key", "show", &file])["writer"], made["writer"]);
    product.set("WALARCHIVE_WRITER_KEY_FILE", &file);
    product.set("WALARCHIVE_TRUSTED_WRITERS", &writer);
}

/// The one object that a verification names.
fn only_problem(run: &Output) -> String {
    assert_eq!(run.code, Some(4), "{run:#?}");
    let problems = run.json()["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 1, "{run:#?}");
    problems[0]["object"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_signed_holds_for_all_who_read() {
    for encrypted in [true, false] {
        let Some(site) = Site::new(encrypted) else { return };
        for product in [&site.product, &site.without_identity()] {
            let run = product.run(&["--json", "verify", "--deep"]);
            assert_eq!(run.code, Some(0), "{run:#?}");
            assert_eq!(run.json()["signatures"], true);
        }
        let mut restored = site.product.restore(&site.scratch, &[]);
        restored.start_promoted();
        assert_eq!(restored.psql("select count(*) from t"), "4002");
        let dumps = site.product.json(&["dump", "list"]);
        let dump = dumps["dumps"][0]["id"].as_str().unwrap();
        site.product.ok(&["dump", "export", dump, "-o", site.scratch.join("a dump").to_str().unwrap()]);
    }
}

#[test]
fn a_planted_backup_is_refused_and_named() {
    for encrypted in [true, false] {
        let Some(mut site) = Site::new(encrypted) else { return };
        let good =
            site.product.json(&["backup", "list"])["backups"].as_array().unwrap().last().unwrap()["id"]
                .clone();
        // A backup needs the WAL of its time, which the intruder archives as well.
        site.cluster.archive_with(&site.intruder());
        site.cluster.start();
        let planted = site.intruder().back_up(&site.cluster, &[])["id"].clone();
        let object = site.manifest(&planted);
        let object = object.strip_prefix(site.product.archive_dir()).unwrap().to_str().unwrap();
        let target = site.scratch.join("refused");
        let run = site.product.restore_to(&target, &["--backup", planted.as_str().unwrap()]);
        assert_eq!(run.code, Some(4), "{run:#?}");
        let error = run.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(error.contains(object) && error.contains("not signed"), "{error}");
        assert!(!target.exists(), "something was restored");
        for product in [&site.product, &site.without_identity()] {
            let run = product.run(&["--json", "verify", "--deep"]);
            let named =
                run.json()["problems"].as_array().unwrap().iter().any(|problem| problem["object"] == object);
            assert!(run.code == Some(4) && named, "{run:#?}");
        }
        // What is known to be good is taken instead, up to the moment from which on the WAL is not.
        let run = site.product.restore_to(&target, &["--to", "immediate"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert_eq!(run.json()["backup"], good, "{run:#?}");
        assert!(run.stderr.contains(planted.as_str().unwrap()), "the planted one is named: {run:#?}");
    }
}

#[test]
fn a_planted_wal_file_is_refused_and_named() {
    for encrypted in [true, false] {
        let Some(site) = Site::new(encrypted) else { return };
        let file = site.scratch.write("00000009.history", PLANTED_HISTORY);
        site.intruder().ok(&["wal", "push", file.to_str().unwrap()]);
        let dest = site.scratch.join("dest");
        let run = site.product.run(&["--json", "wal", "fetch", "00000009.history", dest.to_str().unwrap()]);
        assert_eq!(run.code.map(|code| code % 200), Some(4), "{run:#?}");
        assert!(run.stdout.contains("sign") && !dest.exists(), "{run:#?}");
        for product in [&site.product, &site.without_identity()] {
            let named = only_problem(&product.run(&["--json", "verify", "--deep"]));
            assert!(named.ends_with("00000009.history"), "{named}");
        }
    }
}

#[test]
fn an_older_manifest_in_a_newer_ones_place_is_refused_and_named() {
    let Some(site) = Site::new(true) else { return };
    let list = site.product.json(&["backup", "list"]);
    let ids: Vec<&Value> = list["backups"].as_array().unwrap().iter().map(|backup| &backup["id"]).collect();
    let (older, newer) = (site.manifest(ids[0]), site.manifest(ids[ids.len() - 1]));
    fs::copy(&older, &newer).unwrap();
    for product in [&site.product, &site.without_identity()] {
        let named = only_problem(&product.run(&["--json", "verify"]));
        assert!(newer.ends_with(&named), "{named}");
    }
    let run = site.product.restore_to(&site.scratch.join("restored"), &[]);
    assert_eq!((run.code, &run.json()["backup"]), (Some(0), ids[0]), "{run:#?}");
    assert!(
        run.stderr.contains(ids[ids.len() - 1].as_str().unwrap()),
        "what was passed over is named: {run:#?}"
    );
    // A store that was set back to what it had before is told by whoever saw it newer.
    let watched = Site::new(true).unwrap();
    watched.product.ok(&["verify"]);
    fs::remove_dir_all(
        watched.manifest(&watched.product.json(&["backup", "list"])["backups"][1]["id"]).parent().unwrap(),
    )
    .unwrap();
    let run = watched.product.run(&["--json", "verify"]);
    assert!(run.code == Some(4) && run.stdout.contains("rolled-back"), "{run:#?}");
}

/// Without a cipher nothing ties what follows a signed head to it: so the manifest's end is signed, too.
#[test]
fn other_lines_behind_the_signed_head_of_a_plain_manifest_are_refused() {
    let Some(site) = Site::new(false) else { return };
    let list = site.product.json(&["backup", "list"]);
    let id = list["backups"].as_array().unwrap().last().unwrap()["id"].clone();
    let object = fs::read(site.manifest(&id)).unwrap();
    let head = 8 + u32::from_le_bytes(object[4..8].try_into().unwrap()) as usize;
    let text = zstd(&site.scratch, "-dc", &object);
    let text = String::from_utf8(text).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let (lines, end) = rest.trim_end().rsplit_once('\n').unwrap();
    let with_end = |first: &str, digest: &str| {
        let mut end: Value = serde_json::from_str(end).unwrap();
        end["digest"] = digest.into();
        let payload = [
            zstd(&site.scratch, "-c", format!("{first}\n").as_bytes()),
            zstd(&site.scratch, "-c", format!("{lines}\n{end}\n").as_bytes()),
        ]
        .concat();
        let sum = blake3::hash(&payload);
        [&object[..head], &payload, &[0x59, 0x2a, 0x4d, 0x18, 32, 0, 0, 0], sum.as_bytes()].concat()
    };
    let digest = |first: &str| blake3::hash(format!("{first}\n{lines}\n").as_bytes()).to_hex().to_string();
    let forged = first.replace("\"labels\":{}", "\"labels\":{\"by\":\"somebody\"}");
    assert_ne!(forged, first);
    let finished = serde_json::from_str::<Value>(first).unwrap()["finished_at"].as_str().unwrap().to_owned();
    let future = first.replace(&finished, "2099-01-01T00:00:00Z");
    fs::write(site.manifest(&id), with_end(&future, &digest(&future))).unwrap();
    let mut trusting = site.product.clone();
    trusting.unset("WALARCHIVE_TRUSTED_WRITERS");
    let run = trusting.run(&["check", "backup"]);
    assert!(run.code == Some(3) && run.stdout.contains("still to come"), "{run:#?}");
    for (first, code) in [(first, 0), (&forged, 4)] {
        fs::write(site.manifest(&id), with_end(first, &digest(first))).unwrap();
        let run = site.product.run(&["--json", "verify", "--backup", id.as_str().unwrap()]);
        assert_eq!(run.code, Some(code), "{run:#?}");
        let mut trusting = site.product.clone();
        trusting.unset("WALARCHIVE_TRUSTED_WRITERS");
        let run = trusting.run(&["--json", "verify", "--backup", id.as_str().unwrap()]);
        assert_eq!(run.code, Some(0), "but for who wrote it, it is well made: {run:#?}");
    }
    let run = site.product.restore_to(&site.scratch.join("none"), &["--backup", id.as_str().unwrap()]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    // Not even its first line is believed, which lists and checks go by.
    for command in [&["backup", "list"][..], &["check", "backup"], &["check", "retention"]] {
        let run = site.product.run(command);
        let code = if command[0] == "check" { 2 } else { 4 };
        assert!(run.code == Some(code) && !run.stdout.contains("somebody"), "{run:#?}");
    }
}

/// A repeated push is read where it can be; a host with a key of other readers has nothing to read it with.
#[test]
fn what_is_sealed_for_others_can_be_pushed_again() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch).but("WALARCHIVE_SYSTEM_ID", "77");
    let file = scratch.write("00000009.history", PLANTED_HISTORY);
    product.ok(&["wal", "push", file.to_str().unwrap()]);
    let other = scratch.join("other.key").display().to_string();
    product.ok(&["key", "generate", "-o", &other]);
    product.but("WALARCHIVE_IDENTITY_FILE", &other).ok(&["wal", "push", file.to_str().unwrap()]);
}

#[test]
fn what_only_has_a_newer_name_is_not_remembered_as_the_newest() {
    let Some(site) = Site::new(true) else { return };
    let wal = site.product.cluster_dir().join("wal/00000002/00000000");
    let newest = walarchive_tests::filled::files_below(&wal).pop().unwrap();
    let number = newest.file_name().unwrap().to_str().unwrap()[16..].to_owned();
    let number = u32::from_str_radix(&number, 16).unwrap() + 1;
    let junk = wal.join(format!("0000000200000000{number:08X}"));
    fs::copy(&newest, &junk).unwrap();
    site.scratch.own(&junk);
    let named = only_problem(&site.product.run(&["--json", "verify"]));
    assert!(junk.ends_with(&named), "{named}");
    fs::remove_file(&junk).unwrap();
    site.product.ok(&["verify"]);
    fs::remove_file(&newest).unwrap();
    let run = site.product.run(&["--json", "verify"]);
    assert!(run.code == Some(4) && run.stdout.contains("rolled-back"), "{run:#?}");
}

#[test]
fn another_archive_in_an_archives_place_is_told() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch).but("WALARCHIVE_SYSTEM_ID", "77");
    let file = scratch.write("00000009.history", PLANTED_HISTORY);
    product.ok(&["wal", "push", file.to_str().unwrap()]);
    product.ok(&["verify"]);
    fs::rename(product.archive_dir(), scratch.join("away")).unwrap();
    product.ok(&["init"]);
    product.ok(&["wal", "push", file.to_str().unwrap()]);
    let run = product.run(&["--json", "verify"]);
    assert!(run.code == Some(4) && run.stdout.contains("another archive was seen"), "{run:#?}");
}

fn zstd(scratch: &Scratch, options: &str, input: &[u8]) -> Vec<u8> {
    let file = scratch.write("zstd's input", input);
    let output =
        scratch.command(find("zstd").expect("zstd is installed")).args(["-q", options]).arg(file).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_host_that_writes_reads_nothing_and_changes_nothing() {
    let Some(site) = Site::new(true) else { return };
    let mut writer = site.without_identity();
    writer.set("WALARCHIVE_SYSTEM_ID", site.product.cluster_dir().file_name().unwrap().to_str().unwrap());
    let dest = site.scratch.join("dest");
    let name = fs::read_dir(site.product.cluster_dir().join("wal/00000001/00000000"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let name = name.file_name().into_string().unwrap();
    let run = writer.run(&["--json", "wal", "fetch", &name, dest.to_str().unwrap()]);
    assert_eq!(run.code.map(|code| code % 200), Some(4), "{run:#?}");
    assert!(!dest.exists());
    assert_eq!(writer.restore_to(&site.scratch.join("none"), &[]).code, Some(4));
    // Other content under a name that is taken is refused, and what was there is there.
    let object = site.product.cluster_dir().join("wal/00000002.history");
    let before = fs::read(&object).unwrap();
    let other = site.scratch.write("00000002.history", "1\t0/9000028\tsomething else\n");
    assert_eq!(writer.run(&["wal", "push", other.to_str().unwrap()]).code, Some(3));
    assert_eq!(fs::read(&object).unwrap(), before);
}

#[test]
fn keys_of_writers_are_kept_as_secrets() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch);
    let file = scratch.join("writer.key").display().to_string();
    product.ok(&["key", "generate", "--writer", "-o", &file]);
    assert_eq!(
        product.run(&["key", "generate", "--writer", "-o", &file]).code,
        Some(3),
        "a key was overwritten"
    );
    let secret = fs::read_to_string(&file).unwrap().lines().last().unwrap().to_owned();
    assert!(secret.starts_with("WAWRITER-SECRET-KEY-1"));
    let history = scratch.write("00000009.history", PLANTED_HISTORY);
    let push = ["--json", "-v", "wal", "push", history.to_str().unwrap()];
    let wrong = [
        product.but("WALARCHIVE_WRITER_KEY_FILE", &secret).run(&push),
        product.but("WALARCHIVE_TRUSTED_WRITERS", &secret).run(&push),
        {
            std::process::Command::new("chmod").args(["644", &file]).status().unwrap();
            product.but("WALARCHIVE_WRITER_KEY_FILE", &file).run(&push)
        },
    ];
    for run in wrong {
        assert!(matches!(run.code, Some(2 | 4)), "{run:#?}");
        assert!(!run.stdout.contains(&secret) && !run.stderr.contains(&secret), "{run:#?}");
    }
}

/// What an age header says about itself, from its own stanza.
fn binding(object: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(object);
    let lines = text.lines().skip_while(|line| !line.starts_with("-> walarchive.dev/v1")).skip(1);
    let body: String = lines.take_while(|line| !line.starts_with("---")).collect();
    STANDARD_NO_PAD.decode(body).unwrap()
}

/// Numbers of some bits each, as numbers of others; what is left over at the end is dropped.
fn regroup(values: impl Iterator<Item = u8>, from: u32, to: u32) -> Vec<u8> {
    let (mut held, mut bits, mut out) = (0_u32, 0, Vec::new());
    for value in values {
        held = (held << from | u32::from(value)) & 0xFFFF;
        bits += from;
        if bits >= to {
            bits -= to;
            out.push((held >> bits) as u8);
        }
    }
    out
}

/// The format's signatures are those of RFC 8032, over what FORMAT.md says.
#[test]
fn openssl_finds_the_signatures_to_be_what_the_format_says() {
    let Some(openssl) = require("openssl") else { return };
    let scratch = Scratch::new();
    let mut product = Product::new(&scratch);
    sign(&mut product, &scratch, "writer.key");
    product.set("WALARCHIVE_SYSTEM_ID", "77");
    let file = scratch.write("00000009.history", PLANTED_HISTORY);
    product.ok(&["wal", "push", file.to_str().unwrap()]);
    let binding = binding(&fs::read(product.cluster_dir().join("wal/00000009.history")).unwrap());
    let json: Value = serde_json::from_slice(&binding).unwrap();
    let (sig, writer) = (json["sig"].as_str().unwrap(), json["writer"].as_str().unwrap());
    let sig: Vec<u8> = (0..64).map(|at| u8::from_str_radix(&sig[2 * at..2 * at + 2], 16).unwrap()).collect();
    let letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let data = writer.strip_prefix("wawriter1").unwrap();
    let key = regroup(data[..52].chars().map(|letter| letters.find(letter).unwrap() as u8), 5, 8);
    // SubjectPublicKeyInfo of Ed25519.
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &key].concat();
    let end = binding.len() - r#","sig":""}"#.len() - 128;
    let message = [b"walarchive.dev/v1 binding\n", &binding[..end], b"}"].concat();
    let verify = |message: &[u8]| {
        let [key, signed, sig] = [("key", &der[..]), ("message", message), ("sig", &sig)]
            .map(|(name, content)| scratch.write(name, content));
        let mut command = scratch.command(&openssl);
        command.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey"]).arg(key);
        command.arg("-in").arg(signed).arg("-sigfile").arg(sig).output().unwrap()
    };
    let output = verify(&message);
    assert!(output.status.success(), "{output:?}");
    assert!(!verify(&message[1..]).status.success());
}
