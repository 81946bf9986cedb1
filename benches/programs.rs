//! The programs as they are used: one `archive_command` after the other, a backup, a restore. Next to what the system's own
//! programs take for the same bytes in the same run.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_benches::{Data, Used, samples, smoke};
use walarchive_tests::{Cluster, Options, Product, Scratch};

const ROUNDS: usize = 5;

/// Of pgbench's tables: 50 are about 750 MiB.
const SCALE: u32 = 50;

fn main() {
    // `cargo bench NAME` filters by name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()));
    let scratch = Scratch::new();
    if runs("push") {
        for data in samples() {
            Push::new(&scratch, &data).run();
        }
    }
    if runs("backup") {
        backup(&scratch);
    }
}

/// One kind of WAL, and the archives that it goes to.
struct Push {
    scratch: Scratch,
    kind: &'static str,
    segments: Vec<PathBuf>,
    noise: PathBuf,
    sealed: Product,
    plain: Product,
    files: PathBuf,
}

impl Push {
    fn new(scratch: &Scratch, data: &Data) -> Push {
        let wal = scratch.dir(data.name);
        let mut segments = Vec::new();
        for segment in &data.segments {
            let copy = wal.join(segment.file_name().expect("a segment has a name"));
            fs::copy(segment, &copy).expect("copy a segment");
            segments.push(copy);
        }
        let noise = wal.join("noise").join(segments[0].file_name().expect("a segment has a name"));
        fs::create_dir(wal.join("noise")).expect("make a directory");
        make_noise(&segments[0], &noise);
        scratch.own(&wal);
        Push {
            kind: data.name,
            noise,
            sealed: Product::new(scratch),
            plain: Product::with(scratch, Options { encrypted: false, ..Options::default() }),
            files: scratch.dir(format!("{}-files", data.name)),
            segments,
            scratch: scratch.clone(),
        }
    }

    fn run(&self) {
        let mut cases: Vec<Case<'_>> = vec![
            Case::new("sh -c true", |_| self.shell("true", Path::new(""))),
            Case::new("walarchive-push --version", |_| {
                self.sealed.command_of("walarchive-push", &["--version"])
            }),
            Case::new("walarchive-push, age", |segment| push(&self.sealed, segment)),
            Case::new("walarchive-push, stored already", |segment| push(&self.sealed, segment)),
            Case::new("walarchive-push, not encrypted", |segment| push(&self.plain, segment)),
            Case::new("walarchive-push, age, lz4", |segment| {
                push(&self.sealed.but("WALARCHIVE_WAL_CODEC", "lz4"), segment)
            })
            .afresh(),
            Case::new("walarchive-push, age, noise", |_| push(&self.sealed, &self.noise)).afresh(),
            Case::new("cp + sync", |segment| self.shell("cp \"$1\" \"$2\" && sync \"$2\" .", segment)),
            Case::new("zstd -1 + sync", |segment| {
                self.shell("zstd -q -1 --single-thread -c \"$1\" > \"$2\" && sync \"$2\" .", segment)
            }),
        ];
        let segments = if smoke() { &self.segments[..1] } else { &self.segments[..] };
        for _ in 0..if smoke() { 1 } else { ROUNDS } {
            self.clean();
            for segment in segments {
                for case in &mut cases {
                    if case.afresh {
                        self.clean();
                    }
                    let used = Used::by((case.command)(segment));
                    case.used.push(used);
                }
            }
        }
        println!("\npush: one {} segment a call, medians; memory: the most of all calls", self.kind);
        for case in &cases {
            println!("{}", Used::middle(&case.used).line(case.name));
        }
    }

    /// `$1` is the segment, `$2` a new file; the working directory is that of the new file.
    fn shell(&self, script: &str, segment: &Path) -> Command {
        let mut command = self.scratch.command("sh");
        let target = self.files.join(segment.file_name().unwrap_or_default());
        command.current_dir(&self.files).args(["-c", script, "sh"]).arg(segment).arg(target);
        command
    }

    /// Removes what was stored; directories stay, as in an archive that is in use.
    fn clean(&self) {
        for place in [
            self.sealed.archive_dir().join("main"),
            self.plain.archive_dir().join("main"),
            self.files.clone(),
        ] {
            remove_files(&place);
        }
    }
}

/// What takes part in a comparison.
struct Case<'a> {
    name: &'static str,
    command: Box<dyn Fn(&Path) -> Command + 'a>,
    /// Whether the archive has to be empty for it.
    afresh: bool,
    used: Vec<Used>,
}

impl<'a> Case<'a> {
    fn new(name: &'static str, command: impl Fn(&Path) -> Command + 'a) -> Case<'a> {
        Case { name, command: Box::new(command), afresh: false, used: Vec::new() }
    }

    fn afresh(self) -> Case<'a> {
        Case { afresh: true, ..self }
    }
}

fn push(product: &Product, segment: &Path) -> Command {
    let mut command = product.command_of("walarchive-push", &[]);
    command.arg(segment);
    command
}

fn remove_files(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("list a directory of ours").path();
        if path.is_dir() {
            remove_files(&path);
        } else {
            fs::remove_file(path).expect("remove a file of ours");
        }
    }
}

/// A segment whose first page is real, and that nothing makes smaller. Made piece by piece: the memory of this process
/// counts in what is measured.
fn make_noise(real: &Path, noise: &Path) {
    let mut page = [0; 8192];
    let mut source = fs::File::open(real).expect("open a segment");
    source.read_exact(&mut page).expect("read a segment");
    let len = source.metadata().expect("look at a segment").len();
    let mut file = fs::File::create(noise).expect("make a segment");
    file.write_all(&page).expect("write a segment");
    for _ in 1..len / 8192 {
        getrandom::fill(&mut page).expect("random bytes");
        file.write_all(&page).expect("write a segment");
    }
}

fn backup(scratch: &Scratch) {
    let product = Product::new(scratch);
    let Some(cluster) = Cluster::builder(scratch).conf("max_wal_size = 2GB").start() else { return };
    cluster.archive_with(&product);
    let scale = if smoke() { 1 } else { SCALE };
    cluster.pgbench_init(scale);
    cluster.archive_now();
    let data_dir = cluster.data_dir().display().to_string();
    let mut create = product.command(&["--no-progress", "backup", "create", "--jobs", "2"]);
    create.env("WALARCHIVE_CONNECTION", cluster.conninfo()).env("PGDATA", &data_dir);
    let created = Used::by(create);
    let floor = Used::by(plain_copy(scratch, &cluster));
    let target = scratch.join("restored").display().to_string();
    let restored =
        Used::by(product.command(&["--no-progress", "restore", "--target-dir", &target, "--jobs", "2"]));
    println!("\nbackup: pgbench at scale {scale}, two jobs, age and zstd:1, in a directory");
    println!("{}", created.line("backup create"));
    println!("{}", restored.line("restore"));
    println!("{}", floor.line("pg_basebackup, as it is, synced"));
}

fn plain_copy(scratch: &Scratch, cluster: &Cluster) -> Command {
    let mut command = cluster.client_command("pg_basebackup");
    command.args(["-X", "none", "-c", "fast", "-D"]).arg(scratch.join("plain"));
    command
}
