//! pgBackRest: level 1, two processes.

use std::path::Path;

use walarchive_tests::{Cluster, Scratch};

use super::{Backups, Contender, Make, MakeOn, first_line, look_for, runs, socket};
use crate::Who;

pub struct Variant {
    name: &'static str,
    place: &'static str,
    /// Lines of its configuration.
    settings: &'static str,
}

/// One segment for each call.
pub const SYNC: Variant =
    Variant { name: "pgBackRest, zstd, not encrypted", place: "pgbackrest", settings: "compress-type=zst" };
pub const SYNC_LZ4: Variant = Variant {
    name: "pgBackRest, lz4, not encrypted",
    place: "pgbackrest-lz4",
    settings: "compress-type=lz4",
};
/// A process behind the calls stores, or gets, segments before they are asked for.
pub const ASYNC: Variant = Variant {
    name: "pgBackRest async, zstd, not encrypted",
    place: "pgbackrest-async",
    settings: "compress-type=zst\narchive-async=y",
};
pub const ASYNC_SEALED: Variant = Variant {
    name: "pgBackRest async, zstd, AES",
    place: "pgbackrest-aes",
    settings: "compress-type=zst\narchive-async=y\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=benches",
};

pub fn set_up(scratch: &Scratch, cluster: &Cluster, variant: &Variant) -> Option<Contender<'static>> {
    let program = look_for(&["pgbackrest"])?;
    let repository = scratch.dir(variant.place);
    let settings = settings(&repository, cluster, variant.settings);
    let config = scratch.write(format!("{}.conf", variant.place), settings);
    let (own, home) = (program.clone(), scratch.clone());
    let command = move |args: &[&str]| {
        let mut command = home.command(&own);
        command.arg(format!("--config={}", config.display())).arg("--stanza=main").args(args);
        command
    };
    let mut asked = scratch.command(&program);
    asked.arg("version");
    let version = first_line(&runs(variant.name, asked)?);
    runs(variant.name, command(&["stanza-create"]))?;
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
        ..Contender::new(variant.name, Who::Other, variant.place, repository)
    })
}

/// Backups do not wait for their WAL here: the server archives it nowhere.
fn settings(repository: &Path, cluster: &Cluster, variant: &str) -> String {
    let (place, data_dir, socket) = (repository.display(), cluster.data_dir().display(), socket(cluster));
    format!(
        "[global]\nrepo1-path={place}/repo\nrepo1-retention-full=9\nlock-path={place}/lock\nspool-path={place}/spool\nlog-path={place}/log
log-level-file=off\nlog-level-console=error\nprocess-max=2\n{variant}\ncompress-level=1\nstart-fast=y\narchive-check=n
archive-copy=n\n[main]\npg1-path={data_dir}\npg1-socket-path={socket}\npg1-port=5432\npg1-user=postgres\n"
    )
}
