//! Bits that are flipped, objects that are cut or have changed places.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::stored::Stored;

/// The next of numbers that are the same in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn flips() -> usize {
    std::env::var("WALARCHIVE_TEST_FLIPS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

#[test]
fn an_undamaged_archive_is_reported_as_such() {
    for encrypted in [true, false] {
        let Some(stored) = Stored::new(encrypted) else { return };
        for args in [&[][..], &["--deep"], &["--fraction", "1/7"]] {
            let run = stored.verify(args);
            assert_eq!(run.code, Some(0), "{args:?}: {run:#?}");
            let found = run.json();
            assert_eq!((&found["ok"], &found["problems"]), (&true.into(), &Value::Array(vec![])));
            assert_eq!(found["objects"], stored.objects().len());
            let backups = found["backups"].as_array().unwrap();
            assert_eq!(backups.len(), 2);
            assert!(backups.iter().all(|backup| backup["restorable"] == true));
            let timelines: BTreeSet<u64> = backups[0]["leads_to"]
                .as_array()
                .unwrap()
                .iter()
                .map(|to| to["timeline"].as_u64().unwrap())
                .collect();
            assert_eq!(timelines, BTreeSet::from([1, 2]));
            assert!(found["dumps"].as_array().unwrap().len() >= 2);
        }
        let all: u64 = stored.objects().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let read = stored.deep().json()["bytes"].as_u64().unwrap();
        let description = fs::metadata(stored.product.archive_dir().join("archive.json")).unwrap().len();
        assert_eq!(read, all - description, "not every byte was read");
        let text = stored.product.ok(&["verify", "--deep"]);
        assert!(text.contains("nothing is wrong") && text.contains("proven"), "{text}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for encrypted in [true, false] {
        let Some(stored) = Stored::new(encrypted) else { return };
        let (objects, mut state) = (stored.objects(), 7);
        for n in 0..flips() {
            // Each object once, in its head; then anywhere.
            let path =
                objects.get(n).unwrap_or_else(|| &objects[random(&mut state) as usize % objects.len()]);
            let mut bytes = fs::read(path).unwrap();
            let within = if n < objects.len() { bytes.len().min(600) } else { bytes.len() };
            let at = random(&mut state) as usize % within;
            bytes[at] ^= 1 << (random(&mut state) % 8);
            fs::write(path, bytes).unwrap();
            let what = format!("byte {at} of {}", path.display());
            stored.is_found(path, &what);
            stored.put_back(path);
        }
        assert_eq!(stored.deep().code, Some(0));
    }
}

#[test]
fn every_cut_and_every_swap_is_found() {
    let Some(stored) = Stored::new(true) else { return };
    for path in stored.objects() {
        let bytes = fs::read(&path).unwrap();
        for len in [0, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            stored.is_found(&path, &format!("{} cut to {len}", path.display()));
        }
        fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
        stored.is_found(&path, &format!("{} with a byte more", path.display()));
        stored.put_back(&path);
    }
    let mut objects = stored.objects();
    // Without its description there is no archive to look at; that is told above.
    objects.retain(|path| !path.ends_with("archive.json"));
    for (one, other) in objects.iter().zip(&objects[1..]) {
        let (a, b) = (fs::read(one).unwrap(), fs::read(other).unwrap());
        fs::write(one, &b).unwrap();
        fs::write(other, &a).unwrap();
        let what = format!("{} and {} swapped", one.display(), other.display());
        stored.is_found(one, &what);
        stored.is_found(other, &what);
        stored.put_back(one);
        stored.put_back(other);
    }
}
