//! Manifests of many files: written, read from end to end, and asked for their beginnings. Each step is a process of its own,
//! as its memory is what matters: it must not grow with the files. And a backup and a restore of a data directory with many.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use walarchive_benches::made_up::{Count, PAGES, id, packs, place, write};
use walarchive_benches::{Report, Table, Used, Who, smoke};
use walarchive_core::archive::{Archive, Facts, Keys, ObjectKind, read_facts, read_needs, scan};
use walarchive_core::cipher::age::Identity;
use walarchive_core::error::Result;
use walarchive_core::storage::LocalStorage;
use walarchive_tests::{Cluster, Product, Scratch};

/// Files of the manifests.
const FILES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// Small files in a data directory; the first is little.
const SMALL_FILES: [u32; 3] = [100, 10_000, 100_000];
const GIB: u32 = 2;

/// Bytes at the start of each GiB that nothing makes smaller; the rest are holes.
const NOISE: usize = 24 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["step", step, files, dir] => run(step, files.parse().expect("a number"), Path::new(dir)),
        _ => {
            let mut report = Report::new("manifests");
            match wanted_gib() {
                Some(gib) => many_files(gib, &SMALL_FILES[SMALL_FILES.len() - 1..], &mut report),
                None => {
                    all(&mut report);
                    many_files(GIB, &SMALL_FILES[..if smoke() { 1 } else { SMALL_FILES.len() }], &mut report);
                }
            }
            report.finish();
        }
    }
}

/// `--gib N` on the command line: only a data directory of that size, with the most files.
fn wanted_gib() -> Option<u32> {
    let mut args = std::env::args().skip_while(|arg| arg != "--gib").skip(1);
    args.next().map(|number| number.parse().expect("--gib is followed by a number"))
}

/// Every step for manifests of each size.
fn all(report: &mut Report) {
    let scratch = Scratch::new();
    for files in FILES.into_iter().take(if smoke() { 1 } else { FILES.len() }) {
        let dir = scratch.dir(format!("{files}"));
        let identity = Identity::generate().expect("the system has random numbers");
        std::fs::write(dir.join("identity"), identity.to_secret_string().as_bytes())
            .expect("keep the identity");
        let pages = files * u64::from(PAGES);
        let mut table =
            Table::new(format!("a manifest of {files} files and {pages} pages, zstd:1, age"), "decode");
        for step in ["write", "decode", "scan", "facts", "packs"] {
            let used = Used::by(this_program(step, files, &dir));
            table.row(Who::Ours, step, used, (step == "write").then(|| stored(&dir)));
        }
        report.add(table);
    }
}

fn this_program(step: &str, files: u64, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["step", step, &files.to_string()]).arg(dir);
    command
}

fn stored(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("archive").join(place().manifest(&id()))).map_or(0, |meta| meta.len())
}

/// Two backups and a restore of a cluster with as many small files, and some GiB in large ones.
fn many_files(gib: u32, small: &[u32], report: &mut Report) {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    for &files in small {
        add_files(&scratch, cluster.data_dir(), files, gib);
        let noise = NOISE >> 20;
        let full = "backup create --full";
        let mut table = Table::new(
            format!(
                "a data directory with {files} more files of 8 kB, and {gib} of 1 GiB: {noise} MiB of noise and a hole; two jobs"
            ),
            full,
        );
        for (name, args) in [(full, &["--full"][..]), ("backup create, nothing changed", &[])] {
            let mut command = product.command(&["--quiet", "backup", "create", "--jobs", "2"]);
            command.args(args).env("WALARCHIVE_CONNECTION", cluster.conninfo());
            table.row(Who::Ours, name, Used::by(command), None);
        }
        let target = scratch.join(format!("restored{files}"));
        let mut restore = product.command(&["--quiet", "restore", "--to", "immediate", "--jobs", "2"]);
        restore.arg("--target-dir").arg(&target);
        table.row(Who::Ours, "restore", Used::by(restore), None);
        report.add(table);
        std::fs::remove_dir_all(target).expect("remove a directory of ours");
    }
}

fn add_files(scratch: &Scratch, data_dir: &Path, files: u32, gib: u32) {
    let dir = data_dir.join("many");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).expect("make a directory");
    for number in 0..files {
        let page = number.to_le_bytes().repeat(2048);
        std::fs::write(dir.join(format!("{number:08}")), page).expect("write a small file");
    }
    for number in 0..gib {
        let mut file = std::fs::File::create(dir.join(format!("large{number}"))).expect("make a file");
        write_noise(&mut file);
        file.set_len(1 << 30).expect("make it long");
    }
    scratch.own(&dir);
}

/// Piece by piece: the memory of this process counts in what is measured.
fn write_noise(file: &mut std::fs::File) {
    let mut piece = [0; 8192];
    for _ in 0..NOISE / piece.len() {
        getrandom::fill(&mut piece).expect("random bytes");
        file.write_all(&piece).expect("write noise");
    }
}

/// One step, in this process.
fn run(step: &str, files: u64, dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let work = async {
        let archive = open(dir).await?;
        match step {
            "write" => write(&archive, files).await,
            "decode" => {
                let key = place().manifest(&id());
                archive.read(&key, ObjectKind::Manifest, u64::MAX, Count(0)).await.map(drop)
            }
            "scan" => {
                let (_, seen) = scan(&archive, &place(), &id(), Count(0)).await?;
                assert_eq!(seen.0, files);
                Ok(())
            }
            "facts" => read_facts::<Facts>(&archive, &place(), &id()).await.map(drop),
            _ => {
                let needs = read_needs::<Facts>(&archive, &place(), &id()).await?;
                assert_eq!(needs.packs.len() as u64, packs(files));
                Ok(())
            }
        }
    };
    runtime.block_on(work).expect("the step succeeds");
}

async fn open(dir: &Path) -> Result<Archive> {
    let root = dir.join("archive");
    std::fs::create_dir_all(&root).expect("make the archive's directory");
    let storage = Arc::new(LocalStorage::open(&root)?);
    Archive::init(storage.as_ref(), true).await?;
    let text = std::fs::read_to_string(dir.join("identity")).expect("read the identity");
    let identity: Identity = text.parse()?;
    let keys = Keys { recipients: vec![identity.recipient()], identities: vec![identity], ..Keys::default() };
    Archive::open(storage, keys).await
}
