//! Segments that are fetched before recovery asks for them: what lies ready is whole and proven, whoever is killed, and nothing is
//! left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walarchive_tests::sample::{self, segment, segment_name};
use walarchive_tests::{Cluster, Output, Product, Scratch, StopMode, kills, wait_until};

const SOON: Duration = Duration::from_secs(20);
const SHELF: &str = "walarchive.ahead";

/// A data directory of a server that seems to recover, and an archive with segments for it.
struct Recovery {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
    /// What `pg_wal` has without a recovery.
    before: Vec<String>,
}

impl Recovery {
    fn new(segments: u32) -> Option<Recovery> {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
        product.set("WALARCHIVE_RETRY_BUDGET", "0s");
        product.set("WALARCHIVE_WAL_FETCH_AHEAD", "8");
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).create()?;
        let before = sample::names(&cluster.data_dir().join("pg_wal"));
        let recovery = Recovery { scratch, product, cluster, before };
        let own = format!("{}\n", std::process::id());
        fs::write(recovery.data_dir().join("postmaster.pid"), own).unwrap();
        fs::write(recovery.data_dir().join("recovery.signal"), "").unwrap();
        (1..=segments).for_each(|number| recovery.store(1, number));
        Some(recovery)
    }

    fn data_dir(&self) -> &Path {
        self.cluster.data_dir()
    }

    fn store(&self, timeline: u32, number: u32) {
        let name = segment_name(timeline, number);
        let path = self.scratch.write(name, segment(timeline, number, 1));
        self.product.ok(&["wal", "push", path.to_str().unwrap()]);
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.product.command_of("walarchive-fetch", &["-v", name, "pg_wal/RECOVERYXLOG"]);
        command.current_dir(self.data_dir());
        command
    }

    /// Asks as the server does; what was answered, if it is a segment, is the right one.
    fn asks(&self, timeline: u32, number: u32) -> Output {
        let dest = self.data_dir().join("pg_wal/RECOVERYXLOG");
        let _ = fs::remove_file(&dest);
        let output = Output::of(&self.command(&segment_name(timeline, number)).output().unwrap());
        match output.code {
            Some(0) => assert!(fs::read(dest).unwrap() == segment(timeline, number, 1), "segment {number}"),
            _ => assert!(!dest.exists()),
        }
        output
    }

    /// Asks, and says whether it lay ready.
    #[track_caller]
    fn gets(&self, timeline: u32, number: u32) -> bool {
        let output = self.asks(timeline, number);
        assert_eq!(output.code, Some(0), "segment {number}: {}", output.stderr);
        output.stderr.contains("was fetched ahead")
    }

    fn shelf(&self) -> Option<PathBuf> {
        let shelves = self.data_dir().join("pg_wal").join(SHELF);
        sample::names(&shelves).first().map(|name| shelves.join(name))
    }

    fn ready(&self) -> Vec<String> {
        let names = self.shelf().map(|shelf| sample::names(&shelf)).unwrap_or_default();
        names.into_iter().filter(|name| name.len() == 24).collect()
    }

    #[track_caller]
    fn wait_ready(&self, numbers: std::ops::RangeInclusive<u32>) {
        let names: Vec<String> = numbers.map(|number| segment_name(1, number)).collect();
        wait_until(&format!("{names:?} lie ready"), SOON, || self.ready() == names);
    }

    /// Whoever fetches ahead here.
    fn keeper(&self) -> Option<Pid> {
        let here = fs::canonicalize(self.data_dir()).unwrap();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            place == here && variables.split(|byte| *byte == 0).any(|word| word == b"_WALARCHIVE_AHEAD=1")
        })
        .find_map(Pid::from_raw)
    }

    #[track_caller]
    fn ends(&self) {
        fs::remove_file(self.data_dir().join("recovery.signal")).unwrap();
        wait_until("nobody fetches ahead", SOON, || self.keeper().is_none());
        let mut left = sample::names(&self.data_dir().join("pg_wal"));
        left.retain(|name| name != "RECOVERYXLOG");
        assert_eq!(left, self.before);
    }
}

#[test]
fn what_recovery_will_ask_for_lies_ready() {
    let Some(recovery) = Recovery::new(14) else { return };
    assert!(!recovery.gets(1, 1), "nobody knew that it would begin");
    recovery.wait_ready(2..=9);
    let ready = (2..=14).filter(|number| recovery.gets(1, *number)).count();
    assert!(ready >= 8, "{ready}: those that lay ready, if not those that followed");
    // The server asks for some segments twice, and for the one that is not there.
    assert!(!recovery.gets(1, 14));
    let absent = recovery.asks(1, 15);
    assert_eq!(absent.code, Some(1), "{}", absent.stderr);
    // What comes later is found.
    recovery.store(1, 15);
    wait_until("it is fetched", SOON, || recovery.ready() == [segment_name(1, 15)]);
    assert!(recovery.gets(1, 15));
    recovery.ends();
}

#[test]
fn another_way_is_followed() {
    let Some(recovery) = Recovery::new(6) else { return };
    for number in 4..=16 {
        recovery.store(2, number);
    }
    recovery.gets(1, 1);
    recovery.wait_ready(2..=6);
    assert!(recovery.gets(1, 2));
    assert!(!recovery.gets(2, 4), "a new timeline");
    let follow = || (5..=12).map(|number| segment_name(2, number)).collect::<Vec<_>>();
    wait_until("the new timeline lies ready", SOON, || recovery.ready() == follow());
    assert!(recovery.gets(2, 5));
    assert!(!recovery.gets(1, 2), "back again");
    recovery.wait_ready(3..=6);
    recovery.ends();
}

#[test]
fn what_is_damaged_or_cannot_be_reached_is_told_to_who_asks() {
    let Some(recovery) = Recovery::new(6) else { return };
    let object = sample::files_with(&recovery.product.archive_dir(), &segment_name(1, 4));
    let mut bytes = fs::read(&object[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object[0], bytes).unwrap();
    recovery.gets(1, 1);
    let beside = [2, 3, 5, 6].map(|number| segment_name(1, number));
    wait_until("the others lie ready", SOON, || recovery.ready() == beside);
    assert!(recovery.gets(1, 2) && recovery.gets(1, 3));
    assert_eq!(recovery.asks(1, 4).code, Some(204));
    // What lies ready needs no archive.
    let aside = recovery.scratch.join("aside");
    fs::rename(recovery.product.archive_dir(), &aside).unwrap();
    assert!(recovery.gets(1, 6));
    assert_eq!(recovery.asks(1, 7).code, Some(205), "this is no end of the WAL");
    fs::rename(&aside, recovery.product.archive_dir()).unwrap();
    assert_eq!(recovery.asks(1, 7).code, Some(1));
    recovery.ends();
}

#[test]
fn whoever_fetches_ahead_may_be_killed_at_any_moment() {
    const SEGMENTS: u32 = 40;
    let Some(recovery) = Recovery::new(SEGMENTS) else { return };
    let mut hits = 0;
    for round in 0..kills(3) {
        for number in 1..=SEGMENTS {
            hits += u32::from(recovery.gets(1, number));
            if number % 5 == round % 5 {
                std::thread::sleep(Duration::from_millis(u64::from(number * 7 % 40)));
                let killed = recovery.keeper().map(|keeper| kill_process(keeper, Signal::KILL));
                assert!(killed.is_none_or(|killed| killed.is_ok()));
            }
        }
    }
    println!("{hits} lay ready");
    recovery.gets(1, 1);
    recovery.wait_ready(2..=9);
    // Left alone, what lies there is removed by the next push from here.
    let keeper = recovery.keeper().unwrap();
    kill_process(keeper, Signal::KILL).unwrap();
    wait_until("it is dead", SOON, || recovery.keeper().is_none());
    fs::remove_file(recovery.data_dir().join("recovery.signal")).unwrap();
    let name = segment_name(1, 1);
    fs::write(recovery.data_dir().join("pg_wal").join(&name), segment(1, 1, 1)).unwrap();
    fs::write(recovery.data_dir().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    let mut push = recovery.product.command_of("walarchive-push", &[&format!("pg_wal/{name}")]);
    assert_eq!(push.current_dir(recovery.data_dir()).status().unwrap().code(), Some(0));
    assert_eq!(recovery.shelf(), None);
    // What else has the name, or is linked to, is somebody's.
    let precious = recovery.scratch.dir("precious");
    recovery.scratch.dir(format!("precious/{}", "a".repeat(32)));
    std::os::unix::fs::symlink(&precious, recovery.data_dir().join("pg_wal").join(SHELF)).unwrap();
    assert!(push.status().unwrap().success());
    assert_eq!(sample::names(&precious).len(), 1);
}

#[test]
fn what_nobody_answers_for_is_not_delivered() {
    let Some(recovery) = Recovery::new(4) else { return };
    recovery.gets(1, 1);
    recovery.wait_ready(2..=4);
    kill_process(recovery.keeper().unwrap(), Signal::KILL).unwrap();
    wait_until("it is dead", SOON, || recovery.keeper().is_none());
    let left = recovery.shelf().unwrap();
    fs::write(left.join(segment_name(1, 2)), vec![7; 1 << 20]).unwrap();
    assert!(!recovery.gets(1, 2));
    recovery.wait_ready(3..=4);
    assert!(recovery.gets(1, 3));
    recovery.ends();
}

#[test]
fn it_is_for_servers_that_recover_only() {
    let Some(recovery) = Recovery::new(4) else { return };
    let off = |name: &str, value: &str| {
        let mut command = recovery.command(&segment_name(1, 1));
        assert!(command.env(name, value).status().unwrap().success());
        assert_eq!((recovery.keeper(), recovery.shelf()), (None, None), "{name}");
    };
    off("WALARCHIVE_WAL_FETCH_AHEAD", "0");
    let mut elsewhere =
        recovery.product.command_of("walarchive-fetch", &[&segment_name(1, 1), "pg_wal/SEGMENT"]);
    assert!(elsewhere.current_dir(recovery.data_dir()).status().unwrap().success());
    assert_eq!((recovery.keeper(), recovery.shelf()), (None, None), "pg_rewind asks so");
    fs::remove_file(recovery.data_dir().join("recovery.signal")).unwrap();
    off("WALARCHIVE_WAL_FETCH_AHEAD", "8");
}

#[test]
fn whatever_becomes_of_it_is_no_crash_to_a_server() {
    let Some(recovery) = Recovery::new(2) else { return };
    // As the child of a server that is process 1 of a container.
    let ends = |argument: &[&str], (name, value): (&str, &str)| {
        let mut command = recovery.command(&segment_name(1, 1));
        command.args(argument).env("_WALARCHIVE_AHEAD", "1").env(name, value).status().unwrap().code()
    };
    let nothing = ("WALARCHIVE_WAL_FETCH_AHEAD", "8");
    assert_eq!(ends(&["--no-such-option"], nothing), Some(0));
    assert_eq!(ends(&[], ("WALARCHIVE_CONFIG", "/no/such/file")), Some(0));
    assert_eq!(ends(&[], ("WALARCHIVE_ARCHIVE", "file:///no/such")), Some(0));
    fs::remove_file(recovery.data_dir().join("recovery.signal")).unwrap();
    assert_eq!(ends(&[], nothing), Some(0));
    assert_eq!(recovery.shelf(), None);
}

#[test]
fn it_ends_with_its_server() {
    let Some(recovery) = Recovery::new(4) else { return };
    recovery.gets(1, 1);
    recovery.wait_ready(2..=4);
    fs::remove_file(recovery.data_dir().join("postmaster.pid")).unwrap();
    wait_until("nobody fetches ahead", SOON, || recovery.keeper().is_none() && recovery.shelf().is_none());
}

#[test]
fn a_server_recovers_and_nothing_is_left_behind() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch).but("WALARCHIVE_WAL_FETCH_AHEAD", "8");
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    cluster.archive_with(&product);
    cluster.psql("create table load (n int)");
    let mut backup = product.command(&["backup", "create"]);
    backup.env("WALARCHIVE_CONNECTION", cluster.conninfo());
    assert!(backup.status().unwrap().success());
    cluster.psql(
        "do $$ begin for i in 1..60 loop insert into load values (i); commit; perform pg_switch_wal(); end loop; end $$",
    );
    cluster.archive_now();
    cluster.stop(StopMode::Fast);
    let target = scratch.join("restored");
    assert_eq!(product.restore_to(&target, &["--action", "promote"]).code, Some(0));
    let script = product.script("walarchive-fetch");
    // Stronger than what the restore has written.
    let command = format!("{} -v %f %p", script.display());
    let mut restored =
        Cluster::adopt(&scratch).option("restore_command", &command).existing(target.clone()).unwrap();
    let begun = Instant::now();
    restored.start();
    wait_until("it is promoted", Duration::from_secs(60), || {
        restored.psql("select pg_is_in_recovery()") == "f"
    });
    println!("recovered in {:?}", begun.elapsed());
    assert_eq!(restored.psql("select count(*), sum(n) from load"), "60|1830");
    let log = restored.log();
    let ready = log.matches("was fetched ahead").count();
    assert!(ready >= 10, "{ready} segments lay ready:\n{log}");
    wait_until("nothing is left", SOON, || !target.join("pg_wal").join(SHELF).exists());
}
