//! Segments stored and fetched again, one process for each. All cases take turns at every segment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_benches::contenders::{Contender, runs};
use walarchive_benches::{Data, Report, Table, Used, Who, check_fetched, file_name, smoke};
use walarchive_tests::filled::files_below;
use walarchive_tests::{Cluster, Options, Product, Scratch};

use crate::segments::{copies, make_noise};

const ROUNDS: usize = 5;

const PACKED: &str = "zstd -1 + sync";
const UNPACKED: &str = "zstd -d + sync";

/// One kind of WAL, and the archives that it goes to.
pub struct Wal {
    scratch: Scratch,
    kind: &'static str,
    segments: Vec<PathBuf>,
    noise: PathBuf,
    sealed: Product,
    plain: Product,
    files: PathBuf,
    fetched: PathBuf,
    system: String,
    pub contenders: Vec<Contender<'static>>,
}

/// What takes part in a comparison.
struct Case<'a> {
    name: &'a str,
    who: Who,
    command: Box<dyn Fn(&Path) -> Command + 'a>,
    /// Whether the archives have to be empty for it.
    afresh: bool,
    used: Vec<Used>,
}

impl<'a> Case<'a> {
    fn new(who: Who, name: &'a str, command: impl Fn(&Path) -> Command + 'a) -> Case<'a> {
        Case { name, who, command: Box::new(command), afresh: false, used: Vec::new() }
    }

    fn afresh(self) -> Case<'a> {
        Case { afresh: true, ..self }
    }
}

impl Wal {
    /// New archives, and segments of the cluster.
    pub fn new(
        scratch: &Scratch,
        data: &Data,
        cluster: Option<&Cluster>,
        contenders: Vec<Contender<'static>>,
    ) -> Wal {
        let wal = scratch.dir(data.name);
        let (segments, system) = copies(data, cluster, &wal);
        let noise = wal.join("noise").join(file_name(&segments[0]));
        fs::create_dir(wal.join("noise")).expect("make a directory");
        make_noise(&segments[0], &noise);
        scratch.own(&wal);
        Wal {
            kind: data.name,
            noise,
            sealed: Product::new(scratch),
            plain: Product::with(scratch, Options { encrypted: false, ..Options::default() }),
            files: scratch.dir(format!("{}-files", data.name)),
            fetched: scratch.dir(format!("{}-fetched", data.name)).join("RECOVERYXLOG"),
            system: system.to_string(),
            segments,
            scratch: scratch.clone(),
            contenders,
        }
    }

    /// Tries every contender with one segment: what a version cannot do is left out, and not measured.
    pub fn leave_out_what_fails(&mut self) {
        let (segment, fetched) = (self.segments[0].clone(), self.fetched.clone());
        self.contenders.retain(|contender| {
            let (Some(push), Some(fetch)) = (&contender.push, &contender.fetch) else { return false };
            let tried = [push(&segment), fetch(&file_name(&segment), &fetched)];
            let can = tried.into_iter().all(|command| runs(contender.name, command).is_some());
            if can {
                check_fetched(&segment, &fetched);
            }
            can
        });
    }

    pub fn measure(&self, report: &mut Report) {
        let (mut pushes, mut fetches) = (self.pushes(), self.fetches());
        let segments = if smoke() { &self.segments[..1] } else { &self.segments[..] };
        for _ in 0..if smoke() { 1 } else { ROUNDS } {
            for segment in segments {
                for case in &mut pushes {
                    if case.afresh {
                        self.clean();
                    }
                    case.used.push(Used::by((case.command)(segment)));
                }
                // What was pushed last is fetched.
                for case in &mut fetches {
                    case.used.push(Used::by((case.command)(segment)));
                    check_fetched(segment, &self.fetched);
                }
            }
        }
        for (what, unit, cases) in [("push", PACKED, pushes), ("fetch", UNPACKED, fetches)] {
            let kind = self.kind;
            let mut table =
                Table::new(format!("{what}: one {kind} segment a call, in a directory, medians"), unit);
            for case in cases {
                table.row(case.who, case.name, Used::middle(&case.used), None);
            }
            report.add(table);
        }
    }

    fn pushes(&self) -> Vec<Case<'_>> {
        use Who::{Floor, Ours};
        let lz4 = self.sealed.but("WALARCHIVE_WAL_CODEC", "lz4");
        let mut cases = vec![
            Case::new(Floor, "sh -c true", |_| self.shell("true", Path::new(""))),
            Case::new(Ours, "walarchive-push --version", |_| {
                self.sealed.command_of("walarchive-push", &["--version"])
            }),
            Case::new(Ours, "walarchive-push, age, lz4", move |segment| push(&lz4, segment)).afresh(),
            Case::new(Ours, "walarchive-push, age, noise", |_| push(&self.sealed, &self.noise)).afresh(),
            Case::new(Ours, "walarchive-push, age", |segment| push(&self.sealed, segment)).afresh(),
            Case::new(Ours, "walarchive-push, stored already", |segment| push(&self.sealed, segment)),
            Case::new(Ours, "walarchive-push, not encrypted", |segment| push(&self.plain, segment)),
            Case::new(Floor, "cp + sync", |segment| self.shell("cp \"$1\" \"$2\" && sync \"$2\" .", segment)),
            Case::new(Floor, PACKED, |segment| {
                self.shell("zstd -q -1 --single-thread -c \"$1\" > \"$2.zst\" && sync \"$2.zst\" .", segment)
            }),
        ];
        for contender in &self.contenders {
            let push = contender.push.iter();
            cases.extend(push.map(|push| Case::new(contender.who, contender.name, push)));
        }
        cases
    }

    fn fetches(&self) -> Vec<Case<'_>> {
        use Who::{Floor, Ours};
        let fetch = |product: &Product, segment: &Path| {
            let mut command = product.command_of("walarchive-fetch", &[&file_name(segment)]);
            command.arg(&self.fetched).env("WALARCHIVE_SYSTEM_ID", &self.system);
            command
        };
        let back = |script: &str, segment: &Path| {
            let mut command = self.shell(script, segment);
            command.arg(&self.fetched);
            command
        };
        let mut cases = vec![
            Case::new(Ours, "walarchive-fetch, age", move |segment| fetch(&self.sealed, segment)),
            Case::new(Ours, "walarchive-fetch, not encrypted", move |segment| fetch(&self.plain, segment)),
            Case::new(Floor, "cp + sync", move |segment| back("cp \"$2\" \"$3\" && sync \"$3\"", segment)),
            Case::new(Floor, UNPACKED, move |segment| {
                back("zstd -q -d -c \"$2.zst\" > \"$3\" && sync \"$3\"", segment)
            }),
        ];
        for contender in &self.contenders {
            let fetch = contender.fetch.iter();
            cases.extend(fetch.map(|fetch| {
                Case::new(contender.who, contender.name, |segment| fetch(&file_name(segment), &self.fetched))
            }));
        }
        cases
    }

    /// `$1` is the segment, `$2` a file for it; the working directory is that of the file.
    fn shell(&self, script: &str, segment: &Path) -> Command {
        let mut command = self.scratch.command("sh");
        let target = self.files.join(segment.file_name().unwrap_or_default());
        command.current_dir(&self.files).args(["-c", script, "sh"]).arg(segment).arg(target);
        command
    }

    /// Removes what was stored; directories stay, as in an archive that is in use.
    fn clean(&self) {
        let own = [
            self.sealed.archive_dir().join("main"),
            self.plain.archive_dir().join("main"),
            self.files.clone(),
        ];
        let mut stored: Vec<PathBuf> =
            own.iter().filter(|dir| dir.is_dir()).flat_map(|dir| files_below(dir)).collect();
        for contender in &self.contenders {
            // The repository keeps what it knows of itself.
            let files = files_below(&contender.repository).into_iter();
            stored.extend(
                files.filter(|file| {
                    self.segments.iter().any(|one| file_name(file).starts_with(&file_name(one)))
                }),
            );
        }
        stored.iter().for_each(|file| fs::remove_file(file).expect("remove a file of ours"));
    }
}

fn push(product: &Product, segment: &Path) -> Command {
    let mut command = product.command_of("walarchive-push", &[]);
    command.arg(segment);
    command
}
