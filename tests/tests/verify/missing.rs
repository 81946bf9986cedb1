//! Objects that are not there.

use std::fs;
use std::path::Path;

use walarchive_tests::filled::files_below;
use walarchive_tests::{Output, Product, Scratch, sample};

use crate::stored::Stored;

#[test]
fn whatever_is_needed_is_missed_and_healed() {
    for encrypted in [true, false] {
        let Some(stored) = Stored::new(encrypted) else { return };
        // What was there is remembered.
        assert_eq!(stored.verify(&[]).code, Some(0));
        for path in stored.objects() {
            let key = stored.key(&path);
            // Nothing needs these; and retention may remove old WAL and old manifests.
            let oldest = [".backup", "/pin", "archive.json"];
            if oldest.iter().any(|end| key.ends_with(end)) || key.contains("/lease/") {
                continue;
            }
            fs::remove_file(&path).unwrap();
            let run = stored.verify(&[]);
            if run.code == Some(0) {
                let is_old = key.contains("/wal/00000001/") || key.ends_with("/manifest");
                assert!(is_old, "{key} is not missed: {run:#?}");
                stored.put_back(&path);
                continue;
            }
            stored.is_found(&path, &format!("{key} removed"));
            let healed = stored.heal();
            let repaired = healed["repaired"].as_array().unwrap();
            assert!(repaired.iter().any(|problem| problem["object"] == key.as_str()), "{key}: {healed:#}");
        }
    }
}

/// Gaps and lengths are seen in listings alone.
#[test]
fn without_reading_everything_gaps_and_lengths_are_seen() {
    let scratch = Scratch::new();
    let mut product = Product::new(&scratch);
    product.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
    let names: Vec<String> = (1..=5).map(|number| sample::segment_name(1, number)).collect();
    for (name, number) in names.iter().zip(1..) {
        let path = scratch.write(name, sample::segment(1, number, 1));
        product.ok(&["wal", "push", path.to_str().unwrap()]);
    }
    assert_eq!(product.run(&["verify"]).code, Some(0));
    let archive = product.archive_dir();
    let middle = files_below(&archive).into_iter().find(|path| path.ends_with(&names[2])).unwrap();
    fs::remove_file(&middle).unwrap();
    let run = product.run(&["--json", "verify"]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    let problem = &run.json()["problems"][0];
    let key = middle.strip_prefix(&archive).unwrap().to_str().unwrap();
    assert_eq!((&problem["kind"], &problem["object"]), (&"missing".into(), &key.into()));
    let Some(stored) = Stored::new(true) else { return };
    let pack = stored.objects().into_iter().find(|path| stored.key(path).contains("/packs/")).unwrap();
    let bytes = fs::read(&pack).unwrap();
    fs::write(&pack, &bytes[..bytes.len() - 1]).unwrap();
    let run = stored.verify(&[]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    assert_eq!(run.json()["problems"][0]["object"], stored.key(&pack).as_str());
}

/// The segment of 1 MiB on timeline 1 that a position lies in.
fn segment_of(lsn: &str) -> String {
    let (high, low) = lsn.split_once('/').unwrap();
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    format!("00000001{:08X}{:08X}", number(high), number(low) >> 20)
}

#[test]
fn what_backups_need_and_what_was_seen_last_is_missed() {
    let Some(stored) = Stored::new(true) else { return };
    assert_eq!(stored.verify(&[]).code, Some(0));
    let backups = stored.product.json(&["backup", "list"])["backups"].clone();
    // Before the first segment of the first backup nothing need be there.
    let first = stored.product.wal_object(&segment_of(backups[0]["start_lsn"].as_str().unwrap()));
    let is_needed = |path: &Path| {
        let run = stored.verify(&[]);
        assert_eq!(run.code, Some(4), "{run:#?}");
        let found = run.json();
        let object = stored.key(path);
        let problem =
            found["problems"].as_array().unwrap().iter().find(|problem| problem["object"] == object.as_str());
        let problem = problem.unwrap_or_else(|| panic!("{object} is not missed: {found:#}"));
        problem["kind"].as_str().unwrap().to_owned()
    };
    fs::remove_file(&first).unwrap();
    assert_eq!(is_needed(&first), "missing");
    for args in [&[][..], &["--backup", backups[0]["id"].as_str().unwrap()]] {
        let found = stored.verify(args).json();
        assert_eq!(found["backups"][0]["restorable"], false, "{args:?}: {found:#}");
    }
    stored.put_back(&first);
    // Without a segment behind the backups they lead less far.
    let leads_to = |run: Output| {
        let found = run.json();
        assert_eq!(found["backups"][1]["restorable"], true, "{found:#}");
        found["backups"][1]["leads_to"].to_string()
    };
    let before = leads_to(stored.deep());
    let last = stored.product.wal_object(&stored.last_segment);
    fs::write(&last, "nothing").unwrap();
    assert_ne!(leads_to(stored.deep()), before);
    stored.put_back(&last);
    assert_eq!(leads_to(stored.deep()), before);
    // A manifest that is gone leaves its packs, and the copy knows whose they are.
    let oldest = format!("{}/manifest", backups[0]["id"].as_str().unwrap());
    let manifest = stored.objects().into_iter().find(|path| path.ends_with(&oldest)).unwrap();
    fs::remove_file(&manifest).unwrap();
    assert_eq!(stored.heal()["repaired"][0]["object"], stored.key(&manifest).as_str());
    let newest = format!("{}/manifest", backups[1]["id"].as_str().unwrap());
    let manifest = stored.objects().into_iter().find(|path| path.ends_with(&newest)).unwrap();
    fs::remove_file(&manifest).unwrap();
    // However often it is looked at: what was seen is not forgotten.
    assert_eq!([is_needed(&manifest), is_needed(&manifest)], ["rolled-back", "rolled-back"]);
}
