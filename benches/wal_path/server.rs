//! A real server that archives while it writes.

use std::time::{Duration, Instant};

use walarchive_benches::{Report, Used, Who};
use walarchive_tests::{Cluster, Scratch, StopMode};

use crate::archiver::adopt;
use crate::backlog::remove;
use crate::cases::{self, Case};
use crate::line::Line;
use crate::rows::{Rows, Taken};
use crate::{cpu, load};

const NOTHING: &str = "nothing is archived: the load alone";
const PATIENCE: Duration = Duration::from_secs(1800);

pub fn measure(rounds: usize, count: usize) {
    adopt();
    let mut report = Report::new("wal-path-server");
    let mut rows = Rows::default();
    for round in 0..rounds {
        let scratch = Scratch::new();
        let settings = ["max_wal_size = 1GB", "shared_buffers = 128MB", "autovacuum = off"];
        let builder = settings.iter().fold(Cluster::builder(&scratch), |builder, line| builder.conf(line));
        let Some(mut cluster) = builder.start() else { return };
        let mut all = cases::in_directories(&scratch, &cluster);
        load::prepare(&cluster);
        cluster.stop(StopMode::Fast);
        all.insert(0, nothing());
        let len = all.len();
        all.rotate_left(round % len);
        for case in &all {
            rows.add(case.who, &case.name, archive(&scratch, &cluster, case, count));
            remove(case.repository.as_deref());
        }
    }
    let title = format!("server: {count} segments written and archived at the same time, in a directory");
    report.add(rows.table(title, cases::CP, count));
    report.finish();
}

fn nothing() -> Case {
    let (archive, restore) = (Line::shell("true"), Line::default());
    Case { name: NOTHING.to_owned(), who: Who::Floor, archive, restore, repository: None }
}

/// From the start of the load until the server counts its last segment as archived. CPU time is that of the commands and of what they
/// left behind.
fn archive(scratch: &Scratch, cluster: &Cluster, case: &Case, count: usize) -> Taken {
    let mut server = case.archive.serve(scratch, cluster, "archive_command");
    server.start();
    server.psql("truncate loaded; checkpoint");
    server.archive_now();
    let archiver: u32 = {
        let asked = server.psql("select pid from pg_stat_activity where backend_type = 'archiver'");
        asked.parse().expect("the archiver runs")
    };
    rustix::fs::sync();
    let before = (cpu::of_ours(), cpu::of_children(archiver));
    let begun = Instant::now();
    let last = load::write(&server, count);
    let loaded = begun.elapsed();
    server.wait_archived(&last, PATIENCE);
    let wall = begun.elapsed();
    let cpu = cpu::of_children(archiver).saturating_sub(before.1) + cpu::of_ours().saturating_sub(before.0);
    let failed = server.psql("select failed_count from pg_stat_archiver");
    if failed != "0" {
        eprintln!("{}: {failed} calls failed", case.name);
    }
    server.stop(StopMode::Fast);
    Taken { used: Used { wall, cpu, rss: 0 }, calls: Vec::new(), behind: Some(wall.saturating_sub(loaded)) }
}
