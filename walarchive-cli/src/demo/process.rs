//! Processes: started with a known environment, watched, and ended with all that they started.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use walarchive_core::{Error, Result};

use super::failed;
use super::place::Place;
use crate::interrupt::Interrupt;

/// How many lines of a program's messages are worth repeating.
const TAIL: usize = 12;
/// How long killed processes may take to vanish.
const VANISHING: Duration = Duration::from_secs(10);

/// What all processes of the demo share.
#[derive(Debug)]
pub(super) struct Stage {
    home: PathBuf,
    logs: PathBuf,
    variables: Vec<(OsString, OsString)>,
    /// For whoever waits.
    pub(super) interrupt: Interrupt,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Stage {
    /// `PATH` begins with `bins`; nothing else of the caller's environment is passed on but where libraries are.
    pub(super) fn new(place: &Place, bins: &[&Path], config: &Path, interrupt: &Interrupt) -> Result<Stage> {
        let path = env::var_os("PATH").unwrap_or_default();
        let bins = bins.iter().map(|bin| bin.to_path_buf()).chain(env::split_paths(&path));
        let path = env::join_paths(bins)
            .map_err(|error| failed("the path of a program has a colon in it").because(error))?;
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), path),
            ("HOME".into(), place.path().into()),
            ("LC_ALL".into(), "C".into()),
            ("WALARCHIVE_CONFIG".into(), config.into()),
        ];
        variables
            .extend(env::var_os("LD_LIBRARY_PATH").map(|libraries| ("LD_LIBRARY_PATH".into(), libraries)));
        let (home, logs) = (place.path().to_owned(), place.dir("logs")?);
        Ok(Stage { home, logs, variables, interrupt: interrupt.clone() })
    }

    /// A command that inherits nothing but what is said in [`Stage::new`].
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Ctrl-C reaches the demo alone, which ends what it started in the right order.
        command.current_dir(&self.home).stdin(Stdio::null()).process_group(0);
        command
    }

    /// Starts `command`; what it says goes to files that `name` is part of.
    pub(super) fn start(&self, name: &str, mut command: Command) -> Result<Running> {
        let log = |end: &str| {
            let path = self.logs.join(format!("{name}.{end}"));
            let file = File::create(&path);
            file.map(|file| (file, path))
                .map_err(|error| Error::io(format!("cannot make the log of {name}"), error))
        };
        let ((out, out_path), (err, err_path)) = (log("out")?, log("err")?);
        let child = command.stdout(out).stderr(err).spawn();
        let child = child.map_err(|error| {
            Error::io(format!("cannot run {}", Path::new(command.get_program()).display()), error)
        })?;
        Ok(Running { child, name: name.to_owned(), out: out_path, err: err_path })
    }

    /// Runs `command` to its end, however that is.
    pub(super) fn finish(&self, name: &str, command: Command, limit: Duration) -> Result<Finished> {
        let mut running = self.start(name, command)?;
        let mut status = None;
        self.interrupt.wait(&format!("{name} ends"), limit, || {
            status = running.ended()?;
            Ok(status.is_some())
        })?;
        let status = status.ok_or_else(|| Error::bug("a program that ended has no status"))?;
        Ok(Finished { status, stdout: read(&running.out), stderr: read(&running.err) })
    }

    /// Runs `command`; what it printed. An error with its last words when it fails.
    pub(super) fn run(&self, name: &str, command: Command, limit: Duration) -> Result<String> {
        let finished = self.finish(name, command, limit)?;
        if finished.status.success() {
            return Ok(finished.stdout);
        }
        Err(failed(format!("{name} failed ({}): {}", finished.status, tail(&finished.stderr))))
    }
}

/// A process; killed with all that descends from it when dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| Error::io(format!("cannot wait for {}", self.name), error))
    }

    /// Its last words.
    pub(super) fn last_words(&self) -> String {
        tail(&read(&self.err))
    }

    /// Sends a signal to the process alone, and waits until it and all that descended from it are gone. What is still
    /// there after `patience` is killed.
    pub(super) fn end(&mut self, signal: Signal, patience: Duration) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let tree = tree_of(self.child.id());
        if let Some(pid) = pid(self.child.id()) {
            let _ = kill_process(pid, signal);
        }
        if !self.gone_within(&tree, patience) {
            tree.iter().filter_map(|number| pid(*number)).for_each(|pid| {
                let _ = kill_process(pid, Signal::KILL);
            });
            self.gone_within(&tree, VANISHING);
        }
    }

    fn gone_within(&mut self, tree: &[u32], limit: Duration) -> bool {
        let begun = Instant::now();
        loop {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended && !tree.iter().any(|pid| is_alive(*pid)) {
                return true;
            }
            if begun.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Signal::KILL, VANISHING);
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// The processes that descend from `root`, itself first. Process groups would not do: each process of the server leads
/// one of its own.
fn tree_of(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, (_, parent)) in pids.filter_map(|pid| Some((pid, stat(pid)?))) {
        children.entry(parent).or_default().push(pid);
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(pid) = tree.get(next) {
        let more = children.remove(pid).unwrap_or_default();
        tree.extend(more);
        next += 1;
    }
    tree
}

fn is_alive(number: u32) -> bool {
    let there = pid(number).is_some_and(|pid| test_kill_process(pid).is_ok());
    // A zombie waits for nobody but its parent.
    there && stat(number).is_none_or(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The state and the parent of a process, where the system tells.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; what follows the last one does not.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
