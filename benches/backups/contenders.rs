//! Who backs up: this product, what is compared with it, and the programs of others.

use std::path::Path;
use std::process::Command;

use walarchive_benches::Who;
use walarchive_benches::contenders::{Backups, Contender, MakeOn, others};
use walarchive_tests::stores;
use walarchive_tests::{Options, Product};

use crate::place::Live;

/// What the others are compared with in the steps that it takes part in.
pub const FLOOR: &str = "tar | zstd -1 -T2, synced";

/// The same program with two places to store in.
pub const IN_DIRECTORY: &str = "walarchive, age";
pub const IN_S3: &str = "walarchive, age, in S3";

/// All that are there. The first is the floor.
pub fn all(live: &Live) -> Vec<Contender<'_>> {
    let sealed = in_directory(live, IN_DIRECTORY, "sealed", Options::default());
    let plain = Options { encrypted: false, ..Options::default() };
    let plain = in_directory(live, "walarchive, not encrypted", "plain", plain);
    let mut all = vec![floor(live), basebackup(live), sealed, plain];
    all.extend(in_s3(live));
    all.extend(others(&live.scratch, &live.cluster));
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
    let proven = packed.clone();
    Contender {
        full: Some(Box::new(move || {
            let script = "tar -C \"$1\" --exclude ./pg_wal --exclude ./postmaster.pid -cf - . | zstd -q -1 -T2 > \"$2\" && sync \"$2\"";
            shell(live, script, &[data_dir, &packed])
        })),
        restore: Some(Box::new(move |target| {
            shell(live, "zstd -q -dc \"$1\" | tar -C \"$2\" -xf - && sync -f \"$2\"", &[&source, target])
        })),
        verify: Some(Box::new(move || shell(live, "zstd -q -t \"$1\"", &[&proven]))),
        ..Contender::new(FLOOR, Who::Floor, "floor", repository)
    }
}

/// Stores the files as they are.
fn basebackup(live: &Live) -> Contender<'_> {
    let repository = live.scratch.dir("basebackup");
    let target = repository.join("plain");
    Contender {
        full: Some(Box::new(move || {
            let mut command = live.cluster.client_command("pg_basebackup");
            command.args(["-X", "none", "-c", "fast", "-D"]).arg(&target);
            command
        })),
        ..Contender::new("pg_basebackup, synced", Who::Other, "basebackup", repository)
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
    let (next, prove) = (make.clone(), product.clone());
    Contender {
        backups,
        full: Some(Box::new(move || make(&["--full"]))),
        increment: Some(Box::new(move || next(&[]))),
        restore: Some(Box::new(move |target| into(&[], target))),
        delta: restores_over(&product)
            .then(|| Box::new(move |target: &Path| over(&["--delta"], target)) as MakeOn<'a>),
        verify: Some(Box::new(move || prove.command(&["--no-progress", "verify", "--deep", "--jobs", "2"]))),
        ..Contender::new(name, Who::Ours, place, repository)
    }
}

/// Whether this version can restore into a directory with an older state.
fn restores_over(product: &Product) -> bool {
    product.run(&["restore", "--help"]).stdout.contains("--delta")
}
