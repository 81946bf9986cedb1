//! WAL-G, and wal-rus, which takes the same variables: zstd, two jobs, not encrypted.

use std::path::Path;

use walarchive_tests::{Cluster, Scratch};

use super::{Backups, Contender, first_line, look_for, runs, socket};
use crate::Who;

pub struct Program {
    name: &'static str,
    place: &'static str,
    /// In `PATH`, under one of these names.
    programs: &'static [&'static str],
    /// Segments at the same time. With more than one, a process is left behind that fetches what comes next.
    at_once: &'static str,
}

pub const WAL_G: Program =
    Program { name: "WAL-G, zstd, not encrypted", place: "walg", programs: &["wal-g"], at_once: "1" };
pub const WAL_G_AHEAD: Program =
    Program { name: "WAL-G, zstd, not encrypted, 2 at once", place: "walg-ahead", at_once: "2", ..WAL_G };
pub const WAL_RUS: Program = Program {
    name: "wal-rus, zstd, not encrypted",
    place: "walrus",
    programs: &["wal-rus", "walrus"],
    at_once: "1",
};
pub const WAL_RUS_AHEAD: Program = Program {
    name: "wal-rus, zstd, not encrypted, 2 at once",
    place: "walrus-ahead",
    at_once: "2",
    ..WAL_RUS
};

pub fn set_up(scratch: &Scratch, cluster: &Cluster, which: &Program) -> Option<Contender<'static>> {
    let program = look_for(which.programs)?;
    let mut asked = scratch.command(&program);
    asked.arg("--version");
    let version = first_line(&runs(which.name, asked)?);
    let repository = scratch.dir(which.place);
    let (home, socket, prefix) = (scratch.clone(), socket(cluster), repository.clone());
    let command = move |words: &[&str], jobs: &str| {
        let mut command = home.command(&program);
        command.env("PGHOST", &socket).env("PGPORT", "5432").env("PGUSER", "postgres");
        command.env("WALG_FILE_PREFIX", &prefix).env("WALG_COMPRESSION_METHOD", "zstd");
        command.env("WALG_UPLOAD_CONCURRENCY", jobs).env("WALG_DOWNLOAD_CONCURRENCY", jobs);
        command.env("WALG_DELTA_MAX_STEPS", "5").args(words);
        command
    };
    let data_dir = cluster.data_dir().display().to_string();
    let at_once = which.at_once;
    let (push, fetch) = (command.clone(), command.clone());
    let (full, next, into) = (command.clone(), command.clone(), command);
    let again = data_dir.clone();
    let text = |path: &Path| path.display().to_string();
    Some(Contender {
        version: format!("{}: {version}", which.place),
        backups: Backups::Below(repository.join("basebackups_005")),
        push: Some(Box::new(move |segment| push(&["wal-push", &text(segment)], at_once))),
        fetch: Some(Box::new(move |name, target| fetch(&["wal-fetch", name, &text(target)], at_once))),
        full: Some(Box::new(move || full(&["backup-push", "--full", &data_dir], "2"))),
        increment: Some(Box::new(move || next(&["backup-push", &again], "2"))),
        restore: Some(Box::new(move |target| into(&["backup-fetch", &text(target), "LATEST"], "2"))),
        ..Contender::new(which.name, Who::Other, which.place, repository)
    })
}
