//! WAL that is written faster than it is archived: told while every single push succeeds.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use walarchive_tests::{Cluster, Product, Scratch, wait_until};

struct Slow {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Slow {
    /// A server whose archive_command needs a second for each segment.
    fn new() -> Option<Slow> {
        let scratch = Scratch::new();
        let product = Product::new(&scratch);
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).conf("max_wal_size = '1GB'").start()?;
        let push = product.script("walarchive-push");
        cluster.append_conf(&format!("archive_command = 'sleep 1; {} %p'", push.display()));
        cluster.reload();
        cluster.archive_now();
        let mut product = product.connected(&cluster);
        product.set("PGDATA", cluster.data_dir().to_str().unwrap());
        Some(Slow { scratch, product, cluster })
    }

    fn segment(&self) {
        self.cluster.psql("select pg_logical_emit_message(true, '', 'more')");
        self.cluster.switch_wal();
    }

    /// Writes several segments a second until the deficit is told; the line.
    fn write_until_told(&self) -> String {
        let begun = Instant::now();
        loop {
            self.segment();
            let run = self.product.run(&["check", "wal"]);
            if run.stdout.contains("WAL is written faster than it is archived") {
                assert_eq!(run.code, Some(1), "{run:#?}");
                return run.stdout;
            }
            assert_eq!(run.code, Some(0), "{run:#?}");
            assert!(begun.elapsed() < Duration::from_secs(60), "{run:#?}");
        }
    }

    fn failures(&self) -> String {
        self.cluster.psql("select failed_count from pg_stat_archiver")
    }
}

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

#[test]
fn a_deficit_is_told_while_every_push_succeeds_and_goes_when_it_is_made_up() {
    let Some(slow) = Slow::new() else { return };
    let line = slow.write_until_told();
    assert!(line.starts_with("WARNING - ") && line.contains("wait to be archived, the first for"), "{line}");
    let status = slow.product.json(&["status"]);
    let waiting = &status["waiting"];
    let number = |key: &str| waiting[key].as_u64().unwrap_or_else(|| panic!("{key}: {status:#}"));
    assert_eq!((&waiting["deficit"], &waiting["caught_up_in_seconds"]), (&true.into(), &Value::Null));
    assert_eq!(number("bytes"), number("files") << 20, "{status:#}");
    assert!(
        number("files") > 4 && number("age_seconds") >= 10 && number("archived_over_seconds") > 0,
        "{status:#}"
    );
    let (written, archived) = (number("written_bytes_per_second"), number("archived_bytes_per_second"));
    assert!(written > archived && archived <= 1 << 20, "one a second: {status:#}");
    assert!(problems(&status).contains("WAL is written faster"), "{status:#}");
    let oldest = waiting["oldest"].as_str().unwrap();
    let segment = slow.cluster.data_dir().join("pg_wal").join(oldest);
    assert_eq!(fs::metadata(segment).unwrap().len(), 1 << 20);
    let text = slow.product.ok(&["status"]);
    assert!(text.contains("\nwaits          ") && text.contains("/s archived in the last"), "{text}");

    // A checkpoint removes what was archived, and with it what tells how fast.
    slow.cluster.psql("checkpoint");
    slow.write_until_told();
    assert_eq!(slow.failures(), "0", "no push has failed");

    slow.cluster.archive_with(&slow.product);
    wait_until("all is archived", Duration::from_secs(120), || {
        slow.product.json(&["status"])["waiting"]["files"] == 0
    });
    let metrics = slow.scratch.join("walarchive.prom");
    let run = slow.product.run(&["check", "wal", "--prometheus", metrics.to_str().unwrap()]);
    assert!(run.code == Some(0) && run.stdout.contains("no WAL waits"), "{run:#?}");
    let metrics = fs::read_to_string(metrics).unwrap();
    for zero in ["age_seconds", "waiting_files", "waiting_bytes"] {
        assert!(metrics.contains(&format!("walarchive_check_{zero}{{check=\"wal\"}} 0\n")), "{metrics}");
    }
    for rate in ["written", "archived"] {
        assert!(metrics.contains(&format!("walarchive_check_{rate}_bytes_per_second{{")), "{metrics}");
    }
    let status = slow.product.json(&["status"]);
    assert_eq!((&status["waiting"]["deficit"], &status["waiting"]["oldest"]), (&false.into(), &Value::Null));
    assert!(!problems(&status).contains("WAL is written faster"), "{status:#}");
    assert_eq!(slow.failures(), "0");
}

#[test]
fn a_data_directory_that_cannot_be_looked_at_is_a_problem_and_none_is_no_problem() {
    let Some(slow) = Slow::new() else { return };
    slow.cluster.archive_with(&slow.product);
    slow.cluster.archive_now();
    let elsewhere = slow.scratch.dir("elsewhere");
    let told = slow.product.but("PGDATA", elsewhere.to_str().unwrap()).json(&["status"]);
    assert!(problems(&told).contains("cannot be told: cannot list"), "{told:#}");
    let mut without = slow.product.clone();
    without.unset("PGDATA");
    let quiet = without.json(&["status"]);
    assert_eq!((&told["waiting"], &quiet["waiting"]), (&Value::Null, &Value::Null));
    assert!(!problems(&quiet).contains("cannot be told"), "{quiet:#}");
}
