//! The cluster back into service, over one that is there: or, whatever goes wrong, the one that was there as it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walarchive_tests::{Background, Cluster, Moments, Output, Product, Scratch, find, kills, wait_until};

/// A cluster in service, as its administrator starts it, that has gone on since the moment that is wanted back.
struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
    /// What the server is started with.
    options: String,
}

impl Live {
    /// `None`, after a loud note, when PostgreSQL is not installed.
    fn begin() -> Option<Live> {
        let live = Live::create()?;
        live.cluster.append_conf(&format!("unix_socket_directories = '{}'", live.socket()));
        Some(live.go())
    }

    /// One that is reached only because of what its server was started with.
    fn begin_with_options() -> Option<Live> {
        let mut live = Live::create()?;
        live.cluster.append_conf("port = 5439");
        live.options = format!("-k {} -c port=5432 -c 'work_mem=3 MB'", live.socket());
        Some(live.go())
    }

    fn create() -> Option<Live> {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").create()?;
        cluster.archive_with(&product);
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        product.set("PGDATA", &cluster.data_dir().display().to_string());
        product.set("WALARCHIVE_RESTORE_LATEST_TIMEOUT", "60s");
        product.set("WALARCHIVE_STORE_RETRY_BUDGET", "1s");
        Some(Live { scratch, product, cluster, options: String::new() })
    }

    fn socket(&self) -> String {
        let conninfo = self.cluster.conninfo();
        conninfo.split_whitespace().next().unwrap().trim_start_matches("host=").to_owned()
    }

    fn go(self) -> Live {
        self.start();
        self.cluster.psql("create table t as select generate_series(1, 1000) as n");
        self.product.back_up(&self.cluster, &[]);
        self.cluster.psql("insert into t values (1001)");
        self.cluster.psql("select pg_create_restore_point('good')");
        self.cluster.psql("insert into t values (0)");
        self.cluster.archive_now();
        self
    }

    fn start(&self) {
        self.pg_ctl(&["-w", "-o", &self.options, "start"]);
    }

    fn pg_ctl(&self, args: &[&str]) -> bool {
        let mut command = self.scratch.command(find("pg_ctl").unwrap());
        command
            .arg("-s")
            .arg("-D")
            .arg(self.cluster.data_dir())
            .arg("-l")
            .arg(self.scratch.join("pg.log"))
            .args(args);
        // Not piped: the server would hold the pipe open.
        command.status().unwrap().success()
    }

    fn args<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--json", "restore-latest", "--to", "name:good", "--timeline", "current"], more].concat()
    }

    fn run(&self, more: &[&str]) -> Output {
        self.product.run(&self.args(more))
    }

    /// Which state is in service: `old`, `new` or none.
    fn state(&self) -> &'static str {
        match self.cluster.try_psql("select count(*), min(n), pg_is_in_recovery() from t").as_deref() {
            Ok("1002|0|f") => "old",
            Ok("1001|1|f") => "new",
            _ => "none",
        }
    }

    /// The names beside the data directory that are of it.
    fn beside(&self) -> BTreeSet<String> {
        let own = self.cluster.data_dir().file_name().unwrap().to_str().unwrap().to_owned();
        let entries = fs::read_dir(self.cluster.data_dir().parent().unwrap()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let of_it = names.filter_map(|name| Some(name.strip_prefix(&own)?.to_owned()));
        of_it.filter(|rest| !rest.is_empty() && !rest.ends_with(".log")).collect()
    }

    fn before(&self) -> Option<PathBuf> {
        let found = self.beside().into_iter().find(|name| name.starts_with(".before-"))?;
        Some(PathBuf::from(format!("{}{found}", self.cluster.data_dir().display())))
    }

    /// Puts the old state back by hand.
    fn reset(&self) {
        if let Some(before) = self.before() {
            self.pg_ctl(&["-w", "-m", "immediate", "stop"]);
            fs::remove_dir_all(self.cluster.data_dir()).unwrap();
            fs::rename(before, self.cluster.data_dir()).unwrap();
            self.start();
        }
        for name in self.beside().into_iter().filter(|name| name.starts_with(".undone-")) {
            fs::remove_dir_all(format!("{}{name}", self.cluster.data_dir().display())).unwrap();
        }
        assert_eq!(self.state(), "old");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.pg_ctl(&["-m", "immediate", "stop"]);
    }
}

fn started(data_dir: &Path) -> String {
    fs::read_to_string(data_dir.join("postmaster.pid")).unwrap_or_default()
}

#[test]
fn a_cluster_comes_back_into_service_and_the_old_one_is_kept() {
    let Some(live) = Live::begin() else { return };
    let dry = live.run(&[]);
    assert_eq!((dry.code, live.state(), live.beside().len()), (Some(0), "old", 0), "{dry:#?}");
    let hooks = live.scratch.write("hooks", "").display().to_string();
    let (pre, post) = (format!("echo pre >> {hooks}"), format!("echo post $RESTORE_STATUS >> {hooks}"));
    let done = live.run(&[
        "--yes",
        "--pre-hook",
        &pre,
        "--post-hook",
        &post,
        "--check-sql",
        "select 1 / (count(*) - 1000) from t",
    ]);
    assert_eq!((done.code, live.state()), (Some(0), "new"), "{done:#?}");
    let report = done.json();
    println!("a small cluster was back in service after {} ms", report["duration_ms"]);
    assert_eq!(report["backup"], live.product.json(&["backup", "list"])["backups"][0]["id"]);
    assert!(report["reached_lsn"].is_string() && report["reached_time"].is_string(), "{report:#}");
    let old = PathBuf::from(report["old_dir"].as_str().unwrap());
    assert_eq!(Some(&old), live.before().as_ref());
    assert!(old.join("PG_VERSION").exists());
    assert_eq!(live.beside().len(), 1, "{:?}", live.beside());
    assert_eq!(fs::read_to_string(&hooks).unwrap(), "pre\npost ok\n");
    // It archives, on a timeline of its own.
    live.cluster.psql("insert into t values (5)");
    live.cluster.archive_now();
    assert_eq!(live.product.json(&["wal", "list"])["timelines"].as_array().unwrap().len(), 2);
    // Without an old one.
    live.pg_ctl(&["-w", "-m", "fast", "stop"]);
    fs::remove_dir_all(live.cluster.data_dir()).unwrap();
    let done = live.run(&["--yes"]);
    assert_eq!(
        (done.code, live.state(), &done.json()["old_dir"]),
        (Some(0), "new", &serde_json::Value::Null),
        "{done:#?}"
    );
}

#[test]
fn what_cannot_be_done_touches_nothing() {
    let Some(live) = Live::begin() else { return };
    let running = started(live.cluster.data_dir());
    let touched = live.scratch.join("touched");
    let hook = format!("touch {}", touched.display());
    let refused = |product: &Product, more: &[&str], code: i32, why: &str| {
        let args = live.args(&[&["--yes", "--pre-hook", &hook], more].concat());
        let output = product.run(&args);
        assert_eq!(output.code, Some(code), "{why}: {output:#?}");
        assert!(output.stderr.contains(why), "{why}: {output:#?}");
        assert_eq!((live.state(), live.beside().len(), touched.exists()), ("old", 0, false), "{why}");
        assert_eq!(started(live.cluster.data_dir()), running, "{why}: the server was not restarted");
    };
    let product = &live.product;
    let mut blind = product.clone();
    blind.unset("WALARCHIVE_IDENTITY_FILE");
    refused(&blind, &[], 4, "identity");
    let away =
        product.but("WALARCHIVE_ARCHIVE", "s3://b/p?endpoint=http://127.0.0.1:9&allow_http=true&region=x");
    let away = away.but("AWS_ACCESS_KEY_ID", "x").but("AWS_SECRET_ACCESS_KEY", "x");
    refused(&away, &[], 5, "opening the archive");
    let marked = product.but("WALARCHIVE_RESTORE_LATEST_PRODUCTION_NAME", "shop");
    refused(&marked, &[], 3, "production");
    refused(&marked, &["--production-name", "ship"], 3, "production");
    refused(product, &["--production-name", "shop"], 3, "shop");
    refused(&product.but("WALARCHIVE_BIN_DIR", "/nowhere"), &[], 2, "/nowhere");
    refused(product, &["--backup", "20200101T000000Z-00000000"], 1, "20200101T000000Z-00000000");
    let space = live.scratch.dir("space");
    live.cluster.psql(&format!("create tablespace s location '{}'", space.display()));
    live.product.back_up(&live.cluster, &[]);
    live.cluster.archive_now();
    let latest = ["--to", "latest"];
    let args = |more: &[&'static str]| [&["--json", "restore-latest", "--yes"], &latest[..], more].concat();
    let output = product.run(&args(&[]));
    assert_eq!((output.code, live.state(), live.beside().len()), (Some(3), "old", 0), "{output:#?}");
    assert!(output.stderr.contains("tablespace"), "{output:#?}");
    for n in [2000, 2001] {
        live.cluster.psql(&format!("insert into t values ({n})"));
        live.cluster.archive_now();
    }
    live.cluster.psql("delete from t where n >= 2000");
    let timeline = product.cluster_dir().join("wal/00000001/00000000");
    let mut segments: Vec<PathBuf> =
        fs::read_dir(timeline).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.file_name().unwrap().len() == 24);
    segments.sort();
    fs::remove_file(&segments[segments.len() - 2]).unwrap();
    let output = product.run(&args(&[]));
    assert_eq!((output.code, live.state(), live.beside().len()), (Some(3), "old", 0), "{output:#?}");
    assert!(output.stderr.contains("is missing"), "{output:#?}");
    assert_eq!(started(live.cluster.data_dir()), running);
}

#[test]
fn whatever_fails_later_brings_the_old_one_back() {
    let Some(live) = Live::begin() else { return };
    let wrong = live.run(&["--yes", "--check-sql", "select 1 / (count(*) - 1001) from t"]);
    assert_eq!((wrong.code.is_some_and(|code| code != 0), live.state()), (true, "old"), "{wrong:#?}");
    assert!(
        wrong.stderr.contains("division by zero") && wrong.stderr.contains("as it was before"),
        "{wrong:#?}"
    );
    assert!(live.beside().iter().all(|name| name.starts_with(".undone-")), "{:?}", live.beside());
    live.cluster.archive_now();
    let timelines = live.product.json(&["wal", "list"])["timelines"].clone();
    assert_eq!(timelines.as_array().unwrap().len(), 1, "what was undone is in nobody's way: {timelines:#}");
    let start = live.run(&["--yes", "--start-command", "test -e /nowhere"]);
    assert_eq!(start.code, Some(6), "{start:#?}");
    live.start();
    live.reset();
    let hook = live.run(&["--yes", "--pre-hook", "false"]);
    assert_eq!((hook.code, live.state(), live.beside().len()), (Some(6), "old", 0), "{hook:#?}");
    assert_eq!(live.run(&["--undo"]).code, Some(1), "there is nothing to undo");
}

#[test]
fn what_a_server_was_started_with_holds_for_the_new_one_and_again_for_the_old_one() {
    let Some(live) = Live::begin_with_options() else { return };
    let set = "select current_setting('work_mem')";
    let wrong = live.run(&["--yes", "--check-sql", "select 1 / 0"]);
    assert!(wrong.stderr.contains("division by zero"), "it was not reached: {wrong:#?}");
    assert!(wrong.stderr.contains("its server runs again"), "{wrong:#?}");
    assert_eq!((live.state(), live.cluster.psql(set).as_str()), ("old", "3MB"));
    let done = live.run(&["--yes", "--check-sql", "select 1 / (count(*) - 1000) from t"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!((live.state(), live.cluster.psql(set).as_str()), ("new", "3MB"));
    assert_eq!(done.json()["elsewhere"], serde_json::Value::Null);
}

#[test]
fn a_server_that_listens_elsewhere_is_found_there_and_told_of() {
    let Some(live) = Live::begin() else { return };
    let there = live.scratch.dir("there");
    let start = format!(
        "{} -D {} -W -s -l {} -o '-k {} -p 5438' start",
        find("pg_ctl").unwrap().display(),
        live.cluster.data_dir().display(),
        live.scratch.join("there.log").display(),
        there.display()
    );
    let done = live.run(&["--yes", "--start-command", &start, "--check-sql", "create table checked ()"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(done.stderr.contains("not where postgres.connection leads"), "{done:#?}");
    assert_eq!(done.json()["elsewhere"], serde_json::json!({ "host": there, "port": 5438 }));
    let mut psql = live.cluster.client_command("psql");
    psql.env("PGHOST", &there).env("PGPORT", "5438");
    psql.args(["-X", "-A", "-t", "-d", "postgres", "-c", "table checked; show archive_command"]);
    let said = Output::of(&psql.output().unwrap());
    assert!(said.stdout.contains("walarchive-push"), "it archives: {said:#?}");
}

#[test]
fn options_that_archive_cannot_be_held_back_and_are_refused() {
    let Some(mut live) = Live::begin() else { return };
    live.options = "-c archive_command=false".to_owned();
    live.pg_ctl(&["-w", "-m", "fast", "stop"]);
    live.start();
    let running = started(live.cluster.data_dir());
    let refused = live.run(&["--yes"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("archive_command on its command line"), "{refused:#?}");
    assert_eq!((live.state(), live.beside().len()), ("old", 0));
    assert_eq!(started(live.cluster.data_dir()), running);
}

#[test]
fn killed_at_any_moment_the_old_or_the_new_one_runs_afterwards() {
    let Some(live) = Live::begin() else { return };
    let begun = Instant::now();
    assert_eq!(live.run(&["--yes"]).code, Some(0));
    let times = kills(10);
    let (mut moments, mut hits, mut seen) = (Moments::new(begun.elapsed(), times), 0, BTreeSet::new());
    for n in 0..times {
        live.reset();
        let after = moments.wait();
        let command = live.product.command(&live.args(&["--yes"]));
        let mut running = Background::start(command, live.scratch.join("log"));
        let begun = Instant::now();
        while begun.elapsed() < after && running.ended().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let is_hit = running.ended().is_none();
        moments.was_hit(is_hit);
        running.kill();
        hits += u32::from(is_hit);
        let has_journal = live.beside().contains(".restore-latest.json");
        if has_journal {
            let left = live.run(&[]);
            assert_eq!(left.code, Some(3), "it is not passed over: {left:#?}");
        }
        let (end, expected) = match (has_journal, n % 2) {
            (true, 0) => (live.run(&["--undo"]), "old"),
            (true, _) => (live.run(&["--yes"]), "new"),
            (false, _) => (live.run(&[]), live.state()),
        };
        assert_eq!(end.code, Some(0), "{end:#?}");
        wait_until("the server answers", Duration::from_secs(30), || live.state() != "none");
        assert_eq!(live.state(), expected, "kill {n} after {after:?}");
        seen.insert((has_journal, expected));
        assert!(
            !live.beside().iter().any(|name| name.contains("restore-latest") || name.starts_with(".new-")),
            "{:?}",
            live.beside()
        );
    }
    println!("{hits} of {times} were hit; seen: {seen:?}");
    assert!(
        hits > times / 4 && seen.contains(&(true, "old")) && seen.contains(&(true, "new")),
        "{hits} of {times}: {seen:?}"
    );
}
