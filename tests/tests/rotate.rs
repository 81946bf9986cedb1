//! An archive gets other readers, at rest and while it is killed.

use std::time::Duration;

use serde_json::Value;
use walarchive_tests::filled::{files_below, fill};
use walarchive_tests::{Background, Options, Output, Product, Scratch, Sshd, kill_tree, stores};

struct Site {
    scratch: Scratch,
    /// Today's reader.
    old: Product,
    /// Tomorrow's.
    new: Product,
    recipient: String,
}

impl Site {
    fn new(options: Options) -> Option<Site> {
        let scratch = Scratch::new();
        let old = Product::with(&scratch, options);
        fill(&scratch, &old)?;
        Some(Site::of(scratch, old))
    }

    fn of(scratch: Scratch, old: Product) -> Site {
        let file = scratch.join("new identity").display().to_string();
        let made = old.json(&["key", "generate", "-o", &file]);
        let recipient = made["recipient"].as_str().unwrap().to_owned();
        let mut new = old.but("WALARCHIVE_IDENTITY_FILE", &file);
        new.set("WALARCHIVE_RECIPIENTS", &recipient);
        Site { scratch, old, new, recipient }
    }

    fn rotate(&self, args: &[&str]) -> Output {
        self.old.run(&[&["--json", "key", "rotate", "--recipient", &self.recipient], args].concat())
    }

    fn works_for(&self, product: &Product) {
        let run = product.run(&["--json", "verify", "--deep"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let mut restored = product.restore(&self.scratch, &[]);
        restored.start_promoted();
        assert_eq!(restored.psql("select count(*) from t"), "4002");
    }
}

fn done(run: &Output) -> Value {
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.json()
}

#[test]
fn everything_is_for_the_new_reader_and_for_nobody_else() {
    let Some(site) = Site::new(Options::default()) else { return };
    let looked = done(&site.rotate(&["--dry-run"]));
    site.works_for(&site.old);
    let sizes = |product: &Product| -> Vec<u64> {
        files_below(&product.archive_dir()).iter().map(|file| file.metadata().unwrap().len()).collect()
    };
    let before = sizes(&site.old);
    let rotated = done(&site.rotate(&[]));
    assert_eq!((&rotated["objects"], &rotated["bytes"]), (&looked["objects"], &looked["bytes"]));
    assert_eq!(rotated["objects"], before.len() as u64 - 1, "all but archive.json");
    // A head for as many readers is as long, so what manifests say of packs is true as it was.
    assert_eq!(sizes(&site.old), before);
    let run = site.old.run(&["--json", "verify", "--deep"]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    site.works_for(&site.new);
    let again = done(&site.new.run(&["--json", "key", "rotate"]));
    assert_eq!((&again["objects"], &again["current"]), (&0.into(), &rotated["objects"]));
}

#[test]
fn one_more_reader_makes_all_heads_longer() {
    let Some(site) = Site::new(Options::default()) else { return };
    let own = site.old.json(&["key", "show", site.old.identity_file().to_str().unwrap()]);
    let copied = site.scratch.join("the copy");
    let copied = format!("file://{}", copied.display());
    site.old.ok(&["copy", "--to", &copied]);
    done(&site.rotate(&["--recipient", own["recipients"][0].as_str().unwrap()]));
    site.works_for(&site.old);
    site.works_for(&site.new);
    // A copy from before is the same archive still.
    let run = site.old.run(&["--json", "copy", "--to", &copied]);
    assert_eq!(done(&run)["objects"], 0);
    let run = site.old.run(&["check", "copy", "--to", &copied]);
    assert!(run.code == Some(0) && run.stdout.contains("missing_objects=0"), "{run:#?}");
    let repaired = site.old.run(&["--json", "verify", "--deep", "--repair-from", &copied]);
    assert_eq!(done(&repaired)["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn killed_at_any_moment_it_goes_on_where_it_was() {
    let Some(site) = Site::new(Options::default()) else { return };
    let both = site.scratch.join("both identities");
    let mut text = std::fs::read_to_string(site.old.identity_file()).unwrap();
    text += &std::fs::read_to_string(site.scratch.join("new identity")).unwrap();
    site.scratch.write("both identities", text);
    std::process::Command::new("chmod").arg("600").arg(&both).status().unwrap();
    let both = site.old.but("WALARCHIVE_IDENTITY_FILE", both.to_str().unwrap());
    for milliseconds in [5, 20, 40, 60, 80, 120] {
        let command = both.command(&["key", "rotate", "--jobs", "1", "--recipient", &site.recipient]);
        let running = Background::start(command, site.scratch.join(format!("rotate{milliseconds}.log")));
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill_tree(running.pid());
        drop(running);
        let run = both.run(&["--json", "verify", "--deep"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
    done(&both.run(&["--json", "key", "rotate", "--recipient", &site.recipient]));
    site.works_for(&site.new);
}

#[test]
fn an_archive_in_a_bucket_is_rotated_too() {
    let scratch = Scratch::new();
    let Some(bucket) = stores::seaweed(&scratch) else { return };
    let options = Options { init: false, archive: Some(bucket.url()), ..Options::default() };
    let mut old = Product::with(&scratch, options);
    bucket.env().iter().for_each(|(name, value)| old.set(name, value));
    old.ok(&["init"]);
    if fill(&scratch, &old).is_none() {
        return;
    }
    let site = Site::of(scratch, old);
    done(&site.rotate(&[]));
    assert_eq!(site.old.run(&["verify", "--deep"]).code, Some(4));
    let run = site.new.run(&["--json", "verify", "--deep"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    site.new.restore(&site.scratch, &[]);
}

#[test]
fn a_store_that_replaces_nothing_is_left_as_it_is() {
    let Some(site) = Site::new(Options::default()) else { return };
    let Some(sshd) = Sshd::start(&site.scratch) else { return };
    let mut over_ssh = site.old.but("WALARCHIVE_ARCHIVE", &sshd.url(site.old.archive_dir()));
    over_ssh.set("WALARCHIVE_STORE_SSH_IDENTITY", sshd.identity().to_str().unwrap());
    over_ssh.set("WALARCHIVE_STORE_SSH_KNOWN_HOSTS", sshd.known_hosts().to_str().unwrap());
    let run = over_ssh.run(&["--json", "key", "rotate", "--recipient", &site.recipient]);
    assert!(run.code == Some(2) && run.stdout.contains("walarchive copy --to"), "{run:#?}");
    site.works_for(&site.old);
}

#[test]
fn what_cannot_be_rotated_says_what_to_do() {
    let scratch = Scratch::new();
    let plain = Product::with(&scratch, Options { encrypted: false, ..Options::default() });
    let run = plain.run(&["--json", "key", "rotate"]);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stdout.contains("walarchive copy"), "{run:#?}");
    let product = Product::new(&scratch);
    let run = product.run(&["key", "rotate", "--sign-unsigned"]);
    assert!(run.code == Some(2) && run.stderr.contains("writer_key_file"), "{run:#?}");
}
