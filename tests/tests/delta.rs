//! Restores into the cluster's own directory: only what differs is written, what does not belong goes, and nothing that
//! could be somebody else's, or the only copy of something, is lost.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use walarchive_tests::{Background, Cluster, Output, Product, Scratch, StopMode, verify_backup, wait_until};

/// Its tablespace lies elsewhere, where others may use it, too: that it may be rewritten has to be said.
const OVER: [&str; 2] = ["--delta", "--yes"];

/// A cluster that was backed up and is stopped, and the dump of what the backup holds.
struct Stopped {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
    dump: String,
}

impl Stopped {
    fn new() -> Option<Stopped> {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("autovacuum = off").start()?;
        let product = Product::new(&scratch);
        cluster.archive_with(&product);
        cluster.pgbench_init(4);
        let space = scratch.dir("space");
        cluster.psql(&format!("create tablespace side location '{}'", space.display()));
        cluster.psql("create table aside tablespace side as select generate_series(1, 5000) as n");
        product.back_up(&cluster, &[]);
        let dump = cluster.dump();
        let mut stopped = Stopped { scratch, product, cluster, dump };
        stopped.cluster.stop(StopMode::Fast);
        Some(stopped)
    }

    fn dir(&self) -> PathBuf {
        self.cluster.data_dir().to_owned()
    }

    fn restore(&self, args: &[&str]) -> Output {
        self.product.restore_to(&self.dir(), &[&["--to", "immediate"], args].concat())
    }

    /// The cluster is that of the backup: PostgreSQL's tools and the dump say so.
    fn is_restored(&self) {
        verify_backup(&self.scratch, &self.dir());
        let builder = Cluster::adopt(&self.scratch).option("archive_mode", "off");
        let mut server = builder.existing(self.dir()).unwrap();
        server.start_promoted();
        assert!(server.dump() == self.dump, "the cluster is not what was backed up");
        server.stop(StopMode::Fast);
    }

    fn largest_relation(&self) -> PathBuf {
        let mut files = files_below(&self.dir().join("base"));
        files.sort_by_key(|file| fs::metadata(file).unwrap().len());
        files.pop().unwrap()
    }

    fn refused(&self, args: &[&str], words: &[&str]) {
        let before = files_below(&self.dir());
        let output = self.restore(args);
        assert_eq!(output.code, Some(3), "{output:#?}");
        let message = output.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert_eq!(files_below(&self.dir()), before, "nothing was changed");
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { all.extend(files_below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn only_what_differs_is_written() {
    let Some(live) = Stopped::new() else { return };
    let large = live.largest_relation();
    assert_eq!(live.restore(&OVER).code, Some(0));
    live.is_restored();
    // Recovery has changed things since; from now on nothing does.
    assert_eq!(live.restore(&OVER).code, Some(0));
    let inode = fs::metadata(&large).unwrap().ino();
    let again = live.restore(&OVER).json();
    assert_eq!(again["bytes_written"], 0, "{again}");
    for at in [0, 8192 * 7 + 100, 8192 * 900 + 4000] {
        flip(&large, at);
    }
    let three = live.restore(&OVER).json();
    assert_eq!(three["bytes_written"].as_u64(), Some(3 * 8192), "{three}");
    assert_eq!(fs::metadata(&large).unwrap().ino(), inode, "written in place");
    live.is_restored();
}

#[test]
fn whatever_became_of_the_directory_it_is_the_backup_again() {
    let Some(live) = Stopped::new() else { return };
    let (dir, large) = (live.dir(), live.largest_relation());
    let elsewhere = live.scratch.dir("elsewhere");
    // Content that others know under another name must not change there.
    fs::hard_link(&large, elsewhere.join("linked")).unwrap();
    let kept = fs::read(&large).unwrap();
    fs::remove_file(&large).unwrap();
    fs::copy(elsewhere.join("linked"), &large).unwrap();
    fs::hard_link(&large, elsewhere.join("twice")).unwrap();
    flip(&large, 5000);
    let damaged = fs::read(&large).unwrap();
    // Strangers, and things that have become something else.
    fs::create_dir_all(dir.join("base/99999/deep")).unwrap();
    fs::write(dir.join("base/99999/deep/file"), "x").unwrap();
    fs::write(dir.join("standby.signal"), "").unwrap();
    fs::remove_file(dir.join("PG_VERSION")).unwrap();
    fs::create_dir(dir.join("PG_VERSION")).unwrap();
    fs::remove_dir_all(dir.join("pg_xact")).unwrap();
    fs::write(elsewhere.join("precious"), "precious").unwrap();
    symlink(&elsewhere, dir.join("pg_xact")).unwrap();
    let conf = dir.join("postgresql.conf");
    fs::remove_file(&conf).unwrap();
    symlink(elsewhere.join("precious"), &conf).unwrap();
    let side =
        fs::read_link(fs::read_dir(dir.join("pg_tblspc")).unwrap().next().unwrap().unwrap().path()).unwrap();
    let version = fs::read_dir(&side).unwrap().next().unwrap().unwrap().path();
    fs::write(version.join("stranger"), "x").unwrap();
    fs::create_dir(side.join("PG_9.6_201608131")).unwrap();
    fs::write(side.join("PG_9.6_201608131/another_server"), "x").unwrap();
    for file in files_below(&version) {
        let length = fs::metadata(&file).unwrap().len();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 2 + 3).unwrap();
    }
    live.scratch.own(&dir);
    live.scratch.own(&side);
    live.scratch.own(&elsewhere);
    let output = live.restore(&OVER);
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert!(output.stdout.contains("removed "), "{output:#?}");
    assert_eq!(fs::read(elsewhere.join("precious")).unwrap(), b"precious");
    assert_eq!(fs::read(elsewhere.join("linked")).unwrap(), kept);
    assert_eq!(
        fs::read(elsewhere.join("twice")).unwrap(),
        damaged,
        "another name for the file is another file now"
    );
    assert!(side.join("PG_9.6_201608131/another_server").exists(), "another server's");
    fs::remove_dir_all(side.join("PG_9.6_201608131")).unwrap();
    for gone in ["base/99999", "standby.signal", "postmaster.opts"] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }
    assert!(!version.join("stranger").exists());
    live.is_restored();
}

#[test]
fn wal_that_was_not_archived_is_kept() {
    let Some(live) = Stopped::new() else { return };
    let wal = live.dir().join("pg_wal");
    let mut names: Vec<_> =
        files_below(&wal).iter().map(|file| file.strip_prefix(&wal).unwrap().to_owned()).collect();
    names.retain(|name| !name.starts_with("summaries"));
    assert!(names.iter().any(|name| name.to_str().unwrap().len() == 24), "{names:?}");
    let output = live.restore(&OVER).json();
    let note = output["notes"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|note| note.as_str().filter(|note| note.contains("WAL")))
        .unwrap();
    let id = output["backup"].as_str().unwrap();
    let aside = wal.join(format!("before-{id}"));
    assert!(note.contains(aside.to_str().unwrap()), "{note}");
    for name in names {
        assert!(aside.join(&name).exists(), "{}", name.display());
    }
    live.is_restored();
    let again = live.restore(&OVER).json();
    assert!(wal.join(format!("before-{id}.2")).exists() && aside.exists(), "{again}");
}

#[test]
fn a_directory_that_is_not_the_clusters_is_refused() {
    let Some(mut live) = Stopped::new() else { return };
    live.refused(&[], &["not empty"]);
    let plan = live.restore(&["--dry-run"]).json();
    assert!(plan["notes"][0].as_str().unwrap().contains("would be refused"), "{plan}");
    let plan = live.restore(&["--dry-run", "--delta", "--yes"]).json();
    assert_eq!(plan["notes"].as_array().map_or(0, Vec::len), 0, "{plan}");
    // A copy of the cluster links to the same tablespace.
    live.refused(&["--delta"], &["space", "not empty"]);
    a_running_server_is_refused(&mut live);
    // The WAL's file system is not mounted.
    let wal = live.dir().join("pg_wal");
    fs::rename(&wal, live.scratch.join("wal")).unwrap();
    symlink(live.scratch.join("not mounted"), &wal).unwrap();
    live.refused(&OVER, &["not there"]);
    fs::remove_file(&wal).unwrap();
    fs::rename(live.scratch.join("wal"), &wal).unwrap();
    // Nothing says whose it is.
    let control = live.dir().join("global/pg_control");
    let content = fs::read(&control).unwrap();
    fs::remove_file(&control).unwrap();
    live.refused(&["--delta"], &["nothing proves"]);
    fs::write(&control, &content[..100]).unwrap();
    live.scratch.own(&control);
    let damaged = live.restore(&["--delta"]);
    assert_eq!(damaged.code, Some(4), "{damaged:#?}");
    assert!(damaged.stderr.contains("--yes"), "{damaged:#?}");
    // Another cluster's.
    let other = Cluster::builder(&live.scratch).create().unwrap();
    fs::copy(other.data_dir().join("global/pg_control"), &control).unwrap();
    live.refused(&["--delta"], &["system identifier"]);
    live.refused(&["--delta", "--yes"], &["system identifier"]);
    fs::remove_file(&control).unwrap();
    let confirmed = live.restore(&OVER);
    assert_eq!(confirmed.code, Some(0), "{confirmed:#?}");
    live.is_restored();
    // A tablespace's place that is not linked from there, and holds something.
    let link = fs::read_dir(live.dir().join("pg_tblspc")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&link).unwrap();
    let refused = live.restore(&OVER);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    // Without --delta, --yes means nothing.
    assert_eq!(live.restore(&["--yes"]).code, Some(2));
    // Where there is nothing, it is a restore like any other.
    let new = live.scratch.join("new");
    let mapping =
        format!("{}={}", live.scratch.join("space").display(), live.scratch.join("space2").display());
    assert_eq!(live.product.restore_to(&new, &["--delta", "--tablespace", &mapping]).code, Some(0));
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o700);
}

fn a_running_server_is_refused(live: &mut Stopped) {
    live.cluster.start();
    live.refused(&OVER, &["server may be running"]);
    // A backend outlives its postmaster.
    let mut client = live.cluster.client_command("psql");
    client.args(["-Xc", "do $$ begin loop null; end loop; end $$"]);
    let mut client = Background::start(client, live.scratch.join("client.log"));
    let busy = "select pid from pg_stat_activity where query like 'do %' and state = 'active'";
    wait_until("the backend is busy", Duration::from_secs(60), || !live.cluster.psql(busy).is_empty());
    let backend = live.cluster.psql(busy).parse().unwrap();
    let kill =
        |pid: u32| kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    kill(live.cluster.pid().unwrap());
    live.cluster.wait_ended();
    live.refused(&OVER, &["server may be running", &format!("process {backend}")]);
    fs::remove_file(live.dir().join("postmaster.pid")).unwrap();
    live.refused(&OVER, &["server may be running"]);
    kill(backend);
    client.wait(Duration::from_secs(60));
}
