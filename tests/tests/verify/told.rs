//! What is told, of how much, and by whom.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use walarchive_tests::{Product, Scratch};

use crate::stored::{Stored, names};

#[test]
fn problems_tell_what_they_endanger() {
    let Some(stored) = Stored::new(true) else { return };
    let ids: Vec<String> = stored.product.json(&["backup", "list"])["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["id"].as_str().unwrap().to_owned())
        .collect();
    let objects = stored.objects();
    let pack_of_first = format!("packs/{}/", ids[0]);
    let pack = objects.iter().find(|path| stored.key(path).contains(&pack_of_first)).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(pack, bytes).unwrap();
    let endangered = names(&stored.is_found(pack, "a pack"));
    // The incremental backup points into the packs of the full one.
    assert_eq!(endangered, [format!("backup {}", ids[0]), format!("backup {}", ids[1])]);
    let found = stored.deep().json();
    assert!(found["backups"].as_array().unwrap().iter().all(|backup| backup["restorable"] == false));
    // Only what the second dump needs.
    let dump = stored.product.json(&["dump", "list"])["dumps"][0]["id"].as_str().unwrap().to_owned();
    let run = stored.verify(&["--deep", "--backup", &dump]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let run = stored.verify(&["--deep", "--backup", &ids[1]]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    assert_eq!(stored.verify(&["--backup", "20200101T000000Z-00000000"]).code, Some(1));
    let healed = stored.heal();
    assert_eq!(healed["repaired"].as_array().unwrap().len(), 1);
    // A hole in the WAL behind the backups.
    let segment = stored.product.wal_object(&stored.last_segment);
    fs::remove_file(&segment).unwrap();
    let before = stored.deep();
    assert_eq!(before.code, Some(4), "{before:#?}");
    assert!(before.json()["problems"][0]["kind"] == "rolled-back", "{before:#?}");
}

/// What cannot be read may hold or not: it is named, and all else is proven still.
#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_proven() {
    let Some(stored) = Stored::new(true) else { return };
    let objects = stored.objects();
    let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let first = |what: &str| objects.iter().find(|path| stored.key(path).contains(what)).unwrap();
    let (backup, dump) = (first("/backups/").with_file_name("manifest"), first("dumps/manifests/"));
    let (pack, history) = (first("dumps/packs/"), first(".history"));
    for path in [&backup, dump, history, pack] {
        permit(path, 0);
        for args in [&["--deep"][..], &[]] {
            let run = stored.verify(args);
            if path == pack && args.is_empty() {
                assert_eq!(run.code, Some(0), "{run:#?}");
                continue;
            }
            assert_eq!(run.code, Some(6), "{run:#?}");
            let found = run.json();
            let problems = found["problems"].as_array().unwrap();
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert_eq!(
                (&problems[0]["kind"], &problems[0]["object"]),
                (&"unreachable".into(), &stored.key(path).into())
            );
            assert!(!names(&problems[0]).is_empty() && found["broken_off"].is_null(), "{found:#}");
            // It is not said that every byte was proven.
            assert_eq!(found["proven_since"].is_null(), path == &backup, "{found:#}");
        }
        // What is damaged besides is found, and counts more; what cannot be read is not replaced.
        let other = first("/packs/");
        fs::write(other, "nothing").unwrap();
        assert_eq!(stored.deep().code, Some(4));
        let copy = format!("file://{}", stored.copy.display());
        let run = stored.verify(&["--deep", "--repair-from", &copy]);
        assert_eq!(run.code, Some(6), "{run:#?}");
        assert_eq!(run.json()["repaired"].as_array().unwrap().len(), 1);
        permit(path, 0o600);
        stored.is_healed();
    }
    assert_eq!(stored.deep().code, Some(0));
}

#[test]
fn the_newest_backup_can_be_verified_alone() {
    let Some(stored) = Stored::new(true) else { return };
    let backups = stored.product.json(&["backup", "list"])["backups"].clone();
    let newest = backups[1]["id"].as_str().unwrap();
    let mut writer = stored.product.clone();
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let found = stored.verify(&["--deep", "--backup", "latest"]).json();
    let ids: Vec<&str> =
        found["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [newest]);
    let older = backups[0]["id"].as_str().unwrap();
    let manifest_of = |id: &str| {
        let objects = stored.objects().into_iter();
        objects.into_iter().find(|path| path.ends_with(format!("{id}/manifest"))).unwrap()
    };
    // Damage elsewhere does not concern it; its own is not passed over for an older one that holds.
    for (id, code) in [(older, 0), (newest, 4)] {
        let path = &manifest_of(id);
        fs::write(path, "nothing").unwrap();
        for product in [&stored.product, &writer] {
            let run = product.run(&["--json", "verify", "--deep", "--backup", "latest"]);
            assert_eq!(run.code, Some(code), "{run:#?}");
        }
        stored.put_back(path);
    }
    let history = stored.objects().into_iter().find(|path| path.ends_with("00000002.history")).unwrap();
    fs::remove_file(history).unwrap();
    assert_eq!(stored.verify(&[]).code, Some(4));
    let run = stored.verify(&["--backup", "latest"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(stored.verify(&["--backup", "newest"]).code, Some(2));
}

#[test]
fn without_an_identity_structure_alone_is_proven() {
    let Some(stored) = Stored::new(true) else { return };
    let mut writer = stored.product.clone();
    writer.unset("WALARCHIVE_IDENTITY_FILE");
    let run = writer.run(&["--json", "verify", "--deep"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let found = run.json();
    assert_eq!(
        (&found["opened"], &found["bytes"], &found["proven_since"]),
        (&false.into(), &0.into(), &Value::Null)
    );
    let text = writer.ok(&["verify", "--deep"]);
    assert!(text.contains("not opened"), "{text}");
    // A segment that was cut, and two objects that changed places.
    let segment = stored.product.wal_object(&stored.last_segment);
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 100]).unwrap();
    assert_eq!(writer.run(&["--json", "verify", "--deep"]).code, Some(4));
}

#[test]
fn shares_add_up_to_everything() {
    let Some(stored) = Stored::new(true) else { return };
    let all = stored.deep().json()["bytes"].as_u64().unwrap();
    fs::remove_dir_all(stored.product.state_dir().join("verify")).unwrap();
    let mut sum = 0;
    for night in 1..=4 {
        let found = stored.verify(&["--fraction", "1/4"]).json();
        sum += found["bytes"].as_u64().unwrap();
        assert_eq!(found["proven_since"].is_null(), night < 4, "{found:#}");
    }
    assert_eq!(sum, all);
}

#[test]
fn another_archive_is_no_copy() {
    let Some(stored) = Stored::new(true) else { return };
    let scratch = Scratch::new();
    let other = Product::new(&scratch);
    let url = format!("file://{}", other.archive_dir().display());
    let run = stored.verify(&["--repair-from", &url]);
    assert_eq!(run.code, Some(3), "{run:#?}");
}
