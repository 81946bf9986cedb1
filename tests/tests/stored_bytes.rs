//! What a backup costs: bytes that it alone needs, bytes that others need too, and all of it together.

use std::fs;

use serde_json::Value;
use walarchive_tests::{Cluster, Product, Scratch, bytes_below};

fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("no {key} in {document}"))
}

fn id(backup: &Value) -> &str {
    backup["id"].as_str().unwrap_or_else(|| panic!("no id in {backup}"))
}

/// A full backup, and an increment to it.
fn two_backups(scratch: &Scratch) -> Option<Product> {
    let cluster = Cluster::builder(scratch).wal_segment_mib(1).conf("autovacuum = off").start()?;
    let product = Product::new(scratch);
    cluster.archive_with(&product);
    cluster.pgbench_init(2);
    let made = product.connected(&cluster).json(&["backup", "create"]);
    assert!(
        made["unique_bytes"].is_null() && made["shared_bytes"].is_null(),
        "nobody looked at others: {made}"
    );
    cluster.psql("update pgbench_accounts set abalance = 1 where aid % 5000 = 7");
    assert_eq!(product.connected(&cluster).json(&["backup", "create"])["kind"], "incremental");
    Some(product)
}

fn listed(product: &Product) -> Vec<Value> {
    product.json(&["backup", "list"])["backups"].as_array().unwrap().clone()
}

#[test]
fn what_one_backup_needs_and_what_others_need_too_add_up() {
    let scratch = Scratch::new();
    let Some(product) = two_backups(&scratch) else { return };
    let (packs, backups) = (product.cluster_dir().join("packs"), product.cluster_dir().join("backups"));
    let backups_listed = listed(&product);
    let [full, next] = &backups_listed[..] else { panic!("{backups_listed:?}") };
    let shared = number(full, "shared_bytes");
    assert!(shared > 100_000 && number(next, "shared_bytes") == shared, "{backups_listed:?}");
    assert!(number(next, "unique_bytes") > number(next, "stored_bytes"), "the manifest counts: {next}");
    let unique = number(full, "unique_bytes") + number(next, "unique_bytes");
    assert_eq!(unique + shared, bytes_below(&packs) + bytes_below(&backups));
    for backup in &backups_listed {
        assert_eq!(product.json(&["backup", "show", id(backup)]), *backup);
    }

    // A pack that a dead writer left is nobody's.
    fs::write(packs.join(id(full)).join("00000099"), [0; 1000]).unwrap();
    let status = product.json(&["status"]);
    let stored = &status["stored"];
    assert_eq!(status["latest_backup"], *next);
    assert_eq!(number(stored, "unneeded_bytes"), 1000);
    assert_eq!(number(stored, "packs_bytes"), bytes_below(&packs));
    assert_eq!(number(stored, "manifests_bytes"), bytes_below(&backups));
    assert_eq!(number(stored, "wal_bytes"), bytes_below(&product.cluster_dir().join("wal")));
    assert_eq!(number(stored, "bytes"), bytes_below(&product.cluster_dir()));

    // What the other needs stays, and is its own from then on.
    product.ok(&["backup", "delete", id(full), "--yes"]);
    assert!(bytes_below(&packs) >= shared);
    let [left] = &listed(&product)[..] else { panic!("one is left") };
    assert_eq!(
        (number(left, "unique_bytes"), number(left, "shared_bytes")),
        (number(next, "unique_bytes") + shared, 0)
    );
    assert_eq!(number(left, "unique_bytes"), bytes_below(&packs) + bytes_below(&backups));
    let table = product.ok(&["backup", "list"]);
    assert!(table.contains("unique") && table.contains("shared") && !table.contains("unknown"), "{table}");
}

#[test]
fn what_cannot_be_known_is_not_made_up() {
    let scratch = Scratch::new();
    let Some(product) = two_backups(&scratch) else { return };
    let mut writer = product.but("WALARCHIVE_ARCHIVE_POLICY", "all");
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let stored = &writer.json(&["status"])["stored"];
    assert_eq!(number(stored, "bytes"), bytes_below(&product.cluster_dir()), "{stored}");
    assert!(stored["unneeded_bytes"].is_null(), "{stored}");

    let backups = listed(&product);
    let manifest = product.cluster_dir().join("backups").join(id(&backups[1])).join("manifest");
    let mut bytes = fs::read(&manifest).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(&manifest, bytes).unwrap();
    let output = product.run(&["--json", "backup", "list"]);
    assert_eq!(output.code, Some(4), "{output:#?}");
    let left = &output.json()["backups"][0];
    assert_eq!(id(left), id(&backups[0]));
    assert!(left["unique_bytes"].is_null() && left["shared_bytes"].is_null(), "{left}");
    assert!(product.run(&["backup", "list"]).stdout.contains("unknown"));
    assert!(product.ok(&["backup", "show", id(left)]).contains("unknown"));
    assert!(product.json(&["status"])["stored"]["unneeded_bytes"].is_null());
}
