//! Backups and prunes that are killed at any moment, one after the other, on one archive: what was promised stays
//! restorable, whatever the next one finds. Kills of restores are in `interrupted.rs`.
//!
//! `WALARCHIVE_TEST_KILLS=200` kills more often.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use walarchive_tests::{Background, Cluster, Moments, Output, Product, Scratch, StopMode, kill_tree, kills};

const KEPT: usize = 3;

struct Live {
    scratch: Scratch,
    product: Product,
    cluster: Cluster,
}

impl Live {
    fn new() -> Option<Live> {
        let scratch = Scratch::new();
        let mut product = Product::new(&scratch);
        let builder =
            Cluster::builder(&scratch).wal_segment_mib(1).conf("fsync = off").conf("autovacuum = off");
        let cluster = builder.start()?;
        cluster.archive_with(&product);
        cluster.pgbench_init(2);
        product.set("WALARCHIVE_CONNECTION", &cluster.conninfo());
        product.set("WALARCHIVE_BACKUP_KEEP_LAST", &KEPT.to_string());
        product.set("WALARCHIVE_BACKUP_LEASE", "2s");
        Some(Live { scratch, product, cluster })
    }

    fn listed(&self) -> Vec<String> {
        let list = self.product.json(&["backup", "list"]);
        let backups = list["backups"].as_array().unwrap();
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    fn change(&self, round: u32) {
        self.cluster
            .psql(&format!("update pgbench_accounts set bid = {round} where aid % 501 = {}", round % 501));
    }

    /// Runs a command until it is over or its moment has come; says whether it was killed.
    fn kill(&self, command: Command, moments: &mut Moments) -> bool {
        let after = moments.wait();
        let mut running = Background::start(command, self.scratch.join("log"));
        let begun = Instant::now();
        while begun.elapsed() < after && running.ended().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let is_hit = running.ended().is_none();
        moments.was_hit(is_hit);
        if is_hit {
            kill_tree(running.pid());
            running.kill();
        } else {
            assert!(running.wait(Duration::from_secs(60)).success(), "{}", running.printed());
        }
        is_hit
    }

    /// Every backup that is listed has all that it consists of, and the WAL that it needs.
    fn are_whole(&self, when: &str) -> Vec<String> {
        let listed = self.listed();
        for id in &listed {
            let target = self.scratch.join("never");
            let args = ["--backup", id, "--to", "immediate", "--timeline", "current", "--dry-run"];
            let plan: Output = self.product.restore_to(&target, &args);
            assert_eq!(plan.code, Some(0), "{when}: backup {id}: {plan:#?}");
        }
        listed
    }

    fn create(&self) -> Command {
        self.product.command(&["backup", "create"])
    }

    fn prune(&self) -> Command {
        self.product.command(&["prune", "--yes"])
    }

    fn takes(&self, command: impl Fn() -> Command) -> Duration {
        let begun = Instant::now();
        assert!(command().output().unwrap().status.success());
        begun.elapsed()
    }
}

#[test]
fn backups_and_prunes_that_are_killed_lose_nothing() {
    let Some(live) = Live::new() else { return };
    for round in 0..5 {
        live.change(round);
        live.takes(|| live.create());
    }
    let (times, mut killed) = (kills(12), (0, 0));
    let mut create = Moments::new(live.takes(|| live.create()), times);
    let mut prune = Moments::new(live.takes(|| live.prune()), times);
    for n in 0..times {
        live.change(n);
        let before = live.listed();
        killed.0 += u32::from(live.kill(live.create(), &mut create));
        let between = live.are_whole("after a backup");
        assert!(before.iter().all(|id| between.contains(id)), "a backup that was killed took others along");
        // One more, so that there is something to prune.
        live.takes(|| live.create());
        let newest = live.listed();
        killed.1 += u32::from(live.kill(live.prune(), &mut prune));
        let after = live.are_whole("after a prune");
        let kept = &newest[newest.len().saturating_sub(KEPT)..];
        assert!(kept.iter().all(|id| after.contains(id)), "{kept:?} are to be kept, there are {after:?}");
        if n % 5 == 4 {
            // What has gathered takes ever longer to look through.
            live.takes(|| live.prune());
        }
    }
    assert!(killed.0 > times / 4 && killed.1 > times / 4, "killed were only {killed:?} of {times}");
    for id in live.listed() {
        let mut restored = live.product.restore(&live.scratch, &["--backup", &id, "--to", "immediate"]);
        restored.start_promoted();
        assert_eq!(restored.psql("select count(*) from pgbench_accounts"), "200000");
        restored.stop(StopMode::Fast);
        fs::remove_dir_all(restored.data_dir()).unwrap();
    }
    // Leases end, and then nothing is left of what was killed.
    std::thread::sleep(Duration::from_secs(3));
    live.takes(|| live.prune());
    let left = live.product.json(&["prune"]);
    assert_eq!(left["remove"].as_array().map_or(1, Vec::len), 0, "{left:#}");
}
