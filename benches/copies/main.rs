//! An archive proven to its last byte, and copied: beside what reading, digesting and unpacking the same bytes takes by itself, and
//! beside programs that check and copy any files (`rclone`) or backups of their own (`restic`), where they are in `PATH`. All
//! in one run; what is compared is CPU time, for a stored byte.

mod floors;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use walarchive_benches::contenders::{look_for, versions};
use walarchive_benches::{Report, Table, Used, Who, smoke};
use walarchive_tests::{Cluster, Options, Product, Scratch, bytes_below};

use floors::{digest, unpack};

const ROUNDS: usize = 3;
/// Rows of four uuids for a MB of a table.
const OF_A_MB: u32 = 10_300;

/// MB of rows that are backed up, and archived as WAL: `--mb N` on the command line, else 400.
fn wanted_mb() -> u32 {
    let mut args = std::env::args().skip_while(|arg| arg != "--mb").skip(1);
    let said = args.next().map(|number| number.parse().expect("--mb is followed by a number"));
    said.unwrap_or(if smoke() { 5 } else { 400 })
}

/// Something to measure. What it makes is removed after it.
struct Case<'a> {
    name: &'static str,
    who: Who,
    /// Stored bytes that it looks at.
    bytes: u64,
    run: Box<dyn Fn() -> Used + 'a>,
    makes: Option<PathBuf>,
}

struct Place {
    scratch: Scratch,
    sealed: Product,
    plain: Product,
}

fn main() {
    let mut report = Report::new("copies");
    let Some(place) = Place::new() else { return };
    let others = [place.rclone(), place.restic()];
    let mut proofs = place.proofs();
    let mut copies = place.copies();
    for (mut more_proofs, mut more_copies) in others.into_iter().flatten() {
        proofs.append(&mut more_proofs);
        copies.append(&mut more_copies);
    }
    report.fact(versions(&[], &["cp", "rclone", "restic"]));
    report.fact(format!("{:.0} MB stored, encrypted", bytes_below(&place.sealed.archive_dir()) as f64 / 1e6));
    report.add(measure("verify: all of it proven, for 100 MB stored", &proofs));
    report.add(measure("copy: all of it copied, for 100 MB stored", &copies));
    report.finish();
}

/// Has all cases take turns; what they took, beside the first one. Not all of them look at the same bytes: times are for as many.
fn measure(what: &str, cases: &[Case<'_>]) -> Table {
    let mut taken: Vec<Vec<Used>> = vec![Vec::new(); cases.len()];
    for _ in 0..if smoke() { 1 } else { ROUNDS } {
        for (case, taken) in cases.iter().zip(&mut taken) {
            rustix::fs::sync();
            taken.push((case.run)());
            if let Some(made) = &case.makes {
                fs::remove_dir_all(made).expect("remove what was made");
            }
        }
    }
    let mut table = Table::new(what, cases[0].name);
    for (case, taken) in cases.iter().zip(&taken) {
        let used = Used::middle(taken);
        let share = 100e6 / case.bytes as f64;
        let used = Used { wall: used.wall.mul_f64(share), cpu: used.cpu.mul_f64(share), ..used };
        let speed = |time: Duration| 100.0 / time.as_secs_f64();
        let note = format!("{:.0} MB/s of CPU, {:.0} MB/s", speed(used.cpu), speed(used.wall));
        table.noted(case.who, case.name, used, None, note);
    }
    table
}

impl Place {
    /// Two archives with a backup and the WAL of what it has; `None`, after a loud note, where PostgreSQL is not installed.
    fn new() -> Option<Place> {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).conf("shared_buffers = 256MB").conf("max_wal_size = 4GB");
        let cluster = cluster.start()?;
        let sealed = Product::new(&scratch);
        let plain = Product::with(&scratch, Options { encrypted: false, ..Options::default() });
        for product in [&sealed, &plain] {
            cluster.archive_with(product);
            cluster.psql(&format!(
                "drop table if exists t;
                 create table t as select gen_random_uuid() a, gen_random_uuid() b, gen_random_uuid() c, gen_random_uuid() d
                 from generate_series(1, {})",
                wanted_mb() * OF_A_MB
            ));
            cluster.archive_now();
            product.back_up(&cluster, &["--full"]);
        }
        Some(Place { scratch, sealed, plain })
    }

    fn proofs(&self) -> Vec<Case<'_>> {
        let verify = |product: &Product, jobs: &str| {
            let product = product.clone();
            let jobs = jobs.to_owned();
            move || Used::by(product.command(&["--no-progress", "verify", "--deep", "--jobs", &jobs]))
        };
        let (sealed, plain) = (self.sealed.archive_dir(), self.plain.archive_dir());
        let (of_sealed, of_plain) = (bytes_below(&sealed), bytes_below(&plain));
        let case = |who, name, bytes, run| Case { who, name, bytes, run, makes: None };
        vec![
            case(
                Who::Floor,
                "read and digested (BLAKE3), 1 thread",
                of_sealed,
                Box::new(move || digest(&sealed)),
            ),
            case(Who::Floor, "unpacked (zstd), 1 thread", of_plain, Box::new(move || unpack(&plain))),
            case(Who::Ours, "verify --deep --jobs 1, age", of_sealed, Box::new(verify(&self.sealed, "1"))),
            case(Who::Ours, "verify --deep --jobs 4, age", of_sealed, Box::new(verify(&self.sealed, "4"))),
            case(
                Who::Ours,
                "verify --deep --jobs 4, not encrypted",
                of_plain,
                Box::new(verify(&self.plain, "4")),
            ),
        ]
    }

    fn copies(&self) -> Vec<Case<'_>> {
        let (from, to) = (self.sealed.archive_dir(), self.scratch.join("copy"));
        let url = format!("file://{}", to.display());
        let mut writer = self.sealed.clone();
        writer.unset("WALARCHIVE_IDENTITY_FILE");
        let copy = |product: &Product| {
            let (product, url) = (product.clone(), url.clone());
            move || Used::by(product.command(&["--no-progress", "copy", "--to", &url]))
        };
        let case = |who, name, of: &Path, run| Case {
            who,
            name,
            bytes: bytes_below(of),
            run,
            makes: Some(to.clone()),
        };
        let (source, target) = (from.clone(), to.clone());
        let cp = move || {
            let mut shell = self.scratch.command("sh");
            shell.args(["-c", "cp -r \"$1\" \"$2\" && sync -f \"$2\"", "sh"]).args([&source, &target]);
            Used::by(shell)
        };
        vec![
            case(Who::Floor, "cp -r, synced", &from, Box::new(cp)),
            case(Who::Ours, "copy, age, proven", &from, Box::new(copy(&self.sealed))),
            case(Who::Ours, "copy, age, without an identity", &from, Box::new(copy(&writer))),
            case(
                Who::Ours,
                "copy, not encrypted, proven",
                &self.plain.archive_dir(),
                Box::new(copy(&self.plain)),
            ),
        ]
    }

    /// The same files, checked against a copy and copied.
    fn rclone(&self) -> Option<(Vec<Case<'_>>, Vec<Case<'_>>)> {
        let program = look_for(&["rclone"])?;
        let from = self.sealed.archive_dir();
        let run = move |what: &str, to: &Path| {
            let mut command = self.scratch.command(&program);
            command
                .env("RCLONE_CONFIG", "/dev/null")
                .args([what, "--quiet"])
                .arg(self.sealed.archive_dir())
                .arg(to);
            command
        };
        let (there, to) = (self.scratch.join("rclone"), self.scratch.join("rclone-copy"));
        succeeds(run("copy", &there));
        let (bytes, copy, made) = (bytes_below(&from), run.clone(), Some(to.clone()));
        let check = Box::new(move || Used::by(run("check", &there)));
        let copy = Box::new(move || Used::by(copy("copy", &to)));
        Some((
            vec![Case { who: Who::Other, name: "rclone check (reads both)", bytes, run: check, makes: None }],
            vec![Case { who: Who::Other, name: "rclone copy, not synced", bytes, run: copy, makes: made }],
        ))
    }

    /// A repository with the same bytes: they are no longer compressible, and in no other backup.
    fn restic(&self) -> Option<(Vec<Case<'_>>, Vec<Case<'_>>)> {
        let program = look_for(&["restic"])?;
        let (there, to) = (self.scratch.join("restic"), self.scratch.join("restic-copy"));
        let restic = move |repository: &Path, args: &[&str]| {
            let mut command = self.scratch.command(&program);
            command.env("RESTIC_PASSWORD", "bench").env("RESTIC_FROM_PASSWORD", "bench");
            command.args(["--quiet", "--no-cache", "--repo"]).arg(repository).args(args);
            command
        };
        let from = self.sealed.archive_dir().display().to_string();
        succeeds(restic(&there, &["init"]));
        succeeds(restic(&there, &["backup", &from]));
        let bytes = bytes_below(&there);
        let anew = |args: Vec<String>| {
            let (restic, to) = (restic.clone(), to.clone());
            Box::new(move || {
                succeeds(restic(&to, &["init"]));
                Used::by(restic(&to, &args.iter().map(String::as_str).collect::<Vec<_>>()))
            })
        };
        let source = there.display().to_string();
        let copies = [
            ("restic backup of the files", vec!["backup".to_owned(), from]),
            ("restic copy", vec!["copy".to_owned(), "--from-repo".to_owned(), source]),
        ];
        let copies = copies.map(|(name, args)| Case {
            who: Who::Other,
            name,
            bytes,
            run: anew(args),
            makes: Some(to.clone()),
        });
        let check = restic.clone();
        let check = Box::new(move || Used::by(check(&there, &["check", "--read-data"])));
        Some((
            vec![Case { who: Who::Other, name: "restic check --read-data", bytes, run: check, makes: None }],
            copies.into_iter().collect(),
        ))
    }
}

fn succeeds(mut command: Command) {
    let done = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {done:?}");
}
