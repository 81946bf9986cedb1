//! `walarchive demo`: proves the whole circle, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use walarchive_tests::{Options, Output, Product, Scratch, User, postgres_bin, require, wait_until};

/// What the demo promises.
const LIMIT: Duration = Duration::from_secs(60);

/// The programs alone: the demo makes its archive itself.
fn product(scratch: &Scratch) -> Product {
    Product::with(scratch, Options { encrypted: false, init: false, ..Options::default() })
}

/// The demo as whoever runs the tests, in an environment full of other people's settings.
fn as_ourselves(product: &Product) -> Command {
    let mut command = Command::new(product.program("walarchive"));
    command.stdin(Stdio::null());
    disturbed(command)
}

/// The same, as the unprivileged user.
fn as_user(scratch: &Scratch, product: &Product) -> Command {
    disturbed(scratch.command(product.program("walarchive")))
}

fn disturbed(mut command: Command) -> Command {
    for (name, value) in [
        ("WALARCHIVE_ARCHIVE", "s3://somebody-elses/archive"),
        ("WALARCHIVE_CONFIG", "/nonexistent.toml"),
        ("WALARCHIVE_WAL_CODEC", "nonsense"),
        ("WALARCHIVE_NO_SUCH_SETTING", "x"),
        ("WALARCHIVE_CONNECTION", "host=/nonexistent"),
        ("PGDATA", "/nonexistent"),
        ("PGHOST", "/nonexistent"),
        ("PGPORT", "1"),
        ("PGUSER", "nobody-we-know"),
        ("PGOPTIONS", "-c no_such_setting=1"),
        ("PGDATABASE", "nonexistent"),
    ] {
        command.env(name, value);
    }
    command.args(["--json", "demo"]);
    command
}

/// Processes that work in `dir`, or were told of it.
fn processes_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if line.contains(&dir.display().to_string()) || cwd.starts_with(dir) {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

fn run(mut command: Command) -> Output {
    Output::of(&command.output().unwrap())
}

/// A demo that proved everything and left nothing.
fn assert_proven(command: Command, dir: &Path, pgbench: bool) -> Value {
    let begun = Instant::now();
    let output = run(command);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    assert!(begun.elapsed() < LIMIT, "the demo took {:?}", begun.elapsed());
    let report = output.json();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["differences"], serde_json::json!([]));
    assert_eq!(report["timelines"], serde_json::json!([1, 2]));
    assert_eq!(report["ledger"]["before"], report["ledger"]["restored"]);
    assert!(report["ledger"]["before"].as_u64().unwrap() >= 80, "{report}");
    assert!(report["ledger"]["after"].as_u64().unwrap() >= 40, "{report}");
    let balance = &report["balance"];
    assert!(balance["transactions"].as_u64().unwrap() > 0, "{report}");
    assert_eq!((&balance["accounts"], &balance["tellers"]), (&balance["history"], &balance["branches"]));
    assert_eq!(report["pg_verifybackup"], if pgbench { Value::Bool(true) } else { Value::Null });
    assert!(report["moment"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    // Every step is told, and which is the last.
    assert!((1..=8).all(|step| output.stderr.contains(&format!("{step}/8 "))), "{}", output.stderr);
    assert_eq!(processes_in(dir), Vec::<String>::new());
    report
}

#[test]
fn whoever_runs_it_gets_a_proof_and_a_clean_machine() {
    if require("pgbench").and(require("postgres")).is_none() {
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch);
    let dir = scratch.dir("work");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = as_ourselves(&product);
    command.arg("--dir").arg(&dir).arg("--pg-bin").arg(postgres_bin().unwrap());
    assert_proven(command, &dir, true);
    assert!(is_empty(&dir), "something was left in {}", dir.display());
}

#[test]
fn an_unprivileged_user_needs_no_pgbench() {
    if require("postgres").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch);
    let bin = scratch.dir("only");
    for name in ["postgres", "initdb"] {
        symlink(postgres_bin().unwrap().join(name), bin.join(name)).unwrap();
    }
    // Not there yet, a name to quote, and too long for a socket.
    let dir = scratch.join(format!("it's {}", "long ".repeat(20)));
    let mut command = as_user(&scratch, &product);
    command.arg("--pg-bin").arg(&bin).arg("--dir").arg(&dir);
    assert_proven(command, &dir, false);
    assert!(!dir.exists(), "{} was left", dir.display());
}

#[test]
fn what_is_kept_is_where_it_says() {
    if require("postgres").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch);
    let dir = scratch.join("kept");
    let mut command = as_user(&scratch, &product);
    command.arg("--keep").arg("--dir").arg(&dir);
    let output = run(command);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    assert_eq!(output.json()["work_dir"], dir.display().to_string());
    assert!(output.stderr.contains(&dir.display().to_string()), "{}", output.stderr);
    assert!(dir.join("restored/PG_VERSION").exists() && dir.join("archive/archive.json").exists());
    assert!(!dir.join("data").exists(), "the cluster should have been destroyed");
    assert_eq!(processes_in(&dir), Vec::<String>::new());
}

/// Starts the demo, lets it come as far as `sign`, sends it `signal`, and waits for its end.
fn stopped(mut command: Command, sign: &Path, signal: Signal) -> Option<i32> {
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the demo has a server", LIMIT, || {
        assert_eq!(child.try_wait().unwrap(), None, "the demo ended early");
        sign.exists()
    });
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn told_to_stop_it_takes_everything_with_it() {
    if require("postgres").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch);
    let dir = scratch.join("stopped");
    for (signal, code) in [(Signal::TERM, Some(143)), (Signal::INT, Some(130))] {
        let mut command = as_ourselves(&product);
        command.arg("--dir").arg(&dir);
        assert_eq!(stopped(command, &dir.join("data/postmaster.pid"), signal), code);
        assert_eq!(processes_in(&dir), Vec::<String>::new());
        assert!(!dir.exists(), "{} was left", dir.display());
    }
}

#[test]
fn killed_itself_it_leaves_no_server_to_root() {
    if User::unprivileged().is_none() || require("postgres").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch);
    let dir = scratch.join("killed");
    let mut command = as_ourselves(&product);
    command.arg("--dir").arg(&dir);
    assert_eq!(stopped(command, &dir.join("data/postmaster.pid"), Signal::KILL), None);
    wait_until("what it had started is gone", LIMIT, || processes_in(&dir).is_empty());
    assert!(is_empty(&dir), "something was left in {}", dir.display());
}

#[test]
fn without_postgresql_it_says_what_to_do() {
    let scratch = Scratch::new();
    let product = product(&scratch);
    let (bin, dir) = (scratch.dir("none"), scratch.join("work"));
    let mut command = as_ourselves(&product);
    command.arg("--dir").arg(&dir).arg("--pg-bin").arg(&bin);
    let output = run(command);
    assert_eq!(output.code, Some(2), "{output:#?}");
    let message = output.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("initdb") && message.contains(&bin.display().to_string()), "{message}");
    assert!(message.contains("--pg-bin"), "{message}");
    assert!(!dir.exists(), "it made {} all the same", dir.display());
}

#[test]
fn a_directory_in_use_and_settings_of_another_archive_are_refused() {
    if require("postgres").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch);
    let file: PathBuf = scratch.dir("used").join("precious");
    fs::write(&file, "x").unwrap();
    let mut command = as_user(&scratch, &product);
    command.arg("--dir").arg(file.parent().unwrap());
    assert_eq!(run(command).code, Some(3));
    assert!(file.exists());
    let mut command = as_user(&scratch, &product);
    command.args(["--archive", "file:///srv/archive"]);
    assert_eq!(run(command).code, Some(2));
}
