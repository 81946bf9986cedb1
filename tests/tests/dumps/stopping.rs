//! Runs and restores that are told to stop: nothing half is left, and it is told.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walarchive_tests::filled::files_below;
use walarchive_tests::{Options, Output, Product, tree_of, wait_until};

use super::Night;

const PATIENCE: Duration = Duration::from_secs(30);
/// What would go on for longer than that was not ended.
const SOON: Duration = Duration::from_secs(20);
const SIGNALS: [(Signal, &str); 3] =
    [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP")];

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts the program so that it hears of the signals: who runs tests in the background may ignore SIGINT, and what is ignored is
/// inherited.
fn hearing(night: &Night, product: &Product, args: &[&str]) -> Child {
    let mut command = night.scratch.command("env");
    start(command.arg("--default-signal=INT,HUP,TERM").arg(product.script("walarchive")).args(args))
}

/// Sends the signal to the program alone, and waits until it and all that it has started are gone.
fn told(child: Child, signal: Signal) -> Output {
    let tree = tree_of(child.id());
    assert!(tree.len() > 1, "programs run");
    kill_process(Pid::from_child(&child), signal).unwrap();
    let since = Instant::now();
    let output = Output::of(&child.wait_with_output().unwrap());
    assert!(since.elapsed() < SOON, "it took {:?}: {output:?}", since.elapsed());
    wait_until("its programs are gone", SOON, || tree.iter().all(|process| tree_of(*process).is_empty()));
    output
}

#[test]
fn a_run_that_is_told_to_stop_ends_its_programs_and_tells_of_it() {
    let Some(mut night) = Night::begin(Options::default()) else { return };
    night.sql("postgres", "create database app");
    night.product.set("WALARCHIVE_DUMP_KEEP_LAST", "1");
    assert_eq!(night.run(&["create", "--no-globals"]).code, Some(0));
    let before = files_below(&night.product.archive_dir());
    let (began, status, letter) =
        (night.scratch.join("began"), night.scratch.join("status"), night.scratch.join("letter"));
    let script = format!("$REAL \"$@\"; touch {}; sleep 60", began.display());
    let programs = night.with_pg_dump("slow", &script);
    let sendmail = night.program("sendmail", &format!("cat > {}", letter.display()));
    let mut product = night.product.but("WALARCHIVE_BIN_DIR", programs.to_str().unwrap());
    product.set("WALARCHIVE_DUMP_POST_HOOK", &format!("printf %s \"$DUMP_STATUS\" > {}", status.display()));
    product.set("WALARCHIVE_DUMP_MAIL_TO", "dba@example.org");
    product.set("WALARCHIVE_DUMP_SENDMAIL", sendmail.to_str().unwrap());
    for (signal, name) in SIGNALS {
        let run = hearing(&night, &product, &["--json", "dump", "create", "--no-globals"]);
        wait_until("pg_dump has written", PATIENCE, || began.exists());
        let stopped = told(run, signal);
        assert_eq!(stopped.code, Some(6), "{stopped:?}");
        let report = stopped.json();
        assert_eq!((&report["failed"], &report["ok"]), (&2.into(), &false.into()), "{report}");
        for dump in report["dumps"].as_array().unwrap() {
            let why = dump["error"]["message"].as_str().unwrap();
            assert!(why.contains(&format!("stopped by {name}")), "{why}");
        }
        assert_eq!(files_below(&night.product.archive_dir()), before, "no lease, no packs, no manifest");
        assert_eq!(fs::read_to_string(&status).unwrap(), "failed");
        assert!(fs::read_to_string(&letter).unwrap().contains(&format!("stopped by {name}")));
        [&began, &status, &letter].into_iter().for_each(|file| fs::remove_file(file).unwrap());
    }
    // What was to be ignored is.
    let mut nohup = night.scratch.command("nohup");
    let mut run = start(nohup.arg(product.script("walarchive")).args(["dump", "create", "--no-globals"]));
    wait_until("pg_dump has written", PATIENCE, || began.exists());
    kill_process(Pid::from_child(&run), Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.try_wait().unwrap().is_none() && !status.exists(), "it goes on");
    assert!(told(run, Signal::TERM).stderr.contains("stopped by SIGTERM"));
    [&began, &status].into_iter().for_each(|file| fs::remove_file(file).unwrap());
    // Before the first dump.
    product.set("WALARCHIVE_DUMP_PRE_HOOK", &format!("touch {}; sleep 60", began.display()));
    let run = hearing(&night, &product, &["--json", "dump", "create"]);
    wait_until("the hook runs", PATIENCE, || began.exists());
    let stopped = told(run, Signal::TERM);
    assert_eq!((stopped.code, fs::read_to_string(&status).unwrap().as_str()), (Some(6), "failed"));
    assert_eq!(night.run(&["create", "--no-globals"]).code, Some(0), "the next night is a good one");
}

impl Night {
    /// A dump of a database `app`, and a script for it that takes long.
    fn with_app(&self) -> String {
        self.sql("postgres", "create database app");
        self.sql("app", "create table t as select n from generate_series(1, 1000) n");
        assert_eq!(self.run(&["create", "--no-globals"]).code, Some(0));
        self.scratch.write("slow.sql", "select pg_sleep(60)").display().to_string()
    }

    fn wait_for_the_script(&self) {
        let sleeps = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()";
        wait_until("the script runs", PATIENCE, || self.sql("postgres", sleeps) == "1");
    }
}

const SWAP: [&str; 7] = ["--json", "dump", "restore", "latest", "--database", "app", "--swap"];

#[test]
fn a_restore_that_is_told_to_stop_leaves_nothing() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let script = night.with_app();
    let scratch = night.scratch.dir("passing");
    let slow = night.with_pg_dump("slow", "exec $REAL \"$@\"");
    fs::remove_file(slow.join("pg_restore")).unwrap();
    let began = night.scratch.join("began");
    night.program("slow/pg_restore", &format!("touch {}; sleep 60", began.display()));
    let mut product = night.product.but("WALARCHIVE_BIN_DIR", slow.to_str().unwrap());
    product.set("WALARCHIVE_DUMP_SCRATCH_DIR", scratch.to_str().unwrap());
    let is_as_before = |stopped: &Output, name: &str| {
        assert_eq!(stopped.code, Some(6), "{stopped:?}");
        assert!(stopped.stderr.contains(&format!("stopped by {name}")), "{stopped:?}");
        assert_eq!(night.databases(), ["app", "postgres"], "{stopped:?}");
        assert_eq!(night.sql("app", "select count(*) from t"), "1000");
    };
    for (signal, name) in SIGNALS {
        let args = [&SWAP[..], &["--transform", &script]].concat();
        let run = hearing(&night, &night.product, &args);
        night.wait_for_the_script();
        is_as_before(&told(run, signal), name);

        let run = hearing(&night, &product, &[&SWAP[..], &["--jobs", "2"]].concat());
        wait_until("pg_restore runs", PATIENCE, || began.exists());
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1);
        is_as_before(&told(run, signal), name);
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "the scratch directory is empty");
        fs::remove_file(&began).unwrap();
    }
}

#[test]
fn what_a_killed_restore_has_left_is_named_by_the_next_one() {
    let Some(night) = Night::begin(Options::default()) else { return };
    let script = night.with_app();
    let mut run = start(&mut night.product.command(&[&SWAP[..], &["--transform", &script]].concat()));
    night.wait_for_the_script();
    run.kill().unwrap();
    run.wait().unwrap();
    let left = night.databases().into_iter().find(|name| name.starts_with("app_restore_")).unwrap();
    // Others are not meant.
    night.sql("postgres", "create database app_restore_mine");
    night.sql("postgres", "create database appx_restore_0123abcd");
    let done = night.product.run(&SWAP);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.json()["leftovers"], serde_json::json!([left]), "{done:?}");
    let how = format!("DROP DATABASE \"{left}\"");
    assert!(done.stderr.contains(&how), "{done:?}");
    let refused = night.run(&["restore", "latest", "--database", "app"]);
    assert!(refused.code == Some(3) && refused.stderr.contains(&how), "also when it is refused: {refused:?}");
    night.sql("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()");
    night.sql("postgres", &how);
    let quiet = night.product.run(&SWAP);
    assert!(quiet.code == Some(0) && !quiet.stderr.contains("DROP DATABASE"), "{quiet:?}");
}

#[test]
fn the_lock_is_in_a_directory_of_the_user_s_own() {
    use std::os::unix::fs::PermissionsExt;
    let Some(night) = Night::begin(Options::default()) else { return };
    let mode = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
    let without_state = night.product.but("WALARCHIVE_STATE_DIR", "/proc/nowhere");
    let create = |product: &Product| product.run(&["--json", "dump", "create", "--no-globals"]);
    let done = create(&without_state);
    assert_eq!(done.code, Some(0), "{done:?}");
    let in_home = night.scratch.join(".local/state/walarchive");
    assert!(fs::read_dir(&in_home).unwrap().count() == 1 && mode(&in_home) == 0o700);

    // Without a home it is in that of temporary files, unless somebody else may write there, too.
    let temporary = night.scratch.dir("temporary");
    let mut homeless = without_state.but("HOME", "/nowhere");
    homeless.set("TMPDIR", temporary.to_str().unwrap());
    let done = create(&homeless);
    assert_eq!(done.code, Some(0), "{done:?}");
    let entries: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    let own = entries.iter().find(|path| path.is_dir()).unwrap();
    assert_eq!(mode(own), 0o700);
    fs::set_permissions(own, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = create(&homeless);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains(own.to_str().unwrap()), "{refused:?}");
}
