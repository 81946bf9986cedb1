//! A data directory whose server does not run, with segments that are ready to be archived.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_benches::contenders::say_once;
use walarchive_benches::{Batch, Data, Used, Who, control_system_id, file_name, smoke};
use walarchive_tests::{Cluster, Scratch, reachable};

use crate::archiver::{ARCHIVE, FETCH, STATUS, durations};
use crate::cases::Case;
use crate::line::Line;
use crate::rows::Taken;

/// The number of the first segment: behind all that the server wrote.
const FIRST: u64 = 0x1000;

/// One in so many is compared with what was archived; all of them when it is just to be seen that everything runs.
const COMPARED: usize = 8;

pub struct Backlog {
    scratch: Scratch,
    /// This program, where the unprivileged user reaches it.
    pub program: PathBuf,
    pub data_dir: PathBuf,
    pub segments: Vec<PathBuf>,
}

impl Backlog {
    /// Of segments that are there.
    pub fn new(scratch: &Scratch, cluster: &Cluster, segments: Vec<PathBuf>) -> Backlog {
        let program = std::env::current_exe().expect("the path of this program");
        Backlog {
            program: reachable(scratch, &program),
            scratch: scratch.clone(),
            data_dir: cluster.data_dir().to_owned(),
            segments,
        }
    }

    /// Of segments that are made of real ones, `size` bytes each, behind the first `skipped`.
    pub fn make(scratch: &Scratch, cluster: &Cluster, data: &Data, made: (usize, usize, usize)) -> Backlog {
        let (skipped, count, size) = made;
        let system = Some(control_system_id(cluster.data_dir()));
        let batch = Batch { first: FIRST + skipped as u64, count, size, system };
        let pg_wal = cluster.data_dir().join("pg_wal");
        let segments = batch.write(data, &pg_wal);
        segments.iter().for_each(|segment| scratch.own(segment));
        Backlog::new(scratch, cluster, segments)
    }

    /// Makes the first of them ready, and nothing else.
    pub fn mark(&self, count: usize) {
        let status = self.data_dir.join(STATUS);
        fs::remove_dir_all(&status).expect("remove the notes");
        fs::create_dir(&status).expect("make the directory of notes");
        for segment in &self.segments[..count] {
            fs::write(status.join(format!("{}.ready", file_name(segment))), "").expect("write a note");
        }
        self.scratch.own(&status);
    }

    /// Has what is ready archived, when nothing is left to be written of what was done before. `None`, after a note, when another's
    /// program fails.
    pub fn archive(&self, case: &Case) -> Option<Taken> {
        self.archive_named(case, &[])
    }

    /// Has all of them archived, each made ready when those before are done.
    pub fn archive_one_by_one(&self, case: &Case) -> Option<Taken> {
        self.archive_named(case, &self.segments)
    }

    fn archive_named(&self, case: &Case, segments: &[PathBuf]) -> Option<Taken> {
        let file = self.scratch.join("durations");
        let mut command = self.driver(ARCHIVE, &case.archive);
        command.arg(&file).args(segments.iter().map(|segment| file_name(segment)));
        rustix::fs::sync();
        let used = done(case, command)?;
        let (wall, calls) = durations(&file);
        Some(Taken { used: Used { wall, ..used }, calls, behind: None })
    }

    /// Compares what was archived.
    pub fn compare(&self, case: &Case, count: usize) -> Option<()> {
        let mut command = self.driver(FETCH, &case.restore);
        let step = if smoke() { 1 } else { COMPARED };
        let last = self.segments[..count].last();
        let some = self.segments[..count].iter().step_by(step).chain(last);
        command.args(some.map(|segment| file_name(segment)));
        done(case, command).map(drop)
    }

    fn driver(&self, mode: &str, line: &Line) -> Command {
        let mut command = line.run_by(&self.scratch, &self.program);
        command.current_dir(&self.data_dir).args([mode, &line.text]);
        command
    }
}

fn done(case: &Case, command: Command) -> Option<Used> {
    match Used::tried(command) {
        Ok(used) => Some(used),
        Err(_) if case.who == Who::Other => {
            say_once(format!("{} fails here and is left out", case.name));
            None
        }
        Err(failed) => panic!("{failed}"),
    }
}

/// Removes what a case stored.
pub fn remove(repository: Option<&Path>) {
    if let Some(dir) = repository {
        fs::remove_dir_all(dir).unwrap_or_else(|error| panic!("remove {}: {error}", dir.display()));
    }
}
