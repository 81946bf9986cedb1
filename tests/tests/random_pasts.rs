//! Random pasts of a cluster: whatever was done, backed up, cut off, promoted and deleted, each backup that is listed
//! restores to exactly what the cluster was.
//!
//! `WALARCHIVE_TEST_PASTS=20` runs more of them; each prints its seed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use walarchive_tests::{Background, Cluster, Product, Scratch, StopMode, kill_tree, postgres_major};

const STEPS: usize = 24;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct Past {
    scratch: Scratch,
    cluster: Cluster,
    product: Product,
    random: Random,
    tables: Vec<u64>,
    next: u64,
    /// What the cluster was when each backup was made.
    was: BTreeMap<String, String>,
}

impl Past {
    fn new(seed: u64) -> Option<Past> {
        let scratch = Scratch::new();
        let checksums = seed.is_multiple_of(2);
        let builder = Cluster::builder(&scratch).wal_segment_mib(1).data_checksums(checksums);
        let builder = builder.conf("autovacuum = off").conf("fsync = off");
        // Servers that can tell what has changed do.
        let summarizing = postgres_major() >= Some(17);
        let cluster = if summarizing { builder.conf("summarize_wal = on") } else { builder }.start()?;
        let mut product = Product::new(&scratch);
        product.set("WALARCHIVE_PRUNE_GRACE", "0s");
        cluster.archive_with(&product);
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Some(Past { scratch, cluster, product, random, tables: vec![], next: 0, was: BTreeMap::new() })
    }

    fn any_table(&mut self) -> Option<u64> {
        let count = self.tables.len() as u64;
        (count > 0).then(|| self.tables[self.random.below(count) as usize])
    }

    /// Changes something, in one of the ways that go past single pages, or through them.
    fn change(&mut self) {
        let rows = 1 + self.random.below(20_000);
        let Some(table) = self.any_table().filter(|_| self.random.below(4) > 0) else {
            self.next += 1;
            self.tables.push(self.next);
            let table = self.next;
            let seed = self.random.below(1000);
            return drop(self.cluster.psql(&format!(
                "create table t{table} as select n, md5((n * {seed})::text) t from generate_series(1, {rows}) n;
                 create index on t{table} (t)"
            )));
        };
        let sql = match self.random.below(10) {
            0 => format!("truncate t{table}"),
            1 => format!("vacuum full t{table}"),
            2 => format!("vacuum t{table}"),
            3 => format!("delete from t{table} where n % 3 = 0"),
            4 => format!("insert into t{table} select n, 'x' from generate_series(1, {rows}) n"),
            5 => format!("select count(*) from t{table}"),
            6 => {
                let strategy = if postgres_major() < Some(15) { "" } else { "strategy file_copy" };
                format!("create database d{table}_{} {strategy}", self.next + rows)
            }
            7 => format!("alter table t{table} alter t type varchar"),
            8 => {
                self.tables.retain(|known| *known != table);
                format!("drop table t{table}")
            }
            _ => format!("update t{table} set t = t || '.' where n % 50 = {}", rows % 50),
        };
        self.cluster.psql(&sql);
    }

    fn back_up(&mut self) {
        let full = self.random.below(6) == 0;
        let made = self.product.back_up(&self.cluster, if full { &["--full"] } else { &[] });
        self.was.insert(made["id"].as_str().expect("an id").to_owned(), self.cluster.dump());
    }

    fn cut_off(&mut self) {
        let command = self.product.connected(&self.cluster).command(&["backup", "create"]);
        let mut backup = Background::start(command, self.scratch.join("cut-off"));
        std::thread::sleep(Duration::from_millis(self.random.below(900)));
        kill_tree(backup.pid());
        backup.wait(Duration::from_secs(60));
        // One that was faster is a backup like any other.
        for id in self.listed() {
            let now = self.cluster.dump();
            self.was.entry(id).or_insert(now);
        }
    }

    fn listed(&self) -> Vec<String> {
        let list = self.product.json(&["backup", "list"]);
        let backups = list["backups"].as_array().expect("a list").iter();
        backups.map(|backup| backup["id"].as_str().expect("an id").to_owned()).collect()
    }

    fn delete(&mut self) {
        let listed = self.listed();
        if listed.len() > 1 {
            let id = &listed[self.random.below(listed.len() as u64) as usize];
            self.product.ok(&["backup", "delete", id, "--yes"]);
            self.was.remove(id);
        }
        self.product.ok(&["prune", "--yes"]);
    }

    /// The cluster goes on as what a restore of one of its backups becomes.
    fn promote(&mut self) {
        let listed = self.listed();
        let Some(id) = listed.last() else { return };
        self.cluster.archive_now();
        self.cluster.stop(StopMode::Fast);
        let target = self.scratch.join(format!("promoted{}", self.random.below(u64::MAX)));
        let to = ["immediate", "latest"][self.random.below(2) as usize];
        let output = self.product.restore_to(&target, &["--backup", id, "--to", to]);
        assert_eq!(output.code, Some(0), "{output:#?}");
        let builder = Cluster::adopt(&self.scratch).option("archive_mode", "on");
        self.cluster = builder.existing(target).expect("PostgreSQL is there");
        self.cluster.start_promoted();
        let tables = self
            .cluster
            .psql("select substr(relname, 2) from pg_class where relkind = 'r' and relname ~ '^t[0-9]+$'");
        self.tables = tables.lines().filter_map(|line| line.parse().ok()).collect();
    }

    fn live(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(12) {
                0..=5 => self.change(),
                6..=8 => self.back_up(),
                9 => self.cut_off(),
                10 => self.delete(),
                _ => self.promote(),
            }
        }
        self.back_up();
    }

    fn comes_back(&self) {
        let listed = self.listed();
        assert!(!listed.is_empty() && listed.iter().all(|id| self.was.contains_key(id)));
        for id in listed {
            let mut restored = self
                .product
                .restore(&self.scratch, &["--backup", &id, "--to", "immediate", "--timeline", "current"]);
            restored.start_promoted();
            assert!(restored.dump() == self.was[&id], "backup {id} is not what the cluster was");
            restored.stop(StopMode::Fast);
            fs::remove_dir_all(restored.data_dir()).expect("remove");
        }
    }
}

#[test]
fn random_pasts_come_back() {
    let pasts = std::env::var("WALARCHIVE_TEST_PASTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let first = std::env::var("WALARCHIVE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + pasts {
        let Some(mut past) = Past::new(seed) else { return };
        println!("seed {seed}");
        past.live();
        past.comes_back();
    }
}
