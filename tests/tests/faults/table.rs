//! The faults, what each of them may lead to, and how cells of the table are run and judged.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use walarchive_tests::proxy::{Answer, Fault, Rule};

use crate::lab::{Lab, Line, Run, SLACK, TIMEOUT};

/// What a fault may do to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing.
    Harmless,
    /// Once: nothing. For ever: unreachable.
    Passing,
    /// Denied, without another try.
    Denied,
    /// Once: nothing, or damage that is seen. For ever: any error.
    Corrupting,
}

/// Every fault that is not a lie of the store.
pub fn faults() -> Vec<(Fault, Class)> {
    use Class::{Corrupting, Denied, Harmless, Passing};
    let ms = Duration::from_millis;
    let answer = |status, code| Fault::Answer(Answer::s3(status, code, "as the script says"));
    vec![
        (Fault::Delay(ms(150)), Harmless),
        // A segment takes longer than any timeout, and goes on all the time.
        (Fault::Slow(16 << 10, ms(30)), Harmless),
        (Fault::Duplicate, Harmless),
        (Fault::Outage(ms(300)), Passing),
        (Fault::Reset, Passing),
        (Fault::ResetRequest(100), Passing),
        (Fault::ResetRequest(u64::MAX), Passing),
        (Fault::ResetAnswer(20), Passing),
        (Fault::Truncate(20), Passing),
        (Fault::Truncate(u64::MAX), Passing),
        (Fault::LoseAnswer, Passing),
        (Fault::Swallow, Passing),
        (Fault::StallRequest(100), Passing),
        (Fault::StallHead, Passing),
        (Fault::StallAnswer(20), Passing),
        (answer(500, "InternalError"), Passing),
        (Fault::Answer(Answer::slow_down()), Passing),
        (Fault::Answer(Answer::slow_down().early()), Passing),
        (Fault::Answer(Answer::new(429).header("Retry-After", "1")), Passing),
        (answer(403, "AccessDenied"), Denied),
        (Fault::FlipRequest(1000), Corrupting),
        (Fault::FlipAnswer(150), Corrupting),
    ]
}

/// An operation, made ready.
pub struct Ready {
    pub command: Command,
    /// How it ends when nothing is wrong.
    pub code: i32,
    /// The WAL file in question, for the operation's own judgement.
    pub name: String,
    /// The number from which its content was made.
    pub seed: u64,
    /// Where a fetched file goes, or a restored cluster.
    pub dest: Option<std::path::PathBuf>,
}

/// A row of the table.
pub struct Operation {
    pub name: &'static str,
    /// Makes one more instance of it, through the clean way, that runs through the line.
    pub ready: fn(&Lab, &Line) -> Ready,
    /// Judges what is stored, or was written, after it ended with a code (without what fetch adds in recovery).
    pub judge: fn(&Lab, &Ready, i32) -> Result<(), String>,
    /// Whether a bit that is flipped in an answer is seen: in the list of an S3 bucket nothing tells.
    pub sees_flips: bool,
}

/// One cell: a fault at one request (the first is 0), or at all of them.
struct Cell<'a> {
    operation: &'a Operation,
    fault: Fault,
    class: Class,
    at: Option<usize>,
}

/// Tries `operations` under every fault, at each of their requests (but at most `most`, evenly spread) and at all of
/// them, in `workers` threads. Panics with all that went wrong.
pub fn try_all(lab: &Lab, operations: &[Operation], most: usize, workers: usize) {
    let mut cells = Vec::new();
    for operation in operations {
        let requests = count_requests(lab, operation);
        let step = requests.div_ceil(most).max(1);
        for (fault, class) in faults() {
            if matches!(fault, Fault::FlipAnswer(_)) && !operation.sees_flips {
                continue;
            }
            let places = (0..requests).step_by(step).map(Some).chain([None]);
            cells.extend(places.map(|at| Cell { operation, fault: fault.clone(), class, at }));
        }
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let (patient, impatient) = (lab.line(Duration::from_secs(30)), lab.line(TIMEOUT));
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // What is harmless may take its time, and so may a store under load: asking it again is no failure.
                    let line = if cell.at.is_some() || cell.class == Class::Harmless {
                        &patient
                    } else {
                        &impatient
                    };
                    if let Err(what) = try_one(lab, line, cell) {
                        wrong.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    eprintln!("{} cells, {} of them wrong", cells.len(), wrong.len());
    assert!(wrong.is_empty(), "{} of {} cells:\n\n{}", wrong.len(), cells.len(), wrong.join("\n\n"));
}

/// The number of requests that an operation makes when nothing is wrong.
fn count_requests(lab: &Lab, operation: &Operation) -> usize {
    let line = lab.line(Duration::from_secs(30));
    let ready = (operation.ready)(lab, &line);
    let code = ready.code;
    let run = line.run([], ready.command).exits(code);
    assert!(!run.log.is_empty(), "{} asked nobody", operation.name);
    let requests: Vec<_> = run.log.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    eprintln!("{}: {} requests: {requests:#?}", operation.name, requests.len());
    requests.len()
}

fn try_one(lab: &Lab, line: &Line, cell: &Cell<'_>) -> Result<(), String> {
    let mut ready = (cell.operation.ready)(lab, line);
    let rule = match cell.at {
        Some(at) => Rule::once(cell.fault.clone()).after(at),
        None => Rule::always(cell.fault.clone()),
    };
    let command = std::mem::replace(&mut ready.command, Command::new("true"));
    let run = line.run([rule], command);
    let judged = judge(cell, &ready, &run).and_then(|code| (cell.operation.judge)(lab, &ready, code));
    judged.map_err(|what| {
        let Cell { operation, fault, class, at } = cell;
        let place = at.map_or("always".to_owned(), |at| format!("at request {at}"));
        let log: Vec<_> = run.log.iter().map(line_of).collect();
        format!(
            "## {} under {fault:?} ({class:?}) {place}: {what}\n{:?} after {:?}, fault applied {} times: {}\n{}",
            operation.name,
            run.output.code,
            run.took,
            run.applied,
            run.output.stderr,
            log.join("\n")
        )
    })
}

fn line_of(seen: &walarchive_tests::proxy::Seen) -> String {
    let fault = seen.fault.as_deref().unwrap_or("-");
    format!("  {} {} {fault} {:?} {:?}", seen.method, seen.path, seen.upstream, seen.status)
}

/// The exit code, without what fetch adds in recovery, when it is a right one in time.
fn judge(cell: &Cell<'_>, ready: &Ready, run: &Run) -> Result<i32, String> {
    let Some(code) = run.output.code else { return Err(format!("a signal: {:?}", run.output.signal)) };
    let code = if code > 200 { code - 200 } else { code };
    let passed = code == ready.code;
    if run.applied == 0 {
        return if passed { Ok(code) } else { Err("without the fault".into()) };
    }
    let right = match (cell.class, cell.at) {
        (Class::Harmless, _) | (Class::Passing, Some(_)) => passed,
        (Class::Passing, None) => code == 5,
        // What is only nice to have may be refused.
        (Class::Denied, Some(_)) => passed || code == 5,
        (Class::Denied, None) => code == 5,
        // Seen by the product, or by the store: that calls a request that was changed a bad one.
        (Class::Corrupting, _) => passed || matches!(code, 2 | 4 | 5),
    };
    if !right {
        return Err(format!("the exit code is {code}, of a clean run it is {}", ready.code));
    }
    if !passed && run.output.stderr.trim().is_empty() {
        return Err("not a word on stderr".into());
    }
    let limit = match (cell.class, cell.at) {
        (Class::Denied, _) => Duration::from_secs(2) + SLACK / 2,
        // Nothing is wrong; it only takes its time.
        (Class::Harmless, None) => Duration::from_secs(60),
        (_, Some(_)) => TIMEOUT * 2 + SLACK,
        (_, None) => TIMEOUT * 3 + SLACK,
    };
    if run.took > limit {
        return Err(format!("{limit:?} were allowed"));
    }
    if cell.class == Class::Passing && cell.at.is_none() && run.applied > 24 {
        return Err("without a pause".into());
    }
    Ok(code)
}
