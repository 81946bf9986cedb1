//! Very many small segments: the last ones should take as long as the first.

use std::fs;

use walarchive_benches::{Data, Report, Used, smoke};
use walarchive_tests::{Cluster, Scratch, StopMode};

use crate::backlog::{Backlog, remove};
use crate::cases::{self, CP, Case};
use crate::rows::{Rows, Taken};

const SIZE: usize = 1 << 20;

const ONE_BY_ONE: usize = 24_000;
const READY: usize = 5_000;
const FEW: usize = 20;

/// Segments are made in so many parts, as all of them at once would need much space.
const PARTS: usize = 10;

/// One segment after the other, of which only one is ready at a time, into an archive that grows.
pub fn one_by_one(data: &Data, wanted: Option<usize>) {
    let count = wanted.unwrap_or(if smoke() { FEW } else { ONE_BY_ONE }) / PARTS;
    let Some((scratch, cluster, all)) = place() else { return };
    let few = [CP, "walarchive, age"];
    let all: Vec<Case> = all.into_iter().filter(|case| few.contains(&case.name.as_str())).collect();
    let mut taken = vec![Taken::default(); all.len()];
    for part in 0..PARTS {
        let backlog = Backlog::make(&scratch, &cluster, data, (part * count, count, SIZE));
        for (case, taken) in all.iter().zip(&mut taken) {
            backlog.mark(0);
            taken.add(backlog.archive_one_by_one(case).expect("ours can"));
            backlog.compare(case, count).expect("ours can");
        }
        backlog.segments.iter().for_each(|segment| fs::remove_file(segment).expect("remove a segment"));
    }
    let mut rows = Rows::default();
    for (case, taken) in all.into_iter().zip(taken) {
        rows.add(case.who, &case.name, taken);
    }
    tell(
        "wal-path-tiny",
        &rows,
        format!("tiny: {} segments of 1 MiB, one by one", count * PARTS),
        count * PARTS,
    );
}

/// A backlog that is long.
pub fn backlog(data: &Data, wanted: Option<usize>) {
    let count = wanted.unwrap_or(if smoke() { FEW } else { READY });
    let Some((scratch, cluster, all)) = place() else { return };
    let backlog = Backlog::make(&scratch, &cluster, data, (0, count, SIZE));
    let mut rows = Rows::default();
    for case in all {
        backlog.mark(count);
        if let Some(taken) = backlog.archive(&case) {
            backlog.compare(&case, count).expect("what was archived can be fetched");
            rows.add(case.who, &case.name, taken);
        }
        remove(case.repository.as_deref());
    }
    tell("wal-path-backlog", &rows, format!("backlog: {count} segments of 1 MiB are ready"), count);
}

/// The cluster does not run.
fn place() -> Option<(Scratch, Cluster, Vec<Case>)> {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).wal_segment_mib(1).start()?;
    let all = cases::in_directories(&scratch, &cluster);
    cluster.stop(StopMode::Fast);
    Some((scratch, cluster, all))
}

fn tell(name: &str, rows: &Rows, title: String, count: usize) {
    let mut report = Report::new(name);
    report.add(rows.table(title, CP, count));
    report.finish();
}

impl Taken {
    fn add(&mut self, more: Taken) {
        let used = &mut self.used;
        *used = Used {
            wall: used.wall + more.used.wall,
            cpu: used.cpu + more.used.cpu,
            rss: used.rss.max(more.used.rss),
        };
        self.calls.extend(more.calls);
    }
}
