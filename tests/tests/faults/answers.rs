//! Answers that mean something: refusals that pass, refusals that do not, and answers that got lost.

use std::time::Duration;

use walarchive_tests::proxy::{Answer, Fault, Rule};
use walarchive_tests::sample::segment;

use crate::lab::{Lab, Line, Run, SLACK};

const PATIENT: Duration = Duration::from_secs(30);

/// A segment that is not stored yet; its path, name and content.
fn new_segment(lab: &Lab) -> (String, String, Vec<u8>) {
    let number = lab.fresh_segment();
    let (path, name) = lab.write(number, 1);
    (path, name, segment(1, number, 1))
}

/// Pushes a new segment under a script that concerns its object; proves that it is stored once, and identical.
#[track_caller]
fn pushes(lab: &Lab, line: &Line, script: impl Fn(&str) -> Vec<Rule>) -> Run {
    let (path, name, content) = new_segment(lab);
    let run = line.walarchive(script(&name), &["wal", "push", &path]).exits(0);
    assert!(run.applied > 0, "the fault was not applied: {run:#?}");
    assert!(lab.stored(&name) == Some(content), "{name} is not what was pushed: {run:#?}");
    let objects: Vec<_> =
        lab.bucket.raw().list().into_iter().filter(|(key, _)| key.contains(&name)).collect();
    assert_eq!(objects.len(), 1, "{objects:?}");
    run
}

fn answer(status: u16, code: &str) -> Fault {
    Fault::Answer(Answer::s3(status, code, "as the script says"))
}

#[test]
fn a_lost_answer_to_a_put_is_resolved_by_what_is_stored() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    let ends =
        [Fault::LoseAnswer, Fault::ResetAnswer(0), Fault::Truncate(0), Fault::StallHead, Fault::Duplicate];
    for fault in ends {
        let run = pushes(&lab, &line, |name| vec![Rule::once(fault.clone()).method("PUT").path(name)]);
        let puts: Vec<_> = run.requests("PUT").iter().map(|put| put.upstream).collect();
        assert!(puts.len() <= 3, "{puts:?}");
        eprintln!("{fault:?}: {puts:?}");
    }
    // Lost three times in a row.
    pushes(&lab, &line, |name| vec![Rule::times(3, Fault::LoseAnswer).method("PUT").path(name)]);
    // Lost, and then the comparison is disturbed, too.
    pushes(&lab, &line, |name| {
        let disturbed = |fault| Rule::once(fault).method("GET").path(name);
        let put = Rule::once(Fault::LoseAnswer).method("PUT").path(name);
        vec![put, disturbed(Fault::Reset), disturbed(Fault::Truncate(50)), disturbed(answer(503, "SlowDown"))]
    });
    // Lost, and other content was there before: that is no success.
    let number = lab.fresh_segment();
    lab.clean.ok(&["wal", "push", &lab.write(number, 1).0]);
    let (path, name) = lab.write(number, 2);
    for method in ["PUT", "GET"] {
        let script = [Rule::once(Fault::LoseAnswer).method(method).path(&name)];
        line.walarchive(script, &["wal", "push", &path]).exits(3);
    }
    assert!(lab.stored(&name) == Some(segment(1, number, 1)));
}

#[test]
fn a_conflict_of_requests_is_not_an_answer() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    for code in ["ConditionalRequestConflict", "OperationAborted"] {
        let run =
            pushes(&lab, &line, |name| vec![Rule::times(2, answer(409, code)).method("PUT").path(name)]);
        assert_eq!(run.applied, 2, "{run:#?}");
    }
    // For ever, it is unreachable: never success without the object, and never a conflict of content.
    let impatient = lab.line(Duration::from_secs(1));
    let (path, name, _) = new_segment(&lab);
    let script = [Rule::always(answer(409, "ConditionalRequestConflict")).method("PUT").path(&name)];
    impatient.walarchive(script, &["wal", "push", &path]).exits(5).within(Duration::from_secs(2) + SLACK);
    assert_eq!(lab.stored(&name), None);
}

#[test]
fn throttling_is_respected() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    let slow_down = || Fault::Answer(Answer::slow_down());
    let run = pushes(&lab, &line, |name| vec![Rule::times(3, slow_down()).method("PUT").path(name)]);
    let puts = run.requests("PUT");
    let puts: Vec<_> = puts.iter().filter(|put| put.fault.is_some() || put.upstream.is_some()).collect();
    let pauses: Vec<_> = puts.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses.len() >= 3 && puts.len() <= 6, "{run:#?}");
    // Jitter takes at most half of the pauses of 0.1, 0.2 and 0.4 s.
    let tried: Duration = pauses.iter().sum();
    assert!(tried >= Duration::from_millis(350), "{pauses:?}");

    // The store says when: not before, and not much later.
    for status in [503, 429] {
        let fault = Fault::Answer(Answer::new(status).header("Retry-After", "2"));
        let run = pushes(&lab, &line, |name| vec![Rule::once(fault.clone()).method("PUT").path(name)]);
        let refused = run.log.iter().position(|seen| seen.fault.is_some()).unwrap();
        let pause = run.log[refused + 1].at - run.log[refused].at;
        assert!(pause >= Duration::from_secs(2) && pause < Duration::from_secs(2) + SLACK, "{pause:?}");
    }

    // For ever: few requests, then the error tells why.
    let impatient = lab.line(Duration::from_secs(3));
    let (path, name, _) = new_segment(&lab);
    let run = impatient.walarchive([Rule::always(slow_down())], &["wal", "push", &path]).exits(5);
    assert!(run.applied <= 12, "{run:#?}");
    assert!(run.output.stderr.contains("SlowDown"), "{run:#?}");
    assert_eq!(lab.stored(&name), None);
}

/// Pushes, fetches and lists under an answer for ever: exit 5 at once, with words that help.
fn refused_at_once(lab: &Lab, fault: &Fault, words: &[&str]) {
    let line = lab.line(PATIENT);
    let (path, name, _) = new_segment(lab);
    let commands: [&[&str]; 4] =
        [&["wal", "push", &path], &["wal", "list"], &["backup", "list"], &["wal", "fetch", &name, "dest"]];
    for args in commands {
        let code = if args[1] == "fetch" { 205 } else { 5 };
        let run = line.walarchive([Rule::always(fault.clone())], args).exits(code);
        let run = run.within(Duration::from_secs(2) + SLACK / 2);
        assert!(run.applied <= 2, "{run:#?}");
        for word in words {
            assert!(run.output.stderr.contains(word), "no {word}: {run:#?}");
        }
    }
    assert_eq!(lab.stored(&name), None);
}

#[test]
fn what_does_not_pass_fails_at_once_and_says_why() {
    let Some(lab) = Lab::new() else { return };
    refused_at_once(&lab, &answer(403, "AccessDenied"), &["AccessDenied"]);
    refused_at_once(&lab, &answer(403, "InvalidAccessKeyId"), &["InvalidAccessKeyId"]);
    refused_at_once(&lab, &answer(403, "SignatureDoesNotMatch"), &["SignatureDoesNotMatch"]);
    refused_at_once(&lab, &answer(403, "RequestTimeTooSkewed"), &["clock"]);
    refused_at_once(&lab, &answer(404, "NoSuchBucket"), &["bucket"]);
}

#[test]
fn a_missing_bucket_is_never_absence() {
    let Some(lab) = Lab::new() else { return };
    let mut product = lab.line(PATIENT).product;
    let missing = lab.bucket.missing();
    crate::lab::aim(&mut product, &missing);
    let (path, name, _) = new_segment(&lab);
    for args in [&["wal", "push", &path][..], &["wal", "list"], &["backup", "list"], &["init"]] {
        let begun = std::time::Instant::now();
        let output = product.run(args);
        assert_eq!(output.code, Some(5), "{args:?}: {output:#?}");
        assert!(begun.elapsed() < Duration::from_secs(2) + SLACK / 2, "{args:?}: {output:#?}");
        assert!(output.stderr.contains(missing.name()), "{args:?}: {output:#?}");
    }
    for name in [name.as_str(), "00000009.history"] {
        let (_, output) = lab.fetch(&product, name);
        assert_eq!(output.code, Some(205), "{output:#?}");
    }
}

#[test]
fn an_expired_token_is_read_again() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    pushes(&lab, &line, |name| vec![Rule::once(answer(400, "ExpiredToken")).method("PUT").path(name)]);
    pushes(&lab, &line, |_| vec![Rule::once(answer(403, "ExpiredToken"))]);
}

#[test]
fn a_store_that_is_away_for_a_while_is_waited_for() {
    let Some(lab) = Lab::new() else { return };
    let line = lab.line(PATIENT);
    for _ in 0..3 {
        pushes(&lab, &line, |_| vec![Rule::once(Fault::Outage(Duration::from_secs(2)))]);
    }
    // Nobody listens from the very beginning.
    let impatient = lab.line(Duration::from_secs(1));
    impatient.proxy.down();
    let (path, name, _) = new_segment(&lab);
    let output = impatient.product.run(&["wal", "push", &path]);
    assert_eq!(output.code, Some(5), "{output:#?}");
    let (_, output) = lab.fetch(&impatient.product, &name);
    assert_eq!(output.code, Some(205), "{output:#?}");
    impatient.proxy.up();
    impatient.product.ok(&["wal", "push", &path]);
    assert!(lab.stored(&name).is_some());
}
