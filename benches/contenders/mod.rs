//! Programs of others that do the same work, where they are in `PATH`: each with a new repository, and commands that are ready
//! to run. What is missing, or cannot run here, is said in one line and left out.

mod barman;
mod pgbackrest;
mod wal_g;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use walarchive_tests::stores::Bucket;
use walarchive_tests::{Cluster, Scratch, bytes_below_but, find};

use crate::Who;

pub use barman::Barman;

/// A command, ready to run.
pub type Make<'a> = Box<dyn Fn() -> Command + 'a>;
/// One that works on a file, or into a directory.
pub type MakeOn<'a> = Box<dyn Fn(&Path) -> Command + 'a>;
/// One that has a segment of this name put into a file.
pub type MakeFetch<'a> = Box<dyn Fn(&str, &Path) -> Command + 'a>;

/// A program that takes part; `None` is what it cannot do.
pub struct Contender<'a> {
    /// What its rows are called.
    pub name: &'static str,
    /// Whose program it is.
    pub who: Who,
    /// As it says it itself.
    pub version: String,
    /// A name for directories.
    pub place: &'static str,
    /// Removed after a round.
    pub repository: PathBuf,
    /// Where its backups are.
    pub backups: Backups,
    /// Stores a segment.
    pub push: Option<MakeOn<'a>>,
    /// Gets a segment back.
    pub fetch: Option<MakeFetch<'a>>,
    /// A backup that depends on no other.
    pub full: Option<Make<'a>>,
    /// One that stores what is new since the last one.
    pub increment: Option<Make<'a>>,
    /// Into an empty directory.
    pub restore: Option<MakeOn<'a>>,
    /// Into a directory with an older state.
    pub delta: Option<MakeOn<'a>>,
    /// Proves all that is stored.
    pub verify: Option<Make<'a>>,
}

impl Contender<'_> {
    /// One that can do nothing yet.
    pub fn new(name: &'static str, who: Who, place: &'static str, repository: PathBuf) -> Self {
        Contender {
            name,
            who,
            version: String::new(),
            place,
            backups: Backups::Below(repository.clone()),
            repository,
            push: None,
            fetch: None,
            full: None,
            increment: None,
            restore: None,
            delta: None,
            verify: None,
        }
    }
}

/// Where backups are.
pub enum Backups {
    /// In a directory.
    Below(PathBuf),
    /// On a server that ends with this, and all that it stores with it.
    In(Bucket),
}

impl Backups {
    /// Stored bytes, WAL not counted.
    pub fn bytes(&self) -> u64 {
        match self {
            Backups::Below(dir) => bytes_below_but(dir, "wal"),
            Backups::In(bucket) => {
                let objects = bucket.raw().list().into_iter();
                objects.filter(|(key, _)| !key.contains("/wal/")).map(|(_, size)| size).sum()
            }
        }
    }
}

/// Those that store in directories, set up for a server that runs.
pub fn others(scratch: &Scratch, cluster: &Cluster) -> Vec<Contender<'static>> {
    let all = [
        pgbackrest::set_up(scratch, cluster, &pgbackrest::SYNC),
        wal_g::set_up(scratch, cluster, &wal_g::WAL_G),
        wal_g::set_up(scratch, cluster, &wal_g::WAL_RUS),
    ];
    all.into_iter().flatten().collect()
}

/// What they can do with WAL besides: another codec, a cipher, more than the segment that they are called for.
pub fn others_with_wal(scratch: &Scratch, cluster: &Cluster) -> Vec<Contender<'static>> {
    let all = [
        pgbackrest::set_up(scratch, cluster, &pgbackrest::SYNC_LZ4),
        pgbackrest::set_up(scratch, cluster, &pgbackrest::ASYNC),
        pgbackrest::set_up(scratch, cluster, &pgbackrest::ASYNC_SEALED),
        wal_g::set_up(scratch, cluster, &wal_g::WAL_G_AHEAD),
        wal_g::set_up(scratch, cluster, &wal_g::WAL_RUS_AHEAD),
    ];
    others(scratch, cluster).into_iter().chain(all.into_iter().flatten()).collect()
}

/// Who took part, in their own words; the tools are those of the system.
pub fn versions(contenders: &[Contender<'_>], tools: &[&str]) -> String {
    let own =
        contenders.iter().map(|contender| contender.version.clone()).filter(|version| !version.is_empty());
    let all: Vec<String> = own.chain(tools.iter().filter_map(|tool| version_of(tool))).collect();
    format!("took part: {}", if all.is_empty() { "nobody else".to_owned() } else { all.join("; ") })
}

/// The version of a program in `PATH`.
fn version_of(program: &str) -> Option<String> {
    let program = find(program)?;
    let ask = |word| Command::new(&program).arg(word).stdin(Stdio::null()).output().ok();
    let says = ["--version", "version"].into_iter().filter_map(ask).find(|output| output.status.success());
    says.as_ref().map(first_line)
}

/// The path of the first of these that is in `PATH`; else says that the first one is not.
pub fn look_for(programs: &[&str]) -> Option<PathBuf> {
    let found = programs.iter().find_map(|program| find(program));
    if found.is_none() {
        say_once(format!("{} is not in PATH: not compared with", programs[0]));
    }
    found
}

/// The output of a command that a contender has to be able to run; where it fails, says that it is left out.
pub fn runs(name: &str, mut command: Command) -> Option<Output> {
    match command.output() {
        Ok(output) if output.status.success() => return Some(output),
        Ok(output) => say_once(format!("{name} cannot run here and is left out: {}", first_line(&output))),
        Err(error) => say_once(format!("{name} cannot run here and is left out: {error}")),
    }
    None
}

/// Says a line, but not again: contenders are set up anew for each round.
pub fn say_once(line: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&line) {
        eprintln!("{line}");
        said.insert(line);
    }
}

fn first_line(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim_matches(['*', ' ']).to_owned()
}

/// A command that runs as we do, with none of our settings: the unprivileged user may be unable to reach what is in our `PATH`.
pub fn as_ourselves(program: &Path, scratch: &Scratch) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).env("HOME", scratch.path());
    command
}

/// The directory of the server's socket.
fn socket(cluster: &Cluster) -> String {
    let conninfo = cluster.conninfo();
    conninfo.split([' ', '=']).nth(1).expect("a socket's directory").to_owned()
}
