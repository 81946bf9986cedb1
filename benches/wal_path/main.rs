//! The way of WAL into an archive and back, as servers go it: a backlog, a server that archives while it writes, a recovery, and very
//! many small segments. Everything beside what reading, compressing and writing the same bytes takes by itself.

mod archiver;
mod backlog;
mod cases;
mod cpu;
mod floor;
mod line;
mod load;
mod push;
mod recovery;
mod rows;
mod server;
mod tiny;

use std::sync::atomic::{AtomicU32, Ordering};

use walarchive_benches::{samples, smoke};

/// Segments, where nothing else is said.
const SEGMENTS: usize = 256;
/// To see that it runs: in a backlog, and of a server.
const FEW: usize = 8;
const FEWER: usize = 2;

const ROUNDS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if archiver::run(&args) || floor::run(&args) {
        return;
    }
    let wanted = words(&args);
    let runs = |name: &str| wanted.is_empty() || wanted.contains(&name);
    let rounds = number(&args, "--rounds").unwrap_or(if smoke() { 1 } else { ROUNDS });
    let wanted_count = number(&args, "--segments");
    let count = |few: usize| wanted_count.unwrap_or(if smoke() { few } else { SEGMENTS });
    // The last is the one nearest to real WAL.
    let data = samples().pop().expect("there are samples");
    if runs("push") {
        push::measure(&data, rounds, count(FEW));
    }
    if runs("server") {
        server::measure(rounds, count(FEWER));
    }
    if runs("recovery") {
        recovery::measure(rounds, count(FEWER));
    }
    if runs("backlog") {
        tiny::backlog(&data, wanted_count);
    }
    if runs("tiny") {
        tiny::one_by_one(&data, wanted_count);
    }
}

/// What is neither an option nor an option's number.
fn words(args: &[String]) -> Vec<&str> {
    let words = args.iter().map(String::as_str);
    words.filter(|word| !word.starts_with("--") && word.parse::<usize>().is_err()).collect()
}

/// The number behind an option.
fn number(args: &[String], option: &str) -> Option<usize> {
    let mut args = args.iter().skip_while(|arg| *arg != option).skip(1);
    args.next().map(|number| number.parse().unwrap_or_else(|_| panic!("{option} is followed by a number")))
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
