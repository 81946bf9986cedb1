//! Backups and restores that are cut short: the server is left as it was, nothing half is listed, and PostgreSQL does
//! not start from half a cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walarchive_tests::trace::Strace;
use walarchive_tests::{
    Background, Cluster, Moments, Output, Product, Scratch, StopMode, kill_tree, kills, sample,
    verify_backup, wait_until,
};

const LONG: Duration = Duration::from_secs(60);

/// Sends a signal, unless the process has ended by itself.
fn signal(process: &mut Background, signal: Signal) {
    if process.ended().is_none() {
        let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// A running cluster that archives.
struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Live {
    fn new() -> Option<Live> {
        Live::with(|cluster, product| cluster.archive_with(product))
    }

    fn with(archive: impl FnOnce(&Cluster, &Product)) -> Option<Live> {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").start()?;
        archive(&cluster, &product);
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        product.set("WALARCHIVE_BACKUP_WAL_WAIT", "30s");
        Some(Live { scratch, product, cluster })
    }

    /// One that takes its time, however many there were before.
    fn backup(&self) -> Command {
        self.product.command(&["--json", "backup", "create", "--full"])
    }

    fn start_backup(&self, name: &str) -> Background {
        Background::start(self.backup(), self.scratch.join(name))
    }

    fn backups(&self) -> Vec<String> {
        let list = self.product.json(&["backup", "list"]);
        let backups = list["backups"].as_array().unwrap();
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The server knows of no backup any more, and its directory shows none.
    fn is_left_alone(&self) {
        wait_until("the backup's session has ended", LONG, || {
            self.cluster.psql("select count(*) from pg_stat_activity where query like '%backup_st%'") == "1"
        });
        for name in ["backup_label", "tablespace_map", "recovery.signal"] {
            assert!(!self.cluster.data_dir().join(name).exists(), "{name} was left");
        }
        self.cluster.psql("select pg_backup_start('probe', true); select 1 from pg_backup_stop(false)");
    }

    /// A backup works, and so does what comes out of it.
    fn backs_up_well(&self) {
        let before = self.backups().len();
        self.product.ok(&["backup", "create"]);
        assert_eq!(self.backups().len(), before + 1);
        let target = self.scratch.join("proof");
        self.product.ok(&["restore", "--target-dir", target.to_str().unwrap()]);
        self.cluster.tool("pg_verifybackup", &["-n", target.to_str().unwrap()]);
        fs::remove_dir_all(target).unwrap();
    }

    fn fails(&self, command: &mut Command, code: i32, words: &[&str]) -> String {
        let output = Output::of(&command.output().unwrap());
        assert_eq!(output.code, Some(code), "{output:?}");
        let error = &output.json()["error"];
        let message = error["message"].as_str().unwrap().to_owned();
        assert_eq!(error["code"], code);
        for word in words {
            assert!(message.contains(word), "{message:?} says nothing of {word:?}");
        }
        assert_eq!(self.backups(), Vec::<String>::new());
        message
    }
}

#[test]
fn a_backup_that_is_killed_leaves_nothing() {
    let Some(live) = Live::new() else { return };
    live.cluster.pgbench_init(2);
    let one = || {
        let begun = Instant::now();
        live.product.ok(&["backup", "create", "--full"]);
        begun.elapsed()
    };
    // The first one waits for what the server has to write.
    let whole = one().min(one());
    let mut moments = Moments::new(whole, 15);
    let mut complete = live.backups();
    let mut killed = 0;
    for (n, number) in [Signal::KILL, Signal::TERM, Signal::INT].into_iter().cycle().take(15).enumerate() {
        let mut backup = live.start_backup("log");
        std::thread::sleep(moments.wait());
        // One that was faster this time is whole, and listed.
        let ended = backup.ended();
        moments.was_hit(ended.is_none());
        signal(&mut backup, number);
        let status = backup.wait(LONG);
        let listed = live.backups();
        if status.success() {
            assert!(ended.is_some() || listed.len() > complete.len(), "0, and nothing is listed");
        } else if number == Signal::KILL && listed.len() > complete.len() {
            // Killed when it was complete, before it could say so.
            assert_eq!(listed[..complete.len()], complete, "round {n}: {}", backup.printed());
            live.product.ok(&["verify", "--backup", listed.last().unwrap()]);
        } else {
            assert_eq!(listed, complete, "killed by {number:?}, round {n}: {}", backup.printed());
            killed += 1;
        }
        complete = listed;
        live.is_left_alone();
    }
    assert!(killed > 2, "nearly all were faster than their killer: {complete:?}");
    live.backs_up_well();
}

#[test]
fn a_backup_that_dies_at_a_call_leaves_nothing() {
    let Some(strace) = Strace::find() else { return };
    let Some(live) = Live::new() else { return };
    let all = strace.run(&live.scratch, live.backup());
    assert_eq!(all.output.code, Some(0), "{:?}", all.output);
    let mut complete = live.backups();
    for calls in ["link,linkat,rename,renameat,renameat2", "fsync,fdatasync", "write", "mkdir"] {
        let count = all.count(calls);
        for nth in [1, 2, count / 2, count.saturating_sub(1), count] {
            let run = strace.kill_at(calls, nth.max(1)).run(&live.scratch, live.backup());
            let listed = live.backups();
            if run.output.code == Some(0) {
                assert_eq!(listed.len(), complete.len() + 1);
            } else {
                // The manifest may have got its name just before: then all else is there, too.
                assert!(listed.len() <= complete.len() + 1, "{calls} {nth}");
            }
            for id in listed.iter().filter(|id| !complete.contains(id)) {
                let target = live.scratch.join("proof");
                live.product.ok(&["restore", "--backup", id, "--target-dir", target.to_str().unwrap()]);
                fs::remove_dir_all(target).unwrap();
            }
            complete = listed;
        }
        live.is_left_alone();
    }
    live.backs_up_well();
}

#[test]
fn a_backup_whose_wal_never_arrives_is_not_one() {
    let live = Live::with(|cluster, _| {
        cluster.append_conf("archive_command = '/bin/false'");
        cluster.reload();
    });
    let Some(mut live) = live else { return };
    live.product.set("WALARCHIVE_BACKUP_WAL_WAIT", "2s");
    // The archiver is known to fail then.
    live.cluster.switch_wal();
    wait_until("the archiver fails", LONG, || {
        live.cluster.psql("select failed_count > 0 from pg_stat_archiver") == "t"
    });
    let message = live.fails(&mut live.backup(), 3, &["archiver", "archive_command", "not committed"]);
    let names_segment = message.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.len() == 24);
    assert!(names_segment, "{message}");
    live.is_left_alone();
    live.cluster.archive_with(&live.product);
    live.backs_up_well();
}

#[test]
fn a_backup_whose_server_dies_is_not_one() {
    let Some(mut live) = Live::new() else { return };
    live.cluster.pgbench_init(2);
    for stop in [None, Some(StopMode::Immediate), Some(StopMode::Fast)] {
        let mut backup = live.start_backup("log");
        wait_until("the backup begins", LONG, || backup.printed().contains(" begins"));
        // It must not be ready before its server is dead.
        signal(&mut backup, Signal::STOP);
        match stop {
            Some(mode) => live.cluster.stop(mode),
            None => live.cluster.kill9(),
        }
        signal(&mut backup, Signal::CONT);
        let status = backup.wait(LONG);
        assert_eq!(status.code(), Some(5), "{}", backup.printed());
        assert_eq!(live.backups(), Vec::<String>::new());
        live.cluster.start();
        live.is_left_alone();
    }
    live.backs_up_well();
}

#[test]
fn a_backup_whose_session_is_ended_is_not_one() {
    let Some(live) = Live::new() else { return };
    let mut backup = live.start_backup("log");
    wait_until("the backup begins", LONG, || backup.printed().contains(" begins"));
    signal(&mut backup, Signal::STOP);
    let others = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'";
    live.cluster.psql(others);
    signal(&mut backup, Signal::CONT);
    let status = backup.wait(LONG);
    assert_eq!(status.code(), Some(5), "{}", backup.printed());
    assert_eq!(live.backups(), Vec::<String>::new());
    live.is_left_alone();
}

#[test]
fn a_backup_that_cannot_be_stored_is_not_one() {
    let Some(strace) = Strace::find() else { return };
    let Some(live) = Live::new() else { return };
    live.cluster.archive_now();
    for (calls, errno) in [
        ("fsync,fdatasync", "ENOSPC"),
        ("fsync,fdatasync", "EIO"),
        ("link,linkat", "ENOSPC"),
        ("mkdir", "EDQUOT"),
    ] {
        let run = strace.fail_at(calls, errno, "1+").run(&live.scratch, live.backup());
        assert_eq!(run.output.code, Some(6), "{calls} {errno}: {:?}", run.output);
        assert_eq!(live.backups(), Vec::<String>::new());
        // A temporary file may stay when even its link fails; nobody sees it.
        let mut packs = sample::files_with(&live.product.archive_dir(), "/packs/");
        packs.retain(|path| !path.to_string_lossy().contains('#'));
        assert!(packs.is_empty(), "{calls} {errno} left {packs:?}");
    }
    live.is_left_alone();
    live.backs_up_well();
}

#[test]
fn a_file_that_cannot_be_read_is_not_passed_over() {
    let Some(live) = Live::new() else { return };
    let file = live.scratch.write("secret", "x");
    let place = live.cluster.data_dir().join("base/unreadable");
    fs::rename(file, &place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o000)).unwrap();
    live.fails(&mut live.backup(), 6, &["base/unreadable"]);
    fs::remove_file(&place).unwrap();
    let place = live.scratch.dir("locked");
    let locked = live.cluster.data_dir().join("base/locked");
    fs::rename(place, &locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    live.fails(&mut live.backup(), 6, &["base/locked"]);
    fs::remove_dir(&locked).unwrap();
    live.is_left_alone();
    live.backs_up_well();
}

#[test]
fn servers_that_cannot_be_backed_up_are_refused() {
    let Some(live) = Live::new() else { return };
    let Some(other) = Cluster::builder(&live.scratch).conf("archive_mode = off").start() else { return };
    let connection = other.conninfo();
    let mut off = live.backup();
    live.fails(off.env("WALARCHIVE_CONNECTION", &connection), 2, &["archive_mode", "restart"]);
    let mut mixed = live.backup();
    live.fails(mixed.env("PGDATA", other.data_dir()), 3, &["system identifier", "PGDATA"]);
    let mut nowhere = live.backup();
    live.fails(nowhere.env("PGDATA", live.scratch.join("nowhere")), 6, &["nowhere"]);
    let mut silent = live.backup();
    silent.env("WALARCHIVE_CONNECTION", format!("host={} user=postgres", live.scratch.path().display()));
    live.fails(&mut silent, 5, &[]);
    let packs = sample::files_with(&live.product.archive_dir(), "/packs/");
    assert!(packs.is_empty(), "{packs:?}");
}

/// An archive with a backup of a cluster that is gone, and what its table held.
struct Lost {
    scratch: Scratch,
    product: Product,
    _cluster: Cluster,
}

impl Lost {
    fn new() -> Option<Lost> {
        let mut live = Live::new()?;
        live.cluster.pgbench_init(2);
        live.product.ok(&["backup", "create"]);
        live.cluster.psql("create table t as select generate_series(1, 1000) as n");
        live.cluster.archive_now();
        live.cluster.stop(StopMode::Immediate);
        let Live { scratch, product, cluster } = live;
        Some(Lost { scratch, product, _cluster: cluster })
    }

    fn target(&self) -> PathBuf {
        self.scratch.join("target")
    }

    fn restore(&self) -> Command {
        self.product.command(&["--json", "restore", "--target-dir", self.target().to_str().unwrap()])
    }

    /// What a restore that was cut short left is of no use to PostgreSQL, and the next restore says what to do; unless it
    /// was over already.
    fn check(&self, when: &str) -> bool {
        let target = self.target();
        if sample::names(&target).is_empty() {
            return false;
        }
        let complete = target.join("global/pg_control").exists();
        let again = Output::of(&self.restore().output().unwrap());
        assert_eq!(again.code, Some(3), "{when}: {again:?}");
        assert!(again.stderr.contains("empty"), "{when}: {again:?}");
        if !complete {
            self.refuses_to_start(&target, when);
            let done = Output::of(&self.restore().arg("--delta").output().unwrap());
            assert_eq!(done.code, Some(0), "{when}, gone on with: {done:?}");
            verify_backup(&self.scratch, &target);
        }
        self.starts(&target);
        fs::remove_dir_all(&target).unwrap();
        !complete
    }

    fn starts(&self, target: &Path) {
        let builder = Cluster::adopt(&self.scratch).option("archive_mode", "off");
        let mut server = builder.existing(target.to_owned()).unwrap();
        server.start();
        wait_until("recovery ends", LONG, || server.psql("select pg_is_in_recovery()") == "f");
        let counts = "select (select count(*) from pgbench_accounts), (select count(*) from t)";
        assert_eq!(server.psql(counts), "200000|1000");
        server.stop(StopMode::Immediate);
    }

    fn refuses_to_start(&self, target: &Path, when: &str) {
        let mut server = self.scratch.command(walarchive_tests::find("postgres").unwrap());
        server.arg("-D").arg(target).arg("-k").arg(self.scratch.path());
        let mut server = Background::start(server, self.scratch.join("postgres-log"));
        let status = server.wait(LONG);
        assert!(!status.success(), "{when}: PostgreSQL started from half a cluster");
    }
}

#[test]
fn a_restore_that_is_killed_does_not_pass_for_a_cluster() {
    let Some(lost) = Lost::new() else { return };
    let begun = Instant::now();
    assert_eq!(lost.restore().output().unwrap().status.code(), Some(0));
    let times = kills(15);
    let mut moments = Moments::new(begun.elapsed(), times);
    fs::remove_dir_all(lost.target()).unwrap();
    let mut halves = 0;
    for n in 0..times {
        let mut restore = Background::start(lost.restore(), lost.scratch.join("log"));
        std::thread::sleep(moments.wait());
        moments.was_hit(restore.ended().is_none());
        kill_tree(restore.pid());
        restore.kill();
        halves += u32::from(lost.check(&format!("{n}/{times}")));
    }
    assert!(halves > 2, "only {halves} were killed half way");
    assert_eq!(lost.restore().output().unwrap().status.code(), Some(0));
    lost.starts(&lost.target());
}

#[test]
fn a_restore_that_dies_at_a_call_does_not_pass_for_a_cluster() {
    let Some(strace) = Strace::find() else { return };
    let Some(lost) = Lost::new() else { return };
    let strace = strace.calls("link,linkat,rename,renameat,renameat2,unlink,symlink,syncfs,mkdir");
    let all = strace.run(&lost.scratch, lost.restore());
    assert_eq!(all.output.code, Some(0), "{:?}", all.output);
    fs::remove_dir_all(lost.target()).unwrap();
    let mut halves = 0;
    for calls in ["link,linkat", "rename", "unlink", "syncfs", "mkdir"] {
        let count = all.count(calls);
        for nth in (1..=count).filter(|nth| *nth < 3 || *nth + 6 > count) {
            let run = strace.kill_at(calls, nth).run(&lost.scratch, lost.restore());
            if run.output.code != Some(0) {
                halves += u32::from(lost.check(&format!("{calls} {nth}")));
            } else {
                fs::remove_dir_all(lost.target()).unwrap();
            }
        }
    }
    assert!(halves > 5, "only {halves} were killed half way");
    // Failing calls are failures of this machine, and leave no cluster either.
    for (calls, errno) in [("link,linkat", "EIO"), ("syncfs", "EIO"), ("mkdir", "ENOSPC")] {
        let run = strace.fail_at(calls, errno, "2+").run(&lost.scratch, lost.restore());
        if run.output.code != Some(0) {
            assert_eq!(run.output.code, Some(6), "{calls}: {:?}", run.output);
            lost.check(calls);
        } else {
            assert!(
                run.events.iter().all(|event| event.errno.as_deref() != Some(errno)),
                "{calls} failed unseen"
            );
            fs::remove_dir_all(lost.target()).unwrap();
        }
    }
    assert_eq!(lost.restore().output().unwrap().status.code(), Some(0));
}
