//! A real server that recovers: from a copy of its data directory, over all segments that it wrote since.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walarchive_benches::{Report, Used, Who, file_name};
use walarchive_tests::stores;
use walarchive_tests::{Cluster, Scratch, StopMode, wait_until};

use crate::archiver::adopt;
use crate::backlog::Backlog;
use crate::cases::{self, Case};
use crate::line::Line;
use crate::rows::{Rows, Taken};
use crate::{cpu, load, push};

const UNIT: &str = "all segments in pg_wal";
const PATIENCE: Duration = Duration::from_secs(1800);

/// What is recovered, and how much of it there must be.
struct Past {
    scratch: Scratch,
    /// Where the server is recovered, too: some programs know no other place.
    cluster: Cluster,
    base: PathBuf,
    backlog: Backlog,
    rows: String,
}

pub fn measure(rounds: usize, count: usize) {
    adopt();
    let mut report = Report::new("wal-path-recovery");
    let mut rows = Rows::default();
    let scratch = Scratch::new();
    let Some((past, mut all)) = Past::write(&scratch, count) else { return };
    let bucket = stores::alone(&scratch, stores::Kind::Seaweed);
    let late = bucket.as_ref().map(push::later);
    if let Some((_proxy, late)) = &late {
        let name = format!("walarchive, age, in S3, {} ms later", push::LATENCY.as_millis());
        all.push(cases::ours(&scratch, &name, true, Some(late), &[]));
        let name = name + ", nothing ahead";
        all.push(cases::ours(&scratch, &name, true, Some(late), cases::NOTHING_AHEAD));
    }
    all.retain(|case| past.fill(case).is_some());
    let source = past.move_aside();
    all.insert(0, local());
    for round in 0..rounds {
        let len = all.len();
        all.rotate_left(round.min(1) % len);
        for case in &all {
            rows.add(case.who, &case.name, past.recover(case, &source));
        }
    }
    let title =
        format!("recovery: from a copy, over {} segments, until it is over", past.backlog.segments.len());
    report.add(rows.table(title, UNIT, past.backlog.segments.len()));
    report.finish();
}

/// Nothing has to be fetched.
fn local() -> Case {
    let none = Line::shell("false");
    Case { name: UNIT.to_owned(), who: Who::Floor, archive: none.clone(), restore: none, repository: None }
}

impl Past {
    fn write(scratch: &Scratch, count: usize) -> Option<(Past, Vec<Case>)> {
        let builder =
            Cluster::builder(scratch).conf("archive_command = 'true'").conf("wal_keep_size = 100GB");
        let builder = builder.conf("max_wal_size = 100GB").conf("shared_buffers = 512MB");
        let mut cluster = builder.conf("autovacuum = off").start()?;
        let all = cases::in_directories(scratch, &cluster);
        load::prepare(&cluster);
        let first = cluster.switch_wal();
        cluster.stop(StopMode::Fast);
        let base = scratch.join("base");
        copy(scratch, cluster.data_dir(), &base);
        cluster.start();
        let last = load::write(&cluster, count);
        let rows = load::rows(&cluster);
        cluster.stop(StopMode::Fast);
        let pg_wal = fs::read_dir(cluster.data_dir().join("pg_wal")).expect("list pg_wal");
        let mut segments: Vec<PathBuf> = pg_wal.map(|entry| entry.expect("list pg_wal").path()).collect();
        let in_between = |name: String| name.len() == 24 && first < name && name <= last;
        segments.retain(|path| in_between(file_name(path)));
        segments.sort();
        let backlog = Backlog::new(scratch, &cluster, segments);
        Some((Past { scratch: scratch.clone(), cluster, base, backlog, rows }, all))
    }

    /// Has a case archive everything.
    fn fill(&self, case: &Case) -> Option<()> {
        self.backlog.mark(self.backlog.segments.len());
        self.backlog.archive(case).map(drop)
    }

    /// Where the original's segments are from now on.
    fn move_aside(&self) -> PathBuf {
        let source = self.scratch.join("source");
        fs::rename(self.cluster.data_dir(), &source).expect("move a data directory of ours");
        source.join("pg_wal")
    }

    /// From the start of the server until its recovery is over. CPU time is that of the server and of all that it started.
    fn recover(&self, case: &Case, source: &Path) -> Taken {
        copy(&self.scratch, &self.base, self.cluster.data_dir());
        if case.name == UNIT {
            for segment in &self.backlog.segments {
                copy(&self.scratch, &source.join(file_name(segment)), segment);
            }
        }
        let signal = self.cluster.data_dir().join("recovery.signal");
        fs::write(&signal, "").expect("have a server recover");
        self.scratch.own(&signal);
        // Connections are answered when recovery is over.
        self.cluster.append_conf("hot_standby = off\narchive_mode = off");
        let mut server = case.restore.serve(&self.scratch, &self.cluster, "restore_command");
        rustix::fs::sync();
        let before = cpu::of_ours();
        let begun = Instant::now();
        server.launch();
        wait_until("recovery is over", PATIENCE, || server.log().contains("ready to accept connections"));
        let wall = begun.elapsed();
        assert_eq!(load::rows(&server), self.rows, "{} lost rows:\n{}", case.name, server.log());
        server.stop(StopMode::Fast);
        let cpu = cpu::of_ours().saturating_sub(before);
        fs::remove_dir_all(self.cluster.data_dir()).expect("remove what was recovered");
        Used { wall, cpu, rss: 0 }.into()
    }
}

fn copy(scratch: &Scratch, from: &Path, to: &Path) {
    let status = scratch.command("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "copy {}", from.display());
}
