//! Files that are stored before the server asks for them, and what is acknowledged because of it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use walarchive_tests::sample::{self, segment, segment_name};
use walarchive_tests::{
    Background, Cluster, Moments, Output, Product, Scratch, kill_tree, kills, wait_until,
};

const HISTORY: &str = "00000002.history";

/// A data directory with files that wait, as a server leaves them, and an archive.
struct Backlog {
    scratch: Scratch,
    product: Product,
    data_dir: PathBuf,
}

impl Backlog {
    /// Segments 1 to `ready` are complete, the next one is being written.
    fn new(ready: u32) -> Backlog {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
        product.set("WALARCHIVE_RETRY_BUDGET", "0s");
        product.set("WALARCHIVE_WAL_PUSH_AHEAD", "64");
        let data_dir = scratch.dir("data");
        scratch.write("data/PG_VERSION", "15\n");
        ["data/pg_wal", "data/pg_wal/archive_status"].iter().for_each(|dir| drop(scratch.dir(dir)));
        let backlog = Backlog { scratch, product, data_dir };
        for number in 1..=ready {
            backlog.complete(number);
        }
        backlog.write(&segment_name(1, ready + 1), segment(1, ready + 1, 1));
        backlog
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.scratch.write(format!("data/pg_wal/{name}"), content);
    }

    fn ready(&self, name: &str) {
        self.write(&format!("archive_status/{name}.ready"), "");
    }

    fn complete(&self, number: u32) {
        let name = segment_name(1, number);
        self.write(&name, segment(1, number, 1));
        self.ready(&name);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join("pg_wal").join(name)
    }

    fn push_with(&self, product: &Product, name: &str) -> Output {
        let mut command = product.command_of("walarchive-push", &["-v", &format!("pg_wal/{name}")]);
        Output::of(&command.current_dir(&self.data_dir).output().unwrap())
    }

    fn push(&self, name: &str) -> Output {
        self.push_with(&self.product, name)
    }

    #[track_caller]
    fn pushes(&self, name: &str) -> String {
        let output = self.push(name);
        assert_eq!(output.code, Some(0), "{name}: {}", output.stderr);
        output.stderr
    }

    /// How many WAL files the archive has.
    fn stored(&self) -> usize {
        let dir = self.product.archive_dir().join("main");
        if dir.is_dir() { walarchive_tests::filled::files_below(&dir).len() } else { 0 }
    }

    /// The archive is away, or back: nobody can ask it.
    fn away(&self, away: bool) {
        let (here, aside) = (self.product.archive_dir(), self.scratch.join("aside"));
        let (from, to) = if away { (&here, &aside) } else { (&aside, &here) };
        fs::rename(from, to).unwrap();
    }

    fn notes(&self, end: &str) -> Vec<String> {
        let names = sample::names(&self.path("archive_status"));
        names.into_iter().filter(|name| name.ends_with(end)).collect()
    }
}

#[test]
fn what_is_ready_is_stored_with_the_first_call_and_acknowledged_later() {
    let backlog = Backlog::new(20);
    backlog.write(HISTORY, "1\t0/9000000\tno recovery target specified\n");
    backlog.ready(HISTORY);
    backlog.pushes(&segment_name(1, 1));
    assert_eq!(backlog.stored(), 21, "all that is ready, and not what is being written");
    assert_eq!(backlog.notes(".ready").len(), 21, "the server's notes are its own");
    // No later call needs the archive.
    backlog.away(true);
    for name in (2..=20).map(|number| segment_name(1, number)).chain([HISTORY.to_owned()]) {
        let told = backlog.pushes(&name);
        assert!(told.contains("was stored ahead"), "{told}");
    }
    assert_eq!(backlog.push(&segment_name(1, 21)).code, Some(5), "of this there is no receipt");
    let by_hand = backlog.path(&segment_name(1, 2));
    assert_eq!(backlog.product.run(&["wal", "push", by_hand.to_str().unwrap()]).code, Some(5));
    backlog.away(false);
    let dest = backlog.scratch.dir("fetched").join("segment");
    for number in 1..=20 {
        let name = segment_name(1, number);
        backlog.product.ok(&["wal", "fetch", &name, dest.to_str().unwrap()]);
        assert!(fs::read(&dest).unwrap() == fs::read(backlog.path(&name)).unwrap(), "{name}");
    }
}

#[test]
fn the_result_has_the_same_facts() {
    let backlog = Backlog::new(3);
    let json = |number| {
        let name = format!("pg_wal/{}", segment_name(1, number));
        let mut command = backlog.product.command_of("walarchive-push", &["--json", &name]);
        Output::of(&command.current_dir(&backlog.data_dir).output().unwrap()).json()
    };
    let (first, second) = (json(1), json(2));
    let keys = |value: &serde_json::Value| {
        value["pushed"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&first), keys(&second));
    let second = &second["pushed"][0];
    let object = backlog.product.archive_dir().join(second["object"].as_str().unwrap());
    assert_eq!(second["stored_bytes"], fs::metadata(object).unwrap().len());
    assert_eq!((&second["data_bytes"], &second["new"]), (&(1 << 20).into(), &false.into()));
}

#[test]
fn other_content_under_the_name_is_refused_as_ever() {
    let backlog = Backlog::new(4);
    backlog.pushes(&segment_name(1, 1));
    let (name, path) = (segment_name(1, 2), backlog.path(&segment_name(1, 2)));
    let file = fs::File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"other", 500_000).unwrap();
    file.set_modified(modified).unwrap();
    let refused = backlog.push(&name);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    // A new file with the old bytes is looked at anew, and found to be stored.
    let (name, path) = (segment_name(1, 3), backlog.path(&segment_name(1, 3)));
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    backlog.write(&name, content);
    let told = backlog.pushes(&name);
    assert!(told.contains("was there already"), "{told}");
}

#[test]
fn other_settings_have_no_receipts() {
    let backlog = Backlog::new(3);
    backlog.pushes(&segment_name(1, 1));
    backlog.away(true);
    let other = backlog.product.but("WALARCHIVE_CLUSTER", "other");
    assert_eq!(backlog.push_with(&other, &segment_name(1, 2)).code, Some(5));
    let told = backlog.pushes(&segment_name(1, 2));
    assert!(told.contains("was stored ahead"), "{told}");
}

#[test]
fn one_that_cannot_be_stored_does_not_keep_the_one_that_was_asked_for() {
    let backlog = Backlog::new(9);
    backlog.write(&segment_name(1, 4), vec![7; 1 << 20]);
    let told = backlog.pushes(&segment_name(1, 1));
    assert!(told.contains("not all that is ready was stored ahead"), "{told}");
    for number in [2, 3] {
        backlog.pushes(&segment_name(1, number));
    }
    assert_eq!(backlog.push(&segment_name(1, 4)).code, Some(4), "it is not the segment that its name says");
    // Nor is anything acknowledged when the one that was asked for fails.
    backlog.away(true);
    assert_eq!(backlog.push(&segment_name(1, 9)).code, Some(5));
}

#[test]
fn nothing_is_stored_ahead_where_it_is_not_wanted() {
    let backlog = Backlog::new(5);
    let alone = backlog.product.but("WALARCHIVE_WAL_PUSH_AHEAD", "0");
    assert_eq!(backlog.push_with(&alone, &segment_name(1, 1)).code, Some(0));
    assert_eq!(backlog.stored(), 1);
    fs::rename(
        backlog.path("archive_status").join(format!("{}.ready", segment_name(1, 1))),
        backlog.path("archive_status").join(format!("{}.done", segment_name(1, 1))),
    )
    .unwrap();
    let two = backlog.product.but("WALARCHIVE_WAL_PUSH_AHEAD", "2");
    assert_eq!(backlog.push_with(&two, &segment_name(1, 2)).code, Some(0));
    assert_eq!(backlog.stored(), 4);
    // Nor for somebody who pushes what the server does not wait for.
    backlog.pushes(&segment_name(1, 1));
    assert_eq!(backlog.stored(), 4);
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_speed_alone() {
    let backlog = Backlog::new(4);
    let state = backlog.scratch.write("a file", "");
    let product = backlog.product.but("WALARCHIVE_STATE_DIR", state.to_str().unwrap());
    for number in 1..=4 {
        let output = backlog.push_with(&product, &segment_name(1, number));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    assert_eq!(backlog.stored(), 4);
}

#[test]
fn notes_are_marked_where_that_is_wanted_but_for_the_one_that_was_asked_for() {
    let mut backlog = Backlog::new(6);
    backlog.product.set("WALARCHIVE_WAL_BATCH_DONE", "true");
    backlog.pushes(&segment_name(1, 1));
    let note = |number, end| format!("{}.{end}", segment_name(1, number));
    assert_eq!(backlog.notes(".ready"), [note(1, "ready")]);
    assert_eq!(backlog.notes(".done"), (2..=6).map(|number| note(number, "done")).collect::<Vec<_>>());
    assert_eq!(backlog.stored(), 6);
}

#[test]
fn all_that_a_dead_server_has_left_is_stored() {
    let backlog = Backlog::new(12);
    backlog.write(HISTORY, "1\t0/9000000\tno recovery target specified\n");
    backlog.ready(HISTORY);
    let ready = ["wal", "push", "--ready", backlog.data_dir.to_str().unwrap()];
    let pushed = backlog.product.json(&ready);
    let names: Vec<&str> =
        pushed["pushed"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let segments: Vec<String> = (1..=12).map(|number| segment_name(1, number)).collect();
    assert_eq!(
        (names[0], &names[1..]),
        (HISTORY, &segments.iter().map(String::as_str).collect::<Vec<_>>()[..])
    );
    assert_eq!((backlog.stored(), backlog.notes(".ready").len()), (13, 13));
    // What comes behind a failure waits; the failure is told.
    let backlog = Backlog::new(40);
    backlog.write(&segment_name(1, 3), vec![7; 1 << 20]);
    let ready = ["wal", "push", "--ready", backlog.data_dir.to_str().unwrap()];
    assert_eq!(backlog.product.run(&ready).code, Some(4));
    assert!((2..40).contains(&backlog.stored()), "{}", backlog.stored());
}

#[test]
fn what_is_still_being_written_is_refused() {
    let backlog = Backlog::new(3);
    let current = segment_name(1, 4);
    let refused = backlog.push(&current);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("still being written"), "{}", refused.stderr);
    assert_eq!(backlog.stored(), 0);
    // One that waits to be used again is not the next one.
    backlog.write(&segment_name(1, 5), segment(1, 2, 1));
    assert_eq!(backlog.push(&current).code, Some(3));
    backlog.write(&segment_name(1, 5), segment(1, 5, 1));
    backlog.pushes(&current);
    backlog.write(&segment_name(1, 6), segment(1, 6, 1));
    assert_eq!(backlog.push(&segment_name(1, 6)).code, Some(3));
    // A copy elsewhere is whatever its owner says that it is, with all that belongs to it.
    fs::remove_file(backlog.data_dir.join("PG_VERSION")).unwrap();
    backlog.pushes(&segment_name(1, 6));
    let copy = backlog.scratch.write(segment_name(1, 5), segment(1, 5, 1));
    backlog.product.ok(&["wal", "push", copy.to_str().unwrap()]);
}

#[test]
fn a_server_that_is_behind_catches_up() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch).but("WALARCHIVE_WAL_PUSH_AHEAD", "64");
    let builder = Cluster::builder(&scratch).wal_segment_mib(1).conf("max_wal_size = 1GB");
    let Some(cluster) = builder.start() else { return };
    cluster.psql("create table load (n int)");
    cluster.psql(
        "do $$ begin for i in 1..150 loop insert into load values (i); commit; perform pg_switch_wal(); end loop; end $$",
    );
    let waiting = || sample::names(&cluster.data_dir().join("pg_wal/archive_status"));
    let behind = waiting().iter().filter(|name| name.ends_with(".ready")).count();
    assert!(behind >= 150, "{behind}");
    cluster.archive_with(&product);
    let all_done = || waiting().iter().all(|name| name.ends_with(".done"));
    wait_until("all is archived", Duration::from_secs(120), all_done);
    let counts = cluster.psql("select archived_count, failed_count from pg_stat_archiver");
    let (archived, failed) = counts.split_once('|').unwrap();
    assert!(
        archived.parse::<usize>().unwrap() >= behind && failed == "0",
        "the server asked for each: {counts}"
    );
    let list = product.json(&["wal", "list"]);
    assert_eq!(list["timelines"][0]["missing_count"], 0, "{list}");
    product.ok(&["verify", "--deep"]);
}

#[test]
fn whoever_pushes_may_be_killed_at_any_moment() {
    const FILES: u32 = 60;
    let backlog = Backlog::new(FILES);
    let command = || {
        let waiting = backlog.notes(".ready");
        let name = waiting.first()?.strip_suffix(".ready")?.to_owned();
        let mut command = backlog.product.command_of("walarchive-push", &[&format!("pg_wal/{name}")]);
        command.current_dir(&backlog.data_dir);
        Some((name, command))
    };
    let acknowledged = |name: &str| {
        let note = |end| backlog.path("archive_status").join(format!("{name}.{end}"));
        fs::rename(note("ready"), note("done")).unwrap();
    };
    let mut moments = Moments::new(Duration::from_millis(120), kills(20));
    for _ in 0..kills(20) {
        let Some((name, command)) = command() else { break };
        let mut running = Background::start(command, backlog.scratch.join("log"));
        std::thread::sleep(moments.wait());
        match running.ended() {
            Some(status) => {
                moments.was_hit(false);
                assert!(status.success(), "{}", running.printed());
                acknowledged(&name);
            }
            None => {
                moments.was_hit(true);
                kill_tree(running.pid());
                running.kill();
            }
        }
    }
    let after_kills = backlog.notes(".done").len();
    while let Some((name, mut command)) = command() {
        assert!(command.status().unwrap().success(), "{name}");
        acknowledged(&name);
    }
    println!("{after_kills} files were acknowledged between kills");
    let dest = backlog.scratch.dir("fetched").join("segment");
    for number in 1..=FILES {
        let name = segment_name(1, number);
        backlog.product.ok(&["wal", "fetch", &name, dest.to_str().unwrap()]);
        assert!(fs::read(&dest).unwrap() == fs::read(backlog.path(&name)).unwrap(), "{name}");
    }
    backlog.product.ok(&["verify", "--deep"]);
}
