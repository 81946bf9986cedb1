//! Logical dumps of one live database, beside what people do without this program: `pg_dump` alone, into `zstd`, and in
//! parallel into a directory; and `restic`, which too stores only what is new, where it is in `PATH`. All in one run; ratios are to `pg_dump` alone,
//! which nobody can beat with one connection.

use std::path::PathBuf;
use std::process::Command;

use walarchive_benches::contenders::{look_for, versions};
use walarchive_benches::{Report, Table, Used, Who, smoke};
use walarchive_tests::{Cluster, Product, Scratch, bytes_below};

const ROUNDS: usize = 3;

const ALONE: &str = "pg_dump to nowhere";
const PACKED: &str = "pg_dump | zstd -1";

/// MB of text for each unit of pgbench's scale.
const OF_A_SCALE: u32 = 10;

/// MB of text that are dumped: `--mb N` on the command line, else 1200.
fn wanted_mb() -> u32 {
    let mut args = std::env::args().skip_while(|arg| arg != "--mb").skip(1);
    let said = args.next().map(|number| number.parse().expect("--mb is followed by a number"));
    said.unwrap_or(if smoke() { 20 } else { 1200 })
}

struct Place {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
}

/// A way to dump, and where what it stores is.
struct Way<'a> {
    name: &'a str,
    who: Who,
    command: Box<dyn Fn() -> Command + 'a>,
    stored: PathBuf,
}

fn main() {
    let mut report = Report::new("dumps");
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).conf("shared_buffers = 256MB").start() else { return };
    cluster.pgbench_init((wanted_mb() / OF_A_SCALE).max(1));
    cluster.psql("checkpoint");
    let mut product = Product::new(&scratch);
    product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
    product.set("WALARCHIVE_DUMP_PARALLEL_FROM", "1");
    let place = Place { scratch, cluster, product };
    let mut ways = place.ways();
    ways.extend(place.restic());
    let mut taken: Vec<Vec<Used>> = vec![Vec::new(); ways.len()];
    let mut stored = vec![0; ways.len()];
    for _ in 0..if smoke() { 1 } else { ROUNDS } {
        for (number, way) in ways.iter().enumerate() {
            rustix::fs::sync();
            let before = bytes_below(&way.stored);
            taken[number].push(Used::by((way.command)()));
            stored[number] = bytes_below(&way.stored).saturating_sub(before);
            let _ = std::fs::remove_dir_all(place.scratch.join("dir"));
            let _ = std::fs::remove_file(place.scratch.join("file"));
        }
        let _ = std::fs::remove_dir_all(place.scratch.join("restic"));
    }
    report.fact(versions(&[], &["pg_dump", "zstd", "restic"]));
    let title =
        format!("dump: pgbench, about {} MB of text, medians; stored in units of zstd -1", wanted_mb());
    let mut table = Table::new(title, ALONE);
    let packed = ways.iter().position(|way| way.name == PACKED).map_or(0, |at| stored[at]);
    table.stored_in_units_of(packed);
    for ((way, taken), stored) in ways.iter().zip(&taken).zip(stored) {
        table.row(way.who, way.name, Used::middle(taken), Some(stored).filter(|bytes| *bytes > 0));
    }
    report.add(table);
    report.finish();
}

impl Place {
    fn ways(&self) -> Vec<Way<'_>> {
        let shell = |script: &'static str| {
            Box::new(move || {
                let mut shell = self.cluster.client_command("sh");
                shell.args(["-c", script]);
                shell
            })
        };
        let dump = |args: &'static [&'static str]| {
            Box::new(move || self.product.command(&[&["dump", "create", "--no-globals"], args].concat()))
        };
        let archive = self.product.archive_dir();
        let (file, dir) = (self.scratch.join("file"), self.scratch.join("dir"));
        vec![
            Way {
                name: ALONE,
                who: Who::Floor,
                command: shell("pg_dump postgres > /dev/null"),
                stored: file.clone(),
            },
            Way {
                name: PACKED,
                who: Who::Other,
                command: shell("pg_dump postgres | zstd -1 -q -f -o file"),
                stored: file.clone(),
            },
            Way {
                name: "dump create, all anew",
                who: Who::Ours,
                command: dump(&["--full"]),
                stored: archive.clone(),
            },
            Way {
                name: "dump create, nothing changed",
                who: Who::Ours,
                command: dump(&[]),
                stored: archive.clone(),
            },
            Way {
                name: "pg_dump -Fd -j2 -Z1",
                who: Who::Other,
                command: shell("exec pg_dump -Fd -j2 -Z1 -f dir postgres"),
                stored: dir,
            },
            Way {
                name: "dump create --jobs 2, all anew",
                who: Who::Ours,
                command: dump(&["--full", "--jobs", "2"]),
                stored: archive.clone(),
            },
        ]
    }

    /// The repository is new in each round; the second way finds everything there.
    fn restic(&self) -> Vec<Way<'_>> {
        let Some(program) = look_for(&["restic"]) else { return Vec::new() };
        let repository = self.scratch.join("restic");
        let way = |name, is_first: bool| {
            let (program, repository) = (program.clone(), repository.clone());
            let shell = move |script: &str| {
                let mut shell = self.cluster.client_command("sh");
                shell.env("RESTIC_PASSWORD", "bench").env("RESTIC_REPOSITORY", &repository);
                shell.args(["-c", script, "sh"]).arg(&program);
                shell
            };
            let command = Box::new(move || {
                if is_first {
                    let made = shell("\"$1\" -q --no-cache init").output();
                    assert!(made.is_ok_and(|made| made.status.success()), "restic makes its repository");
                }
                shell("pg_dump postgres | \"$1\" -q --no-cache backup --stdin")
            });
            Way { name, who: Who::Other, command, stored: self.scratch.join("restic") }
        };
        vec![
            way("pg_dump | restic backup, all anew", true),
            way("pg_dump | restic backup, nothing changed", false),
        ]
    }
}
