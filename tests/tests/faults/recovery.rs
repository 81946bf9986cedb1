//! A PostgreSQL in recovery whose store goes away: it stops or waits, and loses nothing; a standby keeps serving.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use walarchive_tests::proxy::{Answer, Fault, Rule};
use walarchive_tests::{Cluster, Scratch, StopMode, sample, stores, wait_until};

use crate::lab::{Lab, Line, impatient};

/// A cluster with a backup in an archive on S3, and rows that are only in WAL behind it.
struct Archived {
    lab: Lab,
    line: Line,
    primary: Cluster,
}

impl Archived {
    fn new() -> Option<Archived> {
        let scratch = Scratch::new();
        let bucket = stores::seaweed(&scratch)?;
        let primary = Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").start()?;
        let mut lab = Lab::on(scratch, bucket);
        lab.clean.unset("WALARCHIVE_SYSTEM_ID");
        lab.clean.set("WALARCHIVE_CONNECTION", &primary.conninfo());
        primary.archive_with(&lab.clean);
        primary.psql("create table t (n int, filler text)");
        lab.clean.ok(&["backup", "create"]);
        for n in 0..4 {
            let row = format!("insert into t select {n}, repeat('x', 500) from generate_series(1, 1000)");
            primary.psql(&row);
            primary.archive_now();
        }
        let line = lab.line(Duration::from_secs(1));
        Some(Archived { lab, line, primary })
    }

    fn restore(&self, more: &[&str]) -> PathBuf {
        let target = self.lab.scratch.join("restored");
        let output = self.lab.clean.restore_to(&target, more);
        assert_eq!(output.code, Some(0), "{output:#?}");
        target
    }

    /// What PostgreSQL shall run: through the proxy, with this budget.
    fn restore_command(&self, budget: Duration) -> String {
        let mut product = self.line.product.clone();
        impatient(&mut product, budget);
        format!("{} %f %p", product.script("walarchive-fetch").display())
    }

    /// The newest segment.
    fn last(&self) -> String {
        let list = self.lab.clean.json(&["wal", "list"]);
        list["timelines"][0]["last"].as_str().expect("a segment").to_owned()
    }
}

fn quiet(archived: &Archived, budget: Duration) -> walarchive_tests::Builder {
    let builder = Cluster::adopt(&archived.lab.scratch).option("archive_mode", "off");
    builder.option("restore_command", &archived.restore_command(budget))
}

/// The outages, from now on or for one object alone.
fn outages(part: &str) -> Vec<Rule> {
    let rules = [
        Fault::Outage(Duration::MAX),
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::StallHead,
        Fault::Truncate(10),
        Fault::Answer(Answer::slow_down()),
        Fault::Answer(Answer::s3(403, "AccessDenied", "Access Denied")),
        Fault::Answer(Answer::s3(404, "NoSuchBucket", "The specified bucket does not exist")),
    ];
    rules.into_iter().map(|fault| Rule::always(fault).path(part)).collect()
}

#[test]
fn recovery_stops_when_the_store_is_away_and_goes_on_when_it_is_back() {
    let Some(mut archived) = Archived::new() else { return };
    archived.primary.stop(StopMode::Immediate);
    let target = archived.restore(&[]);
    let mut server = quiet(&archived, Duration::from_millis(500)).existing(target).unwrap();
    // In the middle of the segments, and at the history file that would name a new timeline.
    for part in [archived.last().as_str(), "00000002.history"] {
        for outage in outages(part) {
            let what = format!("{outage:?} at {part}");
            archived.line.proxy.set([outage]);
            server.launch();
            assert!(!server.wait_ended(), "{what}: {}", server.log());
            assert!(archived.line.proxy.applied() > 0, "{what}: {}", server.log());
            assert!(server.log().contains("could not restore file"), "{what}: {}", server.log());
            let promoted = sample::files_with(&server.data_dir().join("pg_wal"), ".history");
            assert!(promoted.is_empty(), "{what}: {promoted:?}");
            assert_eq!(server.control("Database cluster state"), "in archive recovery", "{what}");
            archived.line.proxy.clear();
        }
    }
    server.start_promoted();
    assert_eq!(server.psql("select count(*) from t"), "4000");
}

#[test]
fn recovery_waits_for_a_store_that_comes_back_within_the_budget() {
    let Some(mut archived) = Archived::new() else { return };
    archived.primary.stop(StopMode::Immediate);
    let target = archived.restore(&[]);
    let mut server = quiet(&archived, Duration::from_secs(60)).existing(target).unwrap();
    let away = Duration::from_secs(4);
    archived.line.proxy.set([Rule::once(Fault::Outage(away)).path(&archived.last())]);
    let begun = Instant::now();
    server.start_promoted();
    assert!(archived.line.proxy.applied() == 1 && begun.elapsed() >= away, "{}", server.log());
    assert_eq!(server.psql("select count(*) from t"), "4000");
    assert!(!server.log().contains("could not restore file"), "{}", server.log());
}

#[test]
fn a_standby_keeps_serving_and_catches_up() {
    let Some(archived) = Archived::new() else { return };
    let target = archived.restore(&["--standby"]);
    let builder = quiet(&archived, Duration::from_millis(500)).option("wal_retrieve_retry_interval", "200ms");
    let mut standby = builder.existing(target).unwrap();
    standby.start();
    let rows = |count: usize| standby.psql("select count(*) from t") == count.to_string();
    wait_until("the standby follows", Duration::from_secs(60), || rows(4000));
    let mut count = 4000;
    for outage in outages("/") {
        let what = format!("{outage:?}");
        archived.line.proxy.set([outage]);
        wait_until("the outage is noticed", Duration::from_secs(30), || archived.line.proxy.applied() > 0);
        archived.primary.psql("insert into t select 9 from generate_series(1, 1000)");
        archived.primary.archive_now();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            let seen = standby.psql("select pg_is_in_recovery(), count(*) from t");
            assert_eq!(seen, format!("t|{count}"), "{what}");
            std::thread::sleep(Duration::from_millis(100));
        }
        archived.line.proxy.clear();
        count += 1000;
        wait_until("the standby catches up", Duration::from_secs(60), || rows(count));
    }
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    standby.stop(StopMode::Fast);
}
