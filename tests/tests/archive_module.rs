//! The archive module, in servers that can load one (15 to 18): `.ci/test` runs this on each of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walarchive_core::postgres::service::hold_archiving;
use walarchive_tests::proxy::{Fault, Proxy, Rule};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{
    Builder, Cluster, Options, Output, Product, Scratch, Sshd, StopMode, kill_tree, library, postgres_major,
    require, wait_until,
};

const SOON: Duration = Duration::from_secs(60);
/// What a server may need to stop, whatever the archive does: the module's own limit, and what a loaded machine adds.
const STOPPED: Duration = Duration::from_secs(45);
const NOT_STORED: &str = "WAL cannot be archived";

/// The module for the server that is tested, made by the Makefile; `None`, after a loud note, where there can be none.
fn module(scratch: &Scratch) -> Option<PathBuf> {
    let major = postgres_major()?;
    if !(15..=18).contains(&major) {
        eprintln!("\nSKIPPED: PostgreSQL {major} loads no archive module of ours\n");
        return None;
    }
    require("make")?;
    let (out, built) = (scratch.dir("module"), library("libwalarchive.a"));
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("walarchive-ffi");
    let mut command = Command::new("make");
    command.arg("-s").arg("-C").arg(ffi).arg("archive-module").arg(format!("PG_MAJOR={major}"));
    command.arg(format!("LIB_BUILD={}", built.parent().unwrap().display()));
    let output = Output::of(&command.arg(format!("OUT={}", out.display())).output().expect("run make"));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:#?}");
    scratch.own(&out);
    let module = out.join("walarchive.so");
    // The server loads modules into one namespace.
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(&module).output().unwrap();
    let seen = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(seen, ["Pg_magic_func", "_PG_archive_module_init", "_PG_init"]);
    Some(module)
}

/// A server that is to archive through the module, not started.
fn server(scratch: &Scratch) -> Option<Builder> {
    let module = module(scratch)?;
    let builder = Cluster::builder(scratch).wal_segment_mib(1).conf("autovacuum = off");
    Some(builder.conf(&format!("archive_library = '{}'", module.display())))
}

/// A running server, and a line to its archive that can be cut.
struct Live {
    /// Past the line.
    product: Product,
    proxy: Proxy,
    cluster: Cluster,
    /// There as long as somebody has it.
    _bucket: Bucket,
}

impl Live {
    fn new() -> Option<Live> {
        let scratch = Scratch::new();
        let builder = server(&scratch)?;
        let bucket = stores::gcs(&scratch)?;
        let proxy = Proxy::start(bucket.server().addr().parse().unwrap());
        let options = Options { init: false, archive: Some(bucket.url()), ..Options::default() };
        let mut product = Product::with(&scratch, options);
        let mut through = product.clone();
        bucket.env().iter().for_each(|(name, value)| product.set(name, value));
        product.ok(&["init"]);
        let line = bucket.with_endpoint(&proxy.addr().to_string());
        line.env().iter().for_each(|(name, value)| through.set(name, value));
        let cluster = builder.env_of(&through).start()?;
        cluster.psql("create table load (n int)");
        Some(Live { product, proxy, cluster, _bucket: bucket })
    }

    /// The archive hangs: it takes requests, and never answers.
    fn hang(&self) {
        self.proxy.set([Rule::always(Fault::Swallow)]);
        self.proxy.take_log();
    }

    /// Everything that the server has written is in the archive.
    #[track_caller]
    fn all_is_stored(&self) {
        self.proxy.clear();
        self.cluster.archive_now();
        assert!(waiting(&self.cluster).is_empty());
        whole(&self.product, 1);
    }
}

fn signal(pid: u32, number: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), number).unwrap();
}

/// Fills so many segments.
fn fill(cluster: &Cluster, segments: u32) {
    cluster.psql(&format!(
        "do $$ begin for i in 1..{segments} loop
             insert into load values (i); commit; perform pg_switch_wal(); end loop; end $$"
    ));
}

/// The files that the server has not archived.
fn waiting(cluster: &Cluster) -> Vec<String> {
    let status = fs::read_dir(cluster.data_dir().join("pg_wal/archive_status")).unwrap();
    let names = status.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".ready")).collect()
}

/// The archive has WAL without a gap, that many segments at least, and every byte of it is proven.
#[track_caller]
fn whole(product: &Product, least: u64) {
    let list = product.json(&["wal", "list"]);
    let timeline = &list["timelines"][0];
    assert!(timeline["segments"].as_u64() >= Some(least) && timeline["missing_count"] == 0, "{list}");
    product.ok(&["verify", "--deep"]);
}

fn archiver(cluster: &Cluster) -> Option<u32> {
    cluster.psql("select pid from pg_stat_activity where backend_type = 'archiver'").parse().ok()
}

fn wait_archiver(cluster: &Cluster) -> u32 {
    let mut found = None;
    wait_until("there is an archiver", SOON, || {
        found = archiver(cluster);
        found.is_some()
    });
    found.unwrap()
}

fn counted(cluster: &Cluster, what: &str) -> u64 {
    cluster.psql(&format!("select {what} from pg_stat_archiver")).parse().unwrap()
}

/// What the kernel knows of the children of a process. None can be missing: the dead ones stay until they are waited for, and
/// then their page faults, of which no process has none, are counted to the parent.
fn children(pid: u32) -> (Vec<u32>, u64) {
    let fields = |pid: u32| -> Option<Vec<String>> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
    };
    let pids = fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let is_child = |other: &u32| fields(*other).is_some_and(|of| of[1] == pid.to_string());
    let own = fields(pid).unwrap();
    (pids.filter(is_child).collect(), own[8].parse::<u64>().unwrap() + own[10].parse::<u64>().unwrap())
}

/// The signals of one kind (`SigBlk`, `SigIgn`) of a thread.
fn signals(status: &Path, kind: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(":\t"));
    mask.map_or(0, |mask| u64::from_str_radix(mask, 16).unwrap())
}

/// The threads of a process, besides the first; each must hold back what a server's processes handle.
fn deaf_threads(pid: u32) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = tasks.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others: BTreeSet<String> = names.filter(|name| *name != pid.to_string()).collect();
    for name in &others {
        let status = PathBuf::from(format!("/proc/{pid}/task/{name}/status"));
        let held = signals(&status, "SigBlk");
        for number in
            [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::URG]
        {
            let is_held = held & (1 << (number.as_raw() - 1)) != 0;
            assert!(is_held || !status.exists(), "thread {name} takes {number:?}");
        }
    }
    others
}

#[test]
fn five_hundred_segments_without_a_fork() {
    let scratch = Scratch::new();
    let Some(builder) = server(&scratch) else { return };
    let product = Product::new(&scratch);
    let Some(cluster) = builder.env_of(&product).start() else { return };
    let pid = wait_archiver(&cluster);
    cluster.psql("create table load (n int)");
    let begun = Instant::now();
    fill(&cluster, 500);
    let mut threads = BTreeSet::new();
    wait_until("500 segments are archived", Duration::from_secs(100), || {
        threads.append(&mut deaf_threads(pid));
        counted(&cluster, "archived_count") >= 500 && waiting(&cluster).is_empty()
    });
    println!("500 segments: {:?}, {} threads seen", begun.elapsed(), threads.len());
    assert!(!threads.is_empty(), "the archive was written to by threads of the archiver");
    // A child that the kernel buries unseen would not count.
    assert_eq!(signals(&PathBuf::from(format!("/proc/{pid}/status")), "SigIgn") & (1 << 16), 0);
    assert_eq!((archiver(&cluster), children(pid)), (Some(pid), (Vec::new(), 0)));
    assert_eq!(counted(&cluster, "failed_count"), 0, "{}", cluster.log());
    whole(&product, 500);

    // That this would show.
    cluster.append_conf("archive_library = ''");
    cluster.archive_with(&product);
    wait_until("the archiver is another", SOON, || archiver(&cluster).is_some_and(|other| other != pid));
    fill(&cluster, 1);
    cluster.archive_now();
    assert!(children(wait_archiver(&cluster)).1 > 0);
}

#[test]
fn an_outage_is_told_and_made_up_for() {
    let Some(live) = Live::new() else { return };
    let cluster = &live.cluster;
    fill(cluster, 3);
    cluster.archive_now();
    live.proxy.down();
    fill(cluster, 5);
    wait_until("failures are counted", SOON, || counted(cluster, "failed_count") >= 2);
    let log = cluster.log();
    let told = log.lines().find(|line| line.contains("is not archived")).unwrap_or_else(|| panic!("{log}"));
    assert!(told.contains("LOG:") && told.contains(&live.proxy.addr().to_string()), "{told}");
    assert_eq!(cluster.psql("select last_failed_wal like '000000010000%' from pg_stat_archiver"), "t");
    fill(cluster, 5);
    assert!(waiting(cluster).len() >= 10);
    live.all_is_stored();
    let log = cluster.log();
    assert!(
        log.lines().any(|line| line.contains("archived again") && line.contains("failed tries")),
        "{log}"
    );
}

#[test]
fn a_server_stops_and_archives_the_rest_later() {
    let Some(mut live) = Live::new() else { return };
    for mode in [StopMode::Fast, StopMode::Smart, StopMode::Immediate] {
        fill(&live.cluster, 40);
        let took = stop(&mut live.cluster, mode);
        println!("{mode:?} while files are archived: {took:?}");
        // The last cycle is for all that there is.
        assert!(mode == StopMode::Immediate || waiting(&live.cluster).is_empty(), "{:?}", live.cluster.log());
        live.cluster.start();
        live.all_is_stored();
    }
}

fn stop(cluster: &mut Cluster, mode: StopMode) -> Duration {
    let begun = Instant::now();
    cluster.stop(mode);
    begun.elapsed()
}

/// Stops a server whose archive hangs.
fn stops_in_an_outage(mode: StopMode, limit: Duration) {
    let Some(mut live) = Live::new() else { return };
    live.cluster.archive_now();
    live.hang();
    fill(&live.cluster, 10);
    wait_until("the archive is asked", SOON, || !live.proxy.take_log().is_empty());
    let took = stop(&mut live.cluster, mode);
    println!("{mode:?} while the archive hangs: {took:?}");
    assert!(took < limit, "{took:?}: {}", live.cluster.log());
    assert!(waiting(&live.cluster).len() >= 10);
    live.proxy.clear();
    live.cluster.start();
    live.all_is_stored();
}

#[test]
fn a_fast_stop_does_not_wait_for_an_archive_that_hangs() {
    stops_in_an_outage(StopMode::Fast, STOPPED);
}

#[test]
fn a_smart_stop_does_not_wait_for_an_archive_that_hangs() {
    stops_in_an_outage(StopMode::Smart, STOPPED);
}

/// The server kills what has not ended after five seconds: the archiver ends before.
#[test]
fn an_immediate_stop_is_immediate() {
    stops_in_an_outage(StopMode::Immediate, Duration::from_secs(4));
}

#[test]
fn the_archiver_ends_with_its_server_and_when_it_is_told() {
    let Some(mut live) = Live::new() else { return };
    live.cluster.archive_now();
    let first = wait_archiver(&live.cluster);
    // Where the server is to wait for it, it does not begin another file: so what is there ends.
    live.hang();
    fill(&live.cluster, 2);
    wait_until("the archive is asked", SOON, || !live.proxy.take_log().is_empty());
    signal(first, Signal::TERM);
    wait_until("the file is given up", Duration::from_secs(5), || {
        live.cluster.log().contains("told to stop")
    });
    // A killed archiver is a crash to the server, which starts anew, archiver and all.
    kill_tree(first);
    wait_until("the server is back", SOON, || {
        live.cluster.try_psql("select 1").is_ok() && archiver(&live.cluster).is_some_and(|pid| pid != first)
    });
    live.all_is_stored();

    live.hang();
    fill(&live.cluster, 2);
    wait_until("the archive is asked", SOON, || !live.proxy.take_log().is_empty());
    let last = wait_archiver(&live.cluster);
    signal(live.cluster.pid().unwrap(), Signal::KILL);
    let process = PathBuf::from(format!("/proc/{last}"));
    wait_until("the archiver ends with its server", Duration::from_secs(5), || !process.exists());
    live.cluster.kill9();
    live.proxy.clear();
    live.cluster.start();
    live.all_is_stored();
}

/// Over SSH there is one child, which holds the server's signals back as the threads do, and ends with the archiver all the same.
#[test]
fn an_archive_over_ssh_is_reached_again() {
    let scratch = Scratch::new();
    let Some(builder) = server(&scratch) else { return };
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let archive = Some(sshd.url(scratch.dir("far").join("archive")));
    let mut product = Product::with(&scratch, Options { init: false, archive, ..Options::default() });
    product.set("WALARCHIVE_STORE_SSH_IDENTITY", &sshd.identity().display().to_string());
    product.set("WALARCHIVE_STORE_SSH_KNOWN_HOSTS", &sshd.known_hosts().display().to_string());
    product.ok(&["init"]);
    let Some(mut cluster) = builder.env_of(&product).start() else { return };
    cluster.psql("create table load (n int)");
    for _ in 0..2 {
        fill(&cluster, 3);
        cluster.archive_now();
        let pid = wait_archiver(&cluster);
        assert!(!deaf_threads(pid).is_empty() && children(pid).0.len() == 1, "{:?}", children(pid));
        sshd.kill_sessions();
    }
    fill(&cluster, 3);
    cluster.stop(StopMode::Fast);
    assert!(waiting(&cluster).is_empty(), "{}", cluster.log());
    wait_until("ssh has ended", SOON, || sshd.sessions().is_empty());
    whole(&product, 9);
}

/// What `restore-latest` does until a restored cluster is proven holds for a module, too.
#[test]
fn archiving_is_held_back() {
    let scratch = Scratch::new();
    let Some(builder) = server(&scratch) else { return };
    let product = Product::new(&scratch);
    let Some(mut cluster) = builder.env_of(&product).start() else { return };
    cluster.psql("create table load (n int)");
    fill(&cluster, 2);
    cluster.archive_now();
    cluster.stop(StopMode::Fast);
    let stored = product.json(&["wal", "list"]);
    hold_archiving(cluster.data_dir()).unwrap();
    cluster.start();
    fill(&cluster, 2);
    wait_until("the server has tried", SOON, || {
        cluster.log().contains("archive command failed with exit code 1")
    });
    assert!(waiting(&cluster).len() >= 2);
    assert_eq!(product.json(&["wal", "list"]), stored);
}

#[test]
fn wrong_settings_are_told_and_can_be_put_right() {
    let scratch = Scratch::new();
    let Some(builder) = server(&scratch) else { return };
    let product = Product::with(&scratch, Options { encrypted: false, ..Options::default() });
    let archive = product.archive_dir().display().to_string();
    let file = scratch.write("settings.toml", format!("archiv = 'file://{archive}'\ncluster = 'main'\n"));
    let builder = builder.conf(&format!("walarchive.config_file = '{}'", file.display()));
    let Some(mut cluster) = builder.start() else { return };
    wait_until("it is told at start", SOON, || cluster.log().contains(NOT_STORED));
    let log = cluster.log();
    assert!(log.contains("archiv") && log.contains("WARNING:"), "{log}");
    let pid = wait_archiver(&cluster);
    cluster.psql("create table load (n int)");
    fill(&cluster, 2);
    wait_until("failures are counted", SOON, || counted(&cluster, "failed_count") >= 1);
    wait_until("each is told", SOON, || cluster.log().contains("is not archived"));

    let right = format!("archive = 'file://{archive}'\ncluster = 'main'\n");
    scratch.write("settings.toml", &right);
    cluster.reload();
    cluster.archive_now();
    assert_eq!((waiting(&cluster).len(), archiver(&cluster)), (0, Some(pid)));

    // Settings that were right, and are changed: the next file is held against the new ones.
    scratch.write("settings.toml", right.replace("main", "wrong/name"));
    cluster.reload();
    fill(&cluster, 1);
    wait_until("it is told", SOON, || cluster.log().contains("wrong/name"));
    // What only the archive shows is told at start, before there is a file.
    scratch.write("settings.toml", right.replace("/archive'", "/elsewhere'"));
    // The postmaster may have the module, too: then it knows the setting, and has no thread that its children would lack.
    let module = cluster.psql("show archive_library");
    cluster.append_conf(&format!("shared_preload_libraries = '{module}'"));
    cluster.restart();
    assert_eq!(cluster.psql("show walarchive.config_file"), file.display().to_string());
    let threads = fs::read_dir(format!("/proc/{}/task", cluster.pid().unwrap())).unwrap();
    assert_eq!(threads.count(), 1);
    wait_until("it is told at start", SOON, || cluster.log().contains(NOT_STORED));
    assert!(cluster.log().contains("elsewhere"), "{}", cluster.log());
    scratch.write("settings.toml", &right);
    cluster.reload();
    cluster.archive_now();
    whole(&product, 3);
}
