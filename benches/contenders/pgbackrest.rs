//! pgBackRest: zstd at level 1, two processes, not encrypted, one call for each segment.

use std::path::Path;

use walarchive_tests::{Cluster, Scratch};

use super::{Backups, Contender, Make, MakeOn, first_line, look_for, runs, socket};
use crate::Who;

const NAME: &str = "pgBackRest, zstd, not encrypted";

pub fn set_up(scratch: &Scratch, cluster: &Cluster) -> Option<Contender<'static>> {
    let program = look_for(&["pgbackrest"])?;
    let repository = scratch.dir("pgbackrest");
    let settings = settings(&repository, cluster);
    let config = scratch.write("pgbackrest.conf", settings);
    let (own, home) = (program.clone(), scratch.clone());
    let command = move |args: &[&str]| {
        let mut command = home.command(&own);
        command.arg(format!("--config={}", config.display())).arg("--stanza=main").args(args);
        command
    };
    let mut asked = scratch.command(&program);
    asked.arg("version");
    let version = first_line(&runs(NAME, asked)?);
    runs(NAME, command(&["stanza-create"]))?;
    let make = |args: &'static [&'static str]| {
        let command = command.clone();
        Some(Box::new(move || command(args)) as Make<'static>)
    };
    let into = |args: &'static [&'static str]| {
        let command = command.clone();
        Some(Box::new(move |target: &Path| {
            let mut command = command(args);
            command.arg(format!("--pg1-path={}", target.display()));
            command
        }) as MakeOn<'static>)
    };
    let (push, fetch) = (command.clone(), command.clone());
    Some(Contender {
        version,
        backups: Backups::Below(repository.join("repo/backup")),
        push: Some(Box::new(move |segment| push(&["archive-push", &segment.display().to_string()]))),
        fetch: Some(Box::new(move |name, target| {
            fetch(&["archive-get", name, &target.display().to_string()])
        })),
        full: make(&["--type=full", "backup"]),
        increment: make(&["--type=incr", "backup"]),
        restore: into(&["--type=immediate", "restore"]),
        delta: into(&["--type=immediate", "--delta", "restore"]),
        verify: make(&["verify"]),
        ..Contender::new(NAME, Who::Other, "pgbackrest", repository)
    })
}

/// Backups do not wait for their WAL here: the server archives it nowhere.
fn settings(repository: &Path, cluster: &Cluster) -> String {
    let (place, data_dir, socket) = (repository.display(), cluster.data_dir().display(), socket(cluster));
    format!(
        "[global]\nrepo1-path={place}/repo\nrepo1-retention-full=9\nlock-path={place}/lock\nspool-path={place}/spool\nlog-path={place}/log
log-level-file=off\nlog-level-console=error\nprocess-max=2\ncompress-type=zst\ncompress-level=1\nstart-fast=y\narchive-check=n
archive-copy=n\n[main]\npg1-path={data_dir}\npg1-socket-path={socket}\npg1-port=5432\npg1-user=postgres\n"
    )
}
