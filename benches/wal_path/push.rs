//! A backlog archived by one call after the other, in a directory and in S3.

use std::path::PathBuf;
use std::time::Duration;

use walarchive_benches::contenders::versions;
use walarchive_benches::{Data, Report, SEGMENT, Used, Who};
use walarchive_tests::proxy::{Fault, Proxy, Rule};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Cluster, Product, Scratch, StopMode};

use crate::backlog::{Backlog, remove};
use crate::cases::{self, Case};
use crate::floor;
use crate::rows::{Rows, Taken};

const UNIT: &str = "floor: one process, 1 thread";
const UNIT_IN_S3: &str = "floor: one process, a PUT each";

/// Added to each request, where latency is.
pub const LATENCY: Duration = Duration::from_millis(100);
/// A share of the backlog is enough there.
const FEWER: usize = 4;

/// One case of a table.
struct Work<'a> {
    name: String,
    who: Who,
    run: Box<dyn Fn() -> Option<Taken> + 'a>,
    repository: Option<PathBuf>,
}

pub fn measure(data: &Data, rounds: usize, count: usize) {
    let mut report = Report::new("wal-path-push");
    let fewer = (count / FEWER).max(4).min(count);
    let (mut files, mut s3, mut late) = (Rows::default(), Rows::default(), Rows::default());
    for round in 0..rounds {
        let scratch = Scratch::new();
        let Some(mut cluster) = Cluster::builder(&scratch).start() else { return };
        let own = cases::in_directories(&scratch, &cluster);
        cluster.stop(StopMode::Fast);
        let backlog = Backlog::make(&scratch, &cluster, data, (0, count, SEGMENT));
        if round == 0 {
            let tools = ["zstd", "cp", "pgbackrest", "wal-g", "wal-rus", "barman-cloud-wal-archive"];
            report.fact(versions(&[], &tools));
        }
        run(in_directories(&scratch, &backlog, own), round, &mut files);
        if let Some(bucket) = stores::alone(&scratch, stores::Kind::Seaweed) {
            run(in_bucket(&scratch, &backlog, &bucket, count), round, &mut s3);
            let (_proxy, bucket) = later(&bucket);
            run(in_bucket(&scratch, &backlog, &bucket, fewer), round, &mut late);
        }
    }
    let kind = data.name;
    let title = |count: usize, place: &str| format!("push: a backlog of {count} {kind} segments, {place}");
    report.add(files.table(title(count, "in a directory"), UNIT, count));
    report.add(s3.table(title(count, "in S3"), UNIT_IN_S3, count));
    let place = format!("in S3, {} ms later", LATENCY.as_millis());
    report.add(late.table(title(fewer, &place), UNIT_IN_S3, fewer));
    report.finish();
}

/// The same bucket through a proxy that lets every request wait.
pub fn later(bucket: &Bucket) -> (Proxy, Bucket) {
    let proxy = Proxy::start(bucket.endpoint().parse().expect("an address"));
    proxy.set([Rule::always(Fault::Delay(LATENCY))]);
    let bucket = bucket.with_endpoint(&proxy.addr().to_string());
    (proxy, bucket)
}

fn run(mut work: Vec<Work<'_>>, round: usize, rows: &mut Rows) {
    let count = work.len();
    work.rotate_left(round % count);
    for work in work {
        if let Some(taken) = (work.run)() {
            rows.add(work.who, &work.name, taken);
        }
        remove(work.repository.as_deref());
    }
}

fn in_directories<'a>(scratch: &'a Scratch, backlog: &'a Backlog, own: Vec<Case>) -> Vec<Work<'a>> {
    let count = backlog.segments.len();
    let mut work = vec![
        threads(scratch, backlog, UNIT, "1"),
        threads(scratch, backlog, "floor: one process, 2 threads", "2"),
        calls(backlog, cases::zstd(scratch), count),
    ];
    work.extend(own.into_iter().map(|case| calls(backlog, case, count)));
    work.push(ready(backlog, cases::product(scratch, true, None), count, true));
    work
}

fn in_bucket<'a>(
    scratch: &'a Scratch,
    backlog: &'a Backlog,
    bucket: &'a Bucket,
    count: usize,
) -> Vec<Work<'a>> {
    let floor = move || Some(floor::in_bucket(bucket, &backlog.segments[..count]).into());
    let floor = Work { name: UNIT_IN_S3.to_owned(), who: Who::Floor, run: Box::new(floor), repository: None };
    let mut work = vec![floor];
    let own = cases::in_bucket(scratch, bucket);
    work.extend(own.into_iter().map(|case| calls(backlog, case, count)));
    work.push(ready(backlog, cases::product(scratch, true, Some(bucket)), count, false));
    work
}

/// One call for each segment.
fn calls<'a>(backlog: &'a Backlog, case: Case, count: usize) -> Work<'a> {
    let (name, who, repository) = (case.name.clone(), case.who, case.repository.clone());
    let run = move || {
        backlog.mark(count);
        let taken = backlog.archive(&case)?;
        backlog.compare(&case, count)?;
        Some(taken)
    };
    Work { name, who, run: Box::new(run), repository }
}

/// One call for all of them.
fn ready<'a>(backlog: &'a Backlog, product: Product, count: usize, is_local: bool) -> Work<'a> {
    let repository = is_local.then(|| product.archive_dir());
    let run = move || {
        backlog.mark(count);
        let mut command = product.command(&["--quiet", "wal", "push", "--ready"]);
        command.arg(&backlog.data_dir);
        rustix::fs::sync();
        Some(Used::by(command).into())
    };
    let name = "walarchive wal push --ready, age".to_owned();
    Work { name, who: Who::Ours, run: Box::new(run), repository }
}

/// The floor, by another process.
fn threads<'a>(scratch: &'a Scratch, backlog: &'a Backlog, name: &str, threads: &'a str) -> Work<'a> {
    let dir = scratch.dir(format!("floor{threads}"));
    let repository = Some(dir.clone());
    let run = move || {
        let mut command = scratch.command(&backlog.program);
        command.args([floor::ASKED, threads]).arg(&dir).args(&backlog.segments);
        rustix::fs::sync();
        Some(Used::by(command).into())
    };
    Work { name: name.to_owned(), who: Who::Floor, run: Box::new(run), repository }
}
