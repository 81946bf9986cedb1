//! What a server's archiver does, without a server: one command after the other. In a process of its own, which adopts what
//! commands leave behind, so that the CPU time of all of them is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use walarchive_benches::check_fetched;

use crate::line::Line;

/// The arguments that make this program the process of its own: a line and a file for the durations follow, and names of segments
/// that shall only be ready when those before are done.
pub const ARCHIVE: &str = "--archive";
/// Names of segments follow.
pub const FETCH: &str = "--fetch";

/// The directory of notes, from a data directory.
pub const STATUS: &str = "pg_wal/archive_status";

/// The working directory is the data directory.
pub fn run(args: &[String]) -> bool {
    match args {
        [mode, line, durations, names @ ..] if mode == ARCHIVE => {
            archive(line, Path::new(durations), names);
        }
        [mode, line, names @ ..] if mode == FETCH => fetch(line, names),
        _ => return false,
    }
    true
}

/// Archives what is named, or all that is ready, in order. The first duration is that of the whole.
fn archive(line: &str, durations: &Path, names: &[String]) {
    adopt();
    let begun = Instant::now();
    let mut took = Vec::new();
    for name in if names.is_empty() { ready() } else { names.to_vec() } {
        let note = Path::new(STATUS).join(format!("{name}.ready"));
        if !names.is_empty() {
            fs::write(&note, "").expect("note that a segment is ready");
        }
        // A command may have archived more than it was asked to.
        if !note.exists() {
            continue;
        }
        let call = Instant::now();
        shell(&Line::fill(line, &name, &format!("pg_wal/{name}")));
        took.push(call.elapsed());
        if note.exists() {
            fs::rename(&note, note.with_extension("done")).expect("note that a segment is archived");
        }
    }
    took.insert(0, begun.elapsed());
    wait_for_all();
    let text: Vec<String> = took.iter().map(|took| took.as_nanos().to_string()).collect();
    fs::write(durations, text.join("\n")).expect("write the durations");
}

/// Gets segments back, and compares them.
fn fetch(line: &str, names: &[String]) {
    adopt();
    for name in names {
        shell(&Line::fill(line, name, "pg_wal/RECOVERYXLOG"));
        check_fetched(&Path::new("pg_wal").join(name), Path::new("pg_wal/RECOVERYXLOG"));
    }
    wait_for_all();
}

fn ready() -> Vec<String> {
    let entries = fs::read_dir(STATUS).expect("list the notes");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned())).collect();
    names.sort();
    names
}

fn shell(line: &str) {
    let status = Command::new("sh").args(["-c", line]).stdout(Stdio::null()).status().expect("run sh");
    assert!(status.success(), "{line}: {status}");
}

/// From now on, what children leave behind are children of this process.
pub fn adopt() {
    set_child_subreaper(Some(getpid())).expect("adopt what is left behind");
}

fn wait_for_all() {
    // There is an error when there are no more.
    while wait(WaitOptions::empty()).is_ok() {}
}

/// The durations that an archiver wrote: of the whole, and of each call.
pub fn durations(file: &PathBuf) -> (Duration, Vec<Duration>) {
    let text = fs::read_to_string(file).expect("read the durations");
    let mut all = text.lines().map(|line| Duration::from_nanos(line.parse().expect("a duration")));
    (all.next().expect("a duration of the whole"), all.collect())
}
