//! Stores that say what is not so. What they acknowledge and did not keep cannot be known without reading it back; what
//! can be known is: a request or an answer that was changed on its way, and, at the latest when it is read, an object
//! that is not whole. Never does something wrong pass for right.

use std::sync::Arc;
use std::time::Duration;

use walarchive_tests::proxy::{Answer, Fault, Rule};
use walarchive_tests::sample::segment;

use crate::lab::Lab;

const PATIENT: Duration = Duration::from_secs(20);

#[test]
fn an_object_that_was_acknowledged_and_not_kept_is_absent_and_can_be_pushed_again() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    let number = lab.fresh_segment();
    let (path, name) = lab.write(number, 1);
    let script = [Rule::once(Fault::keep_nothing()).method("PUT").path(&name)];
    let run = line.walarchive(script, &["wal", "push", &path]);
    assert_eq!(run.applied, 1, "{run:#?}");
    if run.output.code == Some(0) {
        // Believed: then the next one to look sees that nothing is there.
        eprintln!("a store that says 200 and keeps nothing is believed");
        assert_eq!(lab.stored(&name), None);
    }
    lab.clean.ok(&["wal", "push", &path]);
    assert!(lab.stored(&name) == Some(segment(1, number, 1)));
}

#[test]
fn half_an_object_is_seen_when_it_is_read() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    let number = lab.fresh_segment();
    let (path, name) = lab.write(number, 1);
    let bucket = lab.bucket.clone();
    // The proxy writes half of the object itself: the store would see that the signed digest is another one.
    let keep_half = Fault::Invent(Arc::new(move |request| {
        let path = request.path.split('?').next().unwrap();
        let key = path.split_once(&format!("{}/", bucket.prefix())).unwrap().1.to_owned();
        let half = request.body[..request.body.len() / 2].to_vec();
        let raw = bucket.raw();
        std::thread::spawn(move || raw.put(&key, half)).join().unwrap();
        Answer::new(200).header("ETag", "\"0123456789abcdef0123456789abcdef\"")
    }));
    let script = [Rule::once(keep_half).method("PUT").path(&name)];
    let run = line.walarchive(script, &["wal", "push", &path]);
    assert_eq!(run.applied, 1, "{run:#?}");
    let (dir, output) = lab.fetch(&lab.clean, &name);
    if run.output.code == Some(0) {
        eprintln!("a store that says 200 and keeps half is believed until it is read: {:?}", output.code);
    }
    assert!(matches!(output.code, Some(0 | 1 | 204)), "{output:#?}");
    assert_eq!(dir.join("dest").exists(), output.code == Some(0));
    if output.code == Some(0) {
        assert!(std::fs::read(dir.join("dest")).unwrap() == segment(1, number, 1));
    }
}

#[test]
fn a_request_that_was_changed_on_its_way_is_not_stored() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    for fault in [Fault::FlipRequest(0), Fault::FlipRequest(5000), Fault::FlipRequest(u64::MAX)] {
        let number = lab.fresh_segment();
        let (path, name) = lab.write(number, 1);
        let script = [Rule::once(fault.clone()).method("PUT").path(&name)];
        let run = line.walarchive(script, &["wal", "push", &path]);
        assert_eq!(run.applied, 1, "{run:#?}");
        let stored = lab.stored(&name);
        assert!(stored.is_none() || stored == Some(segment(1, number, 1)), "{fault:?}: {run:#?}");
        assert!(stored.is_some() || run.output.code != Some(0), "{fault:?}: {run:#?}");
    }
}
