//! Who archives.

use std::path::{Path, PathBuf};

use walarchive_benches::Who;
use walarchive_benches::contenders::{Barman, Contender, others_with_wal};
use walarchive_tests::stores::Bucket;
use walarchive_tests::{Cluster, Options, Product, Scratch};

use crate::line::Line;

/// A way to archive, and to get back.
pub struct Case {
    pub name: String,
    pub who: Who,
    pub archive: Line,
    pub restore: Line,
    /// Removed when it is not needed any more.
    pub repository: Option<PathBuf>,
}

const AHEAD: &[(&str, &str)] = &[("WALARCHIVE_WAL_PUSH_AHEAD", "64"), ("WALARCHIVE_WAL_FETCH_AHEAD", "8")];
/// Each call does its own segment, and no other.
pub const NOTHING_AHEAD: &[(&str, &str)] =
    &[("WALARCHIVE_WAL_PUSH_AHEAD", "0"), ("WALARCHIVE_WAL_FETCH_AHEAD", "0")];
const LZ4: &[(&str, &str)] = &[("WALARCHIVE_WAL_CODEC", "lz4")];
/// The server calls for fewer segments than there are.
const BATCH_DONE: &[(&str, &str)] = &[("WALARCHIVE_WAL_BATCH_DONE", "true")];
/// As urgent as the programs of others.
const NOT_NICE: &[(&str, &str)] = &[("WALARCHIVE_WAL_NICE", "0")];

/// Ours and those of others, in directories. The cluster runs.
pub fn in_directories(scratch: &Scratch, cluster: &Cluster) -> Vec<Case> {
    let mut cases = vec![
        ours(scratch, "walarchive, age", true, None, &[]),
        ours(scratch, "walarchive, age, not nice", true, None, NOT_NICE),
        ours(scratch, "walarchive, age, batch_done", true, None, BATCH_DONE),
        ours(scratch, "walarchive, age, nothing ahead", true, None, NOTHING_AHEAD),
        ours(scratch, "walarchive, not encrypted", false, None, &[]),
        ours(scratch, "walarchive, age, lz4", true, None, LZ4),
        cp(scratch),
    ];
    cases.extend(others_with_wal(scratch, cluster).into_iter().filter_map(of));
    cases
}

/// Those that can store in a bucket such as this.
pub fn in_bucket(scratch: &Scratch, bucket: &Bucket) -> Vec<Case> {
    let mut cases = vec![
        ours(scratch, "walarchive, age", true, Some(bucket), &[]),
        ours(scratch, "walarchive, age, nothing ahead", true, Some(bucket), NOTHING_AHEAD),
        ours(scratch, "walarchive, not encrypted", false, Some(bucket), &[]),
        ours(scratch, "walarchive, age, lz4", true, Some(bucket), LZ4),
    ];
    let barman = Barman::find(scratch, bucket);
    cases.extend(barman.map(|barman| Case {
        name: barman.name("archive"),
        who: Who::Other,
        archive: Line::of(&barman.push(Path::new("%p"))),
        restore: Line::of(&barman.fetch("%f", Path::new("%p"))),
        repository: None,
    }));
    cases
}

/// This product, with an archive and a directory of its own for what it remembers.
pub fn ours(
    scratch: &Scratch,
    name: &str,
    encrypted: bool,
    bucket: Option<&Bucket>,
    settings: &[(&str, &str)],
) -> Case {
    let product = product(scratch, encrypted, bucket);
    let line = |program: &str, args: &[&str]| {
        let line = Line::of(&product.command_of(program, args));
        AHEAD.iter().chain(settings).fold(line, |line, (name, value)| line.with(name, value))
    };
    Case {
        name: name.to_owned(),
        who: Who::Ours,
        archive: line("walarchive-push", &["%p"]),
        restore: line("walarchive-fetch", &["%f", "%p"]),
        repository: bucket.is_none().then(|| product.archive_dir()),
    }
}

/// This product, with a new archive.
pub fn product(scratch: &Scratch, encrypted: bool, bucket: Option<&Bucket>) -> Product {
    let Some(bucket) = bucket else {
        return Product::with(scratch, Options { encrypted, ..Options::default() });
    };
    let bucket = bucket.with_prefix(&format!("archives/{}", crate::unique()));
    let options = Options { encrypted, init: false, archive: Some(bucket.url()), ..Options::default() };
    let mut product = Product::with(scratch, options);
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
    product.ok(if encrypted { &["init"] } else { &["init", "--no-encryption"] });
    product
}

pub const CP: &str = "cp + sync, not compressed";

/// The system's own programs, a call for each segment.
fn cp(scratch: &Scratch) -> Case {
    let (dir, to) = directory(scratch);
    let archive = format!("cp %p {to} && sync {to} {}", dir.display());
    shell(CP, archive, format!("cp {to} %p"), dir)
}

pub fn zstd(scratch: &Scratch) -> Case {
    let (dir, to) = directory(scratch);
    let archive = format!("zstd -q -1 --single-thread -c %p > {to}.zst && sync {to}.zst {}", dir.display());
    shell("zstd -1 + sync", archive, format!("zstd -q -d -c {to}.zst > %p"), dir)
}

fn directory(scratch: &Scratch) -> (PathBuf, String) {
    let dir = scratch.dir(format!("files{}", crate::unique()));
    let to = format!("{}/%f", dir.display());
    (dir, to)
}

fn shell(name: &str, archive: String, restore: String, dir: PathBuf) -> Case {
    let (archive, restore) = (Line::shell(archive), Line::shell(restore));
    Case { name: name.to_owned(), who: Who::Floor, archive, restore, repository: Some(dir) }
}

fn of(contender: Contender<'static>) -> Option<Case> {
    let (push, fetch) = (contender.push?, contender.fetch?);
    Some(Case {
        name: contender.name.to_owned(),
        who: contender.who,
        archive: Line::of(&push(Path::new("%p"))),
        restore: Line::of(&fetch("%f", Path::new("%p"))),
        repository: Some(contender.repository),
    })
}
