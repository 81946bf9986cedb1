//! The harness itself: a test that leans on it must be able to trust it.

use std::time::{Duration, Instant};

use walarchive_tests::trace::{Strace, parse};
use walarchive_tests::{Cluster, Options, Product, Scratch, StopMode, User, find, kill_tree, tree_of};

#[test]
fn a_cluster_answers_works_and_stops() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).conf("work_mem = '5MB'").start()
    else {
        return;
    };
    let settings = "select current_setting('wal_segment_size'), current_setting('data_checksums'), \
                    current_setting('work_mem'), current_setting('archive_mode')";
    assert_eq!(cluster.psql(settings), "1MB|on|5MB|on");
    assert!(cluster.try_psql("select no_such_column").unwrap_err().contains("no_such_column"));

    cluster.pgbench_init(1);
    let rows: i64 = cluster.client().query_one("select count(*) from pgbench_accounts", &[]).unwrap().get(0);
    assert_eq!(rows, 100_000);
    let mut load = cluster.pgbench(1);
    assert!(load.wait(Duration::from_secs(60)).success(), "{}", load.printed());
    assert_ne!(cluster.psql("select count(*) from pgbench_history"), "0");

    let server = cluster.pid().unwrap();
    assert!(tree_of(server).len() > 3);
    cluster.stop(StopMode::Fast);
    assert!(tree_of(server).is_empty());
    let control = cluster.tool("pg_controldata", &[cluster.data_dir().to_str().unwrap()]);
    assert!(control.contains("shut down"), "{control}");
}

#[test]
fn archiving_is_waited_for() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let shelf = scratch.dir("shelf");
    cluster.append_conf(&format!("archive_command = 'cp %p {}/%f'", shelf.display()));
    cluster.reload();
    cluster.psql("create table t as select generate_series(1, 1000) as n");
    let segment = cluster.archive_now();
    assert_eq!(segment.len(), 24);
    assert_eq!(shelf.join(&segment).metadata().unwrap().len(), 1 << 20);
}

#[test]
fn kill9_leaves_no_process_and_the_cluster_recovers() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    cluster.append_conf("archive_command = 'sleep 1000'");
    cluster.reload();
    cluster.psql("create table t as select generate_series(1, 1000) as n");
    cluster.switch_wal();
    let server = cluster.pid().unwrap();
    // postmaster, archiver, shell (unless it made way for it), sleep: the archive command is running.
    let begun = Instant::now();
    let has_sleep = || tree_of(server).iter().any(|pid| name_of(*pid) == "sleep");
    while !has_sleep() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no archive command was run");
        std::thread::sleep(Duration::from_millis(20));
    }
    let family = tree_of(server);
    cluster.kill9();
    for pid in family {
        assert!(tree_of(pid).is_empty(), "process {pid} is left");
    }
    cluster.start();
    assert_eq!(cluster.psql("select count(*) from t"), "1000");
}

#[test]
fn a_dropped_cluster_leaves_nothing() {
    let scratch = Scratch::new();
    let path = scratch.path().to_owned();
    let Some(cluster) = Cluster::builder(&scratch).start() else { return };
    let server = cluster.pid().unwrap();
    drop(scratch);
    assert!(path.exists(), "the cluster still needs its directory");
    drop(cluster);
    assert!(tree_of(server).is_empty());
    assert!(!path.exists());
}

#[test]
fn a_directory_can_be_adopted() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).start() else { return };
    cluster.psql("create table t as select 1 as n");
    cluster.stop(StopMode::Immediate);
    let builder = Cluster::adopt(&scratch).option("work_mem", "7MB").env("TZ", "UTC");
    let mut adopted = builder.existing(cluster.data_dir().to_owned()).unwrap();
    adopted.start();
    assert_eq!(adopted.psql("select n, current_setting('work_mem') from t"), "1|7MB");
}

#[test]
fn nothing_real_runs_as_root() {
    let scratch = Scratch::new();
    let output = scratch.command("id").arg("-u").output().unwrap();
    let uid: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert_ne!(uid, 0);
    let Some(user) = User::unprivileged() else { return };
    assert_eq!(uid, user.uid);
    let groups = scratch.command("id").arg("-G").output().unwrap();
    assert_eq!(String::from_utf8(groups.stdout).unwrap().trim(), user.gid.to_string());
}

#[test]
fn a_tree_is_killed_to_the_leaves() {
    let scratch = Scratch::new();
    let mut child =
        scratch.command("sh").args(["-c", "sh -c 'sleep 1000; true' & sleep 1000; true"]).spawn().unwrap();
    let begun = Instant::now();
    while tree_of(child.id()).len() < 4 && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let family = tree_of(child.id());
    assert_eq!(family.len(), 4);
    kill_tree(child.id());
    assert!(!child.wait().unwrap().success());
    assert!(family.into_iter().all(|pid| tree_of(pid).is_empty()));
}

#[test]
fn calls_are_traced_failed_and_cut_short() {
    let Some(strace) = Strace::find() else { return };
    let scratch = Scratch::new();
    let copy = || {
        let mut command = scratch.command("sh");
        command.args(["-c", "echo new > from && sync from && mv from to"]);
        command
    };
    let traced = strace.run(&scratch, copy());
    assert_eq!(traced.output.code, Some(0), "{:?}", traced.output);
    let one = |calls: &str, name: &str| traced.all(calls, name).first().copied().cloned().expect(calls);
    let (write, sync) = (one("write", "/from"), one("fsync", "/from"));
    let rename = one("rename|renameat|renameat2", "/to");
    assert!(write.before(&sync) && sync.before(&rename), "{:#?}", traced.events);
    assert_eq!(rename.paths, [scratch.join("from"), scratch.join("to")]);
    assert_eq!((write.result, write.succeeded()), (Some(4), true));

    std::fs::remove_file(scratch.join("to")).unwrap();
    let failed = strace.fail_at("fsync", "ENOSPC", "1").run(&scratch, copy());
    assert_ne!(failed.output.code, Some(0));
    assert!(failed.events.iter().any(|event| event.errno.as_deref() == Some("ENOSPC")));
    assert!(!scratch.join("to").exists());

    let killed = strace.kill_at("rename,renameat,renameat2", 1).run(&scratch, copy());
    assert!(!scratch.join("to").exists(), "the call that was to be its last was carried out: {killed:#?}");
    assert!(scratch.join("from").exists());
    let mut direct = scratch.command("mv");
    direct.args(["from", "to"]);
    let killed = strace.kill_at("rename,renameat,renameat2", 1).run(&scratch, direct);
    assert_eq!((killed.output.code, killed.output.signal), (None, Some(9)));
    assert!(scratch.join("from").exists());
}

#[test]
fn the_programs_are_built_and_reached() {
    let scratch = Scratch::new();
    let options = Options { encrypted: false, init: false, ..Options::default() };
    let product = Product::with(&scratch, options).but("WALARCHIVE_CLUSTER", "it's");
    let output = product.run(&["--version"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    // A script carries the environment to where only a path can be given.
    let text = std::fs::read_to_string(product.script("walarchive-push")).unwrap();
    assert!(text.contains(r"export WALARCHIVE_CLUSTER='it'\''s'"), "{text}");
    let checked = scratch.command("sh").arg("-n").arg(product.script("walarchive")).status().unwrap();
    assert!(checked.success());
    let run = scratch.command(product.script("walarchive")).arg("--version").status().unwrap();
    assert!(run.success());
}

#[test]
fn a_trace_of_several_threads_is_put_together() {
    let log = "\
10 openat(AT_FDCWD</tmp/x>, \"a b\", O_WRONLY|O_CREAT, 0600) = 3</tmp/x/a b>
10 fsync(3</tmp/x/a\\40b> <unfinished ...>
11 write(4</tmp/x/c>, \"</not/a/path>\"..., 9) = 9
10 <... fsync resumed>)              = -1 EIO (Input/output error)
11 renameat2(AT_FDCWD</tmp/x>, \"c\", 5</tmp/y>, \"d\\\"\\303\\244\", RENAME_NOREPLACE) = 0
11 linkat(AT_FDCWD</tmp>, \"/abs\", AT_FDCWD</tmp>, \"rel\", 0 <unfinished ...>
11 +++ killed by SIGKILL +++
";
    let events = parse(log);
    let calls: Vec<&str> = events.iter().map(|event| event.call.as_str()).collect();
    assert_eq!(calls, ["openat", "fsync", "write", "renameat2", "linkat"]);
    assert_eq!(events[0].paths, ["/tmp/x/a b"].map(std::path::PathBuf::from));
    assert_eq!((events[0].result, events[0].thread), (Some(3), 10));
    assert_eq!((events[1].errno.as_deref(), events[1].began, events[1].over), (Some("EIO"), 1, 3));
    assert!(events[1].is("fsync|fdatasync", "x/a b"));
    assert_eq!(events[2].paths, ["/tmp/x/c"].map(std::path::PathBuf::from));
    assert!(!events[1].before(&events[2]) && events[1].before(&events[3]));
    assert_eq!(events[3].paths, ["/tmp/x/c", "/tmp/y/d\"ä"].map(std::path::PathBuf::from));
    assert_eq!(events[4].paths, ["/abs", "/tmp/rel"].map(std::path::PathBuf::from));
    assert!(!events[4].succeeded());
}

#[test]
fn programs_are_found() {
    assert!(find("sh").is_some());
    assert!(find("no-such-program-anywhere").is_none());
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
