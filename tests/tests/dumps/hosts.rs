//! Hosts that only write, runs at the same time, hooks and mail.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use walarchive_tests::{Options, bytes_below, wait_until};

use super::Night;

#[test]
fn a_host_without_an_identity_dumps_what_is_new() {
    let Some(night) = Night::begin(Options::default()) else { return };
    night.sql("postgres", "create database app");
    night.sql("app", "create table t as select n, md5(n::text) t from generate_series(1, 100000) n");
    let mut writer = night.product.clone();
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let dump = |args: &[&str]| {
        writer.run(&[&["--json", "dump", "create", "--no-globals", "--database", "app"], args].concat())
    };
    let stored = |done: &walarchive_tests::Output| done.json()["stored_bytes"].as_u64().unwrap();
    let first = dump(&[]);
    assert_eq!(first.code, Some(0), "{first:?}");
    night.sql("app", "update t set t = 'x' where n = 5");
    let second = dump(&[]);
    assert!(stored(&second) * 20 < stored(&first), "{second:?}");
    let old = writer.but("WALARCHIVE_DUMP_FULL_EVERY", "0s");
    let old = old.run(&["--json", "dump", "create", "--no-globals", "--database", "app"]);
    assert!(stored(&old) * 2 > stored(&first), "what is pointed to is stored anew now and then: {old:?}");
    let full = dump(&["--full"]);
    assert!(stored(&full) * 2 > stored(&first), "{full:?}");
    assert_eq!(writer.run(&["dump", "list"]).code, Some(4), "it cannot read");

    // What it remembers is lost: the next one stores everything, and numbers go on.
    fs::remove_dir_all(writer.state_dir()).unwrap();
    let lost = dump(&[]);
    assert!(lost.code == Some(0) && stored(&lost) * 2 > stored(&first), "{lost:?}");
    let ids: Vec<String> = [&first, &second, &old, &full, &lost]
        .map(|done| done.json()["dumps"][0]["id"].as_str().unwrap().to_owned())
        .into();
    assert_eq!(night.ids("app"), ids, "in the order in which they were made");

    // Retention is another host's.
    let kept = writer.but("WALARCHIVE_DUMP_KEEP_LAST", "1").run(&[
        "dump",
        "create",
        "--no-globals",
        "--database",
        "app",
    ]);
    assert!(kept.code == Some(0) && kept.stderr.contains("retention is not applied here"), "{kept:?}");
    assert_eq!(night.ids("app").len(), 6);
    let reader = night.product.but("WALARCHIVE_DUMP_KEEP_LAST", "1");
    let plan = reader.json(&["prune"]);
    assert_eq!(plan["dumps"]["retention"]["expire"].as_array().unwrap().len(), 5, "{plan}");
    reader.json(&["prune", "--yes"]);
    assert_eq!(night.ids("app").len(), 1);
    assert_eq!(night.run(&["restore", "latest", "--database", "app", "--as", "x"]).code, Some(0));
}

#[test]
fn a_second_run_is_refused_while_the_first_goes_on() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let gate = night.scratch.join("gate");
    let waiting = night.scratch.join("waiting");
    let hook = format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done", waiting.display(), gate.display());
    let first = night.product.but("WALARCHIVE_DUMP_PRE_HOOK", &hook);
    let mut first =
        first.command(&["dump", "create"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the first run waits", Duration::from_secs(30), || waiting.exists());
    let marker = night.scratch.join("told");
    let second = night.product.but("WALARCHIVE_DUMP_POST_HOOK", &format!("touch {}", marker.display()));
    let refused = second.run(&["--json", "dump", "create"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert_eq!(refused.json()["error"]["kind"], "busy");
    assert!(!marker.exists(), "whoever is refused tells nobody of a failed night");
    fs::write(&gate, "").unwrap();
    assert!(first.wait().unwrap().success());
    assert_eq!(second.run(&["dump", "create"]).code, Some(0));
    assert!(marker.exists());
}

#[test]
fn hooks_are_told_and_their_failures_count() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let told = night.scratch.join("told");
    let post = format!(
        "printf '%s|%s|%s' \"$DUMP_STATUS\" \"$DUMP_DATABASES\" \"$DUMP_FAILED\" > {0}; cat > {0}.json",
        told.display()
    );
    let good = night.product.but("WALARCHIVE_DUMP_POST_HOOK", &post);
    assert_eq!(good.run(&["dump", "create"]).code, Some(0));
    assert_eq!(fs::read_to_string(&told).unwrap(), "ok|globals\npostgres|");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(told.with_extension("json")).unwrap()).unwrap();
    assert_eq!(json["ok"], true, "{json}");

    let bad = good.run(&["--json", "dump", "create", "--database", "nobody*", "--database", "postgres"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert_eq!(fs::read_to_string(&told).unwrap(), "failed|globals\npostgres|nobody*");
    assert_eq!((&bad.json()["failed"], &bad.json()["dumps"].as_array().unwrap().len()), (&1.into(), &3));

    let count = night.dumps().len();
    let before = night.product.but("WALARCHIVE_DUMP_PRE_HOOK", "exit 3").run(&["dump", "create"]);
    assert_eq!((before.code, night.dumps().len()), (Some(6), count), "nothing is dumped: {before:?}");
    let behind = night.product.but("WALARCHIVE_DUMP_POST_HOOK", "exit 3").run(&["dump", "create"]);
    assert_eq!((behind.code, night.dumps().len()), (Some(6), count + 2), "the dumps stay: {behind:?}");
}

#[test]
fn reports_are_mailed() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let letter = night.scratch.join("letter");
    let sendmail = night.program("sendmail", &format!("echo \"$@\" > {0}\ncat >> {0}", letter.display()));
    let mut product = night.product.but("WALARCHIVE_DUMP_MAIL_TO", "dba@example.org");
    product.set("WALARCHIVE_DUMP_SENDMAIL", sendmail.to_str().unwrap());
    assert_eq!(product.run(&["dump", "create"]).code, Some(0));
    assert!(!letter.exists(), "a good night is not worth a letter");
    assert_eq!(product.run(&["dump", "create", "--database", "nobody"]).code, Some(1));
    let text = fs::read_to_string(&letter).unwrap();
    assert!(text.contains("dba@example.org") && text.contains("FAILED") && text.contains("nobody"), "{text}");
    fs::remove_file(&letter).unwrap();
    let always = product.but("WALARCHIVE_DUMP_MAIL", "always");
    assert_eq!(always.run(&["dump", "create"]).code, Some(0));
    assert!(fs::read_to_string(&letter).unwrap().contains(": OK"));
    let broken = always.but("WALARCHIVE_DUMP_SENDMAIL", "/nowhere/sendmail").run(&["dump", "create"]);
    assert_eq!(broken.code, Some(6), "{broken:?}");
}

#[test]
fn what_must_be_mounted_is_looked_at_first() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let place = night.scratch.path().display().to_string();
    let refused = night.run(&["create", "--expect-mount", &place]);
    assert_eq!((refused.code, night.dumps().len()), (Some(3), 0), "{refused:?}");
    assert_eq!(night.run(&["create", "--expect-mount", "/proc"]).code, Some(0));
}

#[test]
fn ten_nights_of_a_slowly_changing_database_cost_little_more_than_one() {
    let Some(night) = Night::begin(Options::default()) else { return };
    night.sql("postgres", "create database app");
    night.sql("app", "create table t as select n, md5(n::text) || md5((n * 7)::text) t, now() as at from generate_series(1, 300000) n");
    let mut one = 0;
    for nth in 0..10 {
        let done = night.run(&["create", "--no-globals", "--database", "app"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        if nth == 0 {
            one = bytes_below(&night.product.archive_dir());
        }
        night.sql("app", &format!("update t set t = md5(t) where n between {nth} * 20000 and {nth} * 20000 + 600; insert into t select 1000000 + n, md5(n::text), now() from generate_series(1, 600) n"));
    }
    let all = bytes_below(&night.product.archive_dir());
    assert!(all * 2 < one * 3, "{all} bytes for ten, {one} for the first");
}
