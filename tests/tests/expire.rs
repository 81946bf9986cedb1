//! Retention on a real cluster: what the rules keep can be restored, to any moment, and the rest is gone.

use std::fs;

use serde_json::Value;
use walarchive_tests::{Cluster, Product, Scratch, StopMode};

const ROWS: &str = "select string_agg(n::text, ' ' order by n) from ledger";

fn id(backup: &Value) -> &str {
    backup["id"].as_str().expect("an id")
}

fn listed(product: &Product) -> Vec<String> {
    let list = product.json(&["backup", "list"]);
    let backups = list["backups"].as_array().expect("a list");
    backups.iter().map(|backup| id(backup).to_owned()).collect()
}

fn segments(product: &Product) -> u64 {
    let list = product.json(&["wal", "list"]);
    let timelines = list["timelines"].as_array().expect("timelines");
    timelines.iter().map(|timeline| timeline["segments"].as_u64().expect("a number")).sum()
}

/// A row, a backup, a row, and so on; `count` backups.
fn made(cluster: &Cluster, product: &Product, count: u32) -> Vec<Value> {
    cluster.psql("create table ledger (n int primary key)");
    let one = |n| {
        cluster.psql(&format!("insert into ledger values ({n})"));
        cluster.archive_now();
        product.back_up(cluster, &[])
    };
    (1..=count).map(one).collect()
}

#[test]
fn what_the_rules_keep_can_be_restored() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    let backups = made(&cluster, &product, 5);
    product.ok(&["backup", "pin", id(&backups[0])]);
    cluster.psql("insert into ledger values (6)");
    cluster.archive_now();
    cluster.stop(StopMode::Fast);
    let stored = segments(&product);

    let rules = product.but("WALARCHIVE_BACKUP_KEEP_LAST", "2");
    let plan = rules.json(&["prune"]);
    assert_eq!(plan["retention"]["expire"], serde_json::json!([id(&backups[1]), id(&backups[2])]), "{plan}");
    assert_eq!((listed(&product).len(), segments(&product)), (5, stored), "without --yes nothing goes");
    let done = rules.json(&["prune", "--yes"]);
    assert_eq!(done["retention"]["wal"], plan["retention"]["wal"]);
    assert!(!done["retention"]["wal"].as_array().expect("a list").is_empty(), "{done}");
    assert_eq!(listed(&product), [0, 3, 4].map(|nth| id(&backups[nth]).to_owned()));
    assert!(segments(&product) < stored);
    let again = rules.json(&["prune", "--yes"]);
    assert_eq!(
        (&again["retention"]["expire"], &again["retention"]["wal"]),
        (&Value::from([""; 0].to_vec()), &Value::from([""; 0].to_vec()))
    );

    // What retention took is not missing.
    let list = product.json(&["wal", "list"]);
    assert_eq!(list["timelines"][0]["missing_count"], 0, "{list}");
    let status = product.json(&["status"]);
    assert_eq!(status["problems"], serde_json::json!([]), "{status}");

    // The pinned one at its own moment, the oldest that the rule keeps at its own, and everything since.
    for (backup, to, rows) in [
        (0, "immediate", "1"),
        (3, "immediate", "1 2 3 4"),
        (3, "latest", "1 2 3 4 5 6"),
        (4, "latest", "1 2 3 4 5 6"),
    ] {
        let mut restored = product.restore(&scratch, &["--backup", id(&backups[backup]), "--to", to]);
        restored.start_promoted();
        assert_eq!(restored.psql(ROWS), rows, "backup {backup} to {to}");
        restored.stop(StopMode::Fast);
        fs::remove_dir_all(restored.data_dir()).expect("remove");
    }
    // The past behind a pin alone is gone, and that is told.
    let gone = product.restore_to(&scratch.join("no"), &["--backup", id(&backups[0]), "--to", "latest"]);
    assert_eq!(gone.code, Some(3), "{gone:#?}");
}

#[test]
fn the_last_backup_goes_only_when_told_so() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    let backups = made(&cluster, &product, 2);
    product.ok(&["backup", "delete", id(&backups[0]), "--yes"]);
    let refused = product.run(&["backup", "delete", id(&backups[1]), "--yes"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("--even-the-last"), "{refused:#?}");
    assert_eq!(listed(&product).len(), 1);
    product.ok(&["backup", "delete", id(&backups[1]), "--yes", "--even-the-last"]);
    assert_eq!(listed(&product).len(), 0);
}

#[test]
fn rules_need_an_identity_and_sense() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    made(&cluster, &product, 2);
    let mut writer = product.but("WALARCHIVE_BACKUP_KEEP_LAST", "1");
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let refused = writer.run(&["prune", "--yes"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("retention is not applied"), "{refused:#?}");
    for (name, value) in [("BACKUP_KEEP_LAST", "0"), ("BACKUP_KEEP_DAILY", "some"), ("BACKUP_WINDOW", "long")]
    {
        let refused = product.but(&format!("WALARCHIVE_{name}"), value).run(&["prune", "--yes"]);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
    }
    assert_eq!(listed(&product).len(), 2);
}

#[test]
fn a_new_archive_has_nothing_to_prune() {
    let scratch = Scratch::new();
    let product = Product::new(&scratch).but("WALARCHIVE_BACKUP_KEEP_LAST", "1");
    let done = product.json(&["prune", "--yes"]);
    assert_eq!(
        (&done["remove"], &done["problems"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{done}"
    );
}
