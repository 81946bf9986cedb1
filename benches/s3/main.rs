//! WAL into S3 and back: 256 segments of 16 MiB through a real server on this machine, one `archive_command` after the
//! other and several at once, next to barman-cloud, to `aws s3 cp` of the compressed files, and to the codec in memory.
//!
//! The segments come in batches, each with a new server; within a batch all cases take turns. So everything disturbs all
//! cases alike, what is stored stays small, and there is a median over batches.

mod aws;
mod memory;
mod place;
mod report;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use walarchive_benches::contenders::{Barman, versions};
use walarchive_benches::{AtOnce, Relay, Report, Used, Who, at_once, file_name, samples, smoke};

use aws::Aws;
use place::{Kind, Place};
use report::{Batches, FETCH, PUSH, Unit};

const BATCHES: usize = 8;
const SEGMENTS: usize = 32;

/// Processes at the same time, where there are several.
const JOBS: usize = 4;

/// Calls of `aws s3 cp` with one file, and of barman-cloud, in each batch: starting them takes longer than all the rest.
const FEW_CALLS: usize = 4;

fn main() {
    if let Some(dir) = memory::asked_for() {
        return memory::measure(&dir);
    }
    // `cargo bench NAME` filters by name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut all = samples();
    // The last is the one nearest to real WAL, and enough when nothing is said.
    let last = all.pop().into_iter();
    let chosen: Vec<_> = match wanted.as_slice() {
        [] => last.collect(),
        _ => all.into_iter().chain(last).filter(|data| wanted.iter().any(|word| data.name == word)).collect(),
    };
    let (batches, segments) = if smoke() { (1, 2) } else { (BATCHES, SEGMENTS) };
    for data in chosen {
        let report = Report::new(&format!("s3-{}", data.name));
        let mut measured = Batches::default();
        for batch in 0..batches {
            let Some(place) = Place::new(&data, batch * segments, segments) else { return };
            run(&place, batch, &mut measured);
        }
        measured.tell(report, data.name, batches * segments);
    }
}

/// One thing to measure over the segments of a batch.
struct Case<'a> {
    who: Who,
    name: String,
    run: Box<dyn Fn() -> AtOnce + 'a>,
}

fn case<'a>(who: Who, name: impl Into<String>, run: impl Fn() -> AtOnce + 'a) -> Case<'a> {
    Case { who, name: name.into(), run: Box::new(run) }
}

fn run(place: &Place, batch: usize, report: &mut Batches) {
    memory::add(place, report);
    let aws = Aws::find(place);
    let barman = Barman::find(&place.scratch, &place.bucket);
    if batch == 0 {
        report.took_part = versions(&[], &["aws", "barman-cloud-wal-archive"]);
    }
    // What is pushed is fetched after it.
    let phases = [
        (PUSH, pushes(place, aws.as_ref(), barman.as_ref())),
        (FETCH, fetches(place, aws.as_ref(), barman.as_ref())),
    ];
    for (phase, mut cases) in phases {
        let count = cases.len();
        cases.rotate_left(batch % count);
        for case in cases {
            let all = (case.run)();
            report.add(phase, case.who, &case.name, Unit::of(&all, place.segments.len()));
        }
    }
    if batch == 0 {
        count_requests(place, aws.as_ref(), report);
    }
}

fn pushes<'a>(place: &'a Place, aws: Option<&'a Aws<'a>>, barman: Option<&'a Barman>) -> Vec<Case<'a>> {
    let push = |kind: Kind, jobs: usize| {
        move || at_once(jobs, &place.segments, |segment| place.push(kind, segment), |_| {})
    };
    let mut cases: Vec<Case<'a>> = vec![
        case(Who::Ours, "walarchive-push, age", push(Kind::Sealed, 1)),
        case(Who::Ours, "walarchive-push, not encrypted", push(Kind::Plain, 1)),
        case(Who::Ours, "walarchive-push, age, 4 at once", push(Kind::SealedAtOnce, JOBS)),
        case(Who::Ours, "walarchive-push, not encrypted, 4 at once", push(Kind::PlainAtOnce, JOBS)),
        case(Who::Ours, "walarchive wal push --ready, age", || once(place.push_ready())),
    ];
    if let Some(aws) = aws {
        let files = few(&aws.files);
        let run = move || per(place, at_once(1, &files, |file| aws.upload(file), |_| {}));
        cases.push(case(Who::Floor, report::AWS_PUSH, run));
        cases.push(case(Who::Floor, report::AWS_PUSH_ALL, || once(aws.upload_all())));
    }
    if let Some(barman) = barman {
        let segments = few(&place.segments);
        let run = move || per(place, at_once(1, &segments, |segment| barman.push(segment), |_| {}));
        cases.push(case(Who::Other, barman.name("archive"), run));
    }
    cases
}

fn fetches<'a>(place: &'a Place, aws: Option<&'a Aws<'a>>, barman: Option<&'a Barman>) -> Vec<Case<'a>> {
    let fetch = |kind: Kind, jobs: usize| {
        move || {
            at_once(
                jobs,
                &place.segments,
                |segment| place.fetch(kind, segment),
                |segment| place.check_fetched(segment),
            )
        }
    };
    let mut cases: Vec<Case<'a>> = vec![
        case(Who::Ours, "walarchive-fetch, age", fetch(Kind::Sealed, 1)),
        case(Who::Ours, "walarchive-fetch, not encrypted", fetch(Kind::Plain, 1)),
        case(Who::Ours, "walarchive-fetch, age, 4 at once", fetch(Kind::SealedAtOnce, JOBS)),
        case(Who::Ours, "walarchive-fetch, not encrypted, 4 at once", fetch(Kind::PlainAtOnce, JOBS)),
    ];
    if let Some(aws) = aws {
        let files = few(&aws.files);
        let run = move || per(place, at_once(1, &files, |file| aws.download(file), |_| {}));
        cases.push(case(Who::Floor, report::AWS_FETCH, run));
        cases.push(case(Who::Floor, report::AWS_FETCH_ALL, || once(aws.download_all())));
    }
    if let Some(barman) = barman {
        let segments = few(&place.segments);
        let get = |segment: &PathBuf| barman.fetch(&file_name(segment), &place.fetched(segment));
        let run = move || per(place, at_once(1, &segments, get, |segment| place.check_fetched(segment)));
        cases.push(case(Who::Other, barman.name("restore"), run));
    }
    cases
}

fn few(files: &[PathBuf]) -> Vec<PathBuf> {
    files.iter().take(FEW_CALLS).cloned().collect()
}

/// One process for all segments.
fn once(command: Command) -> AtOnce {
    let used = Used::by(command);
    AtOnce { wall: used.wall, used: vec![used] }
}

/// What some calls would have taken for all segments.
fn per(place: &Place, some: AtOnce) -> AtOnce {
    let factor = place.segments.len() as f64 / some.used.len() as f64;
    let scale = |time: Duration| time.mul_f64(factor);
    let used = some.used.iter().map(|used| Used { cpu: scale(used.cpu), ..*used });
    AtOnce { wall: scale(some.wall), used: used.collect() }
}

/// What goes over the wire for one segment, through a relay that counts.
fn count_requests(place: &Place, aws: Option<&Aws<'_>>, report: &mut Batches) {
    let relay = Relay::to(place.bucket.endpoint());
    let mut count = |name: &str, mut command: Command| {
        command.env("AWS_ENDPOINT_URL", format!("http://{}", relay.addr()));
        Used::by(command);
        report.requests(name, &relay.take());
    };
    let segment = &place.segments[0];
    let fresh = place.one_more(segment);
    count("walarchive-push", place.push(Kind::Sealed, &fresh));
    count("walarchive-push, stored already", place.push(Kind::Sealed, segment));
    count("walarchive-fetch", place.fetch(Kind::Sealed, segment));
    place.check_fetched(segment);
    if let Some(aws) = aws {
        count("aws s3 cp, up", aws.upload(&aws.files[0]));
        count("aws s3 cp, down", aws.download(&aws.files[0]));
    }
}
