//! The golden archives: made once by the first program that wrote the format version (golden/make.sh), and read by every
//! later one.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use walarchive_tests::{Cluster, Options, Product, Scratch, postgres_major, wait_until};

const HISTORY: &str = "1\t0/100000\tgolden\n";

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(version)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// A copy that the unprivileged user owns, with the secret key's file as private as it must be.
fn product(scratch: &Scratch, place: &str, cluster: &str) -> Product {
    let copy = scratch.join(format!("golden-{place}-{cluster}"));
    let done = Command::new("cp").arg("-r").arg(golden("v1")).arg(&copy).status().unwrap();
    assert!(done.success());
    scratch.own(&copy);
    let key = copy.join("identity.txt");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let options = Options { init: false, ..Options::default() };
    let mut product = Product::with(scratch, options);
    product.set("WALARCHIVE_ARCHIVE", &format!("file://{}", copy.join(place).display()));
    product.set("WALARCHIVE_IDENTITY_FILE", key.to_str().unwrap());
    product.set("WALARCHIVE_CLUSTER", cluster);
    product.unset("WALARCHIVE_RECIPIENTS");
    product
}

#[test]
fn segments_of_every_codec_come_back_byte_for_byte() {
    let (name, sum) = (text(&golden("v1").join("segment.name")), text(&golden("v1").join("segment.sha256")));
    let scratch = Scratch::new();
    for (place, cluster) in [
        ("encrypted", "golden"),
        ("plain", "golden"),
        ("plain", "golden-lz4"),
        ("plain", "golden-gzip"),
        ("plain", "golden-xz"),
        ("plain", "golden-none"),
    ] {
        let dest = scratch.join(format!("{place}-{cluster}.segment"));
        product(&scratch, place, cluster).ok(&["wal", "fetch", &name, dest.to_str().unwrap()]);
        let digest: String =
            Sha256::digest(std::fs::read(&dest).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, sum, "{place} {cluster}");
    }
}

#[test]
fn timeline_histories_come_back() {
    let scratch = Scratch::new();
    for place in ["encrypted", "plain"] {
        let dest = scratch.join(format!("{place}.history"));
        product(&scratch, place, "history").ok(&["wal", "fetch", "00000002.history", dest.to_str().unwrap()]);
        assert_eq!(std::fs::read_to_string(dest).unwrap(), HISTORY, "{place}");
    }
}

#[test]
fn the_backup_is_listed_with_its_facts() {
    let scratch = Scratch::new();
    let list = product(&scratch, "encrypted", "golden").json(&["backup", "list"]);
    let backup = &list["backups"][0];
    assert_eq!(list["backups"].as_array().unwrap().len(), 1);
    assert_eq!(backup["pg_major"], 15);
    assert_eq!(backup["kind"], "full");
    assert_eq!(backup["labels"]["made"], "once");
    assert_eq!(backup["damaged_pages"], 0);
}

#[test]
fn the_cluster_comes_back_at_its_restore_point_and_at_its_end() {
    if postgres_major() != Some(15) {
        eprintln!("SKIPPED: the golden cluster needs PostgreSQL 15");
        return;
    }
    let scratch = Scratch::new();
    let product = product(&scratch, "encrypted", "golden");
    for (to, rows) in [("name:golden", "150"), ("latest", "200")] {
        let target = scratch.join(format!("restored-{rows}"));
        product.ok(&["restore", "--target-dir", target.to_str().unwrap(), "--to", to]);
        let conf = format!("{}/postgresql.conf", target.display());
        let kept: String = std::fs::read_to_string(&conf)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("archive_command"))
            .fold(String::new(), |all, line| all + line + "\n");
        std::fs::write(&conf, kept).unwrap();
        let mut cluster = Cluster::adopt(&scratch).option("archive_mode", "off").existing(target).unwrap();
        cluster.start();
        let ask = |sql: &str| cluster.psql(sql);
        wait_until("the server is promoted", std::time::Duration::from_secs(60), || {
            ask("SELECT pg_is_in_recovery()") == "f"
        });
        assert_eq!(ask("SELECT count(*) FROM golden WHERE md5(n::text) = md5"), rows, "{to}");
        assert_eq!(ask("SELECT max(n) FROM golden"), rows, "{to}");
    }
}
