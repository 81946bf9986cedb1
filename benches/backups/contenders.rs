//! Who backs up: each program with a new repository, and commands that are ready to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Options, Product, bytes_below_but, find};

use crate::place::Live;

/// The same program with two places to store in.
pub const IN_DIRECTORY: &str = "walarchive, age";
pub const IN_S3: &str = "walarchive, age, in S3";

type Make<'a> = Box<dyn Fn() -> Command + 'a>;
type MakeInto<'a> = Box<dyn Fn(&Path) -> Command + 'a>;

/// A program that takes part; `None` is what it cannot do.
pub struct Contender<'a> {
    pub name: &'static str,
    /// A name for directories.
    pub place: &'static str,
    /// Removed after a round.
    pub repository: PathBuf,
    pub backups: Backups,
    pub full: Make<'a>,
    pub increment: Option<Make<'a>>,
    /// Into an empty directory.
    pub restore: Option<MakeInto<'a>>,
    /// Into a directory with an older state.
    pub delta: Option<MakeInto<'a>>,
}

/// Where backups are.
pub enum Backups {
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

/// All that are there. The first is the floor.
pub fn all(live: &Live) -> Vec<Contender<'_>> {
    let sealed = in_directory(live, IN_DIRECTORY, "sealed", Options::default());
    let plain = Options { encrypted: false, ..Options::default() };
    let plain = in_directory(live, "walarchive, not encrypted", "plain", plain);
    let others = [in_s3(live), pgbackrest(live), wal_rus(live)];
    let mut all = vec![floor(live), basebackup(live), sealed, plain];
    all.extend(others.into_iter().flatten());
    all
}

fn shell(live: &Live, script: &str, args: &[&Path]) -> Command {
    let mut command = live.scratch.command("sh");
    command.args(["-c", script, "sh"]).args(args);
    command
}

/// What packing and unpacking takes by itself, with the result durable.
fn floor(live: &Live) -> Contender<'_> {
    let repository = live.scratch.dir("floor");
    let packed = repository.join("tar.zst");
    let source = packed.clone();
    let data_dir = live.cluster.data_dir();
    Contender {
        name: "tar | zstd -1 -T2, synced",
        place: "floor",
        backups: Backups::Below(repository.clone()),
        repository,
        full: Box::new(move || {
            let script = "tar -C \"$1\" --exclude ./pg_wal --exclude ./postmaster.pid -cf - . | zstd -q -1 -T2 > \"$2\" && sync \"$2\"";
            shell(live, script, &[data_dir, &packed])
        }),
        increment: None,
        restore: Some(Box::new(move |target| {
            shell(live, "zstd -q -dc \"$1\" | tar -C \"$2\" -xf - && sync -f \"$2\"", &[&source, target])
        })),
        delta: None,
    }
}

/// Stores the files as they are.
fn basebackup(live: &Live) -> Contender<'_> {
    let repository = live.scratch.dir("basebackup");
    let target = repository.join("plain");
    Contender {
        name: "pg_basebackup, synced",
        place: "basebackup",
        backups: Backups::Below(repository.clone()),
        repository,
        full: Box::new(move || {
            let mut command = live.cluster.client_command("pg_basebackup");
            command.args(["-X", "none", "-c", "fast", "-D"]).arg(&target);
            command
        }),
        increment: None,
        restore: None,
        delta: None,
    }
}

fn in_directory<'a>(
    live: &'a Live,
    name: &'static str,
    place: &'static str,
    options: Options,
) -> Contender<'a> {
    let product = Product::with(&live.scratch, options);
    let backups = Backups::Below(product.archive_dir());
    walarchive(live, name, place, product, backups)
}

/// `None`, after a loud note, when SeaweedFS is not installed.
fn in_s3(live: &Live) -> Option<Contender<'_>> {
    let bucket = stores::alone(&live.scratch, stores::Kind::Seaweed)?;
    let options = Options { init: false, archive: Some(bucket.url()), ..Options::default() };
    let mut product = Product::with(&live.scratch, options);
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
    product.ok(&["init"]);
    Some(walarchive(live, IN_S3, "s3", product, Backups::In(bucket)))
}

fn walarchive<'a>(
    live: &'a Live,
    name: &'static str,
    place: &'static str,
    product: Product,
    backups: Backups,
) -> Contender<'a> {
    let (create, restore) = (product.clone(), product.clone());
    let repository = product.archive_dir();
    let into = move |args: &[&str], target: &Path| {
        let mut command = restore.command(&["--no-progress", "restore", "--to", "immediate", "--jobs", "2"]);
        command.args(args).arg("--target-dir").arg(target);
        command
    };
    let over = into.clone();
    let make = move |args: &[&str]| {
        live.archive_with(&create);
        let mut command = create.command(&["--no-progress", "backup", "create", "--jobs", "2"]);
        command.args(args).env("WALARCHIVE_CONNECTION", live.cluster.conninfo());
        command.env("PGDATA", live.cluster.data_dir());
        command
    };
    let next = make.clone();
    Contender {
        name,
        place,
        backups,
        repository,
        full: Box::new(move || make(&["--full"])),
        increment: Some(Box::new(move || next(&[]))),
        restore: Some(Box::new(move |target| into(&[], target))),
        delta: restores_over(&product)
            .then(|| Box::new(move |target: &Path| over(&["--delta"], target)) as MakeInto<'a>),
    }
}

/// Whether this version can restore into a directory with an older state.
fn restores_over(product: &Product) -> bool {
    product.run(&["restore", "--help"]).stdout.contains("--delta")
}

fn pgbackrest(live: &Live) -> Option<Contender<'_>> {
    let program = find("pgbackrest").or_else(|| missing("pgbackrest"))?;
    let repository = live.scratch.dir("pgbackrest");
    let conf = repository.join("pgbackrest.conf");
    std::fs::write(&conf, pgbackrest_conf(live, &repository)).expect("write the settings of pgbackrest");
    live.scratch.own(&repository);
    let backups = Backups::Below(repository.join("repo/backup"));
    let command = move |words: &[&str]| {
        let mut command = live.scratch.command(&program);
        command.arg(format!("--config={}", conf.display())).arg("--stanza=main").args(words);
        command
    };
    let made = command(&["stanza-create"]).output().expect("run pgbackrest");
    assert!(made.status.success(), "{made:?}");
    let restore = command.clone();
    let into = move |words: &[&str], target: &Path| {
        let mut command = restore(&["restore", "--type=immediate"]);
        command.args(words).arg(format!("--pg1-path={}", target.display()));
        command
    };
    let (next, over) = (command.clone(), into.clone());
    Some(Contender {
        name: "pgbackrest, zst 1, not encrypted",
        place: "pgbackrest",
        repository,
        backups,
        full: Box::new(move || command(&["backup", "--type=full"])),
        increment: Some(Box::new(move || next(&["backup", "--type=incr"]))),
        restore: Some(Box::new(move |target| into(&[], target))),
        delta: Some(Box::new(move |target| over(&["--delta"], target))),
    })
}

fn pgbackrest_conf(live: &Live, repository: &Path) -> String {
    let (place, data_dir) = (repository.display(), live.cluster.data_dir().display());
    let socket = socket(live);
    format!(
        "[global]\nrepo1-path={place}/repo\nrepo1-retention-full=9\nlock-path={place}/lock\nspool-path={place}/spool\nlog-path={place}/log
log-level-file=off\nlog-level-console=error\nprocess-max=2\ncompress-type=zst\ncompress-level=1\nstart-fast=y\narchive-check=n
archive-copy=n\n[main]\npg1-path={data_dir}\npg1-socket-path={socket}\npg1-port=5432\npg1-user=postgres\n"
    )
}

fn wal_rus(live: &Live) -> Option<Contender<'_>> {
    let program = find("wal-rus").or_else(|| find("walrus")).or_else(|| missing("wal-rus"))?;
    let repository = live.scratch.dir("walrus");
    let backups = Backups::Below(repository.join("basebackups_005"));
    let prefix = repository.clone();
    let command = move |words: &[&str], place: &Path| {
        let mut command = live.scratch.command(&program);
        command.env("PGHOST", socket(live)).env("PGPORT", "5432").env("PGUSER", "postgres");
        command.env("WALG_FILE_PREFIX", &prefix).env("WALG_COMPRESSION_METHOD", "zstd");
        command.env("WALG_UPLOAD_CONCURRENCY", "2").env("WALG_DOWNLOAD_CONCURRENCY", "2");
        command.env("WALG_DELTA_MAX_STEPS", "5").args(words).arg(place);
        command
    };
    let (next, into) = (command.clone(), command.clone());
    let data_dir = live.cluster.data_dir();
    Some(Contender {
        name: "wal-rus, zstd, not encrypted",
        place: "walrus",
        repository,
        backups,
        full: Box::new(move || command(&["backup-push", "--full"], data_dir)),
        increment: Some(Box::new(move || next(&["backup-push"], data_dir))),
        restore: Some(Box::new(move |target| {
            let mut command = into(&["backup-fetch"], target);
            command.arg("LATEST");
            command
        })),
        delta: None,
    })
}

/// The directory of the server's socket.
fn socket(live: &Live) -> String {
    let conninfo = live.cluster.conninfo();
    conninfo.split([' ', '=']).nth(1).expect("a socket's directory").to_owned()
}

fn missing(program: &str) -> Option<PathBuf> {
    eprintln!("{program} is not in PATH: not compared with");
    None
}
